"""What differs between the two stages: the loss, and which weights are trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ponticello.config import Config, StageConfig
from ponticello.model.htcl import HTCL, SCALES
from ponticello.train.losses import PreferenceLoss, SemanticLoss

StageName = Literal["semantic", "preference"]


@dataclass(frozen=True)
class Stage:
    """One stage of HTCL.

    tracks_per_row: 1 = tracks, 2 = pairs. idle: prefixes of the weights that are not trained.
    """

    name: StageName
    settings: StageConfig
    loss: SemanticLoss | PreferenceLoss
    tracks_per_row: int
    idle: tuple[str, ...] = ()

    def freeze_idle(self, model: HTCL) -> None:
        """Freezes the weights that this stage does not train; DDP and the optimiser skip them."""
        idle = list(self.idle)
        if not model.settings.text.trainable:
            idle.append("text_encoder.")
        if model.settings.text.pooling == "mean":
            idle.append("text_encoder.pooler.")  # BERT's pooler is not part of a mean
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(tuple(idle)))


def semantic_stage(config: Config) -> Stage:
    """Returns stage one: audio against its text."""
    idle = ["fusion_head."]
    if config.front_end != "logmel":
        idle.append("audio_head.")  # texts are trained to meet the frozen features
    idle += [f"logit_scales.{name}" for name in SCALES if name != "audio_text"]
    return Stage("semantic", config.semantic, SemanticLoss(), tracks_per_row=1, idle=tuple(idle))


def preference_stage(config: Config) -> Stage:
    """Returns stage two over log-mels: pairs mined from listening."""
    settings = config.preference
    weights = {name: getattr(settings, f"{name}_loss_weight") for name in SCALES}
    idle = [f"logit_scales.{name}" for name in SCALES if not weights[name]]
    if not settings.audio_fusion_loss_weight:
        idle.append("fusion_head.")
    if not (settings.audio_text_loss_weight or settings.audio_fusion_loss_weight):
        idle += ["text_head.", "text_encoder."]
    weights["distillation"] = settings.distillation_weight
    loss = PreferenceLoss(weights=weights)
    return Stage("preference", settings, loss, tracks_per_row=2, idle=tuple(idle))


def learning_rate(settings: StageConfig) -> Callable[[str], float]:
    """Returns a function from a parameter's name to its learning rate.

    Source: paper, one rate for each tower and one for heads and scales.
    """

    def rate(name: str) -> float:
        if name.startswith("audio_encoder."):
            return settings.audio_lr
        if name.startswith("text_encoder."):
            return settings.text_lr
        return settings.heads_lr

    return rate


def decays(name: str, parameter: Tensor) -> bool:
    """Returns whether weight decay applies: to matrices and kernels only."""
    is_kernel_length = name.endswith("parametrizations.weight.original0")  # of weight_norm
    is_matrix = parameter.ndim >= 2
    return is_matrix and not is_kernel_length and not name.endswith("cls_token")
