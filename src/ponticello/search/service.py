"""One search service for Python, the command line and HTTP.

A query has one or more terms: words, tracks, segments of tracks and sounds, each wanted or not. Or
it is the profile of a listener. `SearchService` turns it into one `ResolvedQuery`, ranks the
catalogue by it, and explains the scores.
"""

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from cachetools import LRUCache, cachedmethod

from ponticello.checks import require_list
from ponticello.config import Config
from ponticello.errors import (
    EMPTY_TEXT,
    CheckpointError,
    DataError,
    LibraryError,
    PonticelloError,
)
from ponticello.features.frontend import features_key, open_features
from ponticello.features.musicnn import MEL, PATCH_FRAMES
from ponticello.features.store import FeatureStore
from ponticello.listening.pseudonyms import resolve_user_id
from ponticello.model.htcl import HTCL
from ponticello.model.saving import space_id
from ponticello.search.index import EmbeddingIndex, Query
from ponticello.search.results import Result, SearchResults, filter_mask
from ponticello.search.user_history import (
    Listener,
    ListeningHistory,
    load_audience,
    load_listening_history,
)
from ponticello.storage import schema
from ponticello.storage.layout import LibraryPaths
from ponticello.tracks.names import lead_artist
from ponticello.train.runs import why_one_space

MAX_CACHED_TEXTS = 4_096  # text queries: 4 MB
MAX_CACHED_FILTERS = 16  # sets of filters: pages and blends repeat the same ones
MAX_SHARED_TAGS = 8
SEGMENT_S = 10.0  # s, the length of the best segment of a track
SEGMENT_STEP_S = 5.0
MAX_SHOWN = 200  # characters of an id in a message
LIMIT_GROWTH = 4  # when exclusions leave too few of the best rows
ROW = "row of the index"  # a filter cannot name it, nor will a catalogue


@dataclass(frozen=True)
class QueryTerm:
    """One term of a query: exactly one of `text`, `track_id` and `sound`.

    start_s, end_s: a segment of the track. sound: an encoded sound, as `QueryEncoder.sound_query`
    gives it. weight: not 0; below 0 = away from it.
    """

    text: str | None = None
    track_id: str | None = None
    sound: Query | None = None
    start_s: float | None = None
    end_s: float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class TermSource:
    """The source of a component. term: its number in the query; None for a liked track."""

    term: int | None
    track_id: str | None
    text: str | None
    weight: float


@dataclass(frozen=True)
class ResolvedQuery:
    """A query ready to be ranked by. excluded: track ids that are never returned.

    terms: the queries of its terms, whose components add up to its own. sources: of the terms.
    """

    query: Query
    terms: tuple[Query, ...]
    sources: tuple[TermSource, ...]
    excluded: frozenset[str]


@dataclass(frozen=True)
class Component(TermSource):
    """The share of one term of a query, or of one liked track, in a score; title: of its track."""

    title: str | None
    semantic: float
    preference: float


@dataclass(frozen=True)
class Explanation:
    """The components of a track's score, which add up to it.

    shared_tags: tags of the track that the wanted terms have too. n_listeners: how many like the
    track; null below `pairs.min_users`, where it could identify a listener.
    """

    components: tuple[Component, ...]
    shared_tags: tuple[str, ...]
    n_listeners: int | None


@dataclass(frozen=True)
class SegmentScore:
    """The segment of a track that scores highest by its sound alone."""

    start_s: float
    end_s: float
    semantic: float
    preference: float


class QueryEncoder:
    """The models behind an index, loaded when first needed, and the latest text queries.

    CheckpointError if a run is missing or was trained again since the index was built.
    """

    def __init__(self, folder: LibraryPaths, index: EmbeddingIndex) -> None:
        self._root = folder.root
        self._runs = [(space.space_id, folder.run(space.run)) for space in index.spaces]
        self._models: list[HTCL] | None = None
        self._queries: LRUCache[Any, Query] = LRUCache(MAX_CACHED_TEXTS)
        self._load_lock = threading.Lock()
        self._cache_lock = threading.Lock()

    @property
    def models(self) -> list[HTCL]:
        """The models, one per space."""
        with self._load_lock:
            if self._models is None:
                self._models = self._load_models()
            return self._models

    def _load_models(self) -> list[HTCL]:
        models = []
        for indexed_space_id, run in self._runs:
            trained_space_id = space_id(run)
            if trained_space_id != indexed_space_id:
                raise CheckpointError(
                    f"run {run.name!r} is now space {trained_space_id}, the index holds "
                    f"{indexed_space_id}",
                    code="model_changed",
                    remedy="ponticello embed",
                    library=self._root,
                )
            models.append(HTCL.from_pretrained(run))
        share_text_encoder(models)
        return models

    @cachedmethod(lambda self: self._queries, lock=lambda self: self._cache_lock)
    def text_query(self, text: str) -> Query:
        """Returns the query "music like these words"; DataError for an empty text."""
        if not text.strip():
            raise DataError(EMPTY_TEXT)
        return text_query(self.models, text)


