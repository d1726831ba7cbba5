"""Vectors of a whole library, one run at a time: resumable, never mixed between models, by one process or many jobs.

A track's vector depends, in its last bits, on the tracks that share its batch. So what is missing is cut into lots the
same way by every job and by a single process: only what a whole call has taken in counts as done for the cut.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponticello.data.store import FrameStore
from ponticello.errors import LibraryError
from ponticello.model.front_end import frames_key
from ponticello.model.htcl import HTCL
from ponticello.model.space import front_end_weights, run_config, served_vector, space_id
from ponticello.search.parts import JOBS, PARTS, Sources, next_part, read_parts, take_in, write_part

PART_SIZE = 512  # tracks embedded between two writes: what an interrupted run repeats at most


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of tracks: row i of `matrix` (n, d) float32 belongs to `track_ids[i]`; ids are sorted."""

    track_ids: list[str]
    matrix: np.ndarray
    space_id: str


class Lots:
    """What the vectors of a run lack, in lots of `lot_size` tracks (None: `PART_SIZE`): for every job the same.

    texts: by track id; where the model serves fused vectors a track with a text gets its fused one. Without `texts` all
        vectors are of the audio alone.
    kept: the vectors that there are; given: those that jobs have done of the lots. LibraryError if the mels were
    prepared with other settings than the model's.
    """

    def __init__(
        self,
        run: Path,
        store: FrameStore,
        texts: Mapping[str, str] | None,
        batch_size: int = 32,
        lot_size: int | None = None,
    ) -> None:
        store.require(frames_key(run_config(run), front_end_weights(run)))
        told = texts if texts is not None and served_vector(run) == "fused" else None
        self.run, self.space_id, self.sources, self._batch_size = run, space_id(run), Sources(store, told), batch_size
        self.parts = run / "vectors" / (self.space_id if told is None else f"{self.space_id}-fused")
        self.kept = read_parts(self.parts, self.sources)
        self.given = read_parts(self.parts / JOBS, self.sources)
        # Tracks of like length share a batch.
        missing = sorted((track_id for track_id in store.track_ids if track_id not in self.kept), key=store.n_frames)
        size = self.lot_size = lot_size or PART_SIZE
        self.lots = [missing[start : start + size] for start in range(0, len(missing), size)]
        self._first = next_part(self.parts)
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
            matrix = model.encode_mels(mels, self._batch_size)
        else:
            words = model.encode_text_states([told.get(track_id, "") for track_id in track_ids], self._batch_size)
            matrix = model.encode_fused(mels, words, self._batch_size)
        write_part(parts, self._first + lot, self.sources, track_ids, matrix)
        return matrix


def embed_library(
    run: Path,
    store: FrameStore,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[Vectors, int]:
    """Vectors of every prepared track under the model in `run`, and how many were computed now.

    texts: as of `Lots`. What an earlier, also an interrupted, call has written is kept; a track whose mel, or text
    where it counts, changed is embedded again, and what jobs have done (`embed_shard`) is taken in. Deterministic; a
    vector does not depend on the tracks beside it (to 1e-5). LibraryError as of `Lots`.
    """
    lots = Lots(run, store, texts, batch_size)
    done, n_new = dict(lots.kept), 0
    for lot, track_ids in enumerate(lots.lots):
        if lots.is_given(lot):
            done.update({track_id: lots.given[track_id] for track_id in track_ids})
        else:
            done.update(zip(track_ids, lots.compute(lot, lots.parts), strict=True))
            n_new += len(track_ids)
        if on_progress:
            on_progress(len(done), len(store))
    take_in(lots.parts)
    ids = sorted(done)
    return Vectors(ids, np.stack([done[track_id] for track_id in ids]), lots.space_id), n_new


def embed_shard(
    run: Path,
    store: FrameStore,
    shard: tuple[int, int],
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Does part `shard` (i, n), from 1, of what `embed_library` would; how many tracks that is, and how many now.

    Any number of jobs may do their shards at once; `embed_library`, once they are done, takes them in, does what is
    missing, and gives the bytes it would have given alone. Jobs get whole lots, so that with more jobs than lots some
    have nothing to do.
    """
    lots = Lots(run, store, texts, batch_size)
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


def require_shards(run: Path, store: FrameStore, n_shards: int, texts: Mapping[str, str] | None = None) -> None:
    """LibraryError that names the shards of `n_shards` whose jobs have not done all of theirs."""
    lots = Lots(run, store, texts)
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
