"""How a track's columns become one text."""

import polars as pl
import pytest

from ponticello.tracks.text import (
    TEMPLATE,
    Field,
    join_phrases,
    render_text,
    track_text,
    track_texts,
)


def test_every_column_has_its_place() -> None:
    row = {
        "lyrics": "la\nla",
        "description": "A  slow one",
        "language": "it",
        "machine_tags": ["slow", "warm"],
        "tags": ["night"],
        "genres": ["jazz", "piano"],
        "album": "Dusk",
        "artist": "Ada",
        "title": "Blue Hour",
        "isrc": "never shown",
    }
    wanted = (
        "Blue Hour. by Ada. from Dusk. jazz, piano. night. sounds like slow, warm. it. "
        "A slow one. la la"
    )
    assert track_text(row) == wanted


def test_empty_fields_leave_no_trace() -> None:
    assert (
        track_text(
            {"title": " ", "artist": None, "genres": [], "tags": ["", None], "machine_tags": None}
        )
        == ""
    )
    assert track_text({}) == ""
    assert track_text({"title": None, "artist": "Ada"}) == "by Ada"


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("Dr. No.", "Dr. No. by Ada"),
        ("And then ...", "And then. by Ada"),
        ("Why?", "Why? by Ada"),
        ("Go!.", "Go! by Ada"),
        ("なぜ。", "なぜ。 by Ada"),
        ("...", "by Ada"),
    ],
)
def test_a_part_that_ends_a_sentence_gets_no_further_full_stop(title: str, wanted: str) -> None:
    assert track_text({"title": title, "artist": "Ada"}) == wanted
    assert track_text({"title": title, "artist": "Ada."}) == wanted
    assert track_text({"title": title, "artist": "Ada", "lyrics": "Why?"}) == f"{wanted}. Why?"


def test_braces_in_a_title_are_only_text() -> None:
    assert track_text({"title": "{}", "artist": "{0}"}) == "{}. by {0}"


def test_lyrics_and_description_are_cut_at_400_characters_and_titles_are_not() -> None:
    text = track_text({"title": "t" * 500, "description": "d" * 500, "lyrics": "l" * 399 + " m"})
    assert text == f"{'t' * 500}. {'d' * 400}. {'l' * 399}"


def test_texts_follow_the_rows() -> None:
    tracks = pl.DataFrame({"track_id": ["1", "2"], "title": ["a", None], "tags": [["x"], None]})
    assert track_texts(tracks) == ["a. x", ""]
    assert track_texts(tracks.select("track_id")) == ["", ""]


def test_fixed_text_takes_the_first_wording_of_every_column() -> None:
    row = {field.column: "x" for field in TEMPLATE}
    assert track_text(row) == ". ".join(field.wordings[0].replace("{}", "x") for field in TEMPLATE)


@pytest.mark.parametrize("field", TEMPLATE, ids=lambda field: field.column)
def test_every_wording_has_one_place_for_the_items(field: Field) -> None:
    assert 0 <= field.drop_rate < 1
    assert [wording.count("{}") + wording.count("{and}") for wording in field.wordings] == [
        1
    ] * len(field.wordings)


@pytest.mark.parametrize(
    ("items", "commas", "with_and"),
    [
        (["jazz"], "jazz", "jazz music"),
        (["jazz", "piano"], "jazz, piano", "jazz and piano music"),
        (["a", "b", "c."], "a, b, c", "a, b and c music"),
        (["{}", "{and}"], "{}, {and}", "{} and {and} music"),
        ([], "", ""),
        (["..."], "", ""),
    ],
)
def test_items_are_joined_by_commas_or_with_and(
    items: list[str], commas: str, with_and: str
) -> None:
    genres = next(field for field in TEMPLATE if field.column == "genres")
    assert (render_text(genres, items, "{}"), render_text(genres, items, "{and} music")) == (
        commas,
        with_and,
    )


def test_a_mark_goes_between_parts_and_never_behind_the_last() -> None:
    assert join_phrases(["Why?", "", "by Ada", "jazz"], ";") == "Why? by Ada; jazz"
    assert join_phrases(["by Ada", "Why?"], ".") == "by Ada. Why?"
    assert join_phrases(["", ""], ",") == ""
