"""The scan benchmark: files that are all different, and a table of what was measured."""

import re
import sys
from pathlib import Path

import pytest

import scan as bench
from ponticello.audio.tags import read_facts


def test_files_are_all_different_and_tagged(tmp_path: Path) -> None:
    bench.make_music(tmp_path, 12, seed=0)
    facts = {path.name: read_facts(path) for path in tmp_path.rglob("*.*")}
    assert len({found.content_hash for found in facts.values()}) == 12
    assert facts["000004.flac"].tags["title"] == "Title 4"
    assert facts["000005.mp3"].tags["genres"] == ["Jazz", "Soul"]
    assert all(found.tags["duration_s"] == pytest.approx(0.2, abs=0.06) for found in facts.values())


def test_bench_measures_three_scans(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "FILES_A_FOLDER", 2)  # 20 files an artist, whose folder is renamed
    monkeypatch.setattr(sys, "argv", ["scan.py", "--files", "40", "--workers", "1"])
    bench.main()
    rows = [
        line.split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if re.match(r"\| (first|again|after)", line)
    ]
    assert [row[3:] for row in rows] == [
        ["40", "0", "0", "0 |"],
        ["0", "0", "0", "40 |"],
        ["0", "2", "20", "18 |"],
    ]
    assert all(float(row[1]) > 0 and float(row[2]) > 20 for row in rows)
