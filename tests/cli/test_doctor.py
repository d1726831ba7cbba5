"""doctor as it is typed: what it prints, and how it ends."""

import json

from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.library import Library
from tests.cli.commands import out


def test_errors_are_printed_with_what_to_do_and_fail_the_command(trained_copy: Library) -> None:
    (trained_copy.folder.index / "CURRENT").write_text("nothing\n")
    result = CliRunner().invoke(app, ["doctor", "-L", str(trained_copy.folder.root)])
    assert result.exit_code == 1
    assert "ERROR    index/" in result.stdout
    assert "  do: " in result.stdout
    assert "ok       tracks.parquet: 60 tracks, 60 with their audio file" in result.stdout
    listed = CliRunner().invoke(app, ["doctor", "-L", str(trained_copy.folder.root), "--json"])
    assert listed.exit_code == 1
    told = json.loads(listed.stdout)
    assert told["worst"] == "error"
    assert {"severity", "what", "where", "do"} == set(told["findings"][0])


def test_the_machine_alone_needs_no_library() -> None:
    printed = out("doctor", "--environment-only")
    assert "decoded and checked: wav, flac" in printed
    assert "0 errors, 0 warnings" in printed
