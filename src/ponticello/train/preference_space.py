"""Stage two over a frozen front end: a preference space beside the semantic one.

The semantic space of stage one stays as it is. An encoder of the tracks' audio vectors and text
states is fitted in several ways on the training tracks and likes: by contrast over listener sets,
for several numbers of epochs, by regression, and by both together. The validation tracks, which
have no likes in training, decide which is kept, and whether it is worth being served.

Dimensions: n tracks, U listeners, W tags, d audio vector size, D text state size.
"""

import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix

from ponticello.config import Config
from ponticello.errors import ConfigError, DataError
from ponticello.features.frontend import open_features
from ponticello.listening.log import is_positive, scan_interactions
from ponticello.model.htcl import HTCL
from ponticello.model.preference import PreferenceEncoder
from ponticello.model.saving import front_end_weights
from ponticello.splits.splits import Splits, before_test, before_validation, with_role
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import (
    PLAYED_AT,
    TRACK_ID,
    USER_ID,
)
from ponticello.storage.tables import wrap_read_errors
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.dataset import require_splits, tag_table
from ponticello.train.distributed import launch_info
from ponticello.train.listener_sets import TrackInputs
from ponticello.train.loop import TrainingObserver
from ponticello.train.preference_encoder import (
    count_fit_steps,
    fit_both,
    fit_by_contrast,
    fit_by_regression,
)
from ponticello.train.runs import TrainedRun, note_listening, publish_run
from ponticello.train.selection import EncoderScore, EncoderSelection, is_significant_gain

MIN_TAG_TRACKS = 3  # training tracks; a rarer tag is not trained on alone
MIN_LISTENERS = 2  # with two likes or more

FITS = "fits"  # in a run's folder while it trains: a folder for each contrastive fit

PreferenceScorer = Callable[[HTCL, HTCL | None], np.ndarray]
"""(stage one, stage two or None) -> each validation listener's NDCG@k at the default blend."""


@dataclass(frozen=True)
class EncodedTracks:
    """Rows of the catalogue (n), sorted by id, with audio vectors (n, d) and text states (n, D)."""

    tracks: pl.DataFrame
    audio: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class PreferenceData:
    """What stage two learns from. inputs: of the n tracks; likes: (U, n) bool."""

    track_ids: list[str]
    inputs: TrackInputs
    likes: csr_matrix


@dataclass(frozen=True)
class Recipe:
    """One way to fit the encoder: n_epochs of contrast, a regression with the penalty l2, or both.

    0 = without it.
    """

    n_epochs: int = 0
    l2: float = 0.0

    @property
    def folder_name(self) -> str:
        """The name of the folder of its log and checkpoints."""
        return f"{self.n_epochs}-epochs-l2-{self.l2:g}"

    @property
    def name(self) -> str:
        """The recipe in words, for messages and records."""
        names = []
        if self.n_epochs:
            names.append(f"listener sets, {self.n_epochs} epochs")
        if self.l2:
            names.append(f"regression, l2 {self.l2:g}")
        return " and ".join(names)

    def fit(
        self,
        config: Config,
        data: PreferenceData,
        folder: Path,
        observers: Sequence[TrainingObserver],
    ) -> PreferenceEncoder:
        """Returns the fitted encoder. folder: for the log and checkpoints."""
        inputs = data.inputs
        if not self.n_epochs:
            return fit_by_regression(config, inputs, data.likes, self.l2)
        if not self.l2:
            return fit_by_contrast(config, inputs, data.likes, self.n_epochs, folder, observers)
        return fit_both(config, inputs, data.likes, self.n_epochs, self.l2, folder, observers)


