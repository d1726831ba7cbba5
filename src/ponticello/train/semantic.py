"""Stage one: trains the text tower and the audio tower to agree, from a library's tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix
from transformers import set_seed

from ponticello.config import Config
from ponticello.features.musicnn_frontend import tagger_scores, tagger_tags
from ponticello.model.adapter import fit_feature_projection
from ponticello.model.htcl import HTCL
from ponticello.model.semantic_space import Vocabulary, fit_semantic_space
from ponticello.model.starter import load_starter_weights, starter_fits
from ponticello.splits.splits import Splits, with_role
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts, track_texts, track_variants
from ponticello.train.contrastive import RetrievalReport, contrastive_task, require_rows
from ponticello.train.dataset import (
    Frames,
    StageData,
    open_training_frames,
    require_splits,
    tag_table,
    track_dataset,
)
from ponticello.train.loop import TrainingObserver, run_loop, training_device
from ponticello.train.questions import (
    HeldOutQuestions,
    TrainingQuestions,
    build_questions,
    hold_out_questions,
)
from ponticello.train.runs import (
    TrainedRun,
    finished_run,
    publish_run,
    run_fingerprint,
    training_folder,
)
from ponticello.train.stages import semantic_stage

MIN_TAG_TRACKS = 8  # training tracks of a tag of the vocabulary
MAX_TAGS = 2000  # of the vocabulary, the most frequent
MAX_FITTED_TRACKS = 20_000  # evenly drawn, to which axes, tags and questions are fitted
TAG_WORDING = "{} music"  # by which a question is compared with a tag


def train_semantic(
    folder: LibraryPaths,
    name: str,
    retrieval: RetrievalReport,
    *,
    allow_download: bool = False,
    observers: Sequence[TrainingObserver] = (),
) -> TrainedRun:
    """Trains stage one on the training tracks that have audio and text.

    The text tower starts pretrained. An interrupted run of this name continues from its last
    checkpoint; a finished one is returned without training.

    Raises LibraryError if an earlier step is missing, DataError if there is too little data,
    CheckpointError if a run of this name was made with other settings or data, and Stopped after
    SIGTERM.
    """
    config = folder.config
    run = training_folder(folder, name)
    finished = finished_run(run, "semantic", config)
    if finished is not None:
        return finished
    tracks = read_tracks(folder)
    data = _read_data(folder, tracks)
    require_rows("semantic", data)
    set_seed(config.semantic.seed)
    questions = None
    held_out = None
    if config.front_end == "logmel":
        model = HTCL.from_settings(config, allow_download)
    else:
        model, questions, held_out = build_over_front_end(
            config, tracks, data.training.store, data.splits, allow_download
        )
    model.to(training_device(config.semantic))  # type: ignore[arg-type]
    task = contrastive_task(
        semantic_stage(config), model, data, retrieval, questions=questions, held_out=held_out
    )
    result = run_loop(
        task, run, observers, run_fingerprint("semantic", model, data.training.contents())
    )
    n_rows = len(data.training)
    n_left_out = data.n_candidates - n_rows
    trained = TrainedRun(run, "semantic", n_rows, n_left_out, result.n_steps, result.best)
    return publish_run(trained, model)


def _read_data(folder: LibraryPaths, tracks: pl.DataFrame) -> StageData:
    splits = require_splits(folder)
    frames = open_training_frames(folder)
    settings = folder.config.semantic
    texts = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    variants = _text_variants(tracks, settings.text_variants, settings.seed)
    train_ids = _with_role(texts, splits, "train")
    validation_ids = _with_role(texts, splits, "validation")
    return StageData(
        training=track_dataset(frames, texts, train_ids, variants),
        validation=track_dataset(frames, texts, validation_ids, variants),
        splits=splits,
        n_candidates=len(with_role(splits, "train")),
    )


def _with_role(track_ids: Iterable[str], splits: Splits, role: str) -> list[str]:
    return [track_id for track_id in track_ids if splits.roles.get(track_id) == role]


def _text_variants(tracks: pl.DataFrame, n: int, seed: int) -> dict[str, list[str]]:
    """Returns n - 1 other wordings of each track's text by track id; empty strings without text."""
    variants = {}
    for track_id, wordings in zip(tracks[TRACK_ID], track_variants(tracks, n, seed), strict=True):
        variants[track_id] = wordings[1:] or [""] * (n - 1)
    return variants


