"""The starter model that comes with the package: where words lie among what MusiCNN hears, before
any training.

`bench/starter.py` makes it, `weights/starter.md` says from what and what it is worth. The file
holds what `small` and `tiny` would learn in stage one and no more: what frames are standardised by,
their axes, the text head and its scale. The taggers lie beside it and the text encoder, MiniLM, is
the machine's own.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from ponticello.config import Config, TextEncoderConfig
from ponticello.errors import CheckpointError
from ponticello.model.htcl import HTCL

FILE = Path(__file__).parent / "weights" / "starter.safetensors"
SHA256 = "ad549c7e4e123abc437a2cc9ba3b53c1666f0d778f25fde5cc5ef3ec995e1efe"
N_TRACKS = 565  # it was made from
PARTS = (
    "audio_encoder.",
    "audio_head.axes",
    "text_head.",
    "logit_scales.audio_text",
)  # of an HTCL's state
_AS_IT_IS = Config.from_preset("small")  # its heads and its text encoder


@lru_cache(maxsize=1)
def starter_weights() -> dict[str, Tensor]:
    """The parts of an HTCL's state that the starter knows, float32; CheckpointError if its file is
    not as published.
    """
    data = FILE.read_bytes() if FILE.is_file() else b""
    found = hashlib.sha256(data).hexdigest() if data else "missing"
    if found != SHA256:
        raise CheckpointError(
            f"{FILE} is not the starter model of this version (sha256 {found}); reinstall ponticello"
        )
    return {name: weight.float() for name, weight in load(data).items()}


def starter_fits(config: Config) -> bool:
    """Whether a model with these settings has the starter's layout, so that training can start from
    it.
    """
    text = config.text.model_dump(include={"name", "pooling"})
    return (
        config.front_end == "musicnn"
        and text == _AS_IT_IS.text.model_dump(include={"name", "pooling"})
        and config.heads.hidden_sizes == _AS_IT_IS.heads.hidden_sizes
        and config.heads.embed_dim == _AS_IT_IS.heads.embed_dim
        and config.heads.preference_dim == _AS_IT_IS.heads.preference_dim
    )


def load_starter_weights(model: HTCL) -> None:
    """Puts the starter's weights into a model of its layout; the rest of it stays as it is."""
    found = model.load_state_dict(starter_weights(), strict=False)
    assert not found.unexpected_keys
    assert not any(name.startswith(PARTS) for name in found.missing_keys)


def starter_settings(config: Config) -> Config:
    """A library's settings with the starter's front end, heads and text encoder."""
    text = TextEncoderConfig(name="minilm", trainable=False, max_tokens=config.text.max_tokens)
    heads = config.heads if starter_fits(config) else _AS_IT_IS.heads
    return config.model_copy(update={"front_end": "musicnn", "text": text, "heads": heads})


def build_starter(config: Config) -> HTCL:
    """The starter as a whole model, in eval mode, for a library with these settings; always the
    same weights.

    What it does not know, how a text bends a fused vector, begins at nothing, as in any model
    before stage two. CheckpointError if MiniLM is not on this machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = HTCL.from_settings(starter_settings(config))
    load_starter_weights(model)
    model.train(False)
    return model
