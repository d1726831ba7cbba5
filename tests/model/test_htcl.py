"""The whole model: vectors that padding, neighbours and processes leave alone, and folders that give it back."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from logmel import with_changes
from ponticello.config import Config, MelConfig
from ponticello.data.batch import pad_mels, tokenize
from ponticello.data.mel import log_mel, mel_of_file
from ponticello.data.synthetic import SyntheticCatalogue
from ponticello.errors import AudioError, CheckpointError, ConfigError, PonticelloError, ShapeError
from ponticello.model.audio_encoder import masked_mean
from ponticello.model.checksums import CHECKSUMS
from ponticello.model.htcl import HTCL, SCALES
from ponticello.model.htcl_config import HTCLConfig
from ponticello.model.space import SPACE_FILE

TOLERANCE = 1e-5
MIN_FRAMES = 17
TEXTS = [
    "slow dark piece by artist 7",
    "fast",
    "bright , high and steady",
    "low warm sounds from album 1 2 3",
    "fast .",
]
EMBED_DIM = 64  # of the tiny preset
ARCHITECTURE_CHANGES = [
    {"mel": {"hop_length": 512}},
    {"audio": {"n_layers": 3}},
    {"text": {"pooling": "pooler"}},
    {"heads": {"embed_dim": 32}},
]
IN_ANOTHER_PROCESS = """
import sys
import numpy as np
import torch
from ponticello.model.checksums import CHECKSUMS
from ponticello.model.htcl import HTCL
torch.set_num_threads(1)
folder, mels, vectors = sys.argv[1:]
with np.load(mels) as arrays:
    rows = [arrays[name] for name in arrays.files]
np.save(vectors, HTCL.from_pretrained(folder).encode_mels(rows[::-1], batch_size=3)[::-1])
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Inputs this small take longer on two threads, many times so where the cores are busy."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def config(text_encoder_folder: Path) -> Config:
    return Config.from_preset("tiny", with_changes(text={"name": str(text_encoder_folder)}, mel={"max_seconds": 10.0}))


def build(config: Config, seed: int = 0) -> HTCL:
    torch.manual_seed(seed)
    model = HTCL.from_settings(config)
    model.train(False)
    return model


@pytest.fixture(scope="module")
def model(config: Config) -> HTCL:
    """In eval mode. Read only."""
    return build(config)


@pytest.fixture
def fresh(config: Config) -> HTCL:
    """A model to be changed."""
    return build(config)


@pytest.fixture(scope="module")
def saved(model: HTCL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `model` was saved to. Read only."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The saved folder, to be damaged, without its hashes."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    (folder / CHECKSUMS).unlink()
    return folder


@pytest.fixture(scope="module")
def mels(config: Config) -> list[np.ndarray]:
    """32 log-mels from one frame to more than the most there can be, in no order."""
    rng = np.random.default_rng(0)
    lengths = [1, 5, MIN_FRAMES - 1, MIN_FRAMES, MIN_FRAMES + 1, config.mel.max_frames, config.mel.max_frames + 40]
    lengths += rng.integers(20, 100, 32 - len(lengths)).tolist()
    return [random_mel(n, seed) for seed, n in enumerate(rng.permutation(lengths))]


def random_mel(n_frames: int, seed: int) -> np.ndarray:
    """Bands of noise that come and go, float16 dB, within 80 dB."""
    rng = np.random.default_rng(seed)
    frames = np.cumsum(rng.normal(0, 2, (n_frames, 128)), axis=0) + rng.normal(0, 6, 128)
    return np.clip(frames - 40, -80, 0).astype(np.float16)


@pytest.fixture(scope="module")
def inputs(model: HTCL, mels: list[np.ndarray], config: Config) -> dict[str, Tensor]:
    mel, mask = pad_mels(mels[: len(TEXTS)], config.mel, MIN_FRAMES)
    return {"mel": mel, "padding_mask": mask, **tokenize(TEXTS, model.tokenizer, config.text.max_tokens)}


def assert_close(found: np.ndarray | Tensor, expected: np.ndarray | Tensor, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


def assert_same_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    assert set(left.state_dict()) == set(right.state_dict())
    for name, weight in left.state_dict().items():
        assert torch.equal(weight, right.state_dict()[name]), name


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# Padding and neighbours


def test_vectors_tell_the_tracks_apart(model: HTCL, mels: list[np.ndarray]) -> None:
    """What the agreements below are worth: no two of the 32 vectors are within a hundred times their tolerance."""
    vectors = model.encode_mels(mels)
    distances = np.abs(vectors[:, None] - vectors[None]).max(-1) + np.eye(len(mels))
    assert distances.min() > 100 * TOLERANCE


@torch.no_grad()
def test_longer_padding_leaves_embedding_unchanged(model: HTCL, mels: list[np.ndarray], config: Config) -> None:
    mel, mask = pad_mels(mels[:8], config.mel, MIN_FRAMES)
    expected = model.project_audio(mel, mask)
    for n_more in (1, 7, 150):
        longer = model.project_audio(F.pad(mel, (0, 0, 0, n_more)), F.pad(mask, (0, n_more), value=True))
        assert_close(longer, expected)


def test_track_alone_in_a_batch_and_in_another_process_is_one_vector(
    model: HTCL, mels: list[np.ndarray], saved: Path, tmp_path: Path
) -> None:
    together = model.encode_mels(mels, batch_size=32)
    alone = np.concatenate([model.encode_mels([mel]) for mel in mels])
    assert_close(alone, together)
    np.savez(tmp_path / "mels.npz", *mels)
    files = [str(saved), str(tmp_path / "mels.npz"), str(tmp_path / "vectors.npy")]
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, *files], check=True, timeout=120, capture_output=True)
    assert_close(np.load(tmp_path / "vectors.npy"), together)


