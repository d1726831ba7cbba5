"""Reads playlists (M3U, M3U8, PLS, JSPF and XSPF); each track becomes a `playlist` event.

The event's date is the date the track was added or that of the playlist, if the file has one, else
the time the file was changed. Relative paths start from the playlist's folder. The name of a
playlist is replaced by a keyed hash. An XSPF file that declares an entity is refused: no playlist
needs one, and bombs are made of them.
"""

import posixpath
import re
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import Element
from xml.parsers.expat import ErrorString

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from ponticello.listening.importers import records
from ponticello.listening.importers.sources import HistoryFile

MOST_BYTES = 64 << 20  # of a playlist that is lines of text or XML
_EXTINF = re.compile(r"#EXTINF:\s*(-?\d+(?:\.\d+)?)?[^,]*,(.*)", re.IGNORECASE)
_PLS = re.compile(r"(File|Title|Length)(\d+)\s*=\s*(.*)", re.IGNORECASE)
_PLS_OTHER = re.compile(
    r"\[playlist\]|(?:numberofentries|version|playlistname)\s*=|[;#]", re.IGNORECASE
)
_FILE_ADDRESS = re.compile(r"file:(?://[^/\\]*)?", re.IGNORECASE)
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def read_m3u(source: HistoryFile) -> records.Records:
    """Yields the files and addresses, one per line, with the values of the `#EXT` lines above."""
    fields: dict[str, Any] = {}
    for number, line in enumerate(_lines(source), 1):
        if match := _EXTINF.match(line):
            fields["duration_s"] = records.parse_duration_s(match[1])
            fields |= _artist_and_title(match[2])
        elif line.upper().startswith("#EXTALB:"):
            fields["album"] = records.parse_text(line[8:])
        elif line.upper().startswith("#EXTART:"):
            fields["artist"] = records.parse_text(line[8:])
        elif line and not line.startswith("#"):
            yield _entry(source, _locate(source, line)._replace(**fields), number)
            fields = {}


def read_pls(source: HistoryFile) -> records.Records:
    """Yields the tracks of `File1=`, `Title1=` and `Length1=`, in any order of lines."""
    entries: dict[int, dict[str, str]] = {}
    first_lines: dict[int, int] = {}
    for number, line in enumerate(_lines(source), 1):
        if match := _PLS.match(line):
            entry_number = int(match[2])
            entries.setdefault(entry_number, {})[match[1].lower()] = match[3].strip()
            first_lines.setdefault(entry_number, number)
        elif line and not _PLS_OTHER.match(line):
            yield records.BadRecord(number, "", line, "is no entry of a PLS playlist")
    for entry_number, entry in sorted(entries.items()):
        title = entry.get("title", "")
        if not entry.get("file"):
            yield records.BadRecord(
                first_lines[entry_number], f"File{entry_number}", title, "is missing"
            )
            continue
        track = _locate(source, entry["file"])._replace(
            duration_s=records.parse_duration_s(entry.get("length")), **_artist_and_title(title)
        )
        yield _entry(source, track, first_lines[entry_number])


def read_jspf(source: HistoryFile) -> records.Records:
    """Yields the tracks; an identifier at musicbrainz.org is the id of the recording."""
    match = re.search(rb'"date"\s*:\s*"([^"]+)"', source.head().partition(b'"track"')[0])
    date_us = records.parse_time_us(match[1].decode("utf-8", "replace")) if match else None
    with source.open() as stream:
        for row, item in records.json_items(stream, ("track",)):
            if isinstance(item, records.BadRecord):
                yield item
            else:
                yield _entry(source, _spiff_track(source, item), row, _added_us(item) or date_us)


