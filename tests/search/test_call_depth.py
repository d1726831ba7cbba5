"""Counts the source files that one text query runs through."""

import inspect
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import ponticello
from ponticello.library import Library

SOURCE = Path(ponticello.__file__).parent


def files_of_search(library: Library, text: str) -> list[str]:
    """Returns the source files whose functions a search calls.

    Modules and bodies of classes are not counted: they run when they are first imported.
    """
    files: set[str] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if event == "call" and is_function and SOURCE in path.parents:
            files.add(path.relative_to(SOURCE).as_posix())

    sys.setprofile(profile)
    try:
        library.search(text, k=5)
    finally:
        sys.setprofile(None)
    return sorted(files)


def test_a_text_query_runs_through_few_files(trained_root: Path) -> None:
    """The first one opens the index and the catalogue and loads the models. Another text runs
    through the text encoder; the same text again does not.
    """
    library = Library.open(trained_root)
    first = files_of_search(library, "slow dark")
    another = files_of_search(library, "fast bright")
    warm = files_of_search(library, "fast bright")
    assert len(first) <= 14, first
    assert len(another) <= 6, another
    assert len(warm) <= 4, warm
