"""Runs the mining rules on DuckDB in this process, or on a Spark cluster.

The rules are the same ibis expressions on both. Intermediate tables are Parquet files in a
temporary folder, so memory holds one step at a time. DuckDB reads a large log in partitions that
fit in memory; Spark divides its work itself and gets one partition.
"""

import importlib.util
import itertools
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import polars as pl

from ponticello.errors import ConfigError, PonticelloError
from ponticello.storage.tables import read_parquet

PARTITION = "partition_number"  # column of partitioned tables: 0, 1, ...
_MEMORY = re.compile(r"[1-9]\d*(\.\d+)? ?[KMGT]i?B", re.IGNORECASE)


@dataclass(frozen=True)
class EngineOptions:
    """Where mining runs, and the resources it may use. No option changes the pairs.

    engine: "duckdb", or a Spark master such as "local[*]" or "spark://host:7077". Its workers
        must see the library and `temp` under the same paths.
    memory: limit such as "4GB"; None = four fifths of the memory for DuckDB, Spark's default.
    threads: of DuckDB; None = one per core.
    temp: folder for intermediate tables; None = the system's temporary folder.
    """

    engine: str = "duckdb"
    memory: str | None = None
    threads: int | None = None
    temp: Path | None = None


class Engine:
    """A connection and its folder of intermediate tables, from `open_engine`."""

    def __init__(self, connection: Any, work: Path, is_spark: bool) -> None:
        self.connection = connection
        self.work = work
        self.is_spark = is_spark
        self._numbers = itertools.count()

    def read(self, paths: Sequence[Path]) -> ir.Table:
        """Returns a lazy table over Parquet files."""
        patterns = [self._escape(path) for path in paths]
        with warnings.catch_warnings():
            # ibis 12 asks DuckDB 2 for a schema in a deprecated way.
            warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
            return self.connection.read_parquet(patterns if len(patterns) > 1 else patterns[0])

    def _escape(self, path: Path) -> str:
        """Returns a pattern that matches only this path; both engines expand paths as patterns."""
        if self.is_spark:
            return re.sub(r"([\[\]*?{}\\])", r"\\\1", str(path))
        return re.sub(r"([\[*?])", r"[\1]", str(path))

    def upload(self, frame: pl.DataFrame, name: str) -> ir.Table:
        """Returns a polars table as a table of the engine."""
        frame.write_parquet(self._file(name))
        return self.read([self._file(name)])

    def materialize(self, expression: ir.Table, name: str) -> ir.Table:
        """Computes `expression` once, and returns the stored table."""
        self.connection.to_parquet(expression, str(self._file(name)))
        return self.read([self._file(name)])

    def materialize_partitions(
        self, expression: ir.Table, name: str, partition: ir.Value, n_partitions: int
    ) -> None:
        """Computes `expression` once and stores its rows by `partition`, 0 to n_partitions - 1."""
        if n_partitions == 1:
            self.connection.to_parquet(expression, str(self._file(name)))
            return
        partitioned = expression.mutate({PARTITION: partition.cast("int32")})
        self.connection.to_parquet(partitioned, str(self.work / name), partition_by=PARTITION)
        # An empty file, so that the table can be read where it has no rows.
        first = self.work / name / f"{PARTITION}=0"
        first.mkdir(parents=True, exist_ok=True)
        self.connection.to_parquet(expression.limit(0), str(first / "none.parquet"))

    def read_partition(
        self, names: Sequence[str], number: int, n_partitions: int
    ) -> ir.Table | None:
        """Returns one partition of several tables, concatenated; None if it has no rows."""
        if n_partitions == 1:
            return self.read([self._file(name) for name in names])
        files: list[Path] = []
        for name in names:
            folder = self.work / name / f"{PARTITION}={number}"
            files += sorted(folder.glob("*.parquet"))
        return self.read(files) if files else None

    def delete(self, name: str) -> None:
        """Deletes a materialized table, to save disk space."""
        path = self._file(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def to_polars(self, expression: ir.Table) -> pl.DataFrame:
        """Computes `expression` in memory."""
        if self.is_spark:  # its own conversion to Arrow needs pandas
            folder = self.work / f"frame-{next(self._numbers)}"
            self.connection.to_parquet(expression, str(folder))
            files = sorted(folder.glob("*.parquet"))
            return pl.concat([read_parquet(file, file.name) for file in files])
        frame = pl.from_arrow(self.connection.to_pyarrow(expression))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def fetch_row(self, expression: ir.Table) -> dict[str, Any]:
        """Computes an aggregate of one row."""
        return self.to_polars(expression).row(0, named=True)

    def count_rows(self, expression: ir.Table) -> int:
        """Returns the number of rows of `expression`."""
        return int(self.fetch_row(expression.aggregate(n=expression.count()))["n"])

    def microseconds(self, moment: ir.Value) -> ir.Value:
        """Returns a UTC timestamp in microseconds by the engine's function, which ibis lacks."""

        def signature(_: Any) -> int:
            raise AssertionError("a builtin function is run by the engine")

        builtin = ibis.udf.scalar.builtin(
            name="unix_micros" if self.is_spark else "epoch_us",
            signature=((moment.type(),), dt.int64),
        )
        return builtin(signature)(moment)

    def _file(self, name: str) -> Path:
        return self.work / f"{name}.parquet"


@contextmanager
def open_engine(options: EngineOptions | None = None) -> Iterator[Engine]:
    """Opens an engine with an empty folder, which is deleted at the end.

    ConfigError for an unknown engine, memory or folder, PonticelloError without Spark.
    """
    options = options or EngineOptions()
    if options.memory is not None and not _MEMORY.fullmatch(options.memory):
        raise ConfigError(f"memory {options.memory!r} must look like 4GB or 512MB")
    if options.temp is not None and not options.temp.is_dir():
        raise ConfigError(f"temp {options.temp} is not a folder; make it, or name another")
    is_spark = options.engine.startswith(("local", "spark://", "yarn", "k8s://"))
    if not is_spark and options.engine != "duckdb":
        raise ConfigError(
            f"engine {options.engine!r} must be duckdb or a Spark master, such as local[*] or "
            "spark://HOST:7077"
        )
    connect = _connect_spark if is_spark else _connect_duckdb
    with (
        tempfile.TemporaryDirectory(prefix="ponticello-", dir=options.temp) as work,
        connect(options, Path(work)) as connection,
    ):
        yield Engine(connection, Path(work), is_spark)


@contextmanager
def _connect_duckdb(options: EngineOptions, work: Path) -> Iterator[Any]:
    settings: dict[str, Any] = {"temp_directory": str(work / "spill")}
    if options.memory:
        settings["memory_limit"] = options.memory
    if options.threads:
        settings["threads"] = options.threads
    connection = ibis.duckdb.connect(
        autoinstall_known_extensions=False,
        autoload_known_extensions=False,
        preserve_insertion_order=False,
        **settings,
    )
    try:
        yield connection
    finally:
        connection.disconnect()


@contextmanager
def _connect_spark(options: EngineOptions, work: Path) -> Iterator[Any]:
    """Starts a Spark session for the time of the work; uses a session that is running already."""
    if importlib.util.find_spec("pyspark") is None:
        raise PonticelloError(
            f"engine {options.engine} needs Spark: pip install 'ponticello[spark]', and Java 17 "
            "or newer"
        )
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        yield ibis.pyspark.connect(running)
        return
    logging.getLogger("py4j").setLevel(logging.ERROR)
    builder = SparkSession.builder.master(options.engine).appName("ponticello")
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(work / "warehouse"),
        "spark.local.dir": str(work / "spill"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    if options.engine.startswith("local"):
        settings["spark.sql.shuffle.partitions"] = "8"
    if options.memory:
        memory = re.sub("[ ib]", "", options.memory.lower())  # Spark writes 4GB as 4g
        settings["spark.driver.memory"] = memory
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        yield ibis.pyspark.connect(session)
    finally:
        session.stop()
