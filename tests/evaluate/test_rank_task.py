"""Blocked ranking against a slow one that holds everything, and strata against rankings made
without the others.
"""

import numpy as np
import pytest

from ponticello.errors import DataError, ShapeError
from ponticello.evaluate import tasks as ranking
from ponticello.evaluate.tasks import Task, rank_task
from ponticello.metrics.ranking import all_metrics, hit_groups, metric_columns


def _task(n_queries: int = 40, n: int = 60, seed: int = 0) -> tuple[Task, np.ndarray]:
    """A task and its (q, n) scores, many of them tied."""
    generator = np.random.default_rng(seed)
    relevant, excluded = [], []
    for _ in range(n_queries):
        order = generator.permutation(n)
        n_hits, n_out = int(generator.integers(1, 8)), int(generator.integers(0, 10))
        relevant.append(np.sort(order[:n_hits]))
        excluded.append(np.sort(order[n_hits : n_hits + n_out]))
    names = [f"listener {number}" for number in range(n_queries)]
    task = Task(
        "a task", names, None, [f"t{i}" for i in range(n)], relevant, excluded, [["t0"]] * n_queries
    )
    return task, generator.integers(0, 9, (n_queries, n)).astype(np.float32)


def _tables(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(q, n) relevant and allowed."""
    shape = (len(task.queries), len(task.candidates))
    relevant, allowed = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    for row, (hits, out) in enumerate(zip(task.relevant, task.excluded, strict=True)):
        relevant[row, hits], allowed[row, out] = True, False
    return relevant, allowed


def _rank_all(
    scores: np.ndarray, relevant: np.ndarray, allowed: np.ndarray
) -> dict[str, np.ndarray]:
    rows = []
    for row, kept in enumerate(allowed):
        rows.append(all_metrics(hit_groups(scores[row][kept], relevant[row][kept]), 10))
    return metric_columns(rows)


@pytest.mark.parametrize("block_scores", [1, 150, 10**6])
def test_ranking_by_blocks_equals_ranking_the_whole_table(
    block_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, scores = _task()
    monkeypatch.setattr(ranking, "BLOCK_SCORES", block_scores)
    found = rank_task(task, lambda rows: scores[rows], 10)
    whole = _rank_all(scores, *_tables(task))
    assert (
        list(found.metrics)
        == list(whole)
        == ["NDCG@10", "Recall@10", "HitRate@10", "MAP@10", "MRR", "AUC"]
    )
    for name, values in whole.items():
        np.testing.assert_array_equal(found.metrics[name], values)


def test_no_block_is_larger_than_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    task, scores = _task()
    monkeypatch.setattr(ranking, "BLOCK_SCORES", 7 * 60)
    asked: list[int] = []

    def scorer(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        found: np.ndarray = scores[rows]
        return found

    rank_task(task, scorer, 10)
    assert max(asked) == 7
    assert sum(asked) == 40


def test_lists_hold_the_best_of_what_is_not_excluded() -> None:
    task, scores = _task()
    lists = rank_task(task, lambda rows: scores[rows], 10).lists
    for row, out in enumerate(task.excluded):
        left = [column for column in range(60) if column not in set(out.tolist())]
        assert lists[row].tolist() == sorted(left, key=lambda column: -scores[row, column])[:10]


def test_a_list_longer_than_the_candidates_ends_in_empty_places() -> None:
    task = Task("t", ["q"], None, ["a", "b"], [np.array([0])], [np.array([1])], [["x"]])
    assert rank_task(task, lambda rows: np.zeros((len(rows), 2)), 3).lists.tolist() == [[0, -1, -1]]


def test_a_stratum_is_the_ranking_without_the_relevant_ones_of_the_others() -> None:
    task, scores = _task()
    members = np.random.default_rng(1).random(60) < 0.4
    found = rank_task(
        task, lambda rows: scores[rows], 10, {"some": members, "others": ~members}
    ).by_stratum
    relevant, allowed = _tables(task)
    for name, own in (("some", members), ("others", ~members)):
        plain = _rank_all(scores, relevant & own, allowed & ~(relevant & ~own))
        for metric, values in plain.items():
            np.testing.assert_allclose(found[name].values[metric], values, rtol=0, atol=1e-12)
    assert np.isnan(found["some"].values["MRR"]).any()  # a listener without anything in it


def test_some_rows_of_a_task_are_that_task_for_those_queries() -> None:
    task, scores = _task()
    rows = np.array([3, 8, 30])
    part = rank_task(task.rows(rows), lambda asked: scores[rows[asked]], 10).metrics
    whole = rank_task(task, lambda asked: scores[asked], 10).metrics
    for name, values in whole.items():
        np.testing.assert_array_equal(part[name], values[rows])


def test_a_score_that_is_not_finite_is_named_with_its_query_and_candidate() -> None:
    task, scores = _task()
    scores[5, 7] = np.nan
    with pytest.raises(DataError, match="a task, listener 5: the score of t7 is nan; embed again"):
        rank_task(task, lambda rows: scores[rows], 10)


def test_scores_of_another_shape_are_refused() -> None:
    task, scores = _task()
    with pytest.raises(
        ShapeError,
        match=r"a task: scores must be \(40, 60\), queries by candidates; found \(40, 59\)",
    ):
        rank_task(task, lambda rows: scores[rows][:, 1:], 10)


def test_what_a_group_of_candidates_adds_is_worked_out_by_hand() -> None:
    """Ada likes a1 and b1, ranked 1 and 4; Ben likes b2, ranked 2. Discounts 1, .6309, .5, .4307.

    Perfect for Ada: a1 and b1 at 1 and 2, 1.6309 in all; for Ben: 1.
    """
    candidates = ["a1", "a2", "b1", "b2"]
    relevant = [np.array([0, 2]), np.array([3])]
    nothing = [np.array([], dtype=np.int64)] * 2
    task = Task("t", ["ada", "ben"], None, candidates, relevant, nothing, [["x"], ["x"]])
    task = task.with_groups(
        {"a1": "artist a", "a2": "artist a", "b1": "artist b", "b2": "artist b"}
    )
    scores = np.array([[4.0, 3.0, 1.0, 2.0], [4.0, 1.0, 2.0, 3.0]])
    result = rank_task(task, lambda rows: scores[rows], 10)
    assert result.group_names == ["artist a", "artist b"]
    second = 1 / np.log2(3)
    fourth = 1 / np.log2(5)
    gains = [1 / (1 + second), fourth / (1 + second) + second]
    ideals = [1 / (1 + second), second / (1 + second) + 1]
    np.testing.assert_allclose(result.measured.sums["NDCG@10"], [gains, ideals])
    np.testing.assert_allclose(result.measured.sums["MRR"], [[1.0, 0.5], [1.0, 1.0]])
    # AUC: two of two irrelevant below a1, none below b1; two of three below b2.
    np.testing.assert_allclose(result.measured.sums["AUC"], [[0.5, 2 / 3], [0.5, 1.5]])


@pytest.mark.parametrize("block_scores", [150, 10**6])
def test_groups_add_up_to_the_metrics_of_all_queries(
    block_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, scores = _task()
    task = task.with_groups({f"t{i}": f"group {i % 7}" for i in range(60)})
    monkeypatch.setattr(ranking, "BLOCK_SCORES", block_scores)
    members = np.random.default_rng(1).random(60) < 0.4
    result = rank_task(task, lambda rows: scores[rows], 10, {"some": members})
    assert len(result.group_names) == 7
    for measured in (result.measured, result.by_stratum["some"]):
        for metric, values in measured.values.items():
            assert measured.sums[metric].shape == (2, 7)
            n_measured = (~np.isnan(values)).sum()
            totals = measured.sums[metric].sum(axis=1)
            np.testing.assert_allclose(totals, [np.nansum(values), n_measured], rtol=1e-9)


def test_a_task_without_groups_adds_nothing_up() -> None:
    task, scores = _task()
    result = rank_task(task, lambda rows: scores[rows], 10)
    assert result.group_names == []
    assert result.measured.sums == {}
