"""Detects the format of a history's file by its content; the name decides between two that fit."""

import csv
import json
import re
from typing import Any, Literal, get_args

from ponticello.listening.importers import lastfm, music_servers
from ponticello.listening.importers.records import parse_time_us
from ponticello.listening.importers.sources import HistoryFile
from ponticello.storage.schema import INTERACTIONS, PLAYED_AT, TRACK_ID, USER_ID
from ponticello.storage.tables import SUFFIXES

Format = Literal[
    "listenbrainz", "spotify", "lastfm", "navidrome", "beets", "m3u", "pls", "xspf", "jspf", "table"
]
FORMATS: tuple[Format, ...] = get_args(Format)
_LISTENBRAINZ_KEYS = ({"track_metadata"}, {"score", "created"}, {"pinned_until", "created"})
_SPOTIFY_KEYS = ({"ts", "ms_played"}, {"endTime", "msPlayed"})
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def detect_format(source: HistoryFile) -> Format | None:
    """Returns the format of a file, or None if it holds no listening."""
    head = source.head()
    if head.startswith(music_servers.MAGIC):
        return _detect_database(source)
    if head.startswith(b"PAR1"):
        return "table"
    is_binary = b"\0" in head
    if source.suffix in (".m3u", ".m3u8") or head.lstrip(b"\xef\xbb\xbf").startswith(b"#EXTM3U"):
        return None if is_binary and not head.startswith(_UTF_16_MARKS) else "m3u"
    if is_binary:
        return None
    text = head.decode("utf-8-sig", "replace").lstrip()
    if re.match(r"\[playlist\]", text, re.IGNORECASE):
        return "pls"
    if text.startswith("<"):
        return "xspf" if re.search(r"<(?:\w+:)?playlist\b", text) else None
    if text.startswith(("{", "[")):
        return _detect_json(text, source)
    return _detect_csv(text, source)


def _detect_database(source: HistoryFile) -> Format | None:
    tables = music_servers.tables_of(source).keys()
    if tables >= music_servers.NAVIDROME_TABLES:
        return "navidrome"
    return "beets" if tables >= music_servers.BEETS_TABLES else None


def _detect_json(text: str, source: HistoryFile) -> Format | None:
    if re.match(r'\{\s*"playlist"\s*:\s*\{', text):
        return "jspf"
    has_artist = re.search(r'"artist"\s*:', text) is not None
    if has_artist and re.match(r'\{\s*"(?:recenttracks|username|track|scrobbles)"\s*:', text):
        return "lastfm"
    keys = _first_keys(text)
    if any(keys >= wanted for wanted in _LISTENBRAINZ_KEYS):
        return "listenbrainz"
    if any(keys >= wanted for wanted in _SPOTIFY_KEYS):
        return "spotify"
    if keys & {USER_ID, TRACK_ID, PLAYED_AT} and source.suffix in SUFFIXES:
        return "table"
    names = {lastfm.normalize_column(key) for key in keys}
    has_time = _has_column(names, "played_at")
    if "track" in keys and has_artist:
        return "lastfm"
    if _has_column(names, "artist") and (_has_column(names, "title") or has_time):
        return "lastfm"
    if source.suffix in (".jsonl", ".ndjson") and keys & set(INTERACTIONS.kinds):
        return "table"
    return None


def _first_keys(text: str) -> set[str]:
    """Returns the keys of the first readable object; of one that is cut off, all in the text."""
    start = text.find("{")
    while start >= 0:
        try:
            value: Any = json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            end_of_line = text.find("\n", start)
            next_start = text.find("{", end_of_line) if end_of_line >= 0 else -1
            if next_start < 0:
                return set(_KEY.findall(text[start:]))
            start = next_start
            continue
        return set(value) if isinstance(value, dict) else set()
    return set()


def _detect_csv(text: str, source: HistoryFile) -> Format | None:
    lines, delimiter = lastfm.sample_lines(text)
    try:
        fields = next(csv.reader(lines[:1], delimiter=delimiter), [])
    except csv.Error:
        return None
    names = {lastfm.normalize_column(field) for field in fields}
    if {USER_ID, TRACK_ID} & names:
        return "table"
    if _has_column(names, "artist") and _has_column(names, "title"):
        return "lastfm"
    n_dates = sum(parse_time_us(field.strip()) is not None for field in fields)
    if len(fields) >= 4 and n_dates == 1:
        return "lastfm"
    return "table" if source.suffix in SUFFIXES and PLAYED_AT in names else None


def _has_column(names: set[str], column: str) -> bool:
    return not names.isdisjoint(lastfm.NAMES[column])
