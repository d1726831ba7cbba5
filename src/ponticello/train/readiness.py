"""Counts a library's training data, and reports which stage it is too little for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.features.store import MANIFEST, read_manifest
from ponticello.listening.log import is_positive, read_interactions
from ponticello.splits.splits import Splits, before_validation, load_splits, with_role
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ANCHOR_ID, POSITIVE_ID, TRACK_ID, USER_ID
from ponticello.tracks.catalog import read_stored_table, read_tracks
from ponticello.tracks.text import track_texts

# Rules of thumb; docs/ladder.md shows what each stage is worth with less data. The first two count
# training tracks with audio and text.
MIN_TEXTS = 20
ENOUGH_TEXTS = 1_000  # below it a word has too few tracks to be told from their other traits
MIN_USERS = 50  # with two or more liked training tracks: only those give pairs
MIN_PAIRS = 200  # of training tracks
# The best weights have the highest mean of n reciprocal ranks; its standard error is at most
# 0.5 / sqrt(n).
MIN_VALIDATION_TRACKS = 50  # at most 0.07
MIN_VALIDATION_PAIRS = 100  # at most 0.05 if they were independent; pairs share tracks
ENOUGH_FOR_LOGMEL = 20_000  # training tracks with which log-mels may surpass pretrained taggers
MIN_TEXT_SHARE = 0.5  # of the training tracks with audio


@dataclass(frozen=True)
class DataStats:
    """The data a library has to train on.

    A track has audio if features of the configured front end are prepared.
    """

    n_tracks_with_audio: int = 0  # training tracks, these three
    n_tracks_with_text: int = 0
    n_tracks_with_both: int = 0
    n_users: int = 0  # in the training window, on any track
    n_users_with_two: int = 0  # of those, with two or more liked training tracks in it
    median_liked: float = 0.0  # training tracks that a user of the window liked in it
    n_pairs: int = 0  # distinct, both tracks with audio and text; as the next two
    n_validation_tracks: int = 0
    n_validation_pairs: int = 0
    front_end: str = "musicnn"  # the setting

    def line(self) -> str:
        """Returns the counts in one line."""
        return (
            f"to learn from: {self.n_tracks_with_audio:,} training tracks with audio, "
            f"{self.n_tracks_with_text:,} with text, {self.n_tracks_with_both:,} with both; "
            f"{_count_listeners(self.n_users)}, {self.n_users_with_two:,} with two or more liked "
            f"(median {self.median_liked:g}), {self.n_pairs:,} pairs; for validation "
            f"{self.n_validation_tracks:,} tracks, {self.n_validation_pairs:,} pairs"
        )


def count_data(folder: LibraryPaths) -> DataStats:
    """Counts the data of a library; a missing table counts 0.

    Raises the reader's error for a damaged table. Cost: reads every table once, seconds for a few
    million events; no features.
    """
    splits = load_splits(folder) or Splits({}, None, None)
    training = set(with_role(splits, "train"))
    validation = set(with_role(splits, "validation"))
    with_audio = _tracks_with_features(folder)
    with_text = _tracks_with_text(folder)
    usable = with_audio & with_text
    liked = _liked_by_user(folder, splits)
    return DataStats(
        n_tracks_with_audio=len(training & with_audio),
        n_tracks_with_text=len(training & with_text),
        n_tracks_with_both=len(training & usable),
        n_users=len(liked),
        n_users_with_two=int((liked >= 2).sum()),
        median_liked=float(np.median(liked)) if len(liked) else 0.0,
        n_pairs=_count_pairs(folder.pairs, usable),
        n_validation_tracks=len(validation & usable),
        n_validation_pairs=_count_pairs(folder.validation_pairs, usable),
        front_end=folder.config.front_end,
    )


def describe_readiness(stats: DataStats) -> list[str]:
    """Returns one to five sentences: counts that are too low, and the consequence or remedy."""
    if not stats.n_tracks_with_audio and not stats.n_tracks_with_text:
        return [
            "No training track has audio or text yet: "
            "run `ponticello prepare`, `tag` and `mine-pairs` first."
        ]
    if not stats.n_tracks_with_text:
        return [
            "No training track has text, so neither stage has words to learn from: "
            "run `ponticello tag`."
        ]
    if not stats.n_tracks_with_audio:
        return [
            "No training track has prepared audio, so neither stage has anything to hear: "
            "run `ponticello prepare`."
        ]
    sentences = [
        _check_texts(stats),
        _check_missing_texts(stats),
        _check_size(stats),
        _check_listening(stats),
        _check_validation(stats),
    ]
    sentences = [sentence for sentence in sentences if sentence]
    return sentences or ["No count is below what the two stages need."]


def _check_texts(stats: DataStats) -> str:
    if stats.n_tracks_with_both >= MIN_TEXTS:
        return ""
    problem = (
        f"Stage one hardly learns words from {stats.n_tracks_with_both:,} training tracks with "
        f"audio and text (under {MIN_TEXTS})"
    )
    if stats.front_end == "logmel":
        return f'{problem}: set front_end = "musicnn", whose taggers need no training.'
    if stats.front_end == "musicnn":
        return f"{problem}: the taggers' own vectors and machine tags answer."
    return f"{problem}: the front end's own vectors answer."


def _check_missing_texts(stats: DataStats) -> str:
    n_both = stats.n_tracks_with_both
    n_audio = stats.n_tracks_with_audio
    if n_both >= MIN_TEXT_SHARE * n_audio:
        return ""
    return (
        f"Only {n_both:,} of {n_audio:,} training tracks with audio have text, and both stages "
        "learn from those alone: `ponticello tag` writes machine tags for the others."
    )


def _check_size(stats: DataStats) -> str:
    n_both = stats.n_tracks_with_both
    n_audio = stats.n_tracks_with_audio
    if stats.front_end == "musicnn" and n_audio > ENOUGH_FOR_LOGMEL:
        return (
            f"{n_audio:,} training tracks with audio (over {ENOUGH_FOR_LOGMEL:,}): learning sound "
            'from log-mels (preset "base") is worth comparing.'
        )
    if n_both < MIN_TEXTS:
        return ""
    if stats.front_end == "logmel" and n_both < ENOUGH_FOR_LOGMEL:
        return (
            f"{n_both:,} training tracks (under {ENOUGH_FOR_LOGMEL:,}) are few to learn sound from "
            'the beginning: front_end = "musicnn" starts from pretrained taggers.'
        )
    if n_both < ENOUGH_TEXTS:
        return (
            f"{n_both:,} training tracks (under {ENOUGH_TEXTS:,}): words a track does not carry "
            "find it only as far as the front end knows them."
        )
    return ""


def _check_listening(stats: DataStats) -> str:
    if not stats.n_users:
        return "There is no listening to train stage two on: stage one answers alone."
    problems = []
    if stats.n_users_with_two < MIN_USERS:
        listeners = _count_listeners(stats.n_users_with_two)
        problems.append(f"{listeners} who liked two or more tracks (under {MIN_USERS})")
    if stats.n_pairs < MIN_PAIRS:
        problems.append(f"{stats.n_pairs:,} pairs (under {MIN_PAIRS})")
    if not problems:
        return ""
    few = " and ".join(problems)
    return f"Stage two has little to learn from {few}: expect stage one's neighbours."


def _check_validation(stats: DataStats) -> str:
    problems = []
    if stats.n_validation_tracks < MIN_VALIDATION_TRACKS:
        problems.append(f"{stats.n_validation_tracks:,} tracks (under {MIN_VALIDATION_TRACKS})")
    if stats.n_pairs and stats.n_validation_pairs < MIN_VALIDATION_PAIRS:
        problems.append(f"{stats.n_validation_pairs:,} pairs (under {MIN_VALIDATION_PAIRS})")
    if not problems:
        return ""
    few = " and ".join(problems)
    return f"Validation has {few}: which weights come out best is partly chance."


def _tracks_with_features(folder: LibraryPaths) -> set[str]:
    features = folder.frames_of(folder.config.front_end)
    if not (features / MANIFEST).is_file():
        return set()
    return set(read_manifest(features)[TRACK_ID])


def _tracks_with_text(folder: LibraryPaths) -> set[str]:
    if not folder.tracks.is_file():
        return set()
    tracks = read_tracks(folder)
    texts = zip(tracks[TRACK_ID], track_texts(tracks), strict=True)
    return {track_id for track_id, text in texts if text}


def _liked_by_user(folder: LibraryPaths, splits: Splits) -> pl.Series:
    """Returns how many training tracks each user of the training window liked in it."""
    moments = (splits.train_until, splits.listeners, splits.shares)
    has_window = any(moment is not None for moment in moments)
    if not folder.interactions.is_file() or not has_window:
        return pl.Series(dtype=pl.Int64)
    events = before_validation(splits, read_interactions(folder))
    is_training_track = pl.col(TRACK_ID).is_in(with_role(splits, "train"))
    is_liked = is_positive(folder.config.pairs.min_played_s) & is_training_track
    return events.group_by(USER_ID).agg(n=pl.col(TRACK_ID).filter(is_liked).n_unique())["n"]


def _count_pairs(pairs: Path, usable: set[str]) -> int:
    """Counts the distinct pairs of a table with both tracks in `usable`."""
    if not pairs.is_file():
        return 0
    track_ids = list(usable)
    is_usable = pl.col(ANCHOR_ID).is_in(track_ids) & pl.col(POSITIVE_ID).is_in(track_ids)
    return read_stored_table(pairs).filter(is_usable).select(ANCHOR_ID, POSITIVE_ID).n_unique()


def _count_listeners(n: int) -> str:
    return f"{n:,} listener{'' if n == 1 else 's'}"
