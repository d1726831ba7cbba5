"""Every block of code in README.md, CONTRIBUTING.md and docs/: Python runs, settings are read,
commands exist.

A command is taken apart by the real command line, which knows every argument and option; `make`
targets, scripts and their options, and extras are looked up. Blocks with a `$` before their
commands show what is printed; tests beside this one run those of docs/data.md. What can be neither
run nor read is marked `<!-- not run: REASON -->` in the line above it; any other block fails here.
"""

import json
import re
import shlex
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.core import TyperGroup
from typer.main import get_command

from ponticello.cli.main import app
from ponticello.config import Config
from tests.pages import INDENTED, Block, answer, blocks_of, commands, joined
from tests.synthetic import SAMPLE_RATE, SyntheticCatalogue

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"api.md"}  # tests/serve/test_api_page.py asks a service what this one shows
DOCS = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ELSEWHERE]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
BLOCKS = [
    (path.name, block) for path in PAGES for block in blocks_of(path.read_text(encoding="utf-8"))
]
DIRECTIVES = {"{toctree}", "{eval-rst}"}
DATA = {"csv", "json", "jsonl", "m3u", "text"}
ENDINGS = {
    "md",
    "py",
    "parquet",
    "json",
    "csv",
    "npz",
    "onnx",
    "safetensors",
}  # of files, not settings
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SIGNS = re.compile(r"^(sudo |[A-Z_]+=\S+ )+")  # variables before a command
EXTRAS = re.compile(r"(?:ponticello|\.)\[([\w,]+)\]$")


def _of(*languages: str) -> list[Any]:
    """The blocks of these languages that are not marked, each named by its page and line."""
    chosen = [
        (page, block) for page, block in BLOCKS if block.language in languages and not block.reason
    ]
    return [pytest.param(block, id=f"{page}:{block.line}") for page, block in chosen]


def parse(arguments: list[str]) -> None:
    """Takes the arguments of `ponticello` apart as the command line does; its UsageError if it
    would refuse them.
    """
    command: Any = get_command(app)
    context = command.make_context("ponticello", list(arguments))
    while isinstance(command, TyperGroup):
        rest = [*context._protected_args, *context.args]
        name, child, rest = command.resolve_command(context, rest)
        assert child is not None
        command, context = child, child.make_context(name, rest, parent=context)


def check(command: str) -> None:
    """Whether a line of a shell names what there is; AssertionError, or click's UsageError, if it
    does not.
    """
    for part in re.split(r" && ", command):
        program, *words = shlex.split(SIGNS.sub("", part), comments=True)
        if program == "torchrun":
            words = words[words.index("-m") + 1 :]
            program = words.pop(0)
        if program == "ponticello":
            parse(words)
        elif program == "make":
            _check_make(words)
        elif program == "python" and words[0].startswith("bench/"):
            _check_script(words)
        elif program in {"python", "python3"} and words[0] == "-m":
            assert find_spec(words[1]), f"no module {words[1]}"
        elif [program, *words] == [".", ".venv/bin/activate"]:
            continue
        elif program in {"pip", ".venv/bin/pip"}:
            extras = {
                extra
                for word in words
                if (named := EXTRAS.search(word))
                for extra in named[1].split(",")
            }
            assert words[0] == "install"
            assert extras <= set(PROJECT["optional-dependencies"]), part
        else:
            raise AssertionError(
                f"{program!r} is no program that is checked; "
                "mark the block <!-- not run: REASON -->"
            )


def _check_script(words: list[str]) -> None:
    """Options a script declares, with argparse by name or with typer by parameter."""
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        parameter = option.removeprefix("--").replace("-", "_")
        assert re.search(rf'"{option}"|^    {parameter}: Annotated', source, re.M), (
            f"{words[0]} has no {option}"
        )


def _check_make(words: list[str]) -> None:
    """Targets and variables of the Makefile, and of `# make TARGET ...` words that only explain."""
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert re.search(
            rf"\$\({name}\)|\$\(if \$\({name}\)" if is_variable else rf"^{name}:", MAKEFILE, re.M
        ), word


