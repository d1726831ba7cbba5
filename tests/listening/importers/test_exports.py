"""Each format in its exact shape, old and new: the events it gives, by value; and of a damaged file
the good ones.
"""

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ponticello.errors import DataError
from ponticello.listening.importers.detect import detect_format
from ponticello.listening.importers.lastfm import read_lastfm
from ponticello.listening.importers.music_servers import read_beets, read_navidrome
from ponticello.listening.importers.records import (
    BadRecord,
    IgnoredRecord,
    ListenEvent,
    Record,
    TrackReference,
)
from ponticello.listening.importers.run import READERS
from ponticello.listening.importers.sources import HistoryFile
from tests.history_files import MBID, at, lines, read, source

OTHER_MBID = "99999999-2222-4333-8444-555555555555"
MSID = "aaaaaaaa-2222-4333-8444-555555555555"

# ListenBrainz

LISTEN = {
    "listened_at": 1704103200,
    "inserted_at": 1704103300.5,
    "track_metadata": {
        "artist_name": "The Owls",
        "track_name": "Blue Hour",
        "release_name": "Night Songs",
        "additional_info": {
            "duration_ms": 201500,
            "recording_mbid": OTHER_MBID,
            "isrc": "SE-ABC-20-12345",
            "spotify_id": "https://open.spotify.com/track/4abcDEF",
            "media_player": "x",
            "ip": "10.0.0.1",
        },
        "recording_msid": MSID,
        "mbid_mapping": {
            "recording_mbid": MBID,
            "release_mbid": OTHER_MBID,
            "artist_mbids": [OTHER_MBID],
        },
    },
}
HEARD = TrackReference(
    mbid=MBID,
    isrc="SEABC2012345",
    uri="spotify:track:4abcDEF",
    artist="The Owls",
    title="Blue Hour",
    album="Night Songs",
    duration_s=201.5,
    msid=MSID,
)
OLD_LISTEN = {
    "listened_at": 1704103200.25,
    "track_metadata": {
        "artist_name": "Ada",
        "track_name": "Kindling",
        "additional_info": {},
        "mbid_mapping": None,
    },
}
NOON = at("2024-01-01T10:00:00")


def test_listenbrainz_lines_give_plays_with_the_mapped_id(tmp_path: Path) -> None:
    given = source(tmp_path / "1.jsonl", lines(LISTEN, OLD_LISTEN))
    assert detect_format(given) == "listenbrainz"
    assert read(given) == [
        ListenEvent(HEARD, NOON),
        ListenEvent(TrackReference(artist="Ada", title="Kindling"), NOON + 250_000),
    ]


def test_older_listenbrainz_export_is_one_array(tmp_path: Path) -> None:
    given = source(tmp_path / "lb.json", "\ufeff" + json.dumps([OLD_LISTEN, LISTEN], indent=1))
    assert read(given) == [
        ListenEvent(TrackReference(artist="Ada", title="Kindling"), NOON + 250_000),
        ListenEvent(HEARD, NOON),
    ]


def test_listenbrainz_feedback_and_pins_are_events_of_their_own(tmp_path: Path) -> None:
    rows = [
        {
            "recording_mbid": MBID,
            "recording_msid": None,
            "score": 1,
            "created": 1704103200,
            "track_metadata": None,
        },
        {"recording_mbid": None, "recording_msid": MSID, "score": -1, "created": 1704103201},
        {"recording_mbid": MBID, "score": 0, "created": 1704103202},
        {"recording_mbid": MBID, "score": 5, "created": 1704103202},
    ]
    assert read(source(tmp_path / "feedback.jsonl", lines(*rows))) == [
        ListenEvent(TrackReference(mbid=MBID), NOON, "like"),
        ListenEvent(TrackReference(msid=MSID), NOON + 1_000_000, "dislike"),
        IgnoredRecord(),
        BadRecord(4, "score", 5, "is not 1, 0 or -1"),
    ]
    pin = {
        "created": 1704103200,
        "pinned_until": 1704708000,
        "blurb_content": "so good",
        "recording_mbid": MBID,
        "track_metadata": {"artist_name": "The Owls", "track_name": "Blue Hour"},
    }
    assert read(source(tmp_path / "pinned_recording.jsonl", lines(pin))) == [
        ListenEvent(
            TrackReference(mbid=MBID, artist="The Owls", title="Blue Hour"), NOON, "collect"
        )
    ]