def test_text_alone_and_in_a_batch_is_one_vector(model: HTCL) -> None:
    together = model.encode_text(TEXTS)
    assert_close(np.concatenate([model.encode_text([text]) for text in TEXTS]), together)


@pytest.mark.parametrize("n_frames", [1, MIN_FRAMES - 1, MIN_FRAMES])
def test_shortest_tracks_have_vectors(model: HTCL, n_frames: int) -> None:
    assert model.audio_encoder.min_frames == MIN_FRAMES
    (vector,) = model.encode_mels([random_mel(n_frames, 1)])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=TOLERANCE)


def test_short_track_equals_itself_filled_with_its_floor(model: HTCL, config: Config) -> None:
    mel = random_mel(MIN_FRAMES - 1, 1).astype(np.float32)
    filled = np.vstack([mel, np.full((1, 128), mel.max() - config.mel.top_db, dtype=np.float32)])
    assert_close(model.encode_mels([mel]), model.encode_mels([filled]))


def test_silent_track_has_a_finite_unit_vector(model: HTCL) -> None:
    (vector,) = model.encode_mels([np.full((50, 128), -100.0, dtype=np.float16)])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=TOLERANCE)


@torch.no_grad()
def test_released_padding_lets_padding_into_the_vector(config: Config, model: HTCL) -> None:
    """Padded to `max_frames`, normalised and pooled over it: the same sound has another vector where more fits."""
    released = {"released_padding": True}
    mel = random_mel(50, 3)
    vectors = []
    for max_seconds in (8.0, 10.0):  # 84 and 105 frames
        settings = config.model_copy(update={"mel": MelConfig(max_seconds=max_seconds, **released)})
        as_released = HTCL(HTCLConfig(settings.model_dump(mode="json"), model.config.text_config)).train(False)
        as_released.load_state_dict(model.state_dict())
        vectors.append(as_released.encode_mels([mel])[0])
        filled = np.vstack([mel, np.full((30, 128), mel.max() - 80, dtype=np.float16)])
        assert_close(as_released.encode_mels([filled])[0], vectors[-1])
        batch, mask = pad_mels([mel], settings.mel, MIN_FRAMES)
        by_hand = as_released.audio_head(as_released.audio_encoder(batch, mask)[0].mean(1))  # every token
        assert_close(F.normalize(by_hand, dim=-1)[0], vectors[-1])
    vectors.append(model.encode_mels([mel])[0])
    for row, vector in enumerate(vectors):
        for other in vectors[:row]:
            assert np.abs(vector - other).max() > 1e-3


@torch.no_grad()
def test_cls_token_counts_in_the_pooled_mean(model: HTCL, inputs: dict[str, Tensor]) -> None:
    tokens, mask = model.audio_encoder(inputs["mel"], inputs["padding_mask"])
    pooled = torch.stack([row[~padded].sum(0) / (~padded).sum() for row, padded in zip(tokens, mask, strict=True)])
    assert_close(model.project_audio(inputs["mel"], inputs["padding_mask"]), model.audio_head(pooled))
    without_cls = model.audio_head(masked_mean(tokens[:, 1:], mask[:, 1:]))
    assert (model.audio_head(pooled) - without_cls).abs().max() > 1e-3


