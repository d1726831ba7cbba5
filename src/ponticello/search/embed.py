"""Computes the vectors of a library under one run, by one process, by many jobs or by Ray.

An interrupted call can be resumed, and vectors of different models are kept apart. The last bits
of a track's vector depend on the other tracks in its batch. So every job and a single process
divide the missing tracks into the same lots: vectors written by jobs change the division only
after `embed_library` has merged them. Each Ray worker loads the model once and embeds lot after
lot.

The shards of a run are written once:

runs/<name>/vectors/<space id>/part-00000-<sha256>.parquet    track_id, mel_sha256, vector
runs/<name>/vectors/<space id>/jobs/part-...                  the same, of jobs, until merged
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
JOBS = "jobs"  # the folder of the jobs' shards
PARTS = "part-*.parquet"
PART_SIZE = 512  # tracks per shard: the most that an interrupted run repeats


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of tracks, sorted: row i of `matrix` (n, d) float32 is `track_ids[i]`."""

    track_ids: list[str]
    matrix: np.ndarray
    space_id: str


class EmbeddingBatches:
    """The tracks of a run without a vector, in lots of `lot_size` (None: `PART_SIZE`) tracks.

    The lots are the same for every job. texts: by track id; if the model serves fused vectors, a
    track with a text gets a fused one. Without `texts` all vectors are of the audio alone.
    kept: the vectors that are merged; given: the vectors of the lots that jobs have computed.
    LibraryError if the features were prepared with other settings than the model's.
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
        is_fused = texts is not None and served_vector_name(run) == "fused"
        self.run = run
        self.space_id = space_id(run)
        self.store = store
        self.texts = texts if is_fused else None
        self._batch_size = batch_size
        self.parts = run / "vectors" / (f"{self.space_id}-fused" if is_fused else self.space_id)
        self.kept = self._read_shards(self.parts)
        self.given = self._read_shards(self.parts / JOBS)
        missing = [track_id for track_id in store.track_ids if track_id not in self.kept]
        missing.sort(key=store.n_frames)  # tracks of similar length share a batch
        self.lot_size = lot_size or PART_SIZE
        self.lots: list[list[str]] = []
        for start in range(0, len(missing), self.lot_size):
            self.lots.append(missing[start : start + self.lot_size])
        numbers = [int(part.stem.split("-")[1]) for part in self.parts.glob(PARTS)]
        self._first = 1 + max(numbers, default=-1)  # the numbers of jobs' shards do not count
        self._model: HTCL | None = None

    def of_shard(self, shard: tuple[int, int]) -> list[int]:
        """Returns the lots of shard (i, n), i from 1."""
        return list(range(len(self.lots)))[shard[0] - 1 :: shard[1]]

    def is_given(self, lot: int) -> bool:
        """Returns whether jobs have computed all of a lot."""
        return self.given.keys() >= set(self.lots[lot])

    def compute(self, lot: int, parts: Path) -> np.ndarray:
        """Computes the vectors (n, d) of a lot and writes them to the folder `parts`.

        The first call loads the model.
        """
        if self._model is None:
            self._model = HTCL.from_pretrained(self.run)
        model = self._model
        track_ids = self.lots[lot]
        features = [self.store.read(track_id) for track_id in track_ids]
        if self.texts is None:
            matrix = model.encode_features(features, self._batch_size)
        else:
            lot_texts = [self.texts.get(track_id, "") for track_id in track_ids]
            states = model.encode_text_states(lot_texts, self._batch_size)
            matrix = model.encode_fused(features, states, self._batch_size)
        table = pl.DataFrame(
            {
                TRACK_ID: track_ids,
                "mel_sha256": list(map(self._inputs_sha256, track_ids)),
                "vector": matrix,
            },
            schema_overrides={"vector": pl.Array(pl.Float32, matrix.shape[1])},
        )
        data = io.BytesIO()
        table.write_parquet(data)
        sha256 = hashlib.sha256(data.getvalue()).hexdigest()
        with atomic_write(parts / f"part-{self._first + lot:05d}-{sha256}.parquet") as temporary:
            temporary.write_bytes(data.getvalue())
        return matrix

    def _inputs_sha256(self, track_id: str) -> str:
        """Returns the hash of a vector's inputs: the track's features and, if fused, its text."""
        features_sha256 = self.store.sha256(track_id)
        if self.texts is None:
            return features_sha256
        inputs = f"{features_sha256} {self.texts.get(track_id, '')}"
        return hashlib.sha256(inputs.encode()).hexdigest()

    def _read_shards(self, parts: Path) -> dict[str, np.ndarray]:
        """Returns the vectors in a folder of shards whose inputs are unchanged, by track id."""
        vectors: dict[str, np.ndarray] = {}
        for part in sorted(parts.glob(PARTS)):
            data = part.read_bytes()
            if hashlib.sha256(data).hexdigest() != part.stem.split("-")[-1]:
                logger.warning("%s is damaged: its vectors are computed again", part)
                continue
            table = pl.read_parquet(io.BytesIO(data))
            matrix = table["vector"].to_numpy()
            for row, (track_id, sha256) in enumerate(table[TRACK_ID, "mel_sha256"].iter_rows()):
                if track_id in self.store and self._inputs_sha256(track_id) == sha256:
                    vectors[track_id] = matrix[row]
        return vectors


def embed_library(
    run: Path,
    store: FeatureStore,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[Vectors, int]:
    """Returns the vectors of all prepared tracks under the model in `run`, and how many are new.

    texts: as of `EmbeddingBatches`. Vectors that earlier calls have written are kept, also those
    of interrupted calls, and vectors of jobs (`embed_shard`) are merged. A track is embedded again
    when its features, or its text in a fused vector, have changed. Deterministic; a vector does not
    depend on the other tracks in its batch (to 1e-5). LibraryError as of `EmbeddingBatches`.
    """
    lots = EmbeddingBatches(run, store, texts, batch_size)
    done = dict(lots.kept)
    n_new = 0
    for lot, track_ids in enumerate(lots.lots):
        if lots.is_given(lot):
            for track_id in track_ids:
                done[track_id] = lots.given[track_id]
        else:
            done.update(zip(track_ids, lots.compute(lot, lots.parts), strict=True))
            n_new += len(track_ids)
        if on_progress:
            on_progress(len(done), len(store))
    for part in sorted((lots.parts / JOBS).glob(PARTS)):
        part.replace(lots.parts / part.name)  # from now on the tracks of jobs count as done
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
    """Embeds shard (i, n), i from 1; returns how many tracks it has and how many are new.

    Any number of jobs may embed their shards at once. `embed_library` then merges them, embeds the
    missing tracks, and returns the same bytes as without jobs. Jobs get whole lots: with more jobs
    than lots, some shards are empty.
    """
    lots = EmbeddingBatches(run, store, texts, batch_size)
    shard_lots = lots.of_shard(shard)
    n_tracks = _n_tracks(lots, shard_lots)
    n_done = 0
    n_new = 0
    for lot in shard_lots:
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
    """Raises LibraryError that names the incomplete ones of `n_shards` shards."""
    lots = EmbeddingBatches(run, store, texts)
    missing = []
    n_tracks = 0
    for number in range(1, n_shards + 1):
        lacking = [lot for lot in lots.of_shard((number, n_shards)) if not lots.is_given(lot)]
        if lacking:
            missing.append(f"{number}/{n_shards}")
            n_tracks += _n_tracks(lots, lacking)
    if not missing:
        return
    others = {part.parent for part in run.glob(f"vectors/*/{JOBS}/{PARTS}")} - {lots.parts / JOBS}
    note = f"; what lies in {min(others)} was made with another model" if others else ""
    raise LibraryError(
        f"run {run.name!r}: {n_tracks:,} vectors of shards {', '.join(missing)} are missing; "
        f"run those jobs again, or ponticello embed alone to compute what is missing here{note}"
    )


def _n_tracks(batches: EmbeddingBatches, lots: list[int]) -> int:
    return sum(len(batches.lots[lot]) for lot in lots)


def embed_on_ray(
    folder: LibraryPaths,
    run: str,
    store: FeatureStore,
    texts: Mapping[str, str] | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Computes the missing vectors of `run` on Ray, for `embed_library` to merge; returns how many.

    The caller holds `folder.lock()`; every worker must see the library under the same path.
    Vectors that were written before an error are kept. Errors: as of `EmbeddingBatches`;
    ConfigError without Ray; PonticelloError if a worker failed.
    """
    lots = EmbeddingBatches(folder.run(run), store, texts)
    todo = [lot for lot in range(len(lots.lots)) if not lots.is_given(lot)]
    n_new = 0
    for n_tracks in run_on_ray(partial(_begin, folder, run, lots.lot_size), todo):
        n_new += n_tracks
        if on_progress:
            on_progress(n_new, _n_tracks(lots, todo))
    return n_new


def _begin(folder: LibraryPaths, run: str, lot_size: int) -> Task:
    """Returns a worker's function: it embeds the lot of a number and returns its track count."""
    config = run_config(folder.run(run))
    store = open_features(folder, config)
    texts = fused_texts(read_tracks(folder), config.front_end)
    lots = EmbeddingBatches(folder.run(run), store, texts, lot_size=lot_size)
    return lambda lot: len(lots.compute(lot, lots.parts / JOBS))
