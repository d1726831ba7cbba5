"""The index as tables: what a ranker computes from them is what `recommend` ranks by."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.config import SearchConfig
from ponticello.library import Library
from ponticello.search.export import track_vector_table
from ponticello.search.index import EmbeddingIndex
from ponticello.storage.schema import TRACK_ID, USER_ID


def test_tracks_are_those_of_the_index_with_their_vectors(trained: Library) -> None:
    table = trained.track_vectors()
    levels = ["semantic_level", "preference_level"]
    assert table.columns == [TRACK_ID, "semantic", "preference", *levels, "space_id"]
    assert table[TRACK_ID].to_list() == trained.index.track_ids
    assert np.array_equal(table["semantic"].to_numpy(), trained.index.space_vectors(0))
    assert np.array_equal(table["preference"].to_numpy(), trained.index.space_vectors(1))
    assert np.abs(np.linalg.norm(table["preference"].to_numpy(), axis=1) - 1).max() < 1e-5
    assert table["space_id"].unique().to_list() == [
        "+".join(space.space_id for space in trained.index.spaces)
    ]


def test_before_stage_two_there_is_no_preference_column(trained: Library) -> None:
    index = EmbeddingIndex(
        trained.index.track_ids, trained.index.space_vectors(0), trained.index.spaces[:1]
    )
    columns = track_vector_table(index, SearchConfig()).columns
    assert columns == [TRACK_ID, "semantic", "semantic_level", "space_id"]


@pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
def test_a_join_of_both_tables_gives_the_parts_that_recommend_ranks_by(
    trained: Library, blend: float
) -> None:
    tracks, listeners = trained.track_vectors(), trained.listener_vectors()
    for listener in listeners.head(5).iter_rows(named=True):
        parts = {
            side: tracks[f"{side}_level"].to_numpy()
            * (
                tracks[side].to_numpy() @ np.array(listener[side], dtype=np.float32)
                - listener[f"{side}_offset"]
            )
            for side in ("semantic", "preference")
        }
        rows = trained.index.rows
        for result in trained.recommend(listener[USER_ID], k=10, blend=blend):
            row = rows[result.track_id]
            assert abs((1 - blend) * parts["semantic"][row] - result.semantic) < 1e-4
            assert abs(blend * parts["preference"][row] - result.preference) < 1e-4


def test_every_listener_with_a_liked_track_has_a_row_and_no_other(trained: Library) -> None:
    listeners = trained.listener_vectors()
    liking = [
        user
        for number, user in enumerate(trained.listening.users)
        if trained.listening.n_liked[number]
    ]
    assert listeners[USER_ID].to_list() == liking
    assert listeners["n_liked"].to_list() == [int(n) for n in trained.listening.n_liked if n]


def test_tables_survive_parquet(trained: Library, tmp_path: Path) -> None:
    table = trained.listener_vectors()
    table.write_parquet(tmp_path / "listeners.parquet")
    assert pl.read_parquet(tmp_path / "listeners.parquet").equals(table)


def test_without_a_log_there_are_no_listeners(trained_copy: Library) -> None:
    trained_copy.folder.interactions.unlink()
    table = trained_copy.listener_vectors()
    assert (table.height, table.columns[:2]) == (0, [USER_ID, "n_liked"])
