"""Spotify: the extended streaming history, and the short one that comes with the account data."""

from typing import Any

from ponticello.data.history.json_items import json_items
from ponticello.data.history.listen import (
    NO_DATE,
    Fault,
    Heard,
    Listen,
    NotMusic,
    Record,
    Records,
    moment,
    number,
    text,
    uri_of,
)
from ponticello.data.history.sources import Source

SHORT_SKIP_S = 30.0  # old rows do not say `skipped`: a forward button before this is one, as platforms count plays
_OTHER_CONTENT = ("episode_name", "spotify_episode_uri", "audiobook_title", "audiobook_uri")


def read_spotify(source: Source) -> Records:
    """Plays with how long they lasted; `ts` and `endTime` (UTC) are when they ended.

    event: skip where the row says skipped, or (old rows, which do not say) where the forward button ended it within
    30 s; complete where the track ran to its end; else play. Podcasts and audiobooks are no music. Of the address,
    country, device, agent, account name, shuffle and private-session fields nothing is kept.
    """
    with source.open() as stream:
        for row, item in json_items(stream):
            if isinstance(item, Fault):
                yield item
            else:
                yield _short(item, row) if "endTime" in item else _extended(item, row)


def _extended(item: dict[str, Any], row: int) -> Record:
    title, uri = text(item.get("master_metadata_track_name")), uri_of(item.get("spotify_track_uri"))
    if title is None and uri is None:
        if any(item.get(key) for key in _OTHER_CONTENT):
            return NotMusic()
        return Fault(row, "master_metadata_track_name", "", "is missing, and so is spotify_track_uri")
    at_us, played_ms = moment(item.get("ts")), number(item.get("ms_played"))
    if at_us is None:
        return Fault(row, "ts", item.get("ts"), NO_DATE)
    if played_ms is None or played_ms < 0:
        return Fault(row, "ms_played", item.get("ms_played"), "is not a number of milliseconds")
    heard = Heard(
        uri=uri,
        artist=text(item.get("master_metadata_album_artist_name")),
        title=title,
        album=text(item.get("master_metadata_album_album_name")),
    )
    return Listen(heard, at_us, _event(item, played_ms / 1000), played_ms / 1000)


def _event(item: dict[str, Any], played_s: float) -> str:
    skipped, ended = item.get("skipped"), item.get("reason_end")
    if skipped is True or (skipped is None and ended == "fwdbtn" and played_s < SHORT_SKIP_S):
        return "skip"
    return "complete" if ended == "trackdone" else "play"


def _short(item: dict[str, Any], row: int) -> Record:
    title, at_us, played_ms = text(item.get("trackName")), moment(item["endTime"]), number(item.get("msPlayed"))
    if title is None:
        return NotMusic() if item.get("podcastName") else Fault(row, "trackName", "", "is missing")
    if at_us is None:
        return Fault(row, "endTime", item["endTime"], NO_DATE)
    if played_ms is None or played_ms < 0:
        return Fault(row, "msPlayed", item.get("msPlayed"), "is not a number of milliseconds")
    return Listen(Heard(artist=text(item.get("artistName")), title=title), at_us, "play", played_ms / 1000)
