"""Reads ListenBrainz exports: listens (JSONL, once a JSON array), feedback, pinned recordings."""

from typing import Any

from ponticello.listening.importers import records
from ponticello.listening.importers.sources import HistoryFile

_SCORES: dict[float | None, str] = {1.0: "like", -1.0: "dislike"}


def read_listenbrainz(source: HistoryFile) -> records.Records:
    """Yields plays, likes (feedback of 1), dislikes (-1) and collected tracks (pinned recordings).

    The MusicBrainz id of `mbid_mapping` has priority over the player's. Feedback of 0 is ignored.
    """
    with source.open() as stream:
        is_array = source.head().lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        for line, item in records.json_items(stream) if is_array else records.json_lines(stream):
            yield item if isinstance(item, records.BadRecord) else _read_item(item, line)


def _read_item(item: dict[str, Any], line: int) -> records.Record:
    event = "play"
    time_key = "listened_at"
    if "score" in item:
        score = records.parse_number(item["score"])
        if score == 0:
            return records.IgnoredRecord()
        if score not in _SCORES:
            return records.BadRecord(line, "score", item["score"], "is not 1, 0 or -1")
        event = _SCORES[score]
        time_key = "created"
    elif "pinned_until" in item or ("created" in item and "listened_at" not in item):
        event = "collect"
        time_key = "created"
    at_us = records.parse_time_us(item.get(time_key))
    if at_us is None:
        return records.BadRecord(line, time_key, item.get(time_key), records.NO_DATE)
    track = _track(item)
    if track.title is None and track.mbid is None and track.msid is None:
        return records.BadRecord(line, "track_metadata", "", records.NOT_NAMED)
    return records.ListenEvent(track, at_us, event)


def _track(item: dict[str, Any]) -> records.TrackReference:
    metadata = _object(item, "track_metadata")
    player = _object(metadata, "additional_info")
    mapping = _object(metadata, "mbid_mapping")
    duration_s = records.parse_duration_s(player.get("duration_ms"), unit_s=1e-3)
    mbids = [source.get("recording_mbid") for source in (mapping, item, player)]
    msids = [source.get("recording_msid") for source in (metadata, player, item)]
    return records.TrackReference(
        mbid=records.parse_mbid(*mbids),
        isrc=records.parse_isrc(player.get("isrc")),
        uri=records.parse_uri(player.get("spotify_id") or player.get("origin_url")),
        artist=records.parse_text(metadata.get("artist_name")),
        title=records.parse_text(metadata.get("track_name")),
        album=records.parse_text(metadata.get("release_name")),
        duration_s=duration_s or records.parse_duration_s(player.get("duration")),
        msid=next(filter(None, map(records.parse_text, msids)), None),
    )


def _object(item: dict[str, Any], key: str) -> dict[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}
