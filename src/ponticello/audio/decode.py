"""Decodes sound files to mono waveforms.

The first bytes of a file decide its format, never its name. miniaudio decodes mp3, Ogg Vorbis and
FLAC (two to three times as fast as libsndfile for the first two); PyAV, if installed, m4a, aac and
wma; libsndfile, through soundfile, all others, and files that miniaudio refuses.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import miniaudio
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ponticello.audio import formats
from ponticello.audio.worker_pool import Reply
from ponticello.errors import ConfigError

_BLOCK_FRAMES = 65_536  # decoded at once
_MARGIN_S = 0.25  # decoded past the cut: longer than soxr's filter, so that the cut has no effect
_MIN_RATE_HZ = 1_000
_MAX_RATE_HZ = 768_000
_MAX_SAMPLE = 1e6  # float files may exceed 1.0; above this, the power of a mel frame overflows

_MINIAUDIO: dict[formats.Kind, miniaudio.FileFormat] = {
    "mp3": miniaudio.FileFormat.MP3,
    "flac": miniaudio.FileFormat.FLAC,
    "vorbis": miniaudio.FileFormat.VORBIS,
}
# Decoded by PyAV: the name of the format, and the one FFmpeg demuxer that may open it. FFmpeg's own
# choice could be a playlist, which it would follow.
_PYAV: dict[formats.Kind, tuple[str, str]] = {
    "mp4": ("an MP4 container (m4a, aac)", "mov"),
    "asf": ("an ASF container (wma)", "asf"),
    "aac": ("raw AAC", "aac"),
}


def load_audio(
    path: Path | str, sample_rate: int = 16_000, max_seconds: float | None = None
) -> NDArray[np.float32]:
    """Returns the sound of a file as one mono waveform: (n,) float32, roughly in [-1, 1].

    sample_rate: Hz, of the result; channels are averaged, then soxr resamples at high quality.
    max_seconds: decodes this much from the start, at most int(max_seconds * sample_rate) samples,
        which equal those of the full decode. None decodes the whole file.

    Raises AudioError, in one line that names the file, if it is missing, not a regular file, empty,
    not audio, of an unsupported container, undecodable, without sound, or holds NaN, infinite or
    very large samples. A truncated file gives its readable start; several mp3s in one file give the
    first, if its header counts its frames. ConfigError for a length below one sample.

    Cost: about 1/500 of the duration; the file is not read past `max_seconds`.

        >>> load_audio("song.mp3", max_seconds=30.0).shape
        (480000,)
    """
    n_wanted = math.inf if max_seconds is None else max_seconds * sample_rate
    if sample_rate < 1 or not n_wanted >= 1:
        raise ConfigError(
            f"audio needs at least one sample; found {sample_rate} Hz and {max_seconds} s"
        )
    path = Path(path)
    waveform, rate = _decode(path, math.inf if max_seconds is None else max_seconds + _MARGIN_S)
    if not np.abs(waveform).max(initial=0.0) <= _MAX_SAMPLE:  # also refuses NaN
        raise formats.audio_error(
            path, "holds samples that are no sound (NaN, infinite or huge); export it again"
        )
    waveform = resample(waveform, rate, sample_rate)
    if n_wanted < len(waveform):
        waveform = waveform[: int(n_wanted)]
    if not len(waveform):
        raise formats.audio_error(path, "holds no sound")
    return np.ascontiguousarray(waveform, dtype=np.float32)


@dataclass(frozen=True)
class DecodeTask:
    """The task of a worker that decodes for the server: the start of a file, or its peaks.

    sample_rate: Hz. max_duration_s: a longer file is decoded no further, and gives no samples.
    keep_s: length of the start. n_peaks: if above 0, so many peaks are returned instead.
    """

    path: Path
    sample_rate: int
    max_duration_s: float
    keep_s: float = 0.0
    n_peaks: int = 0


def decode_reply(task: DecodeTask) -> Reply:
    """Decodes in a worker: facts["duration_s"], and (n,) float32, empty above `max_duration_s`."""
    waveform = load_audio(task.path, task.sample_rate, task.max_duration_s + 1)
    duration_s = len(waveform) / task.sample_rate
    if duration_s > task.max_duration_s:
        return Reply({"duration_s": duration_s})
    if task.n_peaks:
        return Reply({"duration_s": duration_s}, peaks(waveform, task.n_peaks))
    return Reply({"duration_s": duration_s}, waveform[: int(task.keep_s * task.sample_rate)])


def peaks(waveform: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Returns the peak of each n-th of a waveform relative to the highest: (n,), 0 to 1."""
    edges = np.linspace(0, len(waveform), n + 1).astype(np.int64)
    starts = np.minimum(edges[:-1], len(waveform) - 1)  # fewer than n samples are repeated
    loudest = np.maximum.reduceat(np.abs(waveform), starts).astype(np.float32)
    highest = loudest.max()
    return loudest / highest if highest > 0 else loudest


def resample(waveform: NDArray[np.float32], rate: int, sample_rate: int) -> NDArray[np.float32]:
    """Resamples (n,) from `rate` to `sample_rate` Hz by soxr at high quality."""
    if rate != sample_rate:
        waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ")
    return waveform


def _decode(path: Path, seconds: float) -> tuple[NDArray[np.float32], int]:
    """Returns the first `seconds` of a file, channels averaged, and its sample rate in Hz."""
    with formats.open_audio_file(path) as file:
        kind = formats.detect_format(path, file)
        if kind in _PYAV:
            return _decode_with_av(path, file, kind, seconds)
        if kind in _MINIAUDIO:
            try:
                return _decode_with_miniaudio(path, _MINIAUDIO[kind], seconds)
            except miniaudio.DecodeError:
                pass  # libsndfile reads some files that miniaudio refuses
        file.seek(0)
        return _decode_with_soundfile(path, file, seconds)


