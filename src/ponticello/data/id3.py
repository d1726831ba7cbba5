"""An ID3v2 tag made plain: what a simple reader may misread or stumble over is undone or left out.

Undone: unsynchronisation, compression, extended headers, sizes that old programs wrote without sync-safety. Left out:
pictures and all else that is no text. Respelled: dates in three frames, several genres in one, several values in one
TXXX, and the MusicBrainz recording id, which stands in a UFID frame.
Source: the ID3v2.2, 2.3 and 2.4 specifications (id3.org).
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MOST_TEXT = 2**24 - 1  # bytes of a frame that can still be text; what the three-byte size of 2.2 can say
_RECORDING_OWNER = b"http://musicbrainz.org"
RECORDING = "MusicBrainz Recording Id"  # the TXXX frame that UFID becomes
_NEWER_IDS = {b"TXX": b"TXXX", b"UFI": b"UFID", b"TCO": b"TCON", b"TYE": b"TYER", b"TDA": b"TDAT", b"TIM": b"TIME"}
_TEXTS = (b"COM", b"COMM", b"ULT", b"USLT", b"UFI", b"UFID")
_BRACKETED = re.compile(r"\((\d+|RX|CR)\)")
_NAMED = {"RX": "Remix", "CR": "Cover"}
_LATIN_1, _UTF_16, _UTF_16_BE, _UTF_8 = range(4)
_CODECS = {_LATIN_1: "latin-1", _UTF_16: "utf-16", _UTF_16_BE: "utf-16-be", _UTF_8: "utf-8"}


@dataclass(frozen=True)
class _Frame:
    id: bytes
    body: bytes


def plain_id3(file: BinaryIO, start: int = 0) -> tuple[bytes, int]:
    """(a plain ID3v2 tag with the same texts, how many bytes of `file` it stands for); (b"", 0) where there is none.

    start: where in `file` the tag stands. A damaged frame ends the tag; the frames before it are kept.
    """
    file.seek(start)
    header = file.read(10)
    if len(header) < 10 or header[:3] != b"ID3" or header[3] not in (2, 3, 4):
        return b"", 0
    version, flags, size = header[3], header[5], _syncsafe(header[6:10])
    frames: list[_Frame] = []
    try:
        for frame in _frames(file, version, flags, size):
            frames.append(frame)
    except (ValueError, IndexError, zlib.error):
        pass  # the tag ends here, as for every reader
    footer = 10 if version == 4 and flags & 0x10 else 0
    return _written(_respelled(frames)), 10 + size + footer


def _frames(file: BinaryIO, version: int, flags: int, size: int) -> Iterator[_Frame]:
    """The frames that hold text, as they were before they were packed."""
    is_unsynchronised = bool(flags & 0x80)
    if is_unsynchronised and version < 4:  # the tag as a whole
        yield from _walk(_Bytes(_synchronised(file.read(size))), version, flags, False)
    else:
        yield from _walk(_Bytes(file=file, size=size), version, flags, is_unsynchronised)


class _Bytes:
    """The bytes of a tag, read in order; what is skipped is not read."""

    def __init__(self, held: bytes = b"", file: BinaryIO | None = None, size: int = 0) -> None:
        self._held, self._file, self._at = held, file, 0
        self.left = len(held) if file is None else size

    def take(self, n: int) -> bytes:
        n = max(0, min(n, self.left))
        self.left -= n
        self._at += n
        return self._held[self._at - n : self._at] if self._file is None else self._file.read(n)

    def peek(self, n: int) -> bytes:
        if self._file is None:
            return self._held[self._at : self._at + n]
        found = self._file.read(min(n, self.left))
        self._file.seek(-len(found), 1)
        return found

    def skip(self, n: int) -> None:
        n = max(0, min(n, self.left))
        self.left -= n
        self._at += n
        if self._file is not None:
            self._file.seek(n, 1)


def _walk(source: _Bytes, version: int, flags: int, is_unsynchronised: bool) -> Iterator[_Frame]:
    if flags & 0x40 and version > 2:
        head = source.take(4)
        source.skip(_syncsafe(head) - 4 if version == 4 else int.from_bytes(head, "big"))
    id_bytes, header_bytes = (3, 6) if version == 2 else (4, 10)
    while source.left > header_bytes:
        header = source.take(header_bytes)
        frame_id = header[:id_bytes]
        if not re.fullmatch(rb"[A-Z][A-Z0-9]+ ?", frame_id):
            return  # padding, or damage
        size = int.from_bytes(header[id_bytes : 2 * id_bytes], "big")
        if version == 4:
            size = _v24_size(source, header[4:8])
        if not (frame_id.startswith(b"T") or frame_id in _TEXTS) or size > _MOST_TEXT:
            source.skip(size)
            continue
        body = source.take(size)  # less, where the size lies
        if version > 2:
            body = _unpacked(body, header[8:10], version, is_unsynchronised)
        if body:
            yield _Frame(frame_id, body)


def _v24_size(source: _Bytes, field: bytes) -> int:
    """The size in an ID3v2.4 frame header: sync-safe, or plain where only that leads to another frame.

    iTunes wrote plain sizes into 2.4 tags; the two differ from 128 bytes on.
    """
    safe, plain = _syncsafe(field), int.from_bytes(field, "big")
    if safe == plain:
        return safe
    if any(byte & 0x80 for byte in field):
        return plain
    ahead = source.peek(min(plain, _MOST_TEXT) + 4)
    return plain if not _starts_frame(ahead[safe : safe + 4]) and _starts_frame(ahead[plain : plain + 4]) else safe


def _starts_frame(found: bytes) -> bool:
    return not found.strip(b"\0") or bool(re.fullmatch(rb"[A-Z][A-Z0-9]{3}", found))


def _unpacked(body: bytes, flags: bytes, version: int, is_unsynchronised: bool) -> bytes:
    """A frame's content without its packing; b"" where it is encrypted."""
    if version == 3:
        is_compressed, is_encrypted, is_grouped = (bool(flags[1] & bit) for bit in (0x80, 0x40, 0x20))
        if is_encrypted:
            return b""
        start = (4 if is_compressed else 0) + (1 if is_grouped else 0)
        return _inflated(body[start:]) if is_compressed else body[start:]
    is_grouped, is_compressed, is_encrypted, is_frame_unsynchronised, has_length = (
        bool(flags[1] & bit) for bit in (0x40, 0x08, 0x04, 0x02, 0x01)
    )
    if is_encrypted:
        return b""
    body = body[(1 if is_grouped else 0) + (4 if has_length else 0) :]
    if is_frame_unsynchronised or is_unsynchronised:
        body = _synchronised(body)
    return _inflated(body) if is_compressed else body


