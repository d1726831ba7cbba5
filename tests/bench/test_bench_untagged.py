"""The untagged benchmark's parts: what the library is told, what it is asked to do, and what is printed."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "untagged.py"
ROWS = [
    {"file": f"audio/{number}.opus", "title": title, "title_from_file": "from file", "game": "Chess", "genre": "Rock"}
    for number, title in enumerate(["Opening", "", "Mate"])
]


@pytest.fixture
def untagged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("untagged", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "untagged", module)
    spec.loader.exec_module(module)
    return module


def test_the_library_is_told_a_number_and_a_path_and_nothing_else(untagged: Any, tmp_path: Path) -> None:
    table = untagged.bare_table({"track-0001": ROWS[0], "track-0002": ROWS[2]}, tmp_path)
    root = tmp_path.resolve() / "audio"
    assert table == f"track_id,path\ntrack-0001,{root / '0.opus'}\ntrack-0002,{root / '2.opus'}\n"


def test_the_sample_comes_from_the_seed_and_keeps_the_tables_order(untagged: Any) -> None:
    rows = [{"file": str(number)} for number in range(50)]
    some = untagged.sampled(rows, 3, seed=0)
    assert list(some) == ["track-0001", "track-0002", "track-0003"]
    places = [int(row["file"]) for row in some.values()]
    assert places == sorted(places)
    assert some == untagged.sampled(rows, 3, seed=0)
    assert some != untagged.sampled(rows, 3, seed=1)
    assert len(untagged.sampled(rows, 500, seed=0)) == 50


def test_the_commands_are_those_of_the_readme_in_its_order(untagged: Any) -> None:
    commands = untagged.steps(Path("tracks.csv"), Path("my-library"))
    readme = (SCRIPT.parents[1] / "README.md").read_text(encoding="utf-8")
    places = [readme.find(f"ponticello {' '.join(command[: 1 + (command[0] == 'train')])} ") for command in commands]
    assert places == sorted(places)
    assert -1 not in places
    assert all("my-library" in command for command in commands)


def test_the_times_add_up_and_are_held_against_what_is_wished_for(untagged: Any) -> None:
    lines = untagged.times_table([("prepare", 600.04), ("search", 9.0)])
    assert lines[2:] == ["| `prepare` | 600.0 |", "| `search` | 9.0 |", "| all | 609.0 (10.2 min, within 12) |"]
    assert untagged.times_table([("prepare", 721.0)])[-1] == "| all | 721.0 (12.0 min, **above** 12) |"


def test_an_answer_stands_beside_its_tags_and_what_it_really_is(untagged: Any) -> None:
    known = {"a": ROWS[0], "b": ROWS[1]}
    answers = [{"track_id": "b", "score": 1.236}, {"track_id": "a", "score": -0.5}]
    lines = untagged.answers_table(answers, {"a": [], "b": ["piano", "slow"]}, known)
    assert lines[2:] == ["| 1.24 | piano, slow | from file, Chess |", "| -0.50 | (none) | Opening, Chess |"]


def test_a_command_that_fails_ends_the_measurement(untagged: Any, tmp_path: Path) -> None:
    output, _ = untagged.run(["init", str(tmp_path / "new")])
    assert output.startswith(f"made {tmp_path / 'new'} with preset small")
    with pytest.raises(untagged.subprocess.CalledProcessError):
        untagged.run(["prepare", "-L", str(tmp_path / "nowhere")])
