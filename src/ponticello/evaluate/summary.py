"""Summarises the measurements of all seeds: means, intervals, differences, tests and claims.

A query's scores are averaged over the seeds first. Intervals and tests are over queries, and in
rankings over groups of candidates too (the held-out tracks of an artist), so they show how far the
numbers carry to other queries and candidates; `seed_sd` shows how they vary with the seed.

Dimensions: n queries, S seeds that measured a method, A groups of candidates.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import nan
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ponticello.config import Config
from ponticello.errors import DataError
from ponticello.evaluate.claims import derive_claims
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import (
    FUSED,
    SERVED,
    SIGNIFICANT,
    STAGE_ONE,
    STAGE_TWO,
    Difference,
    EvaluationInfo,
    Figure,
    Measurements,
    ScalarMetric,
    Scores,
    Summary,
)
from ponticello.metrics.bootstrap import bootstrap_means, bootstrap_ratios, holm, sign_flip_p
from ponticello.metrics.ranking import Ints

SIGN_FLIP_ROUNDS = 9_999  # if there are too many clusters to try every flip; smallest p: 1 / 10,000
COMPARED = ("semantic", "preference")  # sections in which methods are compared

Record = TypeVar("Record", Scores, ScalarMetric)


@dataclass(frozen=True)
class _Combined:
    """The scores of all seeds. by_seed: (S, n) by method; mean: (n,) over seeds, by method.

    scores: those of the first seed, for what does not depend on the seed. clusters: (n,) or None.
    group_sums: (2, A) over seeds by method, as in `CandidateGroups`; None without groups.
    """

    scores: Scores
    by_seed: dict[str, NDArray[np.float64]]
    mean: dict[str, NDArray[np.float64]]
    clusters: Ints | None
    group_sums: dict[str, NDArray[np.float64]] | None

    @property
    def n_clusters(self) -> int:
        """The number of clusters (or queries without one) in which any method has a value.

        If fewer groups of candidates have relevant ones, the number of those.
        """
        numbers = np.arange(len(self.scores.queries)) if self.clusters is None else self.clusters
        has_value = ~np.isnan(np.stack(list(self.mean.values()))).all(axis=0)
        n_clusters = len(np.unique(numbers[has_value]))
        if self.group_sums is None:
            return n_clusters
        ideals = np.stack([sums[1] for sums in self.group_sums.values()])
        return min(n_clusters, int((ideals > 0).any(axis=0).sum()))


def summarise(measured: Sequence[Measurements], about: EvaluationInfo, config: Config) -> Summary:
    """Returns the figures, differences, claims and notes of all seeds.

    measured: one per seed, in the order of about.seeds. Figures are in the order in which their
    Scores first appear, then the ScalarMetrics. Differences, in the sections semantic and
    preference: stage two minus stage one in every metric; in the metric of record also stage two,
    or stage one if there is no stage two, minus every other method. p is that of `sign_flip_p` over
    queries or over groups of candidates, whichever is larger, corrected by `holm` over the whole
    summary. Tasks and methods that only some seeds measured are
    summarised over those, with a note. DataError if seeds have other queries or treat a task
    differently.
    Randomness: config.evaluate.seed, for every interval and test.
    """
    figures: list[Figure] = []
    differences: list[Difference] = []
    notes: list[str] = []
    scores_by_seed = {}
    facts_by_seed = {}
    for seed, measurements in zip(about.seeds, measured, strict=True):
        notes += measurements.notes
        scores_by_seed[seed] = measurements.scores
        facts_by_seed[seed] = measurements.facts
    n_clusters: dict[str, int] = {}
    for scores in _by_key(scores_by_seed):
        combined = _combine(scores, about.seeds, notes)
        if not combined.mean:
            continue
        task_figures, task_differences = _numbers(combined, config)
        figures += task_figures
        differences += task_differences
        if combined.scores.of_record:
            n_clusters[combined.scores.task] = combined.n_clusters
    for facts in _by_key(facts_by_seed):
        figures.append(_figure_of_facts(facts, about.seeds, notes))
    p_values = np.array([difference.p for difference in differences], dtype=np.float64)
    n_tests = int((~np.isnan(p_values)).sum())
    if n_tests / (1 + SIGN_FLIP_ROUNDS) >= SIGNIFICANT:
        notes.append(
            f"{n_tests} tests with {SIGN_FLIP_ROUNDS} sign flips each: "
            f"Holm p can stay above {SIGNIFICANT} however large a difference is"
        )
    corrected = []
    for difference, p in zip(differences, holm(p_values).tolist(), strict=True):
        corrected.append(replace(difference, p_holm=p))
    claims = derive_claims(figures, corrected, about, n_clusters)
    return Summary(about, figures, corrected, claims, list(dict.fromkeys(notes)))


def _by_key(records_by_seed: Mapping[int, Sequence[Record]]) -> list[dict[int, Record]]:
    """Returns the records of each task and metric by seed, in order of first appearance."""
    by_key: dict[tuple[str, ...], dict[int, Record]] = {}
    for seed, records in records_by_seed.items():
        for record in records:
            method = record.method if isinstance(record, ScalarMetric) else ""
            key = (record.section, record.task, record.metric, method)
            by_key.setdefault(key, {})[seed] = record
    return list(by_key.values())


def _combine(by_seed: Mapping[int, Scores], seeds: Sequence[int], notes: list[str]) -> _Combined:
    first = next(iter(by_seed.values()))
    for seed, scores in by_seed.items():
        if _frame_of(scores) != _frame_of(first):
            raise DataError(
                f"{first.task}, {first.metric}: seed {seed} has other queries, clusters or another "
                "statistic than the first; give all seeds the same splits"
            )
    title = display_name(first.task)
    _note_missing(f"{title}, {first.metric}", by_seed, seeds, notes)
    columns = {}
    group_sums: dict[str, NDArray[np.float64]] = {}
    methods = dict.fromkeys(chain.from_iterable(scores.by_method for scores in by_seed.values()))
    for method in methods:
        rows = {}
        for seed, scores in by_seed.items():
            if method in scores.by_method:
                rows[seed] = scores.by_method[method]
        if len(rows) < len(by_seed):
            _note_missing(f"{title}, {display_name(method)}", rows, seeds, notes)
        columns[method] = np.stack(list(rows.values())).astype(np.float64)
        seed_sums = []
        for seed in rows:
            if groups := by_seed[seed].candidate_groups:
                seed_sums.append(groups.sums[method])
        if seed_sums:
            group_sums[method] = np.mean(seed_sums, axis=0)
    mean = {}
    for method, values in columns.items():
        mean[method] = np.ma.masked_invalid(values).mean(axis=0).filled(nan)
    clusters = None
    if first.clusters is not None:
        clusters = np.unique(first.clusters, return_inverse=True)[1]
    return _Combined(first, columns, mean, clusters, group_sums or None)


def _frame_of(scores: Scores) -> tuple[Scores, list[str] | None]:
    """Returns what must be the same for all seeds: everything but the numbers."""
    groups = scores.candidate_groups
    names = None if groups is None else groups.names
    return replace(scores, by_method={}, candidate_groups=None), names


def _note_missing(
    title: str, present: Collection[int], seeds: Sequence[int], notes: list[str]
) -> None:
    if len(present) < len(seeds):
        names = f"seed{'s' if len(present) > 1 else ''} {', '.join(map(str, present))}"
        notes.append(f"{title}: measured with {names} only, of {len(seeds)} seeds")


def _numbers(combined: _Combined, config: Config) -> tuple[list[Figure], list[Difference]]:
    """Returns the figure of each method, and the differences without Holm's correction."""
    scores = combined.scores
    pairs = _compared_pairs(scores, list(combined.mean))
    sign = 1.0 if scores.higher_is_better else -1.0
    columns = list(combined.mean.values())
    for method, against in pairs:
        columns.append(sign * (combined.mean[method] - combined.mean[against]))
    intervals = _intervals(columns, combined, _deviations(combined, pairs, sign, config), config)
    counts = (~np.isnan(np.stack(columns))).sum(axis=1).tolist()
    shared: dict[str, Any] = {
        "section": scores.section,
        "task": scores.task,
        "metric": scores.metric,
        "is_simulated": scores.is_simulated,
    }
    figures = []
    for method, interval, n in zip(combined.mean, intervals, counts, strict=False):
        seed_values = [_value(values, scores.statistic) for values in combined.by_seed[method]]
        figure = Figure(
            **shared | interval,
            method=method,
            n=n,
            seed_sd=_sd(seed_values),
            of_record=scores.of_record,
            higher_is_better=scores.higher_is_better,
        )
        figures.append(figure)
    differences = []
    for row, (method, against) in enumerate(pairs, start=len(figures)):
        p = nan
        if scores.of_record:
            p = _p_value(columns[row], combined, method, against, config.evaluate.seed)
        names = shared | intervals[row]
        difference = Difference(
            **names, method=method, against=against, n=counts[row], p=p, p_holm=nan
        )
        differences.append(difference)
    return figures, differences