# Crops


@pytest.fixture(scope="module")
def cropping(model: HTCL) -> HTCL:
    """`model` with a tower that hears 3 s at once: 32 frames."""
    audio = model.parts.audio.model_copy(update={"crop_seconds": 3.0})
    settings = model.parts.model_copy(update={"audio": audio}).model_dump(mode="json")
    cropping = HTCL(HTCLConfig(settings, model.config.text_config))
    cropping.train(False)
    cropping.load_state_dict(model.state_dict())
    assert cropping.crop_frames == 32
    return cropping


@torch.no_grad()
def test_long_track_is_the_mean_of_its_crops_each_heard_alone(cropping: HTCL, model: HTCL, config: Config) -> None:
    """80 frames: those from 0, 32 and 48 on. The track is normalised as a whole before it is cut."""
    mel, mask = pad_mels([random_mel(80, 5)], config.mel, MIN_FRAMES)
    parts = [model.project_audio(mel[:, start : start + 32], mask[:, start : start + 32]) for start in (0, 32, 48)]
    assert_close(cropping.project_audio(mel, mask), torch.stack(parts).mean(dim=0))
    assert (model.project_audio(mel, mask) - cropping.project_audio(mel, mask)).abs().max() > 1e-3


def test_tracks_no_longer_than_a_crop_are_heard_in_one_pass_beside_any_neighbours(
    cropping: HTCL, model: HTCL, mels: list[np.ndarray]
) -> None:
    together = cropping.encode_mels(mels, batch_size=32)
    short = [row for row, mel in enumerate(mels) if len(mel) <= 32]
    assert 5 < len(short) < len(mels)
    assert_close(together[short], model.encode_mels([mels[row] for row in short]))


def test_crops_of_neighbours_leave_a_vector_alone(cropping: HTCL, mels: list[np.ndarray]) -> None:
    together = cropping.encode_mels(mels, batch_size=32)
    assert_close(np.concatenate([cropping.encode_mels([mel]) for mel in mels]), together)
    assert_close(cropping.encode_mels(mels, batch_size=7), together)


def test_crop_length_is_saved_with_the_model(cropping: HTCL, mels: list[np.ndarray], tmp_path: Path) -> None:
    cropping.save_pretrained(tmp_path)
    again = HTCL.from_pretrained(tmp_path)
    assert again.crop_frames == 32
    np.testing.assert_array_equal(again.encode_mels(mels), cropping.encode_mels(mels))


def test_crop_that_the_convolutions_cannot_hear_is_refused(config: Config) -> None:
    audio = config.audio.model_copy(update={"crop_seconds": 1.5})
    with pytest.raises(ConfigError, match=r"audio\.crop_seconds 1\.5 makes 16 frames; the convolutions need 17"):
        build(config.model_copy(update={"audio": audio}))


# Encoding


def test_vectors_have_unit_length(model: HTCL, mels: list[np.ndarray]) -> None:
    for vectors, n in ((model.encode_mels(mels), len(mels)), (model.encode_text(TEXTS), len(TEXTS))):
        assert vectors.dtype == np.float32
        assert vectors.shape == (n, EMBED_DIM)
        assert_close(np.linalg.norm(vectors, axis=1), np.ones(n))


def test_order_is_kept_for_every_batch_size(model: HTCL, mels: list[np.ndarray]) -> None:
    audio, text = model.encode_mels(mels, batch_size=32), model.encode_text(TEXTS, batch_size=32)
    states = model.encode_text_states(TEXTS)
    for batch_size in (2, 7):
        assert_close(model.encode_mels(mels, batch_size), audio)
        assert_close(model.encode_text(TEXTS, batch_size), text)
        assert_close(model.encode_text_states(TEXTS, batch_size), states)
    assert_close(model.encode_mels(mels[7::-1]), audio[7::-1])
    assert_close(model.encode_text(TEXTS[::-1]), text[::-1])


def test_nothing_to_encode_gives_no_rows(model: HTCL) -> None:
    assert model.encode_audio([]).shape == (0, EMBED_DIM)
    assert model.encode_mels([]).shape == (0, EMBED_DIM)
    assert model.encode_text([]).shape == (0, EMBED_DIM)
    assert model.encode_text_states([]).shape == (0, 32)
    assert model.encode_known_text(np.empty((0, 32), dtype=np.float32)).shape == (0, EMBED_DIM)


