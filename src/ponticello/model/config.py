"""What a model folder's config.json holds."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.features.musicnn_frontend import FRAME_SIZE
from ponticello.model.saving import saved_config

MODEL_SECTIONS = (
    "front_end",
    "features",
    "mel",
    "audio",
    "text",
    "heads",
)  # settings that say what a model is


class HTCLConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """All that is needed to rebuild an `HTCL`: our `Config` as a dict, and the text encoder's own
    configuration.

    vector: what stands for a track that has a text, "audio" alone or "fused" with it, as validation
    chose.
    frame_size: numbers a frame of the frozen front end; None = as many as MusiCNN's, 0 where there
    is none.
    front_end_weights: the weights its frames were made with (`FeatureStore.weights`), "" where the
    key alone says it.
    """

    model_type = "htcl"

    def __init__(
        self,
        settings: dict[str, Any] | None = None,
        text_config: dict[str, Any] | None = None,
        vector: str = "audio",
        frame_size: int | None = None,
        front_end_weights: str = "",
        **options: Any,
    ) -> None:
        self.settings = settings or Config().model_dump(mode="json")
        self.text_config = text_config or {}
        self.vector = vector
        is_musicnn = self.settings.get("front_end") == "musicnn"
        self.frame_size = frame_size if frame_size is not None else FRAME_SIZE if is_musicnn else 0
        self.front_end_weights = front_end_weights
        super().__init__(**options)

    @property
    def checked_settings(self) -> Config:
        """The settings, checked."""
        return saved_config(self.settings, "config.json")


def check_kind(config: Path) -> None:
    """CheckpointError unless `config` is the config.json of an HTCL whose settings this version
    knows.
    """
    if not config.is_file():
        raise CheckpointError(
            f"{config.parent} holds no model (config.json is missing); train one, or check the path"
        )
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
        kind, settings = found.get("model_type"), found.get("settings")
    except (ValueError, AttributeError, RecursionError):
        kind, settings = "damaged", None
    if kind != "htcl":
        raise CheckpointError(
            f"{config.parent} cannot be loaded: config.json is of kind {kind!r}, not 'htcl'"
        )
    if settings is not None:
        saved_config(settings, config)
