"""Yambda: Parquet events with times in seconds from an unknown moment."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ponticello.datasets.registry import SETS
from ponticello.datasets.yambda import GAP_S, ORIGIN, TEST_FROM_S
from ponticello.errors import DataError

LISTENS = {
    "uid": [100, 100, 200],
    "item_id": [7, 8, 7],
    "timestamp": [5, TEST_FROM_S - GAP_S, TEST_FROM_S],
    "is_organic": [1, 0, 1],
    "played_ratio_pct": [50, 120, 0],
    "track_length_seconds": [200, 100, 200],
}


def _write(root: Path, name: str, columns: dict[str, list[int | None]]) -> None:
    pl.DataFrame(
        columns,
        schema_overrides={"played_ratio_pct": pl.UInt16} if "played_ratio_pct" in columns else {},
    ).cast({"timestamp": pl.UInt32}).write_parquet(root / f"{name}.parquet")


def _rated(*items: int) -> dict[str, list[int | None]]:
    return {
        "uid": [100] * len(items),
        "item_id": [*items],
        "timestamp": [10] * len(items),
        "is_organic": [1] * len(items),
    }


def test_listens_become_plays_with_their_seconds_and_split(tmp_path: Path) -> None:
    """50 % of 200 s is 100 s, 120 % of 100 s is 120 s; the second falls into the gap between
    training and test.
    """
    _write(tmp_path, "listens", {name: [*values] for name, values in LISTENS.items()})
    content = SETS["yambda"].read(tmp_path)
    assert content.tracks.rows() == [("7", 200.0), ("8", 100.0)]
    assert content.interactions is not None
    assert content.interactions.select(
        "user_id", "track_id", "event", "played_s", "split", "is_organic"
    ).rows() == [
        ("100", "7", "play", 100.0, "train", True),
        ("100", "8", "play", 120.0, None, False),
        ("200", "7", "play", 0.0, "test", True),
    ]
    assert content.interactions["played_at"][0] == ORIGIN + timedelta(seconds=5)
    assert content.missing == ["likes.parquet", "dislikes.parquet"]


def test_likes_and_dislikes_are_events_of_their_own(tmp_path: Path) -> None:
    _write(tmp_path, "listens", {name: [*values] for name, values in LISTENS.items()})
    _write(tmp_path, "likes", _rated(7))
    _write(tmp_path, "dislikes", _rated(9))
    content = SETS["yambda"].read(tmp_path)
    assert content.interactions is not None
    assert content.interactions.select("track_id", "event", "played_s").rows()[3:] == [
        ("7", "like", None),
        ("9", "dislike", None),
    ]
    assert content.tracks.rows() == [("7", 200.0), ("8", 100.0), ("9", None)]
    assert content.missing == []


def test_rows_without_a_user_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "listens",
        {**{name: [*values] for name, values in LISTENS.items()}, "uid": [100, None, 200]},
    )
    content = SETS["yambda"].read(tmp_path)
    assert content.interactions is not None
    assert content.interactions["user_id"].to_list() == ["100", "200"]
    assert [(row.file, row.line, row.field) for row in content.skipped] == [
        ("listens.parquet", 2, "uid")
    ]


def test_missing_listens_and_the_other_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"has no listens\.parquet; wanted the listens of the flat form; to get it: flat",
    ):
        SETS["yambda"].read(tmp_path)
    pl.DataFrame({"uid": [1], "item_id": [[1, 2]]}).write_parquet(tmp_path / "listens.parquet")
    with pytest.raises(DataError, match=r"listens\.parquet is not of the flat form"):
        SETS["yambda"].read(tmp_path)
    lists = {name: [values] if name != "uid" else [1] for name, values in LISTENS.items()}
    pl.DataFrame(lists).write_parquet(tmp_path / "listens.parquet")
    with pytest.raises(DataError, match=r"column 'item_id' is List\(Int64\), wanted a number"):
        SETS["yambda"].read(tmp_path)
