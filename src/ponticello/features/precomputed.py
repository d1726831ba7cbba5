"""The front end `features`: frame or track vectors that the user has, in the place of what a front
end would hear.

    mert.npz        arrays `ids` (n,) and `vectors` (n, F)
    mert.parquet    columns `track_id` and `vector`
    mert/           TRACK_ID.npy, each (F,) or (T, F)

A library needs no audio then. Dimensions: T frames, F numbers a frame, any F.

Vectors in a file that another program wrote, read as they are: `.npz` or Parquet, never a pickle.
"""

import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np
import polars as pl

from ponticello.errors import CheckpointError, ConfigError, DataError
from ponticello.features.extraction import ExtractionJob
from ponticello.features.store import Features
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import TRACK_ID
from ponticello.storage.tables import read_parquet
from ponticello.tracks.catalog import read_tracks

NPZ_IDS, NPZ_VECTORS = "ids", "vectors"
VECTOR = "vector"


def read_vector_file(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """The track ids of a file, and the vector of each, (d,) float64.

    `.npz` with arrays `ids` (n,) and `vectors` (n, d), or Parquet with columns `track_id` and
    `vector`, whose vectors may differ in size and are empty where the cell is. An id is text or a
    whole number. DataError names what is missing, of another shape, or listed twice.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give an .npz or .parquet file of vectors")
    ids, vectors = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    repeated = pl.Series(ids, dtype=pl.String)
    if repeated.is_duplicated().any():
        raise DataError(
            f"{path.name}: id {repeated.filter(repeated.is_duplicated())[0]!r} is listed twice"
        )
    return ids, vectors


def _read_npz(path: Path) -> tuple[list[str], list[np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = {NPZ_IDS, NPZ_VECTORS} - set(arrays.files)
            if missing:
                raise DataError(
                    f"{path.name}: array {min(missing)!r} is missing; found {', '.join(arrays.files)}"
                )
            ids, matrix = arrays[NPZ_IDS], arrays[NPZ_VECTORS]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name} cannot be read as .npz without pickles: {str(error).splitlines()[0]}"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "UiuS" or matrix.dtype.kind not in "fiu":
        raise DataError(
            f"{path.name}: ids must be text or whole numbers and vectors numbers; found {ids.dtype}, {matrix.dtype}"
        )
    if matrix.ndim != 2 or len(ids) != len(matrix) or not matrix.size:
        raise DataError(
            f"{path.name}: {len(ids)} ids and vectors of shape {matrix.shape}; wanted (n,) and (n, d)"
        )
    names = [i.decode() if isinstance(i, bytes) else str(i) for i in ids.tolist()]
    return names, list(matrix.astype(np.float64))


def _read_parquet(path: Path) -> tuple[list[str], list[np.ndarray]]:
    table = read_parquet(path, path.name)
    for column in (TRACK_ID, VECTOR):
        if column not in table.columns:
            raise DataError(
                f"{path.name}: column {column!r} is missing; found {', '.join(table.columns)}"
            )
    if table[TRACK_ID].null_count() or table.is_empty():
        raise DataError(
            f"{path.name}: every row needs an id; {table[TRACK_ID].null_count()} of {table.height} have none"
        )
    try:
        rows = table[VECTOR].cast(pl.List(pl.Float64)).fill_null([])
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path.name}: column {VECTOR!r} must hold lists of numbers: {error}"
        ) from None
    return table[TRACK_ID].cast(pl.String).to_list(), [row.to_numpy() for row in rows]


STEP = "prepare features"
# By track id: the file and the size of its vector; what cannot be used; what reads one.
_Found = tuple[dict[str, tuple[Path, int]], list[SkippedRow], Callable[[Path, str], Features]]
LARGEST = float(np.finfo(np.float16).max)  # 65,504: frames are kept as float16


@dataclass(frozen=True)
class PrecomputedFeatures:
    """The front end `features`; see `FeatureExtractor`. place: the setting; ConfigError where it is
    empty.
    """

    place: str
    notice = ""

    def __post_init__(self) -> None:
        if not self.place:
            raise ConfigError(
                'front_end "features" needs the setting features = "FILE OR FOLDER of vectors"'
            )

    @property
    def key(self) -> str:
        """As `FeatureExtractor.key`."""
        return f"features {self.place}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """As `FeatureExtractor.blocks`."""
        return ((frame_size, 1.0),)

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """As the protocol says; reads a file whole, and of a folder each file's header. DataError
        if there is none.
        """
        place = folder.root / self.place
        sizes, unusable, extract = (
            _look_into_folder(place) if place.is_dir() else _look_into_file(place)
        )
        known, size = set(read_tracks(folder)[TRACK_ID]), _commonest(sizes)
        for track_id, (path, own) in sizes.items():
            if track_id not in known:
                unusable.append(_skipped(path, track_id, "is no track of the catalogue"))
            elif own != size:
                unusable.append(
                    _skipped(path, track_id, f"has {own} numbers, where most vectors have {size}")
                )
        left_out = {line.value for line in unusable}
        sources = {
            track_id: path for track_id, (path, _) in sizes.items() if track_id not in left_out
        }
        place = folder.frames_of("features")
        return ExtractionJob(
            place, self.key, extract, STEP, is_safe=True, unusable=tuple(unusable)
        ), sources

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """As `FeatureExtractor.extract`: it never can."""
        raise CheckpointError(
            f"this model was trained on vectors from {self.place} and cannot hear a sound; "
            "make the sound's vector as those were made, and give it to encode_features"
        )


def _look_into_file(path: Path) -> _Found:
    ids, vectors = read_vector_file(path)
    rows = dict(zip(ids, vectors, strict=True))
    return (
        {track_id: (path, len(row)) for track_id, row in rows.items()},
        [],
        partial(_of_row, rows=rows),
    )


def _look_into_folder(place: Path) -> _Found:
    """Reads the header of every `.npy` file; DataError if there is none."""
    sizes: dict[str, tuple[Path, int]] = {}
    unusable: list[SkippedRow] = []
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
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        TokenError,
    ) as error:  # the last three: its header
        raise DataError(
            f"cannot be read as .npy without pickles: {str(error).partition(chr(10))[0]}"
        ) from None
    if frames.dtype.kind not in "fiu" or frames.ndim not in (1, 2) or not frames.size:
        raise DataError(f"must be (F,) or (T, F) numbers; found {frames.shape} of {frames.dtype}")
    return frames


def _of_npy(path: Path, _track_id: str) -> Features:
    return _checked(_open_npy(path))


def _of_row(_path: Path, track_id: str, rows: Mapping[str, np.ndarray]) -> Features:
    return _checked(rows[track_id])


def _checked(frames: np.ndarray) -> Features:
    """(T, F) float16; DataError if a number is not finite or too large for that."""
    if not np.isfinite(frames).all():
        raise DataError("holds numbers that are not finite")
    if np.abs(frames).max() > LARGEST:
        raise DataError(
            f"holds numbers above {LARGEST:,.0f}, which float16 cannot hold; scale the vectors down"
        )
    return np.atleast_2d(frames).astype(np.float16)


def _commonest(sizes: Mapping[str, tuple[Path, int]]) -> int:
    """The size most vectors have, the first met of several; 0 if there are none or most are empty."""
    return next(
        (size for size, _ in Counter(size for _, size in sizes.values() if size).most_common(1)), 0
    )


def _skipped(path: Path, track_id: str, reason: str) -> SkippedRow:
    return SkippedRow(str(path), None, TRACK_ID, track_id, reason)
