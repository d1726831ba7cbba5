"""The weights the paper's authors released, renamed into an `HTCL`.

Source: names and shapes of the released state dicts (stage one, stage two, or a bare audio
encoder).

Turns a .pth file of plain tensors into safetensors, in a process of its own: `python -m ... IN.pth
OUT`.

`weights_only` refuses code, and the process of its own keeps a fault in the reader away from the
caller.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig

from ponticello.config import Config, TextEncoderConfig
from ponticello.errors import CheckpointError
from ponticello.model.config import HTCLConfig
from ponticello.model.htcl import HTCL
from ponticello.model.text_encoder import check_vocabulary, load_text_encoder


def main(source: str, target: str) -> int:
    """0 if every value of the file was a tensor and is written to `target`; else 1, with a reason
    on stderr.
    """
    try:
        weights = torch.load(Path(source), map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        # Whatever a hostile or damaged file provokes ends here, as one line for the parent.
        print(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'unreadable'}",
            file=sys.stderr,
        )
        return 1
    if not isinstance(weights, dict) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        print("the file is not a state dict of tensors", file=sys.stderr)
        return 1
    save_file(
        {str(name): value.detach().clone().contiguous() for name, value in weights.items()}, target
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))


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


def rename_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` under our names; CheckpointError for a name the released layout does not have."""
    plain_names = [
        name.removeprefix("module.") for name in weights
    ]  # "module." is what DDP puts in front
    prefix = "" if any(name.startswith("audio_model.") for name in plain_names) else "audio_model."
    renamed = {}
    for name, weight in zip(plain_names, weights.values(), strict=True):
        if name.endswith("embeddings.position_ids"):
            continue  # a buffer that older transformers saved: 0, 1, 2, ...
        plain = prefix + name
        for pattern, ours in RENAMES:
            new, n = re.subn(pattern, ours, plain)
            if n:
                renamed[new] = weight
                break
        else:
            raise CheckpointError(
                f"weight {name!r} is not part of the released layout; is this an HTCL file?"
            )
    return renamed


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file read with `weights_only` in a child
    process.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read as plain weights: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "weights.safetensors"
        command = [
            sys.executable,
            "-P",
            "-m",
            "ponticello.model.released",
            str(path),
            str(converted),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CheckpointError(f"{path} cannot be read as plain weights: {reason}")
        return load_file(converted)


def released_config(weights: Mapping[str, Tensor], n_heads: int, text_heads: int) -> HTCLConfig:
    """The configuration, with `paper` semantics, that `weights` (under our names) fit into.

    n_heads, text_heads: attention heads, the one size that shapes do not tell; the released model
    has 12 and 12.
    """
    shape = {name: tuple(weight.shape) for name, weight in weights.items()}
    n_convs = len(
        [name for name in shape if re.fullmatch(r"audio_encoder\.convs\.\d+\.conv\.weight", name)]
    )
    convs = [shape[f"audio_encoder.convs.{i}.conv.weight"] for i in range(n_convs)]
    hidden = shape["audio_encoder.cls_token"][-1]
    in_group = shape["audio_encoder.positions.conv.parametrizations.weight.original1"]
    audio = {
        "conv_channels": [conv[0] for conv in convs],
        "conv_kernels": [conv[2] for conv in convs],
        "conv_strides": [2] * n_convs,
        "hidden_size": hidden,
        "n_layers": _count_layers(shape, "audio_encoder.layers"),
        "n_heads": n_heads,
        "ffn_size": shape["audio_encoder.layers.0.linear1.weight"][0],
        "position_kernel": in_group[2],
        "position_groups": hidden // in_group[1],
    }
    heads: dict[str, Any] = {}
    if "audio_head.linears.2.weight" in shape:
        sizes = [shape[f"audio_head.linears.{i}.weight"][0] for i in range(3)]
        heads = {"hidden_sizes": sizes[:2], "embed_dim": sizes[2]}
    if "fusion_head.linears.2.weight" in shape:
        heads["fusion_hidden_sizes"] = [
            shape[f"fusion_head.linears.{i}.weight"][0] for i in range(2)
        ]
    bert = _text_config(shape, text_heads)
    text = {"max_tokens": min(TextEncoderConfig().max_tokens, bert.max_position_embeddings)}
    changes = {"mel": {"n_mels": convs[0][1]}, "audio": audio, "text": text, "heads": heads}
    return HTCLConfig(Config.from_preset("paper", changes).model_dump(mode="json"), bert.to_dict())


def _count_layers(shape: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return 1 + max((int(match[1]) for name in shape if (match := pattern.match(name))), default=-1)


def _text_config(shape: Mapping[str, tuple[int, ...]], n_heads: int) -> BertConfig:
    words = shape.get("text_encoder.embeddings.word_embeddings.weight")
    if words is None:
        raise CheckpointError(
            "the file has no text encoder: give the stage-one or stage-two file of both towers"
        )
    return BertConfig(
        vocab_size=words[0],
        hidden_size=words[1],
        num_hidden_layers=_count_layers(shape, "text_encoder.encoder.layer"),
        num_attention_heads=n_heads,
        intermediate_size=shape["text_encoder.encoder.layer.0.intermediate.dense.weight"][0],
        max_position_embeddings=shape["text_encoder.embeddings.position_embeddings.weight"][0],
    )


def import_released(
    path: Path,
    *,
    n_heads: int = 12,
    text_heads: int = 12,
    tokenizer: str | None = None,
    allow_download: bool = False,
) -> tuple[HTCL, list[str]]:
    """A model with the released weights and the names of the parts the file does not hold (they
    stay fresh).

    tokenizer: a local folder or hub name whose tokenizer goes with the text tower; None leaves the
    model without. CheckpointError if the file is not of the released layout, a tensor has the wrong
    shape, or the tokenizer knows tokens that the text tower does not.
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
        model.tokenizer = load_text_encoder(tokenizer, allow_download)[1]
        check_vocabulary(model.tokenizer, model.text_encoder, tokenizer)
    model.train(False)
    return model, fresh