def train_preference_space(
    folder: LibraryPaths,
    run: Path,
    start_folder: Path,
    stage_one_id: str,
    read_sha256: str | None,
    scorer: PreferenceScorer | None,
    observers: Sequence[TrainingObserver],
) -> TrainedRun:
    """Trains the preference encoder beside the stage one in `start_folder`; writes the run.

    read_sha256: of the log, as for `note_listening`. scorer: None fits one recipe of both kinds,
        which is not measured.
    Raises DataError if fewer than two listeners like two training tracks, and ConfigError under
    torchrun.
    """
    if launch_info()[1] > 1:
        raise ConfigError(
            "stage two over a frozen front end trains in one process; start it without torchrun"
        )
    config = folder.config
    settings = config.preference
    stage_one = HTCL.from_pretrained(start_folder)
    splits = require_splits(folder)
    training = encode_tracks(folder, stage_one, start_folder, splits, "train")
    likes = read_likes(folder, splits, ("train",))
    data = build_preference_data(config, stage_one, training, likes)
    _require_likes(data, folder)
    note_listening(folder, run, read_sha256)
    fit_folder = run / FITS
    selection = None
    if scorer is None:
        best = Recipe(
            max(settings.epochs_tried, default=0), min(settings.regression_l2_tried, default=0.0)
        )
        encoder = best.fit(config, data, fit_folder / best.folder_name, observers)
    else:
        best, encoder, selection = _select(config, stage_one, data, scorer, fit_folder, observers)
        if settings.refit and selection.is_served:
            validation = encode_tracks(folder, stage_one, start_folder, splits, "validation")
            likes = read_likes(folder, splits, ("train", "validation"))
            encoded = join_tracks(training, validation)
            data = build_preference_data(config, stage_one, encoded, likes)
            encoder = best.fit(config, data, fit_folder / "refit", observers)
    stage_one.use_settings(config)
    stage_one.use_preference_encoder(encoder)
    n_steps = count_fit_steps(settings, data.likes, best.n_epochs)
    trained = TrainedRun(run, "preference", int(data.likes.nnz), 0, n_steps, {})
    keep = None if selection is None else partial(_with_selection, selection)
    finished = publish_run(trained, stage_one, select=keep, stage_one_space_id=stage_one_id)
    shutil.rmtree(fit_folder, ignore_errors=True)
    return finished


def _with_selection(selection: EncoderSelection, model: HTCL) -> tuple[HTCL, EncoderSelection]:
    return model, selection


def encode_tracks(
    folder: LibraryPaths, stage_one: HTCL, start_folder: Path, splits: Splits, role: str
) -> EncodedTracks:
    """Encodes the prepared tracks of a role by `stage_one`, which `start_folder` holds."""
    config = folder.config
    store = open_features(folder, config, front_end_weights(start_folder))
    track_ids = [track_id for track_id in with_role(splits, role) if track_id in store]
    tracks = read_tracks(folder).filter(pl.col(TRACK_ID).is_in(track_ids)).sort(TRACK_ID)
    track_ids = tracks[TRACK_ID].to_list()
    texts = fused_texts(tracks, config.front_end)
    return EncodedTracks(
        tracks,
        stage_one.encode_audio_block([store.read(track_id) for track_id in track_ids]),
        stage_one.encode_text_states([texts[track_id] for track_id in track_ids]),
    )


def join_tracks(left: EncodedTracks, right: EncodedTracks) -> EncodedTracks:
    """Returns the tracks of both, which have none in common."""
    tracks = pl.concat([left.tracks, right.tracks])
    order = tracks[TRACK_ID].arg_sort()
    rows = order.to_numpy()
    return EncodedTracks(
        tracks[order],
        np.concatenate([left.audio, right.audio])[rows],
        np.concatenate([left.states, right.states])[rows],
    )


def build_preference_data(
    config: Config, stage_one: HTCL, encoded: EncodedTracks, events: pl.DataFrame
) -> PreferenceData:
    """Returns what an encoder is fitted to. events: as `read_likes` returns them.

    A track with fewer than `pairs.min_users` listeners counts as liked by nobody.
    """
    track_ids = encoded.tracks[TRACK_ID].to_list()
    tag_names, tags = tag_table(encoded.tracks, MIN_TAG_TRACKS)
    inputs = TrackInputs(
        torch.from_numpy(encoded.audio),
        torch.from_numpy(encoded.states),
        tags,
        torch.from_numpy(stage_one.encode_text_states(tag_names)),
    )
    return PreferenceData(track_ids, inputs, _like_table(events, track_ids, config.pairs.min_users))


