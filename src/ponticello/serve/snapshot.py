"""What is being asked: one whole snapshot of the library, replaced by the next without a moment
between.

A request takes the snapshot once and keeps it to its end; whoever rebuilds the index meanwhile
changes nothing for it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from cachetools import LRUCache

from ponticello.errors import LibraryError, PonticelloError
from ponticello.features.frontend import open_features
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.search.generations import open_index
from ponticello.search.index import EmbeddingIndex
from ponticello.search.queries import load_models
from ponticello.search.ranking import filter_mask
from ponticello.search.user_history import (
    Audience,
    ListeningHistory,
    load_audience,
    load_listening_history,
)
from ponticello.serve.errors import APIError
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ALBUM, ARTIST, LYRICS, PATH, TITLE, TRACK_ID, TRACKS
from ponticello.tracks.catalog import fill_columns, read_tracks

logger = logging.getLogger(__name__)
HIDDEN = (PATH, LYRICS)  # no filter reads them either: where a file lies is nobody's business
WATCH_S = 1.0  # how often the folder is looked at for a new generation, catalogue or log
MOST_FILTERED = (
    16  # sets of filters whose tracks are kept: pages and the dial ask with the same ones again
)
AGAIN_S = 30.0  # how long a state that could not be read is left alone, if it does not change


@dataclass(frozen=True)
class Problem:
    """Something a user should know: a code for programs, a line for people."""

    code: str
    message: str


class Snapshot:
    """The library as it was at one moment; everything in it belongs together.

    index: None while there is none, and `problem` says why. tracks: the whole catalogue.
    """

    def __init__(
        self, library: Library, signature: tuple[object, ...], before: "Snapshot | None" = None
    ) -> None:
        self.library, self.signature, self.problems = library, signature, list[Problem]()
        self.tracks: pl.DataFrame = _tracks(library.folder)
        self.about: dict[str, Any] = {}  # what `overview.py` says of it, once it was asked
        self.index: EmbeddingIndex | None = None
        self.generation: str | None = None
        try:
            self.index = open_index(library.folder.index, library.folder.config.search.backend)
            self.generation = (library.folder.index / "CURRENT").read_text().strip()
        except PonticelloError as error:
            is_there = (library.folder.index / "CURRENT").is_file()
            message = without_root(library.folder.root, error)
            self.problems.append(Problem("index_damaged" if is_there else "no_index", message))
        self._before = before if before is not None and self._has_spaces_of(before) else None
        self._filtered: LRUCache[tuple[str, ...], pl.DataFrame] = LRUCache(MOST_FILTERED)
        self._filtered_lock = threading.Lock()
        self._models: list[HTCL] | None = None
        self._gathered: tuple[np.ndarray, Audience] | None = None
        self._models_lock = threading.Lock()
        self._audience_lock = threading.Lock()

    def _has_spaces_of(self, other: "Snapshot") -> bool:
        return (
            self.index is not None
            and other.index is not None
            and self.index.spaces == other.index.spaces
        )

    @cached_property
    def rows(self) -> dict[str, int]:
        """The catalogue's row of each track."""
        return {track_id: row for row, track_id in enumerate(self.tracks[TRACK_ID])}

    @cached_property
    def names(self) -> pl.DataFrame:
        """Title, artist and album of each row of the catalogue in lower case, to be looked through."""
        return self.tracks.select(pl.col(TITLE, ARTIST, ALBUM).str.to_lowercase())

    @cached_property
    def frames(self) -> FeatureStore:
        """What the models read of each track; LibraryError if it is missing or of other settings."""
        return open_features(self.library.folder, self.library.folder.config)

    @cached_property
    def placed(self) -> pl.DataFrame:
        """The catalogue's tracks that are in the index, in its order."""
        return self.asked.placed(self.tracks)

    def filtered(self, where: Sequence[str]) -> pl.DataFrame:
        """Returns the rows of `placed` that pass the filters; cached. DataError as `filter_mask`."""
        key = tuple(where)
        with self._filtered_lock:
            cached = self._filtered.get(key)
        if cached is not None:
            return cached
        tracks = filter_mask(self.placed.drop(HIDDEN, strict=False), where)
        with self._filtered_lock:
            self._filtered[key] = tracks
        return tracks

    @property
    def asked(self) -> EmbeddingIndex:
        """The index; Failure while there is none."""
        if self.index is None:
            raise APIError(503, "not_ready", self.problems[0].message)
        return self.index

    @cached_property
    def listening(self) -> ListeningHistory:
        """Who met what."""
        return load_listening_history(self.library.folder, self.asked)

    @property
    def gathered(self) -> tuple[np.ndarray, Audience]:
        """Every listener's profile, for audiences; whoever asks first gathers them, the others
        wait.
        """
        with self._audience_lock:
            if self._gathered is None:
                self._gathered = load_audience(
                    self.asked, self.listening, self.library.folder.config.search
                )
            return self._gathered

    @property
    def models(self) -> list[HTCL]:
        """The models behind the index, loaded once; Failure if one is missing or was trained anew."""
        with self._models_lock:
            if self._models is None and self._before is not None:
                self._models = self._before._models
            if self._models is not None:
                return self._models
            try:
                self._models = load_models(self.library.folder, self.asked)
            except (PonticelloError, OSError) as error:
                is_changed = isinstance(error, PonticelloError) and error.code == "model_changed"
                code = "model_changed" if is_changed else "model_missing"
                message = without_root(self.library.folder.root, error)
                raise APIError(503, code, f"words and sounds need the model: {message}") from error
            return self._models

    def warm(self) -> None:
        """Loads what the first questions would wait for; a model that is missing is no hindrance to
        the others.
        """
        if self.index is None:
            return
        _ = self.rows, self.names, self.placed
        _ = self.listening.n_listeners, self.listening.n_liked, self.listening.numbers
        self.asked.profiles(
            self.library.folder.config.search.profile_l2,
            self.library.folder.config.search.hub_correction,
        )
        _ = self.asked.rows
        try:
            _ = self.models
        except APIError as failure:
            self.problems.append(Problem(failure.code, failure.message))
        self._before = None


