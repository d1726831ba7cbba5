"""The index on disk: generations that are never changed, checked when opened, switched in one step.

index/<generation>/vectors.npy     (n, D) float32: semantic, then preference; semantic alone before
stage two index/<generation>/tracks.parquet  track_id, in row order, with mel_sha256 and recording
as in `copies` index/<generation>/space-N.faiss   of a large library, one a space: where to look
first; see `clustered.py` index/<generation>/index.json      spaces, calibration, what finds rows
with its recall, the other files' hashes;
                                   its own SHA-256 is the generation's name
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
    """A new generation with the tracks both sides have, made live when whole; the one before it is
    kept.

    recordings: as `find_recordings` gives them; a track that is not there, or all where None, is a
    recording alone.
    backend: as the setting `search.backend`; LibraryError if what it needs is not to be had.
    """
    sides = [semantic] if preference is None else [semantic, preference]
    track_ids = sorted(set.intersection(*(set(side.track_ids) for side in sides)))
    matrices = []
    for side in sides:
        rows = {track_id: row for row, track_id in enumerate(side.track_ids)}
        matrices.append(side.matrix[[rows[track_id] for track_id in track_ids]])
    building = place / "building"
    with atomic_write(building) as temporary:
        temporary.mkdir()
        vectors = np.concatenate(matrices, axis=1)
        del matrices
        np.save(temporary / VECTORS, vectors, allow_pickle=False)
        _with_recordings(track_ids, recordings).write_parquet(temporary / TRACKS)
        finder = build_backend(backend, vectors, track_ids, len(sides), temporary)
        hashes = {file.name: file_hash(file) for file in sorted(temporary.iterdir())}
        content = {
            "spaces": [asdict(space) for space in spaces],
            "finder": asdict(finder),
            "sha256": hashes,
        }
        record = json.dumps(content, indent=1) + "\n"
        (temporary / RECORD).write_text(record, encoding="utf-8")
    name = hashlib.sha256(record.encode()).hexdigest()[:16]
    return _make_live(place, building, name, backend)


def _with_recordings(track_ids: list[str], recordings: pl.DataFrame | None) -> pl.DataFrame:
    table = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String})
    known = pl.DataFrame(schema=RECORDINGS_SCHEMA) if recordings is None else recordings
    table = table.join(known, on=TRACK_ID, how="left", maintain_order="left")
    return table.with_columns(pl.col(RECORDING).fill_null(pl.col(TRACK_ID)))


def _make_live(place: Path, building: Path, name: str, backend: str) -> Path:
    """Gives the finished generation its name and points CURRENT at it; of the others only the last
    live one stays.
    """
    previous = _live(place) if (place / "CURRENT").is_file() else name
    if (place / name).exists() and not _fault(place / name):
        shutil.rmtree(building)  # the very same index: what readers have open stays
    else:
        shutil.rmtree(place / name, ignore_errors=True)
        building.rename(place / name)
    with atomic_write(place / "CURRENT") as temporary:
        temporary.write_text(name + "\n")
    if previous != name:
        old = [
            other
            for other in place.iterdir()
            if other.is_dir() and other.name not in {name, previous}
        ]
        needed = {_table(place / kept) for kept in (name, previous)}
        remove_tables(backend, {_table(other) for other in old} - needed - {""})
        for other in old:
            shutil.rmtree(other)
    return place / name


def open_index(place: Path, backend: str = "auto") -> EmbeddingIndex:
    """The live generation; LibraryError if there is none, CheckpointError if a file is not what was
    written.

    backend: as the setting `search.backend`; LibraryError if the index was not written for it. One
    that was written before recordings were kept knows of no copies.
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
    spaces = [
        VectorSpace(s["run"], s["space_id"], Calibration(**s["audio"]), Calibration(**s["text"]))
        for s in record["spaces"]
    ]
    vectors = np.load(generation / VECTORS, mmap_mode="r", allow_pickle=False)
    tracks = read_parquet(generation / TRACKS, TRACKS)
    recordings = tracks[RECORDING].to_list() if RECORDING in tracks.columns else None
    finder = VectorBackend(**record["finder"]) if "finder" in record else VectorBackend("exact")
    neighbours = open_backend(finder, backend, vectors, len(spaces), generation)
    return EmbeddingIndex(tracks[TRACK_ID].to_list(), vectors, spaces, recordings, neighbours)


def load_recordings(place: Path) -> pl.DataFrame | None:
    """What the live generation knows of recordings, as `write_index` was given it; None if there is
    none to be read.
    """
    name = _live(place) if (place / "CURRENT").is_file() else ""
    generation = place / name
    if not _NAME.fullmatch(name) or _fault(generation):
        return None
    tracks = read_parquet(generation / TRACKS, TRACKS)
    return tracks.select(*RECORDINGS_SCHEMA) if RECORDING in tracks.columns else None


def _live(place: Path) -> str:
    return (place / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()


def _record(generation: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((generation / RECORD).read_bytes())
    return found


def _table(generation: Path) -> str:
    """The table on a server that a generation names; empty if there is none, or no more telling."""
    try:
        return str(_record(generation)["finder"]["table"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fault(generation: Path) -> str:
    """What is wrong with a generation's files; empty if they are what was written."""
    try:
        text = (generation / RECORD).read_bytes()
        if hashlib.sha256(text).hexdigest()[:16] != generation.name:
            return f"{RECORD} is not what was written"
        hashes = json.loads(text)["sha256"]
        files = [VECTORS, TRACKS, *(set(hashes) - {VECTORS, TRACKS})]
        changed = [file for file in files if not is_unchanged(generation / file, hashes[file])]
        return f"{changed[0]} is not what was written" if changed else ""
    except (OSError, ValueError) as error:
        return str(error)
