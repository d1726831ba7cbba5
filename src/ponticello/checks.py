"""One thing given where a list of things is asked for: refused, since Python would take a text for
its letters.
"""

import os
from typing import Any, TypeVar

from ponticello.errors import DataError

Given = TypeVar("Given")
_SHOWN = 60  # characters of what was given


def require_list(given: Given, what: str) -> Given:
    """`given` as it is; DataError where it is one text, one path or one waveform (an array (n,) of
    numbers).

    what: the parameter's name, for the message.
    """
    one: Any = given
    if isinstance(one, str | bytes | os.PathLike):
        found = repr(os.fspath(one))
        shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
        raise DataError(
            f"{what} must be a list, such as [{shown}]; found one {type(one).__name__} alone"
        )
    if getattr(one, "ndim", 0) == 1 and getattr(one.dtype, "kind", "") in ("f", "i", "u"):
        raise DataError(
            f"{what} must be a list, such as [waveform]; found one array {tuple(one.shape)} alone"
        )
    return given
