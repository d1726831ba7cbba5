"""Computes log-mel spectrograms, an input of the audio tower.

Dimensions: n samples, T frames, F mel bands, K frequency bins (n_fft // 2 + 1).
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.sparse import csr_array

from ponticello.audio.decode import load_audio
from ponticello.config import MelConfig
from ponticello.errors import DataError, ShapeError

_RECIPE = 1  # increase it if `mel_of_file` changes its output for the same settings
_BLOCK_FRAMES = 32  # transformed at once: half a MiB, which fits the processor's cache
_POWER_FLOOR = 1e-10  # -100 dB, librosa's default

# Slaney's mel scale (Auditory Toolbox, 1998): even steps up to 1 kHz, even ratios above.
_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = float(np.log(6.4)) / 27


def log_mel(waveform: NDArray[np.floating], config: MelConfig) -> NDArray[np.float32]:
    """Returns the log-mel spectrogram of a waveform: (T, F) float32, in dB.

    Values are at most `config.top_db` below the loudest; silence is -100 dB throughout.
    waveform: (n,) at `config.sample_rate`, cut to `config.max_seconds` first; n < n_fft is
        allowed. T = 1 + n // hop_length: frames are centred, the ends are padded with zeros.

    Raises ShapeError unless the waveform has one dimension, DataError when it is empty or not
    finite.

    Source: librosa 0.11, `power_to_db(melspectrogram(...), ref=1.0)` with its defaults.
    Computed in float64, on one thread: beside a pure tone, float32 is off by a thousandth of a dB,
    and the order in which threads sum could move a value across a float16 step. Cost: 18 ms for two
    minutes; bench/ingest.py.

        >>> log_mel(np.zeros(16_000, dtype=np.float32), MelConfig()).shape
        (11, 128)
    """
    power = mel_power(waveform[: int(config.max_seconds * config.sample_rate)], config)
    decibels = 10 * np.log10(np.maximum(power, _POWER_FLOOR))
    mel: NDArray[np.float64] = np.maximum(decibels, decibels.max() - config.top_db)
    return mel.astype(np.float32)


def mel_power(waveform: NDArray[np.floating], config: MelConfig) -> NDArray[np.float64]:
    """Returns the mel spectrogram of a waveform (n,) in power: (T, F) float64; as `log_mel`."""
    check_waveform(waveform)
    window, filterbank = _window_and_filterbank(config)
    padded = np.pad(waveform.astype(np.float64), config.n_fft // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)
    frames = windows[:: config.hop_length]  # (T, n_fft)
    power = np.empty((len(frames), config.n_mels))
    for start in range(0, len(frames), _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        spectrum = rfft(frames[block] * window, overwrite_x=True)  # (b, K)
        power[block] = (filterbank @ (spectrum.real**2 + spectrum.imag**2).T).T
    return power


def check_waveform(waveform: NDArray[np.floating]) -> None:
    """Raises ShapeError and DataError as `log_mel`."""
    if waveform.ndim != 1:
        raise ShapeError(f"a waveform must have one dimension, (n,); found {waveform.shape}")
    if not len(waveform):
        raise DataError("a waveform must hold at least one sample; found none")
    if not np.isfinite(waveform).all():
        raise DataError("a waveform must be finite; found NaN or infinite samples")


def mel_of_file(path: Path | str, config: MelConfig) -> NDArray[np.float16]:
    """Returns a file's log-mel spectrogram (T, F) float16, in dB; AudioError as `load_audio`."""
    waveform = load_audio(path, config.sample_rate, config.max_seconds)
    return log_mel(waveform, config).astype(np.float16)


def mel_key(config: MelConfig) -> str:
    """Returns 16 hex digits that change whenever the values of a mel would."""
    # `released_padding` applies to batches of mels.
    settings = config.model_dump_json(exclude={"released_padding"})
    return hashlib.sha256(f"{_RECIPE} {settings}".encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _window_and_filterbank(config: MelConfig) -> tuple[NDArray[np.float64], csr_array]:
    """Returns a periodic Hann window (n_fft,) and a sparse filterbank (F, K), both float64."""
    bins_hz = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)  # (K,)
    lowest = _mel_of_hz(config.f_min_hz)
    highest = _mel_of_hz(config.f_max_hz)
    edges_hz = _hz_of_mel(np.linspace(lowest, highest, config.n_mels + 2))  # (F + 2,)
    left = edges_hz[:-2, None]  # (F, 1), as the next two
    centre = edges_hz[1:-1, None]
    right = edges_hz[2:, None]
    rising = (bins_hz - left) / (centre - left)
    falling = (right - bins_hz) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filterbank = triangles * 2 / (right - left)  # every triangle has the area of one Hz
    window = np.hanning(config.n_fft + 1)[:-1]  # scipy.signal takes 0.5 s to import
    return window, csr_array(filterbank)


def _mel_of_hz(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return _BREAK_MEL + float(np.log(hz / _BREAK_HZ)) / _LOG_STEP


def _hz_of_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, logarithmic)
