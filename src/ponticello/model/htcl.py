"""HTCL: the two towers, their heads and the fusion, as one Hugging Face model.

Dimensions: B rows, T frames, F features a frame (mel bands), L tokens, n items, d joint dimensions,
D size of the text encoder.
Source: HTCL (arXiv 2505.23298).
"""

import os
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from ponticello.audio.mel import log_mel, mel_of_file
from ponticello.config import Config
from ponticello.errors import CheckpointError, ConfigError, ShapeError
from ponticello.features.frontend import FeatureExtractor, feature_extractor
from ponticello.features.musicnn_frontend import FRAME_SIZE
from ponticello.features.quiet import hide_transformers_output
from ponticello.model.adapter import FeaturePooling, SemanticProjection
from ponticello.model.audio_encoder import AudioEncoder, masked_mean
from ponticello.model.batching import all_crops, pad_features, pad_frames
from ponticello.model.preference import EncoderKind, PreferenceEncoder
from ponticello.model.saving import (
    MODEL_SECTIONS,
    check_checksums,
    check_kind,
    describe_saved,
    report_write_errors,
    require_finite,
    saved_config,
)
from ponticello.model.semantic_space import SemanticSpace
from ponticello.model.text_encoder import (
    build_text_encoder,
    load_text_encoder,
    load_tokenizer,
    text_vector,
    tokenize,
)

SCALES = ("audio_text", "audio_audio", "audio_fusion")


@dataclass(frozen=True)
class Embeddings:
    """The vectors of one forward pass, (B, d) each, not normalised, and the log scales."""

    audio: Tensor
    text: Tensor
    fused: Tensor
    logit_scales: dict[str, Tensor]


class HTCLConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """All that is needed to rebuild an `HTCL`.

    settings: our `Config` as a dict. text_config: the text encoder's own configuration.
    vector: the one that is served for tracks with text, "audio" or "fused", chosen on validation.
    frame_size: features a frame of the frozen front end; None = MusiCNN's, 0 where there is none.
    preference_kind: of the preference encoder of a stage two over a frozen front end; None = the
    model has none.
    front_end_weights: the weights its features were made with (`FeatureStore.weights`), "" where
        the settings identify them.
    vocabulary: the tags that questions are compared with, over a frozen front end.
    """

    model_type = "htcl"

    def __init__(
        self,
        settings: dict[str, Any] | None = None,
        text_config: dict[str, Any] | None = None,
        vector: str = "audio",
        frame_size: int | None = None,
        front_end_weights: str = "",
        preference_kind: EncoderKind | None = None,
        vocabulary: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.settings = settings or Config().model_dump(mode="json")
        self.text_config = text_config or {}
        self.vector = vector
        if frame_size is None:
            frame_size = FRAME_SIZE if self.settings.get("front_end") == "musicnn" else 0
        self.frame_size = frame_size
        self.front_end_weights = front_end_weights
        self.preference_kind = preference_kind
        self.vocabulary = list(vocabulary)
        super().__init__(**options)

    @property
    def checked_settings(self) -> Config:
        """The settings as a checked `Config`."""
        return saved_config(self.settings, "config.json")


class MLP(nn.Module):
    """Linear layers with ReLU and dropout between them; the last one is linear."""

    def __init__(self, sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns (B, sizes[-1]), not normalised; vectors: (B, sizes[0])."""
        for linear in self.linears[:-1]:
            vectors = self.dropout(linear(vectors).relu())
        last: Tensor = self.linears[-1](vectors)
        return last


class HTCL(PreTrainedModel):
    """An audio tower and a pretrained text encoder with one joint space.

    The `encode_` methods return unit vectors, float32: (n, d) for a list, (d,) for a single item.

        model = HTCL.from_pretrained("my-library/runs/preference")
        audio = model.encode_audio(["a.flac", "b.mp3"])   # (2, d)
        text = model.encode_text("slow piano at night")   # (d,)
        audio @ text                                      # cosine similarities (2,)
    """

    config_class = HTCLConfig
    main_input_name = "features"

    def __init__(self, config: HTCLConfig) -> None:
        super().__init__(config)
        self.settings = config.checked_settings
        heads = self.settings.heads
        # AudioEncoder with MLPs as heads, or FeaturePooling with fixed axes.
        self.audio_encoder: Any
        self.audio_head: Any
        self.text_encoder = build_text_encoder(config.text_config)
        text_size = self.text_encoder.config.hidden_size
        if self.uses_frozen_features:
            joint_dim = heads.embed_dim // 2
            self.audio_encoder = FeaturePooling(config.frame_size)
            self.audio_head = SemanticProjection(config.frame_size, joint_dim)
            self.semantic_space = SemanticSpace(
                joint_dim, heads.embed_dim - joint_dim, text_size, len(config.vocabulary)
            )
        else:
            joint_dim = heads.embed_dim
            audio = self.settings.audio
            self.audio_encoder = AudioEncoder(audio, self.settings.mel.n_mels)
            self._check_crop_frames()
            self.audio_head = _mlp(
                audio.hidden_size, heads.hidden_sizes, heads.embed_dim, heads.dropout
            )
            self.fusion_head = _mlp(
                2 * heads.embed_dim, heads.fusion_hidden_sizes, heads.embed_dim, heads.dropout
            )
        self.text_head = _mlp(text_size, heads.hidden_sizes, joint_dim, heads.dropout)
        # Of a stage two over a frozen front end: its vectors are the model's.
        self.preference_encoder: PreferenceEncoder | None = None
        if config.preference_kind is not None:
            self.preference_encoder = PreferenceEncoder(
                config.preference_kind,
                joint_dim,
                text_size,
                heads.preference_hidden_size,
                heads.embed_dim,
                heads.preference_members,
                heads.preference_dropout,
                heads.logit_scale,
            )
        self.logit_scales = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(heads.logit_scale)) for name in SCALES}
        )
        self.tokenizer: Any = None
        self.post_init()  # type: ignore[no-untyped-call]

    def _check_crop_frames(self) -> None:
        if 0 < self.crop_frames < self.audio_encoder.min_frames:
            raise ConfigError(
                f"audio.crop_seconds {self.settings.audio.crop_seconds:g} makes "
                f"{self.crop_frames} frames; the convolutions need {self.audio_encoder.min_frames}"
            )

    def _init_weights(self, module: nn.Module) -> None:
        """Initialises a layer as PyTorch does, each on its own draw."""
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    @classmethod
    def from_settings(
        cls,
        config: Config,
        allow_download: bool = False,
        frame_size: int | None = None,
        front_end_weights: str = "",
        vocabulary: Sequence[str] = (),
    ) -> "HTCL":
        """Returns a model with a pretrained text encoder and other weights drawn at random.

        frame_size, front_end_weights, vocabulary: as in `HTCLConfig`.
        """
        encoder, tokenizer = load_text_encoder(
            config.text.name, allow_download, config.text.max_tokens
        )
        model_config = HTCLConfig(
            config.model_dump(mode="json"),
            encoder.config.to_dict(),
            vector="audio" if config.front_end == "logmel" else "fused",
            frame_size=frame_size,
            front_end_weights=front_end_weights,
            vocabulary=vocabulary,
        )
        model = cls(model_config)
        model.text_encoder.load_state_dict(encoder.state_dict())
        model.tokenizer = tokenizer
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, path: str | Path, *args: Any, **options: Any
    ) -> "HTCL":
        """Loads the model and tokenizer of a folder, in eval mode.

        Raises CheckpointError if it holds no complete HTCL.
        """
        path = Path(path)
        if path.is_dir() or options.get("local_files_only", True):
            check_kind(path / "config.json")
            check_checksums(path)
        options.setdefault("local_files_only", True)
        options.setdefault("use_safetensors", True)
        options["output_loading_info"] = True
        try:
            with hide_transformers_output():
                loaded: Any = super().from_pretrained(str(path), *args, **options)
                model: HTCL = loaded[0]
                if (path / "tokenizer_config.json").is_file():
                    model.tokenizer = load_tokenizer(path, model.text_encoder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} cannot be loaded: {str(error).splitlines()[0]}"
            ) from None
        differences = sorted(chain(loaded[1]["missing_keys"], loaded[1]["unexpected_keys"]))
        if differences:
            raise CheckpointError(
                f"{path} does not hold the weights its config.json asks for: "
                f"{', '.join(differences[:5])}"
            )
        return model

    def save_pretrained(  # type: ignore[override]
        self, path: str | Path, *args: Any, **options: Any
    ) -> None:
        """Writes config, weights, tokenizer and hashes.

        Raises CheckpointError if a weight is not finite or the disk is full.
        """
        require_finite(options.get("state_dict") or self.state_dict(), path)
        with report_write_errors(path), hide_transformers_output():
            super().save_pretrained(str(path), *args, **options)
            tokenizer_files = []
            if self.tokenizer is not None:
                tokenizer_files = self.tokenizer.save_pretrained(str(path))
            describe_saved(Path(path), tokenizer_files)

    def use_settings(self, config: Config) -> None:
        """Takes the training and search settings of `config`.

        Raises CheckpointError if `config` describes another model.
        """
        for section in MODEL_SECTIONS:
            saved = getattr(self.settings, section)
            wanted = getattr(config, section)
            if saved != wanted:
                raise CheckpointError(
                    f"the model was made with [{section}] {saved}; the settings now say {wanted}"
                )
        self.settings = config
        self.config.settings = config.model_dump(mode="json")

    def use_preference_encoder(self, encoder: PreferenceEncoder) -> None:
        """Makes the vectors of `encoder` the model's own, of audio and text where there is text."""
        self.preference_encoder = encoder
        self.config.preference_kind = encoder.kind
        self.config.vector = "fused"

    @property
    def uses_frozen_features(self) -> bool:
        """Whether the audio tower is an adapter over a frozen front end."""
        return self.settings.front_end != "logmel"

    @property
    def front_end(self) -> FeatureExtractor | None:
        """The frozen front end under the audio tower; None where it reads log-mels."""
        return feature_extractor(self.settings, self.config.front_end_weights)

    @property
    def crop_frames(self) -> int:
        """The most log-mel frames that the tower takes at once; 0 = no limit."""
        mel = self.settings.mel
        seconds = self.settings.audio.crop_seconds
        if self.uses_frozen_features or not seconds:
            return 0
        return 1 + int(seconds * mel.sample_rate) // mel.hop_length

    def reset_heads(self) -> None:
        """Initialises projection heads and scales anew, as the released code starts stage two."""
        for head in (self.audio_head, self.text_head, self.fusion_head):
            head.apply(self._init_weights)
        for scale in self.logit_scales.values():
            nn.init.constant_(scale, self.settings.heads.logit_scale)

    def project_audio(self, features: Tensor, padding_mask: Tensor) -> Tensor:
        """Returns audio vectors (B, d), not normalised.

        features: (B, T, F), as `pad_features` or `pad_frames` returns them; padding_mask: (B, T),
        True = padding. Over a frozen front end: the audio block of the semantic space. A track
        longer than `crop_frames` is the mean of its crops' vectors (`all_crops`).
        """
        if not self.crop_frames or features.shape[1] <= self.crop_frames:
            return self.project_crops(features, padding_mask)
        crops, mask, row = all_crops(features, padding_mask, self.crop_frames)
        vectors = self.project_crops(crops, mask)  # (N, d)
        is_of = F.one_hot(row, len(features)).T.to(vectors.dtype)  # (B, N)
        return is_of @ vectors / is_of.sum(dim=1, keepdim=True)

    def project_crops(self, features: Tensor, padding_mask: Tensor) -> Tensor:
        """Returns audio vectors (B, d) of inputs of at most `crop_frames`, not normalised."""
        tokens, token_mask = self.audio_encoder(features, padding_mask)
        vectors: Tensor = self.audio_head(masked_mean(tokens, token_mask))
        return vectors

    def project_text(self, text_states: Tensor) -> Tensor:
        """Returns the text head's vectors (B, d), not normalised, of `text_states` (B, D)."""
        vectors: Tensor = self.text_head(text_states)
        return vectors

    def embed_tracks(
        self, features: Tensor, padding_mask: Tensor, text_states: Tensor | None = None
    ) -> Tensor:
        """Returns the vectors of tracks as they are served, (B, d), not normalised.

        features, padding_mask: as of `project_audio`. text_states: (B, D); a track with a row of
        zeros has no text, as all tracks without it.
        """
        audio = self.project_audio(features, padding_mask)
        if self.preference_encoder is not None:
            return self.preference_encoder.encode(audio, text_states)
        if self.uses_frozen_features:
            return self.semantic_space.track_vectors(audio, text_states)
        if text_states is None:
            return audio
        return self.fuse(audio, text_states, text_states.any(dim=1))

    def embed_texts(self, text_states: Tensor) -> Tensor:
        """Returns the vectors of texts as they are served, (B, d), of `text_states` (B, D)."""
        if self.preference_encoder is not None:
            return self.preference_encoder.encode(None, text_states)
        head = self.project_text(text_states)
        if self.uses_frozen_features:
            return self.semantic_space.question_vectors(head, text_states)
        return head

    def fuse(self, audio: Tensor, text_states: Tensor, has_text: Tensor) -> Tensor:
        """Returns the fusion head's vectors (B, d), not normalised; of log-mels only.

        audio: (B, d) as `project_audio` returns it; text_states: (B, D). Where has_text (B,) is
        False, and over a frozen front end, the result is the audio vector.
        """
        if self.uses_frozen_features:
            return audio
        # Of the vectors before normalisation, as released.
        fused = self.fusion_head(torch.cat([audio, self.project_text(text_states)], dim=-1))
        return torch.where(has_text[:, None], fused, audio)

    def text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the text encoder's vectors (B, D), before the head.

        input_ids, attention_mask: (B, L), 1 = real.
        """
        output = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        return text_vector(output, attention_mask, self.settings.text.pooling)

    def forward(
        self,
        features: Tensor,
        padding_mask: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_states: Tensor | None = None,
        has_text: Tensor | None = None,
    ) -> Embeddings:
        """Returns the vectors of both towers and the fusion over matched rows.

        Texts are given as tokens (B, L) or as `text_states` (B, D). has_text: (B,) bool; None = all
        rows have one. The text vector of a row without text is meaningless. The scales are returned
        too: under DDP a parameter must be used inside `forward`.
        """
        audio = self.project_audio(features, padding_mask)
        if text_states is None:
            if input_ids is None or attention_mask is None:
                raise ShapeError("forward needs input_ids and attention_mask, or text_states")
            text_states = self.text_states(input_ids, attention_mask)
        if has_text is None:
            has_text = torch.ones(len(audio), dtype=torch.bool, device=audio.device)
        fused = self.fuse(audio, text_states, has_text)
        text = self.project_text(text_states)
        return Embeddings(audio, text, fused, dict(self.logit_scales.items()))

    def encode_audio(
        self,
        items: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
        batch_size: int = 32,
    ) -> np.ndarray:
        """Returns unit vectors of audio files or waveforms: (n, d), or (d,) for a single one.

        items: paths, or mono waveforms (n_samples,) at `mel.sample_rate` Hz.
        Raises CheckpointError if the front end takes no audio (`features`) or its encoder is
        missing, AudioError for a file that cannot be read.
        """
        if isinstance(items, str | os.PathLike) or _is_waveform(items):
            single: Any = items
            return np.asarray(self.encode_audio([single], batch_size)[0])
        return self.encode_features([self.extract_features(item) for item in items], batch_size)

    def extract_features(self, item: str | Path | np.ndarray) -> np.ndarray:
        """Returns the audio tower's input of a file or a waveform; errors as `encode_audio`."""
        audio = item if isinstance(item, np.ndarray) else Path(item)
        mel = self.settings.mel
        front_end = self.front_end
        if front_end is not None:
            return front_end.extract(audio, mel.sample_rate)
        if isinstance(audio, Path):
            return mel_of_file(audio, mel)
        return log_mel(audio, mel).astype(np.float16)

    @torch.no_grad()
    def encode_features(self, features: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Returns unit vectors (n, d) of the audio tower's inputs.

        features: (t, F) each, log-mels in dB or a front end's features.
        """
        vectors = np.empty((len(features), self.settings.heads.embed_dim), dtype=np.float32)
        with eval_mode(self):
            for rows in _batches_by_length(features, batch_size):
                padded, mask = self._pad([features[row] for row in rows])
                vectors[rows] = _unit_rows(self.embed_tracks(padded, mask))
        return vectors

    @torch.no_grad()
    def encode_audio_block(
        self, features: Sequence[np.ndarray], batch_size: int = 32
    ) -> np.ndarray:
        """Returns the sound's unit vectors (n, a) that stage two reads, over a frozen front end.

        features: as in `encode_features`.
        """
        blocks = []
        with eval_mode(self):
            for start in range(0, len(features), batch_size):
                padded, mask = self._pad(list(features[start : start + batch_size]))
                blocks.append(_unit_rows(self.project_audio(padded, mask)))
        return np.concatenate(blocks) if blocks else np.zeros((0, self.semantic_space.audio_dim))

    @torch.no_grad()
    def encode_fused(
        self, features: Sequence[np.ndarray], text_states: np.ndarray, batch_size: int = 32
    ) -> np.ndarray:
        """Returns unit vectors (n, d) of audio and text together.

        features: as in `encode_features`. text_states: (n, D) as `encode_text_states` returns them;
        a track with a row of zeros has no text and gets its audio vector.
        """
        vectors = np.empty((len(features), self.settings.heads.embed_dim), dtype=np.float32)
        with eval_mode(self):
            for rows in _batches_by_length(features, batch_size):
                padded, mask = self._pad([features[row] for row in rows])
                states = torch.from_numpy(text_states[rows]).to(self.device)
                vectors[rows] = _unit_rows(self.embed_tracks(padded, mask, states))
        return vectors

    def _pad(self, features: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        if self.uses_frozen_features:
            padded, mask = pad_frames(features)
        else:
            min_frames = self.audio_encoder.min_frames
            padded, mask = pad_features(features, self.settings.mel, min_frames)
        return padded.to(self.device), mask.to(self.device)

    def encode_text(self, texts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Returns unit vectors of texts: (n, d), or (d,) for a single string.

        Raises CheckpointError if the model has no tokenizer.
        """
        if isinstance(texts, str):
            return np.asarray(self.encode_text([texts], batch_size)[0])
        return self.encode_text_from_states(self.encode_text_states(texts, batch_size))

    @torch.no_grad()
    def encode_text_from_states(self, text_states: np.ndarray, batch_size: int = 512) -> np.ndarray:
        """Returns the unit vectors (n, d) of texts from their `encode_text_states` (n, D)."""
        vectors = np.empty((len(text_states), self.settings.heads.embed_dim), dtype=np.float32)
        with eval_mode(self):
            for start in range(0, len(text_states), batch_size):
                rows = slice(start, start + batch_size)
                states = torch.from_numpy(text_states[rows]).to(self.device)
                vectors[rows] = _unit_rows(self.embed_texts(states))
        return vectors

    @torch.no_grad()
    def encode_text_states(self, texts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Returns the text encoder's vectors before the head: (n, D), or (D,) for a single string.

        They are fixed while the encoder is frozen; zeros for an empty text.
        """
        if isinstance(texts, str):
            return np.asarray(self.encode_text_states([texts], batch_size)[0])
        states = np.zeros((len(texts), self.text_encoder.config.hidden_size), dtype=np.float32)
        with eval_mode(self):
            for rows in _batches_by_length(texts, batch_size):
                batch = [texts[row] for row in rows]
                has_text = torch.tensor([bool(text) for text in batch], device=self.device)
                encoded = self._encode_tokens(batch) * has_text[:, None]
                states[rows] = encoded.float().cpu().numpy()
        return states

    def _encode_tokens(self, texts: list[str]) -> Tensor:
        if self.tokenizer is None:
            raise CheckpointError(
                "this model has no tokenizer; save one beside it (tokenizer.save_pretrained)"
            )
        tokens = tokenize(texts, self.tokenizer, self.settings.text.max_tokens)
        return self.text_states(
            tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts every module of `model` in eval mode, and then back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _batches_by_length(items: Sequence[Sized], batch_size: int) -> Iterator[list[int]]:
    """Yields the row numbers of batches; items of similar length share one."""
    order = sorted(range(len(items)), key=lambda row: len(items[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _is_waveform(items: object) -> bool:
    return isinstance(items, np.ndarray) and items.ndim == 1 and items.dtype.kind in "fiu"


def _unit_rows(vectors: Tensor) -> np.ndarray:
    rows: np.ndarray = F.normalize(vectors, dim=-1).float().cpu().numpy()
    return rows


AutoConfig.register("htcl", HTCLConfig)
AutoModel.register(HTCLConfig, HTCL)


def _mlp(n_inputs: int, hidden_sizes: Sequence[int], n_outputs: int, dropout: float) -> MLP:
    sizes = [n_inputs]
    sizes.extend(hidden_sizes)
    sizes.append(n_outputs)
    return MLP(sizes, dropout)
