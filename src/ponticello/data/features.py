"""The front end `features`: frame or track vectors that the user has, in the place of what a front end would hear.

    mert.npz        arrays `ids` (n,) and `vectors` (n, F)
    mert.parquet    columns `track_id` and `vector`
    mert/           TRACK_ID.npy, each (F,) or (T, F)

A library needs no audio then. Dimensions: T frames, F numbers a frame, any F.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import TRACK_ID
from ponticello.data.prepare import FrontEnd
from ponticello.data.shards import Mel
from ponticello.data.vectors import read_vector_file
from ponticello.errors import CheckpointError, ConfigError, DataError
from ponticello.library import Folder, Skipped

STEP = "prepare features"
# By track id: the file and the size of its vector; what cannot be used; what reads one.
_Found = tuple[dict[str, tuple[Path, int]], list[Skipped], Callable[[Path, str], Mel]]
LARGEST = float(np.finfo(np.float16).max)  # 65,504: frames are kept as float16


@dataclass(frozen=True)
class GivenFrames:
    """The front end `features`; see `FrozenFrontEnd`. place: the setting; ConfigError where it is empty."""

    place: str
    notice = ""

    def __post_init__(self) -> None:
        if not self.place:
            raise ConfigError('front_end "features" needs the setting features = "FILE OR FOLDER of vectors"')

    @property
    def key(self) -> str:
        """As `FrozenFrontEnd.key`."""
        return f"features {self.place}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """As `FrozenFrontEnd.blocks`."""
        return ((frame_size, 1.0),)

    def preparation(self, folder: Folder) -> tuple[FrontEnd, Mapping[str, Path]]:
        """As the protocol says; reads a file whole, and of a folder each file's header. DataError if there is none."""
        place = folder.root / self.place
        sizes, unusable, extract = _look_into_folder(place) if place.is_dir() else _look_into_file(place)
        known, size = set(read_tracks(folder)[TRACK_ID]), _commonest(sizes)
        for track_id, (path, own) in sizes.items():
            if track_id not in known:
                unusable.append(_skipped(path, track_id, "is no track of the catalogue"))
            elif own != size:
                unusable.append(_skipped(path, track_id, f"has {own} numbers, where most vectors have {size}"))
        left_out = {line.value for line in unusable}
        sources = {track_id: path for track_id, (path, _) in sizes.items() if track_id not in left_out}
        place = folder.frames_of("features")
        return FrontEnd(place, self.key, extract, STEP, is_safe=True, unusable=tuple(unusable)), sources

    def hear(self, sound: Path | np.ndarray, sample_rate: int) -> Mel:
        """As `FrozenFrontEnd.hear`: it never can."""
        raise CheckpointError(
            f"this model was trained on vectors from {self.place} and cannot hear a sound; "
            "make the sound's vector as those were made, and give it to encode_mels"
        )


def _look_into_file(path: Path) -> _Found:
    ids, vectors = read_vector_file(path)
    rows = dict(zip(ids, vectors, strict=True))
    return {track_id: (path, len(row)) for track_id, row in rows.items()}, [], partial(_of_row, rows=rows)


def _look_into_folder(place: Path) -> _Found:
    """Reads the header of every `.npy` file; DataError if there is none."""
    sizes: dict[str, tuple[Path, int]] = {}
    unusable: list[Skipped] = []
    paths = sorted(place.glob("*.npy"))
    if not paths:
        raise DataError(f"{place} holds no .npy file; name one TRACK_ID.npy for each track")
    for path in paths:
        try:
            frames = _open_npy(path)
        except DataError as error:
            unusable.append(_skipped(path, path.stem, str(error)))
        else:
            sizes[path.stem] = (path, frames.shape[-1])
    return sizes, unusable, _of_npy


def _open_npy(path: Path) -> np.ndarray:
    """(F,) or (T, F) numbers, in place; DataError for anything else."""
    try:
        frames: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, TokenError) as error:  # the last three: its header
        raise DataError(f"cannot be read as .npy without pickles: {str(error).partition(chr(10))[0]}") from None
    if frames.dtype.kind not in "fiu" or frames.ndim not in (1, 2) or not frames.size:
        raise DataError(f"must be (F,) or (T, F) numbers; found {frames.shape} of {frames.dtype}")
    return frames


def _of_npy(path: Path, _track_id: str) -> Mel:
    return _checked(_open_npy(path))


def _of_row(_path: Path, track_id: str, rows: Mapping[str, np.ndarray]) -> Mel:
    return _checked(rows[track_id])


def _checked(frames: np.ndarray) -> Mel:
    """(T, F) float16; DataError if a number is not finite or too large for that."""
    if not np.isfinite(frames).all():
        raise DataError("holds numbers that are not finite")
    if np.abs(frames).max() > LARGEST:
        raise DataError(f"holds numbers above {LARGEST:,.0f}, which float16 cannot hold; scale the vectors down")
    return np.atleast_2d(frames).astype(np.float16)


def _commonest(sizes: Mapping[str, tuple[Path, int]]) -> int:
    """The size most vectors have, the first met of several; 0 if there are none or most are empty."""
    return next((size for size, _ in Counter(size for _, size in sizes.values() if size).most_common(1)), 0)


def _skipped(path: Path, track_id: str, reason: str) -> Skipped:
    return Skipped(str(path), None, TRACK_ID, track_id, reason)
