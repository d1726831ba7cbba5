"""From a library's catalogue and log to who is held out, and to the pairs stage two learns and is checked on."""

from dataclasses import dataclass

import polars as pl

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ANCHOR_ID, CONTEXT_TRACK_ID, N_USERS, POSITIVE_ID, SOURCE, TRACK_ID, WEIGHT
from ponticello.data.duplicates import near_duplicates
from ponticello.data.interactions import read_interactions
from ponticello.data.leaks import check_no_leak
from ponticello.data.pairs import Funnel, mine_pairs, write_pairs
from ponticello.data.shards import MANIFEST
from ponticello.data.splits import (
    Splits,
    before_test,
    load_splits,
    make_splits,
    save_splits,
    train_events,
    with_role,
)
from ponticello.data.store import FrameStore
from ponticello.errors import DataError, LibraryError
from ponticello.library import Folder, replacing


@dataclass(frozen=True)
class Mined:
    """What mining found, what was dropped where, and what official splits let through (`notes`, sentences)."""

    n_pairs: int
    n_validation_pairs: int
    funnel: Funnel
    splits: Splits
    notes: tuple[str, ...] = ()


def refresh_splits(folder: Folder) -> Splits:
    """The library's splits, made or brought up to date.

    A track keeps its role, new tracks get one, and the times follow the log. A new track that has a mel joins the
    tracks of the same recording. The caller holds the library's lock.
    Errors: see `make_splits`. Cost: see `near_duplicates`.
    """
    return _refresh(folder)[0]


def mine_library(folder: Folder) -> Mined:
    """Writes pairs.parquet from the training window alone, and validation-pairs.parquet for watching stage two.

    Validation pairs come from the log before the test window, each of a training and a validation track; neither
    table holds a test track. DataError if the log is empty, or if something held out could reach training: see
    `check_no_leak`. The caller holds the library's lock.
    """
    interactions = read_interactions(folder)
    splits, duplicates = _refresh(folder)
    if interactions.is_empty():
        raise DataError("the log holds no event yet: see skipped.csv, then run: ponticello import-history")
    events = _without_triggers(train_events(interactions, splits), with_role(splits, "train"))
    pairs, funnel = mine_pairs(events, folder.config.pairs)
    notes = check_no_leak(splits, read_tracks(folder), pairs, events, duplicates)
    seen, unseen = with_role(splits, "train", "validation"), with_role(splits, "validation")
    earlier = before_test(splits, interactions).filter(pl.col(TRACK_ID).is_in(seen))
    validation, _ = mine_pairs(_without_triggers(earlier, seen), folder.config.pairs)
    validation = validation.filter(pl.col(ANCHOR_ID).is_in(unseen) != pl.col(POSITIVE_ID).is_in(unseen))
    write_pairs(folder, pairs)
    with replacing(folder.validation_pairs) as temporary:
        validation.write_parquet(temporary, compression="zstd")
    return Mined(len(pairs), len(validation), funnel, splits, tuple(notes))


def mine_test_pairs(folder: Folder) -> pl.DataFrame:
    """Pairs of a training track (the anchor) and a test track (the positive), for measuring only; nothing is written.

    Mined from the whole log without the validation tracks, under the same settings as the training pairs, and as those
    in (anchor_id, positive_id, n_users, weight, source), sorted by the ids. A pair that several sources or both
    directions found is one row: the most listeners any of them counted, the sum of the weights, and the sources' names
    joined by "+".

    LibraryError: there is no log, or there are no splits yet.
    """
    interactions, splits = read_interactions(folder), load_splits(folder)
    if splits is None:
        raise LibraryError(f"{folder.root} has no splits yet; make them with: ponticello pairs -L {folder.root}")
    heard, test = with_role(splits, "train", "test"), with_role(splits, "test")
    events = _without_triggers(interactions.filter(pl.col(TRACK_ID).is_in(heard)), heard)
    pairs, _ = mine_pairs(events, folder.config.pairs)
    anchored, reached = pl.col(ANCHOR_ID).is_in(test), pl.col(POSITIVE_ID).is_in(test)
    pairs = pairs.filter(anchored != reached).with_columns(
        pl.when(anchored).then(POSITIVE_ID).otherwise(ANCHOR_ID).alias(ANCHOR_ID),
        pl.when(anchored).then(ANCHOR_ID).otherwise(POSITIVE_ID).alias(POSITIVE_ID),
    )
    merged = pairs.group_by(ANCHOR_ID, POSITIVE_ID).agg(
        pl.col(N_USERS).max(), pl.col(WEIGHT).sort().sum(), pl.col(SOURCE).unique().sort().str.join("+")
    )
    return merged.select(pairs.columns).sort(ANCHOR_ID, POSITIVE_ID)


def find_duplicates(folder: Folder, splits: Splits | None) -> pl.DataFrame | None:
    """`near_duplicates` of all tracks that are held out or have no role yet; None before anything is prepared.

    Two training tracks of one recording are not looked for: they do no harm.
    """
    if not (folder.mels / MANIFEST).exists():
        return None
    store, settled = FrameStore(folder.mels), set(with_role(splits, "train")) if splits else set()
    hop_s = folder.config.mel.hop_length / folder.config.mel.sample_rate
    return near_duplicates(store, [track_id for track_id in store.track_ids if track_id not in settled], hop_s=hop_s)


def _refresh(folder: Folder) -> tuple[Splits, pl.DataFrame | None]:
    """The library's splits up to date, and what is known of tracks of one recording."""
    interactions = read_interactions(folder) if folder.interactions.is_file() else None
    previous, config = load_splits(folder), folder.config
    duplicates = find_duplicates(folder, previous)
    splits = make_splits(
        read_tracks(folder),
        interactions,
        config.splits,
        previous,
        duplicates=duplicates,
        session_gap_min=config.pairs.session_gap_min,
    )
    save_splits(folder, splits)
    return splits, duplicates


def _without_triggers(events: pl.DataFrame, allowed: list[str]) -> pl.DataFrame:
    """`events` without the trigger songs that are not `allowed`: a held-out track may not enter a pair that way."""
    trigger = pl.col(CONTEXT_TRACK_ID)
    return events.with_columns(pl.when(trigger.is_in(allowed)).then(trigger))
