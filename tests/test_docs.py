"""What the docs say of the code: settings that exist with their defaults, files and names that
exist.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from ponticello.config import PRESETS, Config, ConfigSection

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ponticello"
PAPER = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def _settings() -> dict[str, Any]:
    """{"section.name": default} of every setting there is."""
    found: dict[str, Any] = {}
    config = Config()
    for section in Config.model_fields:
        value = getattr(config, section)
        if isinstance(value, ConfigSection):
            found |= {
                f"{section}.{name}": default
                for name, default in value.model_dump(mode="json").items()
            }
        else:
            found[section] = value
    return found


def _documented() -> dict[str, list[Any]]:
    """{"section.name": the TOML values in its default cell} of every row of docs/config.md."""
    found: dict[str, list[Any]] = {}
    sections = [""]
    for line in (ROOT / "docs" / "config.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections = [f"{section}." for section in re.findall(r"\[(\w+)\]", line)] or [""]
        elif row := re.match(r"\| `(\w+)` \| ([^|]+) \|", line):
            cells = [tomllib.loads(f"x = {cell}")["x"] for cell in re.findall("`([^`]+)`", row[2])]
            found |= {f"{section}{row[1]}": cells for section in sections}
    return found


def test_every_setting_is_documented_and_no_other() -> None:
    assert sorted(_documented()) == sorted(_settings())


def test_every_documented_default_is_the_real_one() -> None:
    documented = _documented()
    assert [name for name, default in _settings().items() if default not in documented[name]] == []


def test_every_file_the_paper_page_names_exists_and_holds_the_name_beside_it() -> None:
    named = re.findall(
        r"`([\w./-]+\.(?:py|md|toml|json|safetensors))(?:::([\w.]+))?`(?: `(\w+)`)?", PAPER
    )
    named += [(f"docs/{link}", "", "") for link in re.findall(r"\]\(([\w.]+\.md)", PAPER)]
    assert len(named) > 40
    for file, name, setting in named:
        places = [place for place in (PACKAGE / file, ROOT / file) if place.is_file()]
        assert places, f"docs/paper.md names {file}, which does not exist"
        for word in (*name.split("."), setting):
            assert re.search(rf"\b{word}\b", places[0].read_text(encoding="utf-8")), (
                f"{file} holds no {word}"
            )


def test_the_paper_page_tells_every_preset() -> None:
    header = next(line for line in PAPER.splitlines() if line.startswith("| | `"))
    assert re.findall(r"`(\w+)`", header) == list(PRESETS)
