"""M3U, PLS, XSPF and JSPF in the shapes players write, and what a damaged or hostile one may not
do.
"""

import json
from pathlib import Path

import pytest

from ponticello.listening.importers import playlists
from ponticello.listening.importers.detect import detect_format
from ponticello.listening.importers.records import BadRecord, ListenEvent, TrackReference
from ponticello.listening.importers.sources import HistoryFile
from tests.history_files import MBID, at, read, source

DAY = at("2024-01-02T10:00:00")


def _dated(given: HistoryFile) -> int:
    return given.modified_us


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_m3u_in_each_encoding(tmp_path: Path, encoding: str) -> None:
    text = "#EXTM3U\r\n#EXTINF:201,The Owls - Été\r\n../music/Été.flac\r\n\r\nhttps://example.org/stream\r\n"
    given = source(tmp_path / "evening.m3u", text.encode(encoding))
    assert detect_format(given) == "m3u"
    there = f"{tmp_path.resolve().parent.as_posix()}/music/Été.flac"
    heard = TrackReference(path=there, artist="The Owls", title="Été", duration_s=201.0)
    assert read(given) == [
        ListenEvent(heard, _dated(given), "playlist", session="evening.m3u"),
        ListenEvent(
            TrackReference(uri="https://example.org/stream"),
            _dated(given),
            "playlist",
            session="evening.m3u",
        ),
    ]


def test_m3u_takes_windows_paths_and_addresses_of_files(tmp_path: Path) -> None:
    given = source(
        tmp_path / "p.m3u8",
        "D:\\Music\\Owls\\a.mp3\nfile:///music/Owls/Blue%20Hour.mp3\n#EXTALB:x\n/abs/b.mp3\n",
    )
    paths = [row.track.path for row in read(given) if isinstance(row, ListenEvent)]
    assert paths == ["D:\\Music\\Owls\\a.mp3", "/music/Owls/Blue Hour.mp3", "/abs/b.mp3"]


def test_binary_file_is_no_playlist(tmp_path: Path) -> None:
    assert detect_format(source(tmp_path / "p.m3u", b"ID3\x00\x00\x01")) is None


def test_pls_takes_its_entries_in_any_order(tmp_path: Path) -> None:
    text = (
        "[playlist]\nTitle1=The Owls - Blue Hour\nFile2=/music/b.mp3\nFile1=/music/a.mp3\n"
        "Length1=201\nLength2=-1\n"
    )
    given = source(
        tmp_path / "p.pls", text + "Title3=Nowhere\nnonsense\nNumberOfEntries=3\nVersion=2\n"
    )
    heard = TrackReference(
        path="/music/a.mp3", artist="The Owls", title="Blue Hour", duration_s=201.0
    )
    assert read(given) == [
        BadRecord(8, "", "nonsense", "is no entry of a PLS playlist"),
        ListenEvent(heard, _dated(given), "playlist", session="p.pls"),
        ListenEvent(
            TrackReference(path="/music/b.mp3"), _dated(given), "playlist", session="p.pls"
        ),
        BadRecord(7, "File3", "Nowhere", "is missing"),
    ]


def test_jspf_knows_ids_and_when_a_track_was_added(tmp_path: Path) -> None:
    track = {
        "identifier": [f"https://musicbrainz.org/recording/{MBID}"],
        "title": "Blue Hour",
        "creator": "The Owls",
        "album": "Night Songs",
        "duration": 201500,
        "extension": {
            "https://musicbrainz.org/doc/jspf#track": {"added_at": "2024-01-02T10:00:00+00:00"}
        },
    }
    old = {"identifier": "spotify:track:4abcDEF", "title": "Kindling"}
    body = {
        "playlist": {
            "title": "Evening",
            "date": "2024-01-01T10:00:00Z",
            "track": [track, old, {"annotation": "x"}],
        }
    }
    given = source(tmp_path / "p.jspf", json.dumps(body))
    assert detect_format(given) == "jspf"
    other = TrackReference(uri="spotify:track:4abcDEF", title="Kindling")
    heard = TrackReference(
        mbid=MBID, artist="The Owls", title="Blue Hour", album="Night Songs", duration_s=201.5
    )
    assert read(given) == [
        ListenEvent(heard, DAY, "playlist", session="p.jspf"),
        ListenEvent(other, at("2024-01-01T10:00:00"), "playlist", session="p.jspf"),
        BadRecord(3, "", "", "names neither a title nor an id"),
    ]


