"""The public list: exactly these names, each documented, and an import that loads nothing heavy."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ponticello
from ponticello.errors import PonticelloError

ROOT = Path(__file__).parents[1]
PUBLIC = [
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
HEAVY = (
    "torch",
    "transformers",
    "polars",
    "numpy",
    "scipy",
    "pyarrow",
    "duckdb",
    "ibis",
    "sklearn",
    "rich.progress",
)


def test_public_names_are_exactly_these() -> None:
    assert ponticello.__all__ == PUBLIC
    assert dir(ponticello) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_a_class_with_its_own_docstring(name: str) -> None:
    found = getattr(ponticello, name)
    assert inspect.isclass(found)
    assert found.__name__ == name
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}("), "the docstring is the one dataclasses makes up"


def test_every_error_is_a_ponticello_error() -> None:
    errors = [getattr(ponticello, name) for name in PUBLIC if name.endswith("Error")]
    assert len(errors) == 7
    assert all(issubclass(error, PonticelloError) for error in errors)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ponticello' has no attribute 'nothing'"):
        _ = ponticello.nothing
    assert not hasattr(ponticello, "Library2")


@pytest.mark.parametrize("module", ["ponticello", "ponticello.cli.main"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """In a process of its own: this one has loaded everything."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_importing_every_module_leaves_globals_of_other_libraries_as_they_were() -> None:
    """In a process of its own: tinytag's tables of field names and the longest cell that `csv`
    reads.
    """
    code = (
        "import copy, csv, importlib, pkgutil\n"
        "from tinytag import tinytag\n"
        "import ponticello\n"
        "def state():\n"
        "    classes = [value for value in vars(tinytag).values() if isinstance(value, type)]\n"
        "    tables = [\n"
        "        (c.__name__, k, v)\n"
        "        for c in classes for k, v in vars(c).items() if isinstance(v, dict)\n"
        "    ]\n"
        "    return copy.deepcopy(tables), csv.field_size_limit()\n"
        "before = state()\n"
        "names = [m.name for m in pkgutil.walk_packages(ponticello.__path__, 'ponticello.')]\n"
        "names.remove('ponticello.__main__')\n"
        "for name in names:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error: assert not error.name.startswith('ponticello'), error\n"
        "assert 'artists' in tinytag._Ogg._VORBIS_MAPPING\n"
        "print('ponticello.audio.tags' in names, 'ponticello.storage.layout' in names)\n"
        "print(state() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"] * 3, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["embed", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """As the command runs it, to its exit; the command line's own library is all it needs."""
    code = (
        "import sys; from ponticello.cli.main import app\n"
        f"try: app({arguments!r})\n"
        f"except SystemExit:\n"
        f"    print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.strip() == ""


def test_version_is_the_one_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ponticello.__version__ == project["version"]


def test_package_says_that_it_is_typed() -> None:
    assert (Path(ponticello.__file__).parent / "py.typed").is_file()
