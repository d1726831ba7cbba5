"""Errors carry a code and a remedy, also out of another process, and read as one line."""

import pickle
import shlex
from pathlib import Path

import pytest

from ponticello import errors
from ponticello.errors import AudioError, CheckpointError, DataError, LibraryError, PonticelloError


def test_every_class_has_a_code_that_is_documented_in_the_tree() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PonticelloError)
    ]
    codes = [kind("").code for kind in classes]
    assert len(set(codes)) == len(classes) == 8
    for kind, code in zip(classes, codes, strict=True):
        assert f"{kind.__name__} " in str(errors.__doc__)
        assert f" {code}" in str(errors.__doc__)


def test_error_keeps_message_code_and_remedy_apart(tmp_path: Path) -> None:
    library = tmp_path / "my music"
    error = LibraryError(
        "the library has no index yet", code="no_index", remedy="ponticello embed", library=library
    )
    assert error.code == "no_index"
    assert shlex.split(error.remedy) == ["ponticello", "embed", "-L", str(library)]
    assert str(error) == f"the library has no index yet; run: {error.remedy}"
    assert error.message == "the library has no index yet; run: ponticello embed"


def test_error_without_remedy_is_its_message() -> None:
    error = DataError("k 0 must be at least 1")
    assert (str(error), error.message, error.remedy) == ("k 0 must be at least 1",) * 2 + ("",)
    assert AudioError("x").code == "unsupported_audio"


@pytest.mark.parametrize("kind", [DataError, CheckpointError])
def test_error_survives_the_way_to_another_process(kind: type[PonticelloError]) -> None:
    error = kind("found 3", code="special", remedy="ponticello embed", library=Path("/music"))
    copy = pickle.loads(pickle.dumps(error))  # as `multiprocessing` and Ray send it
    assert type(copy) is kind
    assert (str(copy), copy.code, copy.remedy, copy.message) == (
        str(error),
        "special",
        "ponticello embed -L /music",
        error.message,
    )