@dataclass(frozen=True)
class _Tracks:
    """Prepared tracks of a role, `MAX_FITTED_TRACKS` at most.

    means: (n, F), their mean frames. tags: (n, W) bool.
    """

    table: pl.DataFrame
    means: np.ndarray
    tags: csr_matrix


def build_over_front_end(
    config: Config,
    tracks: pl.DataFrame,
    frames: Frames,
    splits: Splits,
    allow_download: bool = False,
) -> tuple[HTCL, TrainingQuestions | None, HeldOutQuestions | None]:
    """Returns a model whose axes and tags are fitted to the training tracks, and its questions.

    With `semantic.init_from_pretrained` the axes and the text head are the starter's.
    Raises DataError for fewer than two training tracks.
    """
    tag_names, tags = tag_table(tracks)
    training = _tracks_of(tracks, tags, frames, splits, "train")
    counts = np.asarray(training.tags.sum(axis=0)).ravel()
    frequent = np.argsort(-counts, kind="stable")[:MAX_TAGS]
    frequent = frequent[counts[frequent] >= MIN_TAG_TRACKS]
    names = [tag_names[column] for column in frequent]
    given = training.tags[:, frequent].toarray()
    heard = np.zeros((len(given), 0))
    if config.front_end == "musicnn":
        # Also those that the catalogue has: what was heard of a tag and who carries it both count.
        heard = tagger_scores(training.means)
        names += tagger_tags()
    model = HTCL.from_settings(config, allow_download, frames.frame_size, frames.weights, names)
    is_pretrained = config.semantic.init_from_pretrained and starter_fits(config)
    front_end = model.front_end
    assert front_end is not None
    if is_pretrained:
        load_starter_weights(model)
    else:
        blocks = front_end.blocks(frames.frame_size)
        fit_feature_projection(model.audio_encoder, model.audio_head, training.means, blocks)
    audio = model.encode_audio_block([mean[None] for mean in training.means])
    texts = fused_texts(training.table, config.front_end)
    text_states = model.encode_text_states([texts[track] for track in training.table[TRACK_ID]])
    tag_states = model.encode_text_states([TAG_WORDING.format(name) for name in names])
    n_texts = int(text_states.any(axis=1).sum())
    keeps_axes = is_pretrained and n_texts < 2 * model.settings.heads.embed_dim
    vocabulary = Vocabulary(names, tag_states, given, heard)
    fit_semantic_space(model.semantic_space, audio, text_states, vocabulary, not keeps_axes)
    if not config.semantic.questions_loss_weight or config.text.trainable:
        return model, None, None
    settings = config.semantic
    questions = build_questions(
        model, audio, text_states, given, settings.question_words, settings.seed
    )
    validation = _tracks_of(tracks, tags, frames, splits, "validation")
    audio = model.encode_audio_block([mean[None] for mean in validation.means])
    held_out = hold_out_questions(model, audio, validation.tags[:, frequent].toarray())
    return model, questions, held_out


def _tracks_of(
    tracks: pl.DataFrame, tags: csr_matrix, frames: Frames, splits: Splits, role: str
) -> _Tracks:
    rows = []
    for row, track_id in enumerate(tracks[TRACK_ID]):
        if splits.roles.get(track_id) == role and track_id in frames:
            rows.append(row)
    rows = rows[:: max(1, -(-len(rows) // MAX_FITTED_TRACKS))]
    table = tracks[rows]
    means = [frames.read(track_id).mean(axis=0, dtype=np.float64) for track_id in table[TRACK_ID]]
    return _Tracks(table, np.array(means).reshape(len(rows), frames.frame_size), tags[rows])
