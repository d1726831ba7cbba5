"""Every tunable number, declared once, with its unit and where it comes from.

A preset is a full `Config`; a library's `ponticello.toml` names a preset and overrides what it
likes:

    preset = "small"
    semantic.epochs = 40

"Paper" below is HTCL (arXiv 2505.23298); "released" is the behaviour of its authors' code.

What each preset changes of the defaults in `config.py`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ponticello.errors import ConfigError

_AS_RELEASED = {
    "batch_size": 32,
    "schedule": "constant",
    "warmup_share": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
}
# Both stages over a frozen front end, where a step takes milliseconds.
_ON_FRAMES: dict[str, Any] = {
    "heads": {
        "hidden_sizes": (256,),
        "embed_dim": 128,
        "fusion_hidden_sizes": (128,),
        "dropout": 0.2,
    },
    "semantic": {
        "batch_size": 64,
        "min_steps": 400,
        "heads_lr": 1e-3,
        "eval_steps": 40,
        "early_stopping_patience": 6,
    },
    "preference": {
        "batch_size": 256,
        "min_steps": 300,
        "heads_lr": 1e-3,
        "eval_steps": 30,
        "early_stopping_patience": 6,
        # What texts meet is not moved, and learning from pairs costs the fused vectors taste:
        # docs/benchmarks.md.
        "audio_text_loss_weight": 0.0,
        "audio_fusion_loss_weight": 0.0,
    },
}
PRESETS: dict[str, dict[str, Any]] = {
    # The paper and its released code: no schedule, decay or clipping. Early stopping and the choice
    # of the best
    # checkpoint stay ours.
    "paper": {
        "mel": {"released_padding": True},
        "text": {"pooling": "pooler"},
        "semantic": _AS_RELEASED,
        "preference": {
            **_AS_RELEASED,
            "reset_heads": True,
            "distillation_weight": 0.0,
            "multi_positive": False,
        },
        "pairs": {"sources": ("feedback", "session", "playlist")},
    },
    # The paper's sizes with masks, a schedule, larger batches and a finer log-mel, for a real GPU.
    # A frame every 20 ms
    # and a token every 160 ms instead of 768: beats and attacks are still there where the
    # Transformer looks.
    "base": {"mel": {"n_fft": 1024, "hop_length": 320}, "audio": {"crop_seconds": 10.0}},
    # A library of up to some ten thousand tracks on a workstation: the taggers' frames, trained in
    # seconds to minutes.
    "small": {
        "front_end": "musicnn",
        "audio": {
            "conv_channels": (256, 256, 256),
            "hidden_size": 256,
            "n_layers": 4,
            "n_heads": 4,
            "ffn_size": 1024,
        },
        "text": {
            "name": "minilm",
            "trainable": False,
        },  # each text encoded once: minutes instead of hours on a CPU
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


# fmt: off
Baseline = Literal[
    "item_knn", "ease", "als", "sasrec", "sasrec_content", "content_knn", "vectors_to_factors",
    "vectors_text_to_factors",
]
# fmt: on


class ConfigSection(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MelConfig(ConfigSection):
    """How sound becomes a log-mel spectrogram. Source: paper; the sample rate is the one that makes
    its sizes round.
    """

    sample_rate: int = Field(16_000, gt=0)  # Hz; unpublished, see docs/paper.md
    n_fft: int = Field(2048, gt=0)  # samples, 128 ms, paper
    hop_length: int = Field(1536, gt=0)  # samples, 96 ms, paper
    n_mels: int = Field(128, gt=0)  # bands, paper
    f_min_hz: float = Field(0.0, ge=0)  # Hz, librosa's default
    f_max_hz: float = Field(8_000.0, gt=0)  # Hz, half the sample rate
    top_db: float = Field(80.0, gt=0)  # dB kept below the loudest bin, released
    max_seconds: float = Field(120.0, gt=0)  # s, the first two minutes, paper
    released_padding: bool = (
        False  # True only in `paper`: padding is normalised, attended to and pooled, as released
    )

    @model_validator(mode="after")
    def _check_band(self) -> "MelConfig":
        if not self.f_min_hz < self.f_max_hz <= self.sample_rate / 2:
            raise ValueError(
                f"f_max_hz must lie above f_min_hz and not above half the sample rate {self.sample_rate}"
            )
        return self

    @property
    def hop_s(self) -> float:
        """s, from one frame to the next."""
        return self.hop_length / self.sample_rate

    @property
    def max_frames(self) -> int:
        """Frames of a track at least `max_seconds` long; 1251 for the paper's numbers."""
        return 1 + int(self.max_seconds * self.sample_rate) // self.hop_length


