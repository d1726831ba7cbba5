"""MusiCNN: the published numbers, from log-mels and from sound, and no overflow on loud or silent
input.
"""

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ponticello.audio.decode import load_audio
from ponticello.errors import CheckpointError, DataError, ShapeError
from ponticello.features import musicnn
from ponticello.features.musicnn import (
    Tagger,
    load_musicnn,
    musicnn_forward,
    musicnn_mel,
    split_patches,
    tag_names,
)

ROOT = Path(__file__).parents[2]
EXCERPTS = ("mars-03-fear", "unknown-horizons-peer-gynt-suite-no-1-op-46-i-morning", "zaz-mus1")
PARITY = load_file(ROOT / "tests/reference/musicnn.safetensors")


@pytest.mark.parametrize("tagger", ["msd", "mtt"])
def test_every_output_is_the_published_one(tagger: Tagger) -> None:
    with torch.no_grad():
        heard = load_musicnn(tagger)(PARITY["log_mel"].flatten(0, 1))  # 3 excerpts x 2 patches
    for part, found in heard._asdict().items():
        torch.testing.assert_close(
            found, PARITY[f"{tagger}_{part}"].flatten(0, 1), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("tagger", ["msd", "mtt"])
@pytest.mark.parametrize("number", range(3))
def test_a_sound_file_gives_the_published_tags(tagger: Tagger, number: int) -> None:
    """The reference decoded the same file with another decoder's resampler: 1e-3, where a tag's
    score is about 0.1.
    """
    waveform = load_audio(ROOT / f"demo/audio/{EXCERPTS[number]}.opus", 16_000, 6.0)
    found = musicnn_forward(split_patches(waveform), tagger).taggram
    torch.testing.assert_close(found, PARITY[f"{tagger}_taggram"][number], rtol=0, atol=1e-3)


def test_log_mel_is_librosas() -> None:
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=512, hop_length=256, n_mels=96
    )
    np.testing.assert_allclose(musicnn_mel(waveform), np.log10(10_000 * power + 1).T, atol=1e-3)


@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 1e3, 1e6])
def test_loud_and_silent_sounds_stay_finite(level: float) -> None:
    square = np.sign(np.sin(np.arange(48_000) / 20)).astype(np.float32) * np.float32(level)
    for found in musicnn_forward(split_patches(square), "msd"):
        assert torch.isfinite(found).all()


def test_whole_patches_are_heard_and_a_short_sound_fills_one() -> None:
    """187 frames of 256 samples a patch, frames = 1 + n // 256: 186 x 256 samples are just one
    patch.
    """
    rng = np.random.default_rng(1)
    for n_samples, n_patches in (
        (1, 1),
        (5_000, 1),
        (186 * 256, 1),
        (372 * 256, 1),
        (373 * 256, 2),
    ):
        assert len(split_patches(rng.normal(size=n_samples) * 0.1)) == n_patches


def test_many_patches_are_the_same_in_groups_as_alone() -> None:
    """More patches than are run at once: each is what it is by itself."""
    waveform = np.random.default_rng(2).normal(size=187 * 256 * (musicnn.BATCH_PATCHES + 1)) * 0.1
    found = musicnn_forward(split_patches(waveform), "mtt").penultimate
    mel = torch.from_numpy(musicnn_mel(waveform))
    with torch.no_grad():
        last = load_musicnn("mtt")(
            mel[None, 187 * musicnn.BATCH_PATCHES : 187 * (musicnn.BATCH_PATCHES + 1)]
        )
    assert len(found) == musicnn.BATCH_PATCHES + 1
    torch.testing.assert_close(found[-1:], last.penultimate, rtol=0, atol=1e-5)


def test_tags_are_fifty_distinct_names_in_lower_case() -> None:
    for tagger in ("msd", "mtt"):
        names = tag_names(tagger)
        assert len(set(names)) == musicnn.N_TAGS
        assert [*names] == [name.lower() for name in names]


def test_other_shapes_and_sounds_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"log_mel must be \(B, T, 96\); found \(1, 187, 95\)"):
        load_musicnn("msd")(torch.zeros(1, 187, 95))
    with pytest.raises(DataError, match="at least one sample"):
        split_patches(np.zeros(0))
    with pytest.raises(DataError, match="NaN"):
        split_patches(np.full(10, np.nan))


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray((musicnn.WEIGHTS / "msd_musicnn.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "msd_musicnn.safetensors").write_bytes(data)
    monkeypatch.setattr(musicnn, "WEIGHTS", tmp_path)
    load_musicnn.cache_clear()
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_musicnn("msd")


@pytest.mark.parametrize("tagger", ["msd", "mtt"])
def test_the_peaks_over_the_spectrum_are_those_of_the_whole_image(tagger: Tagger) -> None:
    """Batch norm turns the order in half of the channels, which a wrong sign would show."""
    model = load_musicnn(tagger)
    image = torch.rand(2, 1, 187, 96, generator=torch.Generator().manual_seed(0)) * 4 - 1
    for conv in (model.timbral38, model.temporal32):
        assert (conv.bn.weight < 0).any()
        torch.testing.assert_close(conv.peaks(image), conv(image).amax(dim=3), rtol=0, atol=0)
