"""Erases listeners from a library: from the log, and from all that was derived from it.

The order makes an interruption harmless: pairs and the report are deleted, the log is rewritten,
splits and pairs are made again. A journal marks the work as unfinished; the same call completes it.
Models cannot forget: runs that may have learned from the listeners get a note in their folder.
"""

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
from ponticello.pairs.engine import EngineOptions
from ponticello.pairs.mine import MiningResult, mine_library, refresh_splits
from ponticello.storage.files import atomic_write, read_csv_rows, write_csv_rows
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import USER_ID
from ponticello.storage.tables import count_rows, scan_parquet, wrap_read_errors
from ponticello.train.runs import LISTENING_FILE, log_sha256

RETRAIN_FILE = "retrain.json"  # in the folder of a run that learned from an erased listener
_WHY = "it learned from a listener who has been forgotten: delete this folder and train again"
_JOURNAL_FILE = "forgetting.json"  # exists while an erasure is unfinished; it names no listener
_DERIVED_TABLES = ("interactions.parquet", "splits-listeners.parquet")  # rewritten in any case


@dataclass(frozen=True)
class ErasureResult:
    """The counts and names of the erased data.

    n_events: events of the log. n_rows: rows of other tables, by file name. removed: names of
    deleted files and folders. runs: trained with the log as it was. maybe_runs: trained with an
    earlier or unknown log. mined: the new pairs, if there were pairs before.
    """

    n_events: int
    n_rows: dict[str, int]
    removed: tuple[str, ...]
    runs: tuple[str, ...]
    maybe_runs: tuple[str, ...]
    mined: MiningResult | None


@dataclass(frozen=True)
class _Journal:
    """What an erasure must know after an interruption; the hash is of the log before it."""

    had_pairs: bool
    log_sha256: str | None


def stored_ids(folder: LibraryPaths, users: Collection[str]) -> list[str]:
    """Returns the sorted ids that the library's tables use for `users`: as given, or pseudonyms."""
    known_ids: set[str] = set()
    for path in folder.root.glob("*.parquet"):
        if USER_ID in scan_parquet(path).collect_schema():
            ids = scan_parquet(path).select(pl.col(USER_ID).cast(pl.String).unique())
            with wrap_read_errors(path):
                known_ids.update(ids.collect(engine="streaming")[USER_ID].to_list())
    return sorted({resolve_user_id(folder, user, known_ids) for user in users})


def erase_users(
    folder: LibraryPaths, users: Collection[str], options: EngineOptions | None = None
) -> ErasureResult:
    """Erases `users` and mines the pairs again: byte for byte as if they had never been imported.

    options: where mining runs. The caller holds the library's lock. After an interruption, the same
    call finishes the work. Cost: two passes over the log, and mining.

    DataError (unknown_user) if a user is in no table, LibraryError (no_log) if there is no log.
    """
    for left_over in folder.root.glob(".*.tmp"):
        _remove(left_over)  # of killed writers: under the lock there are no others
    journal_path = folder.root / _JOURNAL_FILE
    is_resumed = journal_path.is_file()
    ids = stored_ids(folder, require_list(users, "users"))
    n_events = _count_events(folder, ids, require_log=not is_resumed)
    n_rows = _count_other_rows(folder, ids)
    erased_ids = set(n_events).union(*n_rows.values())
    unknown = [user_id for user_id in ids if user_id not in erased_ids]
    if unknown and not is_resumed:
        raise DataError(
            f"listener {unknown[0]!r} is in no table of {folder.root}; "
            "check the id in interactions.parquet",
            code="unknown_user",
        )
    is_in_log = bool(n_events) or is_resumed
    journal = _read_journal(folder, journal_path)
    runs: set[str] = set()
    maybe_runs: set[str] = set()
    removed: list[Path] = []
    if is_in_log:
        runs, maybe_runs = _mark_runs(folder, journal)
        _write_record(journal_path, vars(journal))
        removed += _remove_existing(folder.pairs, folder.validation_pairs, folder.report)
    removed += _rewrite_tables(folder, n_rows, ids, in_log=bool(n_events))
    if is_in_log:
        # Trainings that read the old log since the first marking are marked now.
        runs |= _mark_runs(folder, journal)[0]
    mined = _remake_pairs(folder, journal, options) if is_in_log else None
    journal_path.unlink(missing_ok=True)
    return ErasureResult(
        n_events=n_events.total(),
        n_rows={path.name: counts.total() for path, counts in n_rows.items()},
        removed=tuple(path.name for path in removed if not path.exists()),
        runs=tuple(sorted(runs)),
        maybe_runs=tuple(sorted(maybe_runs - runs)),
        mined=mined,
    )


