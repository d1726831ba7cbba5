"""The files of a model folder beside its weights: settings, checksums, and the space's record.

space.json    space_id, embed_dim, vector, weights and preprocessing with their SHA-256, version
sha256.json   {file name: SHA-256 in hex} of the config, the weights and the tokenizer
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.storage.files import file_sha256

SPACE_FILE = "space.json"
CHECKSUMS = "sha256.json"
# Sections and settings that a model's shape and inputs depend on.
MODEL_SECTIONS = ("front_end", "features", "mel", "audio", "text", "heads")
PREPROCESSING = ("front_end", "mel", "audio", "text", "heads")  # settings that change a vector
_MAX_SHOWN = 60  # characters of an invalid value in a message


def require_finite(weights: Mapping[str, Tensor], folder: str | Path) -> None:
    """Raises CheckpointError with the first weight that is not finite."""
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"weight {name} is not finite: nothing was saved to {folder}")


@contextmanager
def report_write_errors(path: str | Path) -> Iterator[None]:
    """Wraps writing: raises CheckpointError if the disk is full or fails.

    safetensors, tokenizers and torch raise exceptions of their own in place of OSError.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not re.search(r"os error \d+|inline_container\.cc", str(error)):
            raise
        os_error = re.search(r"[^:]* \(os error \d+\)", str(error))
        reason = os_error[0].strip() if os_error else "it takes no more, as when it is full"
        raise CheckpointError(
            f"{path} cannot be written: {reason}; "
            "make room, then run the same command again to go on"
        ) from None


def run_config(run: Path) -> Config:
    """Returns the settings of the model in `run`; CheckpointError if it is missing or damaged."""
    path = run / "config.json"
    if not path.is_file() or not (run / "model.safetensors").is_file():
        raise CheckpointError(
            f"{run} holds no model; train it with: ponticello train", code="no_model"
        )
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8"))).get("settings")
    except (ValueError, TypeError, RecursionError):
        settings = None
    if settings is None:
        raise CheckpointError(
            f"{path} is damaged: copy the model again, or delete {run} and train again"
        )
    return saved_config(settings, path)


def saved_config(settings: Any, file: Path | str) -> Config:
    """Returns the settings saved in `file`, checked.

    Raises CheckpointError with the first that is unknown or out of range.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or "all of them"
    setting = f"{file}: setting {name!r}"
    if first["type"] == "extra_forbidden":
        raise CheckpointError(
            f"{setting} is unknown to Ponticello {version('ponticello')}: another version wrote "
            f"it, or it was edited; use that version, or delete {Path(file).parent} and train again"
        )
    value = str(first["input"])[:_MAX_SHOWN]
    raise CheckpointError(f"{setting}: {first['msg']}; found {value!r}; mend it, or train again")


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


def space_id(run: Path) -> str:
    """Returns the id of a model's vector space: a hash of its weights and preprocessing.

    It is computed from the files, not read from `space.json`. Raises as `run_config`.
    """
    config = run_config(run)
    with (run / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(served_vector_name(run).encode())
    digest.update(config.model_dump_json(include=set(PREPROCESSING)).encode())
    return digest.hexdigest()[:12]


def served_vector_name(run: Path) -> str:
    """Returns which vector is served for tracks with text: "audio" or "fused"."""
    vector: str = _config_value(run, "vector", "audio")
    return vector


def front_end_weights(run: Path) -> str:
    """Returns the hash of the front end's weights; "" where the settings identify it."""
    weights: str = _config_value(run, "front_end_weights", "")
    return weights


def _config_value(run: Path, key: str, default: Any) -> Any:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return config.get(key, default)


def write_space_record(run: Path) -> None:
    """Writes `space.json` of a model folder, unless its weights are in several files."""
    weights = run / "model.safetensors"
    if not weights.is_file():
        return
    config = run_config(run)
    preprocessing = config.model_dump(mode="json", include=set(PREPROCESSING))
    canonical = json.dumps(preprocessing, sort_keys=True)
    record: dict[str, Any] = {
        "format": 1,
        "space_id": space_id(run),
        "embed_dim": config.heads.embed_dim,
        "vector": served_vector_name(run),
        "front_end_weights": front_end_weights(run),
        "weights_sha256": file_sha256(weights),
        "preprocessing_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "preprocessing": preprocessing,
        "ponticello": version("ponticello"),
    }
    (run / SPACE_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def describe_saved(folder: Path, tokenizer_files: Iterable[str]) -> None:
    """Writes the checksums and `space.json` of a saved model folder."""
    write_checksums(folder, tokenizer_files)
    write_space_record(folder)


def write_checksums(folder: Path, tokenizer_files: Iterable[str]) -> None:
    """Writes the hashes of the config, the weights and the tokenizer. Cost: reads them once."""
    names = {"config.json"}
    names.update(path.name for path in folder.glob("model*.safetensors*"))
    names.update(Path(file).name for file in tokenizer_files)
    hashes = {}
    for name in sorted(names):
        if (folder / name).is_file():
            hashes[name] = file_sha256(folder / name)
    (folder / CHECKSUMS).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


def check_checksums(folder: Path) -> None:
    """Raises CheckpointError with the first changed file; a folder without hashes passes.

    Cost: reads the files once, at 1 to 2 GB/s a processor core.
    """
    checksums = folder / CHECKSUMS
    if not checksums.is_file():
        return
    try:
        hashes = dict(json.loads(checksums.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        hashes = {CHECKSUMS: ""}
    for name, expected in hashes.items():
        path = folder / Path(name).name
        if not path.is_file() or file_sha256(path) != expected:
            raise CheckpointError(
                f"{path} is not what was saved ({CHECKSUMS}): copy it again or train again; "
                f"if you changed it yourself, delete {CHECKSUMS}"
            )