def _p_value(
    differences: NDArray[np.float64], combined: _Combined, method: str, against: str, seed: int
) -> float:
    """Returns the p of the sign-flip test over queries or over groups, whichever is larger."""
    p = sign_flip_p(differences, combined.clusters, SIGN_FLIP_ROUNDS, seed)
    if combined.group_sums is None:
        return p
    by_group = combined.group_sums[method][0] - combined.group_sums[against][0]
    return max(p, sign_flip_p(by_group, None, SIGN_FLIP_ROUNDS, seed))


def _deviations(
    combined: _Combined, pairs: Sequence[tuple[str, str]], sign: float, config: Config
) -> NDArray[np.float64] | None:
    """Returns what drawing groups of candidates adds to the rounds of all columns: the methods,
    then the pairs; None without groups.
    """
    if combined.group_sums is None:
        return None
    sums = np.stack([combined.group_sums[method] for method in combined.mean])  # (m, 2, A)
    settings = config.evaluate
    draws = bootstrap_ratios(sums[:, 0], sums[:, 1], settings.bootstrap_rounds, settings.seed)
    by_method = dict(zip(combined.mean, draws, strict=True))
    rows = list(draws)
    for method, against in pairs:
        rows.append(sign * (by_method[method] - by_method[against]))
    return np.stack(rows)


