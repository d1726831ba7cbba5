"""What a model folder's config.json holds."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedConfig

from ponticello.config import Config
from ponticello.errors import CheckpointError


class HTCLConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """All that is needed to rebuild an `HTCL`: our `Config` as a dict, and the text encoder's own configuration.

    vector: what stands for a track that has a text, "audio" alone or "fused" with it, as validation chose.
    """

    model_type = "htcl"

    def __init__(
        self,
        settings: dict[str, Any] | None = None,
        text_config: dict[str, Any] | None = None,
        vector: str = "audio",
        **options: Any,
    ) -> None:
        self.settings = settings or Config().model_dump(mode="json")
        self.text_config = text_config or {}
        self.vector = vector
        super().__init__(**options)

    @property
    def parts(self) -> Config:
        """The settings, checked."""
        try:
            return Config.model_validate(self.settings)
        except ValidationError as error:
            raise CheckpointError(f"config.json: {str(error).splitlines()[1]}: {error.errors()[0]['msg']}") from None


def check_kind(config: Path) -> None:
    """CheckpointError unless `config` is the config.json of an HTCL."""
    if not config.is_file():
        raise CheckpointError(f"{config.parent} holds no model (config.json is missing); train one, or check the path")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        kind = "damaged"
    if kind != "htcl":
        raise CheckpointError(f"{config.parent} cannot be loaded: config.json is of kind {kind!r}, not 'htcl'")
