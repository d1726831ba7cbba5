"""Summarises the measurements of all seeds: means, intervals, differences, tests and claims.

A query's scores are averaged over the seeds first. Intervals and tests are over queries, so they
show how far the numbers carry to other queries; `seed_sd` shows how they vary with the seed.

Dimensions: n queries, S seeds that measured a method.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ponticello.config import Config
from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.claims import derive_claims
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import (
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
from ponticello.metrics.bootstrap import bootstrap_means, holm, sign_flip_p
from ponticello.metrics.ranking import Ints

SIGN_FLIP_ROUNDS = 9_999  # if there are too many clusters to try every flip; smallest p: 1 / 10,000
COMPARED = ("semantic", "preference")  # sections in which methods are compared

Record = TypeVar("Record")
Key = tuple[str, ...]


@dataclass(frozen=True)
class _Combined:
    """The scores of all seeds. by_seed: (S, n) by method; mean: (n,) over seeds, by method.

    scores: those of the first seed, for what does not depend on the seed. clusters: (n,) or None.
    """

    scores: Scores
    by_seed: dict[str, NDArray[np.float64]]
    mean: dict[str, NDArray[np.float64]]
    clusters: Ints | None

    @property
    def n_clusters(self) -> int:
        """The number of clusters (or queries without one) in which any method has a value."""
        if not self.mean:
            return 0
        n = len(self.scores.queries)
        numbers = np.arange(n) if self.clusters is None else self.clusters
        has_value = ~np.isnan(np.stack(list(self.mean.values()))).all(axis=0)
        return len(np.unique(numbers[has_value]))


def summarise(measured: Sequence[Measurements], about: EvaluationInfo, config: Config) -> Summary:
    """Returns the figures, differences, claims and notes of all seeds.

    measured: one per seed, in the order of about.seeds. Figures are in the order in which their
    Scores first appear, then the ScalarMetrics. Differences, in the sections semantic and
    preference: stage two minus stage one in every metric; in the metric of record also stage two,
    or stage one if there is no stage two, minus every other method. p is that of `sign_flip_p`,
    corrected by `holm` over the whole summary. Tasks and methods that only some seeds measured are
    summarised over those, with a note. DataError if there is not one per seed, if seeds have other
    queries or treat a task differently, or if one holds the same task and metric twice.
    Randomness: config.evaluate.seed, for every interval and test.
    """
    if len(measured) != len(about.seeds):
        raise DataError(
            f"{len(measured)} evaluations for {len(about.seeds)} seeds; give one a seed, in order"
        )
    figures: list[Figure] = []
    differences: list[Difference] = []
    notes: list[str] = []
    scores_by_seed = []
    facts_by_seed = []
    for measurements in measured:
        notes += measurements.notes
        scores_by_seed.append(measurements.scores)
        facts_by_seed.append(measurements.facts)
    n_clusters: dict[str, int] = {}
    for scores in _by_key(scores_by_seed, _scores_key):
        combined = _combine(scores, about.seeds, notes)
        if not combined.mean:
            continue
        task_figures, task_differences = _numbers(combined, config)
        figures += task_figures
        differences += task_differences
        if combined.scores.of_record:
            n_clusters[combined.scores.task] = combined.n_clusters
    for facts in _by_key(facts_by_seed, _fact_key):
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


def _scores_key(scores: Scores) -> Key:
    return scores.section, scores.task, scores.metric


def _fact_key(fact: ScalarMetric) -> Key:
    return fact.section, fact.task, fact.metric, fact.method


def _by_key(
    per_seed: Sequence[Sequence[Record]], key_of: Callable[[Record], Key]
) -> list[list[Record | None]]:
    """Returns each key's records, one per seed or None, in order of first appearance."""
    tables: list[dict[Key, Record]] = []
    for records in per_seed:
        table: dict[Key, Record] = {}
        for record in records:
            key = key_of(record)
            if key in table:
                raise DataError(
                    f"{', '.join(key)}: stands twice in one evaluation; measure each once a seed"
                )
            table[key] = record
        tables.append(table)
    rows = []
    for key in dict.fromkeys(chain.from_iterable(tables)):
        rows.append([table.get(key) for table in tables])
    return rows


def _combine(
    per_seed: Sequence[Scores | None], seeds: Sequence[int], notes: list[str]
) -> _Combined:
    present = _present(per_seed, seeds)
    first = next(iter(present.values()))
    name = f"{first.task}, {first.metric}"
    for seed, scores in present.items():
        _check_same_task(name, seed, scores, first)
    title = display_name(first.task)
    _note_missing(f"{title}, {first.metric}", list(present), seeds, notes)
    methods: list[str] = []
    for scores in present.values():
        methods += scores.by_method
    by_seed = {}
    mean = {}
    for method in dict.fromkeys(methods):
        rows = {}
        for seed, scores in present.items():
            if method in scores.by_method:
                rows[seed] = scores.by_method[method]
        if len(rows) < len(present):
            _note_missing(f"{title}, {display_name(method)}", list(rows), seeds, notes)
        by_seed[method] = np.stack(list(rows.values())).astype(np.float64)
        mean[method] = _mean(by_seed[method])
    clusters = None
    if first.clusters is not None:
        clusters = np.unique(first.clusters, return_inverse=True)[1]
    return _Combined(first, by_seed, mean, clusters)


def _present(per_seed: Sequence[Record | None], seeds: Sequence[int]) -> dict[int, Record]:
    present = {}
    for seed, record in zip(seeds, per_seed, strict=True):
        if record is not None:
            present[seed] = record
    return present


