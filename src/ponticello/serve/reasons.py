"""Why a track stands where it does: the parts its score is made of, what it shares, who likes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponticello.data.columns import GENRES, MACHINE_TAGS, TAGS, TITLE
from ponticello.search.compose import Question, shares
from ponticello.search.recommend import Result as Ranked
from ponticello.serve.catalogue import tracks_of
from ponticello.serve.live import Snapshot
from ponticello.serve.shapes import Part, Result, Why

MOST_TAGS = 8


@dataclass(frozen=True)
class Origin:
    """Where a term of a question comes from. term: its number in the question; None for what a listener liked."""

    term: int | None
    track_id: str | None
    text: str | None
    weight: float
    is_wanted: bool


def results_of(
    snapshot: Snapshot, question: Question, origins: Sequence[Origin], blend: float, ranked: Sequence[Ranked]
) -> list[Result]:
    """Ranked tracks with their fields and reasons."""
    index = snapshot.asked
    rows = np.array([index.rows[each.track_id] for each in ranked], dtype=np.int64)
    added = shares(index, question, blend, rows)  # (terms, results, 2)
    fields = tracks_of(snapshot, [each.track_id for each in ranked])
    asked_for = _asked_tags(snapshot, origins)
    titles = _titles(snapshot, origins)
    found = []
    for place, (each, own) in enumerate(zip(ranked, fields, strict=True)):
        parts = [
            Part(
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
        why = Why(
            parts=parts,
            shared_tags=_shared(own, asked_for, origins),
            n_listeners=n_listeners(snapshot, int(rows[place])),
        )
        score = {"score": each.score, "semantic": each.semantic, "preference": each.preference}
        found.append(Result(**own, rank=each.rank, **score, why=why))
    return found


def n_listeners(snapshot: Snapshot, row: int) -> int | None:
    """How many listeners like a track of the index; None below `pairs.min_listeners`, where it may tell on somebody."""
    n = int(snapshot.listening.n_listeners[row])
    return n if n >= snapshot.library.folder.config.pairs.min_listeners else None


def _titles(snapshot: Snapshot, origins: Sequence[Origin]) -> dict[str, str]:
    named = {origin.track_id for origin in origins if origin.track_id in snapshot.rows}
    titles = snapshot.tracks[TITLE]
    return {track_id: titles[snapshot.rows[track_id]] for track_id in named if track_id is not None}


def _asked_tags(snapshot: Snapshot, origins: Sequence[Origin]) -> set[str]:
    """The tags of the tracks that are asked for, in lower case."""
    wanted = [origin.track_id for origin in origins if origin.is_wanted and origin.track_id in snapshot.rows]
    return {tag.lower() for track in tracks_of(snapshot, [each for each in wanted if each]) for tag in _tags(track)}


def _shared(own: dict[str, object], asked_for: set[str], origins: Sequence[Origin]) -> list[str]:
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
