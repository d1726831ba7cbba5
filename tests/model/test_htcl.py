"""The whole model: vectors that padding, neighbours, crops and processes leave alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ponticello.config import Config, MelConfig
from ponticello.errors import ConfigError
from ponticello.model.audio_encoder import masked_mean
from ponticello.model.batching import pad_features
from ponticello.model.htcl import HTCL, HTCLConfig
from ponticello.model.text_encoder import tokenize
from tests.small_htcl import (
    MIN_FRAMES,
    TEXTS,
    TOLERANCE,
    assert_close,
    build,
    mels_of_any_length,
    random_mel,
    small_config,
)

IN_ANOTHER_PROCESS = """
import sys
import numpy as np
import torch
from ponticello.model.saving import CHECKSUMS
from ponticello.model.htcl import HTCL
torch.set_num_threads(1)
folder, mels, vectors = sys.argv[1:]
with np.load(mels) as arrays:
    rows = [arrays[name] for name in arrays.files]
np.save(vectors, HTCL.from_pretrained(folder).encode_features(rows[::-1], batch_size=3)[::-1])
"""


@pytest.fixture(scope="module")
def config(text_encoder_folder: Path) -> Config:
    return small_config(text_encoder_folder)


@pytest.fixture(scope="module")
def model(config: Config) -> HTCL:
    """In eval mode. Read only."""
    return build(config)


@pytest.fixture
def fresh(config: Config) -> HTCL:
    """A model to be changed."""
    return build(config)


@pytest.fixture(scope="module")
def mels(config: Config) -> list[np.ndarray]:
    return mels_of_any_length(config)


@pytest.fixture(scope="module")
def inputs(model: HTCL, mels: list[np.ndarray], config: Config) -> dict[str, Tensor]:
    mel, mask = pad_features(mels[: len(TEXTS)], config.mel, MIN_FRAMES)
    return {
        "features": mel,
        "padding_mask": mask,
        **tokenize(TEXTS, model.tokenizer, config.text.max_tokens),
    }


# Padding and neighbours


def test_vectors_tell_the_tracks_apart(model: HTCL, mels: list[np.ndarray]) -> None:
    """What the agreements below are worth: no two of the 32 vectors are within a hundred times
    their tolerance.
    """
    vectors = model.encode_features(mels)
    distances = np.abs(vectors[:, None] - vectors[None]).max(-1) + np.eye(len(mels))
    assert distances.min() > 100 * TOLERANCE


@torch.no_grad()
def test_longer_padding_leaves_embedding_unchanged(
    model: HTCL, mels: list[np.ndarray], config: Config
) -> None:
    mel, mask = pad_features(mels[:8], config.mel, MIN_FRAMES)
    expected = model.project_audio(mel, mask)
    for n_more in (1, 7, 150):
        longer = model.project_audio(
            F.pad(mel, (0, 0, 0, n_more)), F.pad(mask, (0, n_more), value=True)
        )
        assert_close(longer, expected)


def test_track_alone_in_a_batch_and_in_another_process_is_one_vector(
    model: HTCL, mels: list[np.ndarray], tmp_path: Path
) -> None:
    together = model.encode_features(mels, batch_size=32)
    alone = np.concatenate([model.encode_features([mel]) for mel in mels])
    assert_close(alone, together)
    model.save_pretrained(tmp_path / "model")
    np.savez(tmp_path / "mels.npz", *mels)
    files = [str(tmp_path / "model"), str(tmp_path / "mels.npz"), str(tmp_path / "vectors.npy")]
    subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, *files],
        check=True,
        timeout=120,
        capture_output=True,
    )
    assert_close(np.load(tmp_path / "vectors.npy"), together)


def test_text_alone_and_in_a_batch_is_one_vector(model: HTCL) -> None:
    together = model.encode_text(TEXTS)
    assert_close(np.concatenate([model.encode_text([text]) for text in TEXTS]), together)


@pytest.mark.parametrize("n_frames", [1, MIN_FRAMES - 1, MIN_FRAMES])
def test_shortest_tracks_have_vectors(model: HTCL, n_frames: int) -> None:
    assert model.audio_encoder.min_frames == MIN_FRAMES
    (vector,) = model.encode_features([random_mel(n_frames, 1)])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=TOLERANCE)


def test_short_track_equals_itself_filled_with_its_floor(model: HTCL, config: Config) -> None:
    mel = random_mel(MIN_FRAMES - 1, 1).astype(np.float32)
    filled = np.vstack([mel, np.full((1, 128), mel.max() - config.mel.top_db, dtype=np.float32)])
    assert_close(model.encode_features([mel]), model.encode_features([filled]))


def test_silent_track_has_a_finite_unit_vector(model: HTCL) -> None:
    (vector,) = model.encode_features([np.full((50, 128), -100.0, dtype=np.float16)])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=TOLERANCE)


@torch.no_grad()
def test_released_padding_lets_padding_into_the_vector(config: Config, model: HTCL) -> None:
    """Padded to `max_frames`, normalised and pooled over it: the same sound has another vector
    where more fits.
    """
    released = {"released_padding": True}
    mel = random_mel(50, 3)
    vectors = []
    for max_seconds in (8.0, 10.0):  # 84 and 105 frames
        settings = config.model_copy(update={"mel": MelConfig(max_seconds=max_seconds, **released)})
        as_released = HTCL(
            HTCLConfig(settings.model_dump(mode="json"), model.config.text_config)
        ).train(False)
        as_released.load_state_dict(model.state_dict())
        vectors.append(as_released.encode_features([mel])[0])
        filled = np.vstack([mel, np.full((30, 128), mel.max() - 80, dtype=np.float16)])
        assert_close(as_released.encode_features([filled])[0], vectors[-1])
        batch, mask = pad_features([mel], settings.mel, MIN_FRAMES)
        by_hand = as_released.audio_head(
            as_released.audio_encoder(batch, mask)[0].mean(1)
        )  # every token
        assert_close(F.normalize(by_hand, dim=-1)[0], vectors[-1])
    vectors.append(model.encode_features([mel])[0])
    for row, vector in enumerate(vectors):
        for other in vectors[:row]:
            assert np.abs(vector - other).max() > 1e-3


@torch.no_grad()
def test_cls_token_counts_in_the_pooled_mean(model: HTCL, inputs: dict[str, Tensor]) -> None:
    tokens, mask = model.audio_encoder(inputs["features"], inputs["padding_mask"])
    pooled = torch.stack(
        [row[~padded].sum(0) / (~padded).sum() for row, padded in zip(tokens, mask, strict=True)]
    )
    assert_close(
        model.project_audio(inputs["features"], inputs["padding_mask"]), model.audio_head(pooled)
    )
    without_cls = model.audio_head(masked_mean(tokens[:, 1:], mask[:, 1:]))
    assert (model.audio_head(pooled) - without_cls).abs().max() > 1e-3


# Crops


@pytest.fixture(scope="module")
def cropping(model: HTCL) -> HTCL:
    """`model` with a tower that hears 3 s at once: 32 frames."""
    audio = model.settings.audio.model_copy(update={"crop_seconds": 3.0})
    settings = model.settings.model_copy(update={"audio": audio}).model_dump(mode="json")
    cropping = HTCL(HTCLConfig(settings, model.config.text_config))
    cropping.train(False)
    cropping.load_state_dict(model.state_dict())
    assert cropping.crop_frames == 32
    return cropping


@torch.no_grad()
def test_long_track_is_the_mean_of_its_crops_each_heard_alone(
    cropping: HTCL, model: HTCL, config: Config
) -> None:
    """80 frames: those from 0, 32 and 48 on. The track is normalised before it is cut."""
    mel, mask = pad_features([random_mel(80, 5)], config.mel, MIN_FRAMES)
    parts = [
        model.project_audio(mel[:, start : start + 32], mask[:, start : start + 32])
        for start in (0, 32, 48)
    ]
    assert_close(cropping.project_audio(mel, mask), torch.stack(parts).mean(dim=0))
    assert (model.project_audio(mel, mask) - cropping.project_audio(mel, mask)).abs().max() > 1e-3


def test_tracks_no_longer_than_a_crop_are_heard_in_one_pass_beside_any_neighbours(
    cropping: HTCL, model: HTCL, mels: list[np.ndarray]
) -> None:
    together = cropping.encode_features(mels, batch_size=32)
    short = [row for row, mel in enumerate(mels) if len(mel) <= 32]
    assert 5 < len(short) < len(mels)
    assert_close(together[short], model.encode_features([mels[row] for row in short]))


def test_crops_of_neighbours_leave_a_vector_alone(cropping: HTCL, mels: list[np.ndarray]) -> None:
    together = cropping.encode_features(mels, batch_size=32)
    assert_close(np.concatenate([cropping.encode_features([mel]) for mel in mels]), together)
    assert_close(cropping.encode_features(mels, batch_size=7), together)


def test_crop_length_is_saved_with_the_model(
    cropping: HTCL, mels: list[np.ndarray], tmp_path: Path
) -> None:
    cropping.save_pretrained(tmp_path)
    again = HTCL.from_pretrained(tmp_path)
    assert again.crop_frames == 32
    np.testing.assert_array_equal(again.encode_features(mels), cropping.encode_features(mels))


def test_crop_that_the_convolutions_cannot_hear_is_refused(config: Config) -> None:
    audio = config.audio.model_copy(update={"crop_seconds": 1.5})
    with pytest.raises(
        ConfigError, match=r"audio\.crop_seconds 1\.5 makes 16 frames; the convolutions need 17"
    ):
        build(config.model_copy(update={"audio": audio}))