@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(*each, id=f"{each[0]}:{each[1].line}") for each in BLOCKS]
)
def test_every_block_is_of_a_kind_that_is_checked_or_says_why_not(page: str, block: Block) -> None:
    checked = {"python", "toml", "console", "bash", INDENTED} | DIRECTIVES
    is_file = block.language in DATA and bool(block.name)
    assert block.language in checked or is_file or block.reason, (
        f"{page}:{block.line} is never run: mark it, and why"
    )


@pytest.mark.parametrize("block", _of("console"))
def test_every_command_of_a_transcript_is_one_the_program_takes(block: Block) -> None:
    for command, _ in commands(block.text):
        check(command)


@pytest.mark.parametrize("block", _of("bash", INDENTED))
def test_every_command_is_one_there_is(block: Block) -> None:
    lines = [line for line in joined(block.text) if line.strip() and not line.startswith("#")]
    assert lines
    for line in lines:
        check(line)


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_of_the_repository_leads_to_it_and_to_a_heading(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, link


def test_every_setting_that_a_page_names_exists() -> None:
    written = Config().model_dump()
    known = {
        f"{name}.{key}" for name, part in written.items() if isinstance(part, dict) for key in part
    }
    sections = "|".join({name.split(".")[0] for name in known})
    named = re.compile(rf"`({sections})\.(\w+)( ?=[^`]*)?`")
    found = {
        (path.name, f"{m[1]}.{m[2]}")
        for path in PAGES
        for m in named.finditer(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 20
    assert {
        (page, name)
        for page, name in found
        if name not in known and name.split(".")[1] not in ENDINGS
    } == set()


@pytest.mark.parametrize("block", _of("toml"))
def test_every_example_of_settings_is_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "ponticello.toml"
    path.write_text(block.text, encoding="utf-8")
    written = tomllib.loads(block.text)
    read = json.loads(Config.from_toml(path).model_dump_json())
    flat = {
        f"{name}.{key}": value
        for name, part in written.items()
        if isinstance(part, dict)
        for key, value in part.items()
    }
    assert written
    assert {key: read[key.split(".")[0]][key.split(".")[1]] for key in flat} == flat


@pytest.fixture
def desk(
    trained_root: Path,
    catalogue: SyntheticCatalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder a reader works in: a library and two sound files."""
    shutil.copytree(trained_root, tmp_path / "my-library")
    for name, waveform in zip(("a.flac", "b.mp3"), catalogue.waveforms, strict=False):
        soundfile.write(tmp_path / name, waveform, SAMPLE_RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(text: str) -> None:
    """What the page does before an example: it writes the files that the example reads."""
    if "towers/" in text:
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        answer("export", "--onnx", "towers", "-L", "my-library")
    if "queries.parquet" in text:
        answer("evaluate", "-L", "my-library", "--set", "evaluate.baselines=[]")
    if "listeners.parquet" in text:
        answer(
            "export",
            "--vectors",
            "tracks.parquet",
            "--listeners",
            "listeners.parquet",
            "-L",
            "my-library",
        )


@pytest.mark.slow
@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("block", _of("python"))
def test_every_python_example_runs(block: Block) -> None:
    prepare(block.text)
    exec(compile(block.text, f"line {block.line}", "exec"), {"__name__": "example"})


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("ponticello search x --blnd 0.3", "No such option"),
        ("ponticello serch x", "No such command"),
        ("ponticello search x --blend 3", "less than or equal to 1"),
        ("ponticello train semantics", "No such command"),
        ("torchrun --nproc-per-node 2 -m ponticello train semantic --nothing", "No such option"),
        ("make nothing", "nothing"),
        ("make test NOTHING=1", "NOTHING"),
        ("python bench/pairs.py --evnts 3", "evnts"),
        ("pip install 'ponticello[nothing]'", "nothing"),
        ("curl http://example.org", "mark the block"),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        check(command)
