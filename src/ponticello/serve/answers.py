"""From a question to a ranked list that says why: the terms become one query, and are told apart again afterwards."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cachetools import LRUCache

from ponticello.data.pseudonyms import known_as
from ponticello.errors import DataError
from ponticello.search.compose import Question, Term, compose, profile_question
from ponticello.search.index import EmbeddingIndex, Query
from ponticello.search.models import text_query
from ponticello.search.recommend import Result as Ranked
from ponticello.search.recommend import rank_tracks
from ponticello.serve import asks, shapes
from ponticello.serve.failures import Failure
from ponticello.serve.live import Snapshot
from ponticello.serve.parts import part_query
from ponticello.serve.reasons import Origin, results_of

MOST_TEXTS = 4_096  # whose vectors are kept: 4 MB

Sounds = Callable[[str, Snapshot], Query]  # the query of an upload; Failure if it has expired


class Words:
    """Texts' queries, the latest asked kept: a text costs its encoder 10 ms, and people ask the same again."""

    def __init__(self) -> None:
        self._queries: LRUCache[tuple[tuple[str, ...], str], Query] = LRUCache(MOST_TEXTS)
        self._lock = threading.Lock()

    def query(self, snapshot: Snapshot, text: str) -> Query:
        """What these words ask under the snapshot's models; Failure as `Snapshot.models`, DataError for no words."""
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
class Asked:
    """A question ready to be looked up. excluded: never in the answer; origins: what its terms are, for the reasons."""

    question: Question
    origins: tuple[Origin, ...]
    excluded: frozenset[str]


@dataclass(frozen=True)
class Desk:
    """Where questions are answered; holds what outlives a snapshot. sounds: finds uploads."""

    sounds: Sounds
    words: Words = field(default_factory=Words)

    def ask(self, snapshot: Snapshot, ask: asks.Ask) -> shapes.Answer:
        """The answer to a composed question; Failure or PonticelloError says what is wrong with it."""
        started = time.perf_counter()
        return self._answer(snapshot, self.asked(snapshot, ask), ask, started)

    def recommend(self, snapshot: Snapshot, ask: asks.Recommend) -> shapes.Answer:
        """What a listener of the log, or of the given tracks, has not met and would like."""
        started = time.perf_counter()
        return self._answer(snapshot, self.taste(snapshot, ask.user_id, ask.recent, ask.exclude), ask, started)

    def asked(self, snapshot: Snapshot, ask: asks.Ask) -> Asked:
        """A composed question, its terms as queries."""
        terms = [Term(self._query(snapshot, term), term.weight) for term in ask.terms]
        origins = tuple(
            Origin(number, term.track_id, term.text, term.weight, is_wanted=term.weight > 0)
            for number, term in enumerate(ask.terms)
        )
        whole = {term.track_id for term in ask.terms if term.track_id is not None}
        return Asked(compose(snapshot.asked, terms), origins, frozenset(whole | set(ask.exclude)))

    def taste(
        self, snapshot: Snapshot, user_id: str | None, recent: Sequence[str] | None, exclude: Sequence[str] = ()
    ) -> Asked:
        """What a listener asks with, by the log or by what they played lately."""
        index, config = snapshot.asked, snapshot.library.folder.config.search
        if user_id is not None:
            number = listener(snapshot, user_id)
            rows = snapshot.listening.seeds(number, config.recent_seeds)
            if not len(rows):
                raise Failure(422, "invalid", f"listener {user_id[:100]!r} has liked no track of the index")
            seeds = [index.track_ids[row] for row in rows]
            met = {index.track_ids[row] for row in snapshot.listening.met(number)}
        else:
            seeds = list(dict.fromkeys(recent or ()))
            for track_id in seeds:
                require_track(snapshot, track_id)
            met = set(seeds)
        question = profile_question(index, seeds, config.profile_ridge, config.hub_correction)
        origins = tuple(Origin(None, track_id, None, 1.0, is_wanted=True) for track_id in seeds)
        return Asked(question, origins, frozenset(met | set(exclude)))

    def _query(self, snapshot: Snapshot, term: asks.Term) -> Query:
        if term.text is not None:
            return self.words.query(snapshot, term.text)
        if term.upload is not None:
            return self.sounds(term.upload, snapshot)
        assert term.track_id is not None
        require_track(snapshot, term.track_id)
        if term.start_s is not None and term.end_s is not None:
            return part_query(snapshot, term.track_id, term.start_s, term.end_s)
        return snapshot.asked.track_query([term.track_id])

    def _answer(self, snapshot: Snapshot, asked: Asked, page: asks.Page, started: float) -> shapes.Answer:
        blend = require_blend(snapshot, page.blend)
        ranked = rank_tracks(
            snapshot.asked,
            asked.question.query,
            snapshot.filtered(page.where),
            k=page.offset + page.k + 1,
            blend=blend,
            excluded=asked.excluded,
            per_artist=page.per_artist,
            once=snapshot.library.folder.config.search.collapse_copies,
        )
        shown = ranked[page.offset : page.offset + page.k]
        return shapes.Answer(
            results=results_of(snapshot, asked.question, asked.origins, blend, shown),
            k=page.k,
            offset=page.offset,
            has_more=len(ranked) > page.offset + page.k,
            blend=blend,
            generation=snapshot.generation or "",
            took_ms=round(1000 * (time.perf_counter() - started), 3),
        )


def one_result(snapshot: Snapshot, asked: Asked, blend: float, track_id: str) -> shapes.Result:
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
        raise Failure(404, "not_found", f"there is no track {track_id[:200]!r}")
    raise Failure(422, "invalid", f"track {track_id[:200]!r} has no vector yet; run: ponticello prepare, then embed")


def require_blend(snapshot: Snapshot, asked: float | None) -> float:
    """Where the dial stands; Failure if it asks for taste before there is any."""
    if asked is None:
        return snapshot.library.folder.config.search.blend if snapshot.asked.has_preference else 0.0
    if asked > 0 and not snapshot.asked.has_preference:
        raise Failure(409, "no_preference", "this library has no taste yet: use blend 0, or train stage two and embed")
    return asked


def listener(snapshot: Snapshot, user_id: str) -> int:
    """The number of a listener, by id or by the name that became one; Failure 404 if there is none."""
    numbers = snapshot.listening.numbers
    try:
        known = known_as(snapshot.library.folder, user_id, numbers.keys())
    except (DataError, OSError, ValueError):
        known = user_id
    if known not in numbers:
        raise Failure(404, "not_found", f"there is no listener {user_id[:200]!r} in the log")
    return numbers[known]