def read_xspf(source: HistoryFile) -> records.Records:
    """Yields the tracks, numbered from 1; a file that breaks off ends with a fault."""
    if source.size > MOST_BYTES:
        yield records.BadRecord(
            None, "", "", f"is larger than {MOST_BYTES >> 20} MiB, and is not read"
        )
        return
    root: Element | None = None
    row = 0
    with source.open() as stream:
        try:
            # A DTD that the file refers to is allowed, and not loaded.
            for event, element in iterparse(stream, ("start", "end"), forbid_external=False):
                root = element if root is None else root
                if event == "start" or _local_name(element) != "track":
                    continue
                row += 1
                track = _spiff_track(source, _xspf_fields(element))
                yield _entry(source, track, row, records.parse_time_us(root.findtext("{*}date")))
                element.clear()
        except ParseError as error:
            reason = f"is not valid XML from here on: {ErrorString(error.code)}"
            yield records.BadRecord(error.position[0], "", "", reason)
        except DefusedXmlException:
            reason = "declares an XML entity, which is refused; save the playlist without it"
            yield records.BadRecord(None, "", "", reason)


def _xspf_fields(track: Element) -> dict[str, Any]:
    identifiers: list[str] = []
    fields: dict[str, Any] = {"identifier": identifiers}
    for child in track:
        text = (child.text or "").strip()
        if _local_name(child) == "identifier":
            identifiers.append(text)
        else:
            fields.setdefault(_local_name(child), text)
    return fields


def _local_name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _spiff_track(source: HistoryFile, fields: dict[str, Any]) -> records.TrackReference:
    """Returns a track of XSPF or JSPF, which share their fields; `duration` is in milliseconds."""
    location = next(filter(records.parse_text, _values(fields, "location")), None)
    track = _locate(source, location) if location else records.TrackReference()
    identifiers = [value for value in _values(fields, "identifier") if isinstance(value, str)]
    addresses = [value for value in identifiers if "musicbrainz.org" not in value]
    uri = track.uri
    if not uri and addresses:
        uri = records.parse_uri(addresses[0])
    return track._replace(
        mbid=records.parse_mbid(*identifiers),
        uri=uri,
        artist=records.parse_text(fields.get("creator")),
        title=records.parse_text(fields.get("title")),
        album=records.parse_text(fields.get("album")),
        duration_s=records.parse_duration_s(fields.get("duration"), 1e-3),
    )


def _values(fields: dict[str, Any], key: str) -> list[Any]:
    values = fields.get(key)
    return values if isinstance(values, list) else [values]


def _added_us(item: dict[str, Any]) -> int | None:
    extensions = item.get("extension")
    if isinstance(extensions, dict):
        for fields in extensions.values():
            if isinstance(fields, dict) and (
                at_us := records.parse_time_us(fields.get("added_at"))
            ):
                return at_us
    return None


def _entry(
    source: HistoryFile, track: records.TrackReference, line: int, at_us: int | None = None
) -> records.ListenEvent | records.BadRecord:
    if not (track.path or track.uri or track.mbid or track.title):
        return records.BadRecord(line, "", "", records.NOT_NAMED)
    return records.ListenEvent(track, at_us or source.modified_us, "playlist", session=source.name)


def _locate(source: HistoryFile, location: str) -> records.TrackReference:
    """Returns a path or an address. A relative path starts from the playlist's folder, if any."""
    scheme = re.match(r"([a-z][a-z0-9+.-]+):", location, re.IGNORECASE)
    if scheme and scheme[1].lower() != "file":
        return records.TrackReference(uri=records.parse_uri(location))
    path = unquote(_FILE_ADDRESS.sub("", location)) if scheme else location
    is_absolute = path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", path)
    if not is_absolute and source.path is not None:
        folder = source.path.resolve().parent.as_posix()
        path = posixpath.normpath(posixpath.join(folder, path.replace("\\", "/")))
    return records.TrackReference(path=path)


def _artist_and_title(value: str) -> dict[str, str | None]:
    artist, dash, title = value.partition(" - ")
    if not dash:
        return {"title": records.parse_text(value)}
    return {"artist": records.parse_text(artist), "title": records.parse_text(title)}


def _lines(source: HistoryFile) -> list[str]:
    """Returns the lines, decoded by the byte order mark, else as UTF-8, else as cp1252."""
    with source.open() as stream:
        data = stream.read(MOST_BYTES)
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, "replace")
            return [line.strip() for line in text.splitlines()]
    lines = []
    for raw in re.split(rb"\r\n|\n|\r", data):
        try:
            lines.append(raw.decode("utf-8").strip())
        except UnicodeDecodeError:
            lines.append(raw.decode("cp1252", "replace").strip())
    return lines
