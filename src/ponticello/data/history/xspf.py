"""XSPF playlists. A file that declares an entity is refused: no playlist needs one, and bombs are made of them."""

from collections.abc import Iterator
from typing import Any
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler, feature_namespaces

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from ponticello.data.history.listen import NOT_NAMED, Fault, Listen, Records, moment
from ponticello.data.history.playlists import spiff_track
from ponticello.data.history.sources import Source

_CHUNK_BYTES = 1 << 16
_LONGEST_TEXT = 64 << 10  # characters of one element


def read_xspf(source: Source) -> Records:
    """Yields the tracks as `playlist` events. A file that breaks off yields its whole tracks, then a fault."""
    parser = _Parser(forbid_external=False)  # a DTD that the file refers to is not loaded
    parser.setFeature(feature_namespaces, True)
    tracks = _Tracks(source, parser)
    parser.setContentHandler(tracks)
    fault: Fault | None = None
    with source.open() as stream:
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                parser.feed(chunk)
                yield from tracks.take()
            parser.close()
        except SAXParseException as error:
            fault = Fault(error.getLineNumber(), "", "", f"is not valid XML from here on: {error.getMessage()}")
        except DefusedXmlException:
            reason = "declares an XML entity, which is refused; save the playlist without it"
            fault = Fault(parser.getLineNumber(), "", "", reason)
        except _TooLong:
            reason = "an element is longer than any title; the file is not read further"
            fault = Fault(parser.getLineNumber(), "", "", reason)
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

    def __init__(self, source: Source, parser: _Parser) -> None:
        super().__init__()
        self.source = source
        self._parser = parser
        self._done: list[Listen | Fault] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._n_characters = 0
        self._fields: dict[str, Any] = {}
        self._identifiers: list[str] = []
        self._line = 0
        self._date: int | None = None

    def take(self) -> Iterator[Listen | Fault]:
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
            self._date = moment(text)
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
        heard = spiff_track(self.source, self._fields.get("location"), self._identifiers, self._fields)
        if not (heard.path or heard.uri or heard.mbid or heard.title):
            self._done.append(Fault(self._line, "track", "", NOT_NAMED))
            return
        at_us = self._date or self.source.modified_us
        self._done.append(Listen(heard, at_us, "playlist", session=self.source.name))