def test_damaged_listenbrainz_lines_cost_themselves(tmp_path: Path) -> None:
    bad_time = {**OLD_LISTEN, "listened_at": 0}
    nameless = {"listened_at": 1704103200, "track_metadata": {"artist_name": "Ada"}}
    given = source(
        tmp_path / "1.jsonl",
        lines(OLD_LISTEN, '{"listened_at": 17', bad_time, nameless, [], OLD_LISTEN),
    )
    found = read(given)
    assert [row for row in found if isinstance(row, ListenEvent)] == [
        ListenEvent(TrackReference(artist="Ada", title="Kindling"), NOON + 250_000)
    ] * 2
    assert [(row.line, row.field, row.reason) for row in found if isinstance(row, BadRecord)] == [
        (2, "", "is not a JSON object"),
        (3, "listened_at", "is not a date between 1990 and 2100"),
        (4, "track_metadata", "names neither a title nor an id"),
        (5, "", "is not a JSON object"),
    ]


def test_cut_and_broken_array_keeps_its_whole_items(tmp_path: Path) -> None:
    text = json.dumps([OLD_LISTEN] * 4)
    broken = text[:10] + "\x00" + text[10:]
    assert [type(row) for row in read_forced(tmp_path, text[:-40])] == [
        ListenEvent,
        ListenEvent,
        ListenEvent,
        BadRecord,
    ]
    found = read_forced(tmp_path, broken)
    assert [type(row) for row in found] == [BadRecord, ListenEvent, ListenEvent, ListenEvent]
    assert isinstance(found[0], BadRecord)
    assert (found[0].line, found[0].reason) == (1, "is not a JSON object")
    assert [row for row in read_forced(tmp_path, text[:-1]) if isinstance(row, BadRecord)] == [
        BadRecord(5, "", "", "the file ends early; get it again")
    ]


def read_forced(folder: Path, text: str) -> list[Record]:
    return list(READERS["listenbrainz"](source(folder / "cut.json", text)))


# Spotify

PLAYED: dict[str, Any] = {
    "ts": "2023-05-01T14:05:17Z",
    "username": "somebody",
    "platform": "a telephone",
    "ms_played": 201500,
    "conn_country": "SE",
    "ip_addr_decrypted": "10.0.0.1",
    "user_agent_decrypted": "unknown",
    "master_metadata_track_name": "Blue Hour",
    "master_metadata_album_artist_name": "The Owls",
    "master_metadata_album_album_name": "Night Songs",
    "spotify_track_uri": "spotify:track:4abcDEF",
    "episode_name": None,
    "episode_show_name": None,
    "spotify_episode_uri": None,
    "reason_start": "clickrow",
    "reason_end": "trackdone",
    "shuffle": False,
    "skipped": False,
    "offline": False,
    "offline_timestamp": 1682949917000,
    "incognito_mode": False,
}
SPOTIFY = TrackReference(
    uri="spotify:track:4abcDEF", artist="The Owls", title="Blue Hour", album="Night Songs"
)
ENDED = at("2023-05-01T14:05:17")


@pytest.mark.parametrize(
    ("change", "event", "played_s"),
    [
        ({}, "complete", 201.5),
        ({"skipped": True, "reason_end": "fwdbtn", "ms_played": 4000}, "skip", 4.0),
        ({"skipped": None, "reason_end": "fwdbtn", "ms_played": 29999}, "skip", 29.999),
        ({"skipped": None, "reason_end": "fwdbtn", "ms_played": 30000}, "play", 30.0),
        ({"skipped": False, "reason_end": "fwdbtn", "ms_played": 4000}, "play", 4.0),
        ({"reason_end": "endplay", "ms_played": 0}, "play", 0.0),
    ],
)
def test_spotify_row_says_how_a_play_ended(
    tmp_path: Path, change: dict[str, Any], event: str, played_s: float
) -> None:
    given = source(tmp_path / "Streaming_History_Audio_2023_1.json", json.dumps([PLAYED | change]))
    assert detect_format(given) == "spotify"
    assert read(given) == [ListenEvent(SPOTIFY, ENDED, event, played_s)]


