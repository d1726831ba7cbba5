"""embed, search, similar, recommend: the same answers as in Python, as a table and as JSON."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.library import Library
from ponticello.listening.log import read_interactions
from ponticello.search.results import Result
from ponticello.storage.schema import PATH, TRACK_ID, USER_ID
from ponticello.tracks.catalog import audio_path
from tests.cli.commands import error, out

USER = "simulated-0000"
QUESTIONS = {"search": "low dark slow", "similar": "track-0007", "recommend": USER}
ROW = re.compile(r" *(\d+) +(-?\d+\.\d\d) = +(-?\d+\.\d\d) \+ +(-?\d+\.\d\d)   (.+), (.+) \[(.+)\]")


def _strict(text: str) -> Any:
    """JSON as every reader takes it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _answer(library: Library, command: str, **options: Any) -> Sequence[Result]:
    found: Sequence[Result] = getattr(library, command)(QUESTIONS[command], **options)
    return found


def _assert_same(printed: Sequence[dict[str, Any]], wanted: Sequence[Result]) -> None:
    assert len(printed) == len(wanted)
    for row, result in zip(printed, wanted, strict=True):
        expected = asdict(result)
        assert row.pop("tags") == list(expected.pop("tags"))
        assert row == pytest.approx(expected, abs=1e-4)


# embed


def test_embedding_again_says_that_nothing_was_new(trained_copy: Library) -> None:
    folder = trained_copy.folder
    printed = out("embed", "-L", folder.root)
    generation = (folder.index / "CURRENT").read_text(encoding="utf-8").strip()
    assert printed == (
        "60 tracks embedded (semantic and preference), 0 vectors new; "
        f"in {folder.index / generation}\n"
    )


def test_embedding_computes_what_is_missing_with_a_bar_on_stderr(trained_copy: Library) -> None:
    folder = trained_copy.folder
    shutil.rmtree(folder.run("preference") / "vectors")
    result = CliRunner().invoke(app, ["embed", "-L", str(folder.root), "--json"])
    assert result.exit_code == 0, result.output
    generation = (folder.index / "CURRENT").read_text(encoding="utf-8").strip()
    wanted = {
        "n_tracks": 60,
        "n_new": 60,
        "index": generation,
        "semantic": "semantic",
        "preference": True,
        "one_space": "",
    }
    assert json.loads(result.stdout) == wanted
    assert "embedding" in result.stderr
    assert "60/60" in result.stderr


def test_embedding_before_stage_two_says_that_taste_is_missing(trained_copy: Library) -> None:
    folder = trained_copy.folder
    shutil.rmtree(folder.run("preference"))
    printed = out("embed", "-L", folder.root)
    assert printed.startswith("60 tracks embedded (semantic only), 0 vectors new; in ")
    reason = (
        "there is one space and no blend: stage two is not trained; run: ponticello train "
        "preference, then ponticello embed"
    )
    assert printed.splitlines()[1] == reason
    assert "pref" not in out("search", "low", "-L", folder.root)
    message = error(LibraryError, "search", "low", "-L", folder.root, "--blend", "0.5")
    assert message == f"blend must be 0: {reason}"


@pytest.mark.parametrize("option", ["--semantic", "--preference"])
def test_embedding_with_a_run_that_is_not_there_is_refused(
    trained_copy: Library, option: str
) -> None:
    message = error(CheckpointError, "embed", "-L", trained_copy.folder.root, option, "nope")
    assert (
        message
        == f"{trained_copy.folder.run('nope')} holds no model; train it with: ponticello train"
    )


def test_embedding_waits_for_nobody(trained_copy: Library) -> None:
    with trained_copy.folder.lock():
        message = error(LibraryError, "embed", "-L", trained_copy.folder.root)
    assert message.startswith(f"{trained_copy.folder.root} is being written by another process")


# search, similar, recommend


@pytest.mark.parametrize("command", QUESTIONS)
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, []),
        ({"k": 3, "blend": 0.0}, ["-k", "3", "--blend", "0"]),
        ({"k": 60, "blend": 1.0}, ["-k", "60", "--blend", "1"]),
        (
            {"k": 8, "blend": 0.3, "per_artist": 1},
            ["-k", "8", "--blend", "0.3", "--per-artist", "1"],
        ),
        ({"where": ["tags=low"]}, ["--where", "tags=low"]),
        ({"where": ["tags=low", "title~1"]}, ["--where", "tags=low", "--where", "title~1"]),
    ],
    ids=["defaults", "meaning", "taste", "per-artist", "where", "two-filters"],
)
def test_json_is_what_python_gives(
    trained: Library, command: str, options: dict[str, Any], arguments: list[str]
) -> None:
    printed = _strict(
        out(command, QUESTIONS[command], "-L", trained.folder.root, "--json", *arguments)
    )
    assert list(printed[0]) == [
        "rank",
        "track_id",
        "title",
        "artist",
        "score",
        "semantic",
        "preference",
        "album",
        "path",
        "duration_s",
        "tags",
    ]
    _assert_same(printed, _answer(trained, command, **options))


