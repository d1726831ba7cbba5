"""The starter model in the package: words among MusiCNN's features, before any training.

`bench/starter.py` makes it; `weights/starter.md` lists its sources and figures. The file holds what
stage one of `small` and `tiny` learns: the standardisation of features, their axes, the directions
of the taggers' tags, the text head and its scale. The taggers are in the package too; the text
encoder, MiniLM, is installed apart.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from ponticello.config import Config, TextEncoderConfig
from ponticello.errors import CheckpointError
from ponticello.features.musicnn_frontend import tagger_tags
from ponticello.model.htcl import HTCL

FILE = Path(__file__).parent / "weights" / "starter.safetensors"
SHA256 = "cf462887b589c547681d9059c0adb07184b9d461593155471462bfd95fa72d68"
N_TRACKS = 565  # that it was trained on
# Prefixes of the weights it holds.
PREFIXES = (
    "audio_encoder.",
    "audio_head.axes",
    "text_head.",
    "logit_scales.audio_text",
    "semantic_space.",
)
VOCABULARY = "semantic_space.tag_"  # a model with other tags keeps its own
_TRAINED_WITH = Config.from_preset("small")


@lru_cache(maxsize=1)
def starter_weights() -> dict[str, Tensor]:
    """Returns the starter's weights, float32; CheckpointError if its file was changed."""
    data = FILE.read_bytes() if FILE.is_file() else b""
    sha256 = hashlib.sha256(data).hexdigest() if data else "missing"
    if sha256 != SHA256:
        raise CheckpointError(
            f"{FILE} is not the starter model of this version (sha256 {sha256}); "
            "reinstall ponticello"
        )
    return {name: weight.float() for name, weight in load(data).items()}


def starter_fits(config: Config) -> bool:
    """Returns whether a model with these settings has the starter's layout."""
    trained_with = _TRAINED_WITH
    return (
        config.front_end == "musicnn"
        and config.text.name == trained_with.text.name
        and config.text.pooling == trained_with.text.pooling
        and config.heads.hidden_sizes == trained_with.heads.hidden_sizes
        and config.heads.embed_dim == trained_with.heads.embed_dim
    )


def load_starter_weights(model: HTCL) -> None:
    """Copies the starter's weights into a model of its layout; the other weights stay.

    The directions of the tags are copied only if the model has the starter's vocabulary.
    """
    weights = dict(starter_weights())
    if model.config.vocabulary != tagger_tags():
        weights = {key: weight for key, weight in weights.items() if not key.startswith(VOCABULARY)}
    result = model.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert not any(
        name.startswith(PREFIXES) and not name.startswith(VOCABULARY)
        for name in result.missing_keys
    )


def starter_settings(config: Config) -> Config:
    """Returns a library's settings with the starter's front end, heads and text encoder."""
    text = TextEncoderConfig(name="minilm", trainable=False, max_tokens=config.text.max_tokens)
    heads = config.heads if starter_fits(config) else _TRAINED_WITH.heads
    return config.model_copy(update={"front_end": "musicnn", "text": text, "heads": heads})


def build_starter(config: Config) -> HTCL:
    """Returns the starter as a complete model in eval mode; always the same weights.

    Raises CheckpointError if MiniLM is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = HTCL.from_settings(starter_settings(config), vocabulary=tagger_tags())
    load_starter_weights(model)
    model.train(False)
    return model
