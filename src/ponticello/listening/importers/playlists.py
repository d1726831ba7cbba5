"""Reads playlists (M3U, M3U8, PLS, JSPF and XSPF); each track becomes a `playlist` event.

The event's date is the date the track was added or that of the playlist, if the file has one, else
the time the file was changed. Relative paths start from the playlist's folder. The name of a
playlist is replaced by a keyed hash. An XSPF file that declares an entity is refused: no playlist
needs one, and bombs are made of them.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler, feature_namespaces

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from ponticello.listening.importers.records import (
    NOT_NAMED,
    BadRecord,
    ListenEvent,
    Records,
    TrackReference,
    find_mbid,
    json_items,
    parse_duration_s,
    parse_text,
    parse_time_us,
    parse_uri,
)
from ponticello.listening.importers.sources import HistoryFile

MOST_BYTES = 64 << 20  # of a playlist that is lines of text
_EXTINF = re.compile(r"#EXTINF:\s*(-?\d+(?:\.\d+)?)?[^,]*,(.*)", re.IGNORECASE)
_PLS = re.compile(r"(File|Title|Length)(\d+)\s*=\s*(.*)", re.IGNORECASE)
_FILE_ADDRESS = re.compile(r"file:(?://[^/\\]*)?", re.IGNORECASE)
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def read_m3u(source: HistoryFile) -> Records:
    """Yields the files and addresses, one per line, with the values of the `#EXT` lines above."""
    artist = title = album = None
    duration_s = None
    for line, written in enumerate(_lines(source), 1):
        if not written:
            continue
        if written.startswith("#"):
            if match := _EXTINF.match(written):
                duration_s = parse_duration_s(match[1])
                artist, title = _named(match[2])
            elif written.upper().startswith("#EXTALB:"):
                album = parse_text(written[8:])
            elif written.upper().startswith("#EXTART:"):
                artist = parse_text(written[8:])
            continue
        track = _located(source, written)._replace(
            artist=artist, title=title, album=album, duration_s=duration_s
        )
        yield _listen(source, track, line, written)
        artist = title = album = duration_s = None


def read_pls(source: HistoryFile) -> Records:
    """Yields the tracks of `File1=`, `Title1=` and `Length1=`, in any order of lines."""
    entries: dict[int, dict[str, str]] = {}
    first_lines: dict[int, int] = {}
    for line, written in enumerate(_lines(source), 1):
        if match := _PLS.match(written):
            number = int(match[2])
            entries.setdefault(number, {})[match[1].lower()] = match[3].strip()
            first_lines.setdefault(number, line)
        elif written and not re.match(
            r"\[playlist\]|(?:numberofentries|version|playlistname)\s*=|[;#]", written, re.I
        ):
            yield BadRecord(line, "", written, "is no entry of a PLS playlist")
    for number, entry in sorted(entries.items()):
        line = first_lines[number]
        if not entry.get("file"):
            yield BadRecord(line, f"File{number}", entry.get("title", ""), "is missing")
            continue
        artist, title = _named(entry.get("title", ""))
        track = _located(source, entry["file"])._replace(
            artist=artist, title=title, duration_s=parse_duration_s(entry.get("length"))
        )
        yield _listen(source, track, line, entry["file"])


def read_jspf(source: HistoryFile) -> Records:
    """Yields the tracks; an identifier at musicbrainz.org is the id of the recording."""
    dated = re.search(rb'"date"\s*:\s*"([^"]+)"', source.head().partition(b'"track"')[0])
    date = parse_time_us(dated[1].decode("utf-8", "replace")) if dated else None
    with source.open() as stream:
        for row, item in json_items(stream, ("track",)):
            if isinstance(item, BadRecord):
                yield item
                continue
            at_us = _added(item) or date
            track = spiff_track(source, _first(item, "location"), _all(item, "identifier"), item)
            yield _listen(source, track, row, "", at_us)


def spiff_track(
    source: HistoryFile, location: Any, identifiers: list[Any], fields: dict[str, Any]
) -> TrackReference:
    """Returns a track of XSPF or JSPF, which share their fields; `duration` is in milliseconds."""
    track = _located(source, location) if parse_text(location) else TrackReference()
    texts = [identifier for identifier in identifiers if isinstance(identifier, str)]
    uri = track.uri
    if not uri:
        addresses = [text for text in texts if "musicbrainz.org" not in text]
        uri = parse_uri(addresses[0]) if addresses else None
    return track._replace(
        mbid=find_mbid(*texts),
        uri=uri,
        artist=parse_text(fields.get("creator")),
        title=parse_text(fields.get("title")),
        album=parse_text(fields.get("album")),
        duration_s=parse_duration_s(fields.get("duration"), 1e-3),
    )


def _listen(
    source: HistoryFile, track: TrackReference, line: int, value: str, at_us: int | None = None
) -> ListenEvent | BadRecord:
    if not (track.path or track.uri or track.mbid or track.title):
        return BadRecord(line, "", value, NOT_NAMED)
    return ListenEvent(track, at_us or source.modified_us, "playlist", session=source.name)


def _located(source: HistoryFile, value: str) -> TrackReference:
    """Returns a path or an address. A relative path starts from the playlist's folder, if any."""
    scheme = re.match(r"([a-z][a-z0-9+.-]+):", value, re.IGNORECASE)
    if scheme and scheme[1].lower() != "file":
        return TrackReference(uri=parse_uri(value))
    path = unquote(_FILE_ADDRESS.sub("", value)) if scheme else value
    is_rooted = path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", path)
    if is_rooted or source.path is None:
        return TrackReference(path=path)
    folder = source.path.resolve().parent
    parts = list(folder.parts)
    for part in path.replace("\\", "/").split("/"):
        if part == "..":
            parts = parts[:-1] or parts
        elif part not in ("", "."):
            parts.append(part)
    return TrackReference(path="/".join(parts).replace("//", "/", 1))


