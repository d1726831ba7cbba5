"""Exported lists: read back by other means, and harmless whatever stands in them."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from ponticello.library import Library
from ponticello.serve.routes.playlists import (
    COLUMNS,
    as_csv,
    as_jspf,
    as_m3u8,
    attachment,
    safe_cell,
    strip_line_breaks,
)
from tests.serve.served import NAME, client_of, make_app

KINDS = {
    "m3u8": "audio/x-mpegurl",
    "jspf": "application/jspf+json",
    "csv": "text/csv; charset=utf-8",
}
IDS = ["track-0003", "track-0001", "track-0003"]
HOSTILE = st.text(
    alphabet=st.sampled_from("=+-@\t\r\n#\"',;<>&\\%\x00\x1b\x9b\u2028\u202e\ufeff\udc80 aß[m"),
    max_size=12,
)


@pytest.fixture(scope="module")
def client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


def _exported(client: TestClient, kind: str, title: str = "Evening", ids: list[str] = IDS) -> Any:
    answer = client.post(f"/api/export/{kind}", json={"title": title, "track_ids": ids})
    assert answer.status_code == 200, answer.text
    return answer


def _track(**fields: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "title": None,
        "artist": None,
        "album": None,
        "genres": [],
        "tags": [],
        "machine_tags": [],
    }
    return {"track_id": "a", **empty, "duration_s": None, "has_audio": True, "mbid": None, **fields}


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_comes_as_a_file_of_its_kind(client: TestClient, kind: str) -> None:
    answer = _exported(client, kind)
    assert answer.headers["content-type"] == KINDS[kind]
    assert answer.headers["content-disposition"].startswith(
        f'attachment; filename="Evening.{kind}"; '
    )


def test_m3u8_plays_from_here_in_the_order_asked(client: TestClient, trained: Library) -> None:
    lines = _exported(client, "m3u8").text.splitlines()
    assert lines[:2] == ["#EXTM3U", "#PLAYLIST:Evening"]
    assert lines[3::2] == [f"{NAME}/api/tracks/{track_id}/audio" for track_id in IDS]
    first = trained.tracks.row(by_predicate=pl.col("track_id") == IDS[0], named=True)
    assert (
        lines[2]
        == f"#EXTINF:{round(first['duration_s'] or -1)},{first['artist']} - {first['title']}"
    )
    assert client.get(urlsplit(lines[3]).path).status_code == 200, "the address plays"


def test_jspf_is_what_xspf_org_describes(client: TestClient) -> None:
    found = _exported(client, "jspf").json()
    assert set(found) == {"playlist"}
    assert found["playlist"]["title"] == "Evening"
    tracks = found["playlist"]["track"]
    assert [track["location"] for track in tracks] == [
        [f"{NAME}/api/tracks/{track_id}/audio"] for track_id in IDS
    ]
    for track in tracks:
        assert set(track) <= {"title", "creator", "album", "location", "identifier", "duration"}
        assert all(isinstance(track.get(name, ""), str) for name in ("title", "creator", "album"))
        assert isinstance(track.get("duration", 0), int)


def test_csv_has_a_row_a_track(client: TestClient, trained: Library) -> None:
    rows = list(csv.DictReader(io.StringIO(_exported(client, "csv").text)))
    assert [row["track_id"] for row in rows] == IDS
    assert [row["position"] for row in rows] == ["1", "2", "3"]
    known = trained.tracks.row(by_predicate=pl.col("track_id") == IDS[1], named=True)
    assert rows[1]["title"] == known["title"]
    assert rows[1]["tags"] == "; ".join(known["tags"])
    assert tuple(rows[0]) == COLUMNS


def test_where_files_lie_is_in_none_of_them(client: TestClient, trained_root: Path) -> None:
    for kind in KINDS:
        assert str(trained_root.parent) not in _exported(client, kind).text
        assert ".wav" not in _exported(client, kind).text


def test_a_track_that_is_not_there_is_named(client: TestClient) -> None:
    for kind in KINDS:
        answer = client.post(
            f"/api/export/{kind}", json={"title": "a", "track_ids": ["track-0001", "nobody"]}
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "nobody" in answer.json()["message"]


@pytest.mark.parametrize("ids", [[], ["a"] * 1001, [""], "track-0001"])
def test_a_list_has_one_to_a_thousand_tracks(client: TestClient, ids: Any) -> None:
    answer = client.post("/api/export/csv", json={"title": "a", "track_ids": ids})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_m3u8_keeps_a_track_without_audio_as_a_comment() -> None:
    text = as_m3u8(
        "a",
        [_track(has_audio=False, title="Silent", artist="X"), _track(title="Loud")],
        ["/1", "/2"],
    )
    assert text.splitlines() == [
        "#EXTM3U",
        "#PLAYLIST:a",
        "# no audio: X - Silent",
        "#EXTINF:-1,Loud",
        "/2",
    ]


def test_only_what_is_an_mbid_becomes_an_identifier() -> None:
    known = "b10bbbfc-cf9e-42e0-be17-e2c3e1d2600d"
    tracks = [_track(mbid=known), _track(mbid="javascript:alert(1)")]
    first, second = json.loads(as_jspf("a", tracks, ["/1", "/2"]))["playlist"]["track"]
    assert first["identifier"] == [f"https://musicbrainz.org/recording/{known}"]
    assert "identifier" not in second


@settings(max_examples=200)
@given(title=HOSTILE, artist=HOSTILE, tags=st.lists(HOSTILE, max_size=3), name=HOSTILE)
def test_whatever_tags_hold_lists_stay_whole(
    title: str, artist: str, tags: list[str], name: str
) -> None:
    tracks = [
        _track(title=title, artist=artist, album=title, genres=tags, tags=tags) for _ in range(2)
    ]
    places = ["http://h/1", "http://h/2"]
    lines = as_m3u8(name, tracks, places).splitlines()
    assert len(lines) == 6, "no tag makes a line of its own"
    assert [line for line in lines if not line.startswith("#")] == places
    assert [
        track["location"][0]
        for track in json.loads(as_jspf(name, tracks, places))["playlist"]["track"]
    ] == places
    rows = list(csv.reader(io.StringIO(as_csv(tracks, places))))
    assert [len(row) for row in rows] == [len(COLUMNS)] * 3
    for text in ("\n".join(lines), as_csv(tracks, places), as_jspf(name, tracks, places)):
        assert not {unicodedata.category(each) for each in text if each not in "\r\n"} & {
            "Cc",
            "Cf",
            "Cs",
            "Zl",
            "Zp",
        }
    for cell in (cell for row in rows[1:] for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'=1"),
        ("\r=1", "'=1"),
        ("\x00=1", "'=1"),
        ("\u200b=1", "'=1"),
        ("  =1", "'=1"),
        ("A = B", "A = B"),
        ("Jean-Michel", "Jean-Michel"),
        ("'quoted'", "'quoted'"),
        (None, ""),
    ],
)
def test_a_cell_is_no_formula(text: str | None, expected: str) -> None:
    assert safe_cell(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\nc\td", "a b c d"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x9b31m", "31m"),
        ("nul\x00l", "null"),
        ("abc\u202edef", "abcdef"),
        ("line\u2028two", "line two"),
        ("\U0001f469\u200d\U0001f3a4", "\U0001f469\u200d\U0001f3a4"),
        ("  Motörhead  ", "Motörhead"),
        (None, ""),
    ],
)
def test_a_line_is_one_line_that_steers_nothing(text: str | None, expected: str) -> None:
    assert strip_line_breaks(text) == expected


@pytest.mark.parametrize(
    ("title", "plain", "whole"),
    [
        ("Evening", "Evening.csv", "Evening.csv"),
        ("Abend, früh", "Abend, fruh.csv", "Abend, früh.csv"),
        ("夜の音楽", "playlist.csv", "夜の音楽.csv"),
        ("../../etc/passwd", "etc passwd.csv", "etc passwd.csv"),
        ('a"; filename="evil.exe', "a filename= evil.exe.csv", "a filename= evil.exe.csv"),
        (
            "a\uff02\uff1b b\uff0fc\uff3cd\u037e",
            "a b c d.csv",
            "a\uff02\uff1b b\uff0fc\uff3cd\u037e.csv",
        ),
        ("\uff0e\uff0e", "playlist.csv", "\uff0e\uff0e.csv"),
        ("a\r\nSet-Cookie: x=1", "a Set-Cookie x=1.csv", "a Set-Cookie x=1.csv"),
        ("..", "playlist.csv", "playlist.csv"),
        ("", "playlist.csv", "playlist.csv"),
        ("\x00\x1b", "playlist.csv", "playlist.csv"),
        ("C:\\Windows\\x", "C Windows x.csv", "C Windows x.csv"),
        ("x" * 300, "x" * 80 + ".csv", "x" * 80 + ".csv"),
    ],
)
def test_a_file_is_named_after_its_list_and_nothing_else(
    title: str, plain: str, whole: str
) -> None:
    """Read as the standard library reads a header: both forms of the name (RFC 6266)."""
    header = attachment(title, "csv")
    assert header.isascii()
    assert re.fullmatch(
        r"attachment; filename=\"[^\"\\\r\n]*\"; filename\*=UTF-8''[\w.%~-]+", header
    )
    message = Message()
    message["Content-Disposition"] = header.partition("; filename*")[0]
    assert message.get_filename() == plain
    assert unquote(header.partition("UTF-8''")[2]) == whole


def test_titles_go_through_the_service_unharmed(client: TestClient) -> None:
    answer = _exported(client, "m3u8", title='Night "1"\r\nX-Evil: 1\x1b[31m')
    assert "x-evil" not in answer.headers
    assert answer.text.splitlines()[1] == '#PLAYLIST:Night "1" X-Evil: 1[31m'
