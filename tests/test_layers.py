"""The shape of the source: imports go down only, files stay small, and nothing reads a pickle or runs text as code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "ponticello"
SOURCES = sorted(PACKAGE.rglob("*.py"))
RANKS = {  # `model` stands above `data`: `HTCL.encode_audio` decodes files
    "errors": 0,
    "presets": 0,
    "several": 1,
    "config": 1,
    "library": 2,
    "data": 3,
    "model": 4,
    "train": 5,
    "search": 5,
    "evaluate": 6,
    "api": 7,
    "doctor": 8,
    "serve": 8,
    "cli": 9,
}
EXEMPT = ("__init__.py", "__main__.py")  # the package itself: what it offers lies anywhere below
MAX_LINES = 300
VAGUE = {"utils", "util", "helpers", "common", "base", "misc"}
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything imported anywhere in `tree`; `package` is what a relative import starts from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = [*above, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)


def upward_imports(source: str, place: str) -> list[str]:
    """Every import of ours in `source` that does not go down; place: the file's path in the package."""
    unit = place.split("/")[0].removesuffix(".py")
    package = ".".join(["ponticello", *place.split("/")[:-1]])
    found = []
    for line, module in imports(ast.parse(source), package):
        top, target = [*module.split("."), ""][:2]
        if top != "ponticello" or target == unit:
            continue
        if unit not in RANKS or target not in RANKS or RANKS[target] >= RANKS[unit]:
            found.append(f"{place}:{line} imports {module}")
    return found


def dangerous_calls(source: str) -> list[str]:
    """Pickles, and text run as code: what may not stand in `source`."""
    tree = ast.parse(source)
    found = [module for _, module in imports(tree, "") if module.split(".")[0] in PICKLES or module == "torch.load"]
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = ast.unparse(call.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name.removeprefix("builtins.") in ("eval", "exec", "compile", "__import__"):
            found.append(name)
        elif (
            (name == "torch.load" and options.get("weights_only") != "True")
            or options.get("allow_pickle", "False") != "False"
            or options.get("trust_remote_code", "False") != "False"
        ):
            found.append(ast.unparse(call))
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if _name(path) not in EXEMPT], ids=_name)
def test_imports_go_down_only(path: Path) -> None:
    """errors < config < library < data < model < train, search < evaluate < api < serve < cli.

    Also inside functions and under TYPE_CHECKING. Files of one unit may import each other; two units of one rank (train
    and search) may not. `model` stands one rank above `data`, because `HTCL.encode_audio` decodes files.
    """
    assert upward_imports(path.read_text(encoding="utf-8"), _name(path)) == []


@pytest.mark.parametrize(
    ("place", "source", "culprit"),
    [
        ("data/mel.py", "from ponticello.model.htcl import HTCL", "ponticello.model.htcl.HTCL"),
        ("data/mel.py", "import ponticello.model.htcl", "ponticello.model.htcl"),
        ("data/mel.py", "from ponticello import model", "ponticello.model"),
        ("data/mel.py", "from ponticello import HTCL", "ponticello.HTCL"),
        ("data/mel.py", "import ponticello", "ponticello"),
        ("data/mel.py", "from ..model import htcl", "ponticello.model.htcl"),
        ("data/mel.py", "from .. import model", "ponticello.model"),
        ("data/mel.py", "def f():\n    from ponticello.api import Library", "ponticello.api.Library"),
        (
            "data/mel.py",
            "if TYPE_CHECKING:\n    from ponticello.train.run import TrainedRun",
            "ponticello.train.run.TrainedRun",
        ),
        (
            "train/run.py",
            "from ponticello.search.index import EmbeddingIndex",
            "ponticello.search.index.EmbeddingIndex",
        ),
        ("search/index.py", "from ponticello.train.run import is_finished", "ponticello.train.run.is_finished"),
        ("errors.py", "from ponticello.config import Config", "ponticello.config.Config"),
        ("library.py", "from ponticello.data.columns import PATH", "ponticello.data.columns.PATH"),
        ("evaluate/joint.py", "from ponticello.api import Library", "ponticello.api.Library"),
        ("api.py", "from ponticello.cli.main import app", "ponticello.cli.main.app"),
        ("extras/new.py", "from ponticello.errors import DataError", "ponticello.errors.DataError"),
        ("cli/main.py", "from ponticello.extras import new", "ponticello.extras.new"),
    ],
)
def test_checker_catches_an_import_that_does_not_go_down(place: str, source: str, culprit: str) -> None:
    line = source.count("\n") + 1
    assert upward_imports(source, place) == [f"{place}:{line} imports {culprit}"]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        (
            "data/mel.py",
            "from ponticello.data.audio import load_audio\nfrom .audio import load_audio\nfrom . import audio",
        ),
        ("data/mel.py", "from ponticello.errors import DataError\nfrom ponticello import config\nimport torch"),
        ("model/htcl.py", "from ponticello.data.mel import mel_of_file"),
        ("evaluate/joint.py", "from ponticello.search.embed import embed_library\nimport ponticello.train.run"),
        ("cli/ask.py", "def f():\n    from ponticello.api import Library"),
    ],
)
def test_checker_lets_downward_imports_and_those_of_one_unit_pass(place: str, source: str) -> None:
    assert upward_imports(source, place) == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_file_is_longer_than_it_may_be(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_every_file_and_folder_has_a_name_that_says_something() -> None:
    names = {part.removesuffix(".py") for path in SOURCES for part in _name(path).split("/")}
    assert not [name for name in names if VAGUE & set(re.split("_+", name))]


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_file_reads_a_pickle_or_runs_text_as_code(path: Path) -> None:
    assert dangerous_calls(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "from torch import load",
        "eval('1')",
        "builtins.exec('x = 1')",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=wanted)",
        "np.save(path, rows, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_checker_catches_a_call_that_could_run_code(source: str) -> None:
    assert len(dangerous_calls(source)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "np.load(path)",
        "column.list.eval(x)",
        "re.compile(x)",
    ],
)
def test_checker_lets_harmless_calls_pass(source: str) -> None:
    assert dangerous_calls(source) == []


def _undocumented(source: str, place: str) -> list[str]:
    """Public modules, classes, functions and methods in `source` that say nothing of themselves."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else [place]

    def walk(parts: list[ast.stmt], inside: str) -> None:
        for part in parts:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not part.name.startswith(
                "_"
            ):
                if not ast.get_docstring(part):
                    found.append(f"{place}: {inside}{part.name}")
                if isinstance(part, ast.ClassDef):
                    walk(part.body, f"{part.name}.")

    walk(tree.body, "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert _undocumented(path.read_text(encoding="utf-8"), _name(path)) == []


def test_checker_finds_what_has_no_docstring() -> None:
    source = (
        '"""A module."""\n\nclass Thing:\n    """One."""\n\n    def do(self) -> None: ...\n\ndef _own() -> None: ...\n'
    )
    assert _undocumented(source, "data/mel.py") == ["data/mel.py: Thing.do"]
