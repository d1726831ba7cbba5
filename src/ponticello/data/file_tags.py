"""What a sound file says of itself, as columns of the catalogue.

tinytag reads the tags; ID3v2 is made plain for it first (`id3`). Values are taken as they are written, stripped of
blanks: several artists or genres are those of a field that holds several, and no name is taken apart.
"""

import importlib.util
import io
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ponticello.data import columns
from ponticello.data.columns import Kind as ColumnKind
from ponticello.data.id3 import RECORDING, plain_id3
from ponticello.data.payload import chunks, hashes
from ponticello.data.sniff import Kind, one_line, opened, sniff
from ponticello.errors import AudioError

if TYPE_CHECKING:
    from tinytag import TinyTag

# Columns beyond those of `columns.TRACKS`.
ARTISTS = "artists"  # one by one, where `artist` is the credit as printed
ALBUM_ARTIST = "album_artist"
TRACK_NUMBER = "track_number"
DISC_NUMBER = "disc_number"
COMMENT = "comment"
TRACK_GAIN_DB = "replaygain_track_gain_db"
TRACK_PEAK = "replaygain_track_peak"  # 1.0 = full scale
ALBUM_GAIN_DB = "replaygain_album_gain_db"
ALBUM_PEAK = "replaygain_album_peak"
KINDS: dict[str, ColumnKind] = {
    columns.TITLE: "text",
    columns.ARTIST: "text",
    ARTISTS: "texts",
    columns.ALBUM: "text",
    ALBUM_ARTIST: "text",
    TRACK_NUMBER: "number",
    DISC_NUMBER: "number",
    columns.GENRES: "texts",
    columns.RELEASE_DATE: "text",
    columns.LANGUAGE: "text",
    columns.LYRICS: "text",
    columns.DESCRIPTION: "text",
    COMMENT: "text",
    columns.DURATION_S: "number",
    columns.MBID: "text",
    columns.ISRC: "text",
    TRACK_GAIN_DB: "number",
    TRACK_PEAK: "number",
    ALBUM_GAIN_DB: "number",
    ALBUM_PEAK: "number",
}

# What each format calls the MusicBrainz id of the recording: ID3 (see `id3`), Vorbis comments, MP4, ASF.
_RECORDING_NAMES = (RECORDING.lower(), "musicbrainz_trackid", "musicbrainz track id", "musicbrainz/track id")
_SUFFIXES: dict[Kind, str] = {  # by which tinytag chooses its reader: by content, not by the file's own name
    "mp3": ".mp3",
    "aac": ".mp3",  # its tags are ID3
    "flac": ".flac",
    "vorbis": ".ogg",
    "ogg": ".ogg",
    "wav": ".wav",
    "aiff": ".aiff",
    "mp4": ".m4a",
    "asf": ".wma",
}
_R128_TO_REPLAYGAIN_DB = 5.0  # Opus counts from -23 LUFS (RFC 7845), ReplayGain 2.0 from -18
_ASF_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")  # a header object that holds objects
_LARGEST_ASF_HEADER = 2**24  # bytes; larger ones hold pictures and are read as they are
_HIGHEST_COUNT = 999_999  # of a track on its album; whoever writes more, means no number
_LONGEST_S = 30 * 24 * 3600.0  # a header that says more is damaged
_ADTS_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_ADTS_SAMPLES = 1024  # a frame


def _own_tinytag() -> ModuleType:
    """Returns a private copy of the module tinytag, whose field tables are changed without changing tinytag's own.

    tinytag files ARTISTS (one by one) under ARTIST (the credit), and DESCRIPTION under COMMENT; the copy keeps them
    apart. Its readers call each other by name, so subclasses of some would not do. The tables have no public name:
    in a version that names them otherwise the fields are mixed, and tests of the tags fail.
    """
    spec = importlib.util.find_spec("tinytag.tinytag")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for reader, table in (
        ("_Ogg", "_VORBIS_MAPPING"),
        ("_ID3", "_ID3_MAPPING_CUSTOM"),
        ("_MP4", "_CUSTOM_FIELD_NAME_MAPPING"),
        ("_ASF", "_ASF_MAPPING"),
    ):
        names: dict[str, str] = getattr(getattr(module, reader, None), table, {})
        for name in ("artists", "WM/ARTISTS", "description"):
            names.pop(name, None)
    return module


