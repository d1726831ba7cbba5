"""Takes a listener out of a library: out of the log, and out of everything that was made from it.

    derived tables and the report go first -> the log without them -> splits and pairs anew

so that a stop in between leaves a library in which the listener can be forgotten again, or, once
the log is without them, a note by which the next call makes the rest anew. Models cannot forget:
the runs that may have learned from the listener are named, and marked until they are deleted.
"""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.checks import require_list
from ponticello.errors import DataError
from ponticello.listening.log import scan_interactions
from ponticello.listening.pseudonyms import resolve_user_id
from ponticello.listening.unmatched import pending_events_path, unmatched_list_path
from ponticello.pairs.engine import EngineOptions
from ponticello.pairs.mine import MiningResult, mine_library, refresh_splits
from ponticello.storage.files import atomic_write, read_csv_rows
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import USER_ID
from ponticello.storage.tables import has_rows, scan_parquet, wrap_read_errors
from ponticello.train.runs import LISTENING_FILE, log_sha256

RETRAIN_FILE = (
    "retrain.json"  # in a run's folder: it learned from a listener who has been forgotten
)
_WHY = "it learned from a listener who has been forgotten: delete this folder and train again"
_NOTE_FILE = "forgetting.json"  # there from the first deletion to the end; it names nobody
_MADE_ANEW = ("interactions.parquet", "splits-listeners.parquet")


@dataclass(frozen=True)
class ErasureResult:
    """What was taken away.

    n_events: of the log. n_rows: of other tables, by file name. removed: files and folders that are
    gone, by name.
    runs: trained with the log as it was; maybe_runs: with an earlier or unknown one, which may have
    held the listener.
    mined: the new pairs, where there were some before.
    """

    n_events: int
    n_rows: dict[str, int]
    removed: tuple[str, ...]
    runs: tuple[str, ...]
    maybe_runs: tuple[str, ...]
    mined: MiningResult | None


def stored_ids(folder: LibraryPaths, users: Collection[str]) -> list[str]:
    """The ids by which the library's tables know `users`, sorted: their own, or the hash of their
    name.
    """
    known: set[str] = set()
    for path in folder.root.glob("*.parquet"):
        if USER_ID in scan_parquet(path).collect_schema():
            ids = scan_parquet(path).select(pl.col(USER_ID).cast(pl.String).unique())
            with wrap_read_errors(path):
                known.update(ids.collect(engine="streaming")[USER_ID].to_list())
    return sorted({resolve_user_id(folder, user, known) for user in users})


def erase_users(
    folder: LibraryPaths, users: Collection[str], options: EngineOptions | None = None
) -> ErasureResult:
    """Takes `users` out of the library and mines its pairs again: byte for byte what they were
    without `users`.

    DataError: a user is in no table. LibraryError: there is no log. The caller holds the library's
    lock. options: where mining runs. After a stop, the same call finishes what was begun. Cost: two
    passes over the log, and mining.
    """
    for left_over in folder.root.glob(
        ".*.tmp"
    ):  # of writers that were killed: under the lock nobody writes these
        _remove(left_over)
    note = folder.root / _NOTE_FILE
    begun = note.is_file()
    ids = stored_ids(folder, require_list(users, "users"))
    counts = _n_events(folder, ids) if folder.interactions.is_file() or not begun else {}
    lists = {path: _lines_naming(path, ids) for path in sorted(folder.root.glob("*.csv"))}
    tables = {path: _rows_naming(path, ids) for path in sorted(folder.root.glob("*.parquet"))}
    known = {*counts, *(user for found in (*lists.values(), *tables.values()) for user in found)}
    if (missing := [user for user in ids if user not in known]) and not begun:
        where = f"in no table of {folder.root}"
        raise DataError(f"listener {missing[0]!r} is {where}; check the id in interactions.parquet")
    is_anew = bool(counts) or begun
    sure, maybe = _mark_runs(folder) if is_anew else ([], [])
    had_pairs, removed = folder.pairs.is_file() or bool(_record(note).get("had_pairs")), []
    if is_anew:
        with atomic_write(note) as temporary:
            temporary.write_text(json.dumps({"had_pairs": had_pairs}) + "\n", encoding="utf-8")
    for path in (folder.pairs, folder.validation_pairs, folder.report):
        if is_anew and path.exists():
            removed.append(path)
            _remove(path)
    for path in (path for path, found in lists.items() if found):
        _drop_lines(path, ids)
    for path in (path for path, found in tables.items() if found):
        _drop_rows(path, ids)
    if tables.get(pending_events_path(folder)):
        if not has_rows(pending_events_path(folder)):
            pending_events_path(folder).unlink()
        if unmatched_list_path(
            folder
        ).is_file():  # made from it; the next import lists what is left
            removed.append(unmatched_list_path(folder))
            _remove(unmatched_list_path(folder))
    if counts:
        _drop_rows(folder.interactions, ids)
        if not has_rows(folder.interactions):
            folder.interactions.unlink()
    mined = (
        mine_library(folder, options)
        if is_anew and had_pairs and folder.interactions.is_file()
        else None
    )
    if is_anew and mined is None and folder.splits.is_file():
        refresh_splits(folder)
    note.unlink(missing_ok=True)
    n_rows = {
        path.name: sum(found.values()) for path, found in {**lists, **tables}.items() if found
    }
    gone = tuple(path.name for path in removed if not path.exists())
    return ErasureResult(sum(counts.values()), n_rows, gone, tuple(sure), tuple(maybe), mined)