def _count_events(folder: LibraryPaths, ids: list[str], require_log: bool) -> Counter[str]:
    if not (folder.interactions.is_file() or require_log):
        return Counter()
    rows = scan_interactions(folder).filter(pl.col(USER_ID).is_in(ids))
    with wrap_read_errors(folder.interactions):
        counts = rows.group_by(USER_ID).len().collect(engine="streaming")
    return Counter(dict(counts.iter_rows()))


def _count_other_rows(folder: LibraryPaths, ids: list[str]) -> dict[Path, Counter[str]]:
    """Returns the number of rows by user in each file that names one, except derived tables."""
    n_rows: dict[Path, Counter[str]] = {}
    for path in sorted(folder.root.glob("*.csv")):
        n_rows[path] = _count_lines(path, ids)
    for path in sorted(folder.root.glob("*.parquet")):
        if path.name not in _DERIVED_TABLES:
            n_rows[path] = _count_rows(path, ids)
    return {path: counts for path, counts in n_rows.items() if counts}


def _read_journal(folder: LibraryPaths, path: Path) -> _Journal:
    record = _read_record(path)
    return _Journal(
        had_pairs=folder.pairs.is_file() or bool(record.get("had_pairs")),
        log_sha256=record.get("log_sha256") or log_sha256(folder.interactions),
    )


def _mark_runs(folder: LibraryPaths, journal: _Journal) -> tuple[set[str], set[str]]:
    """Marks the runs of stage two; returns those trained with the journal's log, and the others."""
    runs: set[str] = set()
    maybe_runs: set[str] = set()
    for run in (folder.root / "runs").glob("*"):
        if not _is_preference_run(run):
            continue
        run_log = _read_record(run / LISTENING_FILE).get("log_sha256")
        (runs if run_log == journal.log_sha256 else maybe_runs).add(run.name)
        _write_record(run / RETRAIN_FILE, {"why": _WHY})
    return runs, maybe_runs


def _is_preference_run(run: Path) -> bool:
    return (
        (run / LISTENING_FILE).is_file()
        or _read_record(run / "run.json").get("stage") == "preference"
        or "preference" in _read_record(run / "checkpoints" / "started.json")
    )


def _read_record(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, record: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")


def _rewrite_tables(
    folder: LibraryPaths, paths: Collection[Path], ids: list[str], *, in_log: bool
) -> list[Path]:
    """Removes the listeners' rows from files, last from the log; returns the deleted files."""
    removed: list[Path] = []
    for path in paths:
        drop = _drop_lines if path.suffix == ".csv" else _drop_rows
        drop(path, ids)
    pending = folder.unmatched_history
    if pending in paths:
        if not count_rows(pending):
            pending.unlink()
        # The next import makes it again from the events that are left.
        removed += _remove_existing(folder.unmatched)
    if in_log:
        _drop_rows(folder.interactions, ids)
        if not count_rows(folder.interactions):
            folder.interactions.unlink()
    return removed


def _remake_pairs(
    folder: LibraryPaths, journal: _Journal, options: EngineOptions | None
) -> MiningResult | None:
    """Mines the pairs again if there were some, else makes the splits again if there are some."""
    if journal.had_pairs and folder.interactions.is_file():
        return mine_library(folder, options)
    if folder.splits.is_file():
        refresh_splits(folder)
    return None


def _count_rows(path: Path, ids: list[str]) -> Counter[str]:
    table = scan_parquet(path)
    if USER_ID not in table.collect_schema():
        return Counter()
    user_ids = table.select(pl.col(USER_ID).cast(pl.String)).filter(pl.col(USER_ID).is_in(ids))
    with wrap_read_errors(path):
        return Counter(user_ids.collect()[USER_ID].to_list())


def _drop_rows(path: Path, ids: list[str]) -> None:
    others = scan_parquet(path).filter(~pl.col(USER_ID).cast(pl.String).is_in(ids))
    with wrap_read_errors(path), atomic_write(path) as temporary:
        others.sink_parquet(temporary, compression="zstd", maintain_order=True)


def _count_lines(path: Path, ids: list[str]) -> Counter[str]:
    rows = read_csv_rows(path)
    user_ids = [_user_of_line(rows[0], row) for row in rows[1:]]
    return Counter(user_id for user_id in user_ids if user_id in ids)


def _drop_lines(path: Path, ids: list[str]) -> None:
    rows = read_csv_rows(path)
    others = [row for row in rows[1:] if _user_of_line(rows[0], row) not in ids]
    write_csv_rows(path, rows[0], others)  # their cells are escaped already


def _user_of_line(header: list[str], row: list[str]) -> str:
    """Returns the user that a line names, as the bad value of `user_id` or in that column."""
    cells = dict(zip(header, row, strict=False))
    column = "value" if cells.get("field") == USER_ID else USER_ID
    return cells.get(column, "")


def _remove_existing(*paths: Path) -> list[Path]:
    existing = [path for path in paths if path.exists()]
    for path in existing:
        _remove(path)
    return existing


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
