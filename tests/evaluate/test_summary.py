"""Seeds combined by hand, the compared pairs, the notes, and the order of figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ponticello.config import Config, EvaluateConfig
from ponticello.errors import DataError
from ponticello.evaluate import summary as summary_module
from ponticello.evaluate.results import (
    RANDOM,
    STAGE_ONE,
    STAGE_TWO,
    CandidateGroups,
    EvaluationInfo,
    Figure,
    Measurements,
    ScalarMetric,
    Scores,
    Section,
    Summary,
)
from ponticello.evaluate.summary import SIGN_FLIP_ROUNDS, summarise
from ponticello.metrics.bootstrap import bootstrap_mean, holm, sign_flip_p

NAN = math.nan
ROUNDS, SEED = 200, 3
CONFIG = Config(evaluate=EvaluateConfig(bootstrap_rounds=ROUNDS, seed=SEED))
QUERIES = ["ada", "ben", "cleo", "dina"]
COLD = "next_tracks_cold"


def _about(*seeds: int) -> EvaluationInfo:
    return EvaluationInfo(
        "demo",
        "0.1",
        "tiny",
        {},
        60,
        80,
        900,
        "Whole artists.",
        "0",
        seeds,
        "evaluate",
        is_simulated=False,
    )


def _scores(
    by_method: Mapping[str, Sequence[float] | NDArray[np.float64]],
    task: str = COLD,
    metric: str = "NDCG@10",
    section: Section = "preference",
    clusters: list[str] | None = None,
    of_record: bool = True,
) -> Scores:
    columns = {method: np.array(values, dtype=np.float64) for method, values in by_method.items()}
    n = len(next(iter(columns.values()), []))
    queries = QUERIES[:n] if n <= len(QUERIES) else [f"q{i}" for i in range(n)]
    return Scores(section, task, metric, queries, clusters, columns, of_record)


def _summary(*scores: Scores) -> Summary:
    return summarise([Measurements(list(scores))], _about(0), CONFIG)


def _random_columns(n: int, *methods: str) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return {method: rng.random(n) for method in methods}


def test_seeds_are_combined_as_worked_out_by_hand() -> None:
    """Seed 1 gives 1, 2, nan, nan and seed 2 gives 3, nan, 5, nan. Each query's mean: 2, 2, 5, nan;
    of these: 3.

    The seeds' own values are 1.5 and 4: their deviation with N - 1 is 2.5 / sqrt 2.
    """
    seeds = [_scores({STAGE_TWO: [1.0, 2.0, NAN, NAN]}), _scores({STAGE_TWO: [3.0, NAN, 5.0, NAN]})]
    figure = summarise([Measurements([scores]) for scores in seeds], _about(1, 2), CONFIG).figures[
        0
    ]
    _, low, high = bootstrap_mean(np.array([2.0, 2.0, 5.0]), None, ROUNDS, SEED)
    assert (figure.value, figure.low, figure.high, figure.n) == (3.0, low, high, 3)
    assert figure.seed_sd == pytest.approx(2.5 / math.sqrt(2), abs=1e-12)


def test_one_seed_has_no_deviation() -> None:
    figure = _summary(_scores({STAGE_TWO: [1.0, 2.0]})).figures[0]
    assert (figure.value, figure.n) == (1.5, 2)
    assert math.isnan(figure.seed_sd)
    assert (figure.section, figure.task, figure.metric, figure.method) == (
        "preference",
        COLD,
        "NDCG@10",
        STAGE_TWO,
    )
    assert (figure.of_record, figure.higher_is_better) == (True, True)


def test_clusters_are_drawn_together_in_figures_and_differences() -> None:
    columns = _random_columns(40, STAGE_ONE, STAGE_TWO)
    names = [f"artist{i % 11}" for i in range(40)]
    number = np.unique(names, return_inverse=True)[1]
    summary = _summary(_scores(columns, clusters=names))
    change = columns[STAGE_TWO] - columns[STAGE_ONE]
    one, two, gain = *summary.figures, summary.differences[0]
    for found, values in ((one, columns[STAGE_ONE]), (two, columns[STAGE_TWO]), (gain, change)):
        wanted = bootstrap_mean(values, number, ROUNDS, SEED)
        assert (found.value, found.low, found.high) == pytest.approx(wanted, abs=1e-12)
    assert summary.differences[0].p == sign_flip_p(change, number, SIGN_FLIP_ROUNDS, SEED)


def test_a_metric_of_record_sets_stage_two_against_every_other_and_others_only_the_stages() -> None:
    columns = _random_columns(20, RANDOM, STAGE_ONE, "ease", STAGE_TWO)
    summary = _summary(_scores(columns), _scores(columns, metric="recall@10", of_record=False))
    compared = [(d.metric, d.method, d.against) for d in summary.differences]
    assert compared == [
        ("NDCG@10", STAGE_TWO, STAGE_ONE),
        ("NDCG@10", STAGE_TWO, RANDOM),
        ("NDCG@10", STAGE_TWO, "ease"),
        ("recall@10", STAGE_TWO, STAGE_ONE),
    ]
    p_values = [d.p for d in summary.differences]
    assert p_values[1] == sign_flip_p(
        columns[STAGE_TWO] - columns[RANDOM], None, SIGN_FLIP_ROUNDS, SEED
    )
    assert math.isnan(p_values[3])
    np.testing.assert_array_equal([d.p_holm for d in summary.differences], holm(np.array(p_values)))


def test_without_stage_two_stage_one_is_set_against_the_others() -> None:
    columns = _random_columns(20, "ease", STAGE_ONE)
    summary = _summary(_scores(columns), _scores(columns, metric="recall@10", of_record=False))
    assert [(d.metric, d.method, d.against) for d in summary.differences] == [
        ("NDCG@10", STAGE_ONE, "ease")
    ]


def test_sides_without_better_or_worse_and_tasks_without_stages_have_no_differences() -> None:
    columns = _random_columns(20, STAGE_ONE, STAGE_TWO)
    summary = _summary(
        _scores(columns, section="tradeoff", task="blend"),
        _scores(columns, section="integrity", task="space"),
        _scores(_random_columns(20, "ease", "als")),
    )
    assert summary.differences == []
    assert [figure.section for figure in summary.figures] == ["tradeoff"] * 2 + [
        "integrity"
    ] * 2 + ["preference"] * 2


def test_holm_counts_the_tests_of_all_tasks_together() -> None:
    """Two tasks of five whole wins: p = 2 / 32 each, and times 2."""
    wins = {STAGE_ONE: np.zeros(5), STAGE_TWO: np.ones(5)}
    summary = _summary(
        _scores(wins), _scores(wins, task="text_to_audio", metric="R@10", section="semantic")
    )
    assert [(d.p, d.p_holm) for d in summary.differences] == [(0.0625, 0.125)] * 2


def test_a_lower_metric_turns_the_sign_so_that_above_0_is_better() -> None:
    """Ranks 1, 1 against 4, 2: stage two is 2 places better; the figures stay as they are."""
    scores = replace(
        _scores({STAGE_ONE: [4.0, 2.0], STAGE_TWO: [1.0, 1.0]}), higher_is_better=False
    )
    summary = _summary(scores)
    assert [figure.value for figure in summary.figures] == [3.0, 1.0]
    assert [(d.value, d.low, d.high) for d in summary.differences] == [(2.0, 1.0, 3.0)]


def test_a_median_has_neither_an_interval_nor_a_difference() -> None:
    """1, 2 and 9, without the nan: median 2."""
    columns = {STAGE_ONE: [9.0, 1.0, NAN, 2.0], STAGE_TWO: [1.0, 1.0, 1.0, 4.0]}
    summary = _summary(
        replace(_scores(columns, of_record=False), statistic="median", higher_is_better=False)
    )
    assert [(figure.value, figure.n) for figure in summary.figures] == [(2.0, 3), (1.0, 4)]
    assert all(math.isnan(end) for figure in summary.figures for end in (figure.low, figure.high))
    assert summary.differences == []


def test_the_deviation_over_seeds_of_a_median_is_of_medians() -> None:
    """Medians 2 and 4: deviation sqrt 2. Each query's mean is 2, 3, 10: median 3."""
    seeds = [
        _scores({STAGE_TWO: values}, of_record=False)
        for values in ([1.0, 2.0, 16.0], [3.0, 4.0, 4.0])
    ]
    evaluations = [Measurements([replace(scores, statistic="median")]) for scores in seeds]
    figure = summarise(evaluations, _about(1, 2), CONFIG).figures[0]
    assert figure.value == 3.0
    assert figure.seed_sd == pytest.approx(math.sqrt(2), abs=1e-12)