def test_spotify_podcasts_are_passed_over_and_bad_rows_listed(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"master_metadata_track_name": None, "spotify_track_uri": None}
    rows = [
        PLAYED | nothing | {"episode_name": "Talk", "spotify_episode_uri": "spotify:episode:1"},
        PLAYED | nothing,
        PLAYED | {"ts": "yesterday"},
        PLAYED | {"ms_played": -1},
        PLAYED,
    ]
    found = read(source(tmp_path / "s.json", json.dumps(rows)))
    assert found[0] == IgnoredRecord()
    assert [(row.line, row.field) for row in found if isinstance(row, BadRecord)] == [
        (2, "master_metadata_track_name"),
        (3, "ts"),
        (4, "ms_played"),
    ]
    assert found[4] == ListenEvent(SPOTIFY, ENDED, "complete", 201.5)


def test_short_spotify_history_has_minutes(tmp_path: Path) -> None:
    rows = [
        {
            "endTime": "2023-05-01 14:05",
            "artistName": "The Owls",
            "trackName": "Blue Hour",
            "msPlayed": 201500,
        },
        {"endTime": "2023-05-01 14:09", "podcastName": "Talk", "episodeName": "One", "msPlayed": 5},
        {"endTime": "May", "artistName": "The Owls", "trackName": "Blue Hour", "msPlayed": 5},
    ]
    assert read(source(tmp_path / "StreamingHistory_music_0.json", json.dumps(rows, indent=2))) == [
        ListenEvent(
            TrackReference(artist="The Owls", title="Blue Hour"),
            at("2023-05-01T14:05:00"),
            "play",
            201.5,
        ),
        IgnoredRecord(),
        BadRecord(3, "endTime", "May", "is not a date between 1990 and 2100"),
    ]


# Last.fm

OWLS = TrackReference(artist="The Owls", title="Blue Hour", album="Night Songs")
MINUTE = at("2019-12-31T23:59:00")
API = {
    "artist": {"mbid": "", "#text": "The Owls"},
    "album": {"mbid": "", "#text": "Night Songs"},
    "name": "Blue Hour",
    "mbid": MBID,
    "streamable": "0",
    "image": [],
    "url": "https://www.last.fm/x",
    "date": {"uts": "1577836740", "#text": "31 Dec 2019, 23:59"},
}
PLAYING = {key: value for key, value in API.items() if key != "date"} | {
    "@attr": {"nowplaying": "true"}
}


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("headerless.csv", "The Owls,Night Songs,Blue Hour,31 Dec 2019 23:59\n", OWLS),
        ("commas.csv", '"The Owls","Night Songs","Blue Hour","31 Dec 2019, 23:59"\n', OWLS),
        (
            "universal.csv",
            '"The Owls","Blue Hour","Night Songs","2019-12-31 23:59:00","The Owls","201"\n',
            OWLS._replace(duration_s=201.0),
        ),
        (
            "header.csv",
            "uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid\n"
            f'1577836740,"31 Dec 2019, 23:59",The Owls,,Night Songs,,Blue Hour,{MBID}\n',
            OWLS._replace(mbid=MBID),
        ),
        (
            "semicolon.csv",
            "\ufeffArtist;Album;AlbumId;Track;Date#somebody\n"
            '"The Owls";"Night Songs";"";"Blue Hour";"1577836740000"\n',
            OWLS,
        ),
        (
            "tabs.tsv",
            "artist\talbum\ttrack\tdate\nThe Owls\tNight Songs\tBlue Hour\t2019-12-31T23:59:00Z\n",
            OWLS,
        ),
        (
            "lines.ndjson",
            lines(
                {
                    "artist": "The Owls",
                    "track": "Blue Hour",
                    "album": "Night Songs",
                    "timestamp": 1577836740,
                }
            ),
            OWLS,
        ),
        (
            "plain.json",
            json.dumps([{"artist": "The Owls", "name": "Blue Hour", "date": "2019-12-31 23:59"}]),
            None,
        ),
        ("api.json", json.dumps({"recenttracks": {"track": [API]}}), OWLS._replace(mbid=MBID)),
        (
            "pages.json",
            json.dumps([{"track": [API], "@attr": {"page": "1"}}]),
            OWLS._replace(mbid=MBID),
        ),
        (
            "stats.json",
            json.dumps(
                {
                    "username": "somebody",
                    "scrobbles": [
                        {
                            "track": "Blue Hour",
                            "artist": "The Owls",
                            "album": "Night Songs",
                            "date": 1577836740000,
                        }
                    ],
                }
            ),
            OWLS,
        ),
    ],
)
def test_lastfm_in_each_of_its_column_orders(
    tmp_path: Path, name: str, content: str, wanted: TrackReference | None
) -> None:
    given = source(tmp_path / name, content)
    assert detect_format(given) == "lastfm"
    assert read(given) == [ListenEvent(wanted or OWLS._replace(album=None), MINUTE)]