def _intervals(
    columns: Sequence[NDArray[np.float64]],
    combined: _Combined,
    deviations: NDArray[np.float64] | None,
    config: Config,
) -> list[dict[str, float]]:
    """Returns the value and the interval of each column, by field; a median has no interval."""
    if combined.scores.statistic == "median":
        rows = [[_value(column, "median"), nan, nan] for column in columns]
    else:
        settings = config.evaluate
        rows = bootstrap_means(
            np.stack(columns, axis=1),
            combined.clusters,
            settings.bootstrap_rounds,
            settings.seed,
            deviations,
        ).tolist()
    return [dict(zip(("value", "low", "high"), row, strict=True)) for row in rows]


def _compared_pairs(scores: Scores, methods: list[str]) -> list[tuple[str, str]]:
    """Returns (method, against), stage one first; medians, without intervals, are not compared.

    Stage one is the one with the text in its vectors where there is one.
    """
    if scores.section not in COMPARED or scores.statistic == "median":
        return []
    stage_one = STAGE_ONE + FUSED if STAGE_ONE + FUSED in methods else STAGE_ONE
    if SERVED in methods:
        stage = SERVED
    elif STAGE_TWO in methods:
        stage = STAGE_TWO
    elif STAGE_ONE in methods:
        stage = stage_one
    else:
        return []
    rivals = [method for method in methods if method not in (stage, STAGE_ONE, STAGE_ONE + FUSED)]
    pairs = [(stage, stage_one)] if stage_one in methods and stage != stage_one else []
    if scores.of_record:
        pairs += [(stage, method) for method in rivals]
    return pairs


def _figure_of_facts(
    by_seed: Mapping[int, ScalarMetric], seeds: Sequence[int], notes: list[str]
) -> Figure:
    """Returns the mean over seeds of a scalar metric; n is the smallest of the seeds'."""
    first = next(iter(by_seed.values()))
    title = f"{display_name(first.task)}, {display_name(first.method)}"
    _note_missing(title, by_seed, seeds, notes)
    values = [fact.value for fact in by_seed.values()]
    return Figure(
        first.section,
        first.task,
        first.metric,
        first.method,
        value=_value(np.array(values), "mean"),
        low=nan,
        high=nan,
        n=min(fact.n for fact in by_seed.values()),
        seed_sd=_sd(values),
        of_record=False,
        higher_is_better=True,
        is_simulated=first.is_simulated,
    )


def _value(values: NDArray[np.float64], statistic: str) -> float:
    finite = values[~np.isnan(values)]
    if not len(finite):
        return nan
    return float(np.median(finite) if statistic == "median" else finite.mean())


def _sd(values: Sequence[float]) -> float:
    """Returns the standard deviation with N - 1; nan for fewer than two values."""
    finite = np.array(values)[~np.isnan(values)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else nan
