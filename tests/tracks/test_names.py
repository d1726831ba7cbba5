"""Spellings of one artist meet, artists of two names stay apart, and groups keep the names splits
were drawn by.
"""

import doctest

import polars as pl
import pytest

from ponticello.config import SplitsConfig
from ponticello.errors import DataError
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import Splits, make_splits
from ponticello.tracks import names as artists
from ponticello.tracks.names import artist_groups, lead_artist, lead_artists

SCHEMA = {"track_id": pl.String, "artist": pl.String, "album": pl.String}


def _tracks(rows: list[tuple[str | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(f"t{n}", *row) for n, row in enumerate(rows)], schema=SCHEMA, orient="row"
    )


def test_the_examples_are_true() -> None:
    assert doctest.testmod(artists).failed == 0


@pytest.mark.parametrize(
    "name",
    ["Ada", " ADA ", "Ada feat. Bo", "Ada (ft. Bo & Cy)", "The Ada", "ada featuring Bo", "Ada; Bo"],
)
def test_case_guests_and_a_leading_article_make_no_other_artist(name: str) -> None:
    assert lead_artist(name) == "ada"


@pytest.mark.parametrize("name", ["Ada & Bo", "Ada, Bo", "Bo feat. Ada", "Adah", "Ada Trio"])
def test_names_joined_otherwise_are_other_artists(name: str) -> None:
    assert lead_artist(name) not in ("ada", "")


@pytest.mark.parametrize(
    "name", [None, "", "  ", "Various Artists", "VA", "none", "Unknown Artist"]
)
def test_nobody_is_nobody(name: str | None) -> None:
    assert lead_artist(name) == ""


def test_names_of_signs_alone_are_artists_of_their_own() -> None:
    assert len({lead_artist("!!!"), lead_artist("+/-"), lead_artist("ƒ"), ""}) == 4


def test_groups_are_artists_then_albums_then_tracks() -> None:
    tracks = _tracks(
        [
            ("Ada feat. Bo", "X"),
            ("ADA", None),
            ("Various Artists", "Mix"),
            (None, " mix "),
            (None, None),
        ]
    )
    assert artist_groups(tracks) == [
        "artist:ada",
        "artist:ada",
        "album:mix",
        "album:mix",
        "track:t4",
    ]
    assert lead_artists(tracks) == {"t0": "ada", "t1": "ada"}
    assert artist_groups(tracks.select("track_id")) == [f"track:t{n}" for n in range(5)]


def test_a_name_with_signs_is_drawn_by_as_it_is_written() -> None:
    """Splits go by the hash of the group's name: it must not change because names are compared
    without signs.
    """
    assert artist_groups(_tracks([("www.example.org/Ada", None)])) == ["artist:www.example.org/ada"]


def test_a_track_with_a_guest_is_held_out_with_its_artist() -> None:
    rows = [(f"artist {n}", None) for n in range(20)]
    tracks = _tracks([*rows, *[(f"{name} feat. Bo", None) for name, _ in rows]])
    splits = make_splits(tracks, None, SplitsConfig())
    assert all(splits.roles[f"t{n}"] == splits.roles[f"t{n + 20}"] for n in range(20))
    torn = Splits({**splits.roles, "t0": "train", "t20": "test"}, None, None)
    with pytest.raises(DataError, match="an artist or album is in two roles"):
        check_no_leak(torn, tracks, None, None)


def test_tracks_of_one_recording_by_its_ids_get_one_role_whoever_is_named() -> None:
    mbid = "11111111-2222-4333-8444-555555555501"
    mbids = {3: mbid, 30: f"https://musicbrainz.org/recording/{mbid.upper()}"}
    isrcs = {5: "DE-A12-34-00001", 31: "dea123400001", 32: "DEA123400001"}
    isrcs |= {8: "N/A", 9: "n/a", 33: "N/A"}  # which joins nothing
    rows = [(f"t{n:02}", f"artist {n}", mbids.get(n), isrcs.get(n, "")) for n in range(40)]
    tracks = pl.DataFrame(
        rows, schema=dict.fromkeys(("track_id", "artist", "mbid", "isrc"), pl.String), orient="row"
    )
    parted = 0
    for seed in range(20):
        roles = make_splits(tracks, None, SplitsConfig(seed=seed)).roles
        assert roles["t03"] == roles["t30"]
        assert len({roles["t05"], roles["t31"], roles["t32"]}) == 1
        parted += len({roles["t08"], roles["t09"], roles["t33"]}) > 1
    assert parted
    with pytest.raises(DataError, match="one recording is in two roles"):
        check_no_leak(
            Splits({**roles, "t03": "train", "t30": "test"}, None, None), tracks, None, None
        )
