"""What `load_audio` reads, and what it refuses and why."""

import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import miniaudio
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from ponticello.audio import decode as audio
from ponticello.audio.decode import load_audio
from ponticello.errors import AudioError, ConfigError, DataError

RATE = 44_100
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
LOSSY_TOLERANCE = 0.02


def tone(hz: float, seconds: float = 2.0, rate: int = RATE) -> NDArray[np.float32]:
    return np.float32(0.5) * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(
        np.float32
    )


def write(path: Path, waveform: NDArray[np.float32], kind: str, rate: int = RATE) -> Path:
    container, subtype = KINDS[kind]
    soundfile.write(path, waveform, rate, format=container, subtype=subtype)
    return path


def loudest_hz(waveform: NDArray[np.float32], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * rate / len(waveform))


@pytest.mark.parametrize("kind", KINDS)
def test_tone_keeps_its_pitch_level_and_length_in_every_format(tmp_path: Path, kind: str) -> None:
    rate = 48_000 if kind == "opus" else RATE
    waveform = load_audio(write(tmp_path / "tone", tone(440.0, rate=rate), kind, rate))
    assert waveform.dtype == np.float32
    assert waveform.shape == (32_000,)
    assert loudest_hz(waveform, 16_000) == pytest.approx(440.0, abs=0.5)
    expected = tone(440.0, rate=16_000)
    middle = slice(4_000, 28_000)
    np.testing.assert_allclose(waveform[middle], expected[middle], atol=LOSSY_TOLERANCE)


def test_same_rate_gives_the_samples_as_written(tmp_path: Path) -> None:
    path = tmp_path / "exact.wav"
    samples = np.array([0.0, 0.5, -0.25, 1.5], dtype=np.float32)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path), samples)
    np.testing.assert_array_equal(load_audio(str(path)), samples)


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_channels_are_averaged(tmp_path: Path, kind: str) -> None:
    stereo = np.stack([np.full(1000, 0.5), np.full(1000, -0.25)], axis=1).astype(np.float32)
    waveform = load_audio(write(tmp_path / "stereo", stereo, kind, 16_000))
    np.testing.assert_allclose(waveform, 0.125, atol=1e-4)


