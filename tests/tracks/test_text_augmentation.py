"""Other wordings of a track's text: what is left out how often, what stays, and what decides which
one comes.
"""

import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from ponticello.tracks.text import MARKS, TEMPLATE, reword_text, track_text, track_variants

ROW: dict[str, Any] = {
    "title": "Tttt",
    "artist": "Aaaa",
    "album": "Bbbb",
    "genres": ["gggg", "hhhh"],
    "tags": ["iiii", "jjjj", "kkkk"],
    "machine_tags": ["mmmm", "nnnn"],
    "language": "Llll",
    "description": "Dddd",
    "lyrics": "Ssss",
}
N_DRAWS = 2_000


def _draws(row: dict[str, Any], n: int = N_DRAWS, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [reword_text(row, generator) for _ in range(n)]


def test_same_generator_gives_the_same_text() -> None:
    row = {"title": "Blue Hour", "artist": "Ada", "genres": ["jazz", "piano"]}
    assert reword_text(row, np.random.default_rng(8)) == "a piano and jazz track, by Ada"
    assert _draws(ROW, 20, seed=1) == _draws(ROW, 20, seed=1)
    assert _draws(ROW, 20, seed=1) != _draws(ROW, 20, seed=2)


def test_one_column_gives_each_of_its_wordings_and_nothing_else() -> None:
    """Left out or not, a track that is only an artist says the artist: "by Ada" is also the fixed
    text.
    """
    assert set(_draws({"artist": "Ada"}, 200)) == {"by Ada", "Ada plays", "music by Ada"}


def test_lists_are_shuffled_and_subsampled() -> None:
    texts = set(_draws({"tags": ["a", "b"]}, 500))
    assert texts == {
        *("a", "b", "a, b", "b, a"),
        *("tagged a", "tagged b", "tagged a, b", "tagged b, a"),
        *("a music", "b music", "a and b music", "b and a music"),
    }


def test_two_columns_come_in_either_order_with_any_mark() -> None:
    both = [
        text
        for text in _draws({"title": "Tttt", "artist": "Aaaa"})
        if "Tttt" in text and "Aaaa" in text
    ]
    assert {text.index("Tttt") < text.index("Aaaa") for text in both} == {True, False}
    assert {mark for mark in MARKS for text in both if f"{mark} " in text} == set(MARKS)


@pytest.mark.parametrize("field", TEMPLATE, ids=lambda field: field.column)
def test_a_column_is_left_out_as_often_as_the_table_says(field: Any) -> None:
    """Within 4 standard deviations of the rate over 2,000 draws: 0.045 at a half, 0.039 at a
    quarter.

    That everything is left out, and the fixed text comes, happens once in 0.5² · 0.25⁷, about
    65,000 draws.
    """
    value = ROW[field.column]
    words = "|".join(value if isinstance(value, list) else [value])
    share = np.mean([re.search(words, text) is None for text in _draws(ROW)])
    assert share == pytest.approx(
        field.drop_rate, abs=4 * np.sqrt(field.drop_rate * (1 - field.drop_rate) / N_DRAWS)
    )


def test_artist_and_title_are_dropped_half_of_the_time_and_everything_else_a_quarter() -> None:
    rates = {field.column: field.drop_rate for field in TEMPLATE}
    assert (rates.pop("title"), rates.pop("artist")) == (0.5, 0.5)
    assert set(rates.values()) == {0.25}


@pytest.mark.parametrize("column", [field.column for field in TEMPLATE])
def test_text_is_never_empty_where_the_fixed_one_is_not(column: str) -> None:
    assert all(_draws({column: ROW[column]}, 200))


def test_an_item_of_full_stops_alone_falls_back_to_the_fixed_text() -> None:
    row = {"genres": ["...", "jazz"]}
    assert track_text(row) == "..., jazz"
    assert all("jazz" in text for text in _draws(row, 200))


@pytest.mark.parametrize("row", [{}, {"title": " ", "genres": []}, {"title": "..."}])
def test_a_track_that_says_nothing_stays_without_text(row: dict[str, Any]) -> None:
    assert set(_draws(row, 20)) == {""}


def test_braces_in_a_value_are_only_text() -> None:
    assert set(_draws({"artist": "{and}{}"}, 200)) == {
        "by {and}{}",
        "{and}{} plays",
        "music by {and}{}",
    }


def _tracks() -> pl.DataFrame:
    rows = [{**ROW, "track_id": f"t{number}", "title": f"Tttt{number}"} for number in range(5)]
    return pl.DataFrame([*rows, {"track_id": "silent", "path": "a.wav"}], infer_schema_length=None)


def test_variants_begin_with_the_fixed_text_and_are_as_many_as_asked_for() -> None:
    tracks = _tracks()
    variants = track_variants(tracks, n=4, seed=0)
    assert [len(texts) for texts in variants] == [4] * 5 + [0]
    fixed = [track_text(row) for row in tracks.to_dicts()]
    assert [texts[0] for texts in variants[:5]] == fixed[:5]
    assert all(
        text != fixed[place] for place, texts in enumerate(variants[:5]) for text in texts[1:]
    )
    assert track_variants(tracks, n=1, seed=0) == [[text] for text in fixed[:5]] + [[]]


def test_variants_do_not_depend_on_the_other_rows_or_their_order() -> None:
    tracks = _tracks()
    variants = dict(zip(tracks["track_id"], track_variants(tracks, n=3, seed=0), strict=True))
    turned = tracks.reverse()
    assert (
        dict(zip(turned["track_id"], track_variants(turned, n=3, seed=0), strict=True)) == variants
    )
    assert track_variants(tracks[2:3], n=3, seed=0) == [variants["t2"]]


def test_tracks_that_say_the_same_and_other_seeds_get_other_variants() -> None:
    tracks = pl.DataFrame([{**ROW, "track_id": "a"}, {**ROW, "track_id": "b"}])
    first, second = track_variants(tracks, n=4, seed=0)
    assert first[0] == second[0]
    assert first[1:] != second[1:]
    assert track_variants(tracks, n=4, seed=1)[0][1:] != first[1:]


def test_more_variants_begin_with_those_of_fewer() -> None:
    tracks = _tracks()
    fewer, more = track_variants(tracks, n=3, seed=0), track_variants(tracks, n=6, seed=0)
    assert [texts[:3] for texts in more] == fewer


def test_variants_of_a_table_without_text_columns_are_none() -> None:
    assert track_variants(pl.DataFrame({"track_id": ["a", "b"]}), n=3, seed=0) == [[], []]
