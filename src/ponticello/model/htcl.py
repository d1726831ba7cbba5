"""HTCL: the two towers, their heads and the fusion, as one Hugging Face model.

Dimensions: B rows, T frames, F mel bands, L tokens, d joint dimensions.
Source: HTCL (arXiv 2505.23298).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ponticello.audio.mel import log_mel, mel_of_file
from ponticello.checks import require_list
from ponticello.config import Config
from ponticello.errors import CheckpointError, ConfigError, ShapeError
from ponticello.features.frontend import FeatureExtractor, feature_extractor
from ponticello.model.adapter import AdapterFusion, AdapterHead, FeaturePooling
from ponticello.model.audio_encoder import AudioEncoder, masked_mean
from ponticello.model.batching import all_crops, batched_forward, pad_features, pad_frames, tokenize
from ponticello.model.config import MODEL_SECTIONS, HTCLConfig, check_kind
from ponticello.model.heads import MLP
from ponticello.model.saving import (
    check_checksums,
    describe_saved,
    report_write_errors,
    require_finite,
)
from ponticello.model.text_encoder import (
    build_text_encoder,
    load_text_encoder,
    load_tokenizer,
    text_vector,
)

SCALES = ("audio_text", "audio_audio", "audio_fusion")


@dataclass(frozen=True)
class Embeddings:
    """What one forward pass gives: (B, d) each, not normalised, and the log scale of each loss."""

    audio: Tensor
    text: Tensor
    fused: Tensor
    logit_scales: dict[str, Tensor]


class HTCL(PreTrainedModel):
    """An audio encoder and a pretrained BERT that meet in one space.

    Vectors are (n, d) float32, of unit length; `HTCL.from_pretrained("my-library/runs/preference")`
    gives a model:

        audio, text = model.encode_audio(["a.flac", "b.mp3"]), model.encode_text(["slow piano at
        night"])
    """

    config_class = HTCLConfig
    main_input_name = "mel"

    def __init__(self, config: HTCLConfig) -> None:
        super().__init__(config)
        self.settings = config.checked_settings
        audio, heads = self.settings.audio, self.settings.heads
        self.audio_encoder: (
            Any  # AudioEncoder with MLPs as heads, or FrameEncoder with anchored ones
        )
        self.audio_head: Any
        self.fusion_head: Any
        if self.settings.front_end == "logmel":
            self.audio_encoder = AudioEncoder(audio, self.settings.mel.n_mels)
            if 0 < self.crop_frames < self.audio_encoder.min_frames:
                raise ConfigError(
                    f"audio.crop_seconds {audio.crop_seconds:g} makes {self.crop_frames} frames; the convolutions need "
                    f"{self.audio_encoder.min_frames}"
                )
            self.audio_head = MLP(
                (audio.hidden_size, *heads.hidden_sizes, heads.embed_dim), heads.dropout
            )
            self.fusion_head = MLP(
                (2 * heads.embed_dim, *heads.fusion_hidden_sizes, heads.embed_dim), heads.dropout
            )
        else:
            self.audio_encoder = FeaturePooling(config.frame_size)
            self.audio_head = AdapterHead(
                config.frame_size, heads.embed_dim, heads.preference_dim, heads.dropout
            )
        self.text_encoder = build_text_encoder(config.text_config)
        text_size, meeting_size = self.text_encoder.config.hidden_size, heads.embed_dim
        if self.uses_frozen_features:
            meeting_size = self.audio_head.n_axes
            self.fusion_head = AdapterFusion(
                meeting_size, text_size, heads.preference_dim, heads.dropout
            )
        self.text_head = MLP((text_size, *heads.hidden_sizes, meeting_size), heads.dropout)
        self.logit_scales = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(heads.logit_scale)) for name in SCALES}
        )
        self.tokenizer: Any = None
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation, each layer on its own draw."""
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()

    @classmethod
    def from_settings(
        cls,
        config: Config,
        allow_download: bool = False,
        frame_size: int | None = None,
        front_end_weights: str = "",
    ) -> "HTCL":
        """A model with a pretrained text tower and everything else fresh, drawn from torch's global
        generator.

        frame_size, front_end_weights: of the frames it will read, as `HTCLConfig`.
        """
        encoder, tokenizer = load_text_encoder(
            config.text.name, allow_download, config.text.max_tokens
        )
        settings, text_config = config.model_dump(mode="json"), encoder.config.to_dict()
        model = cls(
            HTCLConfig(
                settings, text_config, frame_size=frame_size, front_end_weights=front_end_weights
            )
        )
        model.text_encoder.load_state_dict(encoder.state_dict())
        model.tokenizer = tokenizer
        return model

    @classmethod
    def from_pretrained(cls, place: str | Path, *args: Any, **options: Any) -> "HTCL":  # type: ignore[override]
        """The model and tokenizer saved at `place`, in eval mode; CheckpointError if it holds no
        whole HTCL.
        """
        if (place := Path(place)).is_dir() or options.get("local_files_only", True):
            check_kind(place / "config.json")
            check_checksums(place)
        options = {
            "local_files_only": True,
            "use_safetensors": True,
            **options,
            "output_loading_info": True,
        }
        try:
            loaded: Any = super().from_pretrained(str(place), *args, **options)
            model: HTCL = loaded[0]
            if (place / "tokenizer_config.json").is_file():
                model.tokenizer = load_tokenizer(place, model.text_encoder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{place} cannot be loaded: {str(error).splitlines()[0]}"
            ) from None
        wrong = sorted([*loaded[1]["missing_keys"], *loaded[1]["unexpected_keys"]])
        if wrong:
            raise CheckpointError(
                f"{place} does not hold the weights its config.json asks for: {', '.join(wrong[:5])}"
            )
        return model

    def save_pretrained(self, place: str | Path, *args: Any, **options: Any) -> None:  # type: ignore[override]
        """Writes config, weights, tokenizer, hashes; CheckpointError if a weight is not finite, or
        the disk full.
        """
        require_finite(options.get("state_dict") or self.state_dict(), place)
        with report_write_errors(place):
            super().save_pretrained(str(place), *args, **options)
            describe_saved(
                Path(place),
                [] if self.tokenizer is None else self.tokenizer.save_pretrained(str(place)),
            )

    def use_settings(self, config: Config) -> None:
        """Takes over how `config` trains and searches; CheckpointError if it describes another
        model.
        """
        for part in MODEL_SECTIONS:
            here, there = getattr(self.settings, part), getattr(config, part)
            if here != there:
                raise CheckpointError(
                    f"the model was made with [{part}] {here}; the settings now say {there}"
                )
        self.settings, self.config.settings = config, config.model_dump(mode="json")

    @property
    def uses_frozen_features(self) -> bool:
        """Whether the audio tower stands over a frozen front end whose vector is kept."""
        return self.settings.front_end != "logmel"

    @property
    def front_end(self) -> FeatureExtractor | None:
        """The frozen front end under the audio tower; None where it reads log-mels."""
        return feature_extractor(self.settings, self.config.front_end_weights)

    @property
    def crop_frames(self) -> int:
        """How many frames of a log-mel the tower hears at once; 0 = all there are."""
        mel, seconds = self.settings.mel, self.settings.audio.crop_seconds
        if self.settings.front_end != "logmel" or not seconds:
            return 0
        return 1 + int(seconds * mel.sample_rate) // mel.hop_length

    def reset_heads(self) -> None:
        """Fresh projection heads and scales, as the released code starts stage two."""
        for head in (self.audio_head, self.text_head, self.fusion_head):
            head.apply(self._init_weights)
        for scale in self.logit_scales.values():
            nn.init.constant_(scale, self.settings.heads.logit_scale)

    def project_audio(self, mel: Tensor, padding_mask: Tensor) -> Tensor:
        """mel: (B, T, F) normalised; padding_mask: (B, T), True = padding -> (B, d), not
        normalised.

        A track longer than `crop_frames` is the mean of its crops' vectors; see `all_crops`.
        """
        if not self.crop_frames or mel.shape[1] <= self.crop_frames:
            vectors: Tensor = self.audio_head(masked_mean(*self.audio_encoder(mel, padding_mask)))
            return vectors
        crops, mask, row = all_crops(mel, padding_mask, self.crop_frames)
        vectors = self.audio_head(masked_mean(*self.audio_encoder(crops, mask)))  # (N, d)
        is_of = F.one_hot(row, len(mel)).T.to(vectors.dtype)  # (B, N)
        return is_of @ vectors / is_of.sum(dim=1, keepdim=True)

    def project_text(self, text_states: Tensor) -> Tensor:
        """text_states: (B, D) as `text_states` gives them -> (B, d), not normalised."""
        vectors: Tensor = self.text_head(text_states)
        return vectors if not self.uses_frozen_features else self.audio_head.of_text(vectors)

    def fuse(self, audio: Tensor, text_states: Tensor, has_text: Tensor) -> Tensor:
        """A track's audio and text in one, (B, d), not normalised: the audio alone where has_text
        (B,) is False.

        audio: (B, d) as `project_audio` gives it; text_states: (B, D) as `text_states`.
        """
        if self.uses_frozen_features:
            fused = self.fusion_head(self.audio_head, audio, text_states)
        else:  # of the vectors before normalisation, as released
            fused = self.fusion_head(torch.cat([audio, self.project_text(text_states)], dim=-1))
        return torch.where(has_text[:, None], fused, audio)

    def text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the text encoder says, before the head. input_ids, attention_mask: (B, L), 1 = real
        -> (B, D).
        """
        output = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        return text_vector(output, attention_mask, self.settings.text.pooling)

    def forward(
        self,
        mel: Tensor,
        padding_mask: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_states: Tensor | None = None,
        has_text: Tensor | None = None,
    ) -> Embeddings:
        """Both towers and the fusion over matched rows; texts as tokens, or as the encoder's states
        (B, D).

        has_text: (B,) bool; None = all rows have one. Without text a row's text vector says
        nothing.
        The scales leave through here, never read outside: under DDP a parameter used outside
        `forward` breaks.
        """
        audio = self.project_audio(mel, padding_mask)
        if text_states is None:
            if input_ids is None or attention_mask is None:
                raise ShapeError("forward needs input_ids and attention_mask, or text_states")
            text_states = self.text_states(input_ids, attention_mask)
        told = (
            torch.ones(len(audio), dtype=torch.bool, device=audio.device)
            if has_text is None
            else has_text
        )
        fused = self.fuse(audio, text_states, told)
        return Embeddings(
            audio, self.project_text(text_states), fused, dict(self.logit_scales.items())
        )

    def encode_audio(
        self, items: Sequence[str | Path | np.ndarray], batch_size: int = 32
    ) -> np.ndarray:
        """Unit vectors (n, d) float32. items: audio files, or mono waveforms (n,) at
        `mel.sample_rate` Hz.

        CheckpointError where the front end takes no sound (`features`) or its encoder is gone;
        DataError for one item.
        """
        return self.encode_features(
            [self.extract_features(item) for item in require_list(items, "items")], batch_size
        )

    def extract_features(self, item: str | Path | np.ndarray) -> np.ndarray:
        """What the audio tower reads of a file or a waveform, as `encode_features` takes it; errors as
        `encode_audio`.
        """
        mel, front_end = self.settings.mel, self.front_end
        sound = item if isinstance(item, np.ndarray) else Path(item)
        if front_end is not None:
            return front_end.extract(sound, mel.sample_rate)
        return (
            log_mel(sound, mel).astype(np.float16)
            if isinstance(sound, np.ndarray)
            else mel_of_file(sound, mel)
        )

    def encode_features(self, mels: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Unit vectors (n, d) float32 of what the audio tower reads: log-mels (t, F) in dB, or a
        front end's frames.
        """

        def project(rows: list[int]) -> Tensor:
            return F.normalize(self._project_tracks([mels[row] for row in rows]), dim=-1)

        return batched_forward(
            self, project, [len(mel) for mel in mels], batch_size, self.settings.heads.embed_dim
        )

    def encode_fused(
        self, mels: Sequence[np.ndarray], text_states: np.ndarray, batch_size: int = 32
    ) -> np.ndarray:
        """Unit vectors (n, d) float32 of audio and text together. mels: as `encode_features`.

        text_states: (n, D) as `encode_text_states` gives them; a track whose row is zeros has no
        text, and gets its audio vector.
        """

        def project(rows: list[int]) -> Tensor:
            audio = self._project_tracks([mels[row] for row in rows])
            states = torch.from_numpy(text_states[rows]).to(self.device)
            return F.normalize(self.fuse(audio, states, states.any(dim=1)), dim=-1)

        return batched_forward(
            self, project, [len(mel) for mel in mels], batch_size, self.settings.heads.embed_dim
        )

    def _project_tracks(self, tracks: list[np.ndarray]) -> Tensor:
        if self.settings.front_end == "logmel":
            mel, mask = pad_features(tracks, self.settings.mel, self.audio_encoder.min_frames)
        else:
            mel, mask = pad_frames(tracks)
        return self.project_audio(mel.to(self.device), mask.to(self.device))

    def encode_text(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Unit vectors (n, d) float32; CheckpointError if the model has no tokenizer, DataError for
        one text alone.
        """
        states = self.encode_text_states(require_list(texts, "texts"), batch_size)
        return self.encode_text_from_states(states)

    def encode_text_from_states(self, text_states: np.ndarray, batch_size: int = 512) -> np.ndarray:
        """As `encode_text`, of texts whose `encode_text_states` are known: (n, D) -> (n, d)."""

        def project(rows: list[int]) -> Tensor:
            return F.normalize(
                self.project_text(torch.from_numpy(text_states[rows]).to(self.device)), dim=-1
            )

        return batched_forward(
            self, project, [0] * len(text_states), batch_size, self.settings.heads.embed_dim
        )

    def encode_text_states(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """The text encoder's own vectors (n, D) float32, before the head: fixed while the encoder
        is frozen.

        Zeros for an empty text.
        """
        size = self.text_encoder.config.hidden_size

        def project(rows: list[int]) -> Tensor:
            has_text = torch.tensor([bool(texts[row]) for row in rows], device=self.device)
            return self._states([texts[row] for row in rows]) * has_text[:, None]

        return batched_forward(self, project, [len(text) for text in texts], batch_size, size)

    def _states(self, texts: list[str]) -> Tensor:
        if self.tokenizer is None:
            raise CheckpointError(
                "this model has no tokenizer; save one beside it (tokenizer.save_pretrained)"
            )
        tokens = tokenize(texts, self.tokenizer, self.settings.text.max_tokens)
        return self.text_states(**{name: ids.to(self.device) for name, ids in tokens.items()})


AutoConfig.register("htcl", HTCLConfig)
AutoModel.register(HTCLConfig, HTCL)
