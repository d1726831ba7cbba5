"""import-history: receipts, the same answer as JSON, what options say, and listeners under their
names.
"""

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from ponticello.errors import PonticelloError
from ponticello.listening.log import read_interactions
from ponticello.storage.layout import LibraryPaths, create_library
from tests.cli.commands import error, out


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    made = create_library(tmp_path / "lib", "tiny")
    table = _write(
        tmp_path / "t.csv", "track_id,title,artist", "a,Blue Hour,The Owls", "b,Kindling,Ada"
    )
    out("import-tracks", table, "-L", made.root)
    return made


def test_table_counts_events_once_and_keeps_those_of_unknown_tracks(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    """Line 3 repeats line 2, line 4's track is unknown, line 5's time is no time."""
    log = _write(
        tmp_path / "log.csv",
        "user_id,track_id,played_at",
        "ada,a,2024-01-01T10:00:00Z",
        "ada,a,2024-01-01T10:00:00Z",
        "ada,z,2024-01-01T10:05:00Z",
        "ada,b,yesterday",
        "bob,b,1704103200",
    )
    assert out("import-history", log, "-L", folder.root).splitlines() == [
        "4 events from 1 file (table)",
        "3 of 4 events matched (75.0%): 3 by track id",
        f"2 events new, 1 kept without a track (see {folder.root / 'unmatched.csv'}), "
        f"1 skipped (see {folder.skipped}); 2 in {folder.interactions}",
    ]
    assert [
        (row["step"], row["line"], row["field"], row["value"]) for row in _rows(folder.skipped)
    ] == [("import-history", "5", "played_at", "yesterday")]
    assert [
        (row["events"], row["track_id"], row["reason"])
        for row in _rows(folder.root / "unmatched.csv")
    ] == [("1", "z", "track is not in the catalogue")]
    again = json.loads(out("import-history", log, "--json", "-L", folder.root))
    assert {
        name: again[name] for name in ("n_new", "n_updated", "n_skipped", "n_total", "n_kept")
    } == {"n_new": 0, "n_updated": 0, "n_skipped": 1, "n_total": 2, "n_kept": 1}
    assert (again["matched"], again["match_rate"]) == ({"track_id": 3}, 0.75)


def test_event_counts_once_its_track_is_there(folder: LibraryPaths, tmp_path: Path) -> None:
    out(
        "import-history",
        _write(tmp_path / "l.csv", "user_id,track_id,played_at", "u,z,2024-01-01"),
        "-L",
        folder.root,
    )
    out("import-tracks", _write(tmp_path / "more.csv", "track_id", "z"), "-L", folder.root)
    assert out("import-history", "--retry-unmatched", "-L", folder.root).splitlines() == [
        "1 events of earlier imports matched",
        f"1 events new, none skipped; 1 in {folder.interactions}",
    ]
    assert not (folder.root / "unmatched.csv").exists()
    assert not (folder.root / "unmatched-history.parquet").exists()


def test_plain_users_keep_their_names(folder: LibraryPaths, tmp_path: Path) -> None:
    table = tmp_path / "log.parquet"
    pl.DataFrame({"listener": ["ada"], "track_id": ["a"], "ts": [1_704_103_200]}).write_parquet(
        table
    )
    columns = ["--columns", "user_id=listener", "--columns", "played_at=ts"]
    printed = out("import-history", table, *columns, "--no-pseudonyms", "-L", folder.root)
    assert printed.splitlines()[-1] == f"1 events new, none skipped; 1 in {folder.interactions}"
    assert read_interactions(folder)["user_id"].to_list() == ["ada"]
    assert not (folder.root / "user-salt.txt").exists()


def test_users_are_hashed_and_further_columns_left_out(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    table = _write(
        tmp_path / "l.csv",
        "user_id,track_id,played_at,ip,country,device",
        "ada,a,2024-01-01,10.0.0.1,SE,x",
    )
    assert (
        "columns not imported: ip, country, device"
        in out("import-history", table, "-L", folder.root).splitlines()
    )
    log = read_interactions(folder)
    assert not {"ip", "country", "device"} & set(log.columns)
    assert log["user_id"].str.contains("^user-[0-9a-f]{20}$").all()


def test_export_of_one_person_is_under_the_name_given(folder: LibraryPaths, tmp_path: Path) -> None:
    export = _write(tmp_path / "s.csv", "Owls,Night,Blue Hour,31 Dec 2019 23:59")
    assert out("import-history", export, "--user", "alice", "-L", folder.root).splitlines() == [
        '1 events of one listener, "alice" from 1 file (lastfm)',
        "1 of 1 events matched (100.0%): 1 by artist and title",
        f"1 events new, none skipped; 1 in {folder.interactions}",
    ]


def test_local_dates_are_read_in_their_zone(folder: LibraryPaths, tmp_path: Path) -> None:
    export = _write(tmp_path / "s.csv", "Owls,Night,Blue Hour,01 Jul 2020 12:00")
    out("import-history", export, "--timezone", "Europe/Berlin", "-L", folder.root)
    assert read_interactions(folder)["played_at"].dt.to_string("%H:%M").to_list() == ["10:00"]


def test_history_before_any_tracks_says_what_comes_first(tmp_path: Path) -> None:
    empty = create_library(tmp_path / "empty", "tiny")
    log = _write(tmp_path / "log.csv", "user_id,track_id,played_at", "ada,a,2024-01-01")
    message = error(PonticelloError, "import-history", log, "-L", empty.root)
    assert message == f"{empty.root} has no tracks; run: ponticello scan MUSIC -L {empty.root}"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (
            ["--columns", "track_id"],
            "--columns 'track_id' must look like ours=theirs, such as track_id=id",
        ),
        (
            ["--format", "cassette"],
            "--format 'cassette' is unknown; use one of listenbrainz, spotify, lastfm, ",
        ),
        (
            ["--timezone", "Mars/Base"],
            "--timezone 'Mars/Base' is unknown; use a name such as Europe/Berlin",
        ),
        (["--retry-unmatched"], "import-history needs a path, or --retry-unmatched without one"),
        (["--user", "ada"], "log.csv names its listeners itself; leave --user out"),
        (
            ["--columns", "mood=x"],
            "--columns mood=...: there is no such column of a history; use one of user_id, ",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    folder: LibraryPaths, tmp_path: Path, options: list[str], wanted: str
) -> None:
    log = _write(tmp_path / "log.csv", "user_id,track_id,played_at", "ada,a,2024-01-01")
    assert error(PonticelloError, "import-history", log, *options, "-L", folder.root).startswith(
        wanted
    )
    assert not folder.interactions.exists()


def test_table_without_listeners_says_how_to_name_them(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    log = _write(tmp_path / "log.csv", "track_id,played_at", "a,2024-01-01")
    message = error(PonticelloError, "import-history", log, "-L", folder.root)
    assert message.startswith(
        "log.csv: column 'user_id' is missing; pass --columns user_id=COLUMN, or --user NAME"
    )
    out("import-history", log, "--user", "ada", "-L", folder.root)
    assert read_interactions(folder).height == 1
