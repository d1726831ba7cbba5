"""The meaning side of retrieval: figures by hand, slow plain rankings, and random rows against
simulation.
"""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from ponticello.evaluate import retrieval as semantic
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.results import Scores
from ponticello.evaluate.retrieval import music_to_music_scores, retrieval_figures, retrieval_scores


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    """Returns (n, d) random unit vectors."""
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def _names(n: int, prefix: str = "track") -> list[str]:
    return [f"{prefix} {number}" for number in range(n)]


def _some_labels(n: int, seed: int = 0) -> list[set[str]]:
    """Up to three of six labels a track; some have none."""
    generator = np.random.default_rng(seed)
    return [
        set(generator.choice(list("abcdef"), generator.integers(0, 4), replace=False).tolist())
        for _ in range(n)
    ]


def _by_metric(scores: list[Scores], task: str) -> dict[str, Scores]:
    return {found.metric: found for found in scores if found.task == task}


def test_retrieval_figures_by_hand() -> None:
    """Query i points at item i; twelve items on a line. Targets at ranks 1, 2 and 12: 2/3 within
    ten, median 2.
    """
    items = np.stack([np.linspace(1, 0.1, 12), np.zeros(12)], axis=1)
    queries = np.tile([[1.0, 0.0]], (3, 1))
    figures = retrieval_figures(queries, items, np.array([0, 1, 11]))
    assert figures["recall@10"] == pytest.approx(2 / 3)
    assert figures["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 12) / 3)
    assert figures["median_rank"] == 2.0


def test_retrieval_equals_a_plain_sort_in_both_directions() -> None:
    m = 30
    texts, audio = random_vectors(m, 4, 0), random_vectors(m, 4, 1)
    found = retrieval_scores({"ours": texts}, {"ours": audio}, _names(m), _names(m, "artist"))
    for task, asking, asked in (("text_to_audio", texts, audio), ("audio_to_text", audio, texts)):
        ranks = np.array(
            [
                np.argsort(-(asked @ query)).tolist().index(row) + 1
                for row, query in enumerate(asking)
            ]
        )
        metrics = _by_metric(found, task)
        assert list(metrics) == ["R@1", "R@5", "R@10", "MRR", "median rank"]
        for k in (1, 5, 10):
            assert metrics[f"R@{k}"].by_method["ours"].tolist() == [
                float(rank <= k) for rank in ranks
            ]
        assert metrics["MRR"].by_method["ours"] == pytest.approx(1 / ranks)
        assert metrics["median rank"].by_method["ours"].tolist() == ranks.tolist()
        assert metrics["median rank"].statistic == "median"
        assert [name for name, scores in metrics.items() if scores.of_record] == ["R@10"]
        assert [name for name, scores in metrics.items() if not scores.higher_is_better] == [
            "median rank"
        ]


def test_retrieval_names_queries_and_clusters() -> None:
    one, two = (random_vectors(4, 3, seed) for seed in range(2))
    clusters = ["x", "x", "y", "z"]
    found = retrieval_scores({"b": one}, {"b": two}, _names(4), clusters)
    assert len(found) == 10
    for scores in found:
        assert (scores.section, scores.queries, scores.clusters) == (
            "semantic",
            _names(4),
            clusters,
        )
        assert list(scores.by_method) == ["random", "b"]


def test_random_retrieval_equals_a_simulation() -> None:
    """Mean over 300 draws of 12 vectors that know nothing; standard errors: below 0.009 for shares,
    0.06 for ranks.
    """
    m, draws = 12, 300
    tables: dict[str, list[float]] = {}
    for seed in range(draws):
        texts, audio = random_vectors(m, 8, seed), random_vectors(m, 8, seed + draws)
        for metric, scores in _by_metric(
            retrieval_scores({"a": texts}, {"a": audio}, _names(m), _names(m)), "text_to_audio"
        ).items():
            tables.setdefault(metric, []).append(float(scores.by_method["a"].mean()))
            expected = scores.by_method["random"]
            assert expected.shape == (m,)
            tables.setdefault(f"random {metric}", []).append(float(expected[0]))
    for metric in ("R@1", "R@5", "R@10", "MRR"):
        assert np.mean(tables[metric]) == pytest.approx(
            np.mean(tables[f"random {metric}"]), abs=0.03
        )
    assert np.mean(tables["median rank"]) == pytest.approx(6.5, abs=0.2)
    assert tables["random median rank"][0] == 6.5
    assert tables["random R@5"][0] == pytest.approx(5 / 12)


def test_random_recall_of_fewer_tracks_than_places_is_one() -> None:
    found = _by_metric(
        retrieval_scores(
            {"a": random_vectors(4, 3, 0)}, {"a": random_vectors(4, 3, 1)}, _names(4), _names(4)
        ),
        "audio_to_text",
    )
    assert found["R@10"].by_method["random"].tolist() == [1.0] * 4
    assert found["R@10"].by_method["a"].tolist() == [1.0] * 4
    assert found["R@1"].by_method["random"].tolist() == [0.25] * 4
    assert found["MRR"].by_method["random"] == pytest.approx(
        np.full(4, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    )


def test_a_tie_counts_as_the_middle_of_its_places() -> None:
    """All four audio vectors are the same: places 1 to 4, middle 2.5."""
    audio = np.tile([[1.0, 0.0]], (4, 1))
    found = retrieval_scores({"a": random_vectors(4, 2, 0)}, {"a": audio}, _names(4), _names(4))
    assert _by_metric(found, "text_to_audio")["median rank"].by_method["a"].tolist() == [2.5] * 4


def _plain_music_to_music(
    vectors: np.ndarray, labels: list[set[str]], clusters: list[str]
) -> tuple[list[float], list[float]]:
    """NDCG by scikit-learn over all candidates, and precision as its mean over 2,000 random orders
    of equals.
    """
    generator = np.random.default_rng(0)
    ndcg, precision = [], []
    for query, own in enumerate(labels):
        others = [
            row for row in range(len(labels)) if labels[row] and clusters[row] != clusters[query]
        ]
        gains = np.array([len(own & labels[row]) / len(own | labels[row]) for row in others])
        if not len(others) or not gains.any():
            ndcg.append(np.nan)
            precision.append(np.nan)
            continue
        scores = np.round(
            vectors[others].astype(np.float64) @ vectors[query].astype(np.float64), 12
        )
        ndcg.append(float(ndcg_score(gains[None], scores[None], k=10)) if len(others) > 1 else 1.0)
        shares = []
        for _ in range(2000 if len(set(scores)) < len(scores) else 1):
            order = np.lexsort((generator.random(len(scores)), -scores))[:10]
            shares.append(float((gains[order] > 0).mean()))
        precision.append(float(np.mean(shares)))
    return ndcg, precision


@pytest.mark.parametrize("n", [2, 7, 11, 60])
def test_music_to_music_equals_a_slow_plain_ranking(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic, "BLOCK_SCORES", 4 * n)  # four queries a block
    vectors = {
        "spread": random_vectors(n, 5, 0),
        "coarse": np.round(random_vectors(n, 2, 1)),
    }  # the second has ties
    labels, clusters = _some_labels(n), [f"artist {row // 3}" for row in range(n)]
    clusters[-1] = "another"
    labels[0] = labels[-1] = {"a"}
    ndcg, precision = music_to_music_scores(vectors, labels, _names(n), clusters, "genre")
    assert [scores.metric for scores in (ndcg, precision)] == ["NDCG@10 graded", "precision@10"]
    assert [scores.of_record for scores in (ndcg, precision)] == [True, False]
    assert {scores.task for scores in (ndcg, precision)} == {"music_to_music:genre"}
    assert (ndcg.section, ndcg.queries, ndcg.clusters) == ("semantic", _names(n), clusters)
    for method, found in vectors.items():
        wanted = _plain_music_to_music(found, labels, clusters)
        assert ndcg.by_method[method] == pytest.approx(wanted[0], abs=1e-12, nan_ok=True)
        tolerance = 1e-12 if method == "spread" else 0.02
        assert precision.by_method[method] == pytest.approx(wanted[1], abs=tolerance, nan_ok=True)


def test_music_to_music_by_hand() -> None:
    """Track 0 {a, b} ranks 1 {a} (overlap 1/2), 2 {c} (0), 3 {a, b, c} (2/3), in this order.

    NDCG: (1/2 + 2/3 / log2 4) / (2/3 + 1/2 / log2 3) = 0.8333333 / 0.9821282; precision 2/3 of
    three tracks.
    """
    angles = np.array([0.0, 0.1, 0.2, 0.3])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = [{"a", "b"}, {"a"}, {"c"}, {"a", "b", "c"}]
    ndcg, precision = music_to_music_scores({"a": vectors}, labels, _names(4), _names(4), "tags")
    assert ndcg.by_method["a"][0] == pytest.approx(
        (1 / 2 + 2 / 3 / 2) / (2 / 3 + 1 / 2 / np.log2(3)), abs=1e-12
    )
    assert precision.by_method["a"][0] == pytest.approx(2 / 3)


def test_tracks_of_the_same_artist_are_not_in_the_ranking() -> None:
    """Each track lies on its artist's spot, all of whose tracks carry one label; only another
    artist's share it.

    Were the own artist ranked, its twelve tracks would fill the first ten places with hits. Without
    it, the first ten are all of the wrong label, as the artist with the same label is the farthest
    away.
    """
    spots = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])
    artist = np.repeat(np.arange(4), 12)
    labels = [{"same"} if number in (0, 3) else {"other"} for number in artist]
    clusters = [f"artist {number}" for number in artist]
    ndcg, precision = music_to_music_scores(
        {"a": spots[artist]}, labels, _names(48), clusters, "genre"
    )
    assert ndcg.by_method["a"][:12].tolist() == [0.0] * 12
    assert precision.by_method["a"][:12].tolist() == [0.0] * 12
    ndcg, precision = music_to_music_scores(
        {"a": spots[artist]}, labels, _names(48), _names(48), "genre"
    )
    assert ndcg.by_method["a"][:12] == pytest.approx(np.ones(12))
    assert precision.by_method["a"][:12] == pytest.approx(np.ones(12))


