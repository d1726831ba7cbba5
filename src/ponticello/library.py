"""The library as Python users meet it: open a folder, ask it."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import polars as pl

from ponticello.features.fingerprint import find_recordings
from ponticello.features.frontend import open_features
from ponticello.features.ray_tasks import uses_ray
from ponticello.features.store import FeatureStore
from ponticello.listening.log import read_interactions
from ponticello.model.htcl import HTCL
from ponticello.model.saving import front_end_weights, run_config
from ponticello.search.embed import (
    Vectors,
    embed_library,
    embed_on_ray,
    embed_shard,
    require_shards,
)
from ponticello.search.export import listener_table, track_vector_table
from ponticello.search.generations import load_recordings, open_index, write_index
from ponticello.search.index import EmbeddingIndex, VectorSpace, calibrate
from ponticello.search.ranking import SearchResults
from ponticello.search.service import SearchService, require_words
from ponticello.search.user_history import Listener, ListeningHistory
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts, track_texts
from ponticello.train.runs import STARTER, is_finished, starter_run

CALIBRATION_TEXTS = 2_000  # texts at most that tell how text-to-track cosines are distributed
STARTER_WAIT_S = 600.0  # for the job that assembles the starter, which takes seconds


@dataclass(frozen=True)
class EmbedResult:
    """What `Library.embed` did. semantic_run: the run behind meaning, which may be the starter."""

    n_tracks: int
    n_new: int
    generation: Path
    semantic_run: str


class Library:
    """A library folder with its index and models, loaded when first needed.

        library = ponticello.Library.open("my-library")
        library.search("slow piano at night", k=10, blend=0.3)

    blend: 0 = meaning, stage one, .. 1 = taste, stage two.
    """

    def __init__(self, folder: LibraryPaths) -> None:
        self.folder = folder

    @classmethod
    def open(cls, root: Path | str, settings: Sequence[str] = ()) -> "Library":
        """The library at `root`; LibraryError if there is none. settings: `section.key=value` on
        top of its own.
        """
        return cls(open_library(root, settings))

    @classmethod
    def create(
        cls, root: Path | str, preset: Literal["paper", "base", "small", "tiny"] = "small"
    ) -> "Library":
        """A new, empty library at `root`; LibraryError if one is there already."""
        return cls(create_library(root, preset))

    @cached_property
    def tracks(self) -> pl.DataFrame:
        """The catalogue, one row a track."""
        return read_tracks(self.folder)

    @cached_property
    def index(self) -> EmbeddingIndex:
        """The live index."""
        return open_index(self.folder.index, self.folder.config.search.backend)

    def embed(
        self,
        semantic_run: str | None = None,
        preference_run: str | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
        *,
        n_shards: int | None = None,
        engine: str = "here",
    ) -> EmbedResult:
        """Embeds every prepared track with both runs and makes the new index live; only what is
        missing is computed.

        semantic_run: None = run "semantic"; while it is not finished, and the library's front end
        is MusiCNN, the starter model that comes with the package. preference_run: None before stage
        two; then the index answers with blend 0 only. n_shards: the jobs that did `embed_shard`;
        LibraryError, before anything is computed, if one of them has not done its part. engine:
        "here", or "ray" (`features/ray_tasks.py`); the vectors are the same.
        """
        self.__dict__.pop("tracks", None)  # the catalogue as it is now
        by_ray = uses_ray(engine)
        semantic_run = self._semantic_run(semantic_run)
        runs = [semantic_run] if preference_run is None else [semantic_run, preference_run]
        to_embed = {run: self._to_embed(run) for run in runs}
        if n_shards is not None:
            for run, (store, texts) in to_embed.items():
                require_shards(self.folder.run(run), store, n_shards, texts)
        sides: list[Vectors] = []
        spaces: list[VectorSpace] = []
        n_new = 0
        for run, (store, texts) in to_embed.items():
            report = partial(on_progress, run) if on_progress else None
            if by_ray:
                n_new += embed_on_ray(self.folder, run, store, texts, report)
            vectors, n = embed_library(self.folder.run(run), store, report, texts=texts)
            sides.append(vectors)
            spaces.append(self._calibrated(run, vectors))
            n_new += n
        recordings = find_recordings(
            self.folder.mels, load_recordings(self.folder.index), self.folder.config.mel.hop_s
        )
        preference = sides[1] if len(sides) == 2 else None
        backend = self.folder.config.search.backend
        generation = write_index(
            self.folder.index, sides[0], preference, spaces, recordings, backend
        )
        for loaded in ("index", "service"):
            self.__dict__.pop(loaded, None)
        return EmbedResult(len(sides[0].track_ids), n_new, generation, semantic_run)

    def embed_shard(
        self,
        shard: tuple[int, int],
        semantic_run: str | None = None,
        preference_run: str | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> tuple[int, int]:
        """Does one job's part of what `embed` would, but for the index: (vectors of that part,
        computed now).

        shard: (i, n), from 1. Needs no lock, and no other job: once all have ended, `embed` takes
        their vectors in.
        """
        n_vectors = n_new = 0
        semantic_run = self._semantic_run(semantic_run, wait_s=STARTER_WAIT_S)
        for run in [semantic_run] if preference_run is None else [semantic_run, preference_run]:
            report = partial(on_progress, run) if on_progress else None
            store, texts = self._to_embed(run)
            n_own, n = embed_shard(self.folder.run(run), store, shard, report, texts=texts)
            n_vectors, n_new = n_vectors + n_own, n_new + n
        return n_vectors, n_new

    def _semantic_run(self, named: str | None, wait_s: float | None = None) -> str:
        """The run behind meaning, with the starter assembled if it is that; wait_s: for the lock,
        if not held yet.
        """
        if named is None:
            untrained = (
                not is_finished(self.folder.run("semantic"))
                and self.folder.config.front_end == "musicnn"
            )
            named = STARTER if untrained else "semantic"
        if named == STARTER:
            with nullcontext() if wait_s is None else self.folder.lock(wait_s):
                starter_run(self.folder)
        return named

    def _to_embed(self, run: str) -> tuple[FeatureStore, dict[str, str] | None]:
        """What a run's vectors are made of."""
        config, weights = run_config(self.folder.run(run)), front_end_weights(self.folder.run(run))
        return open_features(self.folder, config, weights), fused_texts(
            self.tracks, config.front_end
        )

    def _calibrated(self, run: str, vectors: Vectors) -> VectorSpace:
        """A run's space with the spread of its cosines, between tracks and between the catalogue's
        texts and tracks.
        """
        model = HTCL.from_pretrained(self.folder.run(run))
        texts = [text for text in track_texts(self.tracks) if text][:CALIBRATION_TEXTS] or ["music"]
        audio = calibrate(vectors.matrix, vectors.matrix)
        return VectorSpace(
            run, vectors.space_id, audio, calibrate(model.encode_text(texts), vectors.matrix)
        )

    def search(
        self,
        text: str,
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> SearchResults:
        """Returns the `k` tracks that match `text` best.

        blend: 0 = semantic .. 1 = preference; None = the library's setting. per_artist: the most
        tracks per artist. where: filters such as "genres=rock" or "duration_s<300".
        """
        require_words(text)  # before anything is loaded
        return self.service.search(text, k, blend, per_artist=per_artist, where=where)

    def similar(
        self,
        track: str | Path,
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> SearchResults:
        """Returns the `k` tracks most similar to `track`: an id of the index, which is left out of
        the results, or any audio file.
        """
        return self.service.similar(track, k, blend, per_artist=per_artist, where=where)

    def recommend(
        self,
        user: str,
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> SearchResults:
        """Returns the `k` tracks that `user` has not played and that match their profile best.

        user: an id of the log, or the name that was replaced by one on import. The log is read
        once, and again after it has changed.
        """
        return self._service_with_history().recommend(
            user, k, blend, per_artist=per_artist, where=where
        )

    def audience(self, track: str, k: int = 10, blend: float | None = None) -> list[Listener]:
        """Returns the `k` listeners of the log whose profile matches `track` best, by the scores
        that `recommend` ranks by.

        track: an id of the index; DataError if it is not there, LibraryError if there is no log.
        """
        return self._service_with_history().audience(track, k, blend)

    @cached_property
    def service(self) -> SearchService:
        """The search service over the live index."""
        return SearchService(self.folder, self.index, self.tracks)

    def _service_with_history(self) -> SearchService:
        """The search service with the log as it is now; LibraryError without a log."""
        if not self.folder.interactions.is_file():
            read_interactions(self.folder)  # raises the error
        self.service.refresh_history()
        return self.service

    @property
    def listening(self) -> ListeningHistory:
        """The log by user, over the tracks of the index."""
        return self.service.history

    @property
    def models(self) -> list[HTCL]:
        """The models behind the index's spaces; CheckpointError if a run was trained anew since it
        was built.
        """
        return self.service.encoder.models

    def track_vectors(self) -> pl.DataFrame:
        """The index as a table, a row a track: its vector in each space, and `space_id`, the models
        behind them.
        """
        return track_vector_table(self.index)

    def listener_vectors(self) -> pl.DataFrame:
        """Profiles as a table, a row a listener: a track with vector v scores `profile @ v -
        offset` in each space.
        """
        return listener_table(self.index, self.listening, self.folder.config.search)
