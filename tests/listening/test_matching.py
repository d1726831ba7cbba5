"""Which track of the catalogue a line of a history is: never the wrong one, and by which rule."""

import subprocess
import sys
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import polars as pl
import pytest

from matching import catalogue, matchers, outcome
from ponticello.listening.importers.records import TrackReference
from ponticello.listening.matching import CatalogMatcher, build_catalog, match_track
from ponticello.listening.unmatched import SuggestionIndex
from ponticello.storage.schema import TRACKS
from ponticello.tracks.names import (
    Artist,
    Title,
    normalize_words,
    parse_album,
    parse_artist,
    parse_title,
)
from tests.listening.matching_cases import build

MBID = "11111111-2222-4333-8444-555555555555"


def _catalogue(*rows: dict[str, Any]) -> CatalogMatcher:
    kinds = {
        **{name: pl.String() for name in TRACKS.kinds},
        "duration_s": pl.Float64(),
        "spotify_uri": pl.String(),
    }
    full = [{name: row.get(name) for name in kinds} for row in rows]
    return build_catalog(pl.DataFrame(full, schema=kinds), PurePosixPath("/music"))


def test_no_line_of_the_adversarial_set_finds_a_wrong_track() -> None:
    """At least 300 lines, built to be mistaken; 168 of the 174 whose track is there are found, as
    docs/data.md says.
    """
    tracks, cases = build()
    assert len(cases) >= 300
    assert len({(case.reference, case.truth) for case in cases}) == len(cases)
    known = catalogue(tracks)
    found = Counter(outcome(case, match_track(case.reference, known).track_id) for case in cases)
    assert found == {"right": 168, "missed": 6, "refused": 244}


def test_fuzzy_finds_what_lacks_accents_and_is_wrong_where_an_accent_makes_the_song() -> None:
    tracks, cases = build()
    fuzzy = matchers(tracks)["Ponticello, `--fuzzy`"]
    wrong = [
        case.reference.title for case in cases if outcome(case, fuzzy(case.reference)) == "wrong"
    ]
    assert wrong == ["Mas", "Ano Nuevo", "Schon", "Kıs"]
    missed = [case for case in cases if outcome(case, fuzzy(case.reference)) == "missed"]
    assert missed == []


ROW: dict[str, Any] = {
    "track_id": "a",
    "title": "Blue Hour",
    "artist": "The Owls",
    "album": "Night Songs",
    "mbid": MBID,
    "isrc": "SE-ABC-20-12345",
    "spotify_uri": "https://open.spotify.com/track/4abcDEF?si=x",
    "path": "Owls/Night Songs/01 Blue Hour.flac",
    "duration_s": 201.5,
}


@pytest.mark.parametrize(
    ("heard", "rule"),
    [
        (TrackReference(track_id="a", title="Anything"), "track_id"),
        (TrackReference(mbid=MBID, title="Blue Hour!"), "mbid"),
        (TrackReference(isrc="SEABC2012345"), "isrc"),
        (TrackReference(uri="spotify:track:4abcDEF", title="Renamed"), "uri"),
        (TrackReference(path="/music/Owls/Night Songs/01 Blue Hour.flac", title="Renamed"), "path"),
        (TrackReference(path="D:\\Audio\\Owls\\Night Songs\\01 Blue Hour.flac"), "path"),
        (TrackReference(path="Night Songs/01 Blue Hour.flac", title="Blue Hour"), "path"),
        (TrackReference(path="/x.flac", artist="owls", title="BLUE HOUR"), "title"),
        (TrackReference(artist="Owls", title="Blue Hour - 2011 Remaster"), "edition"),
    ],
)
def test_rules_in_their_order(heard: TrackReference, rule: str) -> None:
    found = match_track(
        heard, _catalogue(ROW, {"track_id": "b", "title": "Kindling", "artist": "Ada"})
    )
    assert (found.track_id, found.rule) == ("a", rule)


@pytest.mark.parametrize(
    ("heard", "reason", "why"),
    [
        (TrackReference(track_id="z"), "track is not in the catalogue", []),
        (TrackReference(title="Blue Hour"), "names no artist, and its id or file is not here", []),
        (
            TrackReference(title="Blue Hour", artist="Various Artists"),
            "names no artist, and its id or file is not here",
            [],
        ),
        (
            TrackReference(uri="https://example.org/1"),
            "names no title, and its id or file is not here",
            [],
        ),
        (TrackReference(title="Indigo", artist="Owls"), "no track of this artist and title", []),
        (
            TrackReference(title="Blue Hour (Live)", artist="Owls", mbid=MBID),
            "only other recordings come near",
            ["another version: live heard, none here"],
        ),
        (
            TrackReference(path="01/01 Blue Hour.flac"),
            "names no title, and its id or file is not here",
            [],
        ),
        (
            TrackReference(path="Night Songs/01 Blue Hour.flac"),
            "only other recordings come near",
            ["fewer than 3 parts of the path agree, and no title does"],
        ),
        (
            TrackReference(path="Owls/Night Songs/01 Blue Hour.flac", title="Kindling"),
            "only other recordings come near",
            ["the file has another title"],
        ),
    ],
)
def test_refusal_says_why(heard: TrackReference, reason: str, why: list[str]) -> None:
    found = match_track(heard, _catalogue(ROW))
    assert (found.track_id, found.reason, [each for _, each in found.refused]) == (
        None,
        reason,
        why,
    )


