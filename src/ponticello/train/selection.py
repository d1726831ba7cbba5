"""Chooses the weights that are saved after stage two.

Interpolates between the stage-one and stage-two weights (Wortsman et al. 2022) and keeps the point
with the highest preference score on validation among those with semantic metrics at most
`max_semantic_drop` lower. If no gain exceeds one standard error over users, stage one is kept. This
is model selection, not a significance test: the best of several points is taken. `evaluate`
measures the result on listeners and tracks that took no part.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student

from ponticello.config import PreferenceConfig
from ponticello.model.htcl import HTCL
from ponticello.model.interpolate import interpolate_weights


@dataclass(frozen=True)
class ValidationScores:
    """The metrics of one model on the validation data; higher is better.

    semantic: {metric: value} for each kind of vector, "audio" and "fused".
    preference: one value for each kind; empty if there is no user to score.
    by_user: the values (n,) that `preference` averages, for the same users with every model.
    """

    semantic: dict[str, dict[str, float]]
    preference: dict[str, float]
    by_user: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)


Scorer = Callable[[HTCL], ValidationScores]
"""Passed in, since `evaluate` imports this package."""


@dataclass(frozen=True)
class CandidateScores:
    """The validation metrics of one interpolated model with one kind of vector.

    alpha: 0 is stage one, 1 is stage two.
    """

    alpha: float
    vector: str
    semantic: dict[str, float]
    preference: float


@dataclass(frozen=True)
class SelectionResult:
    """The weights and the kind of vector that were chosen, and all candidates."""

    alpha: float
    vector: str
    candidates: list[CandidateScores]
    max_semantic_drop: float
    n_users: int

    @property
    def is_served(self) -> bool:
        """Whether the vectors are others than those of stage one."""
        return (self.alpha, self.vector) != (0, "audio")

    def sentence(self) -> str:
        """Returns the choice and its validation metrics as one sentence."""
        if not self.n_users:
            return "not served: the validation window has no listener to score"
        baseline = self._candidate(0, "audio")
        users = f"{self.n_users:,} validation listener{'s' if self.n_users > 1 else ''}"
        if not self.is_served:
            best = max(candidate.preference for candidate in self.candidates)
            return (
                "not served: no gain in preference within max_semantic_drop exceeds one standard "
                f"error over {users} (stage one {baseline.preference:.3f}, best {best:.3f})"
            )
        kept = self._candidate(self.alpha, self.vector)
        weights = f"{self.alpha:.0%} of the way to stage two" if self.alpha else "stage one"
        sentence = (
            f"kept: {weights}, {self.vector} vectors; preference of {users} "
            f"{baseline.preference:.3f} -> {kept.preference:.3f}"
        )
        drops = {name: baseline.semantic[name] - value for name, value in kept.semantic.items()}
        if not drops:
            return sentence
        name = max(drops, key=lambda metric: drops[metric])
        return f"{sentence}, {name} {baseline.semantic[name]:.3f} -> {kept.semantic[name]:.3f}"

    def _candidate(self, alpha: float, vector: str) -> CandidateScores:
        for candidate in self.candidates:
            if candidate.alpha == alpha and candidate.vector == vector:
                return candidate
        raise KeyError((alpha, vector))


@dataclass(frozen=True)
class EncoderScore:
    """A recipe and its mean NDCG@k over the validation listeners, at the default blend."""

    name: str
    preference: float


@dataclass(frozen=True)
class EncoderSelection:
    """The recipe that was kept.

    is_served: whether it is better than the semantic space alone. semantic, preference: mean NDCG@k
    without it and with it, at the default blend.
    """

    recipe: str
    is_served: bool
    semantic: float
    preference: float
    candidates: list[EncoderScore]
    n_users: int
    is_refitted: bool

    def sentence(self) -> str:
        """Returns the choice and its validation metrics as one sentence."""
        if not self.n_users:
            return "not served: no listener likes a validation track, so no gain can be shown"
        users = f"{self.n_users:,} validation listener{'s' if self.n_users > 1 else ''}"
        change = f"NDCG of {users} on unseen tracks {self.semantic:.3f} -> {self.preference:.3f}"
        if not self.is_served:
            return f"not served: the gain over the semantic space alone may be chance; {change}"
        refitted = (
            ", before it was fitted again on all but the test data" if self.is_refitted else ""
        )
        return f"kept: {self.recipe}; {change}{refitted}"


def select_weights(
    stage_one: HTCL, stage_two: HTCL, scorer: Scorer, settings: PreferenceConfig
) -> tuple[HTCL, SelectionResult]:
    """Returns the selected model and how it was selected; of equal candidates the first.

    Cost: one call of `scorer` for stage one, and one for each alpha.
    """
    # Fresh heads have nothing in common with those of stage one: a mean of both means nothing.
    alphas = (1.0,) if settings.reset_heads else settings.interpolation_alphas
    baseline = scorer(stage_one)
    candidates = []
    best = None
    for alpha in (0.0, *alphas):  # one interpolated model in memory at a time
        scores = baseline
        if alpha > 0:
            scores = scorer(_model_at(stage_one, stage_two, alpha))
        for vector, preference in scores.preference.items():
            semantic = scores.semantic[vector]
            candidate = CandidateScores(alpha, vector, semantic, preference)
            candidates.append(candidate)
            if not _keeps_semantics(
                semantic, baseline.semantic["audio"], settings.max_semantic_drop
            ):
                continue
            if not is_significant_gain(
                scores.by_user[vector], baseline.by_user["audio"], settings.gain_confidence
            ):
                continue
            if best is None or preference > best.preference:
                best = candidate
    result = SelectionResult(
        alpha=0.0 if best is None else best.alpha,
        vector="audio" if best is None else best.vector,
        candidates=candidates,
        max_semantic_drop=settings.max_semantic_drop,
        n_users=len(baseline.by_user.get("audio", ())),
    )
    if result.alpha == 0:
        return stage_one, result
    return _model_at(stage_one, stage_two, result.alpha), result


def _model_at(stage_one: HTCL, stage_two: HTCL, alpha: float) -> HTCL:
    return stage_two if alpha == 1 else interpolate_weights(stage_one, stage_two, alpha)


def _keeps_semantics(
    semantic: dict[str, float], baseline: dict[str, float], max_drop: float
) -> bool:
    return all(value >= baseline[name] - max_drop for name, value in semantic.items())


def is_significant_gain(scores: np.ndarray, baseline: np.ndarray, confidence: float) -> bool:
    """Returns whether the mean of scores - baseline is above 0 with one-sided `confidence`.

    scores, baseline: (n,), row i of the same user; rows with a nan are left out. False for fewer
    than two rows.
    Source: Student 1908, the paired t test.
    """
    gains = scores - baseline
    gains = gains[~np.isnan(gains)]
    if len(gains) < 2:
        return False
    standard_error = gains.std(ddof=1) / np.sqrt(len(gains))
    return bool(gains.mean() > student.ppf(confidence, len(gains) - 1) * standard_error)