def test_a_difference_is_of_each_querys_mean_over_seeds() -> None:
    """Stage two: (1 + 3) / 2 = 2 and 4; stage one 1 and 1: differences 1 and 3, mean 2."""
    first = _scores({STAGE_ONE: [1.0, 1.0, NAN], STAGE_TWO: [1.0, 4.0, 9.0]})
    second = _scores({STAGE_ONE: [1.0, NAN, NAN], STAGE_TWO: [3.0, 4.0, 9.0]})
    found = summarise(
        [Measurements([first]), Measurements([second])], _about(1, 2), CONFIG
    ).differences[0]
    assert (found.value, found.low, found.high, found.n) == (2.0, 1.0, 3.0, 2)


def test_what_some_seeds_lack_is_summarised_over_the_others_and_noted() -> None:
    """EASE is there with seed 5 only, recall with seeds 7 and 9."""
    both = {STAGE_TWO: [1.0, 3.0]}
    evaluations = [
        Measurements([_scores(both | {"ease": [4.0, 6.0]})], notes=["k is 10"]),
        Measurements(
            [_scores(both), _scores(both, metric="recall@10", of_record=False)],
            notes=["k is 10", "a gap"],
        ),
        Measurements(
            [_scores(both), _scores({STAGE_TWO: [3.0, 5.0]}, metric="recall@10", of_record=False)]
        ),
    ]
    summary = summarise(evaluations, _about(5, 7, 9), CONFIG)
    assert [(f.metric, f.method, f.value) for f in summary.figures] == [
        ("NDCG@10", STAGE_TWO, 2.0),
        ("NDCG@10", "ease", 5.0),
        ("recall@10", STAGE_TWO, 3.0),
    ]
    assert math.isnan(summary.figures[1].seed_sd)
    assert summary.notes == [
        "k is 10",
        "a gap",
        "next tracks, cold, EASE: measured with seed 5 only, of 3 seeds",
        "next tracks, cold, recall@10: measured with seeds 7, 9 only, of 3 seeds",
    ]


