"""An index whose rows are found by FAISS: written, checked, opened, asked."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import CheckpointError
from ponticello.search.embed import Vectors
from ponticello.search.faiss_index import FaissIndex
from ponticello.search.generations import open_index, write_index
from ponticello.search.index import Calibration, EmbeddingIndex, VectorSpace
from tests.search.ranked import rank

pytest.importorskip("faiss", reason="faiss-cpu is not installed")
N = 1_500
SPACES = [
    VectorSpace(name, name, Calibration(0.1, 0.5), Calibration(0.0, 1.0)) for name in ("one", "two")
]


def _sides() -> list[Vectors]:
    ids, sides = [f"t{row:04d}" for row in range(N)], []
    for seed in (0, 1):
        vectors = np.random.default_rng(seed).standard_normal((N, 8)).astype(np.float32)
        sides.append(
            Vectors(ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), str(seed))
        )
    return sides


def _written(place: Path) -> Path:
    semantic, preference = _sides()
    return write_index(place, semantic, preference, SPACES, backend="faiss")


def _tracks() -> pl.DataFrame:
    ids = [f"t{row:04d}" for row in range(N)]
    artists = [f"artist {row % 3}" for row in range(N)]
    return pl.DataFrame({"track_id": ids[::-1], "title": ids[::-1], "artist": artists[::-1]})


def test_recall_stands_in_the_record_and_the_index_opens_with_it(tmp_path: Path) -> None:
    generation = _written(tmp_path)
    record = json.loads((generation / "index.json").read_text())
    assert record["finder"]["backend"] == "faiss"
    assert min(record["finder"]["recall"].values()) >= 0.99
    assert set(record["sha256"]) == {
        "vectors.npy",
        "tracks.parquet",
        "space-0.faiss",
        "space-1.faiss",
    }
    assert isinstance(open_index(tmp_path).finder, FaissIndex)
    assert open_index(tmp_path, "exact").finder is None


@pytest.mark.parametrize("place", [100, -9])
def test_a_flipped_bit_of_a_faiss_file_is_refused(tmp_path: Path, place: int) -> None:
    file = _written(tmp_path) / "space-1.faiss"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"space-1.faiss is not what was written\); run: ponticello embed"
    ):
        open_index(tmp_path)


@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_ranked_lists_with_caps_and_exclusions_are_those_of_the_exact_way(
    tmp_path: Path, blend: float
) -> None:
    """Two tracks each by three artists; the first ten may miss one of these six."""
    _written(tmp_path)
    lists = []
    for backend in ("auto", "exact"):
        index: EmbeddingIndex = open_index(tmp_path, backend)
        query = index.track_query(["t0007"])
        found = rank(index, query, _tracks(), k=10, blend=blend, excluded=["t0007"], per_artist=2)
        assert len(found) == 6
        lists.append({result.track_id: result.score for result in found})
    same = lists[0].keys() & lists[1].keys()
    assert len(same) >= 5
    assert all(lists[0][track_id] == lists[1][track_id] for track_id in same)
