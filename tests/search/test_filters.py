"""Filters over the catalogue: each operator on text, numbers and lists, and what they refuse."""

from datetime import date

import polars as pl
import pytest

from ponticello.errors import DataError
from ponticello.search.results import filter_mask

TRACKS = pl.DataFrame(
    {
        "track_id": ["a", "b", "c", "d"],
        "title": ["Night Drive", "night", "Morgen", None],
        "genres": [["Rock", "Pop"], ["jazz"], ["indie rock"], None],
        "duration_s": [100.0, 200.0, 300.0, None],
        "year": [1990, 2000, 2010, None],
        "released": [date(1990, 1, 1), date(2000, 6, 1), date(2010, 1, 1), None],
        "is_live": [True, False, True, None],
    }
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("title=night", "b"),
        ("title=NIGHT", "b"),
        ("title!=Night", "ac"),
        ("title~NIGHT", "ab"),
        ("title~t d", "a"),
        ("title<n", "c"),
        ("title<=night", "bc"),
        ("title>night", "a"),
        ("title>=Night", "ab"),
        ("genres=rock", "a"),
        ("genres=JAZZ", "b"),
        ("genres~rock", "ac"),
        ("genres!=rock", "bc"),
        ("genres<j", "c"),
        ("genres>=pop", "a"),
        ("duration_s=200", "b"),
        ("duration_s!=200", "ac"),
        ("duration_s<200", "a"),
        ("duration_s<=200", "ab"),
        ("duration_s>200", "c"),
        ("duration_s>=2e2", "bc"),
        ("duration_s~200", "b"),
        ("year=2000.0", "b"),
        ("year>1995", "bc"),
        ("released<2000", "a"),
        ("released~-01-01", "ac"),
        ("is_live=true", "ac"),
        ("track_id=z", ""),
    ],
)
def test_each_operator_keeps_the_rows_that_pass(text: str, wanted: str) -> None:
    """Row d has nothing in any column but its id: it never passes, not even !=."""
    assert "".join(filter_mask(TRACKS, [text])["track_id"]) == wanted


@pytest.mark.parametrize("column", [name for name in TRACKS.columns if name != "track_id"])
@pytest.mark.parametrize("operator", ["=", "!=", "<", "<=", ">", ">=", "~"])
def test_missing_values_match_nothing(column: str, operator: str) -> None:
    assert "d" not in filter_mask(TRACKS, [f"{column}{operator}1"])["track_id"].to_list()


def test_nan_matches_nothing() -> None:
    tracks = pl.DataFrame({"track_id": ["a", "b"], "bpm": [float("nan"), 120.0]})
    assert filter_mask(tracks, ["bpm>100"])["track_id"].to_list() == ["b"]


def test_every_filter_must_pass_and_none_passes_all() -> None:
    assert filter_mask(TRACKS, ["duration_s<300", "title~night", "genres=jazz"])[
        "track_id"
    ].to_list() == ["b"]
    assert filter_mask(TRACKS, []).equals(TRACKS)


def test_spaces_around_the_parts_are_ignored() -> None:
    assert filter_mask(TRACKS, ["  title  =  night drive  "])["track_id"].to_list() == ["a"]


def test_contains_takes_its_text_literally() -> None:
    tracks = pl.DataFrame({"track_id": ["a", "b"], "title": ["a.c (x", "abc"]})
    assert filter_mask(tracks, ["title~a.c"])["track_id"].to_list() == ["a"]
    assert filter_mask(tracks, ["title~(X"])["track_id"].to_list() == ["a"]


def test_value_may_hold_an_operator() -> None:
    tracks = pl.DataFrame({"track_id": ["a", "b"], "title": ["x=y", "x"]})
    assert filter_mask(tracks, ["title=x=y"])["track_id"].to_list() == ["a"]


@pytest.mark.parametrize("text", ["", "rock", "=rock", "title=", "two words=x"])
def test_unreadable_filter_is_named(text: str) -> None:
    with pytest.raises(DataError, match=f"filter '{text}' must look like column=value"):
        filter_mask(TRACKS, [text])


def test_one_filter_alone_is_not_taken_for_its_letters() -> None:
    with pytest.raises(
        DataError, match=r"where must be a list, such as \['genres=rock'\]; found one str alone"
    ):
        filter_mask(TRACKS, "genres=rock")


def test_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(
        DataError, match="filter 'genre=rock': there is no column 'genre'; found track_id, title"
    ):
        filter_mask(TRACKS, ["genre=rock"])


@pytest.mark.parametrize("text", ["duration_s<long", "year~x"])
def test_text_against_numbers_is_refused(text: str) -> None:
    column = text.partition("<")[0].partition("~")[0]
    with pytest.raises(DataError, match=f"filter {text}: column '{column}' holds numbers"):
        filter_mask(TRACKS, [text])


def test_list_of_numbers_matches_if_one_of_them_does() -> None:
    tracks = pl.DataFrame({"track_id": ["a", "b"], "years": [[1990, 2001], [1980]]})
    assert filter_mask(tracks, ["years>2000"])["track_id"].to_list() == ["a"]