class LibraryWatcher:
    """The snapshot in use, and the thread that replaces it when the folder changes.

    on_swap: called with each new snapshot; on_failure: with the error that kept the old one in use.
    """

    def __init__(
        self,
        root: Path,
        settings: Sequence[str] = (),
        on_swap: Sequence[Callable[[Snapshot], None]] = (),
        on_failure: Sequence[Callable[[Exception], None]] = (),
    ) -> None:
        self._root, self._settings = root, settings
        self.on_swap, self.on_failure = list(on_swap), list(on_failure)
        self.trouble: Problem | None = (
            None  # why the newest state of the folder is not the one in use
        )
        self._refused: tuple[tuple[object, ...], float] = (), 0.0
        self._current = self._opened(None)
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def now(self) -> Snapshot:
        """The snapshot to answer from: take it once a request."""
        return self._current

    def start(self) -> None:
        """Begins to watch the folder."""
        self._stop.clear()
        self._watcher = threading.Thread(target=self._watch, name="watch-library", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Ends watching."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join(timeout=30)

    def refresh(self) -> bool:
        """Takes up what changed in the folder; True if there was something. What cannot be read is
        left for later.
        """
        signature = _signature(self._root)
        refused, since = self._refused
        if signature == self._current.signature:
            self.trouble, self._refused = None, ((), 0.0)  # what could not be read was taken back
            return False
        if signature == refused and time.monotonic() < since + AGAIN_S:
            return False
        try:
            fresh = self._opened(self._current)
        except (PonticelloError, OSError, pl.exceptions.PolarsError) as error:
            self._keep(error, signature)
            return False
        if (
            fresh.index is None and self._current.index is not None
        ):  # answers from the last whole one are still answers
            self._keep(LibraryError(fresh.problems[0].message), signature)
            return False
        self.trouble, self._current = None, fresh
        for told in self.on_swap:
            told(fresh)
        return True

    def _keep(self, error: Exception, signature: tuple[object, ...]) -> None:
        message = without_root(self._root, error)
        if self._refused[0] != signature:
            logger.warning(
                "the library changed and cannot be read, the last state stays in use: %s", message
            )
            for told in self.on_failure:
                told(error)
        self._refused = signature, time.monotonic()
        self.trouble = Problem(
            "index_damaged", f"answers come from the last whole index: {message}"
        )

    def _opened(self, before: Snapshot | None) -> Snapshot:
        signature = _signature(self._root)
        started = time.monotonic()
        snapshot = Snapshot(Library.open(self._root, self._settings), signature, before)
        snapshot.warm()
        logger.info(
            "generation %s ready after %.1f s", snapshot.generation, time.monotonic() - started
        )
        return snapshot

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            try:
                self.refresh()
            except Exception:
                logger.exception("watching the library failed; the last state stays in use")


def without_root(root: Path, error: Exception) -> str:
    """Returns an error's message in one line, without the library's path on this machine."""
    message = error.message if isinstance(error, PonticelloError) else str(error)
    return " ".join(message.replace(f"{root.resolve()}/", "").replace(f"{root}/", "").split())


def _tracks(folder: LibraryPaths) -> pl.DataFrame:
    """The catalogue; an empty one, where nothing was imported yet."""
    if folder.tracks.is_file():
        return read_tracks(folder)
    return fill_columns(pl.DataFrame(schema={TRACK_ID: pl.String}), TRACKS)


def _signature(root: Path) -> tuple[object, ...]:
    """Changes when the index, the catalogue or the log does."""
    current = root / "index" / "CURRENT"
    generation = current.read_text(errors="replace") if current.is_file() else ""
    return generation, *(
        _stamp(root / name)
        for name in ("tracks.parquet", "interactions.parquet", "ponticello.toml")
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
