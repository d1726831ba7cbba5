"""The one search service: the same answers from everywhere, and paths between tracks."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from ponticello.library import Library
from ponticello.search.index import Calibration, EmbeddingIndex, VectorSpace
from ponticello.search.service import SearchService
from ponticello.storage.layout import create_library, open_library
from ponticello.storage.schema import TRACKS
from ponticello.tracks.catalog import fill_columns
from tests.cli.commands import out
from tests.serve.served import client_of, make_app


@pytest.fixture(scope="module")
def client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


@pytest.mark.parametrize("command", ["search", "similar", "recommend"])
def test_python_command_line_and_http_give_the_same_list(
    trained: Library, client: TestClient, command: str
) -> None:
    user = trained.listening.users[3]
    subject = {"search": "slow dark", "similar": "track-0007", "recommend": user}[command]
    url = {
        "search": "/api/search?text=slow+dark&",
        "similar": "/api/tracks/track-0007/similar?",
        "recommend": f"/api/recommend/{user}?",
    }[command]
    results = getattr(trained, command)(subject, k=7, blend=0.3, per_artist=2, where=["tags=slow"])
    root = trained.folder.root
    options = ["-k", "7", "--blend", "0.3", "--per-artist", "2", "--where", "tags=slow"]
    printed = json.loads(out(command, subject, "-L", root, "--json", *options))
    served = client.get(f"{url}k=7&blend=0.3&per_artist=2&where=tags%3Dslow").json()["results"]
    assert len(results) > 2
    for field in ("rank", "track_id", "title", "artist", "score", "semantic", "preference"):
        values = [getattr(result, field) for result in results]
        assert [result[field] for result in printed] == values
        assert [result[field] for result in served] == values


def test_results_are_a_sequence_and_a_table(trained: Library) -> None:
    results = trained.search("slow dark", k=3)
    table = results.to_polars()
    assert table["track_id"].to_list() == [result.track_id for result in results]
    assert table["tags"].to_list() == [list(result.tags) for result in results]
    first = results[0]
    assert first.path is not None
    assert Path(first.path).is_file()
    assert first.semantic + first.preference == pytest.approx(first.score)
    assert len(repr(results).splitlines()) == 4
    assert first.track_id in repr(results)
    assert trained.search("low", where=["artist=nobody"]).to_polars().is_empty()


@pytest.mark.parametrize(("deduplicates", "expected"), [(True, "aecb"), (False, "aecdb")])
def test_paths_honour_deduplicate_recordings(
    tmp_path: Path, deduplicates: bool, expected: str
) -> None:
    """Tracks on a quarter circle; d is a copy of c."""
    create_library(tmp_path, "tiny")
    setting = f"search.deduplicate_recordings={str(deduplicates).lower()}"
    folder = open_library(tmp_path, [setting])
    degrees = np.radians([0, 90, 45, 60, 20])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    plain = Calibration(0.0, 1.0)
    spaces = [VectorSpace("one", "aaaa", plain, plain)]
    index = EmbeddingIndex(list("abcde"), vectors, spaces, list("vwxxz"))
    tracks = fill_columns(pl.DataFrame({"track_id": list("abcde")}), TRACKS)
    service = SearchService(folder, index, tracks)
    path = [track_id for track_id, _ in service.path("a", "b", 5)]
    assert "".join(path) == expected
