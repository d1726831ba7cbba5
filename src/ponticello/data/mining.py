"""From a library's catalogue and log to who is held out, and to the pairs stage two learns and is checked on."""

from dataclasses import dataclass

import polars as pl

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ANCHOR_ID, CONTEXT_TRACK_ID, PLAYED_AT, POSITIVE_ID, TRACK_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.pairs import Funnel, mine_pairs, write_pairs
from ponticello.data.splits import Splits, check_no_leak, load_splits, make_splits, save_splits, train_events
from ponticello.errors import DataError
from ponticello.library import Folder, replacing


@dataclass(frozen=True)
class Mined:
    """What mining found, and what was dropped where."""

    n_pairs: int
    n_validation_pairs: int
    funnel: Funnel
    splits: Splits


def refresh_splits(folder: Folder) -> Splits:
    """The library's splits, made or brought up to date.

    A track keeps its role, new tracks get one, and the times follow the log. The caller holds the library's lock.
    """
    interactions = read_interactions(folder) if folder.interactions.is_file() else None
    splits = make_splits(read_tracks(folder), interactions, folder.config.splits, previous=load_splits(folder))
    save_splits(folder, splits)
    return splits


def mine_library(folder: Folder) -> Mined:
    """Writes pairs.parquet from the training window alone, and validation-pairs.parquet for watching stage two.

    Validation pairs come from the log before the test window, each of a training and a validation track; neither
    table holds a test track. DataError if the log is empty. The caller holds the library's lock.
    """
    interactions = read_interactions(folder)
    splits = refresh_splits(folder)
    if splits.train_until is None:
        raise DataError("the log holds no event yet: see skipped.csv, then run: ponticello import-history")
    training = [track_id for track_id, role in splits.roles.items() if role == "train"]
    events = _without_triggers(train_events(interactions, splits), training)
    pairs, funnel = mine_pairs(events, folder.config.pairs)
    check_no_leak(splits, read_tracks(folder), pairs, events)
    seen = [track_id for track_id, role in splits.roles.items() if role != "test"]
    unseen = [track_id for track_id, role in splits.roles.items() if role == "validation"]
    before_test = interactions.filter(pl.col(TRACK_ID).is_in(seen) & (pl.col(PLAYED_AT) < splits.validation_until))
    validation, _ = mine_pairs(_without_triggers(before_test, seen), folder.config.pairs)
    validation = validation.filter(pl.col(ANCHOR_ID).is_in(unseen) != pl.col(POSITIVE_ID).is_in(unseen))
    write_pairs(folder, pairs)
    with replacing(folder.validation_pairs) as temporary:
        validation.write_parquet(temporary, compression="zstd")
    return Mined(len(pairs), len(validation), funnel, splits)


def _without_triggers(events: pl.DataFrame, allowed: list[str]) -> pl.DataFrame:
    """`events` without the trigger songs that are not `allowed`: a held-out track may not enter a pair that way."""
    trigger = pl.col(CONTEXT_TRACK_ID)
    return events.with_columns(pl.when(trigger.is_in(allowed)).then(trigger))
