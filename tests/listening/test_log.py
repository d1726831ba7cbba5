"""How listening events come into the log and out of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ponticello.errors import LibraryError
from ponticello.listening.importers.run import import_history
from ponticello.listening.log import is_positive, read_interactions
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.storage.schema import INTERACTIONS
from ponticello.tracks.catalog import import_tracks


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    library = create_library(tmp_path / "library", "tiny")
    (tmp_path / "tracks.csv").write_text("track_id\na\nb\n")
    import_tracks(library, tmp_path / "tracks.csv")
    return library


def _table(
    path: Path, *rows: str, header: str = "user_id,track_id,played_at,event,played_s"
) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _import(folder: LibraryPaths, table: Path, **options: Any) -> tuple[int, int]:
    """Returns the events that are new, and those in the log now."""
    result = import_history(folder, table, pseudonyms=False, **options)
    return result.n_new, result.n_total


def test_events_are_sorted_and_complete(folder: LibraryPaths, tmp_path: Path) -> None:
    table = _table(
        tmp_path / "p.csv",
        "v,a,2024-01-02,like,",
        "u,b,2024-01-02,,7",
        "u,a,2024-01-02,skip,",
        "z,a,2024-01-01,,",
    )
    assert _import(folder, table) == (4, 4)
    events = read_interactions(folder)
    assert set(events.columns) == set(INTERACTIONS.kinds)
    assert events.select("user_id", "track_id", "event", "played_s").rows() == [
        ("z", "a", "play", None),
        ("u", "a", "skip", None),
        ("u", "b", "play", 7.0),
        ("v", "a", "like", None),
    ]


def test_table_without_event_holds_plays(folder: LibraryPaths, tmp_path: Path) -> None:
    table = _table(tmp_path / "p.csv", "u,a,1700000000", header="listener,track_id,ts")
    _import(folder, table, columns={"user_id": "listener", "played_at": "ts"})
    assert read_interactions(folder).select("user_id", "played_at", "event").rows() == [
        ("u", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "play")
    ]


def test_same_event_counts_once_also_over_imports(folder: LibraryPaths, tmp_path: Path) -> None:
    first = _table(
        tmp_path / "1.csv",
        "u,a,2024-01-02,,5",
        "u,a,2024-01-02T00:00Z,play,6",
        "u,a,2024-01-02,like,",
    )
    assert _import(folder, first) == (2, 2)
    assert _import(folder, first) == (0, 2)
    second = _table(tmp_path / "2.csv", "u,a,2024-01-02,play,9", "v,a,2024-01-02,play,")
    assert _import(folder, second) == (1, 3)
    plays = read_interactions(folder).filter(pl.col("event") == "play")
    assert plays.select("user_id", "played_s").rows() == [("u", 5.0), ("v", None)]


def test_positive_is_a_liking_event_or_a_play_that_lasted() -> None:
    rows = [
        ("play", None),
        ("play", 30.0),
        ("play", 29.9),
        ("complete", 1.0),
        ("like", None),
        ("collect", None),
    ]
    rows += [("playlist", None), ("skip", 99.0), ("dislike", None)]
    events = pl.DataFrame(rows, schema={"event": pl.String, "played_s": pl.Float64}, orient="row")
    wanted = [True, True, False, True, True, True, True, False, False]
    assert events.select(is_positive(30.0)).to_series().to_list() == wanted


def test_missing_catalogue_or_history_says_what_to_do(folder: LibraryPaths, tmp_path: Path) -> None:
    with pytest.raises(
        LibraryError,
        match="has no listening history; run: ponticello import-history FILE",
    ):
        read_interactions(folder)
    table = _table(tmp_path / "p.csv", "u,a,2024-01-02,,")
    with folder.lock(), pytest.raises(LibraryError, match="is being written by another process"):
        _import(folder, table)
    folder.tracks.unlink()
    with pytest.raises(LibraryError, match="has no tracks; run: ponticello scan MUSIC"):
        _import(folder, table)
