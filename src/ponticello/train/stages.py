"""What differs between the two stages: the loss, and which parts of the model learn. All else is
one trainer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ponticello.config import Config, StageConfig
from ponticello.model.htcl import HTCL, SCALES
from ponticello.train.losses import PreferenceLoss, SemanticLoss, TasteAffinity

StageName = Literal["semantic", "preference"]


@dataclass(frozen=True)
class Stage:
    """One stage of HTCL. tracks_per_row: 1 = tracks, 2 = pairs. idle: parts the loss does not
    reach.
    """

    name: StageName
    settings: StageConfig
    loss: SemanticLoss | PreferenceLoss
    tracks_per_row: int
    idle: tuple[str, ...] = ()

    def freeze_idle(self, model: HTCL) -> None:
        """Marks what this stage does not train, so that DDP and the optimiser leave it alone."""
        idle = (*self.idle, *(() if model.settings.text.trainable else ("text_encoder.",)))
        for name, parameter in model.named_parameters():
            # BERT's pooler has no part in a mean over tokens.
            unused = model.settings.text.pooling == "mean" and name.startswith(
                "text_encoder.pooler."
            )
            parameter.requires_grad_(not (unused or name.startswith(idle)))


def semantic_stage(config: Config) -> Stage:
    """Stage one: audio meets its text."""
    # A frozen front end is left as it is: its texts come to meet it, and only listening may move
    # it.
    anchored = () if config.front_end == "logmel" else ("audio_head.",)
    idle = (
        "fusion_head.",
        *anchored,
        *(f"logit_scales.{name}" for name in SCALES if name != "audio_text"),
    )
    return Stage("semantic", config.semantic, SemanticLoss(), tracks_per_row=1, idle=idle)


def preference_stage(config: Config, affinity: TasteAffinity | None = None) -> Stage:
    """Stage two: pairs that listeners confirmed bend the space toward taste. affinity: how clearly
    tracks match.
    """
    settings = config.preference
    weights = {name: getattr(settings, f"{name}_loss_weight") for name in SCALES}
    weights["distillation"] = settings.distillation_weight
    idle = [f"logit_scales.{name}" for name in SCALES if not weights[name]]
    if not settings.audio_fusion_loss_weight:
        idle.append("fusion_head.")
    # Beside a frozen front end taste has coordinates of its own: what texts meet stays as it is,
    # unread by the fusion.
    if config.front_end != "logmel" and not (
        settings.reset_heads and settings.audio_text_loss_weight
    ):
        idle.append("text_head.")
    if not (settings.audio_text_loss_weight or settings.audio_fusion_loss_weight):
        idle += ["text_head.", "text_encoder."]
    loss = PreferenceLoss(weights=weights, affinity=affinity)
    return Stage("preference", settings, loss, tracks_per_row=2, idle=tuple(idle))


LearningRate = Callable[[str], float]


def learning_rate(settings: StageConfig) -> LearningRate:
    """The rate of a parameter by its name. Source: paper, one rate a tower and one for heads and
    scales.
    """

    def rate(name: str) -> float:
        if name.startswith("audio_encoder."):
            return settings.audio_lr
        return settings.text_lr if name.startswith("text_encoder.") else settings.heads_lr

    return rate


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices and kernels, not to norms, biases, scales or the
    CLS token.
    """
    is_scale = name.endswith(
        "parametrizations.weight.original0"
    )  # the length of a weight-normalised kernel
    return parameter.ndim >= 2 and not is_scale and not name.endswith("cls_token")
