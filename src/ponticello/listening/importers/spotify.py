"""Spotify: the extended streaming history, and the short one that comes with the account data."""

from typing import Any

from ponticello.listening.importers.records import (
    NO_DATE,
    BadRecord,
    IgnoredRecord,
    ListenEvent,
    Record,
    Records,
    TrackReference,
    json_items,
    parse_number,
    parse_text,
    parse_time_us,
    parse_uri,
)
from ponticello.listening.importers.sources import HistoryFile

# old rows do not say `skipped`: a forward button before this is one, as platforms count plays
SHORT_SKIP_S = 30.0
_OTHER_CONTENT = ("episode_name", "spotify_episode_uri", "audiobook_title", "audiobook_uri")


def read_spotify(source: HistoryFile) -> Records:
    """Plays with how long they lasted; `ts` and `endTime` (UTC) are when they ended.

    event: skip where the row says skipped, or (old rows, which do not say) where the forward button
    ended it within 30 s; complete where the track ran to its end; else play. Podcasts and
    audiobooks are no music. Of the address, country, device, agent, account name, shuffle and
    private-session fields nothing is kept.
    """
    with source.open() as stream:
        for row, item in json_items(stream):
            if isinstance(item, BadRecord):
                yield item
            else:
                yield _short(item, row) if "endTime" in item else _extended(item, row)


def _extended(item: dict[str, Any], row: int) -> Record:
    title, uri = (
        parse_text(item.get("master_metadata_track_name")),
        parse_uri(item.get("spotify_track_uri")),
    )
    if title is None and uri is None:
        if any(item.get(key) for key in _OTHER_CONTENT):
            return IgnoredRecord()
        return BadRecord(
            row, "master_metadata_track_name", "", "is missing, and so is spotify_track_uri"
        )
    at_us, played_ms = parse_time_us(item.get("ts")), parse_number(item.get("ms_played"))
    if at_us is None:
        return BadRecord(row, "ts", item.get("ts"), NO_DATE)
    if played_ms is None or played_ms < 0:
        return BadRecord(row, "ms_played", item.get("ms_played"), "is not a number of milliseconds")
    heard = TrackReference(
        uri=uri,
        artist=parse_text(item.get("master_metadata_album_artist_name")),
        title=title,
        album=parse_text(item.get("master_metadata_album_album_name")),
    )
    return ListenEvent(heard, at_us, _event(item, played_ms / 1000), played_ms / 1000)


def _event(item: dict[str, Any], played_s: float) -> str:
    skipped, ended = item.get("skipped"), item.get("reason_end")
    if skipped is True or (skipped is None and ended == "fwdbtn" and played_s < SHORT_SKIP_S):
        return "skip"
    return "complete" if ended == "trackdone" else "play"


def _short(item: dict[str, Any], row: int) -> Record:
    title, at_us, played_ms = (
        parse_text(item.get("trackName")),
        parse_time_us(item["endTime"]),
        parse_number(item.get("msPlayed")),
    )
    if title is None:
        return (
            IgnoredRecord()
            if item.get("podcastName")
            else BadRecord(row, "trackName", "", "is missing")
        )
    if at_us is None:
        return BadRecord(row, "endTime", item["endTime"], NO_DATE)
    if played_ms is None or played_ms < 0:
        return BadRecord(row, "msPlayed", item.get("msPlayed"), "is not a number of milliseconds")
    return ListenEvent(
        TrackReference(artist=parse_text(item.get("artistName")), title=title),
        at_us,
        "play",
        played_ms / 1000,
    )
