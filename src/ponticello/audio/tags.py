"""Reads the tags of a sound file as columns of the catalogue.

tinytag reads the tags, after ID3v2 has been normalised for it. Values are taken as written,
stripped of blanks: a field may hold several artists or genres, and no name is split.

The normalisation (`normalize_id3`) undoes unsynchronisation, compression, extended headers, and
sizes that old programs wrote without sync-safety. It omits pictures and all other frames without
text. It rewrites dates in three frames, several genres in one frame, several values in one TXXX,
and the MusicBrainz recording id, which is in a UFID frame.
Source: the ID3v2.2, 2.3 and 2.4 specifications (id3.org).
"""

import importlib.util
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pydantic import TypeAdapter, ValidationError

from ponticello.audio import formats
from ponticello.audio.content_hash import chunks, hashes
from ponticello.audio.worker_pool import Reply
from ponticello.errors import DataError
from ponticello.storage import schema as columns
from ponticello.storage.schema import Kind as ColumnKind

if TYPE_CHECKING:
    from tinytag import TinyTag


_MAX_TEXT_BYTES = 2**24 - 1  # of a frame: the largest size that fits the three bytes of 2.2
_RECORDING_OWNER = b"http://musicbrainz.org"
RECORDING = "MusicBrainz Recording Id"  # the TXXX frame that UFID becomes
_ID_SINCE_V23 = {
    b"TXX": b"TXXX",
    b"UFI": b"UFID",
    b"TCO": b"TCON",
    b"TYE": b"TYER",
    b"TDA": b"TDAT",
    b"TIM": b"TIME",
}
# By version: the flags of a frame that is grouped, compressed, encrypted, and with its length.
_FRAME_FLAGS = {3: (0x20, 0x80, 0x40, 0x80), 4: (0x40, 0x08, 0x04, 0x01)}
_TEXT_IDS = (b"COM", b"COMM", b"ULT", b"USLT", b"UFI", b"UFID")
_BRACKETED = re.compile(r"\((\d+|RX|CR)\)")
_NAMED = {"RX": "Remix", "CR": "Cover"}
_LATIN_1, _UTF_16, _UTF_16_BE, _UTF_8 = range(4)
_CODECS = {_LATIN_1: "latin-1", _UTF_16: "utf-16", _UTF_16_BE: "utf-16-be", _UTF_8: "utf-8"}


@dataclass(frozen=True)
class _Frame:
    id: bytes
    body: bytes


def normalize_id3(file: BinaryIO, start: int = 0) -> tuple[bytes, int]:
    """Returns (a plain ID3v2 tag with the same texts, the number of bytes of `file` it replaces).

    (b"", 0) without a tag. start: offset of the tag in `file`. A damaged frame ends the tag; the
    frames before it are kept.
    """
    file.seek(start)
    header = file.read(10)
    if len(header) < 10 or header[:3] != b"ID3" or header[3] not in (2, 3, 4):
        return b"", 0
    version = header[3]
    flags = header[5]
    size = formats.id3v2_size(header)  # with the 10 bytes of the header
    frames: list[_Frame] = []
    try:
        for frame in _frames(file, version, flags, size - 10):
            frames.append(frame)
    except (ValueError, IndexError, zlib.error):
        pass  # the tag ends here
    footer_bytes = 10 if version == 4 and flags & 0x10 else 0
    return _encode_tag(list(_rewrite(frames))), size + footer_bytes


def _frames(file: BinaryIO, version: int, flags: int, size: int) -> Iterator[_Frame]:
    is_unsynchronised = bool(flags & 0x80)
    if is_unsynchronised and version < 4:  # the tag as a whole, not its frames
        content = _synchronise(file.read(size))
        yield from _walk(_TagReader(io.BytesIO(content), len(content)), version, flags, False)
    else:
        yield from _walk(_TagReader(file, size), version, flags, is_unsynchronised)


