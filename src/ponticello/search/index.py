"""The exact index: one vector a track holds both spaces, so any position of the dial is one dot product.

    index/<generation>/vectors.npy     (n, 2d) float32: semantic, then preference; (n, d) before stage two
    index/<generation>/tracks.parquet  track_id, in row order, with mel_sha256 and recording as in `copies`
    index/<generation>/index.json      spaces, calibration, sha256 of the other files; its own sha256 is the name
    index/CURRENT                      the live generation's name

Raw cosines of two spaces cannot be compared, so each space is calibrated: a cosine c counts as (c - mean) / std over
cosines of random pairs. The scale goes to the query, the means become one offset.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ponticello.data.columns import TRACK_ID
from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.library import replacing
from ponticello.search.copies import RECORDING, SCHEMA
from ponticello.search.embed import Vectors
from ponticello.search.profile import Profiles, fit_profiles

CALIBRATION_PAIRS = 20_000  # random pairs: mean and standard deviation to about 1 %
FILES = ("vectors.npy", "tracks.parquet")
Kind = Literal["audio", "text", "profile"]


@dataclass(frozen=True)
class Calibration:
    """Mean and standard deviation of cosines between random queries and tracks."""

    mean: float
    std: float


@dataclass(frozen=True)
class Space:
    """One of the two spaces: the run it comes from, its id, and how cosines are distributed in it."""

    run: str
    space_id: str
    audio: Calibration  # between two tracks
    text: Calibration  # between a text and a track


@dataclass(frozen=True)
class Query:
    """What is asked, as (q, d) in each space; preference None before stage two. Unit vectors, but for a profile."""

    semantic: np.ndarray
    preference: np.ndarray | None
    kind: Kind
    offsets: tuple[float, ...] = ()  # of a profile: what its scores start from in each space
    levels: tuple[np.ndarray, ...] = ()  # of a profile: (n,) what each track's scores are multiplied by in each space


class EmbeddingIndex:
    """Tracks to ask: `track_ids`, their vectors and the spaces' calibration.

    recordings: a name for what each track is a copy of; None = no two tracks are known to be one recording.
    """

    def __init__(
        self, track_ids: list[str], vectors: np.ndarray, spaces: list[Space], recordings: list[str] | None = None
    ) -> None:
        self.track_ids, self.vectors, self.spaces = track_ids, vectors, spaces
        self.recordings = track_ids if recordings is None else recordings
        self.rows = {track_id: row for row, track_id in enumerate(track_ids)}
        self.embed_dim = vectors.shape[1] // len(spaces)
        self._profiles: dict[tuple[float, float], tuple[list[Profiles], tuple[np.ndarray, ...]]] = {}  # when asked for

    @property
    def has_preference(self) -> bool:
        return len(self.spaces) == 2

    def track_query(self, track_ids: list[str]) -> Query:
        """The query "like these tracks", one row each; DataError names the first that is not in the index."""
        for track_id in track_ids:
            if track_id not in self.rows:
                raise DataError(f"track {track_id!r} is not in the index; check the id, or run: ponticello embed")
        vectors = self.vectors[[self.rows[track_id] for track_id in track_ids]]
        both = self.has_preference
        return Query(vectors[:, : self.embed_dim], vectors[:, self.embed_dim :] if both else None, "audio")

    def profile_query(self, track_ids: list[str], ridge: float, hub_correction: float) -> Query:
        """The query "what a listener of these tracks likes", one row; DataError as `track_query`."""
        seeds = self.track_query(track_ids)
        profiles, levels = self._fitted(ridge, hub_correction)
        found = [
            profile.direction(side)
            for profile, side in zip(profiles, (seeds.semantic, seeds.preference), strict=False)
            if side is not None
        ]
        offsets = tuple(float(u @ profile.mean) for u, profile in zip(found, profiles, strict=True))
        rows = [u[None].astype(np.float32) for u in found]
        return Query(rows[0], rows[1] if self.has_preference else None, "profile", offsets, levels)

    def _fitted(self, ridge: float, hub_correction: float) -> tuple[list[Profiles], tuple[np.ndarray, ...]]:
        """Each space's profiles and levels, kept once made."""
        key = ridge, hub_correction
        if key not in self._profiles:
            sides = [self._side(number) for number in range(len(self.spaces))]
            profiles = [fit_profiles(side, ridge) for side in sides]
            levels = [own.levels(side, hub_correction) for own, side in zip(profiles, sides, strict=True)]
            self._profiles[key] = profiles, tuple(level.astype(np.float32) for level in levels)
        return self._profiles[key]

    def _side(self, number: int) -> np.ndarray:
        """(n, d) the vectors of one space."""
        side: np.ndarray = self.vectors[:, number * self.embed_dim : (number + 1) * self.embed_dim]
        return side

    def scores(self, query: Query, blend: float) -> np.ndarray:
        """(q, n): (1 - blend) * semantic + blend * preference, each calibrated; higher is closer.

        blend: 0 = meaning .. 1 = taste. DataError outside that range, or above 0 before stage two.
        """
        if query.levels:
            return self._levelled_scores(query, blend)
        scaled, offset = [], 0.0
        for weight, calibration, side in self._weighted(query, blend):
            scaled.append(side * np.float32(weight / calibration.std))
            offset -= weight * calibration.mean / calibration.std
        found: np.ndarray = np.concatenate(scaled, axis=1) @ self.vectors.T + np.float32(offset)
        return found

    def _levelled_scores(self, query: Query, blend: float) -> np.ndarray:
        """As `scores`, of a profile: a product for each space, as a track has a level in each."""
        found = np.zeros((len(query.semantic), len(self.track_ids)), dtype=np.float32)
        for number, (weight, calibration, side) in enumerate(self._weighted(query, blend)):
            own = side @ self._side(number).T - np.float32(calibration.mean)
            found += np.float32(weight / calibration.std) * query.levels[number] * own
        return found

    def parts(self, query: Query, blend: float, rows: np.ndarray) -> np.ndarray:
        """(q, len(rows), 2): the semantic and the preference part of each score; they add up to it."""
        parts = np.zeros((len(query.semantic), len(rows), 2))
        for number, (weight, calibration, side) in enumerate(self._weighted(query, blend)):
            vectors = self.vectors[rows, number * self.embed_dim : (number + 1) * self.embed_dim]
            parts[:, :, number] = weight * (side @ vectors.T - calibration.mean) / calibration.std
            if query.levels:
                parts[:, :, number] *= query.levels[number][rows]
        return parts

    def _weighted(self, query: Query, blend: float) -> list[tuple[float, Calibration, np.ndarray]]:
        """What each space has to say: its weight, how its scores lie, and the query in it."""
        if not 0 <= blend <= 1:
            raise DataError(f"blend {blend} must lie between 0 (meaning) and 1 (taste)")
        if not self.has_preference:
            if blend > 0:
                raise LibraryError("the index holds no preference space yet: use blend 0, or train stage two and embed")
            return [(1.0, self._calibration(query, 0), query.semantic)]
        if query.preference is None:
            raise DataError("the query has no vector in the preference space")
        return [
            (1 - blend, self._calibration(query, 0), query.semantic),
            (blend, self._calibration(query, 1), query.preference),
        ]

    def _calibration(self, query: Query, number: int) -> Calibration:
        if query.kind == "profile":
            return Calibration(query.offsets[number], 1.0)  # its spread over the index is 1 already
        space = self.spaces[number]
        return space.audio if query.kind == "audio" else space.text


