"""The files of a model folder: checksums, the space's record, and errors of a full disk."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ponticello.errors import CheckpointError
from ponticello.library import Library
from ponticello.model.saving import (
    CHECKSUMS,
    SPACE_FILE,
    check_checksums,
    report_write_errors,
    space_id,
    write_checksums,
)


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


def test_full_disk_is_one_line_whoever_writes() -> None:
    """/dev/full is a file that never has room."""
    line = (
        r"^here cannot be written: No space left on device \(os error 28\); make room, then "
        r"run the same command again"
    )
    with pytest.raises(CheckpointError, match=line), report_write_errors("here"):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )
    with (
        pytest.raises(CheckpointError, match="here cannot be written: it takes no more"),
        report_write_errors("here"),
    ):
        torch.save({"a": torch.zeros(100_000)}, "/dev/full")
    with (
        pytest.raises(OSError, match="No space left"),
        report_write_errors("here"),
        Path("/dev/full").open("wb", 0) as full,
    ):
        full.write(b"x")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), report_write_errors("here"):
        raise RuntimeError("shapes differ")
    with pytest.raises(SafetensorError, match="header too large"), report_write_errors("here"):
        raise SafetensorError("Error while serializing: header too large")


def test_a_trained_run_says_which_space_it_is(trained: Library) -> None:
    run = trained.folder.run("preference")
    record = json.loads((run / SPACE_FILE).read_text())
    assert record["space_id"] == space_id(run) == trained.index.spaces[1].space_id
    assert (
        record["weights_sha256"]
        == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    )
    assert record["embed_dim"] == trained.index.embed_dim
    assert record["preprocessing"]["mel"]["sample_rate"] == 16_000
    assert record["ponticello"] == version("ponticello")
    plain = json.dumps(record["preprocessing"], sort_keys=True)
    assert record["preprocessing_sha256"] == hashlib.sha256(plain.encode()).hexdigest()


def test_two_models_with_one_preprocessing_are_two_spaces(trained: Library) -> None:
    one, two = (
        json.loads((trained.folder.run(name) / SPACE_FILE).read_text())
        for name in ("semantic", "preference")
    )
    assert one["preprocessing_sha256"] == two["preprocessing_sha256"]
    assert one["weights_sha256"] != two["weights_sha256"]
    assert one["space_id"] != two["space_id"]


def test_the_file_is_not_what_decides(trained_copy: Library) -> None:
    run = trained_copy.folder.run("semantic")
    before = space_id(run)
    (run / SPACE_FILE).write_text(json.dumps({"space_id": "another"}))
    assert space_id(run) == before
