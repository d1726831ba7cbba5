"""Where the mining rules run: DuckDB in this process, or a Spark cluster. The rules are the same
ibis expressions.

Whatever two steps need is kept as Parquet in a folder of its own, so that memory holds no more than
a step. DuckDB takes a big log in parts, each small enough to stay in memory; Spark divides its work
itself and gets one part.
"""

import importlib.util
import itertools
import logging
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ponticello.errors import ConfigError, PonticelloError
from ponticello.storage.tables import read_parquet

if TYPE_CHECKING:
    import ibis.expr.types as ir

PART = "part"  # the column that says which part of a kept table a row is in; 0, 1, ...
_MEMORY = re.compile(r"[1-9]\d*(\.\d+)? ?[KMGT]i?B", re.IGNORECASE)


@dataclass(frozen=True)
class EngineOptions:
    """Where to run and what may be used. None changes the pairs that come out.

    engine: "duckdb", or a Spark master such as "local[*]" or "spark://host:7077", whose workers
    must see the library
        and `temp` under the same paths. memory: what the engine may hold, such as "4GB"; None:
        DuckDB takes up to four fifths of the machine, Spark its own default. threads: of DuckDB;
        None: one a core. temp: where intermediate tables go; None: the system's temporary folder.
    """

    engine: str = "duckdb"
    memory: str | None = None
    threads: int | None = None
    temp: Path | None = None


class Engine:
    """One connection and its folder of intermediate tables; made by `open_engine`."""

    def __init__(self, connection: Any, work: Path, is_spark: bool) -> None:
        self.connection, self.work, self.is_spark = connection, work, is_spark
        self._numbers = itertools.count()

    def n_parts(self, n_rows: int, rows_a_part: int) -> int:
        """Into how many parts a table of `n_rows` is to be cut, so that none has many more than
        `rows_a_part`.
        """
        return 1 if self.is_spark else max(1, math.ceil(n_rows / rows_a_part))

    def read(self, *paths: Path) -> "ir.Table":
        """A table over Parquet files; nothing is loaded."""
        with (
            warnings.catch_warnings()
        ):  # ibis 12 asks DuckDB 2 for a schema in a way that DuckDB has deprecated
            warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
            exact = [self._exact(path) for path in paths]
            return self.connection.read_parquet(exact if len(exact) > 1 else exact[0])

    def _exact(self, path: Path) -> str:
        """A pattern that this path alone fits: both engines take a path for a pattern."""
        if self.is_spark:
            return re.sub(r"([\[\]*?{}\\])", r"\\\1", str(path))
        return re.sub(r"([\[*?])", r"[\1]", str(path))

    def table(self, frame: pl.DataFrame, name: str) -> "ir.Table":
        """A small table of ours as one of the engine's."""
        frame.write_parquet(self.work / f"{name}.parquet")
        return self.read(self.work / f"{name}.parquet")

    def keep(self, expression: "ir.Table", name: str) -> "ir.Table":
        """`expression`, computed once and read back whenever it is asked for."""
        self.connection.to_parquet(expression, str(self.work / f"{name}.parquet"))
        return self.read(self.work / f"{name}.parquet")

    def keep_parts(self, expression: "ir.Table", name: str, part: "ir.Value", n_parts: int) -> None:
        """Computes `expression` once, each row into the part (0 to n_parts - 1) that the expression
        `part` says.
        """
        if n_parts == 1:
            self.connection.to_parquet(expression, str(self.work / f"{name}.parquet"))
            return
        parted = expression.mutate(**{PART: part.cast("int32")})
        self.connection.to_parquet(parted, str(self.work / name), partition_by=PART)
        first = self.work / name / f"{PART}=0"  # so that there is a file to read, whatever the rows
        first.mkdir(parents=True, exist_ok=True)
        self.connection.to_parquet(expression.limit(0), str(first / "none.parquet"))

    def part(self, names: Sequence[str], number: int, n_parts: int) -> "ir.Table | None":
        """Part `number` of the tables kept under `names`, one after the other; None where none has
        a row.
        """
        if n_parts == 1:
            return self.read(*[self.work / f"{name}.parquet" for name in names])
        files = [
            file
            for name in names
            for file in sorted((self.work / name / f"{PART}={number}").glob("*.parquet"))
        ]
        return self.read(*files) if files else None

    def whole(self, name: str, n_parts: int) -> "ir.Table":
        """All parts of the table kept under `name`."""
        if n_parts == 1:
            return self.read(self.work / f"{name}.parquet")
        return self.read(*sorted((self.work / name).glob("*/*.parquet")))

    def drop(self, name: str) -> None:
        """Forgets the table kept under `name`, for the sake of the disk."""
        path = self.work / f"{name}.parquet"
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def frame(self, expression: "ir.Table") -> pl.DataFrame:
        """`expression` as a table in memory."""
        if self.is_spark:  # its own way to Arrow leads through pandas
            path = self.work / f"frame-{next(self._numbers)}"
            self.connection.to_parquet(expression, str(path))
            return pl.concat(
                [read_parquet(part, part.name) for part in sorted(path.glob("*.parquet"))]
            )
        found = pl.from_arrow(self.connection.to_pyarrow(expression))
        assert isinstance(found, pl.DataFrame)
        return found

    def row(self, expression: "ir.Table") -> dict[str, Any]:
        """The one row of an aggregate."""
        return self.frame(expression).row(0, named=True)

    def n_rows(self, expression: "ir.Table") -> int:
        """How many rows `expression` has."""
        return int(self.row(expression.aggregate(n=expression.count()))["n"])

    def microseconds(self, moment: "ir.Value") -> "ir.Value":
        """A moment (UTC) as whole microseconds since 1970; ibis itself knows only seconds in every
        engine.
        """
        import ibis
        import ibis.expr.datatypes as dt

        name = "unix_micros" if self.is_spark else "epoch_us"

        def whole(_: Any) -> int:
            raise AssertionError(
                "the engine has this function; this one only says what it takes and gives"
            )

        return ibis.udf.scalar.builtin(name=name, signature=((moment.type(),), dt.int64))(whole)(
            moment
        )


