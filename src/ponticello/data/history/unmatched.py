"""Events whose track the catalogue does not have: kept until it has, and listed with what came near."""

import csv
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from ponticello.data.catalog import stored_table
from ponticello.data.columns import EVENT, N_TIMES, PLAYED_AT, SESSION_ID, USER_ID
from ponticello.data.history.alike import MOST_NEAR
from ponticello.data.history.gather import HEARD, HEARD_COLUMNS, IS_KEPT, IS_TABLE
from ponticello.data.history.listen import Heard
from ponticello.data.history.match import Match
from ponticello.data.history.nearest import Nearest
from ponticello.library import Folder, as_cell, replacing

KEPT_FILE = "unmatched-history.parquet"
LIST_FILE = "unmatched.csv"
_WHAT = tuple(name for name in HEARD_COLUMNS if name != "msid")


def kept_path(folder: Folder) -> Path:
    """Where the events without a track are kept."""
    return folder.root / KEPT_FILE


def list_path(folder: Folder) -> Path:
    """Where the tracks that were not found are listed."""
    return folder.root / LIST_FILE


def read_kept(folder: Folder) -> pl.DataFrame | None:
    """The events that found no track so far, each with what was heard; None if there are none."""
    return stored_table(kept_path(folder)) if kept_path(folder).is_file() else None


def keep(folder: Folder, events: pl.DataFrame, heard: list[Heard]) -> pl.DataFrame:
    """Writes the events without a track in the place of those kept before, each once, and gives them back."""
    counted, is_playlist = pl.col(N_TIMES).is_not_null(), pl.col(EVENT) == "playlist"
    playlists = is_playlist & ~pl.col(IS_TABLE)  # a table's rows have the times they have
    counts = events.filter(counted).sort(N_TIMES, descending=True)
    parts = [
        events.filter(~counted & ~is_playlist).unique((USER_ID, PLAYED_AT, EVENT, HEARD), keep="first"),
        events.filter(is_playlist & ~playlists).unique(
            (USER_ID, PLAYED_AT, SESSION_ID, HEARD), keep="first", maintain_order=True
        ),
        events.filter(playlists).unique((USER_ID, SESSION_ID, HEARD), keep="first", maintain_order=True),
        counts.unique((USER_ID, EVENT, HEARD), keep="first", maintain_order=True),
    ]
    kept = pl.concat(parts).drop(IS_KEPT).sort(PLAYED_AT, USER_ID, EVENT, HEARD)
    if kept.is_empty():
        kept_path(folder).unlink(missing_ok=True)
        return kept
    what = pl.DataFrame(heard, schema=HEARD_COLUMNS, orient="row").with_row_index(HEARD)
    with replacing(kept_path(folder)) as temporary:
        wide = kept.join(what, on=HEARD, how="left", maintain_order="left")
        wide.drop(HEARD).write_parquet(temporary, compression="zstd")
    return kept


def write_list(folder: Folder, kept: pl.DataFrame, heard: list[Heard], matches: list[Match], nearest: Nearest) -> None:
    """unmatched.csv: a row for each track that was not found, the most heard first; without it, no file.

    Columns: how many events, what was heard, why it matched nothing, and up to three tracks that came near, each with
    what spoke against it.
    """
    if kept.is_empty():
        list_path(folder).unlink(missing_ok=True)
        return
    times = kept.with_columns(pl.col(N_TIMES).fill_null(1)).group_by(HEARD).agg(n=pl.col(N_TIMES).sum())
    header = ["events", *_WHAT, "reason"]
    for rank in range(1, MOST_NEAR + 1):
        header += [f"near_{rank}", f"near_{rank}_id", f"not_{rank}"]
    with replacing(list_path(folder)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(_rows(times.sort("n", HEARD, descending=[True, False]).iter_rows(), heard, matches, nearest))


def _rows(
    times: Iterable[tuple[int, int]], heard: list[Heard], matches: list[Match], nearest: Nearest
) -> Iterable[list[object]]:
    for place, n in times:
        said, found = heard[place], matches[place]
        near = list(found.refused)
        met = {entry.track_id for entry, _ in near}
        if len(near) < MOST_NEAR:
            near += [(entry, why) for entry, why in nearest.near(said) if entry.track_id not in met]
        cells: list[object] = [n, *(as_cell(getattr(said, name)) for name in _WHAT), as_cell(found.reason)]
        for entry, why in near[:MOST_NEAR]:
            cells += [as_cell(entry.shown), as_cell(entry.track_id), as_cell(why)]
        yield cells + [""] * (3 * (MOST_NEAR - len(near[:MOST_NEAR])))
