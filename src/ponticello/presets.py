"""What each preset changes of the defaults in `config.py`."""

from typing import Any

_AS_RELEASED = {
    "batch_size": 32,
    "schedule": "constant",
    "warmup_share": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    # The paper and its released code: no schedule, decay or clipping. Early stopping and the choice of the best
    # checkpoint stay ours.
    "paper": {
        "mel": {"released_padding": True},
        "text": {"pooling": "pooler"},
        "semantic": _AS_RELEASED,
        "preference": {**_AS_RELEASED, "reset_heads": True},
    },
    # The paper's sizes with masks, a schedule and larger batches, for a real GPU: the defaults above.
    "base": {},
    # A library of some thousand tracks on a workstation.
    "small": {
        "audio": {"conv_channels": (256, 256, 256), "hidden_size": 256, "n_layers": 4, "n_heads": 4, "ffn_size": 1024},
        "text": {"name": "minilm", "trainable": False},  # each text encoded once: minutes instead of hours on a CPU
        "semantic": {"batch_size": 64, "evaluate_every": 50, "audio_lr": 3e-4, "heads_lr": 3e-4},
        "preference": {"batch_size": 64, "evaluate_every": 50, "audio_lr": 3e-5},
    },
    # Minutes on two cores: the demo and the tests.
    "tiny": {
        "mel": {"max_seconds": 30.0},
        "audio": {
            "conv_channels": (64, 64, 64),
            "hidden_size": 64,
            "n_layers": 2,
            "n_heads": 4,
            "ffn_size": 128,
        },
        "text": {"name": "minilm", "trainable": False, "max_tokens": 64},
        "heads": {"hidden_sizes": (128,), "embed_dim": 64, "fusion_hidden_sizes": (64,)},
        "pairs": {"max_pairs_per_track": 10},
        "semantic": {
            "batch_size": 32,
            "epochs": 100,
            "patience": 10,
            "audio_lr": 1e-3,
            "heads_lr": 1e-3,
            "evaluate_every": 10,
            "crop_seconds": 10.0,
        },
        "preference": {
            "batch_size": 32,
            "epochs": 15,
            "audio_lr": 1e-3,
            "heads_lr": 1e-3,
            "evaluate_every": 80,
            "crop_seconds": 10.0,
        },
    },
}