def text_query(models: Sequence[HTCL], text: str) -> Query:
    """Returns the query "music like these words"; a shared text encoder reads them once."""
    states: dict[int, np.ndarray] = {}
    vectors = []
    for model in models:
        key = id(model.text_encoder)
        if key not in states:
            states[key] = model.encode_text_states([text])
        vectors.append(model.encode_text_from_states(states[key]))
    return Query(tuple(vectors), "text")


def sound_query(models: Sequence[HTCL], sound: str | Path | np.ndarray) -> Query:
    """Returns the query "music like this": a file, or a mono waveform (n,).

    Models with the same features extract them once. Errors as `HTCL.encode_audio`.
    """
    features: dict[str, np.ndarray] = {}
    vectors = []
    for model in models:
        key = features_key(model.settings, model.config.front_end_weights)
        if key not in features:
            features[key] = model.extract_features(sound)
        vectors.append(model.encode_features([features[key]]))
    return Query(tuple(vectors), "audio")


def share_text_encoder(models: Sequence[HTCL]) -> None:
    """Gives models with bit-identical text encoders the first one: half the memory and time."""
    first = models[0]
    states = first.text_encoder.state_dict()
    for model in models[1:]:
        other_states = model.text_encoder.state_dict()
        if model.settings.text != first.settings.text or states.keys() != other_states.keys():
            continue
        if all(torch.equal(states[name], other_states[name]) for name in states):
            model.text_encoder = first.text_encoder


