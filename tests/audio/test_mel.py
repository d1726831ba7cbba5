"""The log-mel spectrogram, against librosa and against known sounds."""

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from ponticello.audio.decode import load_audio
from ponticello.audio.mel import log_mel, mel_of_file
from ponticello.config import MelConfig
from ponticello.errors import AudioError, DataError, ShapeError

CONFIG = MelConfig()
RATE = CONFIG.sample_rate
TOLERANCE_DB = 1e-3
FLOAT16_STEP_DB = 1 / 16  # between 64 and 128
DEMO_AUDIO = Path(__file__).parents[2] / "demo" / "audio"

ODD = MelConfig(
    sample_rate=22_050, n_fft=1024, hop_length=300, n_mels=40, f_min_hz=30, f_max_hz=9000, top_db=60
)


def librosa_mel(waveform: NDArray[Any], config: MelConfig = CONFIG) -> NDArray[np.float32]:
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.f_min_hz,
        fmax=config.f_max_hz,
        power=2,
        center=True,
        pad_mode="constant",
    )
    mel: NDArray[np.float32] = librosa.power_to_db(
        power, ref=1.0, amin=1e-10, top_db=config.top_db
    ).T
    return mel


def sounds() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    seconds = np.arange(3 * RATE) / RATE
    sine = np.sin(2 * np.pi * 440 * seconds)
    sounds = {
        "noise": rng.normal(0, 0.1, 3 * RATE),
        "tone": sine,
        "quiet tone": 1e-4 * sine,
        "tone after silence": np.where(seconds < 1.5, 0, sine),
        "sweep": np.sin(2 * np.pi * 1000 * seconds**2),
        "click": np.eye(1, 5000, 2500)[0],
        "silence": np.zeros(RATE),
        "one hop": rng.normal(0, 0.1, CONFIG.hop_length),
        "short": rng.normal(0, 0.1, 100),
        "one sample": np.ones(1),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")  # librosa's, for the short sounds
@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", sounds())
def test_mel_equals_librosas(name: str, config: MelConfig) -> None:
    waveform = sounds()[name]
    mel = log_mel(waveform, config)
    assert mel.dtype == np.float32
    assert mel.shape == (1 + len(waveform) // config.hop_length, config.n_mels)
    np.testing.assert_allclose(
        mel, librosa_mel(waveform.astype(np.float64), config), rtol=0, atol=TOLERANCE_DB
    )


def test_mel_of_an_opus_file_equals_librosas(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (2 * 48_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "noise.opus", noise, 48_000, format="OGG", subtype="OPUS")
    waveform = load_audio(tmp_path / "noise.opus")
    np.testing.assert_allclose(
        log_mel(waveform, CONFIG), librosa_mel(waveform), rtol=0, atol=TOLERANCE_DB
    )


def test_mel_of_demo_tracks_equals_librosas() -> None:
    paths = sorted(
        path for path in DEMO_AUDIO.glob("*") if path.suffix in (".opus", ".ogg", ".mp3", ".flac")
    )[:3]
    if not paths:
        pytest.skip(f"{DEMO_AUDIO} holds no audio")
    for path in paths:
        waveform = load_audio(path, RATE, CONFIG.max_seconds)
        np.testing.assert_allclose(
            log_mel(waveform, CONFIG), librosa_mel(waveform), rtol=0, atol=TOLERANCE_DB
        )


def test_tone_peaks_in_its_band() -> None:
    """440 Hz is 440 / (200/3) = 6.6 mel. The scale ends at 15 + 27 ln(8) / ln(6.4) = 45.2457 mel
    for 8 kHz, so 128 bands peak every 45.2457 / 129 = 0.350742 mel: 6.6 / 0.350742 = 18.82, nearest
    the 19th peak, index 18.
    """
    mel = log_mel(sounds()["tone"], CONFIG)
    assert set(mel[1:-1].argmax(axis=1)) == {18}


def test_silence_is_the_floor_and_finite() -> None:
    np.testing.assert_array_equal(
        log_mel(np.zeros(RATE, dtype=np.float32), CONFIG), np.float32(-100.0)
    )


def test_nothing_lies_further_below_the_peak_than_top_db() -> None:
    mel = log_mel(sounds()["tone after silence"], CONFIG)
    assert mel.min() == pytest.approx(mel.max() - CONFIG.top_db, abs=1e-4)


def test_ten_times_louder_is_twenty_db_more() -> None:
    noise = sounds()["noise"]
    np.testing.assert_allclose(log_mel(10 * noise, CONFIG), log_mel(noise, CONFIG) + 20, atol=1e-4)


def test_waveform_is_cut_to_max_seconds() -> None:
    config = MelConfig(max_seconds=1.0)
    noise = sounds()["noise"]
    mel = log_mel(noise, config)
    assert len(mel) == config.max_frames == 11
    np.testing.assert_array_equal(mel, log_mel(noise[:RATE], config))


def test_two_minutes_have_1251_frames() -> None:
    assert log_mel(np.zeros(130 * RATE, dtype=np.float32), CONFIG).shape == (1251, 128)


def test_read_only_and_reversed_waveforms_are_fine() -> None:
    noise = sounds()["noise"]
    frozen = noise.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(log_mel(frozen, CONFIG), log_mel(noise, CONFIG))
    np.testing.assert_array_equal(log_mel(noise[::-1], CONFIG), log_mel(noise[::-1].copy(), CONFIG))


def test_thread_count_changes_no_bit() -> None:
    noise, n_threads = sounds()["noise"], torch.get_num_threads()
    mels = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            mels.append(log_mel(noise, CONFIG).astype(np.float16).tobytes())
    finally:
        torch.set_num_threads(n_threads)
    assert mels[0] == mels[1]


def test_mel_of_file_is_the_mel_of_its_sound_in_float16(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", sounds()["noise"], RATE, subtype="FLOAT")
    mel = mel_of_file(tmp_path / "noise.wav", CONFIG)
    assert mel.dtype == np.float16
    exact = log_mel(sounds()["noise"], CONFIG)
    np.testing.assert_array_equal(mel, exact.astype(np.float16))
    np.testing.assert_allclose(mel, exact, rtol=0, atol=FLOAT16_STEP_DB / 2)


def test_bad_waveforms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ShapeError, match=r"a waveform must have one dimension, \(n,\); found \(2, 100\)"
    ):
        log_mel(np.zeros((2, 100), dtype=np.float32), CONFIG)
    with pytest.raises(
        DataError, match="a waveform must hold at least one sample; found none"
    ) as caught:
        log_mel(np.zeros(0, dtype=np.float32), CONFIG)
    assert not isinstance(caught.value, AudioError)
    with pytest.raises(DataError, match="a waveform must be finite"):
        log_mel(np.array([0.0, np.nan], dtype=np.float32), CONFIG)
    with pytest.raises(AudioError, match="there is no such file"):
        mel_of_file(tmp_path / "none.wav", CONFIG)
