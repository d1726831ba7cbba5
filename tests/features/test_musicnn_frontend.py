"""MusiCNN's frames: what they hold, and that neither level nor a silence before the music moves
them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ponticello.audio.decode import load_audio
from ponticello.features.musicnn import N_TAGS, musicnn_forward, split_patches, tag_names
from ponticello.features.musicnn_frontend import (
    FRAME_SIZE,
    TAGGER_SIZE,
    extract_raw,
    musicnn_features,
    normalize_loudness,
    rank_tags,
    tagger_scores,
    tagger_tags,
    trim_leading_silence,
    waveform_features,
)

MUSIC = Path(__file__).parents[2] / "demo/audio/zaz-mus1.opus"
RATE = 16_000


def test_frames_hold_what_both_taggers_hear() -> None:
    frames = musicnn_features(MUSIC, 7.0)  # two whole patches
    assert frames.shape == (2, FRAME_SIZE)
    assert frames.dtype == np.float16
    sound = trim_leading_silence(load_audio(MUSIC, RATE, 12.0))[: 7 * RATE]
    np.testing.assert_array_equal(frames, extract_raw(normalize_loudness(sound)))
    heard = musicnn_forward(split_patches(normalize_loudness(sound)), "mtt")
    penultimate = frames[:, TAGGER_SIZE : FRAME_SIZE - N_TAGS]
    np.testing.assert_allclose(penultimate, heard.penultimate.numpy(), rtol=1e-3, atol=1e-3)
    taggram = frames[:, FRAME_SIZE - N_TAGS :]
    np.testing.assert_allclose(taggram, heard.taggram.numpy(), rtol=1e-3, atol=1e-4)
    assert "electronic" in rank_tags(frames)


def test_a_tag_that_both_taggers_have_gets_the_mean_of_their_standard_scores() -> None:
    """Two tracks: `jazz` of one tagger scores 1 and -1; of `rock` one scores 1 and -1, the other
    the same for both tracks.
    """
    means = np.full((2, FRAME_SIZE), 0.5)
    first_taggram = TAGGER_SIZE - N_TAGS
    for tag in ("jazz", "rock"):
        means[:, first_taggram + tag_names("msd").index(tag)] = (0.9, 0.1)
    scores = tagger_scores(means)
    tags = tagger_tags()
    assert scores.shape == (2, len(tags))
    assert scores[:, tags.index("jazz")].tolist() == pytest.approx([1, -1])
    assert scores[:, tags.index("rock")].tolist() == pytest.approx([0.5, -0.5])
    assert not np.delete(scores, [tags.index("jazz"), tags.index("rock")], axis=1).any()


def test_another_level_and_a_silence_before_the_music_are_not_heard() -> None:
    sound = load_audio(MUSIC, RATE, 7.0)
    frames = waveform_features(sound, 6.0)
    np.testing.assert_allclose(waveform_features(0.25 * sound, 6.0), frames, atol=2e-3)
    np.testing.assert_array_equal(
        waveform_features(np.concatenate([np.zeros(19_200, np.float32), sound]), 6.0), frames
    )
    assert np.abs(extract_raw(0.25 * sound[: 6 * RATE]) - frames).max() > 0.1


def test_a_lead_in_of_a_long_file_costs_none_of_its_music(tmp_path: Path) -> None:
    sound = load_audio(MUSIC, RATE, 9.0)
    soundfile.write(tmp_path / "plain.wav", sound, RATE, subtype="FLOAT")
    before = np.zeros(int(1.2 * RATE), np.float32)
    soundfile.write(tmp_path / "later.wav", np.concatenate([before, sound]), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(
        musicnn_features(tmp_path / "later.wav", 6.0), musicnn_features(tmp_path / "plain.wav", 6.0)
    )


def test_leaving_the_lead_in_out_gives_the_sound_back() -> None:
    """-60 dB of a peak of 1 is 0.001: what is fainter before the first louder sample goes, what
    comes after stays.
    """
    sound = np.array([1.0, 0.0, 0.0005, -0.5], dtype=np.float32)
    before = np.array([0.0, 0.0005, -0.0009], dtype=np.float32)
    np.testing.assert_array_equal(trim_leading_silence(np.concatenate([before, sound])), sound)


def test_every_level_becomes_minus_twenty_db() -> None:
    """The RMS of a sine is its amplitude over the root of 2; -20 dB is 0.1."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    for gain in (0.01, 1.0, 1.9):
        level = normalize_loudness(gain * tone)
        assert np.sqrt(np.mean(level.astype(np.float64) ** 2)) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("change", [trim_leading_silence, normalize_loudness])
def test_silence_stays_as_it_is(change: Callable[[np.ndarray], np.ndarray]) -> None:
    silence = np.zeros(5, dtype=np.float32)
    np.testing.assert_array_equal(change(silence), silence)


def test_frames_of_silence_are_finite() -> None:
    assert np.isfinite(waveform_features(np.zeros(4 * RATE, np.float32), 4.0)).all()
