"""Options that commands share, and how they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from ponticello.library import Library

LibraryPath = Annotated[
    Path,
    Option(
        "--library",
        "-L",
        envvar="PONTICELLO_LIBRARY",
        help="The library folder.",
        show_default="this folder",
    ),
]
Settings = Annotated[
    list[str] | None,
    Option("--set", help="A setting on top of the library's own: section.key=value."),
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
Columns = Annotated[
    list[str] | None,
    Option("--columns", help="Our column = the table's column, such as track_id=id."),
]
Workers = Annotated[
    int | None, Option(min=1, help="Processes that read files.", show_default="one per core")
]
Shard = Annotated[
    str | None,
    Option(
        "--shard",
        help="i/n, from 1/n to n/n: compute this shard only, beside other jobs; "
        "--merge-shards n follows.",
    ),
]
MergeShards = Annotated[
    int | None,
    Option(
        "--merge-shards",
        min=1,
        help="Merge what n jobs with --shard i/n computed; an error if one is missing.",
    ),
]
Engine = Annotated[
    str,
    Option("--engine", help="here; or ray, on this machine or the cluster that RAY_ADDRESS names."),
]
MiningEngine = Annotated[
    str,
    Option(
        help="duckdb, here; or a Spark master: local[*], spark://HOST:7077. The pairs are the same."
    ),
]
Memory = Annotated[
    str | None, Option(help="The most memory of the engine, such as 4GB; the rest goes to disk.")
]
Threads = Annotated[
    int | None, Option(min=1, help="Threads of DuckDB.", show_default="one per core")
]
Temp = Annotated[
    Path | None, Option(help="The folder for intermediate tables.", show_default="the system's")
]
HERE = Path()


def open_library(library: Path, settings: Sequence[str] | None = None) -> "Library":
    """Opens the library with the settings of the command line on top."""
    from ponticello.library import Library

    return Library.open(library, settings or ())


def read_columns(columns: Sequence[str] | None) -> dict[str, str]:
    """Returns `["track_id=id"]` as {"track_id": "id"}; ConfigError for anything else."""
    from ponticello.errors import ConfigError

    renamed = {}
    for column in columns or ():
        name, _, table_name = column.partition("=")
        if not name or not table_name or "=" in table_name:
            raise ConfigError(
                f"--columns {column!r} must look like ours=theirs, such as track_id=id"
            )
        renamed[name] = table_name
    return renamed


def read_shard(shard: str | None, n_shards: int | None, engine: str) -> tuple[int, int] | None:
    """Returns `"2/4"` as (2, 4), None for None; ConfigError for others or with --merge-shards."""
    from ponticello.errors import ConfigError

    if (shard is not None) + (n_shards is not None) + (engine != "here") > 1:
        raise ConfigError(
            "--shard, --merge-shards and --engine exclude each other: give one of them"
        )
    if shard is None:
        return None
    number, _, n = shard.partition("/")
    if not (number.isdecimal() and n.isdecimal() and 1 <= int(number) <= int(n)):
        raise ConfigError(f"--shard {shard!r} must be i/n with i from 1 to n, such as 2/4")
    return int(number), int(n)
