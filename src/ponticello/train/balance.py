"""How far stage two may go: between stage one's weights and its own, as validation decides.

Taste is gained along that way, and meaning may be lost. Kept is what listeners' held-out tracks like best among the
positions that lose no meaning figure more than the budget; that can be stage one itself, which is then never worse.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ponticello.model.htcl import HTCL
from ponticello.model.mixing import mix

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Judged:
    """What a model is worth on validation: figures of meaning and of taste by name, higher is better.

    taste: one figure for each kind of vector that could be served, "audio" and "fused"; empty if nothing can be asked.
    """

    meaning: dict[str, float]
    taste: dict[str, float]


Judge = Callable[[HTCL], Judged]
"""Passed in: metrics live in `evaluate`."""


@dataclass(frozen=True)
class Balance:
    """What was chosen, and what it was chosen from.

    alpha: 0 = stage one .. 1 = stage two as trained. vector: the kind of vector that serves taste. judged: by position.
    """

    alpha: float
    vector: str
    judged: dict[str, Judged]
    budget: float

    def sentence(self) -> str:
        """What is served, and what it cost and brought on validation."""
        first, kept = self.judged[f"{POSITIONS[0]:g}"], self.judged[f"{self.alpha:g}"]
        if not kept.taste:
            return "kept as trained: no listener of the validation window can be asked"
        start, end = first.taste["audio"], kept.taste[self.vector]
        lost = {name: first.meaning[name] - value for name, value in kept.meaning.items()}
        most = max(lost, key=lambda name: lost[name], default="")
        meaning = f", {most} {first.meaning[most]:.3f} -> {kept.meaning[most]:.3f}" if most else ""
        what = "stage one itself, which stage two did not beat" if self.alpha == 0 else f"{self.alpha:.0%} of the way"
        return f"kept: {what}, {self.vector} vectors; on validation taste {start:.3f} -> {end:.3f}{meaning}"


def choose_balance(start: HTCL, end: HTCL, judge: Judge, budget: float) -> tuple[HTCL, Balance]:
    """The model that is kept, and why. Cost: `judge` at each of `POSITIONS`.

    budget: the most that a figure of meaning may be below stage one's. Of equal taste, the position closer to stage one
    and the audio vector are kept. Where taste cannot be judged, the model stays as it was trained.

    Source: the way between two models' weights, Wortsman et al. 2022.
    """
    models = {alpha: mix(start, end, alpha) if 0 < alpha < 1 else (end if alpha else start) for alpha in POSITIONS}
    judged = {alpha: judge(model) for alpha, model in models.items()}
    named = {f"{alpha:g}": found for alpha, found in judged.items()}
    if not judged[0.0].taste:
        return end, Balance(1.0, "audio", named, budget)
    allowed = [
        alpha
        for alpha, found in judged.items()
        if all(value >= judged[0.0].meaning[name] - budget for name, value in found.meaning.items())
    ]
    options = [(alpha, vector) for alpha in allowed for vector in judged[alpha].taste]
    alpha, vector = max(options, key=lambda option: judged[option[0]].taste[option[1]])
    return models[alpha], Balance(alpha, vector, named, budget)
