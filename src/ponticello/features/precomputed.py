"""The front end `features`: vectors of tracks or frames that other programs computed.

    mert.npz        arrays `ids` (n,) and `vectors` (n, F)
    mert.parquet    columns `track_id` and `vector`
    mert/           TRACK_ID.npy, each (F,) or (T, F)

A library with this front end needs no audio. Pickles are never read.
Dimensions: T frames, F numbers per frame, any F.
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

NPZ_IDS = "ids"
NPZ_VECTORS = "vectors"
VECTOR = "vector"
_FLOAT16_MAX = float(np.finfo(np.float16).max)  # 65,504: features are stored as float16


@dataclass(frozen=True)
class PrecomputedFeatures:
    """The front end `features`; see `FeatureExtractor`.

    path: the setting `features`, relative to the library; ConfigError if it is empty.
    """

    path: str
    notice = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError(
                'front_end "features" needs the setting features = "FILE OR FOLDER of vectors"'
            )

    @property
    def key(self) -> str:
        """Contains the path."""
        return f"features {self.path}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """Returns one block, the whole frame."""
        return ((frame_size, 1.0),)

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """Returns the job that copies the vectors, and the file of each track.

        Vectors of tracks outside the catalogue, or of another size than most, are unusable. Reads
        a file as a whole, or the headers of all files of a folder. DataError if there are none.
        """
        path = folder.root / self.path
        unusable: list[SkippedRow] = []
        extract: Callable[[Path, str], Features]
        if path.is_dir():
            extract = _extract_npy
            files, sizes = _list_folder(path, unusable)
        else:
            ids, vectors = read_vector_file(path)
            extract = partial(_extract_row, rows=dict(zip(ids, vectors, strict=True)))
            files = dict.fromkeys(ids, path)
            sizes = dict(zip(ids, map(len, vectors), strict=True))
        catalogue = set(read_tracks(folder)[TRACK_ID])
        counts = Counter(size for size in sizes.values() if size)
        usual_size = max(counts, key=counts.__getitem__, default=0)
        sources: dict[str, Path] = {}
        for track_id, size in sizes.items():
            if track_id not in catalogue:
                reason = "is no track of the catalogue"
                unusable.append(_skipped_row(files[track_id], track_id, reason))
            elif size != usual_size:
                reason = f"has {size} numbers, where most vectors have {usual_size}"
                unusable.append(_skipped_row(files[track_id], track_id, reason))
            else:
                sources[track_id] = files[track_id]
        job = ExtractionJob(
            folder=folder.frames_of("features"),
            key=self.key,
            extract=extract,
            step="prepare features",
            is_safe=True,
            unusable=tuple(unusable),
        )
        return job, sources

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """Raises CheckpointError: the program that computed the vectors is unknown."""
        raise CheckpointError(
            f"this model was trained on vectors from {self.path} and cannot read a sound; "
            "compute the sound's vector as those were computed, and give it to encode_features"
        )


def _list_folder(
    folder: Path, unusable: list[SkippedRow]
) -> tuple[dict[str, Path], dict[str, int]]:
    """Returns file and size of vector by track id, from the headers of the `.npy` files.

    Adds to `unusable` the files that are not readable; DataError if there is no file.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    if not files:
        raise DataError(f"{folder} holds no .npy file; name one TRACK_ID.npy for each track")
    sizes: dict[str, int] = {}
    for track_id, path in files.items():
        try:
            sizes[track_id] = _open_npy(path).shape[-1]
        except DataError as error:
            unusable.append(_skipped_row(path, track_id, str(error)))
    return files, sizes


def _open_npy(path: Path) -> np.ndarray:
    """Returns (F,) or (T, F) numbers as a memory map; DataError for anything else."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    # The last three are errors of the header, which numpy parses as Python source.
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, TokenError) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(f"cannot be read as .npy without pickles: {first_line}") from None
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
        raise DataError(f"must be (F,) or (T, F) numbers; found {array.shape} of {array.dtype}")
    return array


def _extract_npy(path: Path, _track_id: str) -> Features:
    return _to_features(_open_npy(path))


def _extract_row(_path: Path, track_id: str, rows: Mapping[str, np.ndarray]) -> Features:
    return _to_features(rows[track_id])


def _to_features(array: np.ndarray) -> Features:
    """Returns (T, F) float16; DataError if a number is not finite or exceeds float16."""
    if not np.isfinite(array).all():
        raise DataError("holds numbers that are not finite")
    if np.abs(array).max() > _FLOAT16_MAX:
        raise DataError(
            f"holds numbers above {_FLOAT16_MAX:,.0f}, which float16 cannot hold; "
            "scale the vectors down"
        )
    return np.atleast_2d(array).astype(np.float16)


def _skipped_row(path: Path, track_id: str, reason: str) -> SkippedRow:
    return SkippedRow(str(path), None, TRACK_ID, track_id, reason)


def read_vector_file(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Returns the track ids in a file and the vector of each, (d,) float64.

    path: `.npz` with arrays `ids` (n,) and `vectors` (n, d), or Parquet with columns `track_id` and
    `vector`, where vectors may differ in size and null becomes an empty one. Ids are text or
    integers. Raises DataError for missing or malformed columns and for repeated ids.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give an .npz or .parquet file of vectors")
    ids, vectors = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    column = pl.Series(ids, dtype=pl.String)
    repeated = column.filter(column.is_duplicated())
    if len(repeated):
        raise DataError(f"{path.name}: id {repeated[0]!r} is listed twice")
    return ids, vectors


def _read_npz(path: Path) -> tuple[list[str], list[np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = {NPZ_IDS, NPZ_VECTORS} - set(arrays.files)
            if missing:
                raise DataError(
                    f"{path.name}: array {min(missing)!r} is missing; "
                    f"found {', '.join(arrays.files)}"
                )
            ids = arrays[NPZ_IDS]
            matrix = arrays[NPZ_VECTORS]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        first_line = str(error).splitlines()[0]
        raise DataError(
            f"{path.name} cannot be read as .npz without pickles: {first_line}"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "UiuS" or matrix.dtype.kind not in "fiu":
        raise DataError(
            f"{path.name}: ids must be text or whole numbers and vectors numbers; "
            f"found {ids.dtype}, {matrix.dtype}"
        )
    if matrix.ndim != 2 or len(ids) != len(matrix) or not matrix.size:
        raise DataError(
            f"{path.name}: {len(ids)} ids and vectors of shape {matrix.shape}; "
            "wanted (n,) and (n, d)"
        )
    track_ids = []
    for value in ids.tolist():
        track_ids.append(value.decode() if isinstance(value, bytes) else str(value))
    return track_ids, list(matrix.astype(np.float64))


def _read_parquet(path: Path) -> tuple[list[str], list[np.ndarray]]:
    table = read_parquet(path, path.name)
    for column in (TRACK_ID, VECTOR):
        if column not in table.columns:
            raise DataError(
                f"{path.name}: column {column!r} is missing; found {', '.join(table.columns)}"
            )
    n_null = table[TRACK_ID].null_count()
    if n_null or table.is_empty():
        raise DataError(f"{path.name}: every row needs an id; {n_null} of {table.height} have none")
    try:
        vectors = table[VECTOR].cast(pl.List(pl.Float64)).fill_null([])
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path.name}: column {VECTOR!r} must hold lists of numbers: {error}"
        ) from None
    return table[TRACK_ID].cast(pl.String).to_list(), [row.to_numpy() for row in vectors]
