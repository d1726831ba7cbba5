"""import_history from file to log: each event once, what waits for its track, whose it is, and what
is never kept.
"""

import csv
import json
import sqlite3
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.listening.importers import run as module
from ponticello.listening.importers.run import import_history
from ponticello.listening.log import add_events, read_interactions
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.storage.tables import read_parquet
from ponticello.tracks import catalog
from ponticello.tracks.catalog import import_tracks

MBID = "11111111-2222-4333-8444-555555555555"
LATER = (("Kindling", "Ada"), ("Later Song", "The Owls"))
MSID = "aaaaaaaa-2222-4333-8444-555555555555"


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    library = create_library(tmp_path / "library", "tiny")
    table = tmp_path / "tracks.csv"
    table.write_text(
        f"track_id,title,artist,mbid\na,Blue Hour,The Owls,{MBID}\nb,Kindling,Ada,\n",
        encoding="utf-8",
    )
    import_tracks(library, table)
    return library


def _spotify(ts: str, ms: int, title: str = "Blue Hour", **more: Any) -> dict[str, Any]:
    row = {
        "ts": ts,
        "ms_played": ms,
        "spotify_track_uri": "spotify:track:4abcDEF",
        "master_metadata_track_name": title,
        "master_metadata_album_artist_name": "The Owls",
        "master_metadata_album_album_name": None,
        "reason_end": "trackdone",
        "skipped": False,
        "ip_addr_decrypted": "203.0.113.7",
        "conn_country": "ZZ",
        "platform": "secret-telephone",
        "username": "secret-name",
        "user_agent_decrypted": "secret-agent",
    }
    return row | more


def _json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def _log(folder: LibraryPaths) -> list[tuple[Any, ...]]:
    return read_interactions(folder).select("track_id", "event", "played_s").rows()