def test_resampling_does_not_fold_high_tones_down(tmp_path: Path) -> None:
    """A 10 kHz tone is above half of 16 kHz; a poor resampler would give it at 16 - 10 = 6 kHz."""
    waveform = load_audio(write(tmp_path / "high.wav", tone(10_000.0), "wav"))
    assert np.abs(waveform[1_000:-1_000]).max() < 1e-4  # 74 dB below the tone's 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_max_seconds_gives_the_head_of_the_whole(tmp_path: Path, kind: str) -> None:
    rate = 48_000 if kind == "opus" else RATE
    noise = np.random.default_rng(0).normal(0, 0.1, (5 * rate, 2)).astype(np.float32)
    path = write(tmp_path / "noise", noise, kind, rate)
    head = load_audio(path, max_seconds=1.2345)
    assert head.shape == (19_752,)  # int(1.2345 * 16000)
    np.testing.assert_allclose(head, load_audio(path)[:19_752], atol=1e-5)
    np.testing.assert_array_equal(load_audio(path, max_seconds=60.0), load_audio(path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["wav", "mp3", "raw", "txt", "m4a"])
def test_content_decides_and_not_the_name(tmp_path: Path, kind: str, wrong: str) -> None:
    rate = 48_000 if kind == "opus" else RATE
    path = write(tmp_path / "plain", tone(440.0, rate=rate), kind, rate)
    plain = load_audio(path)
    np.testing.assert_array_equal(load_audio(path.rename(tmp_path / f"named.{wrong}")), plain)


@pytest.mark.parametrize("kind", ["mp3", "flac", "wav"])
def test_id3_tag_in_front_changes_nothing(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "plain", tone(440.0), kind)
    tagged = tmp_path / "tagged"
    tagged.write_bytes(ID3 + path.read_bytes())
    np.testing.assert_array_equal(load_audio(tagged), load_audio(path))


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_file_cut_short_gives_what_is_left(tmp_path: Path, kind: str) -> None:
    path = write(
        tmp_path / "whole",
        np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32),
        kind,
    )
    whole = load_audio(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half = load_audio(path)
    assert 0.4 * len(whole) < len(half) < 0.6 * len(whole)
    np.testing.assert_allclose(half[:16_000], whole[:16_000], atol=1e-5)


@pytest.mark.parametrize("kind", ["mp3", "ogg", "flac"])
def test_libsndfile_reads_what_miniaudio_refuses(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tone", tone(440.0), kind)
    first = load_audio(path)
    asked: list[Path] = []

    def refuse(path: Path, *_: object) -> None:
        asked.append(path)
        raise miniaudio.DecodeError("refused")

    monkeypatch.setattr(audio, "_decode_with_miniaudio", refuse)
    np.testing.assert_allclose(load_audio(path), first, atol=1e-4)
    assert asked == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_join_without_a_seam(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding in many small blocks, by either decoder, equals decoding in one."""
    rate = 48_000 if kind == "opus" else RATE
    path = write(tmp_path / "tone", tone(440.0, rate=rate), kind, rate)
    with path.open("rb", buffering=0) as file:
        whole, _ = audio._decode_with_soundfile(path, file, 10.0)
    for n_frames in (1_000, 65_536, 1_000_000):
        monkeypatch.setattr(audio, "_BLOCK_FRAMES", n_frames)
        for seconds in (10.0, float("inf")):
            with path.open("rb", buffering=0) as file:
                np.testing.assert_array_equal(
                    audio._decode_with_soundfile(path, file, seconds)[0], whole
                )
            np.testing.assert_allclose(audio._decode(path, seconds)[0], whole, atol=1e-4)


def test_ten_hours_are_not_read_whole(tmp_path: Path) -> None:
    """A sparse wav of 10 h x 16 kHz x 2 bytes = 1.15 GB, and an mp3 of which two seconds are asked
    for.
    """
    path = tmp_path / "long.wav"
    soundfile.write(path, np.full(16_000, 0.25, dtype=np.float32), 16_000, subtype="PCM_16")
    n_bytes = 36_000 * 16_000 * 2
    header = bytearray(path.read_bytes()[:44])
    header[4:8], header[40:44] = (n_bytes + 36).to_bytes(4, "little"), n_bytes.to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write(header)
        file.truncate(44 + n_bytes)
    mp3 = write(tmp_path / "long.mp3", np.zeros(60 * RATE, dtype=np.float32), "mp3")
    tracemalloc.start()
    try:
        assert load_audio(path, max_seconds=1.0).mean() == pytest.approx(0.25, abs=1e-4)
        assert load_audio(mp3, max_seconds=2.0).shape == (32_000,)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


REFUSED = {
    b"\0\0\0\x20ftypM4A ": r"an MP4 container \(m4a, aac\) is not supported; "
    r"convert it to flac, mp3, ogg, opus or wav, "
    r"or, to read it as it is: pip install 'ponticello\[av\]'",
    b"\xff\xf1\x50\x80\x2e\x7f": "raw AAC is not supported; convert it to",
    ID3 + b"\xff\xf1\x50\x80\x2e\x7f": "raw AAC is not supported; convert it to",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": r"an ASF container \(wma\) is not supported; "
    "convert it to",
    b"\x1a\x45\xdf\xa3": r"a Matroska container \(mka, webm\) is not supported; convert it to",
    b"\x89PNG\r\n\x1a\n": "is an image, not audio",
    b"\xff\xd8\xff\xe0": "is an image, not audio",
    b"RIFF\x10\0\0\0WEBPVP8 ": "is an image, not audio",
    b"PK\x03\x04": "is an archive, not audio",
    "#EXTM3U\nsong.mp3".encode("utf-16"): "is text, not audio",
    b"\xff\xfb\x90\x00": r"cannot be decoded \(no mp3 frames\); replace the file or re-encode it",
    b"fLaC": r"cannot be decoded \(.+\); replace the file or re-encode it",
    b"\0\1\2\3": r"cannot be decoded \(Format not recognised\); replace the file or re-encode it",
}


@pytest.mark.parametrize("start", REFUSED, ids=REFUSED.values())
def test_what_is_no_sound_is_refused_with_its_kind(
    tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # as where the extra is not installed
    path = tmp_path / "song.mp3"
    path.write_bytes(start + bytes(200))
    with pytest.raises(
        AudioError,
        match=f"^{path}: {REFUSED[start]}$" if REFUSED[start][-1] == "t" else REFUSED[start],
    ):
        load_audio(path)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\nä.mp3\n", "[playlist]\n", "<!DOCTYPE html>", "<?xml version='1.0'?>", "x"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_text_is_refused(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(
        AudioError, match=r"song\.mp3: is text \(a playlist, a web page or the like\), not audio$"
    ):
        load_audio(path)


def test_missing_empty_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "none.wav": "there is no such file",
        "empty.wav": "the file is empty",
        "pipe": "is a device or pipe, not a file",
        ".": "is a folder, not a file",
        "nul\0.wav": "cannot be read: embedded null",
    }.items():
        with pytest.raises(AudioError, match=message) as caught:
            load_audio(tmp_path / name)
        assert caught.value.args[0].startswith(("'" if "\0" in name else "") + str(tmp_path))


def test_message_stays_one_line_for_any_name(tmp_path: Path) -> None:
    for name in ("two\nlines.wav", "\udcff.wav"):
        with pytest.raises(AudioError) as caught:
            load_audio(tmp_path / name)
        assert str(caught.value).isprintable()


def test_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.wav", tone(440.0), "wav")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(AudioError, match=r"secret\.wav: cannot be read: Permission denied"):
        load_audio(path)


def test_no_samples_are_no_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "none.wav", np.empty(0, dtype=np.float32), "wav")
    with pytest.raises(AudioError, match=r"none\.wav: holds no sound$"):
        load_audio(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_refused(tmp_path: Path, bad: float) -> None:
    samples = np.zeros((100, 2), dtype=np.float32)
    samples[50] = bad, -bad
    soundfile.write(tmp_path / "bad.wav", samples[:, :1], 16_000, subtype="FLOAT")
    with pytest.raises(
        AudioError, match=r"bad\.wav: holds samples that are no sound \(NaN, infinite or huge\)"
    ):
        load_audio(tmp_path / "bad.wav")


def test_infinite_channels_that_cancel_are_refused(tmp_path: Path) -> None:
    samples = np.tile(np.array([np.inf, -np.inf], dtype=np.float32), (100, 1))
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="holds samples that are no sound"):
        load_audio(tmp_path / "bad.wav")


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_header_with_an_unbelievable_rate_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"slow.{kind}", tone(440.0), kind, 8)
    with pytest.raises(AudioError, match=rf"slow\.{kind}: its header is damaged, it says 8 Hz"):
        load_audio(path)


@pytest.mark.parametrize(
    ("sample_rate", "max_seconds"), [(0, None), (16_000, 0.0), (16_000, -1.0), (16_000, np.nan)]
)
def test_less_than_one_sample_cannot_be_asked_for(
    tmp_path: Path, sample_rate: int, max_seconds: float | None
) -> None:
    with pytest.raises(ConfigError, match="audio needs at least one sample"):
        load_audio(tmp_path / "any.wav", sample_rate, max_seconds)


def test_audio_error_is_a_data_error() -> None:
    assert issubclass(AudioError, DataError)


# What PyAV decodes.

WITH_AV = {
    "m4a": ("ipod", "aac"),
    "alac": ("ipod", "alac"),
    "aac": ("adts", "aac"),
    "wma": ("asf", "wmav2"),
}


def write_with_av(path: Path, waveform: NDArray[np.float32], kind: str, rate: int = RATE) -> Path:
    """waveform: (n,) or (n, 2)."""
    import av

    container, codec = WITH_AV[kind]
    layout = "stereo" if waveform.ndim == 2 else "mono"
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 96_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.atleast_2d(waveform.T)), "fltp", layout
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return path


@pytest.mark.parametrize("kind", WITH_AV)
def test_tone_keeps_its_pitch_and_level_by_pyav(tmp_path: Path, kind: str) -> None:
    waveform = load_audio(write_with_av(tmp_path / "named.mp3", tone(440.0), kind))
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(
        32_000, abs=16_000 * 0.2
    )  # aac pads with up to two blocks, wma with more
    assert loudest_hz(waveform, 16_000) == pytest.approx(440.0, abs=1.0)
    assert np.abs(waveform[4_000:28_000]).max() == pytest.approx(0.5, abs=LOSSY_TOLERANCE)


@pytest.mark.parametrize("kind", WITH_AV)
def test_head_by_pyav_is_the_head_of_the_whole(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (5 * RATE, 2)).astype(np.float32)
    path = write_with_av(tmp_path / "noise", noise, kind)
    head = load_audio(path, max_seconds=1.2345)
    assert head.shape == (19_752,)
    np.testing.assert_allclose(head, load_audio(path)[:19_752], atol=1e-5)


def test_channels_are_averaged_by_pyav(tmp_path: Path) -> None:
    stereo = np.stack([np.full(32_000, 0.5), np.full(32_000, -0.25)], axis=1).astype(np.float32)
    path = write_with_av(tmp_path / "stereo", stereo, "alac", 16_000)
    np.testing.assert_allclose(load_audio(path), 0.125, atol=1e-4)


@pytest.mark.parametrize("kind", WITH_AV)
def test_damage_is_refused_or_gives_what_is_left(tmp_path: Path, kind: str) -> None:
    path = write_with_av(tmp_path / "whole", tone(440.0, 4.0), kind)
    content = path.read_bytes()
    path.write_bytes(content[:60])
    with pytest.raises(
        AudioError, match=r"whole: (cannot be decoded \(.+\); replace the file|holds no sound)"
    ):
        load_audio(path)
    if kind in ("aac", "wma"):  # the others keep their index at the end
        path.write_bytes(content[: len(content) // 2])
        assert 24_000 < len(load_audio(path)) < 40_000
