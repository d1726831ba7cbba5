"""Imports the weights that the paper's authors released.

Source: names and shapes of the released state dicts (stage one, stage two, or a bare audio
encoder).
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig

from ponticello.config import Config, TextEncoderConfig
from ponticello.errors import CheckpointError
from ponticello.model.htcl import HTCL, HTCLConfig
from ponticello.model.text_encoder import check_vocabulary, load_text_encoder

RENAMES = (  # released name -> ours, tried in order
    (r"^audio_model\.feature_extractor\.layers\.(\d+)\.1\.", r"audio_encoder.convs.\1.conv."),
    (r"^audio_model\.feature_extractor\.layers\.(\d+)\.3\.", r"audio_encoder.convs.\1.norm."),
    (r"^audio_model\.feature_projection\.layer_norm\.", "audio_encoder.projection_norm."),
    (r"^audio_model\.feature_projection\.projection\.", "audio_encoder.projection."),
    (r"^audio_model\.pos_conv_embed\.layer_norm\.", "audio_encoder.positions.norm."),
    (r"^audio_model\.pos_conv_embed\.conv\.", "audio_encoder.positions.conv."),
    (r"^audio_model\.transformer_encoder\.layers\.", "audio_encoder.layers."),
    (r"^audio_model\.layer_norm\.", "audio_encoder.norm."),
    (r"^audio_model\.cls_token$", "audio_encoder.cls_token"),
    (r"^text_model\.", "text_encoder."),
    (r"^(audio|text|fusion)_mlp\.0\.", r"\1_head.linears.0."),
    (r"^(audio|text|fusion)_mlp\.3\.", r"\1_head.linears.1."),
    (r"^(audio|text|fusion)_mlp\.6\.", r"\1_head.linears.2."),
    (r"^tau(?:_1)?$", "logit_scales.audio_text"),
    (r"^tau_2$", "logit_scales.audio_audio"),
    (r"^tau_3$", "logit_scales.audio_fusion"),
)


def import_released(
    path: Path,
    *,
    n_heads: int = 12,
    text_heads: int = 12,
    tokenizer: str | None = None,
    allow_download: bool = False,
) -> tuple[HTCL, list[str]]:
    """Returns a model with the released weights, and the parts that are not in the file.

    Those parts keep fresh weights. tokenizer: a local folder or hub name; None leaves the model
    without one.
    Raises CheckpointError if the file does not have the released layout, a tensor has the wrong
    shape, or the tokenizer does not fit the text encoder.
    """
    weights = rename_released(read_weights(path))
    try:
        model = HTCL(released_config(weights, n_heads, text_heads))
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except (RuntimeError, LookupError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"{path} does not fit the released layout: {str(error).splitlines()[-1]}"
        ) from None
    if unexpected:
        raise CheckpointError(
            f"{path} holds tensors the layout does not have: {', '.join(unexpected[:5])}"
        )
    fresh = sorted({name.split(".")[0] for name in missing if not name.endswith("position_ids")})
    if "audio_encoder" in fresh or "text_encoder" in fresh:
        raise CheckpointError(f"{path} lacks tensors of its towers: {', '.join(missing[:5])}")
    if tokenizer:
        _, model.tokenizer = load_text_encoder(tokenizer, allow_download)
        check_vocabulary(model.tokenizer, model.text_encoder, tokenizer)
    model.train(False)
    return model, fresh


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a .safetensors file, or a .pth file in a child process."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read as plain weights: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        converted = str(Path(folder) / "weights.safetensors")
        command = [sys.executable, "-P", "-m", "ponticello.model.pickled", str(path), converted]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines() or ["no reason given"]
            raise CheckpointError(f"{path} cannot be read as plain weights: {lines[-1]}")
        return load_file(converted)


def rename_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns `weights` under our names; CheckpointError for a name of another layout."""
    # DDP puts "module." in front of each name.
    by_name = {name.removeprefix("module."): weight for name, weight in weights.items()}
    has_towers = any(name.startswith("audio_model.") for name in by_name)
    renamed = {}
    for name, weight in by_name.items():
        if name.endswith("embeddings.position_ids"):
            continue  # a buffer that older transformers saved: 0, 1, 2, ...
        renamed[_our_name(name if has_towers else f"audio_model.{name}", name)] = weight
    return renamed


def _our_name(released_name: str, shown: str) -> str:
    for pattern, replacement in RENAMES:
        name, n_matches = re.subn(pattern, replacement, released_name)
        if n_matches:
            return name
    raise CheckpointError(
        f"weight {shown!r} is not part of the released layout; is this an HTCL file?"
    )


def released_config(weights: Mapping[str, Tensor], n_heads: int, text_heads: int) -> HTCLConfig:
    """Returns the configuration, on the preset `paper`, that `weights` (under our names) fit.

    n_heads, text_heads: attention heads, which no shape shows; the released model has 12 and 12.
    """
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    convs: list[tuple[int, ...]] = []
    while f"audio_encoder.convs.{len(convs)}.conv.weight" in shapes:
        convs.append(shapes[f"audio_encoder.convs.{len(convs)}.conv.weight"])
    hidden_size = shapes["audio_encoder.cls_token"][-1]
    positions = shapes["audio_encoder.positions.conv.parametrizations.weight.original1"]
    audio = {
        "conv_channels": [conv[0] for conv in convs],
        "conv_kernels": [conv[2] for conv in convs],
        "conv_strides": [2] * len(convs),
        "hidden_size": hidden_size,
        "n_layers": _count_layers(shapes, "audio_encoder.layers"),
        "n_heads": n_heads,
        "ffn_size": shapes["audio_encoder.layers.0.linear1.weight"][0],
        "position_kernel": positions[2],
        "position_groups": hidden_size // positions[1],
    }
    heads: dict[str, Any] = {}
    if "audio_head.linears.2.weight" in shapes:
        sizes = [shapes[f"audio_head.linears.{layer}.weight"][0] for layer in range(3)]
        heads = {"hidden_sizes": sizes[:2], "embed_dim": sizes[2]}
    if "fusion_head.linears.2.weight" in shapes:
        sizes = [shapes[f"fusion_head.linears.{layer}.weight"][0] for layer in range(2)]
        heads["fusion_hidden_sizes"] = sizes
    bert = _text_config(shapes, text_heads)
    max_tokens = min(TextEncoderConfig().max_tokens, bert.max_position_embeddings)
    changes = {
        "mel": {"n_mels": convs[0][1]},
        "audio": audio,
        "text": {"max_tokens": max_tokens},
        "heads": heads,
    }
    return HTCLConfig(Config.from_preset("paper", changes).model_dump(mode="json"), bert.to_dict())


def _count_layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    n_layers = 0
    while any(name.startswith(f"{prefix}.{n_layers}.") for name in shapes):
        n_layers += 1
    return n_layers


def _text_config(shapes: Mapping[str, tuple[int, ...]], n_heads: int) -> BertConfig:
    words = shapes.get("text_encoder.embeddings.word_embeddings.weight")
    if words is None:
        raise CheckpointError(
            "the file has no text encoder: give the stage-one or stage-two file of both towers"
        )
    return BertConfig(
        vocab_size=words[0],
        hidden_size=words[1],
        num_hidden_layers=_count_layers(shapes, "text_encoder.encoder.layer"),
        num_attention_heads=n_heads,
        intermediate_size=shapes["text_encoder.encoder.layer.0.intermediate.dense.weight"][0],
        max_position_embeddings=shapes["text_encoder.embeddings.position_embeddings.weight"][0],
    )