def test_audio_file_is_the_mel_of_its_sound(
    model: HTCL, config: Config, catalogue: SyntheticCatalogue, tmp_path: Path
) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, catalogue.waveforms[0], 16_000, subtype="PCM_16")
    (from_path,) = model.encode_audio([path])
    np.testing.assert_array_equal(from_path, model.encode_mels([mel_of_file(path, config.mel)])[0])
    np.testing.assert_array_equal(from_path, model.encode_audio([str(path)])[0])


def test_waveform_is_heard_as_its_file_would_be(
    model: HTCL, config: Config, catalogue: SyntheticCatalogue, tmp_path: Path
) -> None:
    first, second = catalogue.waveforms[:2]
    soundfile.write(tmp_path / "sound.wav", first, 16_000, subtype="FLOAT")
    vectors = model.encode_audio([second, tmp_path / "sound.wav", first])
    assert_close(vectors[1], vectors[2])
    assert_close(vectors[0], model.encode_mels([log_mel(second, config.mel).astype(np.float16)])[0])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_encoding_does_not_change_the_training_mode(fresh: HTCL, mels: list[np.ndarray]) -> None:
    quiet = fresh.encode_mels(mels[:2]), fresh.encode_text(TEXTS)
    assert not any(module.training for module in fresh.modules())
    fresh.train()
    assert_close(fresh.encode_mels(mels[:2]), quiet[0])  # without dropout all the same
    assert_close(fresh.encode_text(TEXTS), quiet[1])
    assert all(module.training for module in fresh.modules())


def test_encoding_keeps_a_part_that_was_put_to_eval_in_eval(fresh: HTCL, mels: list[np.ndarray]) -> None:
    fresh.train()
    fresh.text_encoder.train(False)
    fresh.encode_mels(mels[:1])
    assert fresh.audio_encoder.training
    assert not fresh.text_encoder.training


def test_failed_encoding_does_not_change_the_training_mode(fresh: HTCL) -> None:
    fresh.train()
    with pytest.raises(ShapeError):
        fresh.encode_mels([np.zeros((20, 5), dtype=np.float16)])
    assert fresh.training


def test_text_head_follows_the_text_states(model: HTCL) -> None:
    states = torch.from_numpy(model.encode_text_states(TEXTS))
    assert states.shape == (len(TEXTS), 32)
    with torch.no_grad():
        assert_close(F.normalize(model.text_head(states), dim=-1), model.encode_text(TEXTS))
    for batch_size in (2, 512):
        assert_close(model.encode_known_text(states.numpy(), batch_size), model.encode_text(TEXTS))


def test_text_is_cut_to_max_tokens(model: HTCL, config: Config) -> None:
    """64 tokens are 62 words between the special ones; what follows is not read."""
    words = ["slow", "fast"] * 31
    full, longer = model.encode_text([" ".join(words), " ".join([*words, *["bright"] * 30])])
    assert config.text.max_tokens == 64
    assert_close(longer, full)


# Forward


@torch.no_grad()
def test_forward_with_text_states_equals_forward_with_tokens(model: HTCL, inputs: dict[str, Tensor]) -> None:
    with_tokens = model(**inputs)
    states = torch.from_numpy(model.encode_text_states(TEXTS))
    with_states = model(inputs["mel"], inputs["padding_mask"], text_states=states)
    assert_close(with_states.audio, with_tokens.audio)
    assert_close(with_states.text, with_tokens.text)
    assert_close(with_states.fused, with_tokens.fused)


@torch.no_grad()
def test_forward_gives_what_is_encoded_before_normalisation(model: HTCL, inputs: dict[str, Tensor]) -> None:
    embeddings = model(**inputs)
    assert_close(F.normalize(embeddings.text, dim=-1), model.encode_text(TEXTS))
    joined = torch.cat([embeddings.audio, embeddings.text], dim=-1)
    assert_close(embeddings.fused, model.fusion_head(joined))
    assert (embeddings.audio.norm(dim=-1) - 1).abs().min() > 1e-3
    assert {name: scale.item() for name, scale in embeddings.logit_scales.items()} == {
        name: pytest.approx(2.6) for name in SCALES
    }


