"""A text encoder for tests and benchmarks: random, two layers, a small vocabulary of whole words
and digits.
"""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] by from sounds like artist album piece "
    "low middle high dark warm bright slow steady fast . ,"
)


def make_text_encoder(folder: Path) -> Path:
    """Saves the encoder and its tokenizer in a new `folder`; the same weights every time."""
    folder.mkdir(parents=True, exist_ok=True)
    words = (
        WORDS.split() + [str(digit) for digit in range(10)] + [f"##{digit}" for digit in range(10)]
    )
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(str(folder))
    return folder
