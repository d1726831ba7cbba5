"""Settings for tests of the log-mel tower: small, and trained in seconds to a minute."""

import json
from collections.abc import Mapping
from typing import Any

LOGMEL: dict[str, Any] = {
    "front_end": "logmel",
    "audio": {"crop_seconds": 10.0},
    "heads": {"hidden_sizes": [128], "embed_dim": 64, "fusion_hidden_sizes": [64], "dropout": 0.1},
    "pairs": {"sources": ["feedback", "session", "playlist"], "max_pairs_per_track": 10},
    "semantic": {
        "batch_size": 32,
        "epochs": 100,
        "min_steps": 0,
        "early_stopping_patience": 10,
        "audio_lr": 1e-3,
        "heads_lr": 1e-3,
        "eval_steps": 10,
        "min_validations": 1,
    },
    "preference": {
        "batch_size": 32,
        "epochs": 15,
        "min_steps": 0,
        "early_stopping_patience": 10,
        "audio_lr": 1e-3,
        "heads_lr": 1e-3,
        "eval_steps": 80,
        "min_validations": 1,
        "audio_text_loss_weight": 1.0,
        "audio_fusion_loss_weight": 1.0,
        "distillation_weight": 0.0,
    },
}


def toml(settings: Mapping[str, Any]) -> str:
    """Settings nested like the fields of `Config` as the text of a ponticello.toml with preset
    tiny.
    """
    lines = ['preset = "tiny"']
    lines += [
        f"{key} = {json.dumps(value)}"
        for key, value in settings.items()
        if not isinstance(value, dict)
    ]
    for section, values in settings.items():
        if isinstance(values, dict):
            lines += [
                f"[{section}]",
                *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
            ]
    return "\n".join(lines) + "\n"


def with_changes(**sections: Mapping[str, Any]) -> dict[str, Any]:
    """`LOGMEL` with the values of some sections changed."""
    return {
        **LOGMEL,
        **{name: {**LOGMEL.get(name, {}), **values} for name, values in sections.items()},
    }
