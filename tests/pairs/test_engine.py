"""Both engines give the same pairs, in any number of parts; what cannot run says why."""

import importlib.util
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from listening import make_library
from ponticello.config import PairsConfig
from ponticello.errors import ConfigError, PonticelloError
from ponticello.pairs import events as log_module
from ponticello.pairs.engine import Engine, EngineOptions, open_engine
from ponticello.pairs.events import EVENTS_SCHEMA
from ponticello.pairs.mine import mine_library
from ponticello.storage.schema import EVENTS
from tests.frame_mining import mine_pairs

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs pyspark and Java",
)
LOCAL = EngineOptions("local[2]")
EVERY_RULE = PairsConfig(
    min_users=2,
    max_pairs_per_user=60,
    max_pairs_per_track=6,
    min_lift=0.8,
)


def _log(n_events: int, seed: int = 0) -> pl.DataFrame:
    """Events of every kind with nulls wherever they may be, weights of many digits and ids beyond
    ASCII.
    """
    random, start = Random(seed), datetime(2025, 3, 30, tzinfo=UTC)
    tracks = [f"t{number}" for number in range(40)] + ["é", "Z", "日本", "~"]
    rows = [
        {
            "user_id": f"u{random.randrange(60)}",
            "track_id": random.choice(tracks),
            "played_at": start + timedelta(microseconds=random.randrange(10**12)),
            "event": random.choice(EVENTS),
            "played_s": random.choice([None, random.random() * 90]),
            "weight": random.choice([None, random.random(), 2.5e-6, -1.0]),
            "context_track_id": random.choice([None, random.choice(tracks), "gone"]),
            "session_id": random.choice([None, None, "one", "two"]),
        }
        for _ in range(n_events)
    ]
    return pl.DataFrame(rows, schema=EVENTS_SCHEMA)


@pytest.mark.parametrize("config", [PairsConfig(min_users=2), EVERY_RULE])
def test_many_small_parts_give_what_one_part_gives(
    config: PairsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _log(3000)
    whole = mine_pairs(log, config)
    assert len(whole[0]) > 50
    monkeypatch.setattr(log_module, "_EVENTS_PER_PARTITION", 700)
    parted = mine_pairs(log, config)
    assert parted[0].equals(whole[0])
    assert parted[1] == whole[1]


def test_candidates_are_shared_out_over_four_times_the_parts_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3,000 events in parts of 700 are 5 parts, so 20 of the pairs, none of them much larger than
    the others.
    """
    kept, sizes = Engine.materialize_partitions, list[list[int]]()

    def noted(engine: Engine, expression: Any, name: str, part: Any, n_parts: int) -> None:
        kept(engine, expression, name, part, n_parts)
        if name.startswith("pairs-"):
            tables = [engine.read_partition([name], number, n_parts) for number in range(n_parts)]
            sizes.append([0 if table is None else engine.count_rows(table) for table in tables])

    monkeypatch.setattr(Engine, "materialize_partitions", noted)
    monkeypatch.setattr(log_module, "_EVENTS_PER_PARTITION", 700)
    mine_pairs(_log(3000), PairsConfig(min_users=2))
    assert [len(each) for each in sizes] == [20] * 5
    for each in sizes:
        assert min(each) > 0
        assert max(each) < 3 * sum(each) / 20


def test_memory_threads_and_folder_change_nothing(tmp_path: Path) -> None:
    log = _log(1000)
    options = EngineOptions(memory="300MB", threads=1, temp=tmp_path)
    assert mine_pairs(log, PairsConfig(), options=options)[0].equals(
        mine_pairs(log, PairsConfig())[0]
    )
    assert not list(tmp_path.iterdir())


@needs_spark
@pytest.mark.slow
def test_spark_gives_what_duckdb_gives() -> None:
    log = _log(3000, seed=1)
    pairs, funnel = mine_pairs(log, EVERY_RULE)
    assert len(pairs) > 50
    spark_pairs, spark_funnel = mine_pairs(log, EVERY_RULE, options=LOCAL)
    assert spark_pairs.equals(pairs)
    assert spark_funnel == funnel


@needs_spark
@pytest.mark.slow
@pytest.mark.long
def test_spark_and_duckdb_write_the_same_bytes_for_two_million_events(tmp_path: Path) -> None:
    folder = make_library(tmp_path / "library", 2_000_000)
    files = (folder.pairs, folder.validation_pairs, folder.splits)
    mine_library(folder)
    ours = [file.read_bytes() for file in files]
    mined = mine_library(folder, EngineOptions("local[*]", memory="3GB"))
    assert [file.read_bytes() for file in files] == ours
    assert mined.n_pairs > 10_000


def test_an_engine_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with (
        pytest.raises(
            ConfigError,
            match=r"engine 'dask' must be duckdb or a Spark master, such as local\[\*\]",
        ),
        open_engine(EngineOptions("dask")),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="memory 'lots' must look like 4GB"),
        open_engine(EngineOptions(memory="lots")),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"temp .*nowhere is not a folder"),
        open_engine(EngineOptions(temp=tmp_path / "nowhere")),
    ):
        pass


def test_spark_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(PonticelloError, match=r"pip install 'ponticello\[spark\]', and Java 17"),
        open_engine(LOCAL),
    ):
        pass
