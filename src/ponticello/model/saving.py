"""Which space a model folder puts vectors in: its name, and in `space.json` what it is made of, for
other programs.

space.json    space_id, embed_dim, vector, weights and preprocessing with their SHA-256, the version
that wrote it

What must hold while a model is saved: its weights are finite, and a disk that is full is said in
one line.

What a model folder's files were when they were saved, so that a damaged one is never used.

sha256.json    {file name: SHA-256 in hex} of the config, the weights and the tokenizer
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


def require_finite(weights: Mapping[str, Tensor], place: str | Path) -> None:
    """CheckpointError names the first weight that is not finite."""
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"weight {name} is not finite: nothing was saved to {place}")


@contextmanager
def report_write_errors(place: str | Path) -> Iterator[None]:
    """Around writing: CheckpointError where there is no room, or the disk fails.

    safetensors, tokenizers and torch each have an exception of their own for what elsewhere is an
    OSError.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not re.search(r"os error \d+|inline_container\.cc", str(error)):
            raise
        reason = re.search(r"[^:]* \(os error \d+\)", str(error))
        why = reason[0].strip() if reason else "it takes no more, as when it is full"
        raise CheckpointError(
            f"{place} cannot be written: {why}; make room, then run the same command again to go on"
        ) from None


SPACE_FILE = "space.json"
PREPROCESSING = (
    "front_end",
    "mel",
    "audio",
    "text",
    "heads",
)  # the settings that decide what a vector is
_SHOWN = 60  # characters of a value that cannot be used


def run_config(run: Path) -> Config:
    """The settings the model in `run` was made with; CheckpointError if there is no model, or its
    config is damaged.
    """
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
    """Settings as they stand in `file`, checked; CheckpointError names the first that is unknown or
    out of range.
    """
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
        raise CheckpointError(
            f"{setting}: {first['msg']}; found {found!r}; mend it, or train again"
        ) from None


def space_id(run: Path) -> str:
    """Names the space a model folder puts vectors in: a hash of its weights and of what it does to
    its input.

    Always of the files as they are now, whatever `space.json` says; CheckpointError as
    `run_config`.
    """
    config = run_config(run)
    with (run / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(served_vector_name(run).encode())
    digest.update(config.model_dump_json(include=set(PREPROCESSING)).encode())
    return digest.hexdigest()[:12]


def served_vector_name(run: Path) -> str:
    """What stands for a track that has a text under the model in `run`: "audio" alone, or "fused"
    with the text.
    """
    vector: str = json.loads((run / "config.json").read_text(encoding="utf-8")).get(
        "vector", "audio"
    )
    return vector


def front_end_weights(run: Path) -> str:
    """The weights of the front end that the model in `run` was trained over; "" where its settings
    say it all.
    """
    weights: str = json.loads((run / "config.json").read_text(encoding="utf-8")).get(
        "front_end_weights", ""
    )
    return weights


def write_space_record(run: Path) -> None:
    """Writes `space.json` of a model folder with one weights file; nothing for one whose weights
    lie in several.
    """
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
        "vector": served_vector_name(run),
        "front_end_weights": front_end_weights(run),
        "weights_sha256": weights_sha256,
        "preprocessing_sha256": hashlib.sha256(
            json.dumps(settings, sort_keys=True).encode()
        ).hexdigest(),
        "preprocessing": settings,
        "ponticello": version("ponticello"),
    }
    (run / SPACE_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


CHECKSUMS = "sha256.json"


def describe_saved(folder: Path, tokenizer_files: Iterable[str]) -> None:
    """What every model folder carries once it is saved: the hashes of `write_checksums`, and
    `space.json`.
    """
    write_checksums(folder, tokenizer_files)
    write_space_record(folder)


def write_checksums(folder: Path, tokenizer_files: Iterable[str]) -> None:
    """Notes the hashes of the config, the weights and those of `tokenizer_files` that are there, by
    name.

    Cost: reads them once.
    """
    weights = [path.name for path in folder.glob("model*.safetensors*")]
    names = {"config.json", *weights, *(Path(file).name for file in tokenizer_files)}
    hashes = {name: file_hash(folder / name) for name in sorted(names) if (folder / name).is_file()}
    (folder / CHECKSUMS).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


def check_checksums(folder: Path) -> None:
    """CheckpointError names the first file that is not what was saved; a folder without hashes
    passes.

    Cost: reads the files once, at 1 to 2 GB/s a processor core.
    """
    note = folder / CHECKSUMS
    if not note.is_file():
        return
    try:
        hashes = dict(json.loads(note.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        hashes = {CHECKSUMS: ""}
    for name, written in hashes.items():
        path = folder / Path(name).name
        if not path.is_file() or file_hash(path) != written:
            raise CheckpointError(
                f"{path} is not what was saved ({CHECKSUMS}): copy it again or train again; if you changed it "
                f"yourself, delete {note.name}"
            )


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