def calibrate(queries: np.ndarray, vectors: np.ndarray, seed: int = 0) -> Calibration:
    """Mean and standard deviation of the cosine between random rows of `queries` (q, d) and of `vectors` (n, d).

    When both are the same array, a row is never paired with itself.
    """
    generator = np.random.default_rng(seed)
    left = generator.integers(len(queries), size=CALIBRATION_PAIRS)
    right = generator.integers(len(vectors), size=CALIBRATION_PAIRS)
    if queries is vectors:
        left, right = left[left != right], right[left != right]
    cosines = np.einsum("id,id->i", queries[left], vectors[right]) if len(left) else np.zeros(1)
    return Calibration(float(cosines.mean()), max(float(cosines.std()), 1e-6))


def write_index(
    place: Path,
    semantic: Vectors,
    preference: Vectors | None,
    spaces: list[Space],
    recordings: pl.DataFrame | None = None,
) -> Path:
    """A new generation with the tracks both sides have, made live when whole; the one before it is kept.

    recordings: as `find_recordings` gives them; a track that is not there, or all where None, is a recording alone.
    """
    sides = [semantic] if preference is None else [semantic, preference]
    track_ids = sorted(set.intersection(*(set(side.track_ids) for side in sides)))
    matrices = []
    for side in sides:
        rows = {track_id: row for row, track_id in enumerate(side.track_ids)}
        matrices.append(side.matrix[[rows[track_id] for track_id in track_ids]])
    building = place / "building"
    with replacing(building) as temporary:
        temporary.mkdir()
        np.save(temporary / FILES[0], np.concatenate(matrices, axis=1), allow_pickle=False)
        _with_recordings(track_ids, recordings).write_parquet(temporary / FILES[1])
        hashes = {file: _sha256(temporary / file) for file in FILES}
        record = json.dumps({"spaces": [asdict(space) for space in spaces], "sha256": hashes}, indent=1) + "\n"
        (temporary / "index.json").write_text(record, encoding="utf-8")
    name = hashlib.sha256(record.encode()).hexdigest()[:16]
    return _make_live(place, building, name)


