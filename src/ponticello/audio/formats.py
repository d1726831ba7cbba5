"""Detects the format of a sound file by its first bytes; its name is ignored."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from ponticello.errors import AudioError

Kind = Literal["mp3", "flac", "vorbis", "ogg", "wav", "aiff", "mp4", "asf", "aac", "unknown"]

_HEAD_BYTES = 4096
_TEXT_BYTES = b"\t\n\f\r" + bytes(range(0x20, 0x100))
ADVICE = "is not supported; convert it to flac, mp3, ogg, opus or wav"
# The tables hold an offset, the bytes there and their meaning.
_KINDS: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"fLaC", "flac"),
    (0, b"RIFF", "wav"),
    (0, b"RF64", "wav"),
    (0, b"FORM", "aiff"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
)
_UNSUPPORTED = (
    (0, b"ADIF", "raw AAC"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska container (mka, webm)"),
    (8, b"AVI ", "an AVI container"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"TTA1", "True Audio"),
    (0, b"DSD ", "DSD"),
    (0, b".RMF", "RealMedia"),
    (0, b"#!AMR", "AMR"),
)
_NOT_AUDIO = (
    (0, b"\x89PNG", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"GIF8", "an image"),
    (8, b"WEBP", "an image"),
    (0, b"%PDF", "a document"),
    (0, b"PK\x03\x04", "an archive"),
    (0, b"\x1f\x8b", "an archive"),
    (0, b"MThd", "a MIDI score"),
    (0, b"\xff\xfe", "text"),  # UTF-16
    (0, b"\xfe\xff", "text"),
)


@contextmanager
def open_audio_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file unbuffered; AudioError if it is missing, unreadable, or not a regular file."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise audio_error(path, f"is {kind}, not a file")
        # O_NONBLOCK: if a pipe replaces the file now, opening it does not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb", buffering=0) as file:  # noqa: PTH123  # a descriptor
            yield file
    except FileNotFoundError:
        raise audio_error(path, "there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise audio_error(path, f"cannot be read: {reason}") from None


def detect_format(path: Path, file: BinaryIO) -> Kind:
    """Returns the kind of audio after ID3 tags; AudioError if it is not audio, or not supported."""
    head = file.read(_HEAD_BYTES)
    if not head:
        raise audio_error(path, "the file is empty")
    has_id3 = False
    start = 0
    while head[:3] == b"ID3" and len(head) >= 10:  # before mp3, FLAC and AAC, perhaps repeated
        has_id3 = True
        start += id3v2_size(head)
        file.seek(start)
        head = file.read(_HEAD_BYTES)
    for offset, magic, name in _UNSUPPORTED:
        if head[offset:].startswith(magic):
            raise audio_error(path, f"{name} {ADVICE}")
    for offset, magic, name in _NOT_AUDIO:
        if head[offset:].startswith(magic):
            raise audio_error(path, f"is {name}, not audio")
    if not has_id3 and not head.startswith(b"NIST_1A") and not head.translate(None, _TEXT_BYTES):
        raise audio_error(path, "is text (a playlist, a web page or the like), not audio")
    return _kind(head, has_id3)


def _kind(head: bytes, has_id3: bool) -> Kind:
    for offset, magic, kind in _KINDS:
        if head[offset:].startswith(magic):
            return kind
    if head[:4] == b"OggS":
        return "vorbis" if b"\x01vorbis" in head[:128] else "ogg"
    has_sync = len(head) >= 3 and head[0] == 0xFF
    if has_sync and head[1] & 0xF6 == 0xF0:  # layer 0, which does not exist in MPEG audio
        return "aac"
    if has_id3 or (has_sync and head[1] & 0xE0 == 0xE0):
        return "mp3"
    return "unknown"


def id3v2_size(header: bytes) -> int:
    """Returns the size of an ID3v2 tag in bytes, with its 10-byte `header`, without a footer."""
    return 10 + parse_syncsafe(header[6:10])


def parse_syncsafe(field: bytes) -> int:
    """Returns the number in a field of ID3v2 that uses 7 bits of each byte."""
    size = 0
    for byte in field:
        size = size << 7 | byte & 0x7F
    return size


def printable_path(path: Path) -> str:
    """Returns the path as one printable line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def audio_error(path: Path, reason: str) -> AudioError:
    """Returns the error for a file that cannot be used, and why."""
    return AudioError(f"{printable_path(path)}: {reason}")


def undecodable(path: Path, reason: str) -> AudioError:
    """Returns the error for a file that a decoder refuses. reason: the decoder's message."""
    reason = reason.strip().rstrip(".")
    return audio_error(path, f"cannot be decoded ({reason}); replace the file or re-encode it")
