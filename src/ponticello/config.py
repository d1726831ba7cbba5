"""Settings: every number that decides a result, declared once with its unit and source.

A preset is a complete `Config`. A library's `ponticello.toml` names a preset and overrides some of
its settings:

    preset = "small"
    semantic.epochs = 40

"Paper" below is HTCL (arXiv 2505.23298), "released" the behaviour of its authors' code; a setting
without a source is a choice of this project. docs/config.md describes each setting.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
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
_FROZEN_FRONT_END: dict[str, Any] = {
    "heads": {
        "hidden_sizes": (256,),
        "embed_dim": 256,
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
    "preference": {"batch_size": 256, "heads_lr": 1e-3, "eval_steps": 30, "refit": True},
}
PRESETS: dict[str, dict[str, Any]] = {
    # The paper and its released code: no schedule, decay or clipping. Early stopping and the choice
    # of the best checkpoint are ours.
    "paper": {
        "mel": {"released_padding": True},
        "text": {"pooling": "pooler"},
        "semantic": _AS_RELEASED,
        "preference": {**_AS_RELEASED, "reset_heads": True, "distillation_weight": 0.0},
        "pairs": {"sources": ("feedback", "session", "playlist")},
    },
    # The paper's sizes with masks, a schedule, larger batches and finer log-mels, for a GPU: a
    # frame every 20 ms and a token every 160 ms instead of 768 keep beats and attacks.
    "base": {"mel": {"n_fft": 1024, "hop_length": 320}, "audio": {"crop_seconds": 10.0}},
    # A library of up to about ten thousand tracks on a workstation: MusiCNN's features, trained in
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
        # Fixed: each text is encoded once, minutes instead of hours on a CPU.
        "text": {"name": "minilm", "trainable": False},
        **_FROZEN_FRONT_END,
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
        **_FROZEN_FRONT_END,
    },
}

# fmt: off
Baseline = Literal[
    "item_knn", "ease", "als", "sasrec", "sasrec_content", "content_knn", "profile",
    "content_to_als", "mlp_to_als", "feature_ials", "profile_and_als",
]
# fmt: on

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]


class ConfigSection(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MelConfig(ConfigSection):
    """Log-mel spectrograms."""

    # Hz; not published, see docs/paper.md: it makes the paper's sizes round
    sample_rate: int = Field(16_000, gt=0)
    # samples, 128 ms; paper
    n_fft: int = Field(2048, gt=0)
    # samples, 96 ms; paper
    hop_length: int = Field(1536, gt=0)
    # bands; paper
    n_mels: int = Field(128, gt=0)
    # Hz; librosa's default
    f_min_hz: float = Field(0.0, ge=0)
    # Hz, half the sample rate; librosa's default
    f_max_hz: float = Field(8_000.0, gt=0)
    # dB kept below the loudest bin; released
    top_db: float = Field(80.0, gt=0)
    # s from the start of a track; paper
    max_seconds: float = Field(120.0, gt=0)
    # padding is normalised, attended to and pooled; released
    released_padding: bool = False

    @model_validator(mode="after")
    def _check_band(self) -> "MelConfig":
        if not self.f_min_hz < self.f_max_hz <= self.sample_rate / 2:
            raise ValueError(
                "f_max_hz must lie above f_min_hz and not above half the sample rate "
                f"{self.sample_rate}"
            )
        return self

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_length / self.sample_rate

    @property
    def max_frames(self) -> int:
        """Frames of a track of at least `max_seconds`; 1251 for the paper's numbers."""
        return 1 + int(self.max_seconds * self.sample_rate) // self.hop_length


class AudioEncoderConfig(ConfigSection):
    """The audio tower over log-mels. Source of the sizes: paper and released code."""

    conv_channels: tuple[PositiveInt, ...] = (512, 512, 512)
    # frames
    conv_kernels: tuple[PositiveInt, ...] = (5, 3, 3)
    # frames
    conv_strides: tuple[PositiveInt, ...] = (2, 2, 2)
    hidden_size: int = Field(768, ge=1)
    n_layers: int = Field(12, ge=0)
    n_heads: int = Field(12, ge=1)
    ffn_size: int = Field(3072, ge=1)
    dropout: Share = 0.1
    # tokens, odd
    position_kernel: int = Field(31, ge=1)
    position_groups: int = Field(16, ge=1)
    # s that the tower reads at once: a random crop in training, the mean of all crops for a vector;
    # 0 = the whole track
    crop_seconds: float = Field(0.0, ge=0)