@contextmanager
def open_engine(options: EngineOptions | None = None) -> Iterator[Engine]:
    """An engine with an empty folder, which is removed in the end.

    ConfigError: an engine or amount that is none. PonticelloError: Spark is asked for and not
    installed.
    """
    options = options or EngineOptions()
    if options.memory is not None and not _MEMORY.fullmatch(options.memory):
        raise ConfigError(f"memory {options.memory!r} must look like 4GB or 512MB")
    if options.temp is not None and not options.temp.is_dir():
        raise ConfigError(f"temp {options.temp} is not a folder; make it, or name another")
    is_spark = options.engine.startswith(("local", "spark://", "yarn", "k8s://"))
    if not is_spark and options.engine != "duckdb":
        raise ConfigError(
            f"engine {options.engine!r} must be duckdb or a Spark master, such as local[*] or spark://HOST:7077"
        )
    with tempfile.TemporaryDirectory(prefix="ponticello-", dir=options.temp) as work:
        connect = _spark if is_spark else _duckdb
        with connect(options, Path(work)) as connection:
            yield Engine(connection, Path(work), is_spark)


@contextmanager
def _duckdb(options: EngineOptions, work: Path) -> Iterator[Any]:
    import ibis

    settings: dict[str, Any] = {"temp_directory": str(work / "spill")}
    settings |= {"memory_limit": options.memory} if options.memory else {}
    settings |= {"threads": options.threads} if options.threads else {}
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
def _spark(options: EngineOptions, work: Path) -> Iterator[Any]:
    """A Spark session of our own, which ends with the work; one that runs already is used and left
    running.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise PonticelloError(
            f"engine {options.engine} needs Spark: pip install 'ponticello[spark]', and Java 17 or newer"
        )
    import ibis
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is None:
        logging.getLogger("py4j").setLevel(logging.ERROR)
        builder = SparkSession.builder.master(options.engine).appName("ponticello")
        settings = {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.warehouse.dir": str(work / "warehouse"),
            "spark.local.dir": str(work / "spill"),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "ERROR",
            **({"spark.sql.shuffle.partitions": "8"} if options.engine.startswith("local") else {}),
            **({"spark.driver.memory": _java_size(options.memory)} if options.memory else {}),
        }
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
    else:
        session = running
    try:
        yield ibis.pyspark.connect(session)
    finally:
        if running is None:
            session.stop()


def _java_size(memory: str) -> str:
    """`4GB` as Spark writes it, `4g`."""
    return re.sub(r" ?([KMGT])i?B", lambda match: match[1].lower(), memory, flags=re.IGNORECASE)
