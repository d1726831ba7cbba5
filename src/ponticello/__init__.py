"""Ponticello: music vectors by meaning and by preference (HTCL, arXiv 2505.23298).

    import ponticello

    library = ponticello.Library.create("my-library")
    library.scan("music")
    library.prepare()
    library.embed()
    for result in library.search("slow piano at night", k=5):
        print(result.rank, result.title, result.score)

A model by itself: `ponticello.HTCL.from_pretrained("my-library/runs/preference")`.
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
    from ponticello.search.results import Result

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

_MODULES = {  # imported on first use, so that `import ponticello` stays quick
    "Config": "ponticello.config",
    "HTCL": "ponticello.model.htcl",
    "Library": "ponticello.library",
    "Result": "ponticello.search.results",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ponticello' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Returns the public names."""
    return __all__