_tinytag = _own_tinytag()


@dataclass(frozen=True)
class FileFacts:
    """What one sound file holds. note: what of it could not be read, "" if nothing."""

    content_hash: str
    audio_hash: str
    tags: dict[str, Any]  # by column; every column of KINDS
    note: str = ""


def read_facts(path: Path) -> FileFacts:
    """Tags and hashes of a sound file; AudioError if it is no sound that this library knows.

    Cost: one reading of the whole file, and on one core 2 ms a small one.
    """
    with opened(path) as raw, io.BufferedReader(raw) as file:  # type: ignore[type-var]  # an unbuffered file is raw
        kind = sniff(path, file)
        size = file.seek(0, io.SEEK_END)
        if kind == "unknown":
            _require_sound(path, file)
        tags, note = _tags(file, kind)
        content_hash, audio_hash = hashes(file, kind, size)
    return FileFacts(content_hash, audio_hash, tags, note)


def facts_or_reason(path: Path) -> FileFacts | str:
    """`read_facts`, or why there are none. Stands here since a worker imports what its function's file imports."""
    try:
        return read_facts(path)
    except AudioError as error:
        return str(error).removeprefix(f"{one_line(path)}: ")


def _require_sound(path: Path, file: BinaryIO) -> None:
    """AudioError unless libsndfile knows this file by its header."""
    import soundfile

    file.seek(0)
    try:
        soundfile.SoundFile(file.fileno(), closefd=False).close()
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(f"{one_line(path)}: cannot be decoded ({reason}); replace the file or re-encode it") from None


def _tags(file: BinaryIO, kind: Kind) -> tuple[dict[str, Any], str]:
    """(the columns, what could not be read)."""
    suffix = _SUFFIXES.get(kind)
    try:
        view = _plain(file, kind)
        name = f"sound{suffix}" if suffix else None
        found = _tinytag.TinyTag.get(name, file_obj=cast(BinaryIO, view), duration=kind != "aac")
        tags = _columns(found)
        for start, _ in chunks(file, 0, kind, b"id3 ", b"ID3 ") if kind in ("wav", "aiff") else ():
            id3 = io.BytesIO(plain_id3(file, start)[0])
            inner = _columns(_tinytag.TinyTag.get("sound.mp3", file_obj=id3, duration=False))
            tags |= {column: value for column, value in inner.items() if value is not None}
    except _tinytag.TinyTagException as error:
        if kind == "unknown":
            return dict.fromkeys(KINDS), ""
        reason = " ".join(str(error.__cause__ or error).split())
        return dict.fromkeys(KINDS), f"its tags cannot be read ({reason}); the track is kept without them"
    if kind == "aac":
        tags[columns.DURATION_S] = _adts_seconds(file, view.n_replaced)
    return tags, ""


def _plain(file: BinaryIO, kind: Kind) -> "_Spliced":
    """The file with its tags as tinytag reads them right."""
    if kind in ("mp3", "aac", "flac"):
        return _Spliced(*plain_id3(file), file)
    return _Spliced(*(_asf_in_order(file) if kind == "asf" else (b"", 0)), file)


def _asf_in_order(file: BinaryIO) -> tuple[bytes, int]:
    """(an ASF header whose extension comes last, its size): first values stand outside it, the others in it."""
    file.seek(0)
    head = file.read(30)
    size = int.from_bytes(head[16:24], "little")
    if not 30 < size <= _LARGEST_ASF_HEADER:
        return b"", 0
    header, at = head + file.read(size - 30), 30
    parts: list[bytes] = []
    while len(header) >= at + 24:
        length = max(24, int.from_bytes(header[at + 16 : at + 24], "little"))
        parts.append(header[at : at + length])
        at += length
    in_order = sorted(parts, key=lambda part: part[:16] == _ASF_EXTENSION)
    return head + b"".join(in_order), len(header)


