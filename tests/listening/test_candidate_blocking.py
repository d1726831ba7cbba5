"""Thousands of tracks that one name fits are told apart as a few are, and nearly as fast."""

import random
from pathlib import PurePosixPath

import polars as pl
import pytest
from rapidfuzz import fuzz

from ponticello.listening import matching as alike
from ponticello.listening.importers.records import TrackReference
from ponticello.listening.matching import (
    CatalogEntry,
    CatalogMatcher,
    Match,
    album_or_duration_agrees,
    build_catalog,
    match_track,
    parse_reference,
)
from ponticello.listening.unmatched import MIN_SIMILARITY, SuggestionIndex, fold_accents
from ponticello.storage.schema import TRACKS
from ponticello.tracks.catalog import fill_columns
from ponticello.tracks.names import parse_artist, parse_title

IDS = [f"{n}1111111-2222-4333-8444-555555555555" for n in range(3)]
TITLES = [
    "Blue Hour",
    "Blue Hour (Live)",
    "Blué Hour",
    "Blue Hour (feat. Bo)",
    "Blue Hour - 2011 Remaster",
    "Intro",
]
TITLES += ["Blue Hours", "Hour 1.5", "Hour 15"]
ARTISTS = ["The Owls", "Owls feat. Ada", "Ówls", "Owlss", "Zebra", "Unknown Artist", None]
ALBUMS = [
    None,
    None,
    "Night Songs",
    "Night Songs (Deluxe Edition)",
    "Night Songs Deluxe Edition",
    "Live at Home",
]
DURATIONS = [None, None, 0.0, 30.0, 58.0, 62.0, 200.0, 202.5, 203.5, 215.0, 221.0]


def _said(rng: random.Random) -> dict[str, str | float | None]:
    path = f"{rng.choice('ab')}/{rng.choice('ab')}/{rng.choice('abc')}/1.mp3"
    return {
        "mbid": rng.choice([*[None] * 6, *IDS]),
        "path": rng.choice([None, None, path, path[2:], path[4:]]),
        "artist": rng.choice(ARTISTS),
        "title": rng.choice([*TITLES, None]),
        "album": rng.choice(ALBUMS),
        "duration_s": rng.choice(DURATIONS),
    }


def _catalogue(rows: list[dict[str, str | float | None]]) -> CatalogMatcher:
    named = [
        {"track_id": f"t{random.Random(place).random()}", **row} for place, row in enumerate(rows)
    ]
    kinds = dict.fromkeys(named[0], pl.String()) | {"duration_s": pl.Float64()}
    return build_catalog(
        fill_columns(pl.DataFrame(named, schema=kinds), TRACKS), PurePosixPath("/music")
    )


def _short(found: Match) -> tuple[object, ...]:
    return found.track_id, found.rule, found.reason, found.refused[:3]


def test_first_of_each_kind_decide_as_all_of_them_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3407)
    rows = [_said(rng) for _ in range(300)]
    lines = [TrackReference(**_said(rng)) for _ in range(400)]  # type: ignore[arg-type]
    sizes = {size: _catalogue(rows[:size]) for size in (60, 300)}
    monkeypatch.setattr(alike, "_MAX_COMPARED", 10**9)
    plain = [_short(match_track(line, known)) for known in sizes.values() for line in lines]
    monkeypatch.setattr(alike, "_MAX_COMPARED", 0)
    assert [_short(match_track(line, known)) for known in sizes.values() for line in lines] == plain
    rules = {rule for _, rule, _, _ in plain}
    assert rules == {"", "mbid", "path", "title", "edition"}


def _plainly_near(line: TrackReference, entries: list[CatalogEntry]) -> list[str]:
    """Every track that is like enough, by falling likeness, then by id."""
    assert line.title is not None
    core, artist = (
        fold_accents(parse_title(line.title).core),
        parse_artist(line.artist).name if line.artist else "",
    )
    artist = "" if artist == "unknown artist" else fold_accents(artist)
    found = []
    for entry in entries:
        if entry.title is None:
            continue
        by = fold_accents(entry.artist.name) if entry.artist else ""
        likeness = (
            fuzz.ratio(core, fold_accents(entry.title.core)),
            fuzz.ratio(artist, by) if artist and by else 0.0,
        )
        if min(likeness) >= MIN_SIMILARITY or likeness[0] == 100.0:
            found.append((-sum(likeness), entry.track_id))
    return [track_id for _, track_id in sorted(found)[:3]]


def _plainly_fuzzy(line: TrackReference, entries: list[CatalogEntry]) -> str | None:
    assert line.title is not None
    if line.artist in (None, "Unknown Artist"):
        return None
    title, artist = parse_title(line.title), parse_artist(line.artist or "")
    found = []
    for entry in entries:
        if entry.title is None or entry.artist is None:
            continue
        other, by = entry.title, entry.artist
        names = [
            (fold_accents(one.core), fold_accents(two.name))
            for one, two in ((title, artist), (other, by))
        ]
        digits = [
            "".join(c if c.isdigit() else " " for c in each.core).split() for each in (title, other)
        ]
        is_like = (
            names[0] == names[1] and title.versions == other.versions and digits[0] == digits[1]
        )
        is_like &= artist.guests | title.guests == by.guests | other.guests
        may_differ = not (line.album and entry.album_name) and not (
            line.duration_s and entry.duration_s
        )
        if is_like and (may_differ or album_or_duration_agrees(parse_reference(line), entry)):
            found.append(entry.track_id)
    return found[0] if len(found) == 1 else None


def test_nearest_of_many_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_MAX_COMPARED", 0)
    rng = random.Random(3407)
    for size in (10, 60, 200):
        known = _catalogue([_said(rng) for _ in range(size)])
        nearest = SuggestionIndex(known)
        lines = [line for line in (TrackReference(**_said(rng)) for _ in range(100)) if line.title]  # type: ignore[arg-type]
        for line in lines:
            assert [entry.track_id for entry, _ in nearest.suggest(line)] == _plainly_near(
                line, known.entries
            )
            fuzzy = nearest.fuzzy_match(line)
            assert (fuzzy.track_id if fuzzy else None) == _plainly_fuzzy(line, known.entries)


def test_of_a_thousand_tracks_of_one_name_few_are_weighed() -> None:
    """Of the line's own album one; of another album, and of an unknown one, three stand for the
    others.
    """
    albums = [*(f"Album {n}" for n in range(999)), None]
    known = _catalogue([{"title": "Track 01", "artist": "Ada", "album": album} for album in albums])
    lines = [
        TrackReference(artist="Ada", title="Track 01", album=album or "Other") for album in albums
    ]
    found = [match_track(line, known) for line in lines]
    assert [each.track_id for each in found] == [
        *(entry.track_id for entry in known.entries[:-1]),
        None,
    ]
    (group,) = known.by_song.values()
    weighed = [len(group.distinct_candidates(parse_reference(line))) for line in lines]
    assert weighed == [*[1 + 3 + 1] * 999, 3 + 1]
    assert len(found[-1].refused) == 3 + 1