def test_order_of_four_columns_is_told_by_what_repeats(tmp_path: Path) -> None:
    rows = [f"The Owls,Song {place},Night Songs,31 Dec 2019 23:{place:02d}" for place in range(10)]
    found = read(source(tmp_path / "l.csv", lines(*rows)))
    assert [row.track.title for row in found if isinstance(row, ListenEvent)] == [
        f"Song {place}" for place in range(10)
    ]
    assert {row.track.album for row in found if isinstance(row, ListenEvent)} == {"Night Songs"}


def test_columns_by_number_overrule_the_order(tmp_path: Path) -> None:
    given = source(tmp_path / "l.csv", "31 Dec 2019 23:59,Night Songs,Blue Hour,The Owls\n")
    columns = {"played_at": "1", "album": "2", "title": "3", "artist": "4"}
    assert list(read_lastfm(given, columns=columns)) == [ListenEvent(OWLS, MINUTE)]
    with pytest.raises(
        DataError,
        match=r"cannot tell which column is 'played_at'; .* pass --columns played_at=NUMBER",
    ):
        list(read_lastfm(given))
    with pytest.raises(DataError, match="--columns artist=9 names no column"):
        list(read_lastfm(given, columns={"artist": "9"}))


def test_empty_lastfm_file_gives_no_events(tmp_path: Path) -> None:
    assert list(read_lastfm(source(tmp_path / "l.csv", "\n"))) == []


def test_track_that_is_playing_is_no_listen(tmp_path: Path) -> None:
    given = source(tmp_path / "api.json", json.dumps({"recenttracks": {"track": [PLAYING, API]}}))
    assert read(given) == [IgnoredRecord(), ListenEvent(OWLS._replace(mbid=MBID), MINUTE)]


def test_damaged_lastfm_lines_cost_themselves(tmp_path: Path) -> None:
    good = b"The Owls,Night Songs,Blue Hour,31 Dec 2019 23:59\n"
    bad = [
        b'Ada,"Night,Kindling,31 Dec 2019 23:59\n',
        b"Ada,Kindling,31 Dec 2019 23:59\n",
        b"Ada,,Kindling,never\n",
    ]
    bad += [b",Night,Kindling,31 Dec 2019 23:59\n", b"Ada,Night,K\xffndling,31 Dec 2019 23:59\n"]
    found = read(source(tmp_path / "l.csv", good * 3 + b"".join(bad) + good))
    assert [row for row in found if isinstance(row, ListenEvent)] == [ListenEvent(OWLS, MINUTE)] * 4
    faults = [(row.line, row.field, row.reason) for row in found if isinstance(row, BadRecord)]
    assert faults == [
        (4, "", "is not valid CSV: unexpected end of data"),
        (5, "", "has 3 fields, wanted 4"),
        (6, "played_at", "is not a date between 1990 and 2100"),
        (7, "artist", "is missing"),
        (8, "", "is not UTF-8"),
    ]


# Navidrome

