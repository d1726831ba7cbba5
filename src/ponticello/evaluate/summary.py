"""From what every method got on every query, with every seed, to the figures, differences and
claims of a report.

A query's scores are averaged over the seeds first; intervals and tests are then over queries, so
they tell how far the numbers carry to other queries. How far they carry to other seeds is what
`seed_sd` tells.

Dimensions: n queries, S seeds that have a method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

SIGN_FLIP_ROUNDS = (
    9_999  # of a test with too many clusters to try every flip: the smallest p is 1 / 10,000
)
COMPARED = (
    "semantic",
    "preference",
)  # sections in which methods are better or worse than each other

Record = TypeVar("Record")


@dataclass(frozen=True)
class _Combined:
    """Scores of all seeds. by_seed: method -> (S, n); mean: method -> (n,) over the seeds;
    clusters: (n,) or None.
    """

    scores: Scores
    by_seed: dict[str, NDArray[np.float64]]
    mean: dict[str, NDArray[np.float64]]
    clusters: Ints | None


def summarise(
    evaluations: Sequence[Measurements], about: EvaluationInfo, config: Config
) -> Summary:
    """All figures, differences, claims and notes of `evaluations`, one a seed in the order of
    about.seeds.

    Figures come in the order in which their Scores first appear, then the Facts. Differences, in
    the sections semantic and preference: stage two minus stage one in every metric; in the metric of record also stage two, or
    stage one where there is no stage two, minus every other method. p is that of `sign_flip_p`,
    corrected by `holm` over the whole summary. What only some seeds measured is summarised over
    those, and a note says so. DataError if the evaluations are not one a seed, if two of them asked
    different queries or treat a task differently, or if one holds the same task and metric twice.
    Randomness: config.evaluate.seed, for every interval and test alike.
    """
    if len(evaluations) != len(about.seeds):
        raise DataError(
            f"{len(evaluations)} evaluations for {len(about.seeds)} seeds; give one a seed, in order"
        )
    figures: list[Figure] = []
    differences: list[Difference] = []
    notes = [note for evaluation in evaluations for note in evaluation.notes]
    n_clusters: dict[str, int] = {}
    for found in _by_key([e.scores for e in evaluations], lambda s: (s.section, s.task, s.metric)):
        combined = _combine(found, about.seeds, notes)
        own_figures, own_differences = _numbers(combined, config)
        figures += own_figures
        differences += own_differences
        if combined.scores.of_record:
            n_clusters[combined.scores.task] = _n_clusters(combined)
    for facts in _by_key(
        [e.facts for e in evaluations], lambda f: (f.section, f.task, f.metric, f.method)
    ):
        figures.append(_of_facts(facts, about.seeds, notes))
    p_values = np.array([difference.p for difference in differences], dtype=np.float64)
    n_tested = int((~np.isnan(p_values)).sum())
    if n_tested / (1 + SIGN_FLIP_ROUNDS) >= SIGNIFICANT:
        many = f"{n_tested} tests with {SIGN_FLIP_ROUNDS} sign flips each"
        notes.append(f"{many}: Holm p can stay above {SIGNIFICANT} however large a difference is")
    corrected = holm(p_values).tolist()
    differences = [
        replace(difference, p_holm=p) for difference, p in zip(differences, corrected, strict=True)
    ]
    said = derive_claims(figures, differences, about, n_clusters)
    return Summary(about, figures, differences, said, list(dict.fromkeys(notes)))


def _by_key(
    per_seed: Sequence[Sequence[Record]], name: Callable[[Record], tuple[str, ...]]
) -> list[list[Record | None]]:
    """What belongs together, in order of first appearance: for each seed its record, or None where
    it lacks one.
    """
    tables: list[dict[tuple[str, ...], Record]] = []
    for records in per_seed:
        table: dict[tuple[str, ...], Record] = {}
        for record in records:
            key = name(record)
            if key in table:
                raise DataError(
                    f"{', '.join(key)}: stands twice in one evaluation; measure each once a seed"
                )
            table[key] = record
        tables.append(table)
    keys = dict.fromkeys(key for table in tables for key in table)
    return [[table.get(key) for table in tables] for key in keys]


def _combine(found: Sequence[Scores | None], seeds: Sequence[int], notes: list[str]) -> _Combined:
    present = {
        seed: scores for seed, scores in zip(seeds, found, strict=True) if scores is not None
    }
    first = next(iter(present.values()))
    where = f"{first.task}, {first.metric}"
    for seed, scores in present.items():
        if scores.queries != first.queries:
            raise DataError(
                f"{where}: seed {seed} asked other queries than the first; give all seeds the same splits"
            )
        if replace(scores, by_method={}) != replace(first, by_method={}):
            raise DataError(
                f"{where}: seed {seed} has other clusters or another statistic than the first"
            )
        lengths = {
            len(scores.queries),
            *(len(names) for names in (scores.clusters,) if names is not None),
        }
        if lengths | {len(values) for values in scores.by_method.values()} != {len(scores.queries)}:
            raise ShapeError(
                f"{where}: {len(scores.queries)} queries need as many clusters and scores a method"
            )
    _note_missing(f"{display_name(first.task)}, {first.metric}", list(present), seeds, notes)
    by_seed = {}
    for method in dict.fromkeys(
        method for scores in present.values() for method in scores.by_method
    ):
        own = {
            seed: scores.by_method[method]
            for seed, scores in present.items()
            if method in scores.by_method
        }
        if len(own) < len(present):
            _note_missing(
                f"{display_name(first.task)}, {display_name(method)}", list(own), seeds, notes
            )
        by_seed[method] = np.stack(list(own.values())).astype(np.float64)
    clusters = None if first.clusters is None else np.unique(first.clusters, return_inverse=True)[1]
    return _Combined(
        first, by_seed, {method: _mean(rows) for method, rows in by_seed.items()}, clusters
    )


def _note_missing(what: str, having: Sequence[int], seeds: Sequence[int], notes: list[str]) -> None:
    if len(having) < len(seeds):
        named = f"seed{'s' if len(having) > 1 else ''} {', '.join(map(str, having))}"
        notes.append(f"{what}: measured with {named} only, of {len(seeds)} seeds")


def _numbers(combined: _Combined, config: Config) -> tuple[list[Figure], list[Difference]]:
    """The figure of each method, and the differences `summarise` promises, without Holm's
    correction.
    """
    scores, mean = combined.scores, combined.mean
    is_better = 1.0 if scores.higher_is_better else -1.0
    pairs = _pairs(scores, list(mean))
    changes = [is_better * (mean[method] - mean[against]) for method, against in pairs]
    columns = [*mean.values(), *changes]
    options = {"rounds": config.evaluate.bootstrap_rounds, "seed": config.evaluate.seed}
    if not columns:
        return [], []
    if scores.statistic == "mean":
        intervals = bootstrap_means(
            np.stack(columns, axis=1), combined.clusters, **options
        ).tolist()
    else:
        intervals = [
            [_value(values, "median"), float("nan"), float("nan")] for values in mean.values()
        ]
    where = (scores.section, scores.task, scores.metric)
    known = [int((~np.isnan(column)).sum()) for column in columns]
    figures = []
    for method, interval, n in zip(mean, intervals, known, strict=False):
        sd = _sd([_value(row, scores.statistic) for row in combined.by_seed[method]])
        value, low, high = interval
        figures.append(
            Figure(
                *where,
                method,
                value,
                low,
                high,
                n,
                sd,
                scores.of_record,
                scores.higher_is_better,
                scores.is_simulated,
            )
        )
    differences = []
    for pair, change, interval, n in zip(
        pairs, changes, intervals[len(mean) :], known[len(mean) :], strict=True
    ):
        value, low, high = interval
        p = float("nan")
        if scores.of_record:
            p = sign_flip_p(change, combined.clusters, SIGN_FLIP_ROUNDS, config.evaluate.seed)
        differences.append(
            Difference(*where, *pair, value, low, high, n, p, float("nan"), scores.is_simulated)
        )
    return figures, differences


def _pairs(scores: Scores, methods: list[str]) -> list[tuple[str, str]]:
    """Returns (method, against), the two stages first; a median, which has no interval, is not
    compared.
    """
    own = next((stage for stage in (STAGE_TWO, STAGE_ONE) if stage in methods), None)
    if own is None or scores.section not in COMPARED or scores.statistic == "median":
        return []
    others = sorted(
        (method for method in methods if method != own), key=lambda method: method != STAGE_ONE
    )
    return [(own, other) for other in others if scores.of_record or other == STAGE_ONE]


def _of_facts(
    found: Sequence[ScalarMetric | None], seeds: Sequence[int], notes: list[str]
) -> Figure:
    """The mean over seeds of one Fact; n is the smallest of theirs, and which way is better is not
    known.
    """
    present = {seed: fact for seed, fact in zip(seeds, found, strict=True) if fact is not None}
    first = next(iter(present.values()))
    _note_missing(
        f"{display_name(first.task)}, {display_name(first.method)}", list(present), seeds, notes
    )
    values = [fact.value for fact in present.values()]
    n = min(fact.n for fact in present.values())
    where = (first.section, first.task, first.metric, first.method)
    value, sd = _value(np.array(values, dtype=np.float64), "mean"), _sd(values)
    return Figure(
        *where,
        value,
        float("nan"),
        float("nan"),
        n,
        sd,
        of_record=False,
        higher_is_better=True,
        is_simulated=first.is_simulated,
    )


def _n_clusters(combined: _Combined) -> int:
    """Clusters, or queries that stand alone, in which any method has a value."""
    n = len(combined.scores.queries)
    number = np.arange(n) if combined.clusters is None else combined.clusters
    is_known = [~np.isnan(values) for values in combined.mean.values()]
    return len(np.unique(number[np.any(is_known, axis=0)])) if is_known else 0


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, n) -> (n,): the mean over the seeds that have a value, nan where none has."""
    known = ~np.isnan(rows)
    mean: NDArray[np.float64] = np.full(rows.shape[1], np.nan)
    np.divide(
        np.where(known, rows, 0.0).sum(axis=0), known.sum(axis=0), out=mean, where=known.any(axis=0)
    )
    return mean


def _value(values: NDArray[np.float64], statistic: str) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan")
    return float(np.median(known) if statistic == "median" else known.mean())


def _sd(values: Sequence[float]) -> float:
    """Over seeds, with N - 1; nan for fewer than two."""
    known = [value for value in values if value == value]
    return float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")
