"""A model folder's hashes: what is not as it was saved is named and never used."""

import json
from pathlib import Path

import pytest

from ponticello.errors import CheckpointError
from ponticello.model.saving import CHECKSUMS, check_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a model leaves it, and a file that is none of its own."""
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (tmp_path / name).write_bytes(name.encode() * 50)
    write_checksums(tmp_path, ["elsewhere/tokenizer.json", "elsewhere/vocab.txt"])
    return tmp_path


def test_hashes_are_of_the_model_alone(folder: Path) -> None:
    """Worked out by coreutils: printf 'config.json%.0s' {1..50} | sha256sum."""
    hashes = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    assert list(hashes) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (
        hashes["config.json"] == "6b68b464064e0fcf32c4fce6183dea0b9467616454dfd91fb06a18b232a23905"
    )
    (folder / "README.md").write_text("changed")
    check_checksums(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", CHECKSUMS])
def test_any_flipped_byte_is_found(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (folder / name).write_bytes(bytes(damaged))
        if name == CHECKSUMS and whole[place : place + 1].isspace():
            continue  # spacing means nothing
        with pytest.raises(
            CheckpointError, match=r"is not what was saved \(sha256.json\): copy it again"
        ):
            check_checksums(folder)


def test_hashes_too_deep_to_be_read_are_damage(folder: Path) -> None:
    (folder / CHECKSUMS).write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"sha256.json is not what was saved"):
        check_checksums(folder)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json is not what was saved"):
        check_checksums(folder)


def test_folder_saved_before_there_were_hashes_passes(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    (folder / "config.json").write_text("{}")
    check_checksums(folder)
