"""Checks of arguments."""

import os
from typing import Any, TypeVar

from ponticello.errors import DataError

Items = TypeVar("Items")
_MAX_SHOWN = 60  # characters of a value in a message


def require_list(items: Items, name: str) -> Items:
    """Returns `items`; rejects a single string, path or waveform where a list is expected.

    Iterating a str would silently yield its characters. name: of the parameter, for the message.
    DataError for a str, bytes, a path, or an array (n,) of numbers.
    """
    value: Any = items
    if isinstance(value, str | bytes | os.PathLike):
        text = repr(os.fspath(value))
        shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
        raise DataError(
            f"{name} must be a list, such as [{shown}]; found one {type(value).__name__} alone"
        )
    if getattr(value, "ndim", 0) == 1 and getattr(value.dtype, "kind", "") in ("f", "i", "u"):
        raise DataError(
            f"{name} must be a list, such as [waveform]; found one array {tuple(value.shape)} alone"
        )
    return items
