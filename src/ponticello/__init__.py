"""Ponticello: music vectors that bridge what music means and what listeners like (HTCL, arXiv
2505.23298).

import ponticello
model = ponticello.HTCL.from_pretrained("my-library/runs/preference")
library = ponticello.Library.open("my-library")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ponticello.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    DataError,
    LibraryError,
    PonticelloError,
    ShapeError,
)

if TYPE_CHECKING:
    from ponticello.config import Config
    from ponticello.library import Library
    from ponticello.model.htcl import HTCL
    from ponticello.search.ranking import Result

__version__ = "0.1.0.dev0"

__all__ = [
    "HTCL",
    "AudioError",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "Library",
    "LibraryError",
    "PonticelloError",
    "Result",
    "ShapeError",
]

_HOMES = {  # imported when first used, so that `import ponticello` stays quick
    "Config": "ponticello.config",
    "HTCL": "ponticello.model.htcl",
    "Library": "ponticello.library",
    "Result": "ponticello.search.ranking",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ponticello' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
