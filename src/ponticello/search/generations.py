"""The index on disk: generations that are never changed, checked when opened, switched in one step.

index/<generation>/vectors.npy     (n, D) float32: semantic, then preference after stage two
index/<generation>/tracks.parquet  track_id in row order, mel_sha256, recording
index/<generation>/space-N.faiss   one per space of a large library (`faiss_index.py`)
index/<generation>/index.json      spaces, calibration, backend with its recall, hashes of the
                                   files above; its own SHA-256 is the generation's name
index/CURRENT                      the live generation's name
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ponticello.errors import CheckpointError, LibraryError
from ponticello.features.fingerprint import RECORDING, RECORDINGS_SCHEMA
from ponticello.search.embed import Vectors
from ponticello.search.faiss_index import LEAST_ROWS, build_clusters, open_clusters
from ponticello.search.index import Calibration, CandidateFinder, EmbeddingIndex, VectorSpace
from ponticello.search.pgvector_index import PgvectorIndex, build_table, drop_tables
from ponticello.storage.files import atomic_write, file_hash, is_unchanged
from ponticello.storage.schema import TRACK_ID

EXACT_ROWS = 200_000  # rows up to which all of them are compared: 7 ms on one core
INSTALL_FAISS = "pip install 'ponticello[faiss]'"
VECTORS = "vectors.npy"
TRACKS = "tracks.parquet"
RECORD = "index.json"
_NAME = re.compile(r"[0-9a-f]{16}")  # of a generation
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VectorBackend:
    """How the nearest rows of a generation are found, as its index.json describes it.

    kind: of the FAISS index. table: on the server. probed: the clusters searched at each blend.
    recall: the share of the exact ten best rows that the backend returned at each blend. Both are
    empty for exact search.
    """

    backend: Literal["exact", "faiss", "postgres"]
    kind: str = ""
    table: str = ""
    probed: Mapping[str, int] = field(default_factory=dict)
    recall: Mapping[str, float] = field(default_factory=dict)


def build_backend(
    backend: str, vectors: np.ndarray, track_ids: Sequence[str], n_spaces: int, folder: Path
) -> VectorBackend:
    """Builds the backend for `vectors` (n, D) float32, with its files in `folder`.

    backend: as the setting `search.backend`. `auto` is exact up to `EXACT_ROWS` and FAISS above;
    without FAISS it is exact and logs a warning. Below `LEAST_ROWS` `faiss` is exact, too.
    LibraryError if `faiss` is set and not installed, or as `PgvectorIndex`.
    """
    if "://" in backend:
        table, probed, recall = build_table(backend, vectors, track_ids, n_spaces)
        return VectorBackend("postgres", "IVFFlat" if probed else "", table, probed, recall)
    is_wanted = backend == "faiss" or (backend == "auto" and len(vectors) > EXACT_ROWS)
    if not is_wanted or len(vectors) < LEAST_ROWS:
        return VectorBackend("exact")
    if find_spec("faiss") is None:
        if backend == "faiss":
            raise LibraryError(f"search.backend is faiss, which is not installed: {INSTALL_FAISS}")
        logger.warning(
            "every one of %s tracks is looked at for each question; faster: %s",
            len(vectors),
            INSTALL_FAISS,
        )
        return VectorBackend("exact")
    kind, probed, recall = build_clusters(vectors, n_spaces, _faiss_files(folder, n_spaces))
    return VectorBackend("faiss", kind, "", probed, recall)


def open_backend(
    built: VectorBackend, backend: str, n_rows: int, n_spaces: int, folder: Path
) -> CandidateFinder | None:
    """Opens the backend of a generation of `n_rows` tracks; None = exact search.

    LibraryError if the generation was written for another backend, or a package is missing.
    """
    if backend == "exact":
        return None
    is_on_server = built.backend == "postgres"
    if ("://" in backend) != is_on_server:
        where = "on a server" if is_on_server else "on no server"
        shown = backend if is_on_server else "a PostgreSQL"  # a URL may hold a name
        raise LibraryError(
            f"the index is {where}, and search.backend is {shown}; change that, or run: "
            "ponticello embed"
        )
    if is_on_server:
        return PgvectorIndex(backend, built.table, n_rows, n_spaces, built.probed)
    if built.backend == "exact":
        return None
    if find_spec("faiss") is None:
        raise LibraryError(
            f"the index needs FAISS: {INSTALL_FAISS}; or ask without it: search.backend=exact"
        )
    return open_clusters(_faiss_files(folder, n_spaces), n_rows, built.probed)


def _faiss_files(folder: Path, n_spaces: int) -> list[Path]:
    return [folder / f"space-{number}.faiss" for number in range(n_spaces)]


def write_index(
    place: Path,
    semantic: Vectors,
    preference: Vectors | None,
    spaces: list[VectorSpace],
    recordings: pl.DataFrame | None = None,
    backend: str = "auto",
) -> Path:
    """Writes a generation of the tracks in all spaces and makes it live; the previous one is kept.

    recordings: as `find_recordings` returns them; a track that is missing there is a recording of
    its own, and None means all tracks are.
    backend: as the setting `search.backend`; LibraryError if a requirement of it is missing.
    """
    space_vectors = [semantic] if preference is None else [semantic, preference]
    common_ids = set.intersection(*[set(vectors.track_ids) for vectors in space_vectors])
    track_ids = sorted(common_ids)
    matrices = []
    for space in space_vectors:
        row_of = {track_id: row for row, track_id in enumerate(space.track_ids)}
        matrices.append(space.matrix[[row_of[track_id] for track_id in track_ids]])
    if recordings is None:
        recordings = pl.DataFrame(schema=RECORDINGS_SCHEMA)
    tracks = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String})
    tracks = tracks.join(recordings, on=TRACK_ID, how="left", maintain_order="left")
    tracks = tracks.with_columns(pl.col(RECORDING).fill_null(pl.col(TRACK_ID)))
    building = place / "building"
    with atomic_write(building) as temporary:
        temporary.mkdir()
        vectors = np.concatenate(matrices, axis=1)
        del matrices
        np.save(temporary / VECTORS, vectors, allow_pickle=False)
        tracks.write_parquet(temporary / TRACKS)
        built = build_backend(backend, vectors, track_ids, len(space_vectors), temporary)
        content = {
            "spaces": list(map(asdict, spaces)),
            "finder": asdict(built),
            "sha256": {file.name: file_hash(file) for file in sorted(temporary.iterdir())},
        }
        record = json.dumps(content, indent=1) + "\n"
        (temporary / RECORD).write_text(record, encoding="utf-8")
    name = hashlib.sha256(record.encode()).hexdigest()[:16]
    return _make_live(place, building, name, backend)


def _make_live(place: Path, building: Path, name: str, backend: str) -> Path:
    """Renames the finished generation and points CURRENT at it; the last live one is kept."""
    previous = _live(place) if (place / "CURRENT").is_file() else name
    if (place / name).exists() and not _fault(place / name):
        shutil.rmtree(building)  # the same index: keeps the files that readers have open
    else:
        shutil.rmtree(place / name, ignore_errors=True)
        building.rename(place / name)
    with atomic_write(place / "CURRENT") as temporary:
        temporary.write_text(name + "\n")
    if previous != name:
        old = []
        for path in place.iterdir():
            if path.is_dir() and path.name not in {name, previous}:
                old.append(path)
        needed = {"", _table(place / name), _table(place / previous)}
        tables = set(map(_table, old)) - needed
        if tables and "://" in backend:  # the setting still names their server
            drop_tables(backend, tables)
        for generation in old:
            shutil.rmtree(generation)
    return place / name


def open_index(place: Path, backend: str = "auto") -> EmbeddingIndex:
    """Opens the live generation; LibraryError if there is none, CheckpointError if it is damaged.

    backend: as the setting `search.backend`; LibraryError if the index was not written for it. In
    an index without recordings each track is a recording of its own.
    """
    if not (place / "CURRENT").is_file():
        raise LibraryError(
            "the library has no index yet",
            code="no_index",
            remedy="ponticello embed",
            library=place.parent,
        )
    name = _live(place)
    if not _NAME.fullmatch(name):
        raise _damaged(place, f"{place / 'CURRENT'} is damaged ({name!r} names no index)")
    generation = place / name
    if fault := _fault(generation):
        raise _damaged(place, f"{generation} is damaged ({fault})")
    record = json.loads((generation / RECORD).read_bytes())
    spaces = []
    for space in record["spaces"]:
        audio = Calibration(**space["audio"])
        text = Calibration(**space["text"])
        spaces.append(VectorSpace(space["run"], space["space_id"], audio, text))
    vectors = np.load(generation / VECTORS, mmap_mode="r", allow_pickle=False)
    tracks = pl.read_parquet(generation / TRACKS, glob=False)
    recordings = tracks[RECORDING].to_list() if RECORDING in tracks.columns else None
    built = VectorBackend(**record["finder"]) if "finder" in record else VectorBackend("exact")
    finder = open_backend(built, backend, len(vectors), len(spaces), generation)
    return EmbeddingIndex(tracks[TRACK_ID].to_list(), vectors, spaces, recordings, finder)


def _damaged(place: Path, message: str) -> CheckpointError:
    return CheckpointError(
        message, code="index_damaged", remedy="ponticello embed", library=place.parent
    )


def load_recordings(place: Path) -> pl.DataFrame | None:
    """Returns the recordings of the live generation, as for `write_index`; None without any."""
    name = _live(place) if (place / "CURRENT").is_file() else ""
    generation = place / name
    if not _NAME.fullmatch(name) or _fault(generation):
        return None
    tracks = pl.read_parquet(generation / TRACKS, glob=False)
    return tracks.select(list(RECORDINGS_SCHEMA)) if RECORDING in tracks.columns else None


def _live(place: Path) -> str:
    return (place / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()


def _table(generation: Path) -> str:
    try:
        return str(json.loads((generation / RECORD).read_bytes())["finder"]["table"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fault(generation: Path) -> str:
    """Returns the fault of a generation's files; empty if they are unchanged."""
    try:
        text = (generation / RECORD).read_bytes()
        if hashlib.sha256(text).hexdigest()[:16] != generation.name:
            return f"{RECORD} is not what was written"
        hashes = json.loads(text)["sha256"]
        for file in [VECTORS, TRACKS, *sorted(hashes.keys() - {VECTORS, TRACKS})]:
            if not is_unchanged(generation / file, hashes[file]):
                return f"{file} is not what was written"
        return ""
    except (OSError, ValueError) as error:
        return str(error)