class AudioEncoderConfig(ConfigSection):
    """Sizes of the audio tower over log-mels. Source: paper and released layout."""

    conv_channels: tuple[PositiveInt, ...] = (512, 512, 512)
    conv_kernels: tuple[PositiveInt, ...] = (5, 3, 3)  # frames
    conv_strides: tuple[PositiveInt, ...] = (2, 2, 2)  # frames
    hidden_size: int = Field(768, ge=1)
    n_layers: int = Field(12, ge=0)
    n_heads: int = Field(12, ge=1)
    ffn_size: int = Field(3072, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    position_kernel: int = Field(31, ge=1)  # tokens, odd
    position_groups: int = Field(16, ge=1)
    # s that the tower hears at once: in training a random part, for a vector the mean of all parts;
    # 0 = the whole track
    crop_seconds: float = Field(0.0, ge=0)


class TextEncoderConfig(ConfigSection):
    """Which BERT reads the text, and how its tokens become one vector."""

    # a hub name, a local folder, or `minilm` (from PyPI); paper
    name: str = "bert-base-multilingual-uncased"
    pooling: Literal["pooler", "mean"] = (
        "mean"  # mean over real tokens: what sentence encoders are trained for
    )
    max_tokens: int = Field(128, gt=2)  # tokens; longer text is cut
    trainable: bool = True


class HeadsConfig(ConfigSection):
    """The projection heads into the joint space. Source: paper (100 dimensions), released layout."""

    hidden_sizes: tuple[PositiveInt, ...] = (384, 192)
    embed_dim: int = Field(100, ge=1)
    fusion_hidden_sizes: tuple[PositiveInt, ...] = (200, 100)
    dropout: float = Field(
        0.1, ge=0, lt=1
    )  # the layout leaves room for it, the rate is not published
    preference_dim: int = Field(
        16, ge=1
    )  # of embed_dim, for what listening adds beside a frozen front end
    logit_scale: float = 2.6  # log of the inverse temperature at the start, released


class StageConfig(ConfigSection):
    """How one of the two stages is trained."""

    batch_size: int = Field(
        256, ge=2
    )  # rows a process: tracks in stage one, pairs in stage two; released: 32
    chunk_size: int = Field(
        0, ge=0
    )  # tracks through the towers at once; 0 = the whole batch; train/gradcache.py
    epochs: float = Field(20.0, gt=0)  # released
    max_steps: int = -1  # optimiser steps; above 0 it overrides epochs
    min_steps: int = Field(
        0, ge=0
    )  # optimiser steps, where the epochs of a small catalogue would make fewer
    audio_lr: float = Field(1e-4, ge=0)
    text_lr: float = Field(1e-5, ge=0)
    heads_lr: float = Field(1e-4, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.1, ge=0, lt=1)  # of all steps
    schedule: Literal["constant", "cosine"] = "cosine"
    max_grad_norm: float = Field(1.0, ge=0)  # 0 = no clipping
    eval_steps: int = Field(200, ge=1)  # steps between validations, each of which is a checkpoint
    early_stopping_patience: int = Field(
        5, ge=1
    )  # validations without a better one before stopping
    seed: int = Field(3407, ge=0)  # released
    bf16: bool = False  # the towers compute in bfloat16, weights and loss stay float32
    gradient_checkpointing: bool = (
        False  # keep a layer's input instead of its activations, and compute them again
    )
    fused_optimizer: bool = False  # AdamW in one kernel
    compile: bool = False  # torch.compile of the audio tower, anew for every length


class SemanticConfig(StageConfig):
    """Stage one: as a stage, where it starts, and in how many wordings it reads a text."""

    init_from_pretrained: bool = (
        True  # over MusiCNN's frames, where the layout fits; model/weights/starter.md
    )
    text_variants: int = Field(1, ge=1)  # more cost: docs/benchmarks.md, "What each part is worth"


class PreferenceConfig(StageConfig):
    """Stage two: as a stage, its losses, and what keeps the meaning."""

    audio_lr: float = Field(1e-5, ge=0)
    reset_heads: bool = False  # start from fresh heads, as released
    audio_text_loss_weight: float = Field(1.0, ge=0)  # weight of a loss, paper
    audio_audio_loss_weight: float = Field(1.0, ge=0)
    audio_fusion_loss_weight: float = Field(1.0, ge=0)
    distillation_weight: float = Field(
        1.0, ge=0
    )  # weight of staying close to stage one's vector of the same track; 0 is released
    # "ridge": the residual beside a frozen front end begins at a regression; train/preference_init.py
    init: Literal["ridge", "random"] = "ridge"
    multi_positive: bool = True  # all mined partners of an anchor in a batch are its positives
    max_semantic_drop: float = Field(
        0.01, ge=0
    )  # what a meaning figure may lose on validation; see train/selection.py


class PairsConfig(ConfigSection):
    """When two tracks count as liked together."""

    sources: tuple[Literal["feedback", "session", "playlist", "cooccurrence"], ...] = (
        "feedback",
        "session",
        "playlist",
        "cooccurrence",
    )
    min_users: int = Field(
        3, ge=1
    )  # distinct listeners behind a pair; below 3 a pair may reveal a person
    min_played_s: float = Field(30.0, ge=0)  # s; a play shorter than this is not a positive
    session_gap_min: float = Field(30.0, gt=0)  # minutes of silence that end a session
    max_pairs_per_user: int = Field(
        1000, ge=1
    )  # a source, so that one busy listener does not decide
    max_pairs_per_track: int = Field(20, ge=1)  # its strongest, a source; more let fakes in
    min_lift: float = Field(
        1.0, ge=0
    )  # a co-occurrence must be likelier than chance by more than this factor


class SplitsConfig(ConfigSection):
    """What is held out: tracks that are cold, and the last part of the log."""

    tracks: Literal["artist", "track", "column"] = "artist"  # what is held out as one
    column: str = ""  # of the tracks table, which holds official roles; for tracks = "column"
    events: Literal["time", "last-session"] = (
        "time"  # one moment for all, or each listener's last session
    )
    validation_share: float = Field(0.15, ge=0, lt=1)  # of tracks
    test_share: float = Field(0.2, ge=0, lt=1)  # of tracks
    train_time_quantile: float = Field(0.7, gt=0, lt=1)  # share of events, by time
    validation_time_quantile: float = Field(0.8, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class SearchConfig(ConfigSection):
    """How a question becomes a ranked list."""

    # What finds the closest tracks: `exact`, `faiss`, a PostgreSQL's URL, or `auto`: exact up to
    # 200,000 tracks
    backend: str = Field("auto", pattern=r"^(auto|exact|faiss|postgres(ql)?://.+)$")
    blend: float = Field(0.5, ge=0, le=1)  # 0 = meaning, 1 = taste
    n_seed_tracks: int = Field(20, ge=1)  # latest liked tracks that speak for a listener
    profile_l2: float = Field(
        0.1, gt=0
    )  # of the vectors' variance; docs/benchmarks.md, "How a listener asks"
    hub_correction: float = Field(
        0.0, ge=0, le=1
    )  # 0 = none; docs/benchmarks.md, "How questions are asked"
    deduplicate_recordings: bool = (
        True  # an answer holds a recording once; docs/benchmarks.md, "How questions are asked"
    )

    @field_validator("backend")
    @classmethod
    def _check_secret(cls, backend: str) -> str:
        """No password, as a model carries its settings wherever it goes."""
        if urlsplit(backend).password or "password" in parse_qs(urlsplit(backend).query):
            raise PydanticCustomError(
                "secret", "leave the password out and give it as PGPASSWORD or in ~/.pgpass"
            )
        return backend


class EvaluateConfig(ConfigSection):
    """How the table is measured."""

    k: int = Field(10, ge=1)  # cut-off of Recall and NDCG
    baselines: tuple[Baseline, ...] = get_args(
        Baseline
    )  # tuned and fitted; popularity and chance are always there
    bootstrap_rounds: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)


class SimulationConfig(ConfigSection):
    """The make-believe listeners of the demo and the tests. All of it is invented; none of it
    describes people.
    """

    n_listeners: int = Field(400, ge=1)
    sessions_per_listener: int = Field(12, ge=1)  # on average; listeners differ by a power law
    tracks_per_session: int = Field(6, ge=2)
    days: float = Field(365.0, gt=0)
    observable_share: float = Field(
        0.8, ge=0, le=1
    )  # of a listener's taste; the rest no encoder can hear
    n_hidden_traits: int = Field(4, ge=1)
    inverse_temperature: float = Field(3.0, ge=0)  # how strongly taste decides what is played
    popularity_exponent: float = Field(0.6, ge=0)  # of rank, as in Zipf's law
    session_noise: float = Field(
        0.3, ge=0
    )  # how far one session strays from the listener's own taste
    seed: int = Field(0, ge=0)


class LimitsConfig(ConfigSection):
    """What one file may take before it is given up: a damaged one can hang its decoder or fill the
    memory.
    """

    seconds: float = Field(15.0, gt=0)  # s of processor time; by the clock four times as long
    memory_mb: int = Field(
        2048, ge=64
    )  # MiB, beyond what a process holds before its first file; on Linux only


class Config(ConfigSection):
    """All settings of a library and of the models trained in it."""

    preset: Literal["paper", "base", "small", "tiny"] = "base"
    # What the audio tower reads: `logmel` (paper), `musicnn`, `features`, or `hf:NAME`, a Hugging
    # Face audio encoder.
    front_end: str = Field("logmel", pattern=r"^(logmel|musicnn|features|hf:.+)$")
    features: str = (
        ""  # for `features`: a file or folder of vectors, relative to the library or absolute
    )
    mel: MelConfig = MelConfig()
    audio: AudioEncoderConfig = AudioEncoderConfig()
    text: TextEncoderConfig = TextEncoderConfig()
    heads: HeadsConfig = HeadsConfig()
    semantic: SemanticConfig = SemanticConfig()
    preference: PreferenceConfig = PreferenceConfig()
    pairs: PairsConfig = PairsConfig()
    splits: SplitsConfig = SplitsConfig()
    search: SearchConfig = SearchConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    simulation: SimulationConfig = SimulationConfig()
    limits: LimitsConfig = LimitsConfig()

    @classmethod
    def from_preset(cls, preset: str, overrides: Mapping[str, Any] | None = None) -> "Config":
        """The named preset with `overrides` (nested like the fields) on top; ConfigError names a
        bad key.
        """
        if preset not in PRESETS:
            raise ConfigError(f"preset {preset!r} is unknown; use one of {', '.join(PRESETS)}")
        merged = _merge(
            _merge(cls().model_dump(), {**PRESETS[preset], "preset": preset}), overrides or {}
        )
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                inner: Any = (
                    cls.model_fields[str(first["loc"][0])].annotation
                    if len(first["loc"]) > 1
                    else cls
                )
                known = ", ".join(inner.model_fields)
                raise ConfigError(
                    f"setting {where!r} is unknown; there are {known} (docs/config.md)"
                ) from None
            found = "" if first["type"] == "secret" else f"; found {first['input']!r}"
            raise ConfigError(f"setting {where!r}: {first['msg']}{found}") from None

    @classmethod
    def from_toml(cls, path: Path, settings: Sequence[str] = ()) -> "Config":
        """The settings of a TOML file, with `section.key=value` strings on top."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path.name} is not valid TOML: {error}") from None
        table = reduce(_merge, map(_parse_setting, settings), table)
        return cls.from_preset(str(table.pop("preset", "small")), table)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`under` with the keys of `over` on top, group by group."""
    both = {
        key
        for key in over
        if isinstance(over[key], Mapping) and isinstance(under.get(key), Mapping)
    }
    return {**under, **over, **{key: _merge(under[key], over[key]) for key in both}}


def _parse_setting(setting: str) -> dict[str, Any]:
    """`semantic.epochs=3` as {"semantic": {"epochs": 3}}; the value is TOML, or a bare string."""
    path, _, value = setting.partition("=")
    if "=" not in setting or not path.strip():
        raise ConfigError(f"setting {setting!r} must look like section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return reduce(lambda inner, key: {key: inner}, reversed(path.strip().split(".")), parsed)