class TextEncoderConfig(ConfigSection):
    """The text tower: a BERT, and how its token vectors become one vector."""

    # a hub name, a local folder, or `minilm` (from PyPI); paper
    name: str = "bert-base-multilingual-uncased"
    # mean over real tokens, as sentence encoders are trained; `pooler` is released
    pooling: Literal["pooler", "mean"] = "mean"
    # tokens; longer texts are cut
    max_tokens: int = Field(128, gt=2)
    trainable: bool = True


class HeadsConfig(ConfigSection):
    """The projection heads into the joint space. Source of the sizes: paper and released code."""

    hidden_sizes: tuple[PositiveInt, ...] = (384, 192)
    embed_dim: int = Field(100, ge=1)
    fusion_hidden_sizes: tuple[PositiveInt, ...] = (200, 100)
    # the released layout has dropout, its rate is not published
    dropout: Share = 0.1
    # the preference encoder beside a frozen front end: its hidden layer, and the networks that
    # share the embed_dim dimensions; docs/benchmarks.md, "The preference space"
    preference_hidden_size: int = Field(192, ge=1)
    preference_members: int = Field(2, ge=1)
    preference_dropout: Share = 0.2
    # log of the inverse temperature at the start; released
    logit_scale: float = 2.6

    @model_validator(mode="after")
    def _check_members(self) -> "HeadsConfig":
        if self.embed_dim % (2 * self.preference_members):
            raise ValueError(
                f"twice preference_members {self.preference_members} must divide embed_dim "
                f"{self.embed_dim}"
            )
        return self


class StageConfig(ConfigSection):
    """The training of one of the two stages."""

    # rows per process: tracks in stage one, pairs in stage two; released: 32
    batch_size: int = Field(256, ge=2)
    # tracks through the towers at once, 0 = the whole batch; Gao et al. 2021
    chunk_size: int = Field(0, ge=0)
    # released
    epochs: float = Field(20.0, gt=0)
    # optimiser steps; above 0 it overrides epochs
    max_steps: int = -1
    # optimiser steps, where the epochs of a small catalogue are fewer
    min_steps: int = Field(1000, ge=0)
    # learning rates; released
    audio_lr: float = Field(1e-4, ge=0)
    text_lr: float = Field(1e-5, ge=0)
    heads_lr: float = Field(1e-4, ge=0)
    # of matrices and kernels; released: 0
    weight_decay: float = Field(0.01, ge=0)
    # share of all steps in which the rates rise; released: 0
    warmup_share: Share = 0.1
    # the released code keeps the rate constant
    schedule: Literal["constant", "cosine"] = "cosine"
    # longer gradients are scaled to it, 0 = no clipping; released: 0
    max_grad_norm: float = Field(1.0, ge=0)
    # steps between validations, each of which is a checkpoint
    eval_steps: int = Field(200, ge=1)
    # validations of a run without early stopping; a short run has fewer steps between them
    min_validations: int = Field(10, ge=1)
    # validations without a better one before training stops
    early_stopping_patience: int = Field(5, ge=1)
    # released
    seed: int = Field(3407, ge=0)
    # the towers compute in bfloat16, weights and loss in float32
    bf16: bool = False
    # keep a layer's input instead of its activations, and compute those again; Chen et al. 2016
    gradient_checkpointing: bool = False
    # AdamW in one kernel
    fused_optimizer: bool = False
    # torch.compile of the audio tower, again for every length
    compile: bool = False


class SemanticConfig(StageConfig):
    """Stage one: audio and text."""

    # start from the starter model where the layout fits; model/weights/starter.md
    init_from_pretrained: bool = True
    # wordings of each text; docs/benchmarks.md, "What each part is worth"
    text_variants: int = Field(1, ge=1)
    # over a frozen front end: weight of the questions (train/questions.py), and how many words of
    # the text encoder are among them; docs/benchmarks.md, "Words"
    questions_loss_weight: Weight = 1.0
    question_words: int = Field(2000, ge=0)


