"""ListenBrainz: listens as JSONL or, in older exports, one JSON array; feedback and pinned
recordings.
"""

from collections.abc import Iterator
from typing import Any

from ponticello.listening.importers.records import (
    NO_DATE,
    NOT_NAMED,
    BadRecord,
    IgnoredRecord,
    ListenEvent,
    Record,
    Records,
    TrackReference,
    json_items,
    json_lines,
    parse_duration_s,
    parse_isrc,
    parse_mbid,
    parse_number,
    parse_text,
    parse_time_us,
    parse_uri,
)
from ponticello.listening.importers.sources import HistoryFile

_SCORES = {1.0: "like", -1.0: "dislike"}
_MILLISECONDS = 1e-3


def read_listenbrainz(source: HistoryFile) -> Records:
    """Listens are plays, a feedback of 1 a like, of -1 a dislike, a pinned recording is collected.

    The MusicBrainz id is that of `mbid_mapping`, else the one the player sent. A feedback of 0
    takes one back, and says nothing.
    """
    with source.open() as stream:
        is_array = source.head().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        items: Iterator[tuple[int, dict[str, Any] | BadRecord]] = (
            json_items(stream) if is_array else json_lines(stream)
        )
        for line, item in items:
            yield item if isinstance(item, BadRecord) else _record(item, line)


def _record(item: dict[str, Any], line: int) -> Record:
    if "score" in item:
        score = parse_number(item["score"])
        event = None if score is None else _SCORES.get(score)
        if score == 0:
            return IgnoredRecord()
        if event is None:
            return BadRecord(line, "score", item["score"], "is not 1, 0 or -1")
        when = "created"
    elif "pinned_until" in item or ("created" in item and "listened_at" not in item):
        event, when = "collect", "created"
    else:
        event, when = "play", "listened_at"
    at_us = parse_time_us(item.get(when))
    if at_us is None:
        return BadRecord(line, when, item.get(when), NO_DATE)
    heard = _heard(item)
    if heard.title is None and heard.mbid is None and heard.msid is None:
        return BadRecord(line, "track_metadata", "", NOT_NAMED)
    return ListenEvent(heard, at_us, event)


def _heard(item: dict[str, Any]) -> TrackReference:
    said = _part(item, "track_metadata")
    more, mapped = _part(said, "additional_info"), _part(said, "mbid_mapping")
    ids = [mapped.get("recording_mbid"), item.get("recording_mbid"), more.get("recording_mbid")]
    return TrackReference(
        mbid=next((found for found in map(parse_mbid, ids) if found), None),
        isrc=parse_isrc(more.get("isrc")),
        uri=parse_uri(more.get("spotify_id") or more.get("origin_url")),
        artist=parse_text(said.get("artist_name")),
        title=parse_text(said.get("track_name")),
        album=parse_text(said.get("release_name")),
        duration_s=parse_duration_s(more.get("duration_ms"), _MILLISECONDS)
        or parse_duration_s(more.get("duration")),
        msid=parse_text(said.get("recording_msid"))
        or parse_text(more.get("recording_msid"))
        or parse_text(item.get("recording_msid")),
    )


def _part(item: dict[str, Any], key: str) -> dict[str, Any]:
    found = item.get(key)
    return found if isinstance(found, dict) else {}
