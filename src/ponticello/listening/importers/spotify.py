"""Reads Spotify's extended streaming history, and the short one in the account data."""

from typing import Any

from ponticello.listening.importers import records
from ponticello.listening.importers.sources import HistoryFile

# Old rows have no `skipped`; a forward button before this is a skip, as platforms count plays.
SHORT_SKIP_S = 30.0
_OTHER_CONTENT = ("episode_name", "spotify_episode_uri", "audiobook_title", "audiobook_uri")


def read_spotify(source: HistoryFile) -> records.Records:
    """Yields plays with their length; `ts` and `endTime` (UTC) are when they ended.

    A row is a skip if it is marked so or, in old rows, if the forward button ended it within 30 s;
    complete if the track ran to its end; else a play. Podcasts and audiobooks are ignored.
    """
    with source.open() as stream:
        for row, item in records.json_items(stream):
            if isinstance(item, records.BadRecord):
                yield item
            elif "endTime" in item:
                yield _read_short_row(item, row)
            else:
                yield _read_extended_row(item, row)


def _read_extended_row(item: dict[str, Any], row: int) -> records.Record:
    title = records.parse_text(item.get("master_metadata_track_name"))
    uri = records.parse_uri(item.get("spotify_track_uri"))
    if title is None and uri is None:
        if any(item.get(key) for key in _OTHER_CONTENT):
            return records.IgnoredRecord()
        reason = "is missing, and so is spotify_track_uri"
        return records.BadRecord(row, "master_metadata_track_name", "", reason)
    track = records.TrackReference(
        uri=uri,
        artist=records.parse_text(item.get("master_metadata_album_artist_name")),
        title=title,
        album=records.parse_text(item.get("master_metadata_album_album_name")),
    )
    return _event(item, row, track, "ts", "ms_played")


def _read_short_row(item: dict[str, Any], row: int) -> records.Record:
    title = records.parse_text(item.get("trackName"))
    if title is None:
        if item.get("podcastName"):
            return records.IgnoredRecord()
        return records.BadRecord(row, "trackName", "", "is missing")
    track = records.TrackReference(artist=records.parse_text(item.get("artistName")), title=title)
    return _event(item, row, track, "endTime", "msPlayed")


def _event(
    item: dict[str, Any], row: int, track: records.TrackReference, time_key: str, length_key: str
) -> records.Record:
    at_us = records.parse_time_us(item.get(time_key))
    if at_us is None:
        return records.BadRecord(row, time_key, item.get(time_key), records.NO_DATE)
    played_ms = records.parse_number(item.get(length_key))
    if played_ms is None or played_ms < 0:
        return records.BadRecord(
            row, length_key, item.get(length_key), "is not a number of milliseconds"
        )
    played_s = played_ms / 1000
    return records.ListenEvent(track, at_us, _event_kind(item, played_s), played_s)


def _event_kind(item: dict[str, Any], played_s: float) -> str:
    skipped = item.get("skipped")
    reason_end = item.get("reason_end")
    is_short_skip = reason_end == "fwdbtn" and played_s < SHORT_SKIP_S
    if skipped is True or (skipped is None and is_short_skip):
        return "skip"
    return "complete" if reason_end == "trackdone" else "play"
