"""What a release is made of: the wheel and the source archive, built here and looked into, and the
wheel at work.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_BYTES = 12 * 2**20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive, built without a network from what is here."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(place.glob("*.whl")), next(place.glob("*.tar.gz"))


def _carried(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_is_small_and_holds_what_the_package_needs(built: tuple[Path, Path]) -> None:
    wheel, _ = built
    assert wheel.stat().st_size < MOST_BYTES
    package = ROOT / "src"
    wanted = {
        path.relative_to(package).as_posix()
        for path in (package / "ponticello").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    carried = {name for name in _carried(wheel) if not name.split("/")[0].endswith(".dist-info")}
    assert carried == wanted
    assert "ponticello/py.typed" in carried
    assert "ponticello/serve/explorer/index.html" in carried
    with zipfile.ZipFile(wheel) as archive:
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "ponticello = ponticello.cli.main:main" in archive.read(points).decode()


def test_wheel_carries_every_licence(built: tuple[Path, Path]) -> None:
    licences = {
        name.partition("licenses/")[2] for name in _carried(built[0]) if "/licenses/" in name
    }
    assert licences == {"LICENSE", "NOTICE", "src/ponticello/features/weights/LICENSE.musicnn"}


def test_source_archive_holds_the_tests_and_docs_and_nothing_that_was_made(
    built: tuple[Path, Path],
) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert {
        "src",
        "tests",
        "docs",
        "bench",
        "demo",
        "LICENSE",
        "NOTICE",
        "CHANGELOG.md",
        "Makefile",
    } <= tops
    made = re.compile(r"(-library|-bench|bench-results|__pycache__|\.venv|dist)(/|$)")
    assert [name for name in names if made.search(name)] == []


def test_wheel_works_in_an_environment_of_its_own(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Its dependencies are those of this environment; the package itself is the wheel's, and not
    the source's.
    """
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(own)
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = venv / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        command = [str(python), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import ponticello; print(ponticello.__file__)").strip()).is_relative_to(
        own
    )
    assert "scan" in run("-m", "ponticello", "--help")
    run("-m", "ponticello", "init", "my-library")
    (tmp_path / "tracks.csv").write_text("track_id,title\na,One\nb,Two\n", encoding="utf-8")
    assert "2 tracks new" in run(
        "-m", "ponticello", "import-tracks", "tracks.csv", "-L", "my-library"
    )


def test_notice_names_everything_in_the_package_that_others_made() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    weights = [*(ROOT / "src/ponticello").glob("*/weights/*")]
    for path in weights:
        if path.suffix in (".safetensors", ".json") or path.name.startswith("LICENSE"):
            assert path.relative_to(ROOT).as_posix() in notice, path.name


def test_every_hint_at_an_extra_names_one_that_exists() -> None:
    extras = set(PROJECT["optional-dependencies"])
    named = set()
    for path in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r"ponticello\[(\w+)\]", path.read_text(encoding="utf-8")))
    assert {"av", "faiss", "postgres", "onnx", "ray", "spark"} <= named
    assert named <= extras


def test_versions_agree() -> None:
    import ponticello

    assert ponticello.__version__ == PROJECT["version"]