XSPF = """<?xml version="1.0" encoding="UTF-8"?>
<playlist version="1" xmlns="http://xspf.org/ns/0/"><title>Evening</title><date>2024-01-02T10:00:00Z</date>
<trackList>
<track><location>file:///music/Blue%20Hour.flac</location><title>Blue Hour</title>
<creator>The Owls</creator><album>Night &amp; Songs</album><duration>201500</duration></track>
<track><annotation>nothing</annotation></track>
<track><identifier>https://musicbrainz.org/recording/11111111-2222-4333-8444-555555555555</identifier></track>
"""
XSPF_FIRST = TrackReference(
    path="/music/Blue Hour.flac",
    artist="The Owls",
    title="Blue Hour",
    album="Night & Songs",
    duration_s=201.5,
)


def test_xspf_gives_its_tracks(tmp_path: Path) -> None:
    given = source(tmp_path / "p.xspf", f"{XSPF}</trackList></playlist>")
    assert detect_format(given) == "xspf"
    assert read(given) == [
        ListenEvent(XSPF_FIRST, DAY, "playlist", session="p.xspf"),
        BadRecord(2, "", "", "names neither a title nor an id"),
        ListenEvent(TrackReference(mbid=MBID), DAY, "playlist", session="p.xspf"),
    ]


def test_cut_xspf_keeps_the_whole_tracks(tmp_path: Path) -> None:
    found = read(source(tmp_path / "p.xspf", f"{XSPF}<track><title>Half"))
    assert [row.track.title for row in found if isinstance(row, ListenEvent)] == ["Blue Hour", None]
    assert found[-1] == BadRecord(8, "", "", "is not valid XML from here on: no element found")


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE p [<!ENTITY % a SYSTEM "https://example.org/x.dtd"> %a;]>',
    ],
)
def test_xspf_that_declares_an_entity_is_refused(tmp_path: Path, declared: str) -> None:
    track = "<track><title>&a;</title></track>"
    text = f"{declared}<playlist xmlns='http://xspf.org/ns/0/'><trackList>{track}</trackList></playlist>"
    found = read(source(tmp_path / "p.xspf", text))
    assert found == [
        BadRecord(
            None, "", "", "declares an XML entity, which is refused; save the playlist without it"
        )
    ]


def test_xspf_reads_tracks_without_loading_the_dtd_it_names(tmp_path: Path) -> None:
    (tmp_path / "p.dtd").write_text("this is not a DTD <", encoding="utf-8")
    declared = f'<!DOCTYPE playlist SYSTEM "{(tmp_path / "p.dtd").as_uri()}"><playlist'
    given = source(
        tmp_path / "p.xspf", f"{XSPF.replace('<playlist', declared, 1)}</trackList></playlist>"
    )
    assert sum(isinstance(row, ListenEvent) for row in read(given)) == 2


def test_xspf_that_is_larger_than_a_playlist_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playlists, "MOST_BYTES", 1 << 20)
    text = f"{XSPF}<track><title>{'x' * (1 << 20)}</title></track></trackList></playlist>"
    reason = "is larger than 1 MiB, and is not read"
    assert read(source(tmp_path / "p.xspf", text)) == [BadRecord(None, "", "", reason)]


def test_xspf_title_of_many_lines_is_read_in_linear_time(tmp_path: Path) -> None:
    title = "x\n" * 300_000
    text = f"{XSPF}<track><title>{title}</title></track></trackList></playlist>"
    last = read(source(tmp_path / "p.xspf", text))[-1]
    assert isinstance(last, ListenEvent)
    assert last.track.title == title.strip()
