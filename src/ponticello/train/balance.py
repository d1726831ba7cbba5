"""How far stage two may go: between stage one's weights and its own, as validation decides.

Taste is gained along that way, and meaning may be lost. Kept is what held-out listening likes best among the positions
that lose no meaning figure more than the budget. Few listeners say little: what cannot be told from chance counts as no
gain, and then stage one itself stays, which is the vector nothing has to be proved for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student

from ponticello.model.htcl import HTCL
from ponticello.model.mixing import mix

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SURE = 0.84  # of a gain of taste being above zero, one-sided: about one standard error; docs/ladder.md


@dataclass(frozen=True)
class Judged:
    """What a model is worth on validation: figures of meaning and of taste by name, higher is better.

    taste: one figure for each kind of vector that could be served, "audio" and "fused"; empty if nothing can be asked.
    by_listener: what the figures of taste are means of, (n,) each, the same listeners for every model.
    """

    meaning: dict[str, float]
    taste: dict[str, float]
    by_listener: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)


Judge = Callable[[HTCL], Judged]
"""Passed in: metrics live in `evaluate`."""


@dataclass(frozen=True)
class Balance:
    """What was chosen, and what it was chosen from.

    alpha: 0 = stage one .. 1 = stage two as trained. vector: the kind of vector that serves taste.
    judged: {"meaning" or "taste": {figure: value}} by position. n_listeners: asked for taste.
    """

    alpha: float
    vector: str
    judged: dict[str, dict[str, dict[str, float]]]
    budget: float
    n_listeners: int

    def sentence(self) -> str:
        """What is served, and what it cost and brought on validation."""
        if not self.n_listeners:
            return "kept: stage one itself, audio vectors; no listener of the validation window can be asked"
        first, kept = self.judged[f"{POSITIONS[0]:g}"], self.judged[f"{self.alpha:g}"]
        asked = f"{self.n_listeners:,} validation listener{'s' if self.n_listeners > 1 else ''}"
        if self.alpha == 0:
            best = max(value for found in self.judged.values() for value in found["taste"].values())
            return (
                f"kept: stage one itself, {self.vector} vectors; no gain of taste within the budget of meaning is sure "
                f"from {asked} (stage one {first['taste']['audio']:.3f}, best {best:.3f})"
            )
        start, end = first["taste"]["audio"], kept["taste"][self.vector]
        lost = {name: first["meaning"][name] - value for name, value in kept["meaning"].items()}
        most = max(lost, key=lambda name: lost[name], default="")
        meaning = f", {most} {first['meaning'][most]:.3f} -> {kept['meaning'][most]:.3f}" if most else ""
        taste = f"taste of {asked} {start:.3f} -> {end:.3f}"
        return f"kept: {self.alpha:.0%} of the way, {self.vector} vectors; {taste}{meaning}"


def choose_balance(start: HTCL, end: HTCL, judge: Judge, budget: float) -> tuple[HTCL, Balance]:
    """The model that is kept, and why. Cost: `judge` at each of `POSITIONS`.

    budget: the most that a figure of meaning may be below stage one's. Of those within it whose taste is surely above
    stage one's (`surely_better`), the one with the highest taste is kept; of equal ones the closer to stage one, and
    the audio vector. If there is none, stage one stays.

    Source: the way between two models' weights, Wortsman et al. 2022.
    """
    models = {alpha: mix(start, end, alpha) if 0 < alpha < 1 else (end if alpha else start) for alpha in POSITIONS}
    judged = {alpha: judge(model) for alpha, model in models.items()}
    own, n_listeners = judged[0.0], len(judged[0.0].by_listener.get("audio", ()))
    options = [
        (alpha, vector)
        for alpha, found in judged.items()
        if all(value >= own.meaning[name] - budget for name, value in found.meaning.items())
        for vector in found.taste
        if surely_better(found.by_listener[vector], own.by_listener["audio"])
    ]
    alpha, vector = max(options, key=lambda one: judged[one[0]].taste[one[1]], default=(0.0, "audio"))
    named = {f"{alpha:g}": {"meaning": found.meaning, "taste": found.taste} for alpha, found in judged.items()}
    return models[alpha], Balance(alpha, vector, named, budget, n_listeners)


def surely_better(own: np.ndarray, other: np.ndarray) -> bool:
    """Whether the mean of own - other is above zero with `SURE` one-sided confidence; never for fewer than two.

    own, other: (n,), row i of both the same listener's; pairs where either is nan are left out.
    Source: Student 1908, the paired t test.
    """
    gaps = (own - other)[~np.isnan(own - other)]
    if len(gaps) < 2:
        return False
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    return bool(gaps.mean() > student.ppf(SURE, len(gaps) - 1) * error)