def test_nothing_of_addresses_devices_and_names_reaches_the_library(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    export = tmp_path / "my_spotify_data.zip"
    rows = [
        _spotify("2023-05-01T14:05:17Z", 200_000),
        _spotify("2023-05-01T14:15:17Z", 1000, "Unknown Song"),
    ]
    with zipfile.ZipFile(export, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Streaming_History_Audio_2023.json", json.dumps(rows))
        archive.writestr("Identity.json", json.dumps({"displayName": "secret-name"}))
    done = import_history(folder, export, user="secret-listener")
    assert (done.n_new, done.n_kept, done.ignored_files, done.user) == (
        1,
        1,
        ["Identity.json"],
        "secret-listener",
    )
    frames = [pl.read_parquet(path) for path in folder.root.glob("*.parquet")]
    written = " ".join(frame.write_csv() for frame in frames) + (
        folder.root / "unmatched.csv"
    ).read_text("utf-8")
    assert not [word for word in ("secret", "203.0.113.7", "ZZ") if word in written]
    assert (folder.root / "user-salt.txt").stat().st_mode & 0o777 == 0o600


def test_same_and_overlapping_exports_add_nothing(folder: LibraryPaths, tmp_path: Path) -> None:
    rows = [_spotify(f"2023-05-01T1{hour}:05:17Z", 200_000 + hour) for hour in range(6)]
    first = import_history(folder, _json(tmp_path / "1.json", rows[:4]))
    assert (first.n_new, first.n_total) == (4, 4)
    assert import_history(folder, tmp_path / "1.json").n_new == 0
    assert import_history(folder, _json(tmp_path / "2.json", rows[2:])).n_new == 2


@pytest.mark.parametrize("is_short_first", [True, False])
def test_short_and_extended_history_tell_one_play(
    folder: LibraryPaths, tmp_path: Path, is_short_first: bool
) -> None:
    extended = _json(tmp_path / "e.json", [_spotify("2023-05-01T14:05:17Z", 200_000)])
    short = [
        {
            "endTime": "2023-05-01 14:05",
            "artistName": "The Owls",
            "trackName": "Blue Hour",
            "msPlayed": 200_000,
        }
    ]
    paths = [_json(tmp_path / "s.json", short), extended]
    assert [
        import_history(folder, path).n_new for path in (paths if is_short_first else paths[::-1])
    ] == [1, 0]


@pytest.mark.parametrize("is_scrobble_first", [True, False])
def test_scrobble_within_a_play_is_that_play(
    folder: LibraryPaths, tmp_path: Path, is_scrobble_first: bool
) -> None:
    """The play ended at 14:05:17 after 200 s, so it began at 14:01:57; one scrobble fits, one is an
    hour later.
    """
    spotify = _json(tmp_path / "e.json", [_spotify("2023-05-01T14:05:17Z", 200_000)])
    scrobbles = tmp_path / "l.csv"
    scrobbles.write_text(
        "The Owls,,Blue Hour,01 May 2023 14:02\nThe Owls,,Blue Hour,01 May 2023 15:02\n"
    )
    for path in [scrobbles, spotify] if is_scrobble_first else [spotify, scrobbles]:
        done = import_history(folder, path)
    assert done.n_total == 2
    assert _log(folder) == [("a", "complete", 200.0), ("a", "play", None)]
    assert import_history(folder, scrobbles).n_new == 0


def test_larger_count_takes_the_place_of_the_smaller(folder: LibraryPaths) -> None:
    def events(*rows: tuple[str, int, int]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "user_id": ["u"] * len(rows),
                "track_id": [track for track, _, _ in rows],
                "played_at": [datetime(2024, 1, day, tzinfo=UTC) for _, _, day in rows],
                "event": ["play"] * len(rows),
                "played_s": pl.Series([None] * len(rows), dtype=pl.Float64),
                "session_id": pl.Series([None] * len(rows), dtype=pl.String),
                "n_times": [times for _, times, _ in rows],
                "is_table": [False] * len(rows),
                "is_kept": [False] * len(rows),
            }
        )

    with folder.lock():
        assert add_events(folder, events(("a", 3, 1), ("b", 1, 1)), "x") == (2, 0, 2)
        assert add_events(folder, events(("a", 5, 9), ("b", 1, 1)), "x") == (0, 1, 2)
        assert add_events(folder, events(("a", 4, 5)), "x") == (0, 0, 2)
    log = read_interactions(folder)
    assert dict(log.select("track_id", "n_times").iter_rows()) == {"a": 5, "b": 1}


def test_playlist_counts_once_whenever_it_was_saved(folder: LibraryPaths, tmp_path: Path) -> None:
    path = tmp_path / "evening.xspf"
    track = "<track><title>Kindling</title><creator>Ada</creator></track>"
    body = f"<trackList>{track}</trackList></playlist>"
    for day in (1, 2):
        path.write_text(
            f"<playlist xmlns='http://xspf.org/ns/0/'><date>2024-01-0{day}T10:00:00Z</date>{body}"
        )
        done = import_history(folder, path)
    assert (done.n_new, done.n_total) == (0, 1)
    row = read_interactions(folder).row(0, named=True)
    assert (row["event"], row["track_id"]) == ("playlist", "b")
    assert row["session_id"].startswith("playlist-")


def test_playlists_of_one_moment_keep_the_tracks_they_share(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    """Members of a zip have times of two seconds: both lists are of one moment."""
    path = tmp_path / "lists.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, entries in (
            ("one", ["The Owls - Blue Hour", "Ada - Kindling"]),
            ("two", ["Ada - Kindling"]),
        ):
            lines = "".join(f"#EXTINF:100,{entry}\n/x/{n}.mp3\n" for n, entry in enumerate(entries))
            archive.writestr(
                zipfile.ZipInfo(f"{name}.m3u8", (2024, 5, 1, 10, 0, 0)), f"#EXTM3U\n{lines}"
            )
    assert import_history(folder, path).n_new == 3
    assert sorted(read_interactions(folder).group_by("session_id").len()["len"]) == [1, 2]
    assert import_history(folder, path).n_new == 0


def test_playlist_rows_of_a_table_have_the_times_they_have(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    """Also while they wait for their track."""
    table = tmp_path / "t.csv"
    rows = [
        f"ada,{title},{artist},2024-01-0{day},playlist"
        for day in (1, 2, 3)
        for title, artist in LATER
    ]
    table.write_text("\n".join(["user_id,title,artist,played_at,event", *rows]))
    done = import_history(folder, table)
    assert (done.n_new, done.n_kept) == (3, 3)
    (tmp_path / "more.csv").write_text("track_id,title,artist\nc,Later Song,The Owls\n")
    import_tracks(folder, tmp_path / "more.csv")
    assert (import_history(folder, None).n_new, import_history(folder, table).n_new) == (3, 0)


def test_count_of_plays_at_the_moment_of_a_play_is_kept(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    listen = {
        "listened_at": 1704103205,
        "track_metadata": {"artist_name": "Ada", "track_name": "Kindling"},
    }
    (tmp_path / "listens.jsonl").write_text(json.dumps(listen) + "\n")
    import_history(folder, tmp_path / "listens.jsonl")
    with closing(sqlite3.connect(tmp_path / "beets.db")) as library:
        library.executescript(
            """CREATE TABLE items (id INTEGER, title TEXT, artist TEXT, album TEXT, added REAL);
            CREATE TABLE item_attributes (entity_id INTEGER, key TEXT, value TEXT);
            INSERT INTO items VALUES (1, 'Kindling', 'Ada', NULL, 1.6e9);
            INSERT INTO item_attributes VALUES
                (1, 'play_count', '57'), (1, 'last_played', '1704103205');"""
        )
    assert [import_history(folder, tmp_path / "beets.db").n_new for _ in range(2)] == [1, 0]
    assert read_interactions(folder)["n_times"].to_list() == [None, 57]


def test_scrobbles_that_one_play_covers_are_told_as_one_update(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    listens = [
        {
            "listened_at": 1682949725 + later,
            "track_metadata": {"artist_name": "The Owls", "track_name": "Blue Hour"},
        }
        for later in (0, 15)
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(listen) + "\n" for listen in listens))
    import_history(folder, tmp_path / "l.jsonl")
    rows = [_spotify("2023-05-01T14:05:17Z", 200_000), _spotify("2023-05-02T14:05:17Z", 200_000)]
    done = import_history(folder, _json(tmp_path / "s.json", rows))
    assert (done.n_new, done.n_updated, done.n_total) == (1, 1, 2)


def test_feedback_by_spelling_is_of_the_listen_spelled_so(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    root = tmp_path / "listenbrainz"
    (root / "listens" / "2024").mkdir(parents=True)
    listen = {
        "listened_at": 1704103200,
        "track_metadata": {
            "artist_name": "The Owls",
            "track_name": "Blue Hour",
            "recording_msid": MSID,
        },
    }
    (root / "listens" / "2024" / "1.jsonl").write_text(json.dumps(listen) + "\n")
    (root / "feedback.jsonl").write_text(
        json.dumps({"recording_msid": MSID, "score": 1, "created": 1704103300}) + "\n"
    )
    (root / "user.json").write_text(json.dumps({"user_id": 1, "username": "x"}))
    done = import_history(folder, root)
    assert done.ignored_files == ["user.json"]
    assert [row[:2] for row in _log(folder)] == [("a", "play"), ("a", "like")]


def test_unmatched_rows_wait_are_listed_and_found_again(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    rows = [
        _spotify("2023-05-01T14:05:17Z", 9000, title)
        for title in ("Blue Hour - Live", "Later Song")
    ]
    rows.append(_spotify("2023-05-01T15:05:17Z", 9000, "Later Song"))
    done = import_history(folder, _json(tmp_path / "s.json", rows))
    assert (done.n_new, done.n_unmatched, done.n_kept, done.match_rate) == (0, 3, 3, 0.0)
    with (folder.root / "unmatched.csv").open(encoding="utf-8", newline="") as file:
        listed = [
            (row["events"], row["title"], row["near_1_id"], row["not_1"])
            for row in csv.DictReader(file)
        ]
    assert listed == [
        ("2", "Later Song", "", ""),
        ("1", "Blue Hour - Live", "a", "another version: live heard, none here"),
    ]
    assert import_history(folder, tmp_path / "s.json").n_kept == 3
    (tmp_path / "more.csv").write_text("track_id,title,artist\nc,Later Song,The Owls\n")
    import_tracks(folder, tmp_path / "more.csv")
    again = import_history(folder, None)
    assert (again.n_new, again.n_newly_matched, again.n_kept) == (2, 2, 1)
    assert import_history(folder, tmp_path / "s.json").n_new == 0


def test_listener_keeps_the_id_the_log_has_them_under(folder: LibraryPaths, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("user_id,track_id,played_at\nada,a,2024-01-01\n")
    import_history(folder, table, pseudonyms=False)
    table.write_text("user_id,track_id,played_at\nada,a,2024-01-01\nbo,a,2024-01-01\n")
    assert import_history(folder, table).n_new == 1
    assert import_history(folder, table, pseudonyms=False).n_new == 0
    users = sorted(read_interactions(folder)["user_id"])
    assert users[0] == "ada"
    assert users[1].startswith("user-")


def test_progress_counts_the_files_that_are_passed_over(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    root = tmp_path / "export"
    root.mkdir()
    (root / "a.json").write_text("{}")
    _json(root / "b.json", [_spotify("2023-05-01T14:05:17Z", 200_000)])
    (root / "c.json").write_text("{}")
    sizes = [(root / name).stat().st_size for name in ("a.json", "b.json", "c.json")]
    told: list[tuple[int, int]] = []
    import_history(folder, root, on_progress=lambda n_done, n_all: told.append((n_done, n_all)))
    assert told == [(sum(sizes[:2]), sum(sizes))]


def test_an_import_reads_the_whole_log_once(
    folder: LibraryPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And finds the twin of a scrobble among the events of many listeners who heard the same, whose
    own all stay.
    """
    scrobble = "user_id,track_id,played_at\n"
    (tmp_path / "t.csv").write_text(
        scrobble + "".join(f"user-{n},a,2023-05-01T14:02:00Z\n" for n in range(9))
    )
    import_history(folder, tmp_path / "t.csv", pseudonyms=False)
    read: list[tuple[Path, object]] = []

    def reads(path: Path, name: str, columns: object = None) -> pl.DataFrame:
        read.append((path, columns))
        return read_parquet(path, name, cast("list[str] | None", columns))

    monkeypatch.setattr(catalog, "read_parquet", reads)
    rows = [_spotify("2023-05-01T14:05:17Z", 200_000), _spotify("2023-05-01T16:05:17Z", 200_000)]
    done = import_history(folder, _json(tmp_path / "s.json", rows), user="user-3", pseudonyms=False)
    assert (done.n_new, done.n_updated, done.n_total) == (1, 1, 10)
    assert [columns for path, columns in read if path == folder.interactions] == [["user_id"], None]
    monkeypatch.undo()
    scrobbles = read_interactions(folder).filter(pl.col("played_s").is_null())
    assert scrobbles["user_id"].to_list() == [f"user-{n}" for n in range(9) if n != 3]


def test_bad_rows_are_listed_by_file_and_line(
    folder: LibraryPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LISTED", 2)
    rows = [_spotify("2023-05-01T14:05:17Z", 9000), *[_spotify("never", 1)] * 4]
    done = import_history(folder, _json(tmp_path / "s.json", rows))
    assert (done.n_new, done.n_skipped) == (1, 4)
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        listed = [row[1:] for row in csv.reader(file)][1:]
    assert [row[:4] for row in listed] == [
        ["s.json", "2", "ts", "never"],
        ["s.json", "3", "ts", "never"],
        ["s.json", "", "", "2 more rows"],
    ]


def test_damaged_member_of_a_zip_keeps_what_came_before(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    path = tmp_path / "e.zip"
    rows = [_spotify(f"2023-05-01T14:{minute:02d}:17Z", 9000 + minute) for minute in range(60)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", json.dumps(rows))
        archive.writestr("b.json", json.dumps([_spotify("2024-05-01T14:05:17Z", 1)]))
    data = bytearray(path.read_bytes())
    data[100] ^= 1  # within a stored member: its checksum is wrong
    path.write_bytes(data)
    done = import_history(folder, path)
    assert (
        "is damaged in its zip; what stands before the damage was read: Bad CRC-32"
        in folder.skipped.read_text()
    )
    assert done.n_skipped == 2
    assert (
        50 <= done.n_new < 61
    )  # all but the last 4 KB of the damaged member, and the whole other one


def test_what_cannot_be_read_is_refused_before_anything_is_written(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match="empty holds no listening that is known; formats are listenbrainz, spotify"
    ):
        import_history(folder, tmp_path / "empty")
    (tmp_path / "notes.json").write_text('{"a": 1}')
    with pytest.raises(
        DataError, match=r"notes\.json holds no listening that is known; formats are listenbrainz"
    ):
        import_history(folder, tmp_path / "notes.json")
    (tmp_path / "other.csv").write_text("id,when\na,2024-01-01\n")
    with pytest.raises(
        DataError,
        match=r"other\.csv: column 'user_id' is missing; found 'id', 'when'; rename it or pass",
    ):
        import_history(folder, tmp_path / "other.csv")
    with pytest.raises(DataError, match="is not a file or folder; check the path"):
        import_history(folder, tmp_path / "nothing")
    spotify = _json(tmp_path / "s.json", [_spotify("2023-05-01T14:05:17Z", 9000)])
    with pytest.raises(
        ConfigError,
        match=r"s\.json is a spotify file, whose columns are known; leave --columns out",
    ):
        import_history(folder, spotify, columns={"title": "x"})
    with pytest.raises(DataError, match=r"s\.json is no Navidrome database that can be read"):
        import_history(folder, spotify, file_format="navidrome")
    with folder.lock(), pytest.raises(LibraryError, match="is being written by another process"):
        import_history(folder, spotify)
    assert not folder.interactions.exists()
