"""What a sound file says of itself, as columns of the catalogue.

tinytag reads the tags; ID3v2 is made plain for it first (`id3`). Values are taken as they are
written, stripped of
blanks: several artists or genres are those of a field that holds several, and no name is taken
apart.

An ID3v2 tag made plain: what a simple reader may misread or stumble over is undone or left out.

Undone: unsynchronisation, compression, extended headers, sizes that old programs wrote without
sync-safety. Left out: pictures and all else that is no text. Respelled: dates in three frames,
several genres in one, several values in one TXXX, and the MusicBrainz recording id, which stands in
a UFID frame.
Source: the ID3v2.2, 2.3 and 2.4 specifications (id3.org).
"""

import importlib.util
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pydantic import TypeAdapter, ValidationError

from ponticello.audio.content_hash import chunks, hashes
from ponticello.audio.formats import Kind, detect_format, open_audio_file, printable_path
from ponticello.audio.worker_pool import Reply
from ponticello.errors import AudioError, DataError
from ponticello.storage import schema as columns
from ponticello.storage.schema import Kind as ColumnKind

if TYPE_CHECKING:
    from tinytag import TinyTag


_MOST_TEXT = (
    2**24 - 1
)  # bytes of a frame that can still be text; what the three-byte size of 2.2 can say
_RECORDING_OWNER = b"http://musicbrainz.org"
RECORDING = "MusicBrainz Recording Id"  # the TXXX frame that UFID becomes
_NEWER_IDS = {
    b"TXX": b"TXXX",
    b"UFI": b"UFID",
    b"TCO": b"TCON",
    b"TYE": b"TYER",
    b"TDA": b"TDAT",
    b"TIM": b"TIME",
}
_TEXTS = (b"COM", b"COMM", b"ULT", b"USLT", b"UFI", b"UFID")
_BRACKETED = re.compile(r"\((\d+|RX|CR)\)")
_NAMED = {"RX": "Remix", "CR": "Cover"}
_LATIN_1, _UTF_16, _UTF_16_BE, _UTF_8 = range(4)
_CODECS = {_LATIN_1: "latin-1", _UTF_16: "utf-16", _UTF_16_BE: "utf-16-be", _UTF_8: "utf-8"}


@dataclass(frozen=True)
class _Frame:
    id: bytes
    body: bytes


def normalize_id3(file: BinaryIO, start: int = 0) -> tuple[bytes, int]:
    """(a plain ID3v2 tag with the same texts, how many bytes of `file` it stands for); (b"", 0)
    where there is none.

    start: where in `file` the tag stands. A damaged frame ends the tag; the frames before it are
    kept.
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
    """The size in an ID3v2.4 frame header: sync-safe, or plain where only that leads to another
    frame.

    iTunes wrote plain sizes into 2.4 tags; the two differ from 128 bytes on.
    """
    safe, plain = _syncsafe(field), int.from_bytes(field, "big")
    if safe == plain:
        return safe
    if any(byte & 0x80 for byte in field):
        return plain
    ahead = source.peek(min(plain, _MOST_TEXT) + 4)
    return (
        plain
        if not _starts_frame(ahead[safe : safe + 4]) and _starts_frame(ahead[plain : plain + 4])
        else safe
    )


def _starts_frame(found: bytes) -> bool:
    return not found.strip(b"\0") or bool(re.fullmatch(rb"[A-Z][A-Z0-9]{3}", found))


def _unpacked(body: bytes, flags: bytes, version: int, is_unsynchronised: bool) -> bytes:
    """A frame's content without its packing; b"" where it is encrypted."""
    if version == 3:
        is_compressed, is_encrypted, is_grouped = (
            bool(flags[1] & bit) for bit in (0x80, 0x40, 0x20)
        )
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
            name, *values = _frame_texts(frame.body)
            yield from (_text_frame(b"TXXX", name, value) for value in values)
        elif frame_id in (b"TCON", b"TYER", b"TDAT", b"TIME"):
            texts.setdefault(frame_id, []).extend(_frame_texts(frame.body))
        elif frame.id.startswith(b"T"):
            values = [value for value in _frame_texts(frame.body) if value]
            if frame.id == b"TDRC":
                values = [
                    value.replace("T", " ") for value in values
                ]  # as in a date made of three frames
            if values:
                yield _text_frame(frame.id, *values)
        else:
            yield frame
    if genres := [genre for text in texts.get(b"TCON", []) for genre in _genres(text)]:
        yield _text_frame(b"TCON", *genres)
    if date := _date(*("".join(texts.get(name, [])[:1]) for name in (b"TYER", b"TDAT", b"TIME"))):
        yield _text_frame(b"TYER", date)


