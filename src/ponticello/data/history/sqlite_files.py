"""SQLite databases of other programs: opened for reading only, as they lie, and never written or locked."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from ponticello.data.history.listen import Fault
from ponticello.data.history.sources import Source
from ponticello.errors import DataError

MAGIC = b"SQLite format 3\x00"
MOST_BYTES_IN_ZIP = 2 << 30  # a database in a zip is held in memory
_WAL_AT, _NO_WAL = 18, b"\x01\x01"  # two bytes of the header that ask for a log beside the file

_log = logging.getLogger(__name__)


@contextmanager
def database(source: Source) -> Iterator[sqlite3.Connection]:
    """A connection that reads, with rows by name; text that is not UTF-8 is kept with replacement characters.

    What a program still holds in a -wal file beside the database is not seen, and a warning says so.
    DataError: not a database, or one too large to be read in its zip.
    """
    if source.path is not None:
        wal = source.path.with_name(f"{source.path.name}-wal")
        if wal.is_file() and wal.stat().st_size:
            _log.warning("%s holds changes that are not read; stop the program that writes it first", wal)
        address = f"file:{quote(source.path.resolve().as_posix())}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True)
    else:
        connection = _in_memory(source)
    try:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for pragma in ("query_only = 1", "trusted_schema = 0", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError:  # a file that was cut is opened so only; nothing can be written either way
            connection.execute("PRAGMA writable_schema = 1")
        yield connection
    except sqlite3.DatabaseError as error:
        raise DataError(f"{source.name} is not a readable SQLite database: {error}") from None
    finally:
        connection.close()


def tables_of(source: Source) -> dict[str, set[str]]:
    """{table: its columns}; {} for a file that is no readable database. Views do not count: they may run anything."""
    try:
        with database(source) as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                name: {row[1] for row in connection.execute("SELECT * FROM pragma_table_info(?)", (name,))}
                for name in names
            }
    except DataError:
        return {}


def tables_with(source: Source, wanted: frozenset[str], program: str) -> dict[str, set[str]]:
    """`tables_of`; DataError where one that is wanted is not there."""
    tables = tables_of(source)
    if missing := sorted(wanted - tables.keys()):
        raise DataError(f"{source.name} is no {program} database that can be read: table {missing[0]!r} is missing")
    return tables


def rows_of(connection: sqlite3.Connection, query: str) -> Iterator[tuple[int, sqlite3.Row] | Fault]:
    """(number from 1, row) of what a query gives; where the file is damaged, a last fault in the place of the rest."""
    number = 0
    try:
        for row in connection.execute(query):
            number += 1
            yield number, row
    except sqlite3.DatabaseError as error:
        yield Fault(number + 1, "", "", f"the database is damaged from here on: {error}")


def _in_memory(source: Source) -> sqlite3.Connection:
    if source.size > MOST_BYTES_IN_ZIP:
        raise DataError(
            f"{source.name} has {source.size:,} bytes, too many to be read in a zip; unpack it and pass the file"
        )
    with source.open() as stream:
        data = stream.read()
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data[:_WAL_AT] + _NO_WAL + data[_WAL_AT + len(_NO_WAL) :])
    return connection
