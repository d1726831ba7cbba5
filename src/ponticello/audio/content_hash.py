"""Where in a file its sound lies, apart from the tags: two files of one sound can be told however
they are tagged.

Where the layout is not what it should be, the whole file counts as sound: then only exact copies
are alike.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from ponticello.audio.formats import Kind

_BLOCK_BYTES = 2**20  # read at once
_DIGEST_BYTES = 16
_ID3V1_BYTES = 128
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")  # the object that holds the packets
_ASF_DATA_HEADER = 50  # bytes; a file id, which a tagger may renew, stands in it

Range = tuple[int, int]  # from, to


def hashes(file: BinaryIO, kind: Kind, size: int) -> tuple[str, str]:
    """(of the file, of its sound alone), BLAKE2b in hex; each byte is read and hashed once. size:
    of the file.
    """
    sound, rest = (
        hashlib.blake2b(digest_size=_DIGEST_BYTES),
        hashlib.blake2b(digest_size=_DIGEST_BYTES),
    )
    at = 0
    for start, end in [*_within(sound_ranges(file, kind, size), size), (size, size)]:
        _feed(file, rest, at, start)
        _feed(file, sound, start, end)
        at = end
    whole = hashlib.blake2b(
        sound.digest() + rest.digest() + size.to_bytes(8, "big"), digest_size=_DIGEST_BYTES
    )
    return whole.hexdigest(), sound.hexdigest()


def sound_ranges(file: BinaryIO, kind: Kind, size: int) -> list[Range]:
    """Where the sound lies, in order; the whole file where that cannot be told."""
    start = _after_id3v2(file)
    if kind in ("vorbis", "ogg"):
        found = list(_ogg_bodies(file, start))
    elif kind in ("wav", "aiff"):
        found = list(chunks(file, start, kind, b"data" if kind == "wav" else b"SSND"))
    elif kind == "mp4":
        found = list(_media_data(file, size))
    elif kind == "asf":
        found = list(_asf_packets(file))
    elif kind == "flac":
        found = [(_after_flac_blocks(file, start), _before_trailing_tags(file, size))]
    elif kind in ("mp3", "aac"):
        found = [(start, _before_trailing_tags(file, size))]
    else:
        found = []
    return found if any(start < min(end, size) for start, end in found) else [(0, size)]


def _within(ranges: list[Range], size: int) -> Iterator[Range]:
    """The ranges cut to the file and to each other."""
    at = 0
    for start, end in ranges:
        start, end = max(at, start), min(end, size)
        if start < end:
            yield start, end
            at = end


def _feed(file: BinaryIO, into: hashlib.blake2b, start: int, end: int) -> None:
    file.seek(start)
    while start < end and (block := file.read(min(_BLOCK_BYTES, end - start))):
        into.update(block)
        start += len(block)


def _read_at(file: BinaryIO, start: int, n: int) -> bytes:
    file.seek(start)
    return file.read(n)


def _after_id3v2(file: BinaryIO) -> int:
    start = 0
    while len(head := _read_at(file, start, 10)) == 10 and head[:3] == b"ID3":
        start += 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        start += 10 if head[5] & 0x10 else 0  # a footer
    return start


def _before_trailing_tags(file: BinaryIO, size: int) -> int:
    """Where ID3v1 and APEv2 begin at the end of a file."""
    end = size
    if end >= _ID3V1_BYTES and _read_at(file, end - _ID3V1_BYTES, 3) == b"TAG":
        end -= _ID3V1_BYTES
    footer = _read_at(file, max(0, end - 32), 32)
    if len(footer) == 32 and footer[:8] == b"APETAGEX":
        has_header = bool(footer[23] & 0x80)
        end -= int.from_bytes(footer[12:16], "little") + (32 if has_header else 0)
    return max(0, end)


def _after_flac_blocks(file: BinaryIO, start: int) -> int:
    start += 4
    while len(head := _read_at(file, start, 4)) == 4:
        start += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80:
            break
    return start


def _ogg_bodies(file: BinaryIO, start: int) -> Iterator[Range]:
    """The bodies of the pages from the first one with sound on; their headers count pages, and so
    change with tags.
    """
    has_sound = False
    while len(head := _read_at(file, start, 27)) == 27 and head[:4] == b"OggS":
        sizes = file.read(head[26])
        body = start + 27 + len(sizes)
        has_sound = has_sound or int.from_bytes(head[6:14], "little", signed=True) > 0
        start = body + sum(sizes)
        if has_sound:
            yield body, start


def chunks(file: BinaryIO, start: int, kind: Kind, *names: bytes) -> Iterator[Range]:
    """Where the contents of the chunks with these names lie in a RIFF (kind "wav") or FORM file at
    `start`.
    """
    start += 12
    while len(head := _read_at(file, start, 8)) == 8:
        length = int.from_bytes(head[4:], "little" if kind == "wav" else "big")
        if head[:4] in names:
            yield start + 8, start + 8 + length
        start += 8 + length + length % 2


def _media_data(file: BinaryIO, size: int) -> Iterator[Range]:
    """The `mdat` boxes of an MP4 file."""
    start = 0
    while len(head := _read_at(file, start, 16)) >= 8:
        length, header = int.from_bytes(head[:4], "big"), 8
        if length == 1 and len(head) == 16:
            length, header = int.from_bytes(head[8:], "big"), 16
        elif length == 0:
            length = size - start
        if length < header:
            return
        if head[4:8] == b"mdat":
            yield start + header, start + length
        start += length


def _asf_packets(file: BinaryIO) -> Iterator[Range]:
    start = 0
    while len(head := _read_at(file, start, 24)) == 24:
        length = int.from_bytes(head[16:], "little")
        if length < 24:
            return
        if head[:16] == _ASF_DATA:
            yield start + _ASF_DATA_HEADER, start + length
        start += length
