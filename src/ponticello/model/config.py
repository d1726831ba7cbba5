"""The configuration of a model folder (config.json)."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.features.musicnn_frontend import FRAME_SIZE
from ponticello.model.preference import EncoderKind
from ponticello.model.saving import saved_config

# Sections and settings that a model's shape and inputs depend on.
MODEL_SECTIONS = ("front_end", "features", "mel", "audio", "text", "heads")


class HTCLConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """All that is needed to rebuild an `HTCL`.

    settings: our `Config` as a dict. text_config: the text encoder's own configuration.
    vector: the one that is served for tracks with text, "audio" or "fused", chosen on validation.
    frame_size: features a frame of the frozen front end; None = MusiCNN's, 0 where there is none.
    preference_kind: of the preference encoder of a stage two over a frozen front end; None = the
    model has none.
    front_end_weights: the weights its features were made with (`FeatureStore.weights`), "" where
        the settings identify them.
    """

    model_type = "htcl"

    def __init__(
        self,
        settings: dict[str, Any] | None = None,
        text_config: dict[str, Any] | None = None,
        vector: str = "audio",
        frame_size: int | None = None,
        front_end_weights: str = "",
        preference_kind: EncoderKind | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings or Config().model_dump(mode="json")
        self.text_config = text_config or {}
        self.vector = vector
        if frame_size is None:
            frame_size = FRAME_SIZE if self.settings.get("front_end") == "musicnn" else 0
        self.frame_size = frame_size
        self.front_end_weights = front_end_weights
        self.preference_kind = preference_kind
        super().__init__(**options)

    @property
    def checked_settings(self) -> Config:
        """The settings as a checked `Config`."""
        return saved_config(self.settings, "config.json")


def check_kind(config: Path) -> None:
    """Raises CheckpointError unless `config` is an HTCL's config.json with known settings."""
    if not config.is_file():
        raise CheckpointError(
            f"{config.parent} holds no model (config.json is missing); train one, or check the path"
        )
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        kind = content.get("model_type")
        settings = content.get("settings")
    except (ValueError, AttributeError, RecursionError):
        kind = "damaged"
        settings = None
    if kind != "htcl":
        raise CheckpointError(
            f"{config.parent} cannot be loaded: config.json is of kind {kind!r}, not 'htcl'"
        )
    if settings is not None:
        saved_config(settings, config)