def _named(value: str) -> tuple[str | None, str | None]:
    """Returns (artist, title) of `Artist - Title`; without the dash, a title alone."""
    artist, dash, title = value.partition(" - ")
    return (parse_text(artist), parse_text(title)) if dash else (None, parse_text(value))


def _lines(source: HistoryFile) -> list[str]:
    """Returns the lines, decoded by the byte order mark, else as UTF-8, else as cp1252."""
    with source.open() as stream:
        data = stream.read(MOST_BYTES)
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, "replace")
            return [line.strip() for line in text.splitlines()]
    return [_decoded(line).strip() for line in re.split(rb"\r\n|\n|\r", data)]


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def _added(item: dict[str, Any]) -> int | None:
    extensions = item.get("extension")
    if isinstance(extensions, dict):
        for fields in extensions.values():
            if isinstance(fields, dict) and (at_us := parse_time_us(fields.get("added_at"))):
                return at_us
    return None


def _all(item: dict[str, Any], key: str) -> list[Any]:
    values = item.get(key)
    return values if isinstance(values, list) else [values]


def _first(item: dict[str, Any], key: str) -> Any:
    return next(iter(_all(item, key)), None)


_CHUNK_BYTES = 1 << 16
_LONGEST_TEXT = 64 << 10  # characters of one element


def read_xspf(source: HistoryFile) -> Records:
    """Yields the tracks; a file that breaks off yields its complete tracks, then a fault."""
    parser = _Parser(forbid_external=False)  # a DTD that the file refers to is not loaded
    parser.setFeature(feature_namespaces, True)
    tracks = _Tracks(source, parser)
    parser.setContentHandler(tracks)
    fault: BadRecord | None = None
    with source.open() as stream:
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                parser.feed(chunk)
                yield from tracks.take()
            parser.close()
        except SAXParseException as error:
            fault = BadRecord(
                error.getLineNumber(),
                "",
                "",
                f"is not valid XML from here on: {error.getMessage()}",
            )
        except DefusedXmlException:
            reason = "declares an XML entity, which is refused; save the playlist without it"
            fault = BadRecord(parser.getLineNumber(), "", "", reason)
        except _TooLong:
            reason = "an element is longer than any title; the file is not read further"
            fault = BadRecord(parser.getLineNumber(), "", "", reason)
    yield from tracks.take()
    if fault:
        yield fault


class _TooLong(Exception):
    """An element holds more than `_LONGEST_TEXT` characters."""


class _Parser(DefusedExpatParser):
    """Passes text in few pieces; expat's default is one call per line."""

    def reset(self) -> None:
        super().reset()
        self._parser.buffer_text = True  # type: ignore[attr-defined]


class _Tracks(ContentHandler):
    """Gathers tracks while the parser goes through the file."""

    def __init__(self, source: HistoryFile, parser: _Parser) -> None:
        super().__init__()
        self.source = source
        self._parser = parser
        self._done: list[ListenEvent | BadRecord] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._n_characters = 0
        self._fields: dict[str, Any] = {}
        self._identifiers: list[str] = []
        self._line = 0
        self._date: int | None = None

    def take(self) -> Iterator[ListenEvent | BadRecord]:
        """Yields the tracks that have ended since the last call."""
        done = self._done
        self._done = []
        yield from done

    def startElementNS(self, name: tuple[str | None, str], qname: str | None, attrs: Any) -> None:
        """Begins an element; `name` is its namespace and its local name."""
        self._path.append(name[1])
        self._clear_text()
        if self._path[-2:] == ["trackList", "track"]:
            self._fields = {}
            self._identifiers = []
            self._line = self._parser.getLineNumber()

    def endElementNS(self, name: tuple[str | None, str], qname: str | None) -> None:
        """Stores the text of an element, or adds the track that it ends."""
        local_name = self._path.pop()
        text = "".join(self._text).strip()
        self._clear_text()
        if self._path[-1:] == ["track"]:
            if local_name == "identifier":
                self._identifiers.append(text)
            else:
                self._fields.setdefault(local_name, text)
        elif local_name == "date" and len(self._path) == 1:
            self._date = parse_time_us(text)
        elif local_name == "track":
            self._add()

    def characters(self, content: str) -> None:
        """Adds to the text of the element; raises `_TooLong` when it is longer than any title."""
        self._n_characters += len(content)
        if self._n_characters > _LONGEST_TEXT:
            raise _TooLong
        self._text.append(content)

    def _clear_text(self) -> None:
        self._text = []
        self._n_characters = 0

    def _add(self) -> None:
        track = spiff_track(
            self.source, self._fields.get("location"), self._identifiers, self._fields
        )
        if not (track.path or track.uri or track.mbid or track.title):
            self._done.append(BadRecord(self._line, "track", "", NOT_NAMED))
            return
        at_us = self._date or self.source.modified_us
        self._done.append(ListenEvent(track, at_us, "playlist", session=self.source.name))
