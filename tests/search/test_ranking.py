"""From scores to a list: ties, artists, what is left out."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from ponticello.search.index import Calibration, EmbeddingIndex, Query, VectorSpace
from ponticello.search.results import Result
from tests.search.ranked import rank

PLAIN = Calibration(0.0, 1.0)  # a score is the cosine itself
SPACES = [VectorSpace("one", "aaaa", PLAIN, PLAIN), VectorSpace("two", "bbbb", PLAIN, PLAIN)]


def _index(semantic: list[float], preference: list[float]) -> EmbeddingIndex:
    """Tracks a, b, c, ... whose score against `QUERY` is the given number in each space."""
    matrix = np.array(
        [[s, 0.0, p, 0.0] for s, p in zip(semantic, preference, strict=True)], dtype=np.float32
    )
    return EmbeddingIndex([chr(ord("a") + row) for row in range(len(semantic))], matrix, SPACES)


QUERY = Query((np.array([[1.0, 0.0]], np.float32),) * 2, "text")


def _tracks(artists: list[str | None]) -> pl.DataFrame:
    ids = [chr(ord("a") + row) for row in range(len(artists))]
    return pl.DataFrame(
        {"track_id": ids, "title": [f"Title {i}" for i in ids], "artist": artists},
        schema_overrides={"artist": pl.String},
    )


def _ids(results: Sequence[Result]) -> str:
    return "".join(result.track_id for result in results)


def test_best_comes_first_with_its_parts() -> None:
    """By hand: a 0.75 * 0.4 + 0.25 * 0.8 = 0.5, b 0.75 * 0.8 = 0.6, c 0.25 * 1 = 0.25."""
    index = _index([0.4, 0.8, 0.0], [0.8, 0.0, 1.0])
    found = rank(index, QUERY, _tracks(["X", "Y", None]), k=3, blend=0.25)
    assert [(r.rank, r.track_id, r.title, r.artist) for r in found] == [
        (1, "b", "Title b", "Y"),
        (2, "a", "Title a", "X"),
        (3, "c", "Title c", None),
    ]
    assert [r.score for r in found] == pytest.approx([0.6, 0.5, 0.25], abs=1e-6)
    assert [r.semantic for r in found] == pytest.approx([0.6, 0.3, 0.0], abs=1e-6)
    assert [r.preference for r in found] == pytest.approx([0.0, 0.2, 0.25], abs=1e-6)


@pytest.mark.parametrize(("blend", "wanted"), [(0.0, "bac"), (1.0, "cab")])
def test_ends_of_the_dial_rank_by_one_space_alone(blend: float, wanted: str) -> None:
    index = _index([0.4, 0.8, 0.0], [0.8, 0.0, 1.0])
    assert _ids(rank(index, QUERY, _tracks([None] * 3), k=3, blend=blend)) == wanted


def test_ties_go_by_track_id_whatever_the_catalogues_order() -> None:
    index = _index([0.5, 0.9, 0.5, 0.5], [0.0] * 4)
    tracks = _tracks([None] * 4)
    for order in ([3, 1, 0, 2], [0, 1, 2, 3], [2, 3, 1, 0]):
        assert _ids(rank(index, QUERY, tracks[order], k=4, blend=0.0)) == "bacd"


def test_at_most_so_many_tracks_an_artist_whatever_the_case_and_the_guests() -> None:
    index = _index([0.9, 0.8, 0.7, 0.6, 0.5], [0.0] * 5)
    tracks = _tracks(["Ada", "ADA", "ada feat. Bo", "Bo", "Bo"])
    assert _ids(rank(index, QUERY, tracks, k=5, blend=0.0, per_artist=1)) == "ad"
    assert _ids(rank(index, QUERY, tracks, k=3, blend=0.0, per_artist=2)) == "abd"
    assert _ids(rank(index, QUERY, tracks, k=5, blend=0.0)) == "abcde"


def test_tracks_without_an_artist_are_not_capped() -> None:
    index = _index([0.9, 0.8, 0.7, 0.6], [0.0] * 4)
    tracks = _tracks([None, "Ada", None, None])
    assert _ids(rank(index, QUERY, tracks, k=4, blend=0.0, per_artist=1)) == "abcd"


def test_excluded_tracks_and_those_without_a_vector_are_never_returned() -> None:
    index = _index([0.9, 0.8, 0.7], [0.0] * 3)
    tracks = _tracks([None] * 5)  # d and e have no vector
    assert _ids(rank(index, QUERY, tracks, k=5, blend=0.0, excluded=["a", "e", "z"])) == "bc"


def test_fewer_candidates_than_k_gives_them_all_and_none_gives_none() -> None:
    index = _index([0.9, 0.8], [0.0] * 2)
    tracks = _tracks([None] * 2)
    assert _ids(rank(index, QUERY, tracks, k=50, blend=0.0)) == "ab"
    assert rank(index, QUERY, tracks.clear(), k=5, blend=0.5).results == ()
    assert rank(index, QUERY, tracks, k=5, blend=0.5, excluded={"a", "b"}).results == ()


def _copied(semantic: list[float], recordings: str) -> EmbeddingIndex:
    """As `_index`, the letter of `recordings` naming each track's."""
    plain = _index(semantic, [0.0] * len(semantic))
    return EmbeddingIndex(plain.track_ids, plain.vectors, plain.spaces, list(recordings))


def test_of_copies_the_best_is_returned_and_the_next_recording_moves_up() -> None:
    index, tracks = _copied([0.9, 0.8, 0.7, 0.6, 0.5], "xyxxz"), _tracks([None] * 5)
    found = rank(index, QUERY, tracks, k=3, blend=0.0, deduplicate_recordings=True)
    assert _ids(found) == "abe"
    assert [result.rank for result in found] == [1, 2, 3]
    assert [result.score for result in found] == pytest.approx([0.9, 0.8, 0.5], abs=1e-6)
    assert _ids(rank(index, QUERY, tracks, k=3, blend=0.0)) == "abc"


def test_copies_of_what_is_excluded_are_not_returned_either() -> None:
    index, tracks = _copied([0.9, 0.8, 0.7, 0.6], "xyxy"), _tracks([None] * 4)
    assert (
        _ids(
            rank(
                index,
                QUERY,
                tracks,
                k=4,
                blend=0.0,
                excluded=["c", "unknown"],
                deduplicate_recordings=True,
            )
        )
        == "b"
    )
    assert _ids(rank(index, QUERY, tracks, k=4, blend=0.0, excluded=["c", "unknown"])) == "abd"


def test_a_copy_that_a_filter_leaves_out_does_not_hide_the_other() -> None:
    index, tracks = _copied([0.9, 0.8], "xx"), _tracks([None] * 2)
    assert (
        _ids(
            rank(
                index,
                QUERY,
                tracks,
                k=2,
                blend=0.0,
                deduplicate_recordings=True,
                where=["track_id=b"],
            )
        )
        == "b"
    )


def test_a_copy_under_another_artist_does_not_use_up_that_artists_places() -> None:
    """b is a's recording, credited to Bo: c is Bo's first track in the answer."""
    index, tracks = _copied([0.9, 0.8, 0.7], "xxy"), _tracks(["Ada", "Bo", "Bo"])
    assert (
        _ids(rank(index, QUERY, tracks, k=3, blend=0.0, per_artist=1, deduplicate_recordings=True))
        == "ac"
    )