class _TagReader:
    """Reads the bytes of a tag in order; skipped ones are not read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.n_left = size

    def take(self, n: int) -> bytes:
        n = max(0, min(n, self.n_left))
        self.n_left -= n
        return self._file.read(n)

    def peek(self, n: int) -> bytes:
        content = self._file.read(min(n, self.n_left))
        self._file.seek(-len(content), io.SEEK_CUR)
        return content

    def skip(self, n: int) -> None:
        n = max(0, min(n, self.n_left))
        self.n_left -= n
        self._file.seek(n, io.SEEK_CUR)


def _walk(
    reader: _TagReader, version: int, flags: int, is_unsynchronised: bool
) -> Iterator[_Frame]:
    if flags & 0x40 and version > 2:  # an extended header
        field = reader.take(4)
        size = formats.parse_syncsafe(field) - 4 if version == 4 else int.from_bytes(field, "big")
        reader.skip(size)
    n_id_bytes = 3 if version == 2 else 4
    n_header_bytes = 6 if version == 2 else 10
    while reader.n_left > n_header_bytes:
        header = reader.take(n_header_bytes)
        frame_id = header[:n_id_bytes]
        if not re.fullmatch(rb"[A-Z][A-Z0-9]+ ?", frame_id):
            return  # padding, or damage
        size = int.from_bytes(header[n_id_bytes : 2 * n_id_bytes], "big")
        if version == 4:
            size = _v24_size(reader, header[4:8])
        is_text = frame_id.startswith(b"T") or frame_id in _TEXT_IDS
        if not is_text or size > _MAX_TEXT_BYTES:
            reader.skip(size)
            continue
        body = reader.take(size)  # fewer bytes, if the size is wrong
        if version > 2:
            body = _unpack(body, version, header[9], is_unsynchronised)
        if body:
            yield _Frame(frame_id, body)


def _v24_size(reader: _TagReader, field: bytes) -> int:
    """Returns the size in an ID3v2.4 frame header.

    It is sync-safe, or plain if only the plain size leads to another frame: iTunes wrote plain
    sizes into 2.4 tags. The two differ from 128 bytes on.
    """
    safe = formats.parse_syncsafe(field)
    plain = int.from_bytes(field, "big")
    if safe == plain:
        return safe
    if any(byte & 0x80 for byte in field):
        return plain
    ahead = reader.peek(min(plain, _MAX_TEXT_BYTES) + 4)
    if _starts_frame(ahead[safe : safe + 4]) or not _starts_frame(ahead[plain : plain + 4]):
        return safe
    return plain


def _starts_frame(content: bytes) -> bool:
    return not content.strip(b"\0") or bool(re.fullmatch(rb"[A-Z][A-Z0-9]{3}", content))


def _unpack(body: bytes, version: int, flags: int, is_unsynchronised: bool) -> bytes:
    """Returns the content of a frame of 2.3 or 2.4; b"" if it is encrypted."""
    grouped, compressed, encrypted, with_length = _FRAME_FLAGS[version]
    if flags & encrypted:
        return b""
    body = body[bool(flags & grouped) + 4 * bool(flags & with_length) :]
    if version == 4 and (flags & 0x02 or is_unsynchronised):
        body = _synchronise(body)
    if flags & compressed:
        return zlib.decompressobj().decompress(body, _MAX_TEXT_BYTES)
    return body


def _synchronise(body: bytes) -> bytes:
    return body.replace(b"\xff\x00", b"\xff")


def _rewrite(frames: list[_Frame]) -> Iterator[_Frame]:
    """Yields the frames as tinytag reads them right."""
    merged: dict[bytes, list[str]] = {b"TCON": [], b"TYER": [], b"TDAT": [], b"TIME": []}
    for frame in frames:
        frame_id = _ID_SINCE_V23.get(frame.id, frame.id)
        if frame_id == b"UFID":
            owner, _, identifier = frame.body.partition(b"\0")
            if owner == _RECORDING_OWNER:
                mbid = identifier.decode("latin-1").strip("\0")
                yield _text_frame(b"TXXX", [RECORDING, mbid])
        elif frame_id == b"TXXX":
            values = _frame_texts(frame.body)
            for value in values[1:]:
                yield _text_frame(b"TXXX", [values[0], value])
        elif frame_id in merged:
            merged[frame_id] += _frame_texts(frame.body)
        elif frame.id.startswith(b"T"):
            values = [value for value in _frame_texts(frame.body) if value]
            if frame.id == b"TDRC":  # as the dates made of three frames
                values = [value.replace("T", " ") for value in values]
            if values:
                yield _text_frame(frame.id, values)
        else:
            yield frame
    genres: list[str] = []
    for text in merged[b"TCON"]:
        genres += _genres(text)
    if genres:
        yield _text_frame(b"TCON", genres)
    year = "".join(merged[b"TYER"][:1])
    day = "".join(merged[b"TDAT"][:1])
    time = "".join(merged[b"TIME"][:1])
    if date := _date(year, day, time):
        yield _text_frame(b"TYER", [date])


def _frame_texts(body: bytes) -> list[str]:
    """Returns the values of a text frame: a byte for the encoding, then texts ended by NULs."""
    encoding = body[0]
    content = body[1:]
    if encoding == _UTF_16 and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        # Without a byte order mark, "utf-16" decodes in the byte order of the machine.
        encoding = _UTF_16_BE if content[:1] == b"\0" else _UTF_16
    if encoding in (_UTF_16, _UTF_16_BE) and len(content) % 2:
        content = content[:-1]
    text = content.decode(_CODECS.get(encoding, "latin-1"), "replace")
    values = [value.strip("\ufeff\ufffe") for value in text.split("\0")]
    while len(values) > 1 and not values[-1]:
        values.pop()
    return values


def _genres(text: str) -> Iterator[str]:
    """Yields the genres of a TCON text: `(4)(32)Eurodisco` has three; tinytag names the numbers."""
    while match := _BRACKETED.match(text):
        yield _NAMED.get(match[1], match[1])
        text = text[match.end() :]
    if text.startswith("(("):
        text = text[1:]
    if text:
        yield _NAMED.get(text, text)


def _date(year: str, day: str, time: str) -> str:
    """Returns ID3v2.3's year, DDMM and HHMM as one ISO date."""
    if not re.fullmatch(r"\d{4}", year) or not re.fullmatch(r"\d{4}", day):
        return year
    date = f"{year}-{day[2:]}-{day[:2]}"
    if re.fullmatch(r"\d{4}", time):
        date += f" {time[:2]}:{time[2:]}:00"
    return date


