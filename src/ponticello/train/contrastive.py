"""The training task of a contrastive stage: batches of matched rows, their loss, and validation.

Both stages of HTCL are one: a row is a track and its text, or a pair of tracks.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.errors import DataError
from ponticello.model.htcl import HTCL, Embeddings, eval_mode
from ponticello.splits.splits import with_role
from ponticello.train.dataset import (
    NO_TEXT,
    TEXT_INPUTS,
    Collator,
    LazyBatch,
    StageData,
    TrackTuples,
    compute_text_states,
    row_batches,
)
from ponticello.train.distributed import launch_info
from ponticello.train.gradcache import VECTOR_NAMES, cached_backward
from ponticello.train.loop import TrainingTask
from ponticello.train.questions import HeldOutQuestions, TrainingQuestions
from ponticello.train.schedule import count_steps
from ponticello.train.stages import Stage, StageName

logger = logging.getLogger(__name__)

VALIDATION_ROWS = 2048  # at most; the validation loss contrasts all of them at once
# Not the loss: with few tracks it rises with confidence while the ranking still improves.
BEST_BY = "mrr"
BEST_BY_QUESTIONS = "questions_auc"
ROW_NAMES = {
    "semantic": "tracks with audio and text",
    "preference": "pairs with audio and text on both sides",
}

RetrievalReport = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
"""(queries (n, d), items (m, d), targets (n,)) -> metrics with "mrr"; passed in, since `evaluate`
imports this package."""


def require_rows(stage_name: StageName, data: StageData) -> None:
    """Raises DataError if there are too few rows to train on."""
    n_training = len(data.training)
    n_validation = len(data.validation)
    if n_training // launch_info()[1] >= 2 and n_validation >= 2:
        return
    until = "; until then stage one answers alone" if stage_name == "preference" else ""
    raise DataError(
        f"stage {stage_name}: {n_training} training and {n_validation} validation "
        f"{ROW_NAMES[stage_name]}; at least 2 of each are needed: import more tracks or "
        f"listening, lower pairs.min_users, or change the splits{until}"
    )


def contrastive_task(
    stage: Stage,
    model: HTCL,
    data: StageData,
    retrieval: RetrievalReport,
    teacher: Tensor | None = None,
    questions: TrainingQuestions | None = None,
    held_out: HeldOutQuestions | None = None,
) -> TrainingTask[LazyBatch]:
    """Returns the task of training `model`, whose idle weights it freezes.

    teacher: as in `Collator`. questions: what stage one learns beside the texts. held_out: the
    questions by which the best checkpoint is chosen; None = by the retrieval of texts.
    """
    settings = stage.settings
    stage.freeze_idle(model)
    model.audio_encoder.gradient_checkpointing = settings.gradient_checkpointing
    if settings.compile:
        # dynamic=False, since inductor 2.13 fails on the convolutions where the length is a symbol.
        model.audio_encoder.compile(dynamic=False)
    config = model.settings
    collator = Collator(
        model.tokenizer,
        config.mel if config.front_end == "logmel" else None,
        model.audio_encoder.min_frames,
        config.text.max_tokens,
        None if config.text.trainable else compute_text_states(model, data.training),
        teacher,
    )
    batch_size = _batch_size(stage, data.training)
    unseen = frozenset(with_role(data.splits, "validation"))
    matched = _MatchedRows(
        stage, model, data, retrieval, collator, batch_size, unseen, questions, held_out
    )
    return TrainingTask(
        stage.name,
        model,
        settings,
        count_steps(settings, len(data.training) // (batch_size * launch_info()[1])),
        matched.batches,
        matched.loss_terms,
        matched.validate,
        BEST_BY if held_out is None else BEST_BY_QUESTIONS,
    )


def _batch_size(stage: Stage, training: TrackTuples) -> int:
    """Returns the stage's batch size, or fewer with a warning where there are fewer rows."""
    configured = stage.settings.batch_size
    batch_size = min(configured, len(training) // launch_info()[1])
    if batch_size < configured:
        rows = f"{len(training)} {ROW_NAMES[stage.name]}"
        logger.warning("batch size %d instead of %d: there are %s", batch_size, configured, rows)
    return batch_size


@dataclass(frozen=True)
class _MatchedRows:
    """The functions of a contrastive task, over its data. unseen: the validation tracks."""

    stage: Stage
    model: HTCL
    data: StageData
    retrieval: RetrievalReport
    collator: Collator
    batch_size: int
    unseen: frozenset[str]
    questions: TrainingQuestions | None = None
    held_out: HeldOutQuestions | None = None

    def batches(self, start: int) -> Iterator[LazyBatch]:
        """Yields this process's batches; their draws depend on the seed and the step alone."""
        training = self.data.training
        seed = self.stage.settings.seed
        numbers_by_step = row_batches(len(training), self.batch_size, seed, start)
        for step, numbers in enumerate(numbers_by_step, start):
            yield LazyBatch(
                self.collator.unpadded([training[int(row)] for row in numbers]),
                self.collator.pad,
                self.model.crop_frames,
                self.model.device,
                np.random.default_rng((seed, step, launch_info()[0])),
            )

    def loss_terms(self, model: nn.Module, batch: LazyBatch) -> dict[str, Tensor]:
        """Returns the loss terms; with `chunk_size` their gradients are already added."""

        def encode(rows: Tensor) -> Embeddings:
            return self._encode(model, batch.rows(rows))

        def loss(embeddings: Embeddings) -> dict[str, Tensor]:
            return self.stage.loss(embeddings, **batch.loss_inputs)

        chunk_size = self.stage.settings.chunk_size
        if not chunk_size:
            terms = loss(encode(torch.arange(len(batch))))
        else:
            no_sync = getattr(model, "no_sync", nullcontext)  # DDP's
            terms = cached_backward(encode, batch.chunks(chunk_size), loss, no_sync)
        if self.questions is not None:
            weight = self.model.settings.semantic.questions_loss_weight
            terms["questions"] = weight * self.questions.loss(self.model, batch.seed)
        return terms

    def _encode(self, model: nn.Module, inputs: dict[str, Tensor]) -> Embeddings:
        """Returns float32 vectors; with `bf16` the towers compute them in bfloat16."""
        device = self.model.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.stage.settings.bf16):
            embeddings: Embeddings = model(**inputs)
        vectors = {name: getattr(embeddings, name).float() for name in VECTOR_NAMES}
        return replace(embeddings, **vectors)

    def validate(self) -> dict[str, float]:
        """Computes validation losses and retrieval metrics."""
        rows, track_numbers, text_numbers = self._embed_validation()
        loss = replace(self.stage.loss, gather_negatives=False)
        terms = loss(rows, track_numbers, text_numbers)
        metrics = {f"loss_{name}": term.item() for name, term in terms.items()}
        metrics["loss"] = sum(metrics.values())
        if not math.isfinite(metrics["loss"]):
            return metrics  # the loop refuses it
        retrieval = self._retrieval(rows, text_numbers)
        reciprocal_ranks = [value for name, value in retrieval.items() if name.endswith("_mrr")]
        if self.held_out is not None:
            with eval_mode(self.model):
                metrics[BEST_BY_QUESTIONS] = self.held_out.measure(self.model)
        return metrics | retrieval | {BEST_BY: float(np.mean(reciprocal_ranks))}

    def _validation_columns(self) -> list[tuple[str, ...]]:
        """Returns the tracks, or anchors and positives, of evenly spread rows; always the same."""
        rows = self.data.validation.rows
        step = math.ceil(len(rows) / VALIDATION_ROWS)
        return list(zip(*rows[::step], strict=True))

    @torch.no_grad()
    def _embed_validation(self) -> tuple[Embeddings, Tensor, Tensor]:
        """Returns embeddings, track numbers and text numbers of the validation rows.

        Anchors come first, then positives. A track in several rows is encoded once.
        """
        device = self.model.device
        track_ids = list(chain.from_iterable(self._validation_columns()))
        unique_ids = list(dict.fromkeys(track_ids))
        singles = [(track_id,) for track_id in unique_ids]
        validation = self.data.validation
        dataset = TrackTuples(validation.store, validation.texts, singles)
        size = self.stage.settings.chunk_size or self.batch_size
        chunks: dict[str, list[Tensor]] = defaultdict(list)
        with eval_mode(self.model):
            for start in range(0, len(dataset), size):
                stop = min(start + size, len(dataset))
                batch = self.collator([dataset[row] for row in range(start, stop)])
                batch.pop("teacher", None)
                batch = {name: value.to(device) for name, value in batch.items()}
                chunks["track_numbers"].append(batch.pop("track_numbers"))
                chunks["text_numbers"].append(batch.pop("text_numbers"))
                for name in batch.keys() & set(TEXT_INPUTS):
                    batch[name] = batch[name][:, 0]  # the first wording
                output = self._encode(self.model, batch)
                for name in VECTOR_NAMES:
                    chunks[name].append(getattr(output, name))
        row_of = {track_id: row for row, track_id in enumerate(unique_ids)}
        rows = torch.tensor([row_of[track_id] for track_id in track_ids], device=device)
        columns = {name: torch.cat(tensors)[rows] for name, tensors in chunks.items()}
        track_numbers = columns.pop("track_numbers")
        text_numbers = columns.pop("text_numbers")
        embeddings = Embeddings(**columns, logit_scales=output.logit_scales)
        return embeddings, track_numbers, text_numbers

    def _retrieval(self, rows: Embeddings, text_numbers: Tensor) -> dict[str, float]:
        """Returns metrics of retrieval among the validation tracks.

        By text, and in stage two from each pair's other track: a pair holds one validation track
        and one of training.
        """
        audio = F.normalize(rows.audio, dim=-1).cpu().numpy()
        text = F.normalize(rows.text, dim=-1).cpu().numpy()
        columns = self._validation_columns()
        unseen_rows = {}  # of the items that are searched
        for row, track_id in enumerate(chain.from_iterable(columns)):
            if track_id in self.unseen:
                unseen_rows[track_id] = row
        item_rows = list(unseen_rows.values())
        items = audio[item_rows]
        metrics: dict[str, float] = {}
        targets = [item for item, row in enumerate(item_rows) if text_numbers[row] != NO_TEXT]
        if targets:
            queries = text[[item_rows[item] for item in targets]]
            by_text = self.retrieval(queries, items, np.array(targets))
            metrics |= {f"text_{name}": value for name, value in by_text.items()}
        if self.stage.tracks_per_row == 2:
            item_of = {track_id: item for item, track_id in enumerate(unseen_rows)}
            query_rows = []
            targets = []
            for row, (anchor, positive) in enumerate(zip(*columns, strict=True)):
                is_from_anchor = positive in item_of
                query_rows.append(row if is_from_anchor else row + len(columns[0]))
                targets.append(item_of[positive if is_from_anchor else anchor])
            by_pair = self.retrieval(audio[query_rows], items, np.array(targets))
            metrics |= {f"pair_{name}": value for name, value in by_pair.items()}
        return metrics