class SearchService:
    """Searches one index of one catalogue; thread-safe.

    tracks: the catalogue, of which `self.tracks` keeps the rows in the index, in its order; without
    the column `path`, results have no path. encoder: of an index with the same spaces; its models
    are kept. Models, features and the listening history are loaded when first needed.
    """

    def __init__(
        self,
        folder: LibraryPaths,
        index: EmbeddingIndex,
        tracks: pl.DataFrame,
        encoder: QueryEncoder | None = None,
    ) -> None:
        self.folder = folder
        self.index = index
        self.encoder = encoder or QueryEncoder(folder, index)
        rows = pl.DataFrame({schema.TRACK_ID: index.track_ids}, schema={schema.TRACK_ID: pl.String})
        rows = rows.with_row_index(ROW).cast({ROW: pl.Int64})
        self.tracks = tracks.join(rows, on=schema.TRACK_ID, how="inner").sort(ROW)
        track_ids = self.tracks[schema.TRACK_ID]
        self._positions = {track_id: position for position, track_id in enumerate(track_ids)}
        self._catalog_ids = set(tracks[schema.TRACK_ID])
        self._filtered: LRUCache[Any, pl.DataFrame] = LRUCache(MAX_CACHED_FILTERS)
        self._history: ListeningHistory | None = None
        self._history_stamp: tuple[int, int] | None = None
        self._audience: tuple[np.ndarray, Query] | None = None
        self._frames: FeatureStore | None = None
        self._filter_lock = threading.Lock()
        self._history_lock = threading.RLock()

    # Queries

    def search(
        self,
        query: str | Sequence[QueryTerm],
        k: int = 10,
        blend: float | None = None,
        *,
        offset: int = 0,
        per_artist: int | None = None,
        where: Sequence[str] = (),
        exclude: Collection[str] = (),
    ) -> SearchResults:
        """Returns the tracks that match a text, or a query of several terms, best.

        blend: 0 = semantic .. 1 = preference; None = the library's setting. where: filters, as
        `filter_mask`. exclude: track ids that are never returned, besides those of the terms.
        """
        terms = [QueryTerm(text=query)] if isinstance(query, str) else query
        resolved = self.resolve_terms(terms, exclude)
        return self.rank(resolved, k, blend, offset=offset, per_artist=per_artist, where=where)

    def audience(self, track_id: str, k: int = 10, blend: float | None = None) -> list[Listener]:
        """Returns the `k` listeners with the highest score for a track, as in `recommend`."""
        _require_positive(k, None)
        row = self.index.row(track_id)
        history = self.history
        numbers, profiles = self.audience_profiles
        parts = self.index.parts(profiles, self.resolve_blend(blend), np.array([row]))[:, 0]
        listeners: list[Listener] = []
        for position in np.argsort(-parts.sum(axis=1), kind="stable")[:k]:
            number = numbers[position]
            listeners.append(
                Listener(
                    rank=len(listeners) + 1,
                    user_id=history.users[number],
                    score=float(parts[position].sum()),
                    semantic=float(parts[position, 0]),
                    preference=float(parts[position, 1]),
                    already_played=bool((history.played_rows(number) == row).any()),
                )
            )
        return listeners

    def resolve_terms(
        self, terms: Sequence[QueryTerm], exclude: Collection[str] = ()
    ) -> ResolvedQuery:
        """Encodes the terms of a query. Whole tracks among them are excluded from its results."""
        if exclude:
            require_list(exclude, "exclude")
        queries = list(map(self._encode_term, terms))
        if len(terms) == 1 and terms[0].weight > 0:
            query = queries[0]
        else:
            query, queries = self.index.compose(queries, [term.weight for term in terms])
        sources = []
        excluded = set(exclude)
        for number, term in enumerate(terms):
            sources.append(TermSource(number, term.track_id, term.text, term.weight))
            if term.track_id is not None:
                excluded.add(term.track_id)
        return ResolvedQuery(query, tuple(queries), tuple(sources), frozenset(excluded))

    def resolve_user(self, user: str, exclude: Collection[str] = ()) -> ResolvedQuery:
        """Returns the profile of a user; DataError if they are unknown or like no track."""
        number = self.user_number(user)
        rows = self.history.seeds(number, self.folder.config.search.n_seed_tracks)
        if not len(rows):
            raise DataError(
                f"listener {user[:MAX_SHOWN]!r} has liked no track of the index; "
                "search or use similar instead",
                code="no_likes",
            )
        liked = [self.index.track_ids[row] for row in rows]
        played = {self.index.track_ids[row] for row in self.history.played_rows(number)}
        return self._resolve_profile(liked, played.union(exclude))

    def resolve_recent(
        self, track_ids: Sequence[str], exclude: Collection[str] = ()
    ) -> ResolvedQuery:
        """Returns the profile of a user with these liked tracks."""
        liked = list(dict.fromkeys(track_ids))
        for track_id in liked:
            self.require_track(track_id)
        return self._resolve_profile(liked, set(liked).union(exclude))

    def _resolve_profile(self, liked: list[str], excluded: Collection[str]) -> ResolvedQuery:
        config = self.folder.config.search
        query, terms = self.index.profile_query(liked, config.profile_l2, config.hub_correction)
        sources = [TermSource(None, track_id, None, 1.0) for track_id in liked]
        return ResolvedQuery(query, tuple(terms), tuple(sources), frozenset(excluded))

    def _encode_term(self, term: QueryTerm) -> Query:
        if term.text is not None:
            return self.encoder.text_query(term.text)
        if term.sound is not None:
            return term.sound
        if term.track_id is None:
            raise DataError("a query needs at least one term: words, a track or a sound")
        self.require_track(term.track_id)
        if term.start_s is not None and term.end_s is not None:
            return self.segment_query(term.track_id, term.start_s, term.end_s)
        return self.index.track_query([term.track_id])

    def rank(
        self,
        query: ResolvedQuery,
        k: int = 10,
        blend: float | None = None,
        *,
        offset: int = 0,
        per_artist: int | None = None,
        where: Sequence[str] = (),
    ) -> SearchResults:
        """Returns the `k` best tracks for a query from `offset` on, best first, ties by track id.

        per_artist: the most tracks per artist; tracks without artist are not limited. With
        `search.deduplicate_recordings` only the best copy of a recording that passes the filters is
        returned, and none of an excluded track.
        """
        _require_positive(k, per_artist)
        blend = self.resolve_blend(blend)
        tracks = self._filter(tuple(require_list(where, "where"))) if where else self.tracks
        index_rows = tracks[ROW].to_numpy()
        allowed = None if len(index_rows) == len(self.index.track_ids) else index_rows
        excluded_rows = set()
        for track_id in query.excluded & self.index.rows.keys():
            excluded_rows.add(self.index.rows[track_id])
        n_wanted = offset + k + 1
        limit = n_wanted + len(excluded_rows)
        while True:
            rows = self.index.top(query.query, blend, limit, allowed)
            positions = np.searchsorted(index_rows, rows)
            artists = tracks[schema.ARTIST].gather(positions).to_list()
            selected = self._select(rows.tolist(), artists, excluded_rows, per_artist)
            if len(selected) >= n_wanted or len(rows) < limit:
                break
            limit *= LIMIT_GROWTH
        page = selected[offset : offset + k]
        scores = self.index.parts(query.query, blend, rows[page])[0]  # (page, 2)
        results = []
        for number, row in enumerate(tracks[positions[page]].iter_rows(named=True)):
            results.append(self._result(row, offset + number + 1, scores[number]))
        return SearchResults(tuple(results), blend, has_more=len(selected) >= n_wanted)

    def _select(
        self,
        rows: list[int],
        artists: list[str | None],
        excluded_rows: set[int],
        per_artist: int | None,
    ) -> list[int]:
        recordings = self.index.recordings
        hides_copies = self.folder.config.search.deduplicate_recordings
        seen_recordings = {recordings[row] for row in excluded_rows}
        counts: Counter[str] = Counter()
        selected: list[int] = []
        for position, row in enumerate(rows):
            is_copy = hides_copies and recordings[row] in seen_recordings
            if row in excluded_rows or is_copy:
                continue
            artist = lead_artist(artists[position]) if per_artist is not None else ""
            if artist and counts[artist] == per_artist:
                continue
            counts[artist] += 1
            seen_recordings.add(recordings[row])
            selected.append(position)
        return selected

    def _result(self, row: dict[str, Any], rank: int, scores: np.ndarray) -> Result:
        path = row.get(schema.PATH)
        return Result(
            rank=rank,
            track_id=row[schema.TRACK_ID],
            title=row[schema.TITLE],
            artist=row[schema.ARTIST],
            score=float(scores.sum()),
            semantic=float(scores[0]),
            preference=float(scores[1]),
            album=row.get(schema.ALBUM),
            path=None if path is None else str(self.folder.root / path),
            duration_s=row.get(schema.DURATION_S),
            tags=tuple(_track_tags(row)),
        )

    def resolve_blend(self, blend: float | None) -> float:
        """Returns `blend`, or the library's setting for None; 0 without a preference space.

        LibraryError for one above 0 without a preference space.
        """
        if self.index.has_preference:
            return self.folder.config.search.blend if blend is None else blend
        if blend is not None and 0 < blend <= 1:
            raise LibraryError(f"blend must be 0: {self.one_space}", code="no_preference")
        return blend or 0.0

    @property
    def one_space(self) -> str:
        """Why the index has no preference space, as one sentence; "" if it has one."""
        if self.index.has_preference:
            return ""
        return why_one_space(self.folder.run("preference"))

    @cachedmethod(lambda self: self._filtered, lock=lambda self: self._filter_lock)
    def _filter(self, where: tuple[str, ...]) -> pl.DataFrame:
        return filter_mask(self.tracks, where)

    def require_track(self, track_id: str) -> None:
        """Raises DataError for a track that is not in the catalogue, or has no vector."""
        if track_id in self._positions:
            return
        shown = repr(track_id[:MAX_SHOWN])
        if track_id in self._catalog_ids:
            raise DataError(f"track {shown} has no vector yet; run: ponticello prepare, then embed")
        raise DataError(f"there is no track {shown}", code="unknown_track")

    # Listening history

    @property
    def history(self) -> ListeningHistory:
        """The log by user, over the tracks of the index."""
        with self._history_lock:
            if self._history is None:
                self._history_stamp = file_stamp(self.folder.interactions)
                self._history = load_listening_history(self.folder, self.index)
            return self._history

    @property
    def audience_profiles(self) -> tuple[np.ndarray, Query]:
        """User numbers and profiles of the listeners that `audience` ranks."""
        with self._history_lock:
            if self._audience is None:
                self._audience = load_audience(self.index, self.history, self.folder.config.search)
            return self._audience

    def refresh_history(self) -> None:
        """Drops the listening history if the log changed since it was loaded."""
        with self._history_lock:
            if self._history is None:
                return
            if self._history_stamp != file_stamp(self.folder.interactions):
                self._history = None
                self._audience = None

    def user_number(self, user: str) -> int:
        """Returns the number of a user in `history`, by id or by name; DataError for none."""
        numbers = self.history.numbers
        user_id = resolve_user_id(self.folder, user, numbers.keys())
        if user_id not in numbers:
            raise DataError(
                f"listener {user[:MAX_SHOWN]!r} is not in the log; check the id, or run: "
                "ponticello import-history",
                code="unknown_user",
            )
        return numbers[user_id]

    # Explanations

    def explain(
        self, query: ResolvedQuery, track_ids: Sequence[str], blend: float
    ) -> list[Explanation]:
        """Returns the explanation of each track's score for a query."""
        rows = np.array([self.index.rows[track_id] for track_id in track_ids], dtype=np.int64)
        components = [self.index.parts(term, blend, rows)[0] for term in query.terms]
        titles = [self._catalog_row(source.track_id).get(schema.TITLE) for source in query.sources]
        wanted_tags: set[str] = set()
        wanted_words = " "
        for source in query.sources:
            if source.weight > 0:
                source_tags = _track_tags(self._catalog_row(source.track_id))
                wanted_tags.update(tag.lower() for tag in source_tags)
                wanted_words += f"{(source.text or '').lower()} "
        explanations = []
        for position, row in enumerate(rows):
            term_components = []
            for number, source in enumerate(query.sources):
                semantic, preference = components[number][position].tolist()
                component = Component(
                    **vars(source), title=titles[number], semantic=semantic, preference=preference
                )
                term_components.append(component)
            shared_tags = []
            for tag in _track_tags(self._catalog_row(track_ids[position])):
                if tag.lower() in wanted_tags or f" {tag.lower()} " in wanted_words:
                    shared_tags.append(tag)
            n = int(self.history.n_listeners[row])
            shown_n = n if n >= self.folder.config.pairs.min_users else None
            shown_tags = tuple(shared_tags[:MAX_SHARED_TAGS])
            explanations.append(Explanation(tuple(term_components), shown_tags, shown_n))
        return explanations

    def score_track(self, query: ResolvedQuery, track_id: str, blend: float) -> Result:
        """Returns a track as a result of a query, whatever its rank, which is 0 here."""
        self.require_track(track_id)
        rows = np.array([self.index.rows[track_id]])
        scores = self.index.parts(query.query, blend, rows)[0, 0]
        return self._result(self._catalog_row(track_id), 0, scores)

    def best_segment(
        self, query: ResolvedQuery, track_id: str, blend: float
    ) -> SegmentScore | None:
        """Returns the ten seconds of a track that score highest; None where it has no segments."""
        try:
            features, frame_s = self._features(track_id)
            models = self.encoder.models
        except PonticelloError:
            return None
        size = max(1, round(SEGMENT_S / frame_s))
        step = max(1, round(SEGMENT_STEP_S / frame_s))
        starts = range(0, max(1, len(features) - size + 1), step)
        segments = [features[start : start + size] for start in starts]
        scores = np.zeros((len(starts), 2))
        for number, space in enumerate(self.index.weighted(query.query, blend)):
            scale, mean, query_vectors = space
            vectors = models[number].encode_features(segments)
            scores[:, number] = scale * (vectors @ query_vectors[0] - mean)
        best = int(scores.sum(axis=1).argmax())
        end = min(starts[best] + size, len(features))
        return SegmentScore(
            start_s=round(starts[best] * frame_s, 3),
            end_s=round(end * frame_s, 3),
            semantic=float(scores[best, 0]),
            preference=float(scores[best, 1]),
        )

    def segment_query(self, track_id: str, start_s: float, end_s: float) -> Query:
        """Returns the query "like this segment"; DataError if it is not prepared."""
        features, frame_s = self._features(track_id)
        first = int(start_s / frame_s)
        last = int(np.ceil(end_s / frame_s))
        if first >= len(features):
            raise DataError(
                f"start_s {start_s:g} must lie within the {len(features) * frame_s:.0f} s prepared "
                f"of track {track_id[:MAX_SHOWN]!r}"
            )
        segment = features[first : max(last, first + 1)]
        vectors = [model.encode_features([segment]) for model in self.encoder.models]
        return Query(tuple(vectors), "audio")

    @property
    def supports_segments(self) -> bool:
        """Whether the library keeps features of known moments of each track."""
        return frame_seconds(self.folder.config) is not None

    def _features(self, track_id: str) -> tuple[np.ndarray, float]:
        frame_s = frame_seconds(self.folder.config)
        if frame_s is None:
            raise DataError(
                "this library's vectors were computed elsewhere: it has no segments of tracks"
            )
        if self._frames is None:
            self._frames = open_features(self.folder, self.folder.config)
        if track_id not in self._frames:
            raise DataError(
                f"track {track_id[:MAX_SHOWN]!r} is not prepared; run: ponticello prepare"
            )
        return np.asarray(self._frames.read(track_id)), frame_s

    def _catalog_row(self, track_id: str | None) -> dict[str, Any]:
        """Returns a track's row of the catalogue; empty for a track that is not in it any more."""
        position = self._positions.get(track_id or "")
        return {} if position is None else self.tracks.row(position, named=True)

    # Paths

    def path(
        self, start: str, end: str, n: int, blend: float | None = None
    ) -> list[tuple[str, float | None]]:
        """Returns at most `n` tracks that lead from `start` to `end`, both included, each with its
        similarity to the next, 0 to 1.

        Track i of n is the best match, not yet on the path, for a query of two terms: the start
        with weight 1 - t and the end with weight t, t = i / (n - 1). The tracks are then
        ordered by how much more similar they are to the end than to the start. There are fewer
        where the library has fewer, and no two copies of one recording with
        `search.deduplicate_recordings`. DataError for equal ends or an unknown track.
        """
        for track_id in (start, end):
            self.require_track(track_id)
        if start == end:
            raise DataError("a path needs two different tracks")
        blend = self.resolve_blend(blend)
        start_query = self.index.track_query([start])
        end_query = self.index.track_query([end])
        used = {start, end}
        for step in range(1, n - 1):
            t = step / (n - 1)
            query, _ = self.index.compose([start_query, end_query], [1 - t, t])
            resolved = ResolvedQuery(query, (), (), frozenset(used))
            used.update(result.track_id for result in self.rank(resolved, 1, blend))
        between = sorted(used - {start, end})
        rows = np.array([self.index.rows[track_id] for track_id in between], dtype=np.int64)
        if len(rows):
            to_end = self.index.parts(end_query, blend, rows)[0].sum(axis=1)
            to_start = self.index.parts(start_query, blend, rows)[0].sum(axis=1)
            order = np.argsort(to_end - to_start, kind="stable")
            between = [between[number] for number in order]
        tracks = [start, *between, end]
        path: list[tuple[str, float | None]] = []
        for left, right in pairwise(tracks):
            path.append((left, self.similarity(left, right, blend)))
        path.append((end, None))
        return path

    def similarity(self, left: str, right: str, blend: float) -> float:
        """Returns how similar two tracks are: (1 + their blended cosine) / 2, within 0 to 1."""
        weights = (1 - blend, blend) if self.index.has_preference else (1.0,)
        rows = [self.index.rows[left], self.index.rows[right]]
        cosine = 0.0
        for number, weight in enumerate(weights):
            left_vector, right_vector = self.index.space_vectors(number)[rows]
            cosine += weight * float(left_vector @ right_vector)
        return min(1.0, max(0.0, (1 + cosine) / 2))


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Returns the time of the last change, in ns, and the size of a file; None without one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def frame_seconds(config: Config) -> float | None:
    """Returns the seconds from one frame of features to the next; None where it is unknown."""
    if config.front_end == "logmel":
        return config.mel.hop_s
    return PATCH_FRAMES * MEL.hop_s if config.front_end == "musicnn" else None


def _track_tags(row: dict[str, Any]) -> list[str]:
    """Returns the genres, tags and machine tags of a row of the catalogue, without repeats."""
    tags: list[str] = []
    for column in (schema.GENRES, schema.TAGS, schema.MACHINE_TAGS):
        tags.extend(tag for tag in row.get(column) or () if tag is not None)
    return list(dict.fromkeys(tags))


def _require_positive(k: int, per_artist: int | None) -> None:
    if k < 1 or (per_artist is not None and per_artist < 1):
        raise DataError(f"k {k} and per_artist {per_artist} must be at least 1")