def _check_same_task(name: str, seed: int, scores: Scores, first: Scores) -> None:
    """Raises DataError or ShapeError unless a seed measured the same task as the first one."""
    if scores.queries != first.queries:
        raise DataError(
            f"{name}: seed {seed} asked other queries than the first; "
            "give all seeds the same splits"
        )
    if replace(scores, by_method={}) != replace(first, by_method={}):
        raise DataError(
            f"{name}: seed {seed} has other clusters or another statistic than the first"
        )
    n = len(scores.queries)
    lengths = set(map(len, scores.by_method.values()))
    if scores.clusters is not None:
        lengths.add(len(scores.clusters))
    if lengths - {n}:
        raise ShapeError(f"{name}: {n} queries need as many clusters and scores a method")


def _note_missing(what: str, having: Sequence[int], seeds: Sequence[int], notes: list[str]) -> None:
    if len(having) < len(seeds):
        names = f"seed{'s' if len(having) > 1 else ''} {', '.join(map(str, having))}"
        notes.append(f"{what}: measured with {names} only, of {len(seeds)} seeds")


def _numbers(combined: _Combined, config: Config) -> tuple[list[Figure], list[Difference]]:
    """Returns the figure of each method, and the differences without Holm's correction."""
    scores = combined.scores
    pairs = _compared_pairs(scores, list(combined.mean))
    sign = 1.0 if scores.higher_is_better else -1.0
    columns = list(combined.mean.values())
    for method, against in pairs:
        columns.append(sign * (combined.mean[method] - combined.mean[against]))
    intervals = _intervals(columns, combined, config)
    counts = (~np.isnan(np.stack(columns))).sum(axis=1).tolist()
    figures = []
    for row, method in enumerate(combined.mean):
        seed_values = [_value(values, scores.statistic) for values in combined.by_seed[method]]
        value, low, high = intervals[row]
        figures.append(
            Figure(
                scores.section,
                scores.task,
                scores.metric,
                method,
                value,
                low,
                high,
                n=counts[row],
                seed_sd=_sd(seed_values),
                of_record=scores.of_record,
                higher_is_better=scores.higher_is_better,
                is_simulated=scores.is_simulated,
            )
        )
    differences = []
    for row, (method, against) in enumerate(pairs, start=len(figures)):
        p = float("nan")
        if scores.of_record:
            seed = config.evaluate.seed
            p = sign_flip_p(columns[row], combined.clusters, SIGN_FLIP_ROUNDS, seed)
        value, low, high = intervals[row]
        differences.append(
            Difference(
                scores.section,
                scores.task,
                scores.metric,
                method,
                against,
                value,
                low,
                high,
                n=counts[row],
                p=p,
                p_holm=float("nan"),
                is_simulated=scores.is_simulated,
            )
        )
    return figures, differences


def _intervals(
    columns: Sequence[NDArray[np.float64]], combined: _Combined, config: Config
) -> list[tuple[float, float, float]]:
    """Returns the value and interval of each column; a median has no interval."""
    if combined.scores.statistic == "median":
        medians = []
        for column in columns:
            medians.append((_value(column, "median"), float("nan"), float("nan")))
        return medians
    means = bootstrap_means(
        np.stack(columns, axis=1),
        combined.clusters,
        rounds=config.evaluate.bootstrap_rounds,
        seed=config.evaluate.seed,
    )
    return [(mean, low, high) for mean, low, high in means.tolist()]


def _compared_pairs(scores: Scores, methods: list[str]) -> list[tuple[str, str]]:
    """Returns (method, against), stage one first; medians, without intervals, are not compared."""
    if scores.section not in COMPARED or scores.statistic == "median":
        return []
    if STAGE_TWO in methods:
        stage = STAGE_TWO
    elif STAGE_ONE in methods:
        stage = STAGE_ONE
    else:
        return []
    pairs = []
    for method in sorted(methods, key=lambda method: method != STAGE_ONE):
        if method != stage and (scores.of_record or method == STAGE_ONE):
            pairs.append((stage, method))
    return pairs


def _figure_of_facts(
    per_seed: Sequence[ScalarMetric | None], seeds: Sequence[int], notes: list[str]
) -> Figure:
    """Returns the mean over seeds of a scalar metric; n is the smallest of the seeds'."""
    present = _present(per_seed, seeds)
    first = next(iter(present.values()))
    title = f"{display_name(first.task)}, {display_name(first.method)}"
    _note_missing(title, list(present), seeds, notes)
    values = [fact.value for fact in present.values()]
    return Figure(
        first.section,
        first.task,
        first.metric,
        first.method,
        value=_value(np.array(values, dtype=np.float64), "mean"),
        low=float("nan"),
        high=float("nan"),
        n=min(fact.n for fact in present.values()),
        seed_sd=_sd(values),
        of_record=False,
        higher_is_better=True,
        is_simulated=first.is_simulated,
    )


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (n,) of (S, n): the mean over the seeds with a value, nan without any."""
    has_value = ~np.isnan(rows)
    totals = np.where(has_value, rows, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.full(rows.shape[1], np.nan)
    np.divide(totals, has_value.sum(axis=0), out=mean, where=has_value.any(axis=0))
    return mean


def _value(values: NDArray[np.float64], statistic: str) -> float:
    finite = values[~np.isnan(values)]
    if not len(finite):
        return float("nan")
    return float(np.median(finite) if statistic == "median" else finite.mean())


def _sd(values: Sequence[float]) -> float:
    """Returns the standard deviation with N - 1; nan for fewer than two values."""
    finite = [value for value in values if not math.isnan(value)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else float("nan")