def test_every_trainable_part_gets_a_gradient(fresh: HTCL, inputs: dict[str, Tensor]) -> None:
    embeddings = fresh(**inputs)
    total = embeddings.audio.sum() + embeddings.text.sum() + embeddings.fused.sum()
    (total * torch.stack(list(embeddings.logit_scales.values())).sum()).backward()
    silent = {name for name, weight in fresh.named_parameters() if weight.grad is None}
    assert silent == {"text_encoder.pooler.dense.weight", "text_encoder.pooler.dense.bias"}  # the mean does without it


def test_forward_without_texts_is_refused(model: HTCL, inputs: dict[str, Tensor]) -> None:
    for given in ({}, {"input_ids": inputs["input_ids"]}, {"attention_mask": inputs["attention_mask"]}):
        with pytest.raises(ShapeError, match="forward needs input_ids and attention_mask, or text_states"):
            model(inputs["mel"], inputs["padding_mask"], **given)


def test_bad_input_is_refused(model: HTCL, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"a log-mel must be \(frames, 128\) with at least one frame; found \(20, 5\)"):
        model.encode_mels([np.zeros((20, 5), dtype=np.float16)])
    with pytest.raises(ShapeError, match="a waveform must have one dimension"):
        model.encode_audio([np.zeros((2, 16_000), dtype=np.float32)])
    with pytest.raises(AudioError, match="there is no such file"):
        model.encode_audio([tmp_path / "none.wav"])


# Made from settings


def test_text_tower_is_the_pretrained_one(model: HTCL, text_encoder_folder: Path) -> None:
    assert_same_weights(model.text_encoder, AutoModel.from_pretrained(str(text_encoder_folder)))


def test_seed_decides_the_fresh_weights(config: Config, model: HTCL) -> None:
    assert_same_weights(build(config, seed=0), model)
    weights = [built.get_parameter("audio_head.linears.0.weight") for built in (model, build(config, seed=1))]
    assert not torch.equal(*weights)


def test_layers_of_the_finished_model_have_different_weights(model: HTCL) -> None:
    first, second = model.audio_encoder.layers
    for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"):
        assert not torch.equal(first.get_parameter(name), second.get_parameter(name)), name


def test_model_without_a_tokenizer_says_so(fresh: HTCL, mels: list[np.ndarray]) -> None:
    fresh.tokenizer = None
    assert len(fresh.encode_mels(mels[:1])) == 1
    for encode in (fresh.encode_text, fresh.encode_text_states):
        with pytest.raises(CheckpointError, match="this model has no tokenizer; save one beside it"):
            encode(["slow"])


# Folders


def test_saved_model_comes_back_bit_for_bit(model: HTCL, saved: Path, mels: list[np.ndarray]) -> None:
    loaded = HTCL.from_pretrained(saved)
    assert_same_weights(loaded, model)
    assert loaded.parts == model.parts
    assert not loaded.training
    assert loaded.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    np.testing.assert_array_equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))
    np.testing.assert_array_equal(loaded.encode_mels(mels[:4]), model.encode_mels(mels[:4]))


def test_saving_what_was_loaded_writes_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    HTCL.from_pretrained(str(saved)).save_pretrained(str(tmp_path))
    names = {path.name for path in saved.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes(), name


def test_auto_model_loads_it(model: HTCL, saved: Path) -> None:
    loaded = AutoModel.from_pretrained(str(saved))
    assert isinstance(loaded, HTCL)
    assert_same_weights(loaded, model)


def test_folder_is_complete_and_holds_no_pickle(saved: Path) -> None:
    names = {path.name for path in saved.rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {name for name in names if not name.endswith((".json", ".safetensors", ".txt"))} == set()


def test_folder_needs_nothing_else(saved: Path, config: Config, tmp_path: Path, model: HTCL) -> None:
    """The text encoder it was made from may be gone: its name is kept, its folder is not read again."""
    moved = shutil.copytree(saved, tmp_path / "moved")
    (moved / CHECKSUMS).unlink()
    gone = str(tmp_path / "gone")
    change_json(moved / "config.json", lambda content: content["settings"]["text"].update(name=gone))
    loaded = HTCL.from_pretrained(moved)
    assert loaded.parts.text.name == gone != config.text.name
    np.testing.assert_array_equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))


