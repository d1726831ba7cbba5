"""Counts the source files that one text query runs through."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import ponticello
from ponticello.library import Library

SOURCE = Path(ponticello.__file__).parent


def files_of_search(library: Library, text: str) -> list[str]:
    """Returns the source files whose functions a search calls; imports are not counted."""
    files: set[str] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and frame.f_code.co_name != "<module>" and SOURCE in path.parents:
            files.add(path.relative_to(SOURCE).as_posix())

    sys.setprofile(profile)
    try:
        library.search(text, k=5)
    finally:
        sys.setprofile(None)
    return sorted(files)


def test_a_text_query_runs_through_few_files(trained_root: Path) -> None:
    """The first one loads the models of an open index and catalogue; a warm one repeats its text,
    another text runs through the text encoder.
    """
    library = Library.open(trained_root)
    _ = library.service
    first = files_of_search(library, "slow dark")
    warm = files_of_search(library, "slow dark")
    another = files_of_search(library, "fast bright")
    assert len(first) <= 14, first
    assert len(warm) <= 8, warm
    assert len(another) <= 10, another