def _text_frame(frame_id: bytes, values: list[str]) -> _Frame:
    return _Frame(frame_id, bytes([_UTF_8]) + "\0".join(values).encode("utf-8", "replace"))


def _encode_tag(frames: list[_Frame]) -> bytes:
    """Returns the frames as one tag without flags; ids of 2.2 stay as they are, in a 2.2 tag."""
    is_v22 = any(len(frame.id) == 3 for frame in frames)
    v22_ids = {newer: older for older, newer in _ID_SINCE_V23.items()}
    content = b""
    for frame in frames:
        if is_v22:
            content += v22_ids.get(frame.id, frame.id) + len(frame.body).to_bytes(3, "big")
        else:
            content += frame.id + _encode_syncsafe(len(frame.body)) + b"\0\0"
        content += frame.body
    content += bytes(10)  # some readers expect room after the last frame
    version = 2 if is_v22 else 4
    return b"ID3" + bytes([version]) + b"\0\0" + _encode_syncsafe(len(content)) + content


def _encode_syncsafe(size: int) -> bytes:
    return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))


# Columns beyond those of `columns.TRACKS`.
ARTISTS = "artists"  # one by one, where `artist` is the credit as printed
ALBUM_ARTIST = "album_artist"
TRACK_NUMBER = "track_number"
DISC_NUMBER = "disc_number"
COMMENT = "comment"
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
    "replaygain_track_gain_db": "number",
    "replaygain_track_peak": "number",  # 1.0 = full scale
    "replaygain_album_gain_db": "number",
    "replaygain_album_peak": "number",
}

# Field names of the MusicBrainz recording id: ID3 (`RECORDING`), Vorbis comments, MP4, ASF.
_RECORDING_NAMES = (
    RECORDING.lower(),
    "musicbrainz_trackid",
    "musicbrainz track id",
    "musicbrainz/track id",
)
# tinytag chooses its reader by suffix; this one is by content, not by the file's own name.
_FILE_NAMES: dict[formats.Kind, str] = {
    "mp3": "sound.mp3",
    "aac": "sound.mp3",  # its tags are ID3
    "flac": "sound.flac",
    "vorbis": "sound.ogg",
    "ogg": "sound.ogg",
    "wav": "sound.wav",
    "aiff": "sound.aiff",
    "mp4": "sound.m4a",
    "asf": "sound.wma",
}
_R128_TO_REPLAYGAIN_DB = 5.0  # Opus counts from -23 LUFS (RFC 7845), ReplayGain 2.0 from -18
_ASF_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")  # object id
_MAX_ASF_HEADER_BYTES = 2**24  # larger headers hold pictures and are read as they are
_MAX_COUNT = 999_999  # a larger track number is not one
_MAX_DURATION_S = 30 * 24 * 3600.0  # a header with a longer duration is damaged


