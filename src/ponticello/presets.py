"""What each preset changes of the defaults in `config.py`."""

from typing import Any

_AS_RELEASED = {
    "batch_size": 32,
    "schedule": "constant",
    "warmup_share": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
}
# Both stages over a frozen front end, where a step takes milliseconds.
_ON_FRAMES: dict[str, Any] = {
    "heads": {"hidden_sizes": (256,), "embed_dim": 128, "fusion_hidden_sizes": (128,), "dropout": 0.2},
    "semantic": {"batch_size": 64, "min_steps": 400, "heads_lr": 1e-3, "evaluate_every": 40, "patience": 6},
    "preference": {
        "batch_size": 256,
        "min_steps": 300,
        "heads_lr": 1e-3,
        "evaluate_every": 30,
        "patience": 6,
        # What texts meet is not moved, and learning from pairs costs the fused vectors taste: docs/benchmarks.md.
        "audio_text": 0.0,
        "audio_fusion": 0.0,
    },
}
PRESETS: dict[str, dict[str, Any]] = {
    # The paper and its released code: no schedule, decay or clipping. Early stopping and the choice of the best
    # checkpoint stay ours.
    "paper": {
        "mel": {"released_padding": True},
        "text": {"pooling": "pooler"},
        "semantic": _AS_RELEASED,
        "preference": {**_AS_RELEASED, "reset_heads": True, "keep": 0.0, "multi_positive": False},
        "pairs": {"sources": ("feedback", "session", "playlist")},
    },
    # The paper's sizes with masks, a schedule, larger batches and a finer log-mel, for a real GPU. A frame every 20 ms
    # and a token every 160 ms instead of 768: beats and attacks are still there where the Transformer looks.
    "base": {"mel": {"n_fft": 1024, "hop_length": 320}, "audio": {"crop_seconds": 10.0}},
    # A library of up to some ten thousand tracks on a workstation: the taggers' frames, trained in seconds to minutes.
    "small": {
        "front_end": "musicnn",
        "audio": {"conv_channels": (256, 256, 256), "hidden_size": 256, "n_layers": 4, "n_heads": 4, "ffn_size": 1024},
        "text": {"name": "minilm", "trainable": False},  # each text encoded once: minutes instead of hours on a CPU
        **_ON_FRAMES,
    },
    # Minutes on two cores: the demo and the tests.
    "tiny": {
        "front_end": "musicnn",
        "mel": {"max_seconds": 30.0},
        "audio": {
            "conv_channels": (64, 64, 64),
            "hidden_size": 64,
            "n_layers": 2,
            "n_heads": 4,
            "ffn_size": 128,
        },
        "text": {"name": "minilm", "trainable": False, "max_tokens": 64},
        **_ON_FRAMES,
    },
}
