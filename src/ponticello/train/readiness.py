"""Whether a library holds enough to train on: what there is, counted, and what that supports, said
before training.
"""

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

# Rules of thumb; what each stage is worth on less and less: docs/ladder.md.
# training tracks with audio and text; stage one learns what words sound like from nothing else
LEAST_TEXTS = 20
# of the same; below it a word stands for too few tracks to be told from what else they share
WORDS_FROM_DATA = 1_000
LEAST_LISTENERS = 50  # with two or more liked training tracks each: those a pair can come from
LEAST_PAIRS = 200  # of training tracks
# Best weights are chosen by a mean of n reciprocal ranks, whose standard error is at most 0.5 /
# sqrt(n).
LEAST_VALIDATION_TRACKS = 50  # at most 0.07
LEAST_VALIDATION_PAIRS = 100  # at most 0.05, were they independent; but pairs share tracks
# training tracks; from there on what log-mels teach may pass what pretrained taggers know
SOUND_FROM_DATA = 20_000
# share of the training tracks with audio; below it most of what could be learned from lies idle
FEW_TEXTS = 0.5


@dataclass(frozen=True)
class DataStats:
    """What a library has to learn from. A track has audio if its frames are prepared, as its
    settings want them.
    """

    n_tracks_with_audio: int = 0  # training tracks, these three
    n_tracks_with_text: int = 0
    n_tracks_with_both: int = 0
    n_listeners: int = 0  # in the training window, on any track
    n_listeners_with_two: int = 0  # of those, who liked two or more training tracks in it
    median_liked: float = 0.0  # training tracks a listener of the training window liked in it
    n_pairs: int = 0  # distinct, both tracks with audio and text; as the next two
    n_validation_tracks: int = 0
    n_validation_pairs: int = 0
    front_end: str = "musicnn"  # as the setting; "logmel" has nothing pretrained to fall back on

    def line(self) -> str:
        """The counts in one line."""
        return (
            f"to learn from: {self.n_tracks_with_audio:,} training tracks with audio, {self.n_tracks_with_text:,} with "
            f"text, {self.n_tracks_with_both:,} with both; {_listeners(self.n_listeners)}, "
            f"{self.n_listeners_with_two:,} with two or more liked (median {self.median_liked:g}), "
            f"{self.n_pairs:,} pairs; for validation {self.n_validation_tracks:,} tracks, "
            f"{self.n_validation_pairs:,} pairs"
        )


def count_data(folder: LibraryPaths) -> DataStats:
    """The counts of a library as it stands; what a missing table would hold counts 0.

    Errors: of a table that is there but damaged, as its reader raises them. Cost: reads every table
    once, seconds for some million events; no frames.
    """
    splits = load_splits(folder) or Splits({}, None, None)
    training, validation = set(with_role(splits, "train")), set(with_role(splits, "validation"))
    heard, told = _heard(folder), _told(folder)
    usable = heard & told
    liked = _liked_by_listener(folder, splits)
    return DataStats(
        n_tracks_with_audio=len(training & heard),
        n_tracks_with_text=len(training & told),
        n_tracks_with_both=len(training & usable),
        n_listeners=len(liked),
        n_listeners_with_two=int((liked >= 2).sum()),
        median_liked=float(np.median(liked)) if len(liked) else 0.0,
        n_pairs=_count_pairs(folder.pairs, usable),
        n_validation_tracks=len(validation & usable),
        n_validation_pairs=_count_pairs(folder.validation_pairs, usable),
        front_end=folder.config.front_end,
    )


def describe_readiness(supply: DataStats) -> list[str]:
    """One to five plain sentences: what is too little for what, and what answers instead."""
    if not supply.n_tracks_with_audio and not supply.n_tracks_with_text:
        return [
            "No training track has audio or text yet: "
            "run `ponticello prepare`, `tag` and `mine-pairs` first."
        ]
    if not supply.n_tracks_with_text:
        return [
            "No training track has text, so neither stage has words to learn from: run `ponticello tag`."
        ]
    if not supply.n_tracks_with_audio:
        return [
            "No training track has prepared audio, so neither stage has anything to hear: run `ponticello prepare`."
        ]
    found = (
        _on_texts(supply),
        _on_missing_texts(supply),
        _on_size(supply),
        _on_taste(supply),
        _on_choice(supply),
    )
    return [sentence for sentence in found if sentence] or [
        "No count is below what the two stages need."
    ]


def _on_texts(supply: DataStats) -> str:
    if supply.n_tracks_with_both >= LEAST_TEXTS:
        return ""
    taught = f"Stage one hardly learns words from {supply.n_tracks_with_both:,} training tracks with audio and text"
    if supply.front_end == "logmel":
        return f'{taught} (under {LEAST_TEXTS}): set front_end = "musicnn", whose taggers need no training.'
    known = (
        "taggers' own vectors and machine tags"
        if supply.front_end == "musicnn"
        else "front end's own vectors"
    )
    return f"{taught} (under {LEAST_TEXTS}): the {known} answer."


