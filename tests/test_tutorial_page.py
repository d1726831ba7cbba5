"""docs/tutorial.md, walked on a part of its music: every command does its work, and says it in the
page's words.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.pages import answer, blocks_of, commands

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
HEARD = ("hyperrogue-hr-*", "hyperrogue-hr3-caves*", "hyperrogue-hr3-icyland*", "widelands-*")
ASKED = {"search", "similar", "recommend", "audience"}


def _said(lines: list[str]) -> list[str]:
    """The lines without numbers, names of generations, and what was found: what a command says
    anywhere.
    """
    plain = [re.sub(r"index/[0-9a-f]{16}", "index/#", line) for line in lines]
    return [re.sub(r"\d[\d,.]*", "#", line.split("most frequent:")[0]) for line in plain]


@pytest.mark.slow
def test_the_way_from_a_folder_to_recommendations_goes_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer tracks give other numbers: answers are compared by length, all else by its words."""
    monkeypatch.chdir(tmp_path)
    music = tmp_path / "demo" / "audio"
    music.mkdir(parents=True)
    for pattern in HEARD:
        for file in (ROOT / "demo" / "audio").glob(f"{pattern}.opus"):
            shutil.copy(file, music)
    n_commands = 0
    for block in blocks_of(PAGE.read_text(encoding="utf-8")):
        if block.name:
            (tmp_path / block.name).write_text(block.text, encoding="utf-8")
        if block.language != "console" or "-L demo-library" in block.text:
            continue
        for command, shown in commands(block.text):
            arguments = shlex.split(command)[1:]
            printed = answer(*arguments).replace(f"{tmp_path.resolve()}/", "").splitlines()
            if arguments[0] in ASKED:
                assert printed[0] == shown[0], command
                assert 1 < len(printed) <= len(shown), command
            else:
                assert _said(printed) == _said(shown), command
            n_commands += 1
    assert n_commands >= 12