def _inflated(body: bytes) -> bytes:
    return zlib.decompressobj().decompress(body, _MOST_TEXT)


def _synchronised(body: bytes) -> bytes:
    return body.replace(b"\xff\x00", b"\xff")


def _respelled(frames: list[_Frame]) -> Iterator[_Frame]:
    texts: dict[bytes, list[str]] = {}
    for frame in frames:
        frame_id = _NEWER_IDS.get(frame.id, frame.id)
        if frame_id == b"UFID":
            owner, _, identifier = frame.body.partition(b"\0")
            if owner == _RECORDING_OWNER:
                yield _text_frame(b"TXXX", RECORDING, identifier.decode("latin-1").strip("\0"))
        elif frame_id == b"TXXX":
            name, *values = _texts(frame.body)
            yield from (_text_frame(b"TXXX", name, value) for value in values)
        elif frame_id in (b"TCON", b"TYER", b"TDAT", b"TIME"):
            texts.setdefault(frame_id, []).extend(_texts(frame.body))
        elif frame.id.startswith(b"T"):
            values = [value for value in _texts(frame.body) if value]
            if frame.id == b"TDRC":
                values = [value.replace("T", " ") for value in values]  # as in a date made of three frames
            if values:
                yield _text_frame(frame.id, *values)
        else:
            yield frame
    if genres := [genre for text in texts.get(b"TCON", []) for genre in _genres(text)]:
        yield _text_frame(b"TCON", *genres)
    if date := _date(*("".join(texts.get(name, [])[:1]) for name in (b"TYER", b"TDAT", b"TIME"))):
        yield _text_frame(b"TYER", date)


def _texts(body: bytes) -> list[str]:
    """The values of a text frame: after the byte that names their encoding, ended by NULs."""
    encoding, content = body[0], body[1:]
    if encoding == _UTF_16 and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        encoding = _UTF_16_BE if content[:1] == b"\0" else _UTF_16  # a missing mark; Python then takes the machine's
    codec = _CODECS.get(encoding, "latin-1")
    if encoding in (_UTF_16, _UTF_16_BE) and len(content) % 2:
        content = content[:-1]
    text = content.decode(codec, "replace")
    values = [value.strip("\ufeff\ufffe") for value in text.split("\0")]
    while len(values) > 1 and not values[-1]:
        values.pop()
    return values


def _genres(text: str) -> Iterator[str]:
    """`(4)(32)Eurodisco` names three; a number alone is left to the reader, who knows what it stands for."""
    while found := _BRACKETED.match(text):
        yield _NAMED.get(found[1], found[1])
        text = text[found.end() :]
    text = text[1:] if text.startswith("((") else text
    if text:
        yield _NAMED.get(text, text)


def _date(year: str, day: str, time: str) -> str:
    """ID3v2.3's year, DDMM and HHMM as one ISO date."""
    if not re.fullmatch(r"\d{4}", year) or not re.fullmatch(r"\d{4}", day):
        return year
    date = f"{year}-{day[2:]}-{day[:2]}"
    return f"{date} {time[:2]}:{time[2:]}:00" if re.fullmatch(r"\d{4}", time) else date


def _text_frame(frame_id: bytes, *values: str) -> _Frame:
    return _Frame(frame_id, bytes([_UTF_8]) + "\0".join(values).encode("utf-8", "replace"))


def _written(frames: Iterator[_Frame]) -> bytes:
    """The frames as one tag without flags. 2.2's ids stay as they are, in a tag of 2.2; no tag holds both kinds."""
    kept = list(frames)
    is_old = any(len(frame.id) == 3 for frame in kept)
    written = b""
    for frame in kept:
        if is_old:
            older = {newer: old for old, newer in _NEWER_IDS.items()}
            written += older.get(frame.id, frame.id) + len(frame.body).to_bytes(3, "big") + frame.body
        else:
            written += frame.id + _to_syncsafe(len(frame.body)) + b"\0\0" + frame.body
    written += bytes(10)  # the last frame is not cut short by readers that ask for room behind it
    return b"ID3" + bytes([2 if is_old else 4]) + b"\0\0" + _to_syncsafe(len(written)) + written


def _syncsafe(field: bytes) -> int:
    return sum((byte & 0x7F) << 7 * (len(field) - 1 - i) for i, byte in enumerate(field))


def _to_syncsafe(size: int) -> bytes:
    return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