def test_figures_come_in_order_of_first_appearance_and_facts_last() -> None:
    first = [_scores({"b": [1.0], "a": [1.0]}), _scores({"a": [1.0]}, task="audience")]
    second = [
        _scores({"a": [1.0], "c": [1.0], "b": [1.0]}),
        _scores({"a": [1.0]}, task="playlists"),
    ]
    facts = [ScalarMetric("integrity", "space", "effective rank", STAGE_TWO, 5.0, 60)]
    summary = summarise(
        [Measurements(first, facts), Measurements(second, facts)], _about(1, 2), CONFIG
    )
    assert [(figure.task, figure.method) for figure in summary.figures] == [
        (COLD, "b"),
        (COLD, "a"),
        (COLD, "c"),
        ("audience", "a"),
        ("playlists", "a"),
        ("space", STAGE_TWO),
    ]


def test_a_fact_is_the_mean_over_seeds_without_interval() -> None:
    """4 and 7 of 60 and 50 rows, and a seed that could not tell: 5.5, deviation 3 / sqrt 2, of 50
    rows at least.
    """
    facts = [
        ScalarMetric("preference", COLD, "coverage", "ease", value, n)
        for value, n in ((4.0, 60), (7.0, 50), (NAN, 60))
    ]
    evaluations = [*(Measurements(facts=[fact]) for fact in facts), Measurements()]
    summary = summarise(evaluations, _about(1, 2, 3, 4), CONFIG)
    figure = summary.figures[0]
    wanted = Figure(
        "preference", COLD, "coverage", "ease", 5.5, NAN, NAN, 50, figure.seed_sd, False, True
    )
    np.testing.assert_equal(asdict(figure), asdict(wanted))
    assert figure.seed_sd == pytest.approx(3 / math.sqrt(2), abs=1e-12)
    assert summary.notes == [
        "next tracks, cold, EASE: measured with seeds 1, 2, 3 only, of 4 seeds"
    ]


def test_claims_come_from_the_figures_and_count_clusters_as_evidence() -> None:
    columns = {STAGE_ONE: np.zeros(40), STAGE_TWO: np.ones(40)}
    alone = _summary(_scores(columns))
    assert alone.claims[1].startswith(
        "On next tracks, cold (40 queries): stage two finds more than stage one"
    )
    grouped = _summary(_scores(columns, clusters=[f"artist{i % 8}" for i in range(40)]))
    assert grouped.claims[1].endswith("Only 8 independent groups: this is little evidence.")


