"""The structure of the source: imports go down only, functions fit on a screen, no pickles, no
evaluated text.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "ponticello"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [  # bottom up; packages of one line may not import each other
    ["errors"],
    ["checks"],
    ["config"],
    ["storage"],
    ["audio"],
    ["tracks"],
    ["listening"],
    ["features"],
    ["splits", "datasets"],
    ["pairs"],
    ["model", "metrics"],
    ["train"],
    ["search"],
    ["evaluate"],
    ["maintenance"],
    ["library"],
    ["serve"],
    ["cli"],
]
RANKS = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}
# `Library.serve` starts the service, which answers from a `Library`.
ALLOWED_UPWARD = {("library.py", "ponticello.serve.app.run_service")}
EXEMPT = ("__init__.py", "__main__.py")  # the package itself: what it offers lies anywhere below
MAX_FUNCTION_LINES = 60
VAGUE = {"utils", "util", "helpers", "common", "base", "misc"}
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything imported anywhere in `tree`; `package` is what a relative
    import starts from.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            start = [*above, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)


def upward_imports(source: str, place: str) -> list[str]:
    """Every import of ours in `source` that does not go down; place: the file's path in the
    package.
    """
    unit = place.split("/")[0].removesuffix(".py")
    package = ".".join(["ponticello", *place.split("/")[:-1]])
    found = []
    for line, module in imports(ast.parse(source), package):
        top, target = [*module.split("."), ""][:2]
        if top != "ponticello" or target == unit:
            continue
        if (place, module) in ALLOWED_UPWARD:
            continue
        if unit not in RANKS or target not in RANKS or RANKS[target] >= RANKS[unit]:
            found.append(f"{place}:{line} imports {module}")
    return found


def dangerous_calls(source: str) -> list[str]:
    """Pickles, and text run as code: what may not stand in `source`."""
    tree = ast.parse(source)
    found = [
        module
        for _, module in imports(tree, "")
        if module.split(".")[0] in PICKLES or module == "torch.load"
    ]
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
    """Covers imports inside functions and under TYPE_CHECKING too; modules of one package may
    import each other.
    """
    assert upward_imports(path.read_text(encoding="utf-8"), _name(path)) == []


@pytest.mark.parametrize(
    ("place", "source", "culprit"),
    [
        ("audio/mel.py", "from ponticello.model.htcl import HTCL", "ponticello.model.htcl.HTCL"),
        ("audio/mel.py", "import ponticello.model.htcl", "ponticello.model.htcl"),
        ("audio/mel.py", "from ponticello import model", "ponticello.model"),
        ("audio/mel.py", "from ponticello import HTCL", "ponticello.HTCL"),
        ("audio/mel.py", "import ponticello", "ponticello"),
        ("audio/mel.py", "from ..model import htcl", "ponticello.model.htcl"),
        ("audio/mel.py", "from .. import model", "ponticello.model"),
        (
            "audio/mel.py",
            "def f():\n    from ponticello.library import Library",
            "ponticello.library.Library",
        ),
        (
            "audio/mel.py",
            "if TYPE_CHECKING:\n    from ponticello.train.semantic import TrainedRun",
            "ponticello.train.semantic.TrainedRun",
        ),
        (
            "train/semantic.py",
            "from ponticello.search.index import EmbeddingIndex",
            "ponticello.search.index.EmbeddingIndex",
        ),
        ("train/loop.py", "from ponticello.search import index", "ponticello.search.index"),
        ("errors.py", "from ponticello.config import Config", "ponticello.config.Config"),
        (
            "storage/layout.py",
            "from ponticello.tracks.catalog import read_tracks",
            "ponticello.tracks.catalog.read_tracks",
        ),
        ("evaluate/run.py", "from ponticello.library import Library", "ponticello.library.Library"),
        (
            "library.py",
            "from ponticello.serve.app import create_app",
            "ponticello.serve.app.create_app",
        ),
        ("extras/new.py", "from ponticello.errors import DataError", "ponticello.errors.DataError"),
        ("cli/main.py", "from ponticello.extras import new", "ponticello.extras.new"),
    ],
)
def test_checker_catches_an_import_that_does_not_go_down(
    place: str, source: str, culprit: str
) -> None:
    line = source.count("\n") + 1
    assert upward_imports(source, place) == [f"{place}:{line} imports {culprit}"]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        (
            "audio/mel.py",
            "from ponticello.audio.decode import load_audio\n"
            "from .audio import load_audio\n"
            "from . import audio",
        ),
        (
            "audio/mel.py",
            "from ponticello.errors import DataError\nfrom ponticello import config\nimport torch",
        ),
        ("model/htcl.py", "from ponticello.audio.mel import mel_of_file"),
        (
            "evaluate/run.py",
            "from ponticello.search.embed import embed_library\nimport ponticello.train.semantic",
        ),
        ("cli/search.py", "def f():\n    from ponticello.library import Library"),
    ],
)
def test_checker_lets_downward_imports_and_those_of_one_unit_pass(place: str, source: str) -> None:
    assert upward_imports(source, place) == []


def long_functions(source: str, limit: int = MAX_FUNCTION_LINES) -> list[str]:
    """Returns the names of the functions in `source` that have more than `limit` lines."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (node.end_lineno or node.lineno) - node.lineno + 1 > limit:
            names.append(node.name)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_functions_fit_on_a_screen(path: Path) -> None:
    assert long_functions(path.read_text(encoding="utf-8")) == []