class PreferenceConfig(StageConfig):
    """Stage two: the losses over log-mels, and the preference space over a frozen front end."""

    audio_lr: float = Field(1e-5, ge=0)
    # start from fresh heads; released: true
    reset_heads: bool = False
    # weights of the losses; paper
    audio_text_loss_weight: Weight = 1.0
    audio_audio_loss_weight: Weight = 1.0
    audio_fusion_loss_weight: Weight = 1.0
    # weight of the distance to the track's stage-one vector; Romero et al. 2015, released: 0
    distillation_weight: Weight = 1.0
    # over a frozen front end: passes over the listeners that are tried, each a whole schedule
    epochs_tried: tuple[PositiveInt, ...] = (10, 40)
    # keys of a step; a larger catalogue is sampled
    max_keys: int = Field(8192, ge=2)
    # share of the tracks that a step sees by their audio or by their text alone
    modality_dropout: Share = 0.35
    # weight of the loss from a tag to the listener's tracks
    words_loss_weight: Weight = 0.1
    # train once more on training and validation data, as long as the best candidate
    refit: bool = False
    # of the regression on listening factors that is tried beside: share of the mean number of likes
    # added to each track's and user's number before scaling, and L2 penalties for rows of length 1
    factor_shrinkage: Weight = 0.3
    regression_l2_tried: tuple[Annotated[float, Field(gt=0)], ...] = (0.03, 0.1, 1.0)
    # over log-mels: interpolation weights tried after training, 0 = stage one; Wortsman et al. 2022
    interpolation_alphas: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.25, 0.5, 0.75, 1.0)
    # one-sided confidence of a gain, about one standard error; docs/ladder.md
    gain_confidence: float = Field(0.84, ge=0.5, lt=1)
    # the most that a semantic metric may drop on validation; train/selection.py
    max_semantic_drop: Weight = 0.01

    @model_validator(mode="after")
    def _check_recipes(self) -> "PreferenceConfig":
        if not self.epochs_tried and not self.regression_l2_tried:
            raise ValueError("epochs_tried and regression_l2_tried are both empty: name one value")
        return self


class PairsConfig(ConfigSection):
    """When two tracks count as liked together."""

    sources: tuple[Literal["feedback", "session", "playlist", "cooccurrence"], ...] = (
        "feedback",
        "session",
        "playlist",
        "cooccurrence",
    )
    # distinct users behind a pair; below 3 a pair may reveal a person
    min_users: int = Field(3, ge=1)
    # s; a shorter play is not a positive
    min_played_s: float = Field(30.0, ge=0)
    # minutes of silence that end a session
    session_gap_min: float = Field(30.0, gt=0)
    # tracks; a longer playlist is an archive, and its pairs grow with the square
    max_playlist_tracks: int = Field(200, ge=2)
    # latest liked tracks of a user that pair up by co-occurrence: 780 pairs at most
    max_liked_tracks: int = Field(40, ge=2)
    # per source, the latest, so that one busy user does not decide
    max_pairs_per_user: int = Field(1000, ge=1)
    # per source, the strongest; more let fake listeners in
    max_pairs_per_track: int = Field(20, ge=1)
    # a co-occurrence must be more than this many times as likely as chance
    min_lift: float = Field(1.0, ge=0)


class SplitsConfig(ConfigSection):
    """Held-out tracks, and held-out events of the log."""

    # what is held out as a whole
    tracks: Literal["artist", "track", "column"] = "artist"
    # column of the tracks table with official roles; for tracks = "column"
    column: str = ""
    # one moment for all users, each user's last session, or each user's likes at random; "auto" is
    # by time, and at random where the log has no times
    events: Literal["auto", "time", "last-session", "random"] = "auto"
    # shares of tracks
    validation_share: Share = 0.15
    test_share: Share = 0.2
    # shares of events that end training and validation, by time or drawn at random
    train_time_quantile: float = Field(0.7, gt=0, lt=1)
    validation_time_quantile: float = Field(0.8, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class SearchConfig(ConfigSection):
    """How a query becomes a ranked list."""

    # `exact`, `faiss`, a PostgreSQL's URL, or `auto`: exact up to 200,000 tracks
    backend: str = Field("auto", pattern=r"^(auto|exact|faiss|postgres(ql)?://.+)$")
    # 0 = semantic, 1 = preference
    blend: float = Field(0.5, ge=0, le=1)
    # latest liked tracks that make a user's profile
    n_seed_tracks: int = Field(100, ge=1)
    # share of the vectors' variance; docs/benchmarks.md, "How a listener asks"
    profile_l2: float = Field(0.03, gt=0)
    # hubness reduction, 0 = none; docs/benchmarks.md, "How questions are asked", as the next
    hub_correction: float = Field(1.0, ge=0, le=1)
    # a list holds each recording once
    deduplicate_recordings: bool = True

    @field_validator("backend")
    @classmethod
    def _refuse_password(cls, backend: str) -> str:
        """Refuses a password, as a saved model carries its settings."""
        if urlsplit(backend).password or "password" in parse_qs(urlsplit(backend).query):
            raise PydanticCustomError(
                "secret", "leave the password out and give it as PGPASSWORD or in ~/.pgpass"
            )
        return backend


class EvaluateConfig(ConfigSection):
    """How the methods are compared."""

    # cut-off of Recall and NDCG
    k: int = Field(10, ge=1)
    # tuned and fitted; popularity and chance are always measured
    baselines: tuple[Baseline, ...] = get_args(Baseline)
    bootstrap_rounds: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)


