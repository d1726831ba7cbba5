"""HTCL: the two towers, their heads and the fusion, as one Hugging Face model.

Dimensions: B rows, T frames, F mel bands, L tokens, d joint dimensions.
Source: HTCL (arXiv 2505.23298).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from ponticello.config import Config
from ponticello.data.audio import load_audio
from ponticello.data.batch import pad_frames, pad_mels, tokenize
from ponticello.data.mel import log_mel, mel_of_file
from ponticello.errors import CheckpointError, ShapeError
from ponticello.model.audio_encoder import AudioEncoder, masked_mean
from ponticello.model.frame_encoder import AnchoredHead, FrameEncoder
from ponticello.model.front_end import FRAME_SECONDS, FRAME_SIZE, frames_of
from ponticello.model.heads import MLP
from ponticello.model.text_encoder import build_text_encoder, load_text_encoder, text_vector

SCALES = ("audio_text", "audio_audio", "audio_fusion")


class HTCLConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """All that is needed to rebuild an `HTCL`: our `Config` as a dict, and the text encoder's own configuration."""

    model_type = "htcl"

    def __init__(
        self, settings: dict[str, Any] | None = None, text_config: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.settings = settings or Config().model_dump(mode="json")
        self.text_config = text_config or {}
        super().__init__(**options)

    @property
    def parts(self) -> Config:
        """The settings, checked."""
        try:
            return Config.model_validate(self.settings)
        except ValidationError as error:
            raise CheckpointError(f"config.json: {str(error).splitlines()[1]}: {error.errors()[0]['msg']}") from None


@dataclass(frozen=True)
class Embeddings:
    """What one forward pass gives: (B, d) each, not normalised, and the log scale of each loss."""

    audio: Tensor
    text: Tensor
    fused: Tensor
    logit_scales: dict[str, Tensor]


class HTCL(PreTrainedModel):
    """An audio encoder and a pretrained BERT that meet in one space.

    model = HTCL.from_pretrained("my-library/runs/preference")
    model.encode_audio(["a.flac", "b.mp3"])         # (2, d) float32, unit length
    model.encode_text(["slow piano at night"])      # (1, d) float32, unit length
    """

    config_class = HTCLConfig
    main_input_name = "mel"

    def __init__(self, config: HTCLConfig) -> None:
        super().__init__(config)
        self.parts = config.parts
        audio, heads = self.parts.audio, self.parts.heads
        self.audio_encoder: Any  # AudioEncoder with an MLP as head, or FrameEncoder with an AnchoredHead
        self.audio_head: Any
        if self.parts.front_end == "logmel":
            self.audio_encoder = AudioEncoder(audio, self.parts.mel.n_mels)
            self.audio_head = MLP((audio.hidden_size, *heads.hidden_sizes, heads.embed_dim), heads.dropout)
        else:
            self.audio_encoder = FrameEncoder(FRAME_SIZE)
            self.audio_head = AnchoredHead(FRAME_SIZE, heads.hidden_sizes, heads.embed_dim, heads.dropout)
        self.text_encoder = build_text_encoder(config.text_config)
        text_size = self.text_encoder.config.hidden_size
        self.text_head = MLP((text_size, *heads.hidden_sizes, heads.embed_dim), heads.dropout)
        self.fusion_head = MLP((2 * heads.embed_dim, *heads.fusion_hidden_sizes, heads.embed_dim), heads.dropout)
        self.logit_scales = nn.ParameterDict({name: nn.Parameter(torch.tensor(heads.logit_scale)) for name in SCALES})
        self.tokenizer: Any = None
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation, each layer on its own draw."""
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()

    @classmethod
    def from_settings(cls, config: Config, allow_download: bool = False) -> "HTCL":
        """A model with a pretrained text tower and everything else fresh, drawn from torch's global generator."""
        encoder, tokenizer = load_text_encoder(config.text.name, allow_download)
        model = cls(HTCLConfig(config.model_dump(mode="json"), encoder.config.to_dict()))
        model.text_encoder.load_state_dict(encoder.state_dict())
        model.tokenizer = tokenizer
        return model

    @classmethod
    def from_pretrained(cls, place: str | Path, *args: Any, **options: Any) -> "HTCL":  # type: ignore[override]
        """The model and tokenizer saved at `place`, in eval mode; CheckpointError if it holds no whole HTCL."""
        place = Path(place)
        if place.is_dir() or options.get("local_files_only", True):
            _check_kind(place / "config.json")
        options = {"local_files_only": True, "use_safetensors": True, **options, "output_loading_info": True}
        try:
            loaded: Any = super().from_pretrained(str(place), *args, **options)
            model: HTCL = loaded[0]
            if (place / "tokenizer_config.json").is_file():
                model.tokenizer = AutoTokenizer.from_pretrained(str(place), local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{place} cannot be loaded: {str(error).splitlines()[0]}") from None
        wrong = sorted([*loaded[1]["missing_keys"], *loaded[1]["unexpected_keys"]])
        if wrong:
            raise CheckpointError(f"{place} does not hold the weights its config.json asks for: {', '.join(wrong[:5])}")
        return model

    def save_pretrained(self, place: str | Path, *args: Any, **options: Any) -> None:  # type: ignore[override]
        """Writes config.json, model.safetensors and the tokenizer; CheckpointError if a weight is not finite."""
        for name, weight in self.state_dict().items():
            if not torch.isfinite(weight).all():
                raise CheckpointError(f"weight {name} is not finite: nothing was saved to {place}")
        super().save_pretrained(str(place), *args, **options)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(str(place))

    def use_settings(self, config: Config) -> None:
        """Takes over how `config` trains and searches; CheckpointError if it describes another model."""
        for part in ("front_end", "mel", "audio", "text", "heads"):
            here, there = getattr(self.parts, part), getattr(config, part)
            if here != there:
                raise CheckpointError(f"the model was made with [{part}] {here}; the settings now say {there}")
        self.parts, self.config.settings = config, config.model_dump(mode="json")

    def n_frames(self, seconds: float) -> int:
        """How many frames of what the audio tower reads make up so much sound, at least one."""
        mel = self.parts.mel
        if self.parts.front_end == "logmel":
            return 1 + int(seconds * mel.sample_rate) // mel.hop_length
        return max(1, round(seconds / FRAME_SECONDS))

    def reset_heads(self) -> None:
        """Fresh projection heads and scales, as the released code starts stage two."""
        for head in (self.audio_head, self.text_head, self.fusion_head):
            head.apply(self._init_weights)
        for scale in self.logit_scales.values():
            torch.nn.init.constant_(scale, self.parts.heads.logit_scale)

    def project_audio(self, mel: Tensor, padding_mask: Tensor) -> Tensor:
        """mel: (B, T, F) normalised; padding_mask: (B, T), True = padding -> (B, d), not normalised."""
        vectors: Tensor = self.audio_head(masked_mean(*self.audio_encoder(mel, padding_mask)))
        return vectors

    def text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the text encoder says, before the head. input_ids, attention_mask: (B, L), 1 = real -> (B, D)."""
        output = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        return text_vector(output, attention_mask, self.parts.text.pooling)

    def forward(
        self,
        mel: Tensor,
        padding_mask: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_states: Tensor | None = None,
    ) -> Embeddings:
        """Both towers and the fusion over matched rows; texts as tokens, or as the encoder's states (B, D).

        The scales leave through here, never read outside: under DDP a parameter used outside `forward` breaks.
        """
        audio = self.project_audio(mel, padding_mask)
        if text_states is None:
            if input_ids is None or attention_mask is None:
                raise ShapeError("forward needs input_ids and attention_mask, or text_states")
            text_states = self.text_states(input_ids, attention_mask)
        text = self.text_head(text_states)
        fused = self.fusion_head(torch.cat([audio, text], dim=-1))  # of the vectors before normalisation, as released
        return Embeddings(audio, text, fused, dict(self.logit_scales.items()))

    def encode_audio(self, items: Sequence[str | Path | np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Unit vectors (n, d) float32. items: audio files, or mono waveforms (n,) at `mel.sample_rate` Hz."""
        return self.encode_mels([self._frames(item) for item in items], batch_size)

    def _frames(self, item: str | Path | np.ndarray) -> np.ndarray:
        """What the audio tower reads of a file or a waveform."""
        mel = self.parts.mel
        if self.parts.front_end == "musicnn":
            sound = item if isinstance(item, np.ndarray) else load_audio(Path(item), mel.sample_rate, mel.max_seconds)
            return frames_of(sound, mel.max_seconds)
        return log_mel(item, mel).astype(np.float16) if isinstance(item, np.ndarray) else mel_of_file(Path(item), mel)

    def encode_mels(self, mels: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Unit vectors (n, d) float32 of what the audio tower reads: log-mels (t, F) in dB, or a front end's frames."""

        def project(rows: list[int]) -> Tensor:
            tracks = [mels[row] for row in rows]
            if self.parts.front_end == "logmel":
                mel, mask = pad_mels(tracks, self.parts.mel, self.audio_encoder.min_frames)
            else:
                mel, mask = pad_frames(tracks)
            return F.normalize(self.project_audio(mel.to(self.device), mask.to(self.device)), dim=-1)

        return self._in_batches(project, [len(mel) for mel in mels], batch_size, self.parts.heads.embed_dim)

    def encode_text(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Unit vectors (n, d) float32. CheckpointError if the model was saved without a tokenizer."""

        def project(rows: list[int]) -> Tensor:
            vectors: Tensor = self.text_head(self._states([texts[row] for row in rows]))
            return F.normalize(vectors, dim=-1)

        return self._in_batches(project, [len(text) for text in texts], batch_size, self.parts.heads.embed_dim)

    def encode_text_states(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """The text encoder's own vectors (n, D) float32, before the head: fixed while the encoder is frozen."""
        size = self.text_encoder.config.hidden_size
        return self._in_batches(
            lambda rows: self._states([texts[row] for row in rows]), [len(text) for text in texts], batch_size, size
        )

    def _states(self, texts: list[str]) -> Tensor:
        if self.tokenizer is None:
            raise CheckpointError("this model has no tokenizer; save one beside it (tokenizer.save_pretrained)")
        tokens = tokenize(texts, self.tokenizer, self.parts.text.max_tokens)
        return self.text_states(**{name: ids.to(self.device) for name, ids in tokens.items()})

    @torch.no_grad()
    def _in_batches(
        self, project: Callable[[list[int]], Tensor], sizes: list[int], batch_size: int, n_columns: int
    ) -> np.ndarray:
        """`project` over all rows in eval mode, rows of like size together; (n, n_columns) in the given order."""
        vectors = np.empty((len(sizes), n_columns), dtype=np.float32)
        order = sorted(range(len(sizes)), key=lambda row: sizes[row])
        modes = [(module, module.training) for module in self.modules()]
        self.train(False)
        try:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                vectors[rows] = project(rows).float().cpu().numpy()
        finally:
            for module, mode in modes:
                module.training = mode
        return vectors


def _check_kind(config: Path) -> None:
    """CheckpointError unless `config` is the config.json of an HTCL."""
    if not config.is_file():
        raise CheckpointError(f"{config.parent} holds no model (config.json is missing); train one, or check the path")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        kind = "damaged"
    if kind != "htcl":
        raise CheckpointError(f"{config.parent} cannot be loaded: config.json is of kind {kind!r}, not 'htcl'")


AutoConfig.register("htcl", HTCLConfig)
AutoModel.register(HTCLConfig, HTCL)
