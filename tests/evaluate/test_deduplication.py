"""Rankings over recordings, against the answers `recommend` gives and by hand."""

import numpy as np
import polars as pl
import pytest

from ponticello.evaluate.tasks import Task, deduplicate_task, rank_task
from ponticello.search.index import Calibration, EmbeddingIndex, Query, VectorSpace
from tests.search.ranked import rank

SCORES = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
RECORDINGS = {"a": "a", "b": "b", "c": "a", "d": "b"}  # e is known to nobody


def _task(relevant: list[list[int]], excluded: list[list[int]]) -> Task:
    columns = [[np.array(row, dtype=np.int64) for row in rows] for rows in (relevant, excluded)]
    return Task(
        "next_tracks_warm", ["u", "v"], None, list("abcde"), columns[0], columns[1], [["s"], ["t"]]
    )


def test_a_recording_scores_as_its_best_copy_and_is_relevant_if_one_is() -> None:
    """Of u the recordings a, b, e score 0.9, 0.8, 0.5 and b is wanted: second; of v 0.3, 0.4, 0.5,
    and e is.
    """
    found = deduplicate_task(_task([[3], [4]], [[], []]), RECORDINGS)
    assert found.task.candidates == ["a", "b", "e"]
    assert [columns.tolist() for columns in found.task.relevant] == [[1], [2]]
    scores = found.scorer(lambda rows: SCORES[rows])
    assert scores(np.array([0, 1])).tolist() == [[0.9, 0.8, 0.5], [0.3, 0.4, 0.5]]
    assert rank_task(found.task, scores, 10).metrics["MRR"] == pytest.approx([1 / 2, 1.0])


def test_a_played_copy_excludes_all_copies_and_a_query_without_relevant_ones_is_dropped() -> None:
    """u met a and later likes its copy c, which is not new; v met a and likes d, a copy of b."""
    found = deduplicate_task(_task([[2], [3]], [[0], [0]]), RECORDINGS)
    assert found.task.queries == found.tracks.queries == ["v"]
    assert [columns.tolist() for columns in found.task.excluded] == [[0]]
    assert [columns.tolist() for columns in found.task.relevant] == [[1]]
    assert found.tracks.seeds == [["t"]]
    assert found.tracks.candidates == list("abcde")


def test_a_recording_was_played_as_often_as_its_copies_together() -> None:
    played = pl.DataFrame({"track_id": ["a", "c", "c", "d", "e", "unknown"]})
    found = deduplicate_task(_task([[3], [4]], [[], []]), RECORDINGS)
    assert found.plays(played).tolist() == [3, 1, 1]
    assert deduplicate_task(_task([[3], [4]], [[], []]), {}).plays(played).tolist() == [
        1,
        0,
        2,
        1,
        1,
    ]


def test_without_copies_or_with_listeners_to_rank_nothing_changes() -> None:
    task = _task([[3], [4]], [[0], []])
    assert deduplicate_task(task, {}).task is task
    assert deduplicate_task(task, {"a": "x", "b": "y"}).task is task
    nobody, first = np.array([], dtype=np.int64), np.array([0])
    listeners = Task(
        "audience_cold", ["t"], None, ["u", "v"], [first], [nobody], [["a"], ["b"]], True
    )
    found = deduplicate_task(listeners, {"u": "x", "v": "x"})
    assert found.task is found.tracks is listeners
    assert found.scorer(lambda rows: SCORES[rows])(np.array([0])).tolist() == SCORES[:1].tolist()


def test_first_places_are_those_that_serving_shows() -> None:
    """Random copies and met tracks: the list of the ranking and `SearchService.rank` name the same
    recordings in order.
    """
    generator = np.random.default_rng(0)
    ids = [f"t{number:02d}" for number in range(40)]
    recordings = [ids[number] for number in np.sort(generator.integers(0, 40, 40))]
    vectors = generator.standard_normal((40, 8)).astype(np.float32)
    plain = Calibration(0.0, 1.0)
    index = EmbeddingIndex(ids, vectors, [VectorSpace("one", "aaaa", plain, plain)], recordings)
    asking = generator.standard_normal((5, 8)).astype(np.float32)
    met = [np.sort(generator.permutation(40)[:6]) for _ in range(5)]
    left = [np.setdiff1d(np.arange(40), own) for own in met]
    names = [f"u{number}" for number in range(5)]
    task = Task("next_tracks_warm", names, None, ids, left, met, [["s"]] * 5)
    found = deduplicate_task(task, dict(zip(ids, recordings, strict=True)))
    lists = rank_task(found.task, found.scorer(lambda rows: asking[rows] @ vectors.T), 10).lists
    tracks = pl.DataFrame({"track_id": ids, "title": ids, "artist": ids})
    for row in range(5):
        excluded = [ids[column] for column in met[row]]
        query = Query((asking[row : row + 1],), "text")
        shown = rank(
            index, query, tracks, k=10, blend=0.0, excluded=excluded, deduplicate_recordings=True
        )
        by_name = {track_id: recordings[column] for column, track_id in enumerate(ids)}
        ranked = [by_name[found.task.candidates[column]] for column in lists[row] if column >= 0]
        assert [by_name[result.track_id] for result in shown] == ranked