class SimulationConfig(ConfigSection):
    """The simulated listeners of the demo and the tests. They describe no real people."""

    n_listeners: int = Field(400, ge=1)
    # on average; listeners differ by a power law
    sessions_per_listener: int = Field(12, ge=1)
    tracks_per_session: int = Field(6, ge=2)
    days: float = Field(365.0, gt=0)
    # share of a listener's preference that can be heard in the audio
    observable_share: float = Field(0.8, ge=0, le=1)
    n_hidden_traits: int = Field(4, ge=1)
    # how strongly preference decides which tracks are played
    inverse_temperature: float = Field(3.0, ge=0)
    # of the rank, as in Zipf's law
    popularity_exponent: float = Field(0.6, ge=0)
    # how far a session strays from the listener's preference
    session_noise: float = Field(0.3, ge=0)
    seed: int = Field(0, ge=0)


class LimitsConfig(ConfigSection):
    """Limits of reading one file: a damaged file can hang its decoder or fill the memory."""

    # s of processor time; four times as long by the clock
    seconds: float = Field(15.0, gt=0)
    # MiB beyond what a process holds before its first file; on Linux only
    memory_mb: int = Field(2048, ge=64)


class Config(ConfigSection):
    """All settings of a library and of the models trained in it."""

    preset: Literal["paper", "base", "small", "tiny"] = "base"
    # input of the audio tower: `logmel` (paper), `musicnn`, `features`, or `hf:NAME`, a Hugging
    # Face audio encoder
    front_end: str = Field("logmel", pattern=r"^(logmel|musicnn|features|hf:.+)$")
    # for `features`: a file or folder of vectors, relative to the library or absolute
    features: str = ""
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
        """Returns a preset with nested `overrides`; ConfigError names an unknown or bad key."""
        if preset not in PRESETS:
            raise ConfigError(f"preset {preset!r} is unknown; use one of {', '.join(PRESETS)}")
        table = _merge(cls().model_dump(), {**PRESETS[preset], "preset": preset})
        try:
            return cls.model_validate(_merge(table, overrides or {}))
        except ValidationError as error:
            raise _config_error(error) from None

    @classmethod
    def from_toml(cls, path: Path, settings: Sequence[str] = ()) -> "Config":
        """Returns the settings of a TOML file, overridden by `section.key=value` strings."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path.name} is not valid TOML: {error}") from None
        for setting in settings:
            table = _merge(table, _parse_setting(setting))
        return cls.from_preset(str(table.pop("preset", "small")), table)


def _config_error(error: ValidationError) -> ConfigError:
    """Returns the first of pydantic's errors in our words; a secret value is not repeated."""
    first = error.errors()[0]
    path = first["loc"]
    name = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        section: Any = Config
        if len(path) > 1:
            section = Config.model_fields[str(path[0])].annotation
        names = ", ".join(section.model_fields)
        return ConfigError(f"setting {name!r} is unknown; there are {names} (docs/config.md)")
    value = "" if first["type"] == "secret" else f"; found {first['input']!r}"
    return ConfigError(f"setting {name!r}: {first['msg']}{value}")


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `overrides`, section by section."""
    merged = dict(base)
    for key, value in overrides.items():
        section = merged.get(key)
        if isinstance(value, Mapping) and isinstance(section, Mapping):
            value = _merge(section, value)
        merged[key] = value
    return merged


def _parse_setting(setting: str) -> dict[str, Any]:
    """Returns {"semantic": {"epochs": 3}} for `semantic.epochs=3`; values: TOML or plain text."""
    path, _, value = setting.partition("=")
    if "=" not in setting or not path.strip():
        raise ConfigError(f"setting {setting!r} must look like section.key=value")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for key in reversed(path.strip().split(".")):
        parsed = {key: parsed}
    return dict(parsed)
