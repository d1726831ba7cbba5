"""Saving where there is no room, and what is no fault of the disk."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ponticello.errors import CheckpointError
from ponticello.model.saving import report_write_errors


def test_full_disk_is_one_line_whoever_writes() -> None:
    """/dev/full is a file that never has room."""
    line = r"^here cannot be written: No space left on device \(os error 28\); make room, then run the same command again"
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
