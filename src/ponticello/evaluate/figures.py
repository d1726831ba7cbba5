"""The numbers of an evaluation, each with its interval, and the paired differences between the stages."""

from dataclasses import dataclass, field

import numpy as np

from ponticello.config import Config
from ponticello.evaluate.metrics import bootstrap_mean, paired_difference

STAGE_ONE, STAGE_TWO = "stage one", "stage two"


@dataclass(frozen=True)
class Figure:
    """One number of the table with its 95 % bootstrap interval; n = queries, listeners or labels it is a mean over."""

    side: str  # meaning | taste
    task: str
    metric: str
    method: str
    value: float
    low: float
    high: float
    n: int


@dataclass
class Evaluation:
    """All figures, the paired differences stage two minus stage one, and what a reader must know beside them."""

    figures: list[Figure] = field(default_factory=list)
    differences: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def add_figures(
    evaluation: Evaluation,
    where: tuple[str, str, str],
    per_query: dict[str, np.ndarray],
    clusters: np.ndarray | None,
    config: Config,
) -> None:
    """One figure a method, and the paired difference of the two stages where both were measured."""
    options = {"rounds": config.evaluate.bootstrap_rounds, "seed": config.evaluate.seed}
    for method, values in per_query.items():
        n = int(np.isfinite(values).sum())
        evaluation.figures.append(Figure(*where, method, *bootstrap_mean(values, clusters, **options), n))
    if {STAGE_ONE, STAGE_TWO} <= per_query.keys():
        one, two = per_query[STAGE_ONE], per_query[STAGE_TWO]
        n = int((np.isfinite(one) & np.isfinite(two)).sum())
        change = paired_difference(two, one, clusters, **options)
        evaluation.differences.append(Figure(*where, "stage two - stage one", *change, n))
