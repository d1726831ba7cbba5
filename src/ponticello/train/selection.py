"""How far stage two may go: between stage one's weights and its own, as validation decides.

Taste is gained along that way, and meaning may be lost. Kept is what held-out listening likes best
among the positions that lose no meaning figure more than the budget. Few listeners say little: a
gain has to stand out from their scatter by a standard error, or stage one itself stays. That is a
rule of thumb and no proof: several positions are looked at, and the best of them is taken. Proof is
asked of `evaluate`, on listeners and tracks that took no part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student

from ponticello.model.htcl import HTCL
from ponticello.model.interpolate import interpolate_weights

POSITIONS = (0.25, 0.5, 0.75, 1.0)
TRAINED, STAGE_ONE = "trained", "stage one"
SURE = (
    0.84  # one-sided confidence of a single gain of taste, about one standard error; docs/ladder.md
)


@dataclass(frozen=True)
class ValidationScores:
    """What a model is worth on validation: figures of meaning and of taste by name, higher is
    better.

    meaning: {figure: value} for each kind of vector that could be served, "audio" and "fused".
    taste: one figure for each kind; empty if nothing can be asked.
    by_listener: what the figures of taste are means of, (n,) each, the same listeners for every
    model.
    """

    meaning: dict[str, dict[str, float]]
    taste: dict[str, float]
    by_listener: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)


Scorer = Callable[[HTCL], ValidationScores]
"""Passed in: metrics live in `evaluate`."""


@dataclass(frozen=True)
class SelectionResult:
    """What was chosen, and what it was chosen from.

    end: the stage two that was gone towards, "trained", or "begun" as it was before its first step.
    alpha: how far, 0 = stage one. vector: the kind that serves taste. judged: by position, such as
    "begun 0.5", and by kind of vector, {figure: value}; taste is the figure "taste". n_listeners:
    asked for taste.
    """

    end: str
    alpha: float
    vector: str
    judged: dict[str, dict[str, dict[str, float]]]
    budget: float
    n_listeners: int

    def sentence(self) -> str:
        """What is served, and what it cost and brought on validation."""
        if not self.n_listeners:
            return "kept: stage one itself, audio vectors; no listener of the validation window can be asked"
        first = self.judged[STAGE_ONE]["audio"]
        asked = f"{self.n_listeners:,} validation listener{'s' if self.n_listeners > 1 else ''}"
        if self.alpha == 0:
            best = max(
                figures["taste"] for found in self.judged.values() for figures in found.values()
            )
            return (
                f"kept: stage one itself, {self.vector} vectors; no gain of taste within the budget of meaning stands "
                f"out among {asked} (stage one {first['taste']:.3f}, best {best:.3f})"
            )
        kept = self.judged[_position(self.end, self.alpha)][self.vector]
        lost = {name: first[name] - value for name, value in kept.items() if name != "taste"}
        most = max(lost, key=lambda name: lost[name], default="")
        meaning = f", {most} {first[most]:.3f} -> {kept[most]:.3f}" if most else ""
        what = "stage two" if self.end == TRAINED else "stage two before its first step"
        way = f"{self.alpha:.0%} of the way to {what}, {self.vector} vectors"
        return f"kept: {way}; taste of {asked} {first['taste']:.3f} -> {kept['taste']:.3f}{meaning}"


def select_weights(
    start: HTCL, ends: Mapping[str, HTCL], judge: Scorer, budget: float
) -> tuple[HTCL, SelectionResult]:
    """The model that is kept, and why. Cost: `judge` at each of `POSITIONS` towards each end, and
    at stage one.

    ends: stage two as "trained", and as "begun" where that is not stage one itself. budget: the
    most that a figure of meaning may be below stage one's. Of those within it whose taste
    `is_significant_gain` from stage one's, the one with the highest taste is kept; of equal ones
    the first. If there is none, stage one stays.

    Source: the way between two models' weights, Wortsman et al. 2022.
    """

    def model_at(end: str, alpha: float) -> HTCL:
        return (
            start
            if alpha == 0
            else ends[end]
            if alpha == 1
            else interpolate_weights(start, ends[end], alpha)
        )

    places = [(TRAINED, 0.0), *((end, alpha) for end in ends for alpha in POSITIONS)]
    judged = {
        place: judge(model_at(*place)) for place in places
    }  # one model more in memory at a time
    own = judged[TRAINED, 0.0]
    options = [
        (place, vector)
        for place, found in judged.items()
        for vector in found.taste
        if all(
            value >= own.meaning["audio"][name] - budget
            for name, value in found.meaning[vector].items()
        )
        and is_significant_gain(found.by_listener[vector], own.by_listener["audio"])
    ]
    place, vector = max(
        options, key=lambda one: judged[one[0]].taste[one[1]], default=((TRAINED, 0.0), "audio")
    )
    named = {
        _position(*where): {
            kind: {**found.meaning[kind], "taste": found.taste[kind]} for kind in found.taste
        }
        for where, found in judged.items()
    }
    n_listeners = len(own.by_listener.get("audio", ()))
    return model_at(*place), SelectionResult(*place, vector, named, budget, n_listeners)


def _position(end: str, alpha: float) -> str:
    return STAGE_ONE if alpha == 0 else f"{end} {alpha:g}"


def is_significant_gain(own: np.ndarray, other: np.ndarray) -> bool:
    """Whether the mean of own - other is above zero with `SURE` one-sided confidence; never for
    fewer than two.

    own, other: (n,), row i of both the same listener's; pairs where either is nan are left out.
    Source: Student 1908, the paired t test.
    """
    gaps = (own - other)[~np.isnan(own - other)]
    if len(gaps) < 2:
        return False
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    return bool(gaps.mean() > student.ppf(SURE, len(gaps) - 1) * error)
