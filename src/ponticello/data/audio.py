"""Sound files become mono waveforms.

What a file is, its first bytes say, never its name. miniaudio decodes mp3, Ogg Vorbis and FLAC (two to three times as
fast as libsndfile for the first two); libsndfile, through soundfile, decodes the rest and is the second opinion on
what miniaudio refuses.
"""

import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import miniaudio
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ponticello.errors import AudioError, ConfigError

_BLOCK_FRAMES = 65_536  # decoded at once
_MARGIN_S = 0.25  # decoded past the cut: far longer than soxr's filter, so the cut leaves no mark
_RATES_HZ = (1_000, 768_000)  # a header that says otherwise is damaged
_PEAK = 1e6  # float files may pass 1.0; beyond this the power of a mel frame nears the end of float32
_HEAD_BYTES = 4096
_TEXT_BYTES = bytes({*b"\t\n\f\r", *range(0x20, 0x100)})

_CONVERT = "is not supported; convert it to flac, mp3, ogg, opus or wav"
# Where, which bytes, what they mean.
_UNSUPPORTED = (
    (4, b"ftyp", "an MP4 container (m4a, aac)"),
    (4, b"moov", "a QuickTime container"),
    (0, b"ADIF", "raw AAC"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "an ASF container (wma)"),
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


def load_audio(path: Path | str, sample_rate: int = 16_000, max_seconds: float | None = None) -> NDArray[np.float32]:
    """The sound of a file as one mono waveform: (n,) float32, roughly in [-1, 1].

    sample_rate: Hz, of the result; channels are averaged, then soxr resamples at high quality.
    max_seconds: s, from the start; the result has at most int(max_seconds * sample_rate) samples and equals the head
        of the whole file's. None = all of it.

    Raises AudioError, in one line that names the file, when it is missing, not a regular file, empty, not audio, of an
    unsupported container, undecodable, without sound, or holds NaN, infinite or absurdly large samples. A file that
    was cut short gives what is left of it; of mp3s glued together, the first, if its header counts its frames.
    ConfigError for a length below one sample.

    Cost: about 1/500 of the time it decodes; nothing past `max_seconds` is read.

        >>> load_audio("song.mp3", max_seconds=30.0).shape
        (480000,)
    """
    n_wanted = math.inf if max_seconds is None else max_seconds * sample_rate
    if sample_rate < 1 or not n_wanted >= 1:
        raise ConfigError(f"audio needs at least one sample; found {sample_rate} Hz and {max_seconds} s")
    path = Path(path)
    waveform, rate = _decode(path, math.inf if max_seconds is None else max_seconds + _MARGIN_S)
    if not np.abs(waveform).max(initial=0.0) <= _PEAK:  # false for NaN too
        raise AudioError(f"{_shown(path)}: holds samples that are no sound (NaN, infinite or huge); export it again")
    waveform = resample(waveform, rate, sample_rate)
    if n_wanted < len(waveform):
        waveform = waveform[: int(n_wanted)]
    if not len(waveform):
        raise AudioError(f"{_shown(path)}: holds no sound")
    return np.ascontiguousarray(waveform, dtype=np.float32)


def resample(waveform: NDArray[np.float32], rate: int, sample_rate: int) -> NDArray[np.float32]:
    """A waveform (n,) at `rate` Hz as one at `sample_rate` Hz, by soxr at high quality; itself where they agree."""
    if rate == sample_rate:
        return waveform
    resampled: NDArray[np.float32] = soxr.resample(waveform, rate, sample_rate, quality="HQ")
    return resampled


def _decode(path: Path, seconds: float) -> tuple[NDArray[np.float32], int]:
    """The first `seconds` of a file, channels averaged, at its own rate in Hz."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise AudioError(f"{_shown(path)}: is {kind}, not a file")
        with path.open("rb", buffering=0) as file:
            encoding = _sniff(path, file)
            if encoding is not None:
                try:
                    return _decode_with_miniaudio(path, encoding, seconds)
                except miniaudio.DecodeError:
                    pass  # libsndfile is the second opinion: each reads some files that the other refuses
            file.seek(0)
            return _decode_with_soundfile(path, file, seconds)
    except FileNotFoundError:
        raise AudioError(f"{_shown(path)}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise AudioError(f"{_shown(path)}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _decode_with_miniaudio(
    path: Path, encoding: miniaudio.FileFormat, seconds: float
) -> tuple[NDArray[np.float32], int]:
    """As `_decode`; miniaudio.DecodeError if it finds no sound."""
    # The wrapper's own streams must be told rate and channels, and its ways to ask for them walk the whole file.
    # In the C interface 0 means "as the file has them", so nothing is resampled either.
    ffi, lib = miniaudio.ffi, miniaudio.lib
    config = lib.ma_decoder_config_init(miniaudio.SampleFormat.FLOAT32.value, 0, 0)
    config.encodingFormat = encoding.value
    decoder = ffi.new("ma_decoder *")
    result = lib.ma_decoder_init_file(os.fsencode(path), ffi.addressof(config), decoder)
    if result != lib.MA_SUCCESS:
        raise miniaudio.DecodeError("refused", result)
    try:
        block = np.empty((_BLOCK_FRAMES, decoder.outputChannels), dtype=np.float32)
        samples, n_read = ffi.from_buffer("float[]", block), ffi.new("ma_uint64 *")

        def read(n_frames: int) -> NDArray[np.float32]:
            result = lib.ma_decoder_read_pcm_frames(decoder, samples, n_frames, n_read)
            if result not in (lib.MA_SUCCESS, lib.MA_AT_END):
                raise miniaudio.DecodeError("damaged", result)
            return block[: n_read[0]]

        rate = int(decoder.outputSampleRate)
        waveform = _gather(read, seconds * rate)
        if not len(waveform):
            raise miniaudio.DecodeError("no sound")
        return waveform, rate
    finally:
        lib.ma_decoder_uninit(decoder)


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file read block by block, as it comes.

    soundfile seeks after every read of a seekable file, which spoils the start of the next block of an mp3: its first
    frames need the ones before. Nor may the header's length decide how much is allocated.
    """

    def seekable(self) -> bool:
        return False


def _decode_with_soundfile(path: Path, file: BinaryIO, seconds: float) -> tuple[NDArray[np.float32], int]:
    """As `_decode`; AudioError if libsndfile refuses."""
    try:
        # By descriptor, not by name: soundfile would take a `.raw` name to mean headerless samples.
        with _Stream(file.fileno(), closefd=False) as sound:
            rate = int(sound.samplerate)
            if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
                raise AudioError(f"{_shown(path)}: its header is damaged, it says {rate} Hz; replace the file")
            return _gather(lambda n: sound.read(n, dtype="float32", always_2d=True), seconds * rate), rate
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        if reason.startswith("File does not exist"):  # what libsndfile says of an mp3 without a single frame
            reason = "no mp3 frames"
        raise AudioError(f"{_shown(path)}: cannot be decoded ({reason}); replace the file or re-encode it") from None


def _gather(read: Callable[[int], NDArray[np.float32]], n_frames: float) -> NDArray[np.float32]:
    """The mean over channels of what `read` gives, block by block: (n,), n <= n_frames.

    Frames are counted as they come: the length in a header may be wrong, or a trap.
    """
    blocks: list[NDArray[np.float32]] = []
    n_left = math.ceil(n_frames) if math.isfinite(n_frames) else None
    while n_left is None or n_left > 0:
        block = read(_BLOCK_FRAMES if n_left is None else min(n_left, _BLOCK_FRAMES))
        if not len(block):
            break
        with np.errstate(invalid="ignore", over="ignore"):  # damaged floats are refused once all is here
            blocks.append(block.mean(axis=1, dtype=np.float32))
        n_left = None if n_left is None else n_left - len(block)
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.float32)