def test_too_many_tests_for_the_sign_flips_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """19 flips: p is 1 / 20 at least, which one test already spends."""
    scores = _scores(_random_columns(30, STAGE_ONE, STAGE_TWO))
    assert _summary(scores).notes == []
    monkeypatch.setattr(summary_module, "SIGN_FLIP_ROUNDS", 19)
    assert _summary(scores).notes == [
        "1 tests with 19 sign flips each: Holm p can stay above 0.05 however large a difference is"
    ]


def test_empty_evaluations_give_an_empty_summary() -> None:
    about = _about(0)
    assert summarise([Measurements()], about, CONFIG) == Summary(about, [], [], [], [])
    assert _summary(_scores({})).figures == []
    nobody = _summary(_scores({STAGE_ONE: [], STAGE_TWO: []}))
    assert [figure.n for figure in nobody.figures] == [0, 0]
    assert math.isnan(nobody.differences[0].p)


def test_the_same_evaluations_give_the_same_summary() -> None:
    columns = _random_columns(50, RANDOM, STAGE_ONE, STAGE_TWO)
    np.testing.assert_equal(asdict(_summary(_scores(columns))), asdict(_summary(_scores(columns))))


def test_what_does_not_fit_together_is_refused_by_name() -> None:
    scores = _scores({STAGE_TWO: [1.0, 2.0]})
    two = _about(1, 2)

    def evaluations(other: Scores) -> list[Measurements]:
        return [Measurements([scores]), Measurements([other])]

    for changed in (
        replace(scores, queries=["ben", "ada"]),
        replace(scores, clusters=["x", "y"]),
        replace(scores, statistic="median"),
    ):
        with pytest.raises(DataError, match=f"{COLD}, NDCG@10: seed 2 has other queries, clusters"):
            summarise(evaluations(changed), two, CONFIG)


def _with_two_artists(n: int, names: list[str] | None = None) -> Scores:
    """Each listener likes one track; stage two wins on those of one artist and loses elsewhere."""
    is_first = np.arange(n) % 10 < 7
    scores = _scores({STAGE_ONE: [0.5] * n, STAGE_TWO: is_first.astype(np.float64)})
    n_first = float(is_first.sum())
    sums = {
        STAGE_ONE: np.array([[0.5 * n_first, 0.5 * (n - n_first)], [n_first, n - n_first]]),
        STAGE_TWO: np.array([[n_first, 0.0], [n_first, n - n_first]]),
    }
    groups = CandidateGroups(names or ["artist a", "artist b"], sums)
    return replace(scores, candidate_groups=groups)


def test_a_gain_on_one_artist_alone_is_no_gain_on_others() -> None:
    scores = _with_two_artists(200)
    one_way = _summary(replace(scores, candidate_groups=None))
    two_way = _summary(scores)
    narrow = one_way.differences[0]
    wide = two_way.differences[0]
    assert narrow.is_better
    assert not wide.is_better
    assert wide.value == narrow.value == pytest.approx(0.2)
    assert wide.low < 0 < narrow.low
    assert wide.high > narrow.high
    assert wide.p == 1.0 > narrow.p  # two artists: two of four sign flips reach 0.2, two exceed it
    for before, after in zip(one_way.figures, two_way.figures, strict=True):
        assert after.value == before.value
    assert "Only 2 independent groups: this is little evidence." in two_way.claims[1]


def test_seeds_must_have_the_same_groups_of_candidates() -> None:
    seeds = [_with_two_artists(20), _with_two_artists(20, ["artist a", "artist c"])]
    with pytest.raises(DataError, match="seed 2 has other queries, clusters"):
        summarise([Measurements([scores]) for scores in seeds], _about(1, 2), CONFIG)


def test_groups_of_several_seeds_are_averaged() -> None:
    scores = _with_two_artists(200)
    assert scores.candidate_groups is not None
    doubled = summarise([Measurements([scores])] * 2, _about(1, 2), CONFIG)
    single = _summary(scores)
    assert doubled.differences[0].low == single.differences[0].low
    assert doubled.differences[0].p == single.differences[0].p