def test_checker_finds_a_long_function() -> None:
    source = "def short():\n    pass\n\ndef long():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
    assert long_functions(source) == ["long"]


def module_imports() -> dict[str, set[str]]:
    """Returns, for each module of the package, the modules it imports when it is loaded."""
    names = {
        ".".join(["ponticello", *path.relative_to(PACKAGE).with_suffix("").parts]): path
        for path in SOURCES
    }
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        graph[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ImportFrom):
                continue
            for alias in node.names:
                candidates = [f"{node.module}.{alias.name}", str(node.module)]
                graph[name].update(candidate for candidate in candidates if candidate in names)
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Returns the modules that are on a cycle of imports or lead to one."""
    remaining = {name: set(targets) for name, targets in graph.items()}
    while leaves := [name for name, targets in remaining.items() if not targets]:
        for name in leaves:
            del remaining[name]
        for targets in remaining.values():
            targets.difference_update(leaves)
    return sorted(remaining)


def test_modules_import_each_other_without_cycles() -> None:
    assert find_cycle(module_imports()) == []


def test_checker_finds_a_cycle() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def script_imports(source: str) -> set[str]:
    """Returns the files that an ES module imports when it is loaded: its import statements."""
    statement = r"""^(?:import|export)\b[^;"'(]*?(?:\bfrom\s*)?["']\./([^"']+)["']"""
    return set(re.findall(statement, source, flags=re.MULTILINE))


def test_scripts_of_the_explorer_import_each_other_without_cycles() -> None:
    scripts = {path.name: path for path in (PACKAGE / "serve" / "explorer").glob("*.js")}
    graph = {name: script_imports(path.read_text("utf-8")) for name, path in scripts.items()}
    assert set().union(*graph.values()) <= set(scripts)
    assert len(graph["app.js"]) > 10
    assert find_cycle(graph) == []


def test_checker_reads_each_form_of_import_statement() -> None:
    source = """
import { a } from "./one.js";
import {
  b,
} from './two.js';
import "./three.js";
export { c } from "./four.js";
export const d = await import("./later.js");
const text = 'import { e } from "./text.js"';
"""
    assert script_imports(source) == {"one.js", "two.js", "three.js", "four.js"}


def test_each_package_lists_its_modules() -> None:
    for init in PACKAGE.rglob("__init__.py"):
        if init.parent == PACKAGE:
            continue
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        listed = set(re.findall(r"^(\w+)  +", text, flags=re.MULTILINE))
        modules = {path.stem for path in init.parent.glob("*.py")} - {"__init__"}
        packages = {path.parent.name for path in init.parent.glob("*/__init__.py")}
        assert modules | packages <= listed, init


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
            if isinstance(
                part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ) and not part.name.startswith("_"):
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
        '"""A module."""\n\nclass Thing:\n    """One."""\n\n    def do(self) -> None: ...\n\n'
        "def _own() -> None: ...\n"
    )
    assert _undocumented(source, "audio/mel.py") == ["audio/mel.py: Thing.do"]