def test_moving_tracks_of_the_same_artist_changes_nothing_for_that_artist() -> None:
    n = 40
    vectors, labels = random_vectors(n, 4, 0), _some_labels(n)
    clusters = ["one"] * 8 + _names(n - 8)
    moved = vectors.copy()
    moved[1:8] = random_vectors(7, 4, 9)
    first, second = (
        music_to_music_scores({"a": found}, labels, _names(n), clusters, "x")[0].by_method["a"]
        for found in (vectors, moved)
    )
    assert first[0] == second[0]
    assert (first[8:] != second[8:]).any()


def test_unlabelled_tracks_neither_ask_nor_stand_in_the_ranking() -> None:
    """Track 1 is the closest to track 0 but nobody knows its labels; the next one is a perfect
    match.
    """
    angles = np.array([0.0, 0.1, 0.2, 3.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels: list[set[str]] = [{"a"}, set(), {"a"}, {"b"}]
    ndcg, _ = music_to_music_scores({"a": vectors}, labels, _names(4), _names(4), "x")
    assert ndcg.by_method["a"] == pytest.approx([1.0, np.nan, 1.0, np.nan], nan_ok=True)
    assert ndcg.by_method["random"][0] == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_random_music_to_music_equals_a_simulation() -> None:
    """Mean over 400 draws of vectors that know nothing, query by query; standard errors below
    0.015.
    """
    n = 25
    labels, clusters = _some_labels(n, seed=3), [f"artist {row // 2}" for row in range(n)]
    vectors = {str(seed): random_vectors(n, 6, seed) for seed in range(400)}
    for scores in music_to_music_scores(vectors, labels, _names(n), clusters, "x"):
        simulated = np.mean([scores.by_method[method] for method in vectors], axis=0)
        assert scores.by_method["random"] == pytest.approx(simulated, abs=0.06, nan_ok=True)
        assert np.nanmean(scores.by_method["random"]) == pytest.approx(
            np.nanmean(simulated), abs=0.01
        )


def test_music_to_music_with_nothing_to_find_is_an_empty_list() -> None:
    two = random_vectors(2, 3, 0)
    assert music_to_music_scores({"a": two}, [{"a"}, {"b"}], _names(2), _names(2), "x") == []
    assert music_to_music_scores({"a": two}, [{"a"}, {"a"}], _names(2), ["one", "one"], "x") == []
    assert music_to_music_scores({"a": two}, [set(), set()], _names(2), _names(2), "x") == []
    assert music_to_music_scores({}, [{"a"}, {"a"}], _names(2), _names(2), "x") == []
    assert music_to_music_scores({"a": two[:0]}, [], [], [], "x") == []
