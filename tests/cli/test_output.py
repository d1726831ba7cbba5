"""Shared output of commands: results, JSON, bars; no title can rewrite a terminal."""

import json
import re
import unicodedata
from contextlib import redirect_stdout
from dataclasses import asdict
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponticello.cli.output import (
    print_json,
    print_results,
    progress,
    skipped_note,
    strip_control_chars,
)
from ponticello.search.results import Result
from ponticello.storage.layout import create_library

RESULTS = [
    Result(1, "t1", "Blue Hour", "Ada", 1.234, 1.0, 0.234),
    Result(2, "t2", None, None, -0.5, 0.25, -0.75),
    Result(3, "t\x1b3", "a\x1b[31m\u202eb\nc", "\x9bd", 0.0, 0.0, 0.0),
]


def test_results_are_rank_score_and_its_parts_title_artist_and_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_results(RESULTS[:2], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "      score =    sem +   pref   title, artist [track id]",
        "  1    1.23 =   1.00 +   0.23   Blue Hour, Ada [t1]",
        "  2   -0.50 =   0.25 +  -0.75   (untitled) [t2]",
    ]


@given(
    st.floats(-9, 9, allow_nan=False).filter(lambda value: value != 0),
    st.floats(-9, 9, allow_nan=False),
)
def test_printed_components_add_up_to_the_printed_score(preference: float, semantic: float) -> None:
    """To the last digit, where each of them rounded by itself can be off by 0.01."""
    score = semantic + preference
    row = Result(1, "t1", "Blue Hour", "Ada", score, semantic, preference)
    with redirect_stdout(StringIO()) as printed:
        print_results([row], as_json=False)
    shown = re.findall(r"-?\d+\.\d\d(?= )", printed.getvalue())
    shown_score, shown_semantic, shown_preference = map(Decimal, shown)
    assert shown_score == shown_semantic + shown_preference
    assert float(shown_score) == pytest.approx(score, abs=0.005001)
    assert float(shown_semantic) == pytest.approx(semantic, abs=0.005001)
    assert float(shown_preference) == pytest.approx(preference, abs=0.010001)
    assert "-0.00" not in printed.getvalue()


def test_without_preference_the_score_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([Result(1, "t1", "Blue Hour", "Ada", 1.0, 1.0, 0.0)], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "      score   title, artist [track id]",
        "  1    1.00   Blue Hour, Ada [t1]",
    ]


def test_results_hold_no_control_character_of_a_files_tags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_results(RESULTS, as_json=False)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 4
    assert [c for c in printed if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"] == []
    assert printed.endswith("a\ufffd[31m\ufffdb\ufffdc, \ufffdd [t\ufffd3]\n")


def test_no_results_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([], as_json=False)
    assert capsys.readouterr().out == "no tracks found\n"


@pytest.mark.parametrize("results", [RESULTS, []])
def test_results_as_json_come_back_as_they_were(
    results: list[Result], capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(results, as_json=True)
    rows = [{**asdict(result), "tags": list(result.tags)} for result in results]
    assert json.loads(capsys.readouterr().out) == rows


def test_json_keeps_letters_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"title": "Für Élise 夜"})
    assert capsys.readouterr().out == '{\n "title": "Für Élise 夜"\n}\n'


@pytest.mark.parametrize("text", ["Für Élise", "夜想曲", "a b, c.", ""])
def test_clean_leaves_printable_text_as_it_is(text: str) -> None:
    assert strip_control_chars(text) == text


def test_clean_replaces_every_control_character() -> None:
    controls = "".join(map(chr, [*range(32), *range(127, 160), 0x200B, 0x2028, 0x202E]))
    assert strip_control_chars(controls) == "\N{REPLACEMENT CHARACTER}" * len(controls)


def test_bar_is_on_stderr_with_title_count_and_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("tracks") as report:
        report("embedding", 1, 3)
        report("embedding", 3, 3)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "embedding" in printed.err
    assert "3/3" in printed.err


def test_bar_tells_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that the test moves: 50 tracks in half a second are 100 a second."""
    now = [100.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    with progress("tracks") as report:
        report("preparing", 0, 200)
        for done in (50, 100):
            now[0] += 0.5
            report("preparing", done, 200)
        report("preparing", 100, 200)
    assert "100 tracks/s" in capsys.readouterr().err


def test_note_on_what_was_skipped_names_the_file(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    assert skipped_note(0, folder) == ", none skipped"
    assert skipped_note(1234, folder) == f", 1,234 skipped (see {folder.skipped})"