def _columns(found: "TinyTag") -> dict[str, Any]:
    other = found.other
    credits = _texts([found.artist, *other.get("artist", [])])
    tags: dict[str, Any] = {
        columns.TITLE: _text(found.title),
        columns.ARTIST: ", ".join(credits) or None,
        ARTISTS: _texts(other.get("artists", [])) or credits or None,
        columns.ALBUM: _text(found.album),
        ALBUM_ARTIST: _text(found.albumartist, *other.get("album artist", [])),
        TRACK_NUMBER: _count(found.track),
        DISC_NUMBER: _count(found.disc),
        columns.GENRES: _texts([found.genre, *other.get("genre", [])]) or None,
        columns.RELEASE_DATE: _text(found.year, *other.get("_year", [])),
        columns.LANGUAGE: _text(*other.get("language", [])),
        columns.LYRICS: _text(*other.get("lyrics", [])),
        columns.DESCRIPTION: _text(*other.get("description", [])),
        COMMENT: _text(found.comment),
        columns.DURATION_S: found.duration if found.duration and 0 < found.duration <= _LONGEST_S else None,
        columns.MBID: _text(*(value for name in _RECORDING_NAMES for value in other.get(name, []))),
        columns.ISRC: _text(*other.get("isrc", [])),
        TRACK_GAIN_DB: _gain_db(found, "track"),
        TRACK_PEAK: _number(*other.get("replaygain_track_peak", [])),
        ALBUM_GAIN_DB: _gain_db(found, "album"),
        ALBUM_PEAK: _number(*other.get("replaygain_album_peak", [])),
    }
    return tags


def _text(*values: str | None) -> str | None:
    """The first value that says something, as valid Unicode up to a NUL."""
    return next(iter(_texts(values)), None)


def _texts(values: Any) -> list[str]:
    stripped = (str(value or "").partition("\0")[0].strip() for value in values)
    return list(dict.fromkeys(value.encode("utf-8", "replace").decode("utf-8") for value in stripped if value))


def _number(*values: str) -> float | None:
    """The number that the first value begins with, as in `-6.5 dB`."""
    found = re.match(r"\s*([+-]?\d{1,6}(?:[.,]\d{0,12})?)", values[0]) if values else None
    return float(found[1].replace(",", ".")) if found else None


def _count(value: int | None) -> float | None:
    return float(value) if value and 0 < value <= _HIGHEST_COUNT else None


def _gain_db(found: "TinyTag", of: str) -> float | None:
    gain_db = _number(*found.other.get(f"replaygain_{of}_gain", []))
    r128 = _number(*found.other.get(f"r128_{of}_gain", []))  # in 1/256 dB
    return r128 / 256 + _R128_TO_REPLAYGAIN_DB if gain_db is None and r128 is not None else gain_db


def _adts_seconds(file: BinaryIO, start: int) -> float | None:
    """The length of raw AAC: its frames counted."""
    seconds = 0.0
    file.seek(start)
    while len(head := file.read(7)) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        rate, length = head[2] >> 2 & 0xF, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        if rate >= len(_ADTS_RATES_HZ) or length < 7:
            break
        seconds += _ADTS_SAMPLES * ((head[6] & 3) + 1) / _ADTS_RATES_HZ[rate]
        file.seek(length - 7, io.SEEK_CUR)
    return seconds or None


class _Spliced(io.RawIOBase):
    """A file whose first `n_replaced` bytes are replaced by others; to be read."""

    def __init__(self, start: bytes, n_replaced: int, file: BinaryIO) -> None:
        super().__init__()
        self.n_replaced = n_replaced
        self._start, self._file, self._shift, self._at = start, file, n_replaced - len(start), 0

    def read(self, n: int = -1) -> bytes:
        start = self._start[self._at : self._at + n if n >= 0 else None]
        self._at += len(start)
        if n < 0 or len(start) < n:
            self._file.seek(self._at + self._shift)
            rest = self._file.read(n - len(start) if n >= 0 else -1)
            self._at += len(rest)
            start += rest
        return start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            offset += self._file.seek(0, io.SEEK_END) - self._shift
        if offset < 0:
            raise OSError("before the start of the file")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at