@pytest.mark.parametrize("command", QUESTIONS)
def test_table_has_the_same_rows_and_each_score_is_the_sum_of_its_parts(
    trained: Library, command: str
) -> None:
    header, *rows = out(
        command, QUESTIONS[command], "-L", trained.folder.root, "-k", "7"
    ).splitlines()
    assert header.split() == ["score", "=", "sem", "+", "pref", "title,", "artist", "[track", "id]"]
    wanted = _answer(trained, command, k=7)
    assert len(rows) == len(wanted) == 7
    for row, result in zip(rows, wanted, strict=True):
        match = ROW.fullmatch(row)
        assert match, row
        rank, score, semantic, preference, *names = match.groups()
        assert (int(rank), *names) == (result.rank, result.title, result.artist, result.track_id)
        assert [float(score), float(semantic)] == pytest.approx(
            [result.score, result.semantic], abs=0.0051
        )
        assert float(preference) == pytest.approx(result.preference, abs=0.0101)
        assert Decimal(score) == Decimal(semantic) + Decimal(preference)


def test_filters_and_artists_hold(trained: Library) -> None:
    tags = dict(trained.tracks.select(TRACK_ID, "tags").iter_rows())
    arguments = [
        "-L",
        trained.folder.root,
        "--json",
        "-k",
        20,
        "--where",
        "tags=low",
        "--per-artist",
        1,
    ]
    printed = json.loads(out("search", "low", *arguments))
    assert printed
    assert all("low" in tags[row["track_id"]] for row in printed)
    artists = [row["artist"] for row in printed]
    assert len(set(artists)) == len(artists)


def test_recommendations_leave_out_what_the_listener_met(trained: Library) -> None:
    log = read_interactions(trained.folder)
    met = set(log.filter(pl.col(USER_ID) == USER)[TRACK_ID])
    printed = json.loads(out("recommend", USER, "-L", trained.folder.root, "--json", "-k", 60))
    assert {row["track_id"] for row in printed} == set(trained.index.track_ids) - met


def test_similar_takes_an_audio_file(trained: Library) -> None:
    (path,) = trained.tracks.filter(pl.col(TRACK_ID) == "track-0007")[PATH]
    file = audio_path(trained.folder, path)
    printed = json.loads(out("similar", file, "-L", trained.folder.root, "--json", "--blend", 0))
    assert printed[0]["track_id"] == "track-0007"


@pytest.mark.parametrize("command", QUESTIONS)
def test_nothing_found_is_said_and_is_an_empty_list(trained: Library, command: str) -> None:
    arguments = [command, QUESTIONS[command], "-L", trained.folder.root, "--where", "artist=nobody"]
    assert out(*arguments) == "no tracks found\n"
    assert json.loads(out(*arguments, "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["similar", "track-9999"],
            "'track-9999' is neither a track of the index nor an audio file",
        ),
        (
            ["recommend", "nobody"],
            "listener 'nobody' is not in the log; check the id, or run: ponticello import-history",
        ),
        (["search", " "], "the search text is empty; say what the music should be like"),
        (
            ["search", "low", "--where", "tags"],
            "filter 'tags' must look like column=value (also != < <= > >=, ~ for contains)",
        ),
    ],
)
def test_question_that_cannot_be_answered_is_one_line(
    trained: Library, arguments: list[str], message: str
) -> None:
    assert error(DataError, *arguments, "-L", trained.folder.root) == message


def test_filter_on_an_unknown_column_names_the_columns(trained: Library) -> None:
    message = error(DataError, "search", "low", "--where", "mood=sad", "-L", trained.folder.root)
    assert message.startswith("filter 'mood=sad': there is no column 'mood'; found track_id, ")


@pytest.mark.parametrize("command", QUESTIONS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--blend", "1.01"),
        ("--blend", "-0.1"),
        ("--blend", "half"),
        ("-k", "0"),
        ("-k", "x"),
        ("--per-artist", "0"),
    ],
)
def test_value_out_of_range_is_a_usage_error_that_names_the_option(
    trained_root: Path, command: str, option: str, value: str
) -> None:
    result = CliRunner().invoke(
        app, [command, QUESTIONS[command], "-L", str(trained_root), option, value]
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{option}'" in result.stderr


def test_title_cannot_rewrite_the_terminal(trained_copy: Library, tmp_path: Path) -> None:
    """A title that clears the screen, comes in by import, and is shown without its control
    characters.
    """
    table = tmp_path / "titles.csv"
    table.write_text(
        "track_id,title,artist\ntrack-0007,a\x1b[2Jb,\x9b31mc\u202e\n", encoding="utf-8"
    )
    out("import-tracks", table, "-L", trained_copy.folder.root)
    printed = out("search", "low", "-L", trained_copy.folder.root, "-k", 60)
    assert "a\ufffd[2Jb, \ufffd31mc\ufffd [track-0007]" in printed
    assert [
        character for character in printed if not character.isprintable() and character != "\n"
    ] == []
