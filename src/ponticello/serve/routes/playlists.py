"""POST /api/export/...: a list of tracks as M3U8, JSPF or CSV, harmless whatever their tags hold.

A list never contains the path of a file; its entries are addresses of this service.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from ponticello.serve.catalog import tracks_of
from ponticello.serve.routes.search import Now
from ponticello.serve.schemas import MAX_IDS, RequestModel, TrackId, with_examples
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.files import escape_csv_cell

LISTS = ("genres", "tags", "machine_tags")
COLUMNS = ("position", "track_id", "title", "artist", "album", *LISTS, "duration_s", "location")
_JOINERS = "\u200c\u200d"  # of emoji and of scripts that need them
_NAME_LENGTH = 80  # characters of a file's name
_UNSAFE = re.compile(r'[\\/:*?"<>|%;]+')
_MBID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_M3U8 = "audio/x-mpegurl"
_JSPF = "application/jspf+json"
_CSV = "text/csv"
router = APIRouter(prefix="/api/export", tags=["export"])


class Playlist(RequestModel):
    """The tracks to export, in this order; a track may occur twice."""

    model_config = with_examples({"title": "Evening", "track_ids": ["track-0001", "track-0002"]})
    title: Annotated[str, Field(max_length=200)] = "Ponticello"
    track_ids: Annotated[list[TrackId], Field(min_length=1, max_length=MAX_IDS)]


def strip_line_breaks(text: str | None) -> str:
    """Returns `text` as one line without control and format characters, except joiners."""
    line = ""
    for character in " ".join((text or "").split()):
        if character in _JOINERS or unicodedata.category(character)[0] != "C":
            line += character
    return line.strip()


def as_m3u8(title: str, tracks: Sequence[dict[str, Any]], locations: Sequence[str]) -> str:
    """Returns the tracks as extended M3U; a track without audio becomes a comment."""
    lines = ["#EXTM3U", f"#PLAYLIST:{strip_line_breaks(title)}"]
    for track, location in zip(tracks, locations, strict=True):
        seconds = -1 if track["duration_s"] is None else round(track["duration_s"])
        names = (track["artist"], track["title"] or track["track_id"])
        name = " - ".join(filter(None, map(strip_line_breaks, names)))
        if track["has_audio"]:
            lines += [f"#EXTINF:{seconds},{name}", location]
        else:
            lines.append(f"# no audio: {name}")
    return "\n".join(lines) + "\n"


def as_jspf(title: str, tracks: Sequence[dict[str, Any]], locations: Sequence[str]) -> str:
    """Returns the tracks as JSPF, the JSON of XSPF (xspf.org/jspf)."""
    entries = []
    for track, location in zip(tracks, locations, strict=True):
        entry: dict[str, Any] = {"title": strip_line_breaks(track["title"] or track["track_id"])}
        if track["has_audio"]:
            entry["location"] = [location]
        if _MBID.fullmatch(track["mbid"] or ""):
            entry["identifier"] = [f"https://musicbrainz.org/recording/{track['mbid']}"]
        if artist := strip_line_breaks(track["artist"]):
            entry["creator"] = artist
        if album := strip_line_breaks(track["album"]):
            entry["album"] = album
        if track["duration_s"] is not None:
            entry["duration"] = round(1000 * track["duration_s"])  # ms
        entries.append(entry)
    playlist = {"title": strip_line_breaks(title), "track": entries}
    return json.dumps({"playlist": playlist}, ensure_ascii=False, indent=1) + "\n"


def as_csv(tracks: Sequence[dict[str, Any]], locations: Sequence[str]) -> str:
    """Returns the tracks as CSV; an apostrophe precedes a text that looks like a formula."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for position, (track, location) in enumerate(zip(tracks, locations, strict=True), 1):
        texts = [track["track_id"], track["title"], track["artist"], track["album"]]
        lists = ["; ".join(track[name]) for name in LISTS]
        seconds = "" if track["duration_s"] is None else f"{track['duration_s']:g}"
        cells = [safe_cell(text) for text in texts + lists]
        writer.writerow([position, *cells, seconds, location if track["has_audio"] else ""])
    return target.getvalue()


def safe_cell(text: str | None) -> str:
    """Returns `text` as a cell that is no formula: an apostrophe precedes one that looks so."""
    return str(escape_csv_cell(strip_line_breaks(text)))


def attachment(title: str, suffix: str) -> str:
    """Returns a Content-Disposition that names the file after any `title` (RFC 6266)."""
    name = _file_name(strip_line_breaks(title))
    # A wide slash becomes a plain one, so that the name is cleaned again.
    plain = _file_name(unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode())
    encoded = quote(f"{name}.{suffix}", safe="")
    return f"attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{encoded}"


def _file_name(text: str) -> str:
    name = " ".join(_UNSAFE.sub(" ", text).split()).strip(". ")
    return name[:_NAME_LENGTH].strip(". ") or "playlist"


def _entries(
    now: Snapshot, request: Request, playlist: Playlist
) -> tuple[list[dict[str, Any]], list[str]]:
    base = str(request.base_url).rstrip("/")
    tracks = tracks_of(now, playlist.track_ids)
    locations = []
    for track in tracks:
        track["mbid"] = now.tracks["mbid"][now.row(track["track_id"])]
        locations.append(f"{base}/api/tracks/{quote(track['track_id'], safe='')}/audio")
    return tracks, locations


def _file(text: str, media_type: str, title: str, suffix: str) -> Response:
    headers = {"Content-Disposition": attachment(title, suffix)}
    return Response(text.encode("utf-8", "replace"), media_type=media_type, headers=headers)


def _file_of(media_type: str, json_type: str = "string") -> dict[str, Any]:
    content = {media_type: {"schema": {"type": json_type}}}
    response = {"description": "The file", "content": content}
    return {"response_class": Response, "responses": {200: response}}


@router.post("/m3u8", summary="Export as M3U8", **_file_of(_M3U8))
def m3u8(playlist: Playlist, now: Now, request: Request) -> Response:
    """A playlist that players open; each entry is this service's address of the track's audio."""
    text = as_m3u8(playlist.title, *_entries(now, request, playlist))
    return _file(text, _M3U8, playlist.title, "m3u8")


@router.post("/jspf", summary="Export as JSPF", **_file_of(_JSPF, "object"))
def jspf(playlist: Playlist, now: Now, request: Request) -> Response:
    """The JSON form of XSPF, with the MusicBrainz ids of the tracks that have one."""
    text = as_jspf(playlist.title, *_entries(now, request, playlist))
    return _file(text, _JSPF, playlist.title, "jspf")


@router.post("/csv", summary="Export as CSV", **_file_of(_CSV))
def as_table(playlist: Playlist, now: Now, request: Request) -> Response:
    """A table, UTF-8; an apostrophe precedes a text that begins like a formula."""
    return _file(as_csv(*_entries(now, request, playlist)), _CSV, playlist.title, "csv")