def _frame_texts(body: bytes) -> list[str]:
    """The values of a text frame: after the byte that names their encoding, ended by NULs."""
    encoding, content = body[0], body[1:]
    if encoding == _UTF_16 and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        encoding = (
            _UTF_16_BE if content[:1] == b"\0" else _UTF_16
        )  # a missing mark; Python then takes the machine's
    codec = _CODECS.get(encoding, "latin-1")
    if encoding in (_UTF_16, _UTF_16_BE) and len(content) % 2:
        content = content[:-1]
    text = content.decode(codec, "replace")
    values = [value.strip("\ufeff\ufffe") for value in text.split("\0")]
    while len(values) > 1 and not values[-1]:
        values.pop()
    return values


def _genres(text: str) -> Iterator[str]:
    """`(4)(32)Eurodisco` names three; a number alone is left to the reader, who knows what it
    stands for.
    """
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
    """The frames as one tag without flags. 2.2's ids stay as they are, in a tag of 2.2; no tag
    holds both kinds.
    """
    kept = list(frames)
    is_old = any(len(frame.id) == 3 for frame in kept)
    written = b""
    for frame in kept:
        if is_old:
            older = {newer: old for old, newer in _NEWER_IDS.items()}
            written += (
                older.get(frame.id, frame.id) + len(frame.body).to_bytes(3, "big") + frame.body
            )
        else:
            written += frame.id + _to_syncsafe(len(frame.body)) + b"\0\0" + frame.body
    written += bytes(10)  # the last frame is not cut short by readers that ask for room behind it
    return b"ID3" + bytes([2 if is_old else 4]) + b"\0\0" + _to_syncsafe(len(written)) + written


def _syncsafe(field: bytes) -> int:
    return sum((byte & 0x7F) << 7 * (len(field) - 1 - i) for i, byte in enumerate(field))


def _to_syncsafe(size: int) -> bytes:
    return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))


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

