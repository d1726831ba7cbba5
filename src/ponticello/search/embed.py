"""Vectors of a whole library, one run at a time: resumable, never mixed between models, by one
process or many jobs.

A track's vector depends, in its last bits, on the tracks that share its batch. So what is missing
is cut into lots the
same way by every job and by a single process: only what a whole call has taken in counts as done
for the cut.

How a run's vectors lie on disk, in parts that are written once.

runs/<name>/vectors/<space id>/part-00000-<sha256>.parquet    track_id, mel_sha256, vector
runs/<name>/vectors/<space id>/jobs/part-...                  the same, by a job, until a whole call
takes them in

Embedding by Ray: each worker loads the model once and does lot after lot, as a job with a shard
would.
"""

import hashlib
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.errors import LibraryError
from ponticello.features.frontend import features_key, open_features
from ponticello.features.ray_tasks import Task, run_on_ray
from ponticello.features.store import FeatureStore
from ponticello.model.htcl import HTCL
from ponticello.model.saving import front_end_weights, run_config, served_vector_name, space_id
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts

logger = logging.getLogger(__name__)
JOBS = "jobs"  # a folder among the parts
PARTS = "part-*.parquet"


class VectorFingerprints:
    """What each track's vector is made of, as a hash: its frames, and its text where that counts."""

    def __init__(self, store: FeatureStore, texts: Mapping[str, str] | None) -> None:
        self.store, self.texts = store, texts

    def sha256(self, track_id: str) -> str:
        """Hex; another where the vector has to be made again."""
        own = self.store.sha256(track_id)
        if self.texts is None:
            return own
        return hashlib.sha256(f"{own} {self.texts.get(track_id, '')}".encode()).hexdigest()


def read_vector_shards(parts: Path, sources: VectorFingerprints) -> dict[str, np.ndarray]:
    """The vectors written so far that still belong to a track's present mel; a damaged part counts
    as not written.
    """
    kept: dict[str, np.ndarray] = {}
    for part in sorted(parts.glob(PARTS)):
        data = part.read_bytes()
        if hashlib.sha256(data).hexdigest() != part.stem.split("-")[-1]:
            logger.warning("%s is damaged: its vectors are computed again", part)
            continue
        table = pl.read_parquet(io.BytesIO(data))
        matrix = table["vector"].to_numpy()
        for track_id, sha256, vector in zip(
            table[TRACK_ID], table["mel_sha256"], matrix, strict=True
        ):
            if track_id in sources.store and sources.sha256(track_id) == sha256:
                kept[track_id] = vector
    return kept


def next_shard_number(parts: Path) -> int:
    """The number after the highest among the parts; of jobs' parts none counts."""
    return 1 + max((int(part.stem.split("-")[1]) for part in parts.glob(PARTS)), default=-1)


def write_vector_shard(
    parts: Path, number: int, sources: VectorFingerprints, track_ids: list[str], matrix: np.ndarray
) -> None:
    """Writes the vectors (n, d) float32 of `track_ids`, row by row, as one part."""
    table = pl.DataFrame(
        {
            TRACK_ID: track_ids,
            "mel_sha256": [sources.sha256(track_id) for track_id in track_ids],
            "vector": matrix,
        },
        schema_overrides={"vector": pl.Array(pl.Float32, matrix.shape[1])},
    )
    data = io.BytesIO()
    table.write_parquet(data)
    sha256 = hashlib.sha256(data.getvalue()).hexdigest()
    with atomic_write(parts / f"part-{number:05d}-{sha256}.parquet") as temporary:
        temporary.write_bytes(data.getvalue())


def merge_vector_shards(parts: Path) -> None:
    """Moves what jobs wrote among the other parts: they count as done from now on."""
    for part in sorted((parts / JOBS).glob(PARTS)):
        part.replace(parts / part.name)


