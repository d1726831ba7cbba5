"""Finds the sound in a file, apart from its tags, and hashes it.

Two files with the same sound have the same hash, however they are tagged. If a file's layout is not
as its format requires, the whole file counts as sound, so that only exact copies match.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from ponticello.audio.formats import Kind, id3v2_size

_BLOCK_BYTES = 2**20  # read at once
_DIGEST_BYTES = 16
_ID3V1_BYTES = 128
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")  # id of the object of the packets
_ASF_DATA_HEADER = 50  # bytes; they include a file id, which a tagger may change

Range = tuple[int, int]
"""(start, end) in bytes, without the end."""


def hashes(file: BinaryIO, kind: Kind, size: int) -> tuple[str, str]:
    """Returns BLAKE2b hashes in hex (of the file, of its sound); each byte is read once."""
    sound = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    rest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    position = 0
    for range_start, range_end in sound_ranges(file, kind, size):
        start = max(position, range_start)  # ranges of a damaged file may overlap
        end = min(range_end, size)
        if start < end:
            _update(rest, file, position, start)
            _update(sound, file, start, end)
            position = end
    _update(rest, file, position, size)
    digests = sound.digest() + rest.digest() + size.to_bytes(8, "big")
    content = hashlib.blake2b(digests, digest_size=_DIGEST_BYTES)
    return content.hexdigest(), sound.hexdigest()


def sound_ranges(file: BinaryIO, kind: Kind, size: int) -> list[Range]:
    """Returns where the sound is, in order; the whole file if that is unknown."""
    start = _after_id3v2(file)
    ranges: list[Range] = []
    if kind in ("vorbis", "ogg"):
        ranges = list(_ogg_bodies(file, start))
    elif kind in ("wav", "aiff"):
        ranges = list(chunks(file, start, kind, b"data" if kind == "wav" else b"SSND"))
    elif kind == "mp4":
        ranges = list(_media_data(file, size))
    elif kind == "asf":
        ranges = list(_asf_packets(file))
    elif kind == "flac":
        ranges = [(_after_flac_blocks(file, start), _before_trailing_tags(file, size))]
    elif kind in ("mp3", "aac"):
        ranges = [(start, _before_trailing_tags(file, size))]
    if any(start < min(end, size) for start, end in ranges):
        return ranges
    return [(0, size)]


def _update(digest: hashlib.blake2b, file: BinaryIO, start: int, end: int) -> None:
    file.seek(start)
    while start < end and (block := file.read(min(_BLOCK_BYTES, end - start))):
        digest.update(block)
        start += len(block)


def _read_at(file: BinaryIO, start: int, n: int) -> bytes:
    file.seek(start)
    return file.read(n)


def _after_id3v2(file: BinaryIO) -> int:
    start = 0
    while len(header := _read_at(file, start, 10)) == 10 and header[:3] == b"ID3":
        start += id3v2_size(header)
        if header[5] & 0x10:  # a footer
            start += 10
    return start


def _before_trailing_tags(file: BinaryIO, size: int) -> int:
    """Returns where ID3v1 and APEv2 begin at the end of a file."""
    end = size
    if end >= _ID3V1_BYTES and _read_at(file, end - _ID3V1_BYTES, 3) == b"TAG":
        end -= _ID3V1_BYTES
    footer = _read_at(file, max(0, end - 32), 32)
    if len(footer) == 32 and footer[:8] == b"APETAGEX":
        end -= int.from_bytes(footer[12:16], "little")
        if footer[23] & 0x80:  # a header
            end -= 32
    return max(0, end)


def _after_flac_blocks(file: BinaryIO, start: int) -> int:
    start += 4
    while len(header := _read_at(file, start, 4)) == 4:
        start += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:  # the last block
            break
    return start


def _ogg_bodies(file: BinaryIO, start: int) -> Iterator[Range]:
    """Yields the bodies of the pages with sound; page headers change with the tags."""
    has_sound = False
    while len(header := _read_at(file, start, 27)) == 27 and header[:4] == b"OggS":
        segment_sizes = file.read(header[26])
        body = start + 27 + len(segment_sizes)
        start = body + sum(segment_sizes)
        position = int.from_bytes(header[6:14], "little", signed=True)
        has_sound = has_sound or position > 0
        if has_sound:
            yield body, start


def chunks(file: BinaryIO, start: int, kind: Kind, *names: bytes) -> Iterator[Range]:
    """Yields the contents of chunks of a RIFF (kind "wav") or FORM file that begins at `start`."""
    start += 12
    while len(header := _read_at(file, start, 8)) == 8:
        length = int.from_bytes(header[4:], "little" if kind == "wav" else "big")
        if header[:4] in names:
            yield start + 8, start + 8 + length
        start += 8 + length + length % 2


def _media_data(file: BinaryIO, size: int) -> Iterator[Range]:
    start = 0
    while len(header := _read_at(file, start, 16)) >= 8:
        n_header_bytes = 8
        length = int.from_bytes(header[:4], "big")
        if length == 1 and len(header) == 16:  # the length is in the next 8 bytes
            n_header_bytes = 16
            length = int.from_bytes(header[8:], "big")
        elif length == 0:  # up to the end of the file
            length = size - start
        if length < n_header_bytes:
            return
        if header[4:8] == b"mdat":
            yield start + n_header_bytes, start + length
        start += length


def _asf_packets(file: BinaryIO) -> Iterator[Range]:
    start = 0
    while len(header := _read_at(file, start, 24)) == 24:
        length = int.from_bytes(header[16:], "little")
        if length < 24:
            return
        if header[:16] == _ASF_DATA:
            yield start + _ASF_DATA_HEADER, start + length
        start += length