def _private_tinytag() -> ModuleType:
    """Returns a private copy of the module tinytag with changed field tables.

    tinytag merges ARTISTS (one by one) into ARTIST (the credit), and DESCRIPTION into COMMENT; the
    copy keeps them apart. Subclasses do not suffice, since its readers call each other by name. If
    a version of tinytag renames the private tables, tests of the tags fail.
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


_tinytag = _private_tinytag()


@dataclass(frozen=True)
class FileFacts:
    """Tags and hashes of one sound file. note: why the tags could not be read; "" if they were."""

    content_hash: str
    audio_hash: str
    tags: dict[str, str | float | list[str] | None]  # by column; every column of KINDS
    note: str = ""


_FACTS = TypeAdapter(FileFacts)


def read_facts(path: Path) -> FileFacts:
    """Reads tags and hashes of a sound file, in 2 ms; AudioError if it is not a supported one."""
    # an unbuffered file is raw
    with formats.open_audio_file(path) as raw, io.BufferedReader(raw) as file:  # type: ignore[type-var]
        kind = formats.detect_format(path, file)
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
    """Returns the facts in a worker's reply; DataError if one has a wrong type."""
    try:
        return _FACTS.validate_python(reply.facts)
    except ValidationError:
        raise DataError("a worker process sent malformed tags; run the scan again") from None


def _require_sound(path: Path, file: BinaryIO) -> None:
    import soundfile

    file.seek(0)
    try:
        soundfile.SoundFile(file.fileno(), closefd=False).close()
    except soundfile.SoundFileError as error:
        raise formats.undecodable(path, str(getattr(error, "error_string", error))) from None


def _tags(file: BinaryIO, kind: formats.Kind) -> tuple[dict[str, Any], str]:
    try:
        view = cast(BinaryIO, _normalized_view(file, kind))
        has_duration = kind != "aac"  # raw AAC has no header with its duration
        tag = _tinytag.TinyTag.get(_FILE_NAMES.get(kind), file_obj=view, duration=has_duration)
        tags = _columns(tag)
        if kind in ("wav", "aiff"):
            for start, _ in chunks(file, 0, kind, b"id3 ", b"ID3 "):
                id3 = io.BytesIO(normalize_id3(file, start)[0])
                chunk = _tinytag.TinyTag.get("sound.mp3", file_obj=id3, duration=False)
                for column, value in _columns(chunk).items():
                    if value is not None:
                        tags[column] = value
    except _tinytag.TinyTagException as error:
        no_tags = dict.fromkeys(KINDS)
        if kind == "unknown":
            return no_tags, ""
        reason = " ".join(str(error.__cause__ or error).split())
        return no_tags, f"its tags cannot be read ({reason}); the track is kept without them"
    return tags, ""


def _normalized_view(file: BinaryIO, kind: formats.Kind) -> "_SplicedFile":
    """Returns the file with its tags in a form that tinytag reads right."""
    if kind in ("mp3", "aac", "flac"):
        start, n_replaced = normalize_id3(file)
    elif kind == "asf":
        start, n_replaced = _reorder_asf(file)
    else:
        start, n_replaced = b"", 0
    return _SplicedFile(start, n_replaced, file)


def _reorder_asf(file: BinaryIO) -> tuple[bytes, int]:
    """Returns (an ASF header with the extension object, of further values, last, its size)."""
    file.seek(0)
    head = file.read(30)
    size = int.from_bytes(head[16:24], "little")
    if not 30 < size <= _MAX_ASF_HEADER_BYTES:
        return b"", 0
    header = head + file.read(size - 30)
    objects: list[bytes] = []
    extensions: list[bytes] = []
    start = 30
    while len(header) >= start + 24:
        length = max(24, int.from_bytes(header[start + 16 : start + 24], "little"))
        content = header[start : start + length]
        is_extension = content[:16] == _ASF_EXTENSION
        (extensions if is_extension else objects).append(content)
        start += length
    return head + b"".join(objects + extensions), len(header)


