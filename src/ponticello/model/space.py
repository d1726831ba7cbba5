"""Which space a model folder puts vectors in: its name, and in `space.json` what it is made of, for other programs.

space.json    space_id, embed_dim, vector, weights and preprocessing with their SHA-256, the version that wrote it
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ponticello.config import Config
from ponticello.errors import CheckpointError

SPACE_FILE = "space.json"
PREPROCESSING = ("front_end", "mel", "audio", "text", "heads")  # the settings that decide what a vector is
_SHOWN = 60  # characters of a value that cannot be used


def run_config(run: Path) -> Config:
    """The settings the model in `run` was made with; CheckpointError if there is no model, or its config is damaged."""
    path = run / "config.json"
    if not path.is_file() or not (run / "model.safetensors").is_file():
        raise CheckpointError(f"{run} holds no model; train it with: ponticello train")
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8"))).get("settings")
    except (ValueError, TypeError, RecursionError):
        settings = None
    if settings is None:
        raise CheckpointError(f"{path} is damaged: copy the model again, or delete {run} and train again")
    return saved_config(settings, path)


def saved_config(settings: Any, file: Path | str) -> Config:
    """Settings as they stand in `file`, checked; CheckpointError names the first that is unknown or out of range."""
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting = f"{file}: setting {'.'.join(map(str, first['loc'])) or 'all of them'!r}"
        if first["type"] == "extra_forbidden":
            raise CheckpointError(
                f"{setting} is unknown to Ponticello {version('ponticello')}: another version wrote it, or it was "
                f"edited; use that version, or delete {Path(file).parent} and train again"
            ) from None
        found = str(first["input"])[:_SHOWN]
        raise CheckpointError(f"{setting}: {first['msg']}; found {found!r}; mend it, or train again") from None


def space_id(run: Path) -> str:
    """Names the space a model folder puts vectors in: a hash of its weights and of what it does to its input.

    Always of the files as they are now, whatever `space.json` says; CheckpointError as `run_config`.
    """
    config = run_config(run)
    with (run / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(served_vector(run).encode())
    digest.update(config.model_dump_json(include=set(PREPROCESSING)).encode())
    return digest.hexdigest()[:12]


def served_vector(run: Path) -> str:
    """What stands for a track that has a text under the model in `run`: "audio" alone, or "fused" with the text."""
    vector: str = json.loads((run / "config.json").read_text(encoding="utf-8")).get("vector", "audio")
    return vector


def front_end_weights(run: Path) -> str:
    """The weights of the front end that the model in `run` was trained over; "" where its settings say it all."""
    weights: str = json.loads((run / "config.json").read_text(encoding="utf-8")).get("front_end_weights", "")
    return weights


def write_space(run: Path) -> None:
    """Writes `space.json` of a model folder with one weights file; nothing for one whose weights lie in several."""
    weights = run / "model.safetensors"
    if not weights.is_file():
        return
    config = run_config(run)
    settings = config.model_dump(mode="json", include=set(PREPROCESSING))
    with weights.open("rb") as file:
        weights_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    record: dict[str, Any] = {
        "format": 1,
        "space_id": space_id(run),
        "embed_dim": config.heads.embed_dim,
        "vector": served_vector(run),
        "front_end_weights": front_end_weights(run),
        "weights_sha256": weights_sha256,
        "preprocessing_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "preprocessing": settings,
        "ponticello": version("ponticello"),
    }
    (run / SPACE_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