def _mark_runs(folder: LibraryPaths) -> tuple[list[str], list[str]]:
    """The runs of stage two, marked: those trained with the log as it is, and those of which that
    is not known.
    """
    now = log_sha256(folder.interactions)
    sure: list[str] = []
    maybe: list[str] = []
    for run in sorted(
        path for path in (folder.root / "runs").glob("*") if _learned_from_listening(path)
    ):
        with_log = _record(run / LISTENING_FILE).get("log_sha256")
        (sure if with_log == now else maybe).append(run.name)
        with atomic_write(run / RETRAIN_FILE) as temporary:
            temporary.write_text(json.dumps({"why": _WHY}) + "\n", encoding="utf-8")
    return sure, maybe


def _learned_from_listening(run: Path) -> bool:
    """Whether the run at `run`, finished or not, is of stage two."""
    begun = _record(run / "checkpoints" / "started.json")
    return (
        (run / LISTENING_FILE).is_file()
        or _record(run / "run.json").get("stage") == "preference"
        or ("preference" in begun)
    )


def _record(path: Path) -> dict[str, Any]:
    """A JSON object of a run's folder, empty where there is none."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _n_events(folder: LibraryPaths, ids: list[str]) -> dict[str, int]:
    """{user: events in the log} of those of `ids` who have some."""
    found = scan_interactions(folder).filter(pl.col(USER_ID).is_in(ids)).group_by(USER_ID).len()
    with wrap_read_errors(folder.interactions):
        return dict(found.collect(engine="streaming").iter_rows())


def _rows_naming(path: Path, ids: list[str]) -> Counter[str]:
    """{user: rows} of any other table with a user_id; the log and the splits are made anew, not
    searched here.
    """
    if path.name in _MADE_ANEW or USER_ID not in scan_parquet(path).collect_schema():
        return Counter()
    users = (
        scan_parquet(path)
        .select(pl.col(USER_ID).cast(pl.String))
        .filter(pl.col(USER_ID).is_in(ids))
    )
    with wrap_read_errors(path):
        return Counter(users.collect()[USER_ID].to_list())


def _drop_rows(path: Path, ids: list[str]) -> None:
    others = scan_parquet(path).filter(~pl.col(USER_ID).cast(pl.String).is_in(ids))
    with wrap_read_errors(path), atomic_write(path) as temporary:
        others.sink_parquet(temporary, compression="zstd", maintain_order=True)


def _lines_naming(path: Path, ids: list[str]) -> Counter[str]:
    """{user: lines} of a list such as skipped.csv: a line names a user in `user_id`, or as that
    field's value.
    """
    header, *rows = read_csv_rows(path) or [[]]
    return Counter(user for row in rows if (user := _named(header, row)) in ids)


def _drop_lines(path: Path, ids: list[str]) -> None:
    header, *rows = read_csv_rows(path)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [header, *(row for row in rows if _named(header, row) not in ids)]
        )


def _named(header: list[str], row: list[str]) -> str | None:
    cells = dict(zip(header, row, strict=False))
    return cells.get("value") if cells.get("field") == USER_ID else cells.get(USER_ID)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
