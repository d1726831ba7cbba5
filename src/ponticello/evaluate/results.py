"""The records of an evaluation, from the scores of each query to the figures of a report.

measuring    Scores (one per query) and ScalarMetrics  ->  Measurements, one per seed
summarising  Measurements of all seeds  ->  Summary: Figures, Differences, claims
reporting    Summary and files  ->  Evaluation
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

STAGE_ONE, STAGE_TWO = "stage_one", "stage_two"
FUSED = "_fused"  # ends the name of a method with vectors that hold the text too
SERVED = "served"  # both spaces at the default blend, as queries are answered
RANDOM = "random"
SIGNIFICANT = 0.05  # Holm's p below which a difference may be claimed
Section = Literal["semantic", "preference", "integrity", "tradeoff"]
Value = TypeVar("Value")


def pick(values: Sequence[Value] | Mapping[Any, Value], keys: Iterable[Any]) -> list[Value]:
    """Returns the values at these rows or keys, in this order."""
    return [values[key] for key in keys]


@dataclass(frozen=True)
class CandidateGroups:
    """What each of A groups of candidates (an artist's tracks) adds to a metric, over all queries.

    names: of the groups. sums: (2, A) float64 by method. Row 0 is what the group's relevant
    candidates add to the queries' scores, row 1 what they would add in a perfect ranking: their
    totals are the sum of the scores and the number of queries.
    """

    names: list[str]
    sums: dict[str, np.ndarray]


@dataclass(frozen=True)
class Scores:
    """The scores of every method on each query of one task, in one metric.

    task: an identifier such as "next_tracks_cold", or "probe:genres" for a column of labels.
    queries: distinct ids of users, tracks or playlists, or labels. clusters: (n,) names; queries of
    one cluster (an artist's tracks) are resampled together. None = each alone.
    by_method: (n,) float64 each; nan does not count. A method that cannot answer the task is
    absent. of_record: whether this is the task's metric for tests and claims. is_simulated:
    whether the listeners behind the queries are simulated. candidate_groups: of a ranking of
    candidates that are a sample too, such as the tracks that were held out.
    """

    section: Section
    task: str
    metric: str
    queries: list[str]
    clusters: list[str] | None
    by_method: dict[str, np.ndarray]
    of_record: bool = False
    statistic: Literal["mean", "median"] = "mean"  # a median gets no interval
    higher_is_better: bool = True
    is_simulated: bool = False
    candidate_groups: CandidateGroups | None = None


@dataclass(frozen=True)
class ScalarMetric:
    """A number without queries, such as coverage or effective rank. n: rows it is about."""

    section: Section
    task: str
    metric: str
    method: str
    value: float
    n: int
    is_simulated: bool = False


@dataclass
class Measurements:
    """Everything that one seed measured, and notes for the reader."""

    scores: list[Scores] = field(default_factory=list)
    facts: list[ScalarMetric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """One number of the table.

    value, low, high: of each query's mean over seeds, with its 95 % bootstrap interval over
    queries, and over groups of candidates where Scores have them; nan if there is none. n: queries,
    or rows of a ScalarMetric. seed_sd: standard deviation over seeds, nan with one seed.
    """

    section: Section
    task: str
    metric: str
    method: str
    value: float
    low: float
    high: float
    n: int
    seed_sd: float
    of_record: bool
    higher_is_better: bool
    is_simulated: bool = False


@dataclass(frozen=True)
class Difference:
    """`method` minus `against`, paired by query, as `Figure`; above 0 is better.

    p: of a paired sign-flip test over clusters of queries or, if larger, of the same test over
    groups of candidates; p_holm: after Holm's correction over all tested
    differences of the summary; both nan where not tested (only metrics of record are).
    """

    section: Section
    task: str
    metric: str
    method: str
    against: str
    value: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float
    is_simulated: bool = False

    @property
    def is_of_stages(self) -> bool:
        """Whether what is served, or stage two by itself, is compared with stage one."""
        return self.method in (SERVED, STAGE_TWO) and self.against in (STAGE_ONE, STAGE_ONE + FUSED)

    @property
    def is_better(self) -> bool:
        """Whether the corrected test and the interval both show a gain."""
        return self.p_holm < SIGNIFICANT and self.low > 0

    @property
    def is_worse(self) -> bool:
        """Whether the corrected test and the interval both show a loss."""
        return self.p_holm < SIGNIFICANT and self.high < 0


@dataclass(frozen=True)
class EvaluationInfo:
    """The data, split, seeds and command behind the numbers."""

    library: str
    version: str
    preset: str
    runs: dict[str, str]  # method -> run folder or vectors file
    n_tracks: int
    n_listeners: int
    n_events: int
    held_out: str  # a sentence: how tracks and events were held out
    splits_sha256: str
    seeds: tuple[int, ...]
    command: str
    is_simulated: bool


@dataclass(frozen=True)
class Summary:
    """The contents of a report. claims: sentences that intervals and corrected tests allow."""

    about: EvaluationInfo
    figures: list[Figure]
    differences: list[Difference]
    claims: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a library. files: those of the report, the page first."""

    summary: Summary
    files: list[Path]

    @property
    def page(self) -> Path:
        """The report's page, index.html."""
        return self.files[0]