# What each format calls the MusicBrainz id of the recording: ID3 (see `id3`), Vorbis comments, MP4,
# ASF.
_RECORDING_NAMES = (
    RECORDING.lower(),
    "musicbrainz_trackid",
    "musicbrainz track id",
    "musicbrainz/track id",
)
_SUFFIXES: dict[
    Kind, str
] = {  # by which tinytag chooses its reader: by content, not by the file's own name
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
_ASF_EXTENSION = bytes.fromhex(
    "b503bf5f2ea9cf118ee300c00c205365"
)  # a header object that holds objects
_LARGEST_ASF_HEADER = 2**24  # bytes; larger ones hold pictures and are read as they are
_HIGHEST_COUNT = 999_999  # of a track on its album; whoever writes more, means no number
_LONGEST_S = 30 * 24 * 3600.0  # a header that says more is damaged
_ADTS_RATES_HZ = (
    96_000,
    88_200,
    64_000,
    48_000,
    44_100,
    32_000,
    24_000,
    22_050,
    16_000,
    12_000,
    11_025,
    8_000,
    7_350,
)
_ADTS_SAMPLES = 1024  # a frame


def _own_tinytag() -> ModuleType:
    """Returns a private copy of the module tinytag, whose field tables are changed without changing
    tinytag's own.

    tinytag files ARTISTS (one by one) under ARTIST (the credit), and DESCRIPTION under COMMENT; the
    copy keeps them apart. Its readers call each other by name, so subclasses of some would not do.
    The tables have no public name: in a version that names them otherwise the fields are mixed, and
    tests of the tags fail.
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
    tags: dict[str, str | float | list[str] | None]  # by column; every column of KINDS
    note: str = ""


_FACTS = TypeAdapter(FileFacts)


def read_facts(path: Path) -> FileFacts:
    """Tags and hashes of a sound file; AudioError if it is no sound that this library knows.

    Cost: one reading of the whole file, and on one core 2 ms a small one.
    """
    # an unbuffered file is raw
    with open_audio_file(path) as raw, io.BufferedReader(raw) as file:  # type: ignore[type-var]
        kind = detect_format(path, file)
        size = file.seek(0, io.SEEK_END)
        if kind == "unknown":
            _require_sound(path, file)
        tags, note = _tags(file, kind)
        content_hash, audio_hash = hashes(file, kind, size)
    return FileFacts(content_hash, audio_hash, tags, note)


def facts_reply(path: Path) -> Reply:
    """Returns `read_facts` as the reply of a worker; it is here to keep a worker's imports few."""
    return Reply(asdict(read_facts(path)))


def facts_from_reply(reply: Reply) -> FileFacts:
    """Returns the facts in a worker's reply, whose types are checked; DataError for wrong ones."""
    try:
        return _FACTS.validate_python(reply.facts)
    except ValidationError:
        raise DataError("a worker process sent malformed tags; run the scan again") from None


def _require_sound(path: Path, file: BinaryIO) -> None:
    """AudioError unless libsndfile knows this file by its header."""
    import soundfile

    file.seek(0)
    try:
        soundfile.SoundFile(file.fileno(), closefd=False).close()
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(
            f"{printable_path(path)}: cannot be decoded ({reason}); replace the file or re-encode it"
        ) from None


def _tags(file: BinaryIO, kind: Kind) -> tuple[dict[str, Any], str]:
    """(the columns, what could not be read)."""
    suffix = _SUFFIXES.get(kind)
    try:
        view = _plain(file, kind)
        name = f"sound{suffix}" if suffix else None
        found = _tinytag.TinyTag.get(name, file_obj=cast(BinaryIO, view), duration=kind != "aac")
        tags = _columns(found)
        for start, _ in chunks(file, 0, kind, b"id3 ", b"ID3 ") if kind in ("wav", "aiff") else ():
            id3 = io.BytesIO(normalize_id3(file, start)[0])
            inner = _columns(_tinytag.TinyTag.get("sound.mp3", file_obj=id3, duration=False))
            tags |= {column: value for column, value in inner.items() if value is not None}
    except _tinytag.TinyTagException as error:
        if kind == "unknown":
            return dict.fromkeys(KINDS), ""
        reason = " ".join(str(error.__cause__ or error).split())
        return dict.fromkeys(
            KINDS
        ), f"its tags cannot be read ({reason}); the track is kept without them"
    if kind == "aac":
        tags[columns.DURATION_S] = _adts_seconds(file, view.n_replaced)
    return tags, ""


def _plain(file: BinaryIO, kind: Kind) -> "_SplicedFile":
    """The file with its tags as tinytag reads them right."""
    if kind in ("mp3", "aac", "flac"):
        return _SplicedFile(*normalize_id3(file), file)
    return _SplicedFile(*(_asf_in_order(file) if kind == "asf" else (b"", 0)), file)


def _asf_in_order(file: BinaryIO) -> tuple[bytes, int]:
    """(an ASF header whose extension comes last, its size): first values stand outside it, the
    others in it.
    """
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
    credits = _text_values([found.artist, *other.get("artist", [])])
    tags: dict[str, Any] = {
        columns.TITLE: _text(found.title),
        columns.ARTIST: ", ".join(credits) or None,
        ARTISTS: _text_values(other.get("artists", [])) or credits or None,
        columns.ALBUM: _text(found.album),
        ALBUM_ARTIST: _text(found.albumartist, *other.get("album artist", [])),
        TRACK_NUMBER: _count(found.track),
        DISC_NUMBER: _count(found.disc),
        columns.GENRES: _text_values([found.genre, *other.get("genre", [])]) or None,
        columns.RELEASE_DATE: _text(found.year, *other.get("_year", [])),
        columns.LANGUAGE: _text(*other.get("language", [])),
        columns.LYRICS: _text(*other.get("lyrics", [])),
        columns.DESCRIPTION: _text(*other.get("description", [])),
        COMMENT: _text(found.comment),
        columns.DURATION_S: found.duration
        if found.duration and 0 < found.duration <= _LONGEST_S
        else None,
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
    return next(iter(_text_values(values)), None)


def _text_values(values: Any) -> list[str]:
    stripped = (str(value or "").partition("\0")[0].strip() for value in values)
    return list(
        dict.fromkeys(
            value.encode("utf-8", "replace").decode("utf-8") for value in stripped if value
        )
    )


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


class _SplicedFile(io.RawIOBase):
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