def test_two_that_fit_alike_are_refused_until_something_tells_them_apart() -> None:
    twins = _catalogue(ROW, ROW | {"track_id": "b", "album": "Best Of", "duration_s": 214.0})
    found = match_track(TrackReference(artist="Owls", title="Blue Hour", mbid=MBID), twins)
    assert (found.track_id, found.reason) == (None, "several tracks fit alike")
    assert (
        match_track(
            TrackReference(artist="Owls", title="Blue Hour", album="best of"), twins
        ).track_id
        == "b"
    )
    assert (
        match_track(
            TrackReference(artist="Owls", title="Blue Hour", duration_s=203.0), twins
        ).track_id
        == "a"
    )


def test_nearest_says_what_is_not_the_same() -> None:
    near = SuggestionIndex(
        _catalogue(ROW, {"track_id": "b", "title": "Blue Hours", "artist": "Ada"})
    )
    found = [
        (entry.track_id, why)
        for entry, why in near.suggest(TrackReference(artist="The Owl", title="Blue Hour"))
    ]
    assert found == [("a", "the artist's name is written otherwise")]
    found = [
        (entry.track_id, why)
        for entry, why in near.suggest(TrackReference(artist="Nobody", title="Blue Hour"))
    ]
    assert found == [("a", "the same title by another artist")]
    assert near.suggest(TrackReference(artist="Ada", title="Xylophone")) == []


def test_title_is_taken_apart_without_losing_a_word() -> None:
    none: frozenset[str] = frozenset()
    assert parse_title("Blue Hour (feat. Ada & The Owls) - Live / 2011 Remaster") == Title(
        "blue hour", frozenset({"live"}), frozenset({"ada", "owls"}), frozenset({"2011 remaster"})
    )
    assert parse_title("Long Live") == Title("long live", none, none, none)
    assert parse_title("(Live)") == Title("live", none, none, none)
    assert parse_title("Suite, Pt. 3 (Andante)").core == "suite part 3 andante"
    assert parse_title("The Feat of Strength").core == "the feat of strength"
    assert parse_artist("Owls, The feat. Ada") == Artist("owls", frozenset({"ada"}))
    assert parse_artist("Owls, The") == parse_artist("the owls") == Artist("owls", none)
    assert parse_artist("The The").name == "the"
    assert (
        parse_album("Night Songs (Deluxe Edition)")
        == parse_album("Night Songs - 2011 Remaster")
        == "night songs"
    )
    assert parse_album("(Remastered)") == "remastered"


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        ("Don’t", "dont", True),
        ("ＢＬＵＥ", "blue", True),
        ("Straße", "STRASSE", True),
        ("Cafe\u0301", "Café", True),
        ("Rock & Roll", "rock and roll", True),
        ("й", "и", False),
        ("ば", "は", False),
        ("é", "e", False),
        ("+", "-", False),
        ("!!!", "???", False),
    ],
)
def test_words_are_the_same_across_spellings_and_not_across_letters(
    left: str, right: str, is_same: bool
) -> None:
    assert (normalize_words(left) == normalize_words(right)) is is_same


def test_a_long_run_of_blanks_is_one_blank_and_takes_no_time() -> None:
    """Looked through from each blank to the last, these 300,000 would take half an hour."""
    code = """if True:
        from ponticello.tracks.names import parse_album, parse_artist, parse_title
        wide = " " * 300_000
        title = f"Blue{wide}-{wide}Live{wide}(feat.{wide}Ada{wide})"
        assert parse_title(title) == parse_title("Blue - Live (feat. Ada)")
        assert parse_title("a" + "(feat. b)" * 50_000 + "c") == parse_title("a (feat. b) c")
        artist = f"Owls{wide},{wide}The{wide}feat.{wide}Ada"
        assert parse_artist(artist) == parse_artist("Owls, The feat. Ada")
        album = f"Night{wide}-{wide}2011 Remaster{wide}x"
        assert parse_album(album) == parse_album("Night - 2011 Remaster x")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