def _sniff(path: Path, file: BinaryIO) -> miniaudio.FileFormat | None:
    """The format miniaudio shall decode, or None for soundfile; AudioError for what neither reads."""
    head = file.read(_HEAD_BYTES)
    if not head:
        raise AudioError(f"{_shown(path)}: the file is empty")
    has_id3, start = False, 0
    while head[:3] == b"ID3" and len(head) >= 10:  # may stand before mp3, FLAC and AAC, and more than once
        has_id3 = True
        start += 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        file.seek(start)
        head = file.read(_HEAD_BYTES)
    for table, message in ((_UNSUPPORTED, f"{{}} {_CONVERT}"), (_NOT_AUDIO, "is {}, not audio")):
        for offset, magic, kind in table:
            if head[offset : offset + len(magic)] == magic:
                raise AudioError(f"{_shown(path)}: {message.format(kind)}")
    if not has_id3 and not head.startswith(b"NIST_1A") and not head.translate(None, _TEXT_BYTES):
        raise AudioError(f"{_shown(path)}: is text (a playlist, a web page or the like), not audio")
    if head[:4] == b"fLaC":
        return miniaudio.FileFormat.FLAC
    if head[:4] == b"OggS" and b"\x01vorbis" in head[:128]:
        return miniaudio.FileFormat.VORBIS
    if head[:4] in (b"OggS", b"RIFF", b"RF64", b"FORM"):
        return None
    if len(head) >= 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # layer 0 does not exist in MPEG audio
        raise AudioError(f"{_shown(path)}: raw AAC {_CONVERT}")
    is_frame = len(head) >= 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return miniaudio.FileFormat.MP3 if is_frame or has_id3 else None


def _shown(path: Path) -> str:
    """The path as one printable line."""
    return str(path) if str(path).isprintable() else repr(str(path))
