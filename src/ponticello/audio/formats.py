"""What a file is, by its first bytes and never by its name: a kind of audio, or the reason why it
is none.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from ponticello.errors import AudioError

Kind = Literal["mp3", "flac", "vorbis", "ogg", "wav", "aiff", "mp4", "asf", "aac", "unknown"]

_HEAD_BYTES = 4096
_TEXT_BYTES = bytes({*b"\t\n\f\r", *range(0x20, 0x100)})
ADVICE = "is not supported; convert it to flac, mp3, ogg, opus or wav"
# Where, which bytes, what they mean.
_BY_EXTRA: tuple[tuple[int, bytes, Kind], ...] = (
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
    """The file, unbuffered; AudioError if it is missing, cannot be read, or is a folder, a device
    or a pipe.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise AudioError(f"{printable_path(path)}: is {kind}, not a file")
        # Should a pipe take its place right now, opening it does not wait for somebody to write.
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123  # a descriptor
            yield file
    except FileNotFoundError:
        raise AudioError(f"{printable_path(path)}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise AudioError(
            f"{printable_path(path)}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None


def detect_format(path: Path, file: BinaryIO) -> Kind:
    """The kind of audio in `file`; `unknown` is left to the decoders. AudioError for what is none
    or not supported.

    Where an ID3 tag stands in front, what follows it counts.
    """
    head = file.read(_HEAD_BYTES)
    if not head:
        raise AudioError(f"{printable_path(path)}: the file is empty")
    has_id3, start = False, 0
    while (
        head[:3] == b"ID3" and len(head) >= 10
    ):  # may stand before mp3, FLAC and AAC, and more than once
        has_id3 = True
        start += 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        file.seek(start)
        head = file.read(_HEAD_BYTES)
    for offset, magic, kind in _BY_EXTRA:
        if head[offset : offset + len(magic)] == magic:
            return kind
    for table, message in ((_UNSUPPORTED, f"{{}} {ADVICE}"), (_NOT_AUDIO, "is {}, not audio")):
        for offset, magic, name in table:
            if head[offset : offset + len(magic)] == magic:
                raise AudioError(f"{printable_path(path)}: {message.format(name)}")
    if not has_id3 and not head.startswith(b"NIST_1A") and not head.translate(None, _TEXT_BYTES):
        raise AudioError(
            f"{printable_path(path)}: is text (a playlist, a web page or the like), not audio"
        )
    return _kind(head, has_id3)


def _kind(head: bytes, has_id3: bool) -> Kind:
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "vorbis" if b"\x01vorbis" in head[:128] else "ogg"
    if head[:4] in (b"RIFF", b"RF64"):
        return "wav"
    if head[:4] == b"FORM":
        return "aiff"
    if (
        len(head) >= 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    ):  # layer 0 does not exist in MPEG audio
        return "aac"
    is_frame = len(head) >= 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return "mp3" if is_frame or has_id3 else "unknown"


def printable_path(path: Path) -> str:
    """The path as one printable line."""
    return str(path) if str(path).isprintable() else repr(str(path))
