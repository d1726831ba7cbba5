"""`Library`: the whole pipeline over one folder, as methods.

Each method imports what it runs, so that opening a library, and every step that needs no model,
starts without torch. Progress of a long step is reported to `on_progress(step, n_done, n_total)`.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from ponticello.errors import EMPTY_TEXT, ConfigError, DataError, PonticelloError
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.storage.schema import TRACK_ID

if TYPE_CHECKING:
    import polars as pl

    from ponticello.datasets.registry import ImportedSet
    from ponticello.evaluate.results import Evaluation
    from ponticello.features.prepare import PrepareResult, TaggingResult
    from ponticello.features.store import FeatureStore
    from ponticello.listening.importers.run import HistoryImport
    from ponticello.maintenance.erase_user import ErasureResult
    from ponticello.model.htcl import HTCL
    from ponticello.pairs.engine import EngineOptions
    from ponticello.pairs.mine import MiningResult
    from ponticello.search.embed import Vectors
    from ponticello.search.index import EmbeddingIndex, Query, VectorSpace
    from ponticello.search.results import SearchResults
    from ponticello.search.service import SearchService
    from ponticello.search.user_history import Listener, ListeningHistory
    from ponticello.storage.validation import ImportResult
    from ponticello.tracks.scan import ScanResult
    from ponticello.train.estimate import TrainingEstimate
    from ponticello.train.loop import TrainingObserver
    from ponticello.train.readiness import DataStats
    from ponticello.train.runs import TrainedRun

CALIBRATION_TEXTS = 2_000  # the most texts that text-to-track cosines are calibrated with
STARTER_WAIT_S = 600.0  # for another job that assembles the starter, which takes seconds
OnProgress = Callable[[str, int, int], None]
"""Called with (step, n_done, n_total) of a long step; n_total is 0 where it is not known."""


@dataclass(frozen=True)
class EmbedResult:
    """What `Library.embed` did.

    n_tracks: tracks in the index; n_new: vectors computed now. generation: folder of the index.
    semantic_run: the run behind blend 0, which may be "starter". preference_run: the run behind
    blend 1; None without one. one_space: why there is none, as one sentence; else "".
    """

    n_tracks: int
    n_new: int
    generation: Path
    semantic_run: str
    preference_run: str | None
    one_space: str


@dataclass(frozen=True)
class OnnxExport:
    """What `Library.export_onnx` wrote; the differences are the largest to PyTorch's vectors."""

    folder: Path
    run: str
    space_id: str
    audio_difference: float
    text_difference: float