def _with_recordings(track_ids: list[str], recordings: pl.DataFrame | None) -> pl.DataFrame:
    table = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String})
    known = pl.DataFrame(schema=SCHEMA) if recordings is None else recordings
    table = table.join(known, on=TRACK_ID, how="left", maintain_order="left")
    return table.with_columns(pl.col(RECORDING).fill_null(pl.col(TRACK_ID)))


def _make_live(place: Path, building: Path, name: str) -> Path:
    """Gives the finished generation its name and points CURRENT at it; of the others only the last live one stays."""
    previous = (place / "CURRENT").read_text(errors="replace").strip() if (place / "CURRENT").is_file() else name
    if (place / name).exists() and not _fault(place / name):
        shutil.rmtree(building)  # the very same index: what readers have open stays
    else:
        shutil.rmtree(place / name, ignore_errors=True)
        building.rename(place / name)
    with replacing(place / "CURRENT") as temporary:
        temporary.write_text(name + "\n")
    if previous != name:
        for old in place.iterdir():
            if old.is_dir() and old.name not in {name, previous}:
                shutil.rmtree(old)
    return place / name


def open_index(place: Path) -> EmbeddingIndex:
    """The live generation; LibraryError if there is none, CheckpointError if a file is not what was written.

    One that was written before recordings were kept knows of no copies.
    """
    if not (place / "CURRENT").is_file():
        raise LibraryError("the library has no index yet; run: ponticello embed")
    generation = place / (place / "CURRENT").read_text(errors="replace").strip()
    if fault := _fault(generation):
        raise CheckpointError(f"{generation} is damaged ({fault}); run: ponticello embed")
    record = json.loads((generation / "index.json").read_bytes())
    spaces = [
        Space(s["run"], s["space_id"], Calibration(**s["audio"]), Calibration(**s["text"])) for s in record["spaces"]
    ]
    vectors = np.load(generation / FILES[0], mmap_mode="r", allow_pickle=False)
    tracks = pl.read_parquet(generation / FILES[1])
    recordings = tracks[RECORDING].to_list() if RECORDING in tracks.columns else None
    return EmbeddingIndex(tracks[TRACK_ID].to_list(), vectors, spaces, recordings)


def known_recordings(place: Path) -> pl.DataFrame | None:
    """What the live generation knows of recordings, as `write_index` was given it; None if there is none to be read."""
    if not (place / "CURRENT").is_file():
        return None
    generation = place / (place / "CURRENT").read_text(errors="replace").strip()
    if _fault(generation):
        return None
    tracks = pl.read_parquet(generation / FILES[1])
    return tracks.select(*SCHEMA) if RECORDING in tracks.columns else None


def _fault(generation: Path) -> str:
    """What is wrong with a generation's files; empty if they are what was written."""
    try:
        text = (generation / "index.json").read_bytes()
        if hashlib.sha256(text).hexdigest()[:16] != generation.name:
            return "index.json is not what was written"
        hashes = json.loads(text)["sha256"]
        changed = [file for file in FILES if _sha256(generation / file) != hashes[file]]
        return f"{changed[0]} is not what was written" if changed else ""
    except (OSError, ValueError) as error:
        return str(error)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