def _columns(tag: "TinyTag") -> dict[str, Any]:
    more = tag.other
    credits = _text_values([tag.artist], more.get("artist", []))
    duration_s = None
    if tag.duration and 0 < tag.duration <= _MAX_DURATION_S:
        duration_s = tag.duration
    recording_ids: list[str] = []
    for name in _RECORDING_NAMES:
        recording_ids += more.get(name, [])
    return {
        columns.TITLE: _text([tag.title]),
        columns.ARTIST: ", ".join(credits) or None,
        ARTISTS: _text_values(more.get("artists", [])) or credits or None,
        columns.ALBUM: _text([tag.album]),
        ALBUM_ARTIST: _text([tag.albumartist], more.get("album artist", [])),
        TRACK_NUMBER: _count(tag.track),
        DISC_NUMBER: _count(tag.disc),
        columns.GENRES: _text_values([tag.genre], more.get("genre", [])) or None,
        columns.RELEASE_DATE: _text([tag.year], more.get("_year", [])),
        columns.LANGUAGE: _text(more.get("language", [])),
        columns.LYRICS: _text(more.get("lyrics", [])),
        columns.DESCRIPTION: _text(more.get("description", [])),
        COMMENT: _text([tag.comment]),
        columns.DURATION_S: duration_s,
        columns.MBID: _text(recording_ids),
        columns.ISRC: _text(more.get("isrc", [])),
        "replaygain_track_gain_db": _gain_db(tag, "track"),
        "replaygain_track_peak": _number(more.get("replaygain_track_peak", [])),
        "replaygain_album_gain_db": _gain_db(tag, "album"),
        "replaygain_album_peak": _number(more.get("replaygain_album_peak", [])),
    }


def _text(*groups: Sequence[str | None]) -> str | None:
    """Returns the first value that is not blank, as valid Unicode up to a NUL."""
    texts = _text_values(*groups)
    return texts[0] if texts else None


def _text_values(*groups: Sequence[str | None]) -> list[str]:
    texts: dict[str, None] = {}
    for value in chain.from_iterable(groups):
        text = str(value or "").partition("\0")[0].strip()
        if text:
            texts[text.encode("utf-8", "replace").decode("utf-8")] = None
    return list(texts)


def _number(values: Sequence[str]) -> float | None:
    """Returns the number at the start of the first value, as in `-6.5 dB`."""
    match = re.match(r"\s*([+-]?\d{1,6}(?:[.,]\d{0,12})?)", values[0]) if values else None
    return float(match[1].replace(",", ".")) if match else None


def _count(value: int | None) -> float | None:
    return float(value) if value and 0 < value <= _MAX_COUNT else None


def _gain_db(tag: "TinyTag", scope: str) -> float | None:
    gain_db = _number(tag.other.get(f"replaygain_{scope}_gain", []))
    r128 = _number(tag.other.get(f"r128_{scope}_gain", []))  # in 1/256 dB
    if gain_db is None and r128 is not None:
        return r128 / 256 + _R128_TO_REPLAYGAIN_DB
    return gain_db


class _SplicedFile(io.RawIOBase):
    """A readable file with `start` in place of its first `n_replaced` bytes."""

    def __init__(self, start: bytes, n_replaced: int, file: BinaryIO) -> None:
        super().__init__()
        self._start = start
        self._file = file
        self._shift = n_replaced - len(start)
        self._position = 0

    def read(self, n: int = -1) -> bytes:
        end = self._position + n if n >= 0 else None
        content = self._start[self._position : end]
        self._position += len(content)
        if n < 0 or len(content) < n:
            self._file.seek(self._position + self._shift)
            rest = self._file.read(n - len(content) if n >= 0 else -1)
            self._position += len(rest)
            content += rest
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._file.seek(0, io.SEEK_END) - self._shift
        if offset < 0:
            raise OSError("before the start of the file")
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position