def test_model_without_a_tokenizer_loads_without_one(fresh: HTCL, tmp_path: Path) -> None:
    fresh.tokenizer = None
    fresh.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        CHECKSUMS,
        SPACE_FILE,
    ]
    assert HTCL.from_pretrained(tmp_path).tokenizer is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_is_not_saved(fresh: HTCL, tmp_path: Path, value: float) -> None:
    with torch.no_grad():
        fresh.get_parameter("audio_head.linears.0.bias")[3] = value
    with pytest.raises(CheckpointError, match=r"weight audio_head\.linears\.0\.bias is not finite: nothing was saved"):
        fresh.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"holds no model \(config\.json is missing\); train one, or check"):
            HTCL.from_pretrained(place)


def test_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*model\.safetensors"):
        HTCL.from_pretrained(copy)


def test_damaged_weights_are_refused_by_their_hash(saved: Path, tmp_path: Path) -> None:
    """One byte near the end, which is a weight's."""
    damaged = Path(shutil.copytree(saved, tmp_path / "model"))
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (damaged / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was saved \(sha256\.json\)"):
        HTCL.from_pretrained(damaged)


def test_pickled_weights_are_not_read(copy: Path, model: HTCL) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


@pytest.mark.parametrize("n_bytes", [0, 100, -100])
def test_truncated_weights_are_refused(copy: Path, n_bytes: int) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:n_bytes])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


def test_weights_that_lack_a_tensor_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["audio_head.linears.0.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"audio_head\.linears\.0\.weight"):
        HTCL.from_pretrained(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["audio_head.linears.0.weight"] = torch.zeros(2, 2)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


@pytest.mark.parametrize("content", ['{"model_type": ', "[" * 100_000])
def test_broken_configuration_is_refused(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


def test_unknown_setting_in_a_folder_is_refused(copy: Path) -> None:
    change_json(copy / "config.json", lambda content: content["settings"]["mel"].update(bogus=1))
    with pytest.raises((CheckpointError, ConfigError), match="bogus"):
        HTCL.from_pretrained(copy)


def test_broken_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(PonticelloError):
        HTCL.from_pretrained(copy)


def test_folder_of_another_kind_of_model_is_refused(text_encoder_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="bert"):
        HTCL.from_pretrained(text_encoder_folder)


# Between the stages


def test_new_training_settings_are_taken_over_and_saved(fresh: HTCL, config: Config, tmp_path: Path) -> None:
    changed = config.model_copy(update={"preference": config.preference.model_copy(update={"epochs": 77.0})})
    fresh.use_settings(changed)
    assert fresh.parts.preference.epochs == 77
    fresh.save_pretrained(tmp_path)
    assert HTCL.from_pretrained(tmp_path).parts == changed


@pytest.mark.parametrize("change", ARCHITECTURE_CHANGES, ids=["mel", "audio", "text", "heads"])
def test_settings_of_another_model_are_refused(fresh: HTCL, config: Config, change: dict[str, Any]) -> None:
    (part,) = change
    other = getattr(config, part).model_copy(update=change[part])
    with pytest.raises(CheckpointError, match=rf"the model was made with \[{part}\] .*; the settings now say "):
        fresh.use_settings(config.model_copy(update={part: other}))
    assert fresh.parts == config
    assert fresh.config.settings == config.model_dump(mode="json")


def test_reset_heads_leaves_the_towers_alone(fresh: HTCL, model: HTCL) -> None:
    with torch.no_grad():
        for scale in fresh.logit_scales.values():
            scale.fill_(4.0)
    torch.manual_seed(99)
    fresh.reset_heads()
    assert_same_weights(fresh.audio_encoder, model.audio_encoder)
    assert_same_weights(fresh.text_encoder, model.text_encoder)
    for name in ("audio_head", "text_head", "fusion_head"):
        before, after = model.get_submodule(name).state_dict(), fresh.get_submodule(name).state_dict()
        assert set(before) == set(after)
        for key, weight in before.items():
            assert not torch.equal(weight, after[key]), f"{name}.{key}"
            n_in = before[key.replace("bias", "weight")].shape[1]
            assert after[key].abs().max() <= n_in**-0.5  # PyTorch draws from +-1 / sqrt(inputs)
    assert {name: scale.item() for name, scale in fresh.logit_scales.items()} == {
        name: pytest.approx(2.6) for name in SCALES
    }
    assert all(weight.requires_grad for weight in fresh.parameters())


def test_fresh_scales_are_those_of_the_settings(config: Config) -> None:
    settings = config.model_copy(update={"heads": config.heads.model_copy(update={"logit_scale": 1.5})})
    assert {name: scale.item() for name, scale in build(settings).logit_scales.items()} == dict.fromkeys(SCALES, 1.5)