def read_likes(folder: LibraryPaths, splits: Splits, roles: tuple[str, ...]) -> pl.DataFrame:
    """Returns the positive events that may be learned from, on any track: user_id, track_id.

    Those are of the training window for the role "train" alone, and of all but the test window
    otherwise. Raises DataError if the log is damaged.
    """
    liked = is_positive(folder.config.pairs.min_played_s)
    events = scan_interactions(folder).filter(liked).select(USER_ID, TRACK_ID, PLAYED_AT)
    with wrap_read_errors(folder.interactions):
        collected = events.collect(engine="streaming")
    if roles == ("train",):
        return before_validation(splits, collected)
    return before_test(splits, collected)


def _like_table(events: pl.DataFrame, track_ids: list[str], min_users: int) -> csr_matrix:
    """Returns (U, n) bool, the distinct likes of the tracks; listeners sorted by id."""
    rows = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String}).with_row_index("track")
    likes = events.join(rows, on=TRACK_ID).select(USER_ID, "track").unique().sort(USER_ID, "track")
    likes = likes.filter(pl.len().over("track") >= min_users)
    listeners = likes[USER_ID].rank("dense").cast(pl.Int64).to_numpy() - 1
    shape = (int(listeners.max(initial=-1)) + 1, len(track_ids))
    values = np.ones(likes.height, dtype=bool)
    return csr_matrix((values, (listeners, likes["track"].to_numpy())), shape)


def _require_likes(data: PreferenceData, folder: LibraryPaths) -> None:
    n_listeners = int((np.diff(data.likes.indptr) >= 2).sum())
    min_users = folder.config.pairs.min_users
    if n_listeners < MIN_LISTENERS:
        raise DataError(
            f"stage preference: {n_listeners} listeners like two training tracks or more; at "
            f"least {MIN_LISTENERS} are needed, and a track counts from {min_users} listeners on "
            "(pairs.min_users): import more listening, or lower it; until then stage one answers "
            "alone"
        )


def _select(
    config: Config,
    stage_one: HTCL,
    data: PreferenceData,
    scorer: PreferenceScorer,
    fit_folder: Path,
    observers: Sequence[TrainingObserver],
) -> tuple[Recipe, PreferenceEncoder, EncoderSelection]:
    """Fits and scores every recipe, and returns the one to serve.

    The best contrast and the best regression are fitted together, too. That mean of both is kept
    unless one of them alone is better by more than chance: it is seldom far from the better one.
    """
    settings = config.preference
    stage_two = deepcopy(stage_one)
    fits: dict[Recipe, tuple[PreferenceEncoder, np.ndarray]] = {}

    def fit_best(recipes: list[Recipe]) -> Recipe:
        for recipe in recipes:
            encoder = recipe.fit(config, data, fit_folder / recipe.folder_name, observers)
            stage_two.use_preference_encoder(encoder)
            fits[recipe] = (encoder, scorer(stage_one, stage_two))
        return max(recipes, key=lambda recipe: _mean(fits[recipe][1]))

    baseline = scorer(stage_one, None)
    singles = []
    if settings.epochs_tried:
        singles.append(fit_best([Recipe(n_epochs=n) for n in sorted(settings.epochs_tried)]))
    if settings.regression_l2_tried:
        singles.append(fit_best([Recipe(l2=l2) for l2 in settings.regression_l2_tried]))
    best = singles[0]
    if len(singles) == 2:
        best = fit_best([Recipe(singles[0].n_epochs, singles[1].l2)])
        for single in sorted(singles, key=lambda recipe: _mean(fits[recipe][1])):
            if is_significant_gain(fits[single][1], fits[best][1], settings.gain_confidence):
                best = single
    encoder, users = fits[best]
    is_served = is_significant_gain(users, baseline, settings.gain_confidence)
    selection = EncoderSelection(
        recipe=best.name,
        is_served=is_served,
        semantic=_mean(baseline),
        preference=_mean(users),
        candidates=[EncoderScore(recipe.name, _mean(fits[recipe][1])) for recipe in fits],
        n_users=len(baseline),
        is_refitted=settings.refit and is_served,
    )
    return best, encoder, selection


def _mean(scores: np.ndarray) -> float:
    return float(np.nanmean(scores)) if len(scores) else 0.0