PART_SIZE = 512  # tracks embedded between two writes: what an interrupted run repeats at most


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of tracks: row i of `matrix` (n, d) float32 belongs to `track_ids[i]`; ids are
    sorted.
    """

    track_ids: list[str]
    matrix: np.ndarray
    space_id: str


class EmbeddingBatches:
    """What the vectors of a run lack, in lots of `lot_size` tracks (None: `PART_SIZE`): for every
    job the same.

    texts: by track id; where the model serves fused vectors a track with a text gets its fused one.
    Without `texts` all
        vectors are of the audio alone.
    kept: the vectors that there are; given: those that jobs have done of the lots. LibraryError if
    the mels were prepared with other settings than the model's.
    """

    def __init__(
        self,
        run: Path,
        store: FeatureStore,
        texts: Mapping[str, str] | None,
        batch_size: int = 32,
        lot_size: int | None = None,
    ) -> None:
        store.require(features_key(run_config(run), front_end_weights(run)))
        told = texts if texts is not None and served_vector_name(run) == "fused" else None
        self.run, self.space_id, self.sources, self._batch_size = (
            run,
            space_id(run),
            VectorFingerprints(store, told),
            batch_size,
        )
        self.parts = run / "vectors" / (self.space_id if told is None else f"{self.space_id}-fused")
        self.kept = read_vector_shards(self.parts, self.sources)
        self.given = read_vector_shards(self.parts / JOBS, self.sources)
        # Tracks of like length share a batch.
        missing = sorted(
            (track_id for track_id in store.track_ids if track_id not in self.kept),
            key=store.n_frames,
        )
        size = self.lot_size = lot_size or PART_SIZE
        self.lots = [missing[start : start + size] for start in range(0, len(missing), size)]
        self._first = next_shard_number(self.parts)
        self._model: HTCL | None = None

    def of_shard(self, shard: tuple[int, int]) -> list[int]:
        """The lots of the i-th of n jobs, from 1."""
        return list(range(len(self.lots)))[shard[0] - 1 :: shard[1]]

    def is_given(self, lot: int) -> bool:
        """Whether jobs have done all of it."""
        return all(track_id in self.given for track_id in self.lots[lot])

    def compute(self, lot: int, parts: Path) -> np.ndarray:
        """The vectors (n, d) of a lot, written among `parts`; the model is loaded for the first."""
        model = self._model = self._model or HTCL.from_pretrained(self.run)
        track_ids, told = self.lots[lot], self.sources.texts
        mels = [self.sources.store.read(track_id) for track_id in track_ids]
        if told is None:
            matrix = model.encode_features(mels, self._batch_size)
        else:
            words = model.encode_text_states(
                [told.get(track_id, "") for track_id in track_ids], self._batch_size
            )
            matrix = model.encode_fused(mels, words, self._batch_size)
        write_vector_shard(parts, self._first + lot, self.sources, track_ids, matrix)
        return matrix


def embed_library(
    run: Path,
    store: FeatureStore,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[Vectors, int]:
    """Vectors of every prepared track under the model in `run`, and how many were computed now.

    texts: as of `EmbeddingBatches`. What an earlier, also an interrupted, call has written is kept;
    a track whose mel, or text where it counts, changed is embedded again, and what jobs have done
    (`embed_shard`) is taken in. Deterministic; a vector does not depend on the tracks beside it (to
    1e-5). LibraryError as of `EmbeddingBatches`.
    """
    lots = EmbeddingBatches(run, store, texts, batch_size)
    done, n_new = dict(lots.kept), 0
    for lot, track_ids in enumerate(lots.lots):
        if lots.is_given(lot):
            done.update({track_id: lots.given[track_id] for track_id in track_ids})
        else:
            done.update(zip(track_ids, lots.compute(lot, lots.parts), strict=True))
            n_new += len(track_ids)
        if on_progress:
            on_progress(len(done), len(store))
    merge_vector_shards(lots.parts)
    ids = sorted(done)
    return Vectors(ids, np.stack([done[track_id] for track_id in ids]), lots.space_id), n_new


def embed_shard(
    run: Path,
    store: FeatureStore,
    shard: tuple[int, int],
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Does part `shard` (i, n), from 1, of what `embed_library` would; how many tracks that is, and
    how many now.

    Any number of jobs may do their shards at once; `embed_library`, once they are done, takes them
    in, does what is missing, and gives the bytes it would have given alone. Jobs get whole lots, so
    that with more jobs than lots some have nothing to do.
    """
    lots = EmbeddingBatches(run, store, texts, batch_size)
    own = lots.of_shard(shard)
    n_tracks, n_done, n_new = sum(len(lots.lots[lot]) for lot in own), 0, 0
    for lot in own:
        n_done += len(lots.lots[lot])
        if not lots.is_given(lot):
            lots.compute(lot, lots.parts / JOBS)
            n_new += len(lots.lots[lot])
        if on_progress:
            on_progress(n_done, n_tracks)
    return n_tracks, n_new


def require_shards(
    run: Path, store: FeatureStore, n_shards: int, texts: Mapping[str, str] | None = None
) -> None:
    """LibraryError that names the shards of `n_shards` whose jobs have not done all of theirs."""
    lots = EmbeddingBatches(run, store, texts)
    lacking = {
        number: [lot for lot in lots.of_shard((number, n_shards)) if not lots.is_given(lot)]
        for number in range(1, n_shards + 1)
    }
    missing = [f"{number}/{n_shards}" for number, own in lacking.items() if own]
    if not missing:
        return
    n_tracks = sum(len(lots.lots[lot]) for own in lacking.values() for lot in own)
    others = {part.parent for part in run.glob(f"vectors/*/{JOBS}/{PARTS}")} - {lots.parts / JOBS}
    note = f"; what lies in {min(others)} was made with another model" if others else ""
    raise LibraryError(
        f"run {run.name!r}: {n_tracks:,} vectors of shards {', '.join(missing)} are missing; run those jobs again, "
        f"or ponticello embed alone to compute what is missing here{note}"
    )


def embed_on_ray(
    folder: LibraryPaths,
    run: str,
    store: FeatureStore,
    texts: Mapping[str, str] | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Has Ray compute what the vectors of `run` lack, for `embed_library` to take in; how many
    those were.

    The caller holds `folder.lock()`; every worker must see the library under the same path. What
    was done before an error is kept. Errors: as of `EmbeddingBatches`; ConfigError without Ray;
    PonticelloError where a worker failed.
    """
    lots = EmbeddingBatches(folder.run(run), store, texts)
    todo = [lot for lot in range(len(lots.lots)) if not lots.is_given(lot)]
    n_new = 0
    for n_tracks in run_on_ray(partial(_begin, folder, run, lots.lot_size), todo):
        n_new += n_tracks
        if on_progress:
            on_progress(n_new, sum(len(lots.lots[lot]) for lot in todo))
    return n_new


def _begin(folder: LibraryPaths, run: str, lot_size: int) -> Task:
    """What a worker does with the number of a lot; gives how many tracks it has."""
    config = run_config(folder.run(run))
    store, texts = open_features(folder, config), fused_texts(read_tracks(folder), config.front_end)
    lots = EmbeddingBatches(folder.run(run), store, texts, lot_size=lot_size)
    return lambda lot: len(lots.compute(lot, lots.parts / JOBS))