def _decode_with_miniaudio(
    path: Path, encoding: miniaudio.FileFormat, seconds: float
) -> tuple[NDArray[np.float32], int]:
    """As `_decode`; miniaudio.DecodeError if it finds no sound."""
    # The Python wrapper needs rate and channels in advance, and reads the whole file to find them.
    # In the C interface, 0 keeps those of the file.
    ffi = miniaudio.ffi
    lib = miniaudio.lib
    config = lib.ma_decoder_config_init(miniaudio.SampleFormat.FLOAT32.value, 0, 0)
    config.encodingFormat = encoding.value
    decoder = ffi.new("ma_decoder *")
    result = lib.ma_decoder_init_file(os.fsencode(path), ffi.addressof(config), decoder)
    if result != lib.MA_SUCCESS:
        raise miniaudio.DecodeError("refused", result)
    try:
        block = np.empty((_BLOCK_FRAMES, decoder.outputChannels), dtype=np.float32)
        samples = ffi.from_buffer("float[]", block)
        n_read = ffi.new("ma_uint64 *")

        def read(n_frames: int) -> NDArray[np.float32]:
            result = lib.ma_decoder_read_pcm_frames(decoder, samples, n_frames, n_read)
            if result not in (lib.MA_SUCCESS, lib.MA_AT_END):
                raise miniaudio.DecodeError("damaged", result)
            return block[: n_read[0]]

        rate = _check_rate(path, int(decoder.outputSampleRate))
        waveform = _mean_of_channels(read, seconds * rate)
        if not len(waveform):
            raise miniaudio.DecodeError("no sound")
        return waveform, rate
    finally:
        lib.ma_decoder_uninit(decoder)


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read in blocks, without seeking.

    soundfile seeks after every read of a seekable file, which damages the start of the next block
    of an mp3. It also allocates the length in the header, which may be wrong.
    """

    def seekable(self) -> bool:
        return False


def _decode_with_soundfile(
    path: Path, file: BinaryIO, seconds: float
) -> tuple[NDArray[np.float32], int]:
    """As `_decode`; AudioError if libsndfile refuses."""
    try:
        # By descriptor: soundfile takes a name that ends in `.raw` for samples without a header.
        with _Stream(file.fileno(), closefd=False) as sound:
            rate = _check_rate(path, int(sound.samplerate))
            read = partial(sound.read, dtype="float32", always_2d=True)
            return _mean_of_channels(read, seconds * rate), rate
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error))
        if reason.startswith("File does not exist"):  # libsndfile's words for an mp3 without frames
            reason = "no mp3 frames"
        raise formats.undecodable(path, reason) from None


def _decode_with_av(
    path: Path, file: BinaryIO, kind: formats.Kind, seconds: float
) -> tuple[NDArray[np.float32], int]:
    """As `_decode`; AudioError if PyAV is not installed or refuses."""
    name, demuxer = _PYAV[kind]
    try:
        import av
    except ImportError:
        extra = "or, to read it as it is: pip install 'ponticello[av]'"
        raise formats.audio_error(path, f"{name} {formats.ADVICE}, {extra}") from None
    file.seek(0)
    blocks: list[NDArray[np.float32]] = []
    rate = 0
    try:
        with av.open(file, format=demuxer, options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise formats.audio_error(path, "holds no sound")
            resampler = av.AudioResampler(format="fltp")  # keeps rate and channels
            n_left = math.inf
            for frame in _frames_of(container, resampler):
                if not rate:
                    rate = _check_rate(path, frame.sample_rate)
                    n_left = seconds * rate
                with np.errstate(invalid="ignore", over="ignore"):
                    blocks.append(frame.to_ndarray().mean(axis=0, dtype=np.float32))
                n_left -= len(blocks[-1])
                if n_left <= 0:
                    break
    except (av.FFmpegError, ValueError) as error:
        raise formats.undecodable(path, str(getattr(error, "strerror", None) or error)) from None
    if not blocks:
        raise formats.audio_error(path, "holds no sound")
    waveform = np.concatenate(blocks)
    if math.isfinite(seconds):
        waveform = waveform[: math.ceil(seconds * rate)]
    return waveform, rate


def _frames_of(container: Any, resampler: Any) -> Iterator[Any]:
    """Yields the frames of the first audio stream, up to the first damage."""
    import av

    has_sound = False
    try:
        for decoded in container.decode(audio=0):
            for frame in resampler.resample(decoded):
                has_sound = True
                yield frame
    except av.FFmpegError:
        if not has_sound:
            raise


def _check_rate(path: Path, rate: int) -> int:
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
        raise formats.audio_error(
            path, f"its header is damaged, it says {rate} Hz; replace the file"
        )
    return rate


def _mean_of_channels(
    read: Callable[[int], NDArray[np.float32]], n_frames: float
) -> NDArray[np.float32]:
    """Returns the mean over channels, at most `n_frames`: the length in a header may be wrong."""
    blocks = [np.empty(0, dtype=np.float32)]
    n_left = n_frames
    while n_left > 0:
        block = read(math.ceil(min(n_left, _BLOCK_FRAMES)))
        if not len(block):
            break
        with np.errstate(invalid="ignore", over="ignore"):  # `load_audio` refuses damaged floats
            blocks.append(block.mean(axis=1, dtype=np.float32))
        n_left -= len(block)
    return np.concatenate(blocks)
