"""GTZAN: 1,000 clips of 30 s in ten genres, with the fault-filtered, artist-aware split.

`folder` holds `genres/<genre>/<genre>.00000.wav` (or .au; or `genres_original/`) and the three split lists,
`train_filtered.txt`, `valid_filtered.txt` and `test_filtered.txt`, with lines such as `blues/blues.00029.wav`.
"""

import re
from pathlib import Path

from ponticello.data.columns import GENRES, PATH, TRACK_ID
from ponticello.data.formats import shown
from ponticello.data.public.content import Content, optional, track_table
from ponticello.errors import DataError
from ponticello.library import Skipped

HOW_TO_GET = (
    "the audio from a mirror (its first home is gone); the lists from GTZAN_split/ of "
    "https://github.com/jongpillee/music_dataset_split"
)
_LISTS = {"train_filtered.txt": "train", "valid_filtered.txt": "validation", "test_filtered.txt": "test"}
_FOLDERS = ("genres", "genres_original")
_LINE = re.compile(r"(?P<genre>[a-z]+)/(?P<name>(?P=genre)\.\d{5})\.(?:wav|au)")


def read(folder: Path) -> Content:
    """Every clip that lies in `folder` or stands in a list; track_id: such as `blues.00029`.

    split: train, validation or test; null for a clip in no list, which the filtered split leaves out.

    DataError: neither audio nor a list is there.
    """
    skipped: list[Skipped] = []
    missing: list[str] = []
    splits: dict[str, str] = {}
    for name, split in _LISTS.items():
        if path := optional(folder, name, missing):
            _read_list(path, split, splits, skipped)
    root = next((folder / name for name in _FOLDERS if (folder / name).is_dir()), None)
    if root is None:
        missing.append(f"{_FOLDERS[0]}/")
    audio = {path.stem: path for path in sorted(root.glob("*/*")) if path.suffix in (".wav", ".au")} if root else {}
    for track_id in [name for name, path in audio.items() if not _LINE.fullmatch(f"{path.parent.name}/{path.name}")]:
        reason = "is not named as genre/genre.00000.wav"
        skipped.append(Skipped(audio.pop(track_id).as_posix(), None, PATH, track_id, reason))
    if not audio and not splits:
        raise DataError(f"{folder} has no genres/ and no {next(iter(_LISTS))}; to get them: {HOW_TO_GET}")
    rows = (
        {
            TRACK_ID: track_id,
            PATH: audio[track_id].absolute().as_posix() if track_id in audio else None,
            GENRES: [track_id.partition(".")[0]],
            "split": splits.get(track_id),
        }
        for track_id in sorted({*audio, *splits})
    )
    return Content(track_table(rows), None, skipped, missing)


def _read_list(path: Path, split: str, splits: dict[str, str], skipped: list[Skipped]) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        if match and match["name"] not in splits:
            splits[match["name"]] = split
        elif line.strip():
            reason = f"is in {splits[match['name']]} already" if match else "is not such as blues/blues.00029.wav"
            skipped.append(Skipped(path.name, number, PATH, shown(line.strip()), reason))