class Library:
    """A library folder: tracks, listening history, models and an index.

        library = ponticello.Library.create("my-library")
        library.scan("~/Music")
        library.prepare()
        library.embed()
        library.search("slow piano at night", k=10)

    Methods that write hold the library's lock; LibraryError names the process that has it. Reading
    needs no lock. Tables and the index stay in memory until a method writes.
    `len(library)` is the number of tracks, `library["track_id"]` the row of a track as a dict.

    blend: 0 = semantic similarity .. 1 = preference similarity.
    """

    def __init__(self, folder: LibraryPaths, settings: Sequence[str] = ()) -> None:
        self.folder = folder
        self.settings = tuple(settings)

    @classmethod
    def open(cls, root: Path | str, settings: Sequence[str] = ()) -> "Library":
        """Opens the library at `root`; LibraryError if there is none.

        settings: `section.key=value` on top of the library's own.
        """
        return cls(open_library(root, settings), settings)

    @classmethod
    def create(cls, root: Path | str, preset: str = "small") -> "Library":
        """Creates an empty library at `root`; LibraryError if there is one already.

        preset: "paper", "base", "small" or "tiny".
        """
        return cls(create_library(root, preset))

    def __repr__(self) -> str:
        n_tracks = _n_rows(self.folder.tracks)
        n_events = _n_rows(self.folder.interactions)
        return (
            f"Library({str(self.folder.root)!r}: {n_tracks:,} tracks, {n_events:,} events, "
            f"spaces {self._space_names()})"
        )

    def _space_names(self) -> str:
        if not (self.folder.index / "CURRENT").is_file():
            return "none"
        try:
            return ", ".join(space.run for space in self.index.spaces)
        except PonticelloError as error:
            return f"unreadable: {error}"

    def __len__(self) -> int:
        return _n_rows(self.folder.tracks)

    def __bool__(self) -> bool:
        return True  # also without tracks

    def __iter__(self) -> Iterator[str]:
        return iter(self.tracks[TRACK_ID].to_list())

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._track_rows

    def __getitem__(self, track_id: str) -> dict[str, Any]:
        if track_id not in self._track_rows:
            raise KeyError(f"track {track_id!r} is not in {self.folder.tracks}")
        return self.tracks.row(self._track_rows[track_id], named=True)

    @cached_property
    def tracks(self) -> "pl.DataFrame":
        """The catalogue, one row per track; LibraryError before tracks are imported."""
        from ponticello.tracks.catalog import read_tracks

        return read_tracks(self.folder)

    @cached_property
    def _track_rows(self) -> dict[str, int]:
        return {track_id: row for row, track_id in enumerate(self.tracks[TRACK_ID])}

    @contextmanager
    def _writing(self, purpose: str) -> Iterator[None]:
        """Holds the lock; tables and the index are read again afterwards."""
        try:
            with self.folder.lock(purpose=purpose):
                yield
        finally:
            self._forget_loaded()

    def _forget_loaded(self) -> None:
        for name, attribute in vars(type(self)).items():
            if isinstance(attribute, cached_property):
                self.__dict__.pop(name, None)

    # From files to tracks, events and features

    def scan(
        self,
        folder: Path | str,
        *,
        n_workers: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> "ScanResult":
        """Brings the catalogue in line with the sound files under `folder`, by their own tags.

        Only new and changed files are read; moved files keep their track, and no row is deleted.
        n_workers: processes that read; None = one per core. DataError if `folder` is no folder.
        """
        from ponticello.tracks.scan import scan_folder

        with self._writing("scanning"):
            return scan_folder(
                self.folder,
                Path(folder).expanduser(),
                workers=n_workers or os.cpu_count() or 1,
                on_progress=_step(on_progress, "reading files"),
            )

    def import_tracks(
        self,
        table: Path | str,
        *,
        audio_root: Path | str | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> "ImportResult":
        """Adds the tracks of a table (CSV, JSONL, Parquet) or of a list of paths (.txt, .m3u).

        Tracks with a known id are updated; bad rows are listed in skipped.csv. audio_root: the
        folder that relative paths start from; None = the table's folder. columns: {our column:
        the table's}. ConfigError for either with a list of paths.
        """
        from ponticello.tracks.catalog import LIST_SUFFIXES, import_track_list, import_tracks

        table = Path(table)
        if table.suffix.lower() not in LIST_SUFFIXES:
            root = None if audio_root is None else Path(audio_root)
            result = import_tracks(self.folder, table, audio_root=root, columns=columns)
        elif audio_root or columns:
            raise ConfigError(
                f"{table.name} is a list of paths: it has no columns, and its paths start from "
                "its own folder; leave --columns and --audio-root out"
            )
        else:
            result = import_track_list(self.folder, table)
        self._forget_loaded()
        return result

    def import_history(
        self,
        path: Path | str | None,
        *,
        user: str | None = None,
        file_format: str | None = None,
        columns: Mapping[str, str] | None = None,
        pseudonyms: bool = True,
        fuzzy: bool = False,
        timezone: str = "UTC",
        on_progress: OnProgress | None = None,
    ) -> "HistoryImport":
        """Adds the listening events of a file, folder or zip; each event is counted once.

        path: None matches again what earlier imports could not, as every import does besides.
        user: the listener, in exports of one person; None = "me". file_format: None detects it.
        columns: {our column: the table's}. pseudonyms: stores a keyed hash of new listeners'
        names, not the names. fuzzy: also matches names that differ in accents and spaces.
        timezone: of dates without one.
        DataError: no listening in `path`. ConfigError: an unknown format or time zone.
        """
        from ponticello.listening.importers import run
        from ponticello.listening.importers.detect import FORMATS

        known_format = next((name for name in FORMATS if name == file_format), None)
        if file_format is not None and known_format is None:
            raise ConfigError(
                f"--format {file_format!r} is unknown; use one of {', '.join(FORMATS)}"
            )
        result = run.import_history(
            self.folder,
            None if path is None else Path(path),
            file_format=known_format,
            columns=columns,
            user=user,
            pseudonyms=pseudonyms,
            fuzzy=fuzzy,
            zone=_time_zone(timezone),
            on_progress=_step(on_progress, "reading history"),
        )
        self._forget_loaded()
        return result

    def import_dataset(self, name: str, source: Path | str) -> "ImportedSet":
        """Adds the tracks and listening of a public data set from its own files in `source`.

        name: one of `ponticello.datasets.registry.SETS`; DataError for another one.
        """
        from ponticello.datasets.registry import import_dataset

        result = import_dataset(self.folder, name, Path(source))
        self._forget_loaded()
        return result

    def prepare(
        self,
        *,
        n_workers: int | None = None,
        allow_download: bool = False,
        shard: tuple[int, int] | None = None,
        n_shards: int | None = None,
        engine: str = "here",
        on_progress: OnProgress | None = None,
    ) -> "PrepareResult":
        """Computes the log-mels of every track, and the features its front end needs.

        Only missing and changed tracks are computed. New tracks get their split.
        n_workers: processes that decode; None = one per core. allow_download: lets the audio
        encoder of front end `hf:NAME` be fetched. engine: "here" or "ray".
        shard: (i, n) computes share i of n only, without the library's lock, beside other jobs.
        n_shards: merges what n such jobs did; LibraryError, before any work, if one is missing.
        """
        from ponticello.features.prepare import prepare_library
        from ponticello.pairs.mine import refresh_splits

        result = prepare_library(
            self.folder,
            workers=n_workers,
            allow_download=allow_download,
            shard=shard,
            n_shards=n_shards,
            engine=engine,
            on_progress=_prefix_step(on_progress, "preparing "),
        )
        if shard is None:
            with self._writing("splitting tracks"):
                refresh_splits(self.folder)
        return result

    def tag(
        self, *, n_workers: int | None = None, on_progress: OnProgress | None = None
    ) -> "TaggingResult":
        """Tags every track by its sound (MusiCNN), in the column `machine_tags` of the catalogue.

        Tracks analysed before are read from frames/. n_workers: processes; None = one per core.
        """
        from ponticello.features.prepare import tag_library

        report = _prefix_step(on_progress, "tagging by ")
        result = tag_library(self.folder, workers=n_workers, on_progress=report)
        self._forget_loaded()
        return result

    # Pairs and training

    def mine_pairs(self, options: "EngineOptions | None" = None) -> "MiningResult":
        """Mines the pairs of tracks that stage two learns from, and splits the tracks before.

        options: where mining runs, and in how much memory. LibraryError without a listening log.
        """
        from ponticello.pairs.mine import mine_library

        with self._writing("mining pairs"):
            return mine_library(self.folder, options)

    def training_data(self) -> "DataStats":
        """Counts the tracks, pairs and listeners to train on; a missing table counts 0."""
        from ponticello.train.readiness import count_data

        return count_data(self.folder)

    def train_semantic(
        self,
        name: str = "semantic",
        *,
        seed_number: int = 1,
        allow_download: bool = False,
        on_progress: OnProgress | None = None,
    ) -> "TrainedRun":
        """Trains stage one, audio with its text, and returns the finished run.

        An interrupted run of this name resumes, a finished one is returned as it is.
        seed_number: i trains run `name`-i with the i-th seed. allow_download: lets the text encoder
        be fetched. LibraryError names the earlier step that is missing; DataError for too little
        data; CheckpointError for a run of this name with other settings or data.
        """
        from ponticello.evaluate.retrieval import retrieval_figures
        from ponticello.train.runs import seed_run, with_seed
        from ponticello.train.semantic import train_semantic

        run = seed_run(name, seed_number)
        with self._training(run, "stage semantic", on_progress) as observers:
            return train_semantic(
                with_seed(self.folder, "semantic", seed_number),
                run,
                retrieval_figures,
                allow_download=allow_download,
                observers=observers,
            )

    def train_preference(
        self,
        name: str = "preference",
        start: str = "semantic",
        *,
        seed_number: int = 1,
        on_progress: OnProgress | None = None,
    ) -> "TrainedRun":
        """Trains stage two on the mined pairs, from the finished stage-one run `start`.

        The weights kept are chosen on the validation split. seed_number: i trains run `name`-i
        from `start`-i. Resumes and raises like `train_semantic`.
        """
        from ponticello.evaluate.retrieval import retrieval_figures
        from ponticello.evaluate.validation import score_on_validation, score_spaces_on_validation
        from ponticello.train.preference import train_preference
        from ponticello.train.runs import seed_run, with_seed

        run = seed_run(name, seed_number)
        with self._training(run, "stage preference", on_progress) as observers:
            return train_preference(
                with_seed(self.folder, "preference", seed_number),
                run,
                seed_run(start, seed_number),
                retrieval_figures,
                scorer=score_on_validation(self.folder),
                space_scorer=score_spaces_on_validation(self.folder),
                observers=observers,
            )

    def estimate_training(
        self,
        stage: Literal["semantic", "preference"],
        name: str | None = None,
        start: str = "semantic",
        *,
        allow_download: bool = False,
    ) -> "TrainingEstimate":
        """Estimates time, memory and disk of a training run from a few steps of each of its fits.

        The steps run in a temporary folder; the library is not changed. name, start: as for the
        training. ConfigError under torchrun.
        """
        from ponticello.evaluate.retrieval import retrieval_figures
        from ponticello.evaluate.validation import score_on_validation, score_spaces_on_validation
        from ponticello.train.estimate import estimate_training, score_higher_every_time
        from ponticello.train.preference import train_preference
        from ponticello.train.semantic import train_semantic

        run = name or stage

        def train(folder: LibraryPaths, observers: "list[TrainingObserver]") -> None:
            if stage == "semantic":
                train_semantic(
                    folder,
                    run,
                    retrieval_figures,
                    allow_download=allow_download,
                    observers=observers,
                )
                return
            train_preference(
                folder,
                run,
                start,
                retrieval_figures,
                scorer=score_on_validation(folder),
                space_scorer=score_higher_every_time(score_spaces_on_validation(folder)),
                observers=observers,
            )

        start_run = start if stage == "preference" else None
        return estimate_training(self.folder, stage, train, start_run)

    @contextmanager
    def _training(
        self, run: str, title: str, on_progress: OnProgress | None
    ) -> "Iterator[list[TrainingObserver]]":
        """Holds the lock in the first process of torchrun; yields the observers of progress."""
        from ponticello.train.distributed import launch_info
        from ponticello.train.loop import ProgressObserver

        if launch_info()[0] > 0:
            yield []
            return
        with self._writing(f"training run {run!r}"):
            yield [] if on_progress is None else [ProgressObserver(title, on_progress)]

    # Vectors

    def embed(
        self,
        semantic_run: str | None = None,
        preference_run: str | None = None,
        *,
        with_preference: bool = True,
        n_shards: int | None = None,
        engine: str = "here",
        on_progress: OnProgress | None = None,
    ) -> EmbedResult:
        """Embeds every prepared track, missing vectors only, and makes the new index live.

        semantic_run: None = run "semantic"; while that is not finished, and the library's front end
        is MusiCNN, the starter model of the package. preference_run: None = run "preference" if it
        was better than stage one on validation. with_preference: False leaves it out. The index
        then has blend 0 only, as it has where both spaces would be equal.
        n_shards: merges what n jobs of `embed_shard` did; LibraryError, before any work, if one is
        missing. engine: "here" or "ray"; the vectors are the same.
        """
        from ponticello.features.ray_tasks import uses_ray

        use_ray = uses_ray(engine)
        with self._writing("embedding"):
            runs = self._runs_to_embed(semantic_run, preference_run, with_preference)
            return self._embed_runs(runs, n_shards, use_ray, on_progress)

    def _embed_runs(
        self, runs: list[str], n_shards: int | None, use_ray: bool, on_progress: OnProgress | None
    ) -> EmbedResult:
        from ponticello.features.fingerprint import find_recordings
        from ponticello.search.embed import embed_library, embed_on_ray, require_shards
        from ponticello.search.generations import load_recordings, write_index
        from ponticello.train.runs import why_one_space

        self._forget_loaded()  # the catalogue may have changed
        inputs = {run: self._embedding_inputs(run) for run in runs}
        if n_shards is not None:
            for run, (store, texts) in inputs.items():
                require_shards(self.folder.run(run), store, n_shards, texts)
        all_vectors: list[Vectors] = []
        spaces: list[VectorSpace] = []
        n_new = 0
        for run, (store, texts) in inputs.items():
            report = _step(on_progress, f"embedding by {run}")
            if use_ray:
                n_new += embed_on_ray(self.folder, run, store, texts, report)
            vectors, n_computed = embed_library(self.folder.run(run), store, report, texts=texts)
            all_vectors.append(vectors)
            spaces.append(self._calibrate(run, vectors))
            n_new += n_computed
        config = self.folder.config
        recordings = find_recordings(
            self.folder.mels, load_recordings(self.folder.index), config.mel.hop_s
        )
        preference = None
        if len(runs) == 2 and not _are_equal(all_vectors, spaces):
            preference = all_vectors[1]
        spaces = spaces if preference is not None else spaces[:1]
        generation = write_index(
            self.folder.index, all_vectors[0], preference, spaces, recordings, config.search.backend
        )
        preference_run = None if preference is None else runs[1]
        one_space = why_one_space(self.folder.run("preference")) if preference is None else ""
        n_tracks = len(all_vectors[0].track_ids)
        return EmbedResult(n_tracks, n_new, generation, runs[0], preference_run, one_space)

    def embed_shard(
        self,
        shard: tuple[int, int],
        semantic_run: str | None = None,
        preference_run: str | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> tuple[int, int]:
        """Computes one job's share of the vectors; returns how many it has and how many are new.

        shard: (i, n), i from 1. Needs neither lock nor other jobs; `embed(n_shards=n)` merges them.
        """
        from ponticello.search.embed import embed_shard

        n_vectors = 0
        n_new = 0
        for run in self._runs_to_embed(semantic_run, preference_run, lock_wait_s=STARTER_WAIT_S):
            store, texts = self._embedding_inputs(run)
            report = _step(on_progress, f"embedding by {run}")
            n_present, n_computed = embed_shard(
                self.folder.run(run), store, shard, report, texts=texts
            )
            n_vectors += n_present
            n_new += n_computed
        return n_vectors, n_new

    def _runs_to_embed(
        self,
        semantic_run: str | None,
        preference_run: str | None,
        with_preference: bool = True,
        lock_wait_s: float | None = None,
    ) -> list[str]:
        """Returns one or two runs; assembles the starter if that is the first.

        lock_wait_s: how long to wait for the lock the starter needs; None = it is held.
        """
        from ponticello.train.runs import STARTER, is_finished, is_served, starter_run

        if semantic_run is None:
            is_trained = is_finished(self.folder.run("semantic"))
            has_starter = self.folder.config.front_end == "musicnn"
            semantic_run = STARTER if has_starter and not is_trained else "semantic"
        if semantic_run == STARTER:
            with nullcontext() if lock_wait_s is None else self.folder.lock(lock_wait_s):
                starter_run(self.folder)
        if preference_run is None and is_served(self.folder.run("preference")):
            preference_run = "preference"
        if preference_run is None or not with_preference:
            return [semantic_run]
        return [semantic_run, preference_run]

    def _embedding_inputs(self, run: str) -> "tuple[FeatureStore, dict[str, str] | None]":
        from ponticello.features.frontend import open_features
        from ponticello.model.saving import front_end_weights, run_config
        from ponticello.tracks.text import fused_texts

        config = run_config(self.folder.run(run))
        weights = front_end_weights(self.folder.run(run))
        return open_features(self.folder, config, weights), fused_texts(
            self.tracks, config.front_end
        )

    def _calibrate(self, run: str, vectors: "Vectors") -> "VectorSpace":
        from ponticello.model.htcl import HTCL
        from ponticello.search.index import VectorSpace, calibrate
        from ponticello.tracks.text import track_texts

        model = HTCL.from_pretrained(self.folder.run(run))
        texts = [text for text in track_texts(self.tracks) if text]
        text_vectors = model.encode_text(texts[:CALIBRATION_TEXTS] or ["music"])
        audio = calibrate(vectors.matrix, vectors.matrix)
        return VectorSpace(run, vectors.space_id, audio, calibrate(text_vectors, vectors.matrix))

    @cached_property
    def index(self) -> "EmbeddingIndex":
        """The live index; LibraryError before `embed`."""
        from ponticello.search.generations import open_index

        return open_index(self.folder.index, self.folder.config.search.backend)

    # Search

    @cached_property
    def service(self) -> "SearchService":
        """The search service over the live index, which the command line and HTTP use too."""
        from ponticello.search.service import SearchService

        return SearchService(self.folder, self.index, self.tracks)

    def search(
        self,
        text: str,
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> "SearchResults":
        """Returns the `k` tracks that match `text` best.

        blend: 0 = semantic .. 1 = preference; None = the library's setting. per_artist: the most
        tracks per artist. where: filters such as "genres=rock" or "duration_s<300".
        """
        if not text.strip():
            raise DataError(EMPTY_TEXT)  # before the index is opened
        return self.service.search(text, k, blend, per_artist=per_artist, where=where)

    def similar(
        self,
        track: str | Path,
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> "SearchResults":
        """Returns the `k` tracks most similar to `track`: an id of the index, or any audio file."""
        from ponticello.search.service import QueryTerm, sound_query

        if str(track) in self.index.rows:
            term = QueryTerm(track_id=str(track))
        elif Path(track).is_file():
            term = QueryTerm(sound=sound_query(self.models, track))
        else:
            raise DataError(f"{str(track)!r} is neither a track of the index nor an audio file")
        return self.service.search([term], k, blend, per_artist=per_artist, where=where)

    def search_vectors(
        self,
        query: "Query",
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
        exclude: Collection[str] = (),
    ) -> "SearchResults":
        """Returns the `k` tracks that match vectors best, such as `library.index.track_query(ids)`.

        exclude: track ids that are never returned.
        """
        from ponticello.search.service import QueryTerm

        terms = [QueryTerm(sound=query)]
        return self.service.search(
            terms, k, blend, per_artist=per_artist, where=where, exclude=exclude
        )

    def recommend(
        self,
        user: str,
        k: int = 10,
        blend: float | None = None,
        *,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> "SearchResults":
        """Returns the `k` tracks that `user` has not played and that match their profile best.

        user: an id of the log, or the name that was replaced by one on import. The log is read
        once, and again after it has changed.
        """
        service = self._service_with_history()
        query = service.resolve_user(user)
        return service.rank(query, k, blend, per_artist=per_artist, where=where)

    def audience(self, track: str, k: int = 10, blend: float | None = None) -> "list[Listener]":
        """Returns the `k` listeners of the log whose profile matches `track` best, by the scores
        that `recommend` ranks by.

        track: an id of the index; DataError if it is not there, LibraryError if there is no log.
        """
        return self._service_with_history().audience(track, k, blend)

    def _service_with_history(self) -> "SearchService":
        """Returns the service with the log as it is now; LibraryError without a log."""
        from ponticello.listening.log import read_interactions

        if not self.folder.interactions.is_file():
            read_interactions(self.folder)  # raises the error
        self.service.refresh_history()
        return self.service

    @property
    def listening(self) -> "ListeningHistory":
        """The log by user, over the tracks of the index."""
        return self.service.history

    @property
    def models(self) -> "list[HTCL]":
        """The models of the index's spaces; CheckpointError if a run was trained again since."""
        return self.service.encoder.models

    # Evaluation and exports

    def evaluate(
        self,
        semantic_run: str = "semantic",
        preference_run: str = "preference",
        *,
        labels: Sequence[str] | None = None,
        vectors: Mapping[str, str | Path] | None = None,
        n_seeds: int = 1,
        command: str = "Library.evaluate",
        on_progress: OnProgress | None = None,
    ) -> "Evaluation":
        """Measures both stages beside baselines on held-out tracks and events; writes the report.

        A run that is not finished is left out. labels: columns of the catalogue to read off the
        vectors; None = genres, tags and machine tags. vectors: {name: file} of other encoders.
        n_seeds: reads the runs that `seed_number` 1 to n trained. command: shown in the report.
        LibraryError if no track is held out yet, or a seed's run is missing; DataError if a
        held-out track is in the training pairs or has a copy in training.
        """
        from ponticello.evaluate.run import evaluate_library

        def report(step: str) -> None:
            if on_progress is not None:
                on_progress(step, 0, 0)

        return evaluate_library(
            self.folder,
            semantic_run,
            preference_run,
            labels=labels,
            vectors=vectors,
            n_seeds=n_seeds,
            command=command,
            on_step=report,
        )

    def track_vectors(self) -> "pl.DataFrame":
        """Returns the index as a table, a row per track: vectors and the ids of their spaces."""
        from ponticello.search.export import track_vector_table

        return track_vector_table(self.index, self.folder.config.search)

    def listener_vectors(self) -> "pl.DataFrame":
        """Returns the listeners' profiles as a table, a row per user.

        A track with vector v scores `profile @ v - offset` in each space.
        """
        from ponticello.search.export import listener_table

        return listener_table(self.index, self.listening, self.folder.config.search)

    def export_vectors(self, file: Path | str) -> "pl.DataFrame":
        """Writes `track_vectors` as Parquet, and returns the table."""
        return _write_table(self.track_vectors(), Path(file))

    def export_listeners(self, file: Path | str) -> "pl.DataFrame":
        """Writes `listener_vectors` as Parquet, and returns the table."""
        return _write_table(self.listener_vectors(), Path(file))

    def export_onnx(self, folder: Path | str, run: str | None = None) -> OnnxExport:
        """Writes both towers of a run to a new `folder` as ONNX, compared with PyTorch before.

        run: None = "preference" if it is served, else "semantic". ConfigError without the extra
        `onnx` or if `folder` is not empty; CheckpointError if the outputs differ by over 1e-4.
        """
        from ponticello.model.htcl import HTCL
        from ponticello.model.onnx import export_onnx
        from ponticello.model.saving import space_id
        from ponticello.train.runs import is_served

        if run is None:
            run = "preference" if is_served(self.folder.run("preference")) else "semantic"
        run_folder = self.folder.run(run)
        space = space_id(run_folder)
        result = export_onnx(HTCL.from_pretrained(run_folder), Path(folder), space)
        return OnnxExport(
            result.folder, run, space, result.audio_difference, result.text_difference
        )

    # Service and privacy

    def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8321,
        *,
        token: str | None = None,
        allowed_hosts: Sequence[str] = (),
        on_start: Callable[[str], None] | None = None,
    ) -> None:
        """Serves the library and the explorer over HTTP until Ctrl-C or SIGTERM.

        port: 0 = any free one. token: required for a public `host` (ConfigError). allowed_hosts:
        further names the service is reached by. on_start: called with the URL once it listens.
        """
        from ponticello.serve.app import run_service

        run_service(
            self.folder.root,
            host,
            port,
            token=token,
            allowed_hosts=allowed_hosts,
            settings=self.settings,
            on_start=on_start,
        )

    def forget_user(self, user: str, options: "EngineOptions | None" = None) -> "ErasureResult":
        """Deletes a listener from every table, mines the pairs again, and names runs to retrain.

        user: an id of the log, or the name that was replaced by one on import; DataError if it is
        in no table. options: where mining runs.
        """
        from ponticello.maintenance.erase_user import erase_users

        with self._writing("forgetting a listener"):
            return erase_users(self.folder, [user], options)


def _are_equal(vectors: "Sequence[Vectors]", spaces: "Sequence[VectorSpace]") -> bool:
    """Returns whether two spaces have the same tracks' vectors and the same cosines with texts."""
    import numpy as np

    has_same_texts = spaces[0].text == spaces[1].text
    return has_same_texts and np.array_equal(vectors[0].matrix, vectors[1].matrix)


def _n_rows(table: Path) -> int:
    from ponticello.storage.tables import count_rows

    return count_rows(table) if table.is_file() else 0


def _step(on_progress: OnProgress | None, step: str) -> Callable[[int, int], None] | None:
    return None if on_progress is None else partial(on_progress, step)


def _prefix_step(on_progress: OnProgress | None, prefix: str) -> OnProgress | None:
    if on_progress is None:
        return None
    return lambda step, n_done, n_total: on_progress(prefix + step, n_done, n_total)


def _time_zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ConfigError(
            f"--timezone {name!r} is unknown; use a name such as Europe/Berlin"
        ) from None


def _write_table(table: "pl.DataFrame", path: Path) -> "pl.DataFrame":
    with atomic_write(path) as temporary:
        table.write_parquet(temporary)
    return table
