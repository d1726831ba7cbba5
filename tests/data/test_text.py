"""How a track's columns become one text."""

import polars as pl
import pytest

from ponticello.data.text import track_text, track_texts


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
    wanted = "Blue Hour. by Ada. from Dusk. jazz, piano. night. sounds like slow, warm. it. A slow one. la la"
    assert track_text(row) == wanted


def test_empty_fields_leave_no_trace() -> None:
    assert track_text({"title": " ", "artist": None, "genres": [], "tags": ["", None], "machine_tags": None}) == ""
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
