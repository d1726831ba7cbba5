"""XSPF playlists. A file that declares an entity is refused: no playlist needs one, and bombs are made of them."""

from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from ponticello.data.history.listen import NOT_NAMED, Fault, Listen, Records, moment
from ponticello.data.history.playlists import spiff_track
from ponticello.data.history.sources import Source

_CHUNK_BYTES = 1 << 16
_LONGEST_TEXT = 64 << 10  # characters of one element


def read_xspf(source: Source) -> Records:
    """The tracks, as `playlist` events. Of a file that breaks off, the whole tracks before, then a fault."""
    reader = _Reader(source)
    with source.open() as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            try:
                reader.parser.Parse(chunk, not chunk)
            except expat.ExpatError as error:
                yield from reader.taken()
                yield Fault(error.lineno, "", "", f"is not valid XML from here on: {expat.ErrorString(error.code)}")
                return
            except _Refused as error:
                yield from reader.taken()
                yield Fault(reader.parser.CurrentLineNumber, "", "", str(error))
                return
            yield from reader.taken()
            if not chunk:
                return


class _Refused(Exception):
    """What a playlist may not hold."""


class _Reader:
    """Gathers tracks while the parser goes through the file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True  # else a call for each line
        self.parser.StartElementHandler = self._begin
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._data
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ExternalEntityRefHandler = self._refuse
        self._done: list[Listen | Fault] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._n_characters = 0
        self._said: dict[str, Any] = {}
        self._identifiers: list[str] = []
        self._line = 0
        self._date: int | None = None

    def taken(self) -> Iterator[Listen | Fault]:
        """The tracks that have ended since the last call."""
        done, self._done = self._done, []
        yield from done

    def _begin(self, name: str, _: dict[str, str]) -> None:
        self._path.append(name.rpartition(" ")[2])
        self._text, self._n_characters = [], 0
        if self._path[-2:] == ["trackList", "track"]:
            self._said, self._identifiers, self._line = {}, [], self.parser.CurrentLineNumber

    def _end(self, _: str) -> None:
        name = self._path.pop()
        text, self._text, self._n_characters = "".join(self._text).strip(), [], 0
        if self._path[-1:] == ["track"]:
            if name == "identifier":
                self._identifiers.append(text)
            else:
                self._said.setdefault(name, text)
        elif name == "date" and len(self._path) == 1:
            self._date = moment(text)
        elif name == "track":
            self._add()

    def _add(self) -> None:
        heard = spiff_track(self.source, self._said.get("location"), self._identifiers, self._said)
        if not (heard.path or heard.uri or heard.mbid or heard.title):
            self._done.append(Fault(self._line, "track", "", NOT_NAMED))
            return
        at_us = self._date or self.source.modified_us
        self._done.append(Listen(heard, at_us, "playlist", session=self.source.name))

    def _data(self, data: str) -> None:
        self._n_characters += len(data)
        if self._n_characters > _LONGEST_TEXT:
            raise _Refused("an element is longer than any title; the file is not read further")
        self._text.append(data)

    def _refuse(self, *_: Any) -> int:
        raise _Refused("declares an XML entity, which is refused; save the playlist without it")
