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
    isrc_of,
    json_items,
    json_lines,
    length,
    mbid_in,
    moment,
    number,
    text,
    uri_of,
)
from ponticello.listening.importers.sources import Source

_SCORES = {1.0: "like", -1.0: "dislike"}
_MILLISECONDS = 1e-3


def read_listenbrainz(source: Source) -> Records:
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
        score = number(item["score"])
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
    at_us = moment(item.get(when))
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
        mbid=next((found for found in map(mbid_in, ids) if found), None),
        isrc=isrc_of(more.get("isrc")),
        uri=uri_of(more.get("spotify_id") or more.get("origin_url")),
        artist=text(said.get("artist_name")),
        title=text(said.get("track_name")),
        album=text(said.get("release_name")),
        duration_s=length(more.get("duration_ms"), _MILLISECONDS) or length(more.get("duration")),
        msid=text(said.get("recording_msid"))
        or text(more.get("recording_msid"))
        or text(item.get("recording_msid")),
    )


def _part(item: dict[str, Any], key: str) -> dict[str, Any]:
    found = item.get(key)
    return found if isinstance(found, dict) else {}
