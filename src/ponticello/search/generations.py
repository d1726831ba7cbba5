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
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ponticello.errors import CheckpointError, LibraryError
from ponticello.features.fingerprint import RECORDING, RECORDINGS_SCHEMA
from ponticello.search.backends import VectorBackend, build_backend, open_backend, remove_tables
from ponticello.search.embed import Vectors
from ponticello.search.index import Calibration, EmbeddingIndex, VectorSpace
from ponticello.storage.files import atomic_write, file_hash, is_unchanged
from ponticello.storage.schema import TRACK_ID
from ponticello.storage.tables import read_parquet

_NAME = re.compile(r"[0-9a-f]{16}")  # of a generation
VECTORS, TRACKS, RECORD = "vectors.npy", "tracks.parquet", "index.json"


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
    common_ids = set(semantic.track_ids)
    if preference is not None:
        common_ids &= set(preference.track_ids)
    track_ids = sorted(common_ids)
    matrices = []
    for vectors_of_space in space_vectors:
        ids = vectors_of_space.track_ids
        row_of = dict(zip(ids, range(len(ids)), strict=True))
        matrices.append(vectors_of_space.matrix[[row_of[track_id] for track_id in track_ids]])
    building = place / "building"
    with atomic_write(building) as temporary:
        temporary.mkdir()
        vectors = np.concatenate(matrices, axis=1)
        del matrices
        np.save(temporary / VECTORS, vectors, allow_pickle=False)
        _with_recordings(track_ids, recordings).write_parquet(temporary / TRACKS)
        finder = build_backend(backend, vectors, track_ids, len(space_vectors), temporary)
        hashes = {file.name: file_hash(file) for file in sorted(temporary.iterdir())}
        content = {
            "spaces": list(map(asdict, spaces)),
            "finder": asdict(finder),
            "sha256": hashes,
        }
        record = json.dumps(content, indent=1) + "\n"
        (temporary / RECORD).write_text(record, encoding="utf-8")
    name = hashlib.sha256(record.encode()).hexdigest()[:16]
    return _make_live(place, building, name, backend)


def _with_recordings(track_ids: list[str], recordings: pl.DataFrame | None) -> pl.DataFrame:
    table = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String})
    if recordings is None:
        recordings = pl.DataFrame(schema=RECORDINGS_SCHEMA)
    table = table.join(recordings, on=TRACK_ID, how="left", maintain_order="left")
    return table.with_columns(pl.col(RECORDING).fill_null(pl.col(TRACK_ID)))


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
        remove_tables(backend, set(map(_table, old)) - needed)
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
        raise CheckpointError(
            f"{place / 'CURRENT'} is damaged ({name!r} names no index)",
            code="index_damaged",
            remedy="ponticello embed",
            library=place.parent,
        )
    generation = place / name
    if fault := _fault(generation):
        raise CheckpointError(
            f"{generation} is damaged ({fault})",
            code="index_damaged",
            remedy="ponticello embed",
            library=place.parent,
        )
    record = _record(generation)
    spaces = []
    for space in record["spaces"]:
        audio = Calibration(**space["audio"])
        text = Calibration(**space["text"])
        spaces.append(VectorSpace(space["run"], space["space_id"], audio, text))
    vectors = np.load(generation / VECTORS, mmap_mode="r", allow_pickle=False)
    tracks = read_parquet(generation / TRACKS, TRACKS)
    recordings = tracks[RECORDING].to_list() if RECORDING in tracks.columns else None
    finder = VectorBackend(**record["finder"]) if "finder" in record else VectorBackend("exact")
    neighbours = open_backend(finder, backend, vectors, len(spaces), generation)
    return EmbeddingIndex(tracks[TRACK_ID].to_list(), vectors, spaces, recordings, neighbours)


def load_recordings(place: Path) -> pl.DataFrame | None:
    """Returns the recordings of the live generation, as for `write_index`; None without any."""
    name = _live(place) if (place / "CURRENT").is_file() else ""
    generation = place / name
    if not _NAME.fullmatch(name) or _fault(generation):
        return None
    tracks = read_parquet(generation / TRACKS, TRACKS)
    return tracks.select(list(RECORDINGS_SCHEMA)) if RECORDING in tracks.columns else None


def _live(place: Path) -> str:
    return (place / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()


def _record(generation: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((generation / RECORD).read_bytes())
    return record


def _table(generation: Path) -> str:
    """Returns the name of a generation's table on a server; empty if there is none."""
    try:
        return str(_record(generation)["finder"]["table"])
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
