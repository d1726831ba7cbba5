"""What a file of a history is, told by its content; its name decides only where the content fits
two formats.
"""

import csv
import io
import json
import re
from typing import Any, Literal, get_args

from ponticello.listening.importers import lastfm
from ponticello.listening.importers import music_servers as beets
from ponticello.listening.importers import music_servers as navidrome
from ponticello.listening.importers.music_servers import MAGIC, tables_of
from ponticello.listening.importers.records import parse_time_us
from ponticello.listening.importers.sources import HistoryFile
from ponticello.storage.schema import INTERACTIONS, PLAYED_AT, TRACK_ID, USER_ID

Format = Literal[
    "listenbrainz", "spotify", "lastfm", "navidrome", "beets", "m3u", "pls", "xspf", "jspf", "table"
]
FORMATS: tuple[Format, ...] = get_args(Format)
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_LISTENBRAINZ_KEYS = ({"track_metadata"}, {"score", "created"}, {"pinned_until", "created"})
_SPOTIFY_KEYS = ({"ts", "ms_played"}, {"endTime", "msPlayed"})
_OBJECT = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')


def detect_format(source: HistoryFile) -> Format | None:
    """The format of a file, or None for one that holds no listening."""
    head = source.head()
    if head.startswith(MAGIC):
        tables = tables_of(source)
        return (
            "navidrome"
            if tables.keys() >= navidrome.NAVIDROME_TABLES
            else "beets"
            if tables.keys() >= beets.BEETS_TABLES
            else None
        )
    if head.startswith(b"PAR1"):
        return "table"
    if source.suffix in (".m3u", ".m3u8") or head.lstrip(b"\xef\xbb\xbf").startswith(b"#EXTM3U"):
        return None if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")) else "m3u"
    if b"\0" in head:
        return None
    text = head.decode("utf-8-sig", "replace").lstrip()
    if re.match(r"\[playlist\]", text, re.IGNORECASE):
        return "pls"
    if text.startswith("<"):
        return "xspf" if re.search(r"<(?:\w+:)?playlist\b", text) else None
    if text[:1] in ("{", "["):
        return _json(text, source)
    return _delimited(text, source)


def _json(text: str, source: HistoryFile) -> Format | None:
    if re.match(r'\{\s*"playlist"\s*:\s*\{', text):
        return "jspf"
    if re.match(r'\{\s*"(?:recenttracks|username|track|scrobbles)"\s*:', text) and re.search(
        r'"artist"\s*:', text
    ):
        return "lastfm"
    keys = _first_keys(text)
    if any(keys >= wanted for wanted in _LISTENBRAINZ_KEYS):
        return "listenbrainz"
    if any(keys >= wanted for wanted in _SPOTIFY_KEYS):
        return "spotify"
    names = {re.sub(r"[^a-z0-9]+", "_", key.lower()) for key in keys}
    if keys & {USER_ID, TRACK_ID, PLAYED_AT} and source.suffix in TABLE_SUFFIXES:
        return "table"
    if "track" in keys and re.search(r'"artist"\s*:', text):
        return "lastfm"
    if names & set(lastfm.NAMES["artist"]) and names & {
        *lastfm.NAMES["title"],
        *lastfm.NAMES["played_at"],
    }:
        return "lastfm"
    return (
        "table"
        if source.suffix in (".jsonl", ".ndjson") and keys & set(INTERACTIONS.kinds)
        else None
    )


def _first_keys(text: str) -> set[str]:
    """The keys of the first object that can be read, at its first level; of one that is cut off,
    all there are.
    """
    start = text.find("{")
    while start >= 0:
        try:
            found: Any = json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            end = text.find("\n", start)
            begin = text.find("{", end) if 0 <= end < len(text) - 1 else -1
            if begin < 0:
                return set(_OBJECT.findall(text[start:]))
            start = begin
            continue
        return set(found) if isinstance(found, dict) else set()
    return set()


def _delimited(text: str, source: HistoryFile) -> Format | None:
    lines = [line for line in io.StringIO(text, newline=None) if line.strip()]
    if not lines:
        return None
    delimiter = max(",;\t", key=lines[0].count)
    try:
        first = [field.strip() for field in next(csv.reader([lines[0]], delimiter=delimiter), [])]
    except csv.Error:
        return None
    names = {
        re.sub(r"[^a-z0-9]+", "_", field.partition("#")[0].lower()).strip("_") for field in first
    }
    if {USER_ID, TRACK_ID} & names:
        return "table"
    if names & set(lastfm.NAMES["artist"]) and names & set(lastfm.NAMES["title"]):
        return "lastfm"
    if len(first) >= 4 and sum(parse_time_us(field) is not None for field in first) == 1:
        return "lastfm"
    return "table" if source.suffix in TABLE_SUFFIXES and PLAYED_AT in names else None