def _on_missing_texts(supply: DataStats) -> str:
    n_heard, n_both = supply.n_tracks_with_audio, supply.n_tracks_with_both
    if n_both >= FEW_TEXTS * n_heard:
        return ""
    return (
        f"Only {n_both:,} of {n_heard:,} training tracks with audio have text, and both stages learn from those alone: "
        "`ponticello tag` writes machine tags for the others."
    )


def _on_size(supply: DataStats) -> str:
    n_both, n_heard = supply.n_tracks_with_both, supply.n_tracks_with_audio
    if supply.front_end == "musicnn" and n_heard > SOUND_FROM_DATA:
        return (
            f"{n_heard:,} training tracks with audio (over {SOUND_FROM_DATA:,}): learning sound from log-mels (preset "
            '"base") is worth comparing.'
        )
    if supply.front_end == "logmel" and LEAST_TEXTS <= n_both < SOUND_FROM_DATA:
        few = f"{n_both:,} training tracks (under {SOUND_FROM_DATA:,})"
        return f'{few} are few to learn sound from the beginning: front_end = "musicnn" starts from pretrained taggers.'
    if not LEAST_TEXTS <= n_both < WORDS_FROM_DATA:
        return ""
    few = f"{n_both:,} training tracks (under {WORDS_FROM_DATA:,})"
    return f"{few}: words a track does not carry find it only as far as the front end knows them."


def _on_taste(supply: DataStats) -> str:
    if not supply.n_listeners:
        return "There is no listening to train stage two on: stage one answers alone."
    few = []
    if supply.n_listeners_with_two < LEAST_LISTENERS:
        few.append(
            f"{_listeners(supply.n_listeners_with_two)} who liked two or more tracks (under {LEAST_LISTENERS})"
        )
    if supply.n_pairs < LEAST_PAIRS:
        few.append(f"{supply.n_pairs:,} pairs (under {LEAST_PAIRS})")
    return (
        f"Stage two has little to learn from {' and '.join(few)}: expect stage one's neighbours."
        if few
        else ""
    )


def _on_choice(supply: DataStats) -> str:
    few = []
    if supply.n_validation_tracks < LEAST_VALIDATION_TRACKS:
        few.append(f"{supply.n_validation_tracks:,} tracks (under {LEAST_VALIDATION_TRACKS})")
    if supply.n_pairs and supply.n_validation_pairs < LEAST_VALIDATION_PAIRS:
        few.append(f"{supply.n_validation_pairs:,} pairs (under {LEAST_VALIDATION_PAIRS})")
    return (
        f"Validation has {' and '.join(few)}: which weights come out best is partly chance."
        if few
        else ""
    )


def _heard(folder: LibraryPaths) -> set[str]:
    """The tracks with prepared frames, of the kind the settings ask for."""
    prepared = folder.frames_of(folder.config.front_end)
    return set(read_manifest(prepared)[TRACK_ID]) if (prepared / MANIFEST).is_file() else set()


def _told(folder: LibraryPaths) -> set[str]:
    """The tracks with text."""
    if not folder.tracks.is_file():
        return set()
    tracks = read_tracks(folder)
    return {
        track_id
        for track_id, text in zip(tracks[TRACK_ID], track_texts(tracks), strict=True)
        if text
    }


def _liked_by_listener(folder: LibraryPaths, splits: Splits) -> pl.Series:
    """(listeners of the training window,) how many training tracks each of them liked in it."""
    if not folder.interactions.is_file() or (
        splits.train_until is None and splits.listeners is None
    ):
        return pl.Series(
            dtype=pl.Int64
        )  # without moments nothing says which events are for training
    events = before_validation(splits, read_interactions(folder))
    is_liked = is_positive(folder.config.pairs.min_played_s) & pl.col(TRACK_ID).is_in(
        with_role(splits, "train")
    )
    return events.group_by(USER_ID).agg(n=pl.col(TRACK_ID).filter(is_liked).n_unique())["n"]


def _count_pairs(pairs: Path, usable: set[str]) -> int:
    """Distinct (anchor, positive) of a table with both in `usable`; LibraryError if it is damaged."""
    if not pairs.is_file():
        return 0
    both = pl.col(ANCHOR_ID).is_in(list(usable)) & pl.col(POSITIVE_ID).is_in(list(usable))
    return read_stored_table(pairs).filter(both).select(ANCHOR_ID, POSITIVE_ID).n_unique()


def _listeners(n: int) -> str:
    return f"{n:,} listener{'' if n == 1 else 's'}"
