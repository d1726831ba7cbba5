"""The open library: one whole snapshot, replaced by the next when the folder changes.

A request takes the snapshot once and keeps it to its end, whatever is rebuilt meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.errors import LibraryError, PonticelloError
from ponticello.library import Library
from ponticello.search.generations import open_index
from ponticello.search.index import EmbeddingIndex
from ponticello.search.service import SearchService, file_stamp
from ponticello.serve.errors import APIError, api_error_from, without_root
from ponticello.serve.schemas import Error
from ponticello.storage.schema import ALBUM, ARTIST, LYRICS, PATH, TITLE, TRACK_ID, TRACKS
from ponticello.tracks.catalog import fill_columns, read_tracks

logger = logging.getLogger(__name__)
HIDDEN = (PATH, LYRICS)  # columns that clients neither see nor filter by
WATCH_S = 1.0  # s from one look at the folder to the next
RETRY_AFTER_S = 30.0  # s before an unreadable, unchanged state is read again


class Snapshot:
    """The library at one moment; everything in it belongs together.

    tracks: the whole catalogue. index: None while there is none; the first of `problems` then
    explains why. before: the former snapshot; its models are reused if the spaces are equal.
    """

    def __init__(
        self, library: Library, signature: tuple[object, ...], before: "Snapshot | None" = None
    ) -> None:
        folder = library.folder
        self.library = library
        self.signature = signature
        self.problems: list[Error] = []
        if folder.tracks.is_file():
            self.tracks = read_tracks(folder)
        else:  # before the first import
            self.tracks = fill_columns(pl.DataFrame(schema={TRACK_ID: pl.String}), TRACKS)
        self.library_info: dict[str, Any] = {}  # of `routes/library.py`, once it was computed
        self.index: EmbeddingIndex | None = None
        self.generation: str | None = None
        self._service: SearchService | None = None
        current = folder.index / "CURRENT"
        try:
            self.index = open_index(folder.index, folder.config.search.backend)
            self.generation = current.read_text().strip()
        except PonticelloError as error:
            code = "index_damaged" if current.is_file() else "no_index"
            self.problems.append(Error(code=code, message=without_root(folder.root, error)))
            return
        encoder = None
        if before is not None and before.index and before.index.spaces == self.index.spaces:
            encoder = before.service.encoder
        visible = self.tracks.drop(HIDDEN, strict=False)
        self._service = SearchService(folder, self.index, visible, encoder)

    @cached_property
    def space_ids(self) -> tuple[str, ...]:
        """The ids of the spaces of the index, in which queries must be encoded."""
        return tuple(space.space_id for space in self.service.index.spaces)

    @property
    def service(self) -> SearchService:
        """The search service over the index; APIError while there is none."""
        if self._service is None:
            raise APIError(503, "not_ready", self.problems[0].message)
        return self._service

    @cached_property
    def rows(self) -> dict[str, int]:
        """The catalogue's row of each track."""
        return {track_id: row for row, track_id in enumerate(self.tracks[TRACK_ID])}

    def row(self, track_id: str) -> int:
        """Returns the catalogue's row of a track; APIError 404 for an unknown one."""
        if track_id not in self.rows:
            raise APIError(404, "not_found", f"there is no track {track_id[:200]!r}")
        return self.rows[track_id]

    @cached_property
    def names(self) -> pl.DataFrame:
        """Title, artist and album of each row of the catalogue, in lower case."""
        return self.tracks.select(pl.col(TITLE, ARTIST, ALBUM).str.to_lowercase())

    def warm(self) -> None:
        """Loads data that the first queries need; a missing model becomes a problem."""
        if self._service is None:
            return
        config = self.library.folder.config.search
        history = self._service.history
        _ = self.rows, self.names, self._service.index.rows
        _ = history.n_listeners, history.n_liked, history.numbers
        self._service.index.profiles(config.profile_l2, config.hub_correction)
        try:
            _ = self._service.encoder.models
        except PonticelloError as error:
            failure = api_error_from(error, self.library.folder.root)
            self.problems.append(Error.model_validate(failure))


class LibraryWatcher:
    """The snapshot in use, and the thread that replaces it. on_swap, on_failure: handlers."""

    def __init__(self, root: Path, settings: Sequence[str] = ()) -> None:
        self._root = root
        self._settings = settings
        self.on_swap: list[Callable[[Snapshot], None]] = []
        self.on_failure: list[Callable[[Exception], None]] = []
        self.trouble: Error | None = None  # why the folder's newest state is not in use
        self._refused_signature: tuple[object, ...] = ()
        self._refused_at = 0.0
        self._current = self._open(None)
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def now(self) -> Snapshot:
        """Returns the snapshot to answer from: take it once per request."""
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
        """Opens the folder's state if it changed; returns whether a new one is in use now."""
        signature = _signature(self._root)
        if signature == self._current.signature:
            self.trouble = None  # the unreadable state was taken back
            self._refused_signature = ()
            return False
        is_waiting = time.monotonic() < self._refused_at + RETRY_AFTER_S
        if signature == self._refused_signature and is_waiting:
            return False
        try:
            snapshot = self._open(self._current)
        except (PonticelloError, OSError, pl.exceptions.PolarsError) as error:
            self._refuse(error, signature)
            return False
        if snapshot.index is None and self._current.index is not None:
            self._refuse(LibraryError(snapshot.problems[0].message), signature)
            return False
        self.trouble = None
        self._current = snapshot
        for handler in self.on_swap:
            handler(snapshot)
        return True

    def _refuse(self, error: Exception, signature: tuple[object, ...]) -> None:
        message = without_root(self._root, error)
        if self._refused_signature != signature:
            logger.warning(
                "the library changed and cannot be read, the last state stays in use: %s", message
            )
            for handler in self.on_failure:
                handler(error)
        self._refused_signature = signature
        self._refused_at = time.monotonic()
        message = f"answers come from the last whole index: {message}"
        self.trouble = Error(code="index_damaged", message=message)

    def _open(self, before: Snapshot | None) -> Snapshot:
        signature = _signature(self._root)
        started = time.monotonic()
        snapshot = Snapshot(Library.open(self._root, self._settings), signature, before)
        snapshot.warm()
        duration_s = time.monotonic() - started
        logger.info("generation %s ready after %.1f s", snapshot.generation, duration_s)
        return snapshot

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            try:
                self.refresh()
            except Exception:
                logger.exception("watching the library failed; the last state stays in use")


def _signature(root: Path) -> tuple[object, ...]:
    """Returns a value that changes when the index, the catalogue, the log or the settings do."""
    current = root / "index" / "CURRENT"
    generation = current.read_text(errors="replace") if current.is_file() else ""
    names = ("tracks.parquet", "interactions.parquet", "ponticello.toml")
    return generation, tuple(file_stamp(root / name) for name in names)