FILES = """CREATE TABLE media_file (id TEXT PRIMARY KEY, path TEXT, title TEXT, artist TEXT,
    album TEXT, duration REAL, mbz_recording_id TEXT);
INSERT INTO media_file VALUES
    ('m1', 'Owls/Night Songs/01 Blue Hour.flac', 'Blue Hour', 'The Owls', 'Night Songs', 201.5,
    '11111111-2222-4333-8444-555555555555'),
    ('m2', 'Ada/Kindling.mp3', 'Kindling', 'Ada', '', 90, '');
CREATE TABLE "user" (id TEXT PRIMARY KEY, user_name TEXT, email TEXT);
INSERT INTO "user" VALUES ('u1', 'ada', 'ada@example.org');"""
ANNOTATIONS = """CREATE TABLE annotation (user_id TEXT, item_id TEXT, item_type TEXT,
    play_count INTEGER, play_date TEXT, rating INTEGER, starred BOOL, starred_at TEXT);
INSERT INTO annotation VALUES
    ('u1', 'm1', 'media_file', 7, '2024-01-01 10:00:00', 0, 1, '2024-01-02 10:00:00'),
    ('u1', 'm2', 'media_file', 2, '2024-01-01T10:00:00Z', 1, 0, NULL),
    ('u2', 'm1', 'media_file', 0, NULL, 5, 0, NULL),
    ('u1', 'al', 'album', 9, '2024-01-01 10:00:00', 0, 0, NULL),
    ('u1', 'gone', 'media_file', 3, '2024-01-01 10:00:00', 0, 0, NULL);"""
SCROBBLES = """CREATE TABLE scrobbles
    (media_file_id TEXT, user_id TEXT, submission_time INTEGER NOT NULL);
INSERT INTO scrobbles VALUES ('m1', 'u1', 1704103200), ('m1', 'u1', 1704106800), ('m1', 'u1', 12),
    ('x', 'u1', 1704103200);"""
FIRST = TrackReference(
    mbid=MBID,
    path="Owls/Night Songs/01 Blue Hour.flac",
    artist="The Owls",
    title="Blue Hour",
    album="Night Songs",
    duration_s=201.5,
)
SECOND = TrackReference(path="Ada/Kindling.mp3", artist="Ada", title="Kindling", duration_s=90.0)


def sqlite(path: Path, *scripts: str) -> HistoryFile:
    connection = sqlite3.connect(path)
    for script in scripts:
        connection.executescript(script)
    connection.close()
    return source(path)


def test_navidrome_without_artists_still_has_its_paths(tmp_path: Path) -> None:
    bare = """CREATE TABLE media_file (id TEXT, path TEXT, title TEXT);
        INSERT INTO media_file VALUES ('m1', 'a.mp3', 'A');"""
    users = "CREATE TABLE user (id TEXT, user_name TEXT);"
    given = sqlite(tmp_path / "navidrome.db", bare, users, ANNOTATIONS, SCROBBLES)
    heard = [row.track for row in read_navidrome(given) if isinstance(row, ListenEvent)]
    assert heard
    assert {(row.path, row.title, row.artist, row.album) for row in heard} == {
        ("a.mp3", "A", None, None)
    }


