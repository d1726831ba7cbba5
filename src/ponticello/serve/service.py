"""From a question to a ranked list that says why: the terms become one query, and are told apart
again afterwards.

Parts of a track: as what is asked for, and as what of a track answers a question best.

They are cut out of the frames that the library keeps, so that no file is decoded. Where sound
begins with silence MusiCNN's frames begin after it, and so do these times.

Why a track stands where it does: the parts its score is made of, what it shares, who likes it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cachetools import LRUCache

from ponticello.errors import DataError, PonticelloError
from ponticello.listening.pseudonyms import resolve_user_id
from ponticello.search.index import EmbeddingIndex, Query
from ponticello.search.queries import (
    ComposedQuery,
    Term,
    compose_query,
    frame_seconds,
    frames_query,
    profile_query_terms,
    term_shares,
)
from ponticello.search.ranking import Result as Ranked
from ponticello.search.ranking import rank_tracks
from ponticello.search.service import text_query
from ponticello.serve import schemas as asks
from ponticello.serve import schemas as shapes
from ponticello.serve.catalog import tracks_of
from ponticello.serve.errors import APIError
from ponticello.serve.schemas import Explanation, Result, Segment, SegmentMatch
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.schema import GENRES, MACHINE_TAGS, TAGS, TITLE

WINDOW_S = 10.0  # how long the best part of a track is
STEP_S = 5.0


def supports_segments(snapshot: Snapshot) -> bool:
    """Whether frames of this library are of moments that are known."""
    return frame_seconds(snapshot.library.folder.config) is not None


def segment_query(snapshot: Snapshot, track_id: str, start_s: float, end_s: float) -> Query:
    """The query "like this part of a track"; Failure if it lies past what was heard of the track."""
    frames, seconds = _frames(snapshot, track_id)
    first, last = int(start_s / seconds), int(np.ceil(end_s / seconds))
    if first >= len(frames):
        heard = f"of track {track_id[:200]!r} {len(frames) * seconds:.0f} s were heard"
        raise APIError(422, "invalid", f"{heard}; start_s {start_s:g} lies behind that")
    return frames_query(snapshot.models, [frames[first : max(last, first + 1)]])


def best_segment(
    snapshot: Snapshot, question: ComposedQuery, blend: float, track_id: str
) -> Segment | None:
    """The ten seconds of a track that score highest by their sound alone; None where parts cannot
    be heard.
    """
    try:
        frames, seconds = _frames(snapshot, track_id)
        models = snapshot.models
    except APIError:
        return None
    size, step = max(1, round(WINDOW_S / seconds)), max(1, round(STEP_S / seconds))
    starts = list(range(0, max(1, len(frames) - size + 1), step))
    heard = frames_query(models, [frames[start : start + size] for start in starts])
    weights = (1 - blend, blend) if heard.preference is not None else (1.0, 0.0)
    parts = np.zeros((len(starts), 2))
    query = question.query
    for number, (side, vectors) in enumerate(
        ((query.semantic, heard.semantic), (query.preference, heard.preference))
    ):
        if side is not None and vectors is not None:
            parts[:, number] = weights[number] * (vectors @ side[0] - query.offsets[number])
    best = int(parts.sum(axis=1).argmax())
    end = min(starts[best] + size, len(frames))
    return Segment(
        start_s=round(starts[best] * seconds, 3),
        end_s=round(end * seconds, 3),
        semantic=float(parts[best, 0]),
        preference=float(parts[best, 1]),
    )


def _frames(snapshot: Snapshot, track_id: str) -> tuple[np.ndarray, float]:
    """What was heard of a track, and how many seconds a frame is apart."""
    config = snapshot.library.folder.config
    seconds = frame_seconds(config)
    if seconds is None:
        raise APIError(
            422,
            "invalid",
            "this library's vectors come from elsewhere: parts of tracks cannot be heard",
        )
    try:
        store = snapshot.frames
    except PonticelloError as error:
        raise APIError(503, "not_ready", " ".join(error.message.split())) from error
    if track_id not in store:
        raise APIError(
            422, "invalid", f"track {track_id[:200]!r} is not prepared; run: ponticello prepare"
        )
    return np.asarray(store.read(track_id)), seconds


MOST_TAGS = 8


@dataclass(frozen=True)
class TermSource:
    """Where a term of a question comes from. term: its number in the question; None for what a
    listener liked.
    """

    term: int | None
    track_id: str | None
    text: str | None
    weight: float
    is_wanted: bool


def results_of(
    snapshot: Snapshot,
    question: ComposedQuery,
    origins: Sequence[TermSource],
    blend: float,
    ranked: Sequence[Ranked],
) -> list[Result]:
    """Ranked tracks with their fields and reasons."""
    index = snapshot.asked
    rows = np.array([index.rows[each.track_id] for each in ranked], dtype=np.int64)
    added = term_shares(index, question, blend, rows)  # (terms, results, 2)
    fields = tracks_of(snapshot, [each.track_id for each in ranked])
    asked_for = _asked_tags(snapshot, origins)
    titles = _titles(snapshot, origins)
    found = []
    for place, (each, own) in enumerate(zip(ranked, fields, strict=True)):
        parts = [
            SegmentMatch(
                term=origin.term,
                track_id=origin.track_id,
                title=titles.get(origin.track_id or ""),
                text=origin.text,
                weight=origin.weight,
                semantic=float(added[number, place, 0]),
                preference=float(added[number, place, 1]),
            )
            for number, origin in enumerate(origins)
        ]
        why = Explanation(
            parts=parts,
            shared_tags=_shared(own, asked_for, origins),
            n_listeners=n_listeners(snapshot, int(rows[place])),
        )
        score = {"score": each.score, "semantic": each.semantic, "preference": each.preference}
        found.append(Result(**own, rank=each.rank, **score, why=why))
    return found


def n_listeners(snapshot: Snapshot, row: int) -> int | None:
    """How many listeners like a track of the index; None below `pairs.min_users`, where it may
    tell on somebody.
    """
    n = int(snapshot.listening.n_listeners[row])
    return n if n >= snapshot.library.folder.config.pairs.min_users else None


def _titles(snapshot: Snapshot, origins: Sequence[TermSource]) -> dict[str, str]:
    named = {origin.track_id for origin in origins if origin.track_id in snapshot.rows}
    titles = snapshot.tracks[TITLE]
    return {track_id: titles[snapshot.rows[track_id]] for track_id in named if track_id is not None}


def _asked_tags(snapshot: Snapshot, origins: Sequence[TermSource]) -> set[str]:
    """The tags of the tracks that are asked for, in lower case."""
    wanted = [
        origin.track_id
        for origin in origins
        if origin.is_wanted and origin.track_id in snapshot.rows
    ]
    return {
        tag.lower()
        for track in tracks_of(snapshot, [each for each in wanted if each])
        for tag in _tags(track)
    }


def _shared(
    own: dict[str, object], asked_for: set[str], origins: Sequence[TermSource]
) -> list[str]:
    """Tags of a track that what is asked for has too, or that stand in the words asked for."""
    words = f" {' '.join(origin.text.lower() for origin in origins if origin.text and origin.is_wanted)} "
    shared = [tag for tag in _tags(own) if tag.lower() in asked_for or f" {tag.lower()} " in words]
    return list(dict.fromkeys(shared))[:MOST_TAGS]


def _tags(track: dict[str, object]) -> list[str]:
    found: list[str] = []
    for name in (GENRES, TAGS, MACHINE_TAGS):
        values = track[name]
        assert isinstance(values, list)
        found += values
    return found


MOST_TEXTS = 4_096  # whose vectors are kept: 4 MB

Sounds = Callable[[str, Snapshot], Query]  # the query of an upload; Failure if it has expired


class TextQueryCache:
    """Texts' queries, the latest asked kept: a text costs its encoder 10 ms, and people ask the
    same again.
    """

    def __init__(self) -> None:
        self._queries: LRUCache[tuple[tuple[str, ...], str], Query] = LRUCache(MOST_TEXTS)
        self._lock = threading.Lock()

    def query(self, snapshot: Snapshot, text: str) -> Query:
        """What these words ask under the snapshot's models; Failure as `Snapshot.models`, DataError
        for no words.
        """
        spaces = tuple(space.space_id for space in snapshot.asked.spaces)
        with self._lock:
            cached = self._queries.get((spaces, text))
        if cached is not None:
            return cached
        query = text_query(snapshot.models, text)
        with self._lock:
            self._queries[spaces, text] = query
        return query


@dataclass(frozen=True)
class ResolvedQuery:
    """A question ready to be looked up. excluded: never in the answer; origins: what its terms are,
    for the reasons.
    """

    question: ComposedQuery
    origins: tuple[TermSource, ...]
    excluded: frozenset[str]


@dataclass(frozen=True)
class SearchService:
    """Where questions are answered; holds what outlives a snapshot. sounds: finds uploads."""

    sounds: Sounds
    words: TextQueryCache = field(default_factory=TextQueryCache)

    def ask(self, snapshot: Snapshot, ask: asks.SearchRequest) -> shapes.RankedList:
        """The answer to a composed question; Failure or PonticelloError says what is wrong with it."""
        started = time.perf_counter()
        return self._answer(snapshot, self.asked(snapshot, ask), ask, started)

    def recommend(self, snapshot: Snapshot, ask: asks.RecommendRequest) -> shapes.RankedList:
        """What a listener of the log, or of the given tracks, has not met and would like."""
        started = time.perf_counter()
        return self._answer(
            snapshot, self.taste(snapshot, ask.user_id, ask.recent, ask.exclude), ask, started
        )

    def asked(self, snapshot: Snapshot, ask: asks.SearchRequest) -> ResolvedQuery:
        """A composed question, its terms as queries."""
        terms = [Term(self._query(snapshot, term), term.weight) for term in ask.terms]
        origins = tuple(
            TermSource(number, term.track_id, term.text, term.weight, is_wanted=term.weight > 0)
            for number, term in enumerate(ask.terms)
        )
        whole = {term.track_id for term in ask.terms if term.track_id is not None}
        return ResolvedQuery(
            compose_query(snapshot.asked, terms), origins, frozenset(whole | set(ask.exclude))
        )

    def taste(
        self,
        snapshot: Snapshot,
        user_id: str | None,
        recent: Sequence[str] | None,
        exclude: Sequence[str] = (),
    ) -> ResolvedQuery:
        """What a listener asks with, by the log or by what they played lately."""
        index, config = snapshot.asked, snapshot.library.folder.config.search
        if user_id is not None:
            number = listener(snapshot, user_id)
            rows = snapshot.listening.seeds(number, config.n_seed_tracks)
            if not len(rows):
                raise APIError(
                    422, "invalid", f"listener {user_id[:100]!r} has liked no track of the index"
                )
            seeds = [index.track_ids[row] for row in rows]
            met = {index.track_ids[row] for row in snapshot.listening.met(number)}
        else:
            seeds = list(dict.fromkeys(recent or ()))
            for track_id in seeds:
                require_track(snapshot, track_id)
            met = set(seeds)
        question = profile_query_terms(index, seeds, config.profile_l2, config.hub_correction)
        origins = tuple(TermSource(None, track_id, None, 1.0, is_wanted=True) for track_id in seeds)
        return ResolvedQuery(question, origins, frozenset(met | set(exclude)))

    def _query(self, snapshot: Snapshot, term: asks.Term) -> Query:
        if term.text is not None:
            return self.words.query(snapshot, term.text)
        if term.upload is not None:
            return self.sounds(term.upload, snapshot)
        assert term.track_id is not None
        require_track(snapshot, term.track_id)
        if term.start_s is not None and term.end_s is not None:
            return segment_query(snapshot, term.track_id, term.start_s, term.end_s)
        return snapshot.asked.track_query([term.track_id])

    def _answer(
        self, snapshot: Snapshot, asked: ResolvedQuery, page: asks.Page, started: float
    ) -> shapes.RankedList:
        blend = require_blend(snapshot, page.blend)
        ranked = rank_tracks(
            snapshot.asked,
            asked.question.query,
            snapshot.filtered(page.where),
            k=page.offset + page.k + 1,
            blend=blend,
            excluded=asked.excluded,
            per_artist=page.per_artist,
            once=snapshot.library.folder.config.search.deduplicate_recordings,
        )
        shown = ranked[page.offset : page.offset + page.k]
        return shapes.RankedList(
            results=results_of(snapshot, asked.question, asked.origins, blend, shown),
            k=page.k,
            offset=page.offset,
            has_more=len(ranked) > page.offset + page.k,
            blend=blend,
            generation=snapshot.generation or "",
            took_ms=round(1000 * (time.perf_counter() - started), 3),
        )


def one_result(
    snapshot: Snapshot, asked: ResolvedQuery, blend: float, track_id: str
) -> shapes.Result:
    """A track as a result of a question, whatever its rank: 0 stands there."""
    index = snapshot.asked
    require_track(snapshot, track_id)
    parts = index.parts(asked.question.query, blend, np.array([index.rows[track_id]]))[0, 0]
    ranked = Ranked(0, track_id, None, None, float(parts.sum()), float(parts[0]), float(parts[1]))
    return results_of(snapshot, asked.question, asked.origins, blend, [ranked])[0]


def require_track(snapshot: Snapshot, track_id: str) -> None:
    """Failure if a track cannot be asked about: not in the catalogue, or not in the index."""
    index: EmbeddingIndex = snapshot.asked
    if track_id in index.rows and track_id in snapshot.rows:
        return
    if track_id not in snapshot.rows:
        raise APIError(404, "not_found", f"there is no track {track_id[:200]!r}")
    raise APIError(
        422,
        "invalid",
        f"track {track_id[:200]!r} has no vector yet; run: ponticello prepare, then embed",
    )


def require_blend(snapshot: Snapshot, asked: float | None) -> float:
    """Where the dial stands; Failure if it asks for taste before there is any."""
    if asked is None:
        return snapshot.library.folder.config.search.blend if snapshot.asked.has_preference else 0.0
    if asked > 0 and not snapshot.asked.has_preference:
        raise APIError(
            409,
            "no_preference",
            "this library has no taste yet: use blend 0, or train stage two and embed",
        )
    return asked


def listener(snapshot: Snapshot, user_id: str) -> int:
    """The number of a listener, by id or by the name that became one; Failure 404 if there is none."""
    numbers = snapshot.listening.numbers
    try:
        known = resolve_user_id(snapshot.library.folder, user_id, numbers.keys())
    except (DataError, OSError, ValueError):
        known = user_id
    if known not in numbers:
        raise APIError(404, "not_found", f"there is no listener {user_id[:200]!r} in the log")
    return numbers[known]
