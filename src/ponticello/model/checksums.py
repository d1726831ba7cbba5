"""What a model folder's files were when they were saved, so that a damaged one is never used.

sha256.json    {file name: SHA-256 in hex} of the config, the weights and the tokenizer
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ponticello.errors import CheckpointError
from ponticello.model.space import write_space

CHECKSUMS = "sha256.json"


def describe_saved(folder: Path, tokenizer_files: Iterable[str]) -> None:
    """What every model folder carries once it is saved: the hashes of `write_checksums`, and `space.json`."""
    write_checksums(folder, tokenizer_files)
    write_space(folder)


def write_checksums(folder: Path, tokenizer_files: Iterable[str]) -> None:
    """Notes the hashes of the config, the weights and those of `tokenizer_files` that are there, by name.

    Cost: reads them once.
    """
    weights = [path.name for path in folder.glob("model*.safetensors*")]
    names = {"config.json", *weights, *(Path(file).name for file in tokenizer_files)}
    hashes = {name: file_hash(folder / name) for name in sorted(names) if (folder / name).is_file()}
    (folder / CHECKSUMS).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


def check_checksums(folder: Path) -> None:
    """CheckpointError names the first file that is not what was saved; a folder without hashes passes.

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