def test_older_navidrome_has_counts_stars_and_ratings(tmp_path: Path) -> None:
    given = sqlite(tmp_path / "navidrome.db", FILES, ANNOTATIONS)
    before = (tmp_path / "navidrome.db").read_bytes()
    assert detect_format(given) == "navidrome"
    day = at("2024-01-02T10:00:00")
    assert list(read_navidrome(given)) == [
        ListenEvent(FIRST, NOON, user="ada", n_times=7),
        ListenEvent(FIRST, day, "like", user="ada"),
        ListenEvent(SECOND, NOON, user="ada", n_times=2),
        ListenEvent(SECOND, NOON, "dislike", user="ada"),
        BadRecord(3, "rated_at", "", "is not a date between 1990 and 2100"),
        BadRecord(4, "item_id", "", "names a file that the database does not have"),
    ]
    assert (tmp_path / "navidrome.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["navidrome.db"]


def test_newer_navidrome_has_every_play(tmp_path: Path) -> None:
    """Of m1 the listener has scrobbles, so its count is left; of m2 there is only the count."""
    found = list(read_navidrome(sqlite(tmp_path / "navidrome.db", FILES, SCROBBLES, ANNOTATIONS)))
    assert found[:4] == [
        ListenEvent(FIRST, NOON, user="ada"),
        ListenEvent(FIRST, NOON + 3_600_000_000, user="ada"),
        BadRecord(3, "submission_time", 12, "is not a date between 1990 and 2100"),
        BadRecord(4, "media_file_id", "", "names a file that the database does not have"),
    ]
    counted = [
        (row.track.title, row.n_times)
        for row in found
        if isinstance(row, ListenEvent) and row.n_times
    ]
    assert counted == [("Kindling", 2)]


def test_scrobbles_of_navidrome_are_looked_up_and_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand of each: steps of the database grow with their number, not with its square."""
    connect, n_steps = sqlite3.connect, Counter[int]()

    def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_progress_handler(lambda: n_steps.update([0]), 1000)
        return connection

    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
    rows = f"""INSERT INTO scrobbles {numbers} SELECT 'm' || (2 * i), 'u1', 1704103200 + i FROM n;
        INSERT INTO annotation {numbers}
            SELECT 'u1', 'm' || i, 'media_file', 1, '2024-01-01', 0, 0, NULL FROM n;"""
    given = sqlite(tmp_path / "navidrome.db", FILES, SCROBBLES, ANNOTATIONS, rows)
    monkeypatch.setattr(sqlite3, "connect", counting)
    assert len(list(read_navidrome(given))) > 1000
    assert n_steps[0] < 500  # thousands of steps; a thousand times a thousand would be millions


# beets

BEETS = """CREATE TABLE items (id INTEGER PRIMARY KEY, path BLOB, title TEXT, artist TEXT,
    album TEXT, length REAL, mb_trackid TEXT, isrc TEXT, added REAL);
INSERT INTO items VALUES
    (1, CAST('/music/a.flac' AS BLOB), 'Blue Hour', 'The Owls', 'Night Songs', 201.5,
    '11111111-2222-4333-8444-555555555555', 'SEABC2012345', 1704103200.0),
    (2, CAST('/music/b.flac' AS BLOB), 'Kindling', 'Ada', '', 90, '', '', 1704103200.0),
    (3, CAST('/music/c.flac' AS BLOB), 'Sleepless', 'Ada', '', 90, '', '', 1704103200.0);
CREATE TABLE item_attributes (id INTEGER PRIMARY KEY, entity_id INTEGER, key TEXT, value TEXT);
INSERT INTO item_attributes (entity_id, key, value) VALUES
    (1, 'play_count', '3'), (1, 'lastfm_play_count', '5'), (1, 'skip_count', '2'),
    (1, 'last_played', '1704106800'), (1, 'rating', '0.9'),
    (2, 'listenbrainz_play_count', '1'), (3, 'play_count', 'many');"""


def test_beets_counts_are_one_event_each_with_the_largest_count(tmp_path: Path) -> None:
    given = sqlite(tmp_path / "library.db", BEETS)
    assert detect_format(given) == "beets"
    heard = FIRST._replace(path="/music/a.flac", isrc="SEABC2012345")
    later = NOON + 3_600_000_000
    assert list(read_beets(given)) == [
        ListenEvent(heard, later, n_times=5),
        ListenEvent(heard, later, "skip", n_times=2),
        ListenEvent(
            TrackReference(path="/music/b.flac", artist="Ada", title="Kindling", duration_s=90.0),
            NOON,
            n_times=1,
        ),
        BadRecord(3, "play_count", "many", "is not a count"),
    ]


def test_damaged_database_gives_the_rows_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "navidrome.db"
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
    rows = f"{many} INSERT INTO scrobbles SELECT 'm1', 'u1', 1704103200 + i * 60 FROM n;"
    sqlite(path, FILES, ANNOTATIONS, SCROBBLES, rows)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = list(read_navidrome(source(path)))
    good = [row for row in found if isinstance(row, ListenEvent)]
    assert len(good) > 1000
    assert good[0] == ListenEvent(FIRST, NOON, user="ada")
    assert any(isinstance(row, BadRecord) and "damaged from here on" in row.reason for row in found)
