"""GTZAN: files by genre, and three lists of lines."""

from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError


def _lists(root: Path, **lines: str) -> None:
    for name, text in lines.items():
        (root / f"{name}_filtered.txt").write_text(text)


@pytest.mark.parametrize(("root", "ending"), [("genres", "au"), ("genres_original", "wav")])
def test_clips_have_their_genre_and_the_split_of_their_list(
    tmp_path: Path, root: str, ending: str
) -> None:
    """Copies as .au have the same names as the lists' .wav."""
    for name in ("blues.00000", "blues.00001"):
        path = tmp_path / root / "blues" / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")
    _lists(tmp_path, train="blues/blues.00001.wav\n", valid="jazz/jazz.00054.wav\n", test="")
    content = SETS["gtzan"].read(tmp_path)
    assert content.tracks.select("track_id", "genres", "split").rows() == [
        ("blues.00000", ["blues"], None),
        ("blues.00001", ["blues"], "train"),
        ("jazz.00054", ["jazz"], "validation"),
    ]
    assert content.tracks["path"].to_list()[1:] == [
        (tmp_path / root / f"blues/blues.00001.{ending}").as_posix(),
        None,
    ]
    assert (content.skipped, content.missing) == ([], [])


def test_bad_lines_and_files_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    _lists(
        tmp_path, train="blues/blues.00001.wav\nblues/../x.wav\n", test="blues/blues.00001.wav\n"
    )
    (tmp_path / "genres" / "blues").mkdir(parents=True)
    (tmp_path / "genres" / "blues" / "mine.wav").write_bytes(b"sound")
    content = SETS["gtzan"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["blues.00001"]
    assert content.missing == ["valid_filtered.txt"]
    assert [(Path(row.file).name, row.line, row.reason) for row in content.skipped] == [
        ("train_filtered.txt", 2, "is not such as blues/blues.00029.wav"),
        ("test_filtered.txt", 1, "is in train already"),
        ("mine.wav", None, "is not named as genre/genre.00000.wav"),
    ]


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no genres/ and no train_filtered\.txt; to get them: the audio"
    ):
        SETS["gtzan"].read(tmp_path)
