"""From a library's catalogue and log to who is held out, and to the pairs stage two learns and is checked on."""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ANCHOR_ID, N_USERS, PLAYED_AT, POSITIVE_ID, SOURCE, TRACK_ID, USER_ID, WEIGHT
from ponticello.data.duplicates import near_duplicates
from ponticello.data.engine import Engine, EngineOptions, open_engine
from ponticello.data.funnel import Funnel
from ponticello.data.interactions import scan_interactions
from ponticello.data.leaks import check_no_leak
from ponticello.data.log import AT, NUMBER, Log, complete_events, number_log
from ponticello.data.pairs import mine, write_pairs
from ponticello.data.parquet import has_rows, reading
from ponticello.data.shards import MANIFEST
from ponticello.data.splits import (
    Splits,
    load_splits,
    make_splits,
    save_splits,
    training_window,
    window_before_test,
    with_role,
)
from ponticello.data.store import FrameStore
from ponticello.data.windows import Window
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
    splits, _ = current_splits(folder)
    save_splits(folder, splits)
    return splits


def mine_library(folder: Folder, options: EngineOptions | None = None) -> Mined:
    """Writes pairs.parquet from the training window alone, and validation-pairs.parquet for watching stage two.

    Validation pairs come from the log before the test window, each of a training and a validation track; neither
    table holds a test track. options: where it runs.
    DataError if the log is empty, or if something held out could reach training: see `check_no_leak`. The caller holds
    the library's lock.
    """
    scan_interactions(folder)  # says so if there is none, or it is damaged
    splits, duplicates = current_splits(folder)
    save_splits(folder, splits)
    if not has_rows(folder.interactions):
        raise DataError("the log holds no event yet: see skipped.csv, then run: ponticello import-history")
    tracks = read_tracks(folder)
    seen, unseen = with_role(splits, "train", "validation"), with_role(splits, "validation")
    config = folder.config.pairs
    with open_engine(options) as engine:
        log = library_log(engine, folder, with_role(splits, "train"), training_window(splits))
        pairs, funnel = mine(log, config)
        notes = check_no_leak(splits, tracks, pairs, _last_events(log), duplicates)
    with open_engine(options) as engine:
        log = library_log(engine, folder, seen, window_before_test(splits))
        validation, _ = mine(log, config)
    validation = validation.filter(pl.col(ANCHOR_ID).is_in(unseen) != pl.col(POSITIVE_ID).is_in(unseen))
    write_pairs(folder, pairs)
    with replacing(folder.validation_pairs) as temporary:
        validation.write_parquet(temporary, compression="zstd")
    return Mined(len(pairs), len(validation), funnel, splits, tuple(notes))


def mine_test_pairs(folder: Folder, options: EngineOptions | None = None) -> pl.DataFrame:
    """Pairs of a training track (the anchor) and a test track (the positive), for measuring only; nothing is written.

    Mined from the whole log without the validation tracks, under the same settings as the training pairs, and as those
    in (anchor_id, positive_id, n_users, weight, source), sorted by the ids. A pair that several sources or both
    directions found is one row: the most listeners any of them counted, the sum of the weights, and the sources' names
    joined by "+".

    LibraryError: there is no log, or there are no splits yet.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(f"{folder.root} has no splits yet; make them with: ponticello pairs -L {folder.root}")
    heard, test = with_role(splits, "train", "test"), with_role(splits, "test")
    with open_engine(options) as engine:
        log = library_log(engine, folder, heard, Window())
        pairs, _ = mine(log, folder.config.pairs)
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

    Two training tracks of one recording are not looked for: they do no harm. LibraryError: the mels were prepared with
    other settings, so that the length of their frames is not known.
    """
    if not (folder.mels / MANIFEST).exists():
        return None
    store, settled = FrameStore(folder.mels), set(with_role(splits, "train")) if splits else set()
    if store.track_ids:
        from ponticello.data.mel import mel_key  # which loads scipy.signal, for a second that other steps need not wait

        store.require(mel_key(folder.config.mel))
    asked = [track_id for track_id in store.track_ids if track_id not in settled]
    return near_duplicates(store, asked, hop_s=folder.config.mel.hop_s)


def current_splits(folder: Folder) -> tuple[Splits, pl.DataFrame | None]:
    """The library's splits up to date, not saved, and what is known of tracks of one recording."""
    interactions = scan_interactions(folder) if folder.interactions.is_file() else None
    previous, config = load_splits(folder), folder.config
    duplicates, tracks = find_duplicates(folder, previous), read_tracks(folder)
    with reading(folder.interactions):
        splits = make_splits(
            tracks,
            interactions,
            config.splits,
            previous,
            duplicates=duplicates,
            session_gap_min=config.pairs.session_gap_min,
        )
    return splits, duplicates


def library_log(engine: Engine, folder: Folder, tracks: Collection[str], window: Window) -> Log:
    """The library's log on `tracks` within `window`, numbered; a trigger that is none of `tracks` is forgotten."""
    scan_interactions(folder)  # says so if there is none, or it is damaged
    ids = pl.Series(TRACK_ID, sorted(tracks), dtype=pl.String)
    with reading(folder.interactions):
        events = complete_events(engine.read(folder.interactions))
        return number_log(engine, events, ids, window)


def _last_events(log: Log) -> pl.DataFrame:
    """(user_id, track_id, played_at): the last event of every listener and of every track.

    If anything held out is in the log, one of these shows it.
    """
    events = log.whole()
    last = events[AT].max()
    of_listeners = events.group_by(USER_ID).agg(**{TRACK_ID: events[TRACK_ID].argmax(events[AT]), AT: last})
    of_tracks = events.group_by(TRACK_ID).agg(**{USER_ID: events[USER_ID].argmax(events[AT]), AT: last})
    both = of_listeners.select(USER_ID, TRACK_ID, AT).union(of_tracks.select(USER_ID, TRACK_ID, AT))
    rows = log.engine.frame(both.join(log.listeners, both[USER_ID] == log.listeners[NUMBER]))
    return rows.select(
        pl.col(f"{USER_ID}_right").alias(USER_ID),
        pl.Series(TRACK_ID, log.tracks.gather(rows[TRACK_ID])),
        pl.col(AT).cast(pl.Datetime("us", "UTC")).alias(PLAYED_AT),
    ).sort(PLAYED_AT, USER_ID, TRACK_ID)
