"""Vectors and profiles as tables for other programs: a row per track, a row per user.

Both carry `space_id`, the models behind the vectors. Join on it too: vectors of different models
cannot be compared.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ponticello.config import SearchConfig
from ponticello.search.index import EmbeddingIndex
from ponticello.search.user_history import ListeningHistory, load_audience
from ponticello.storage.schema import TRACK_ID, USER_ID

SPACE_NAMES = ("semantic", "preference")
SPACE_ID = "space_id"
N_LIKED = "n_liked"


def track_vector_table(index: EmbeddingIndex, config: SearchConfig) -> pl.DataFrame:
    """Returns a row per track: `track_id`, the unit vectors (d,) `semantic` and `preference`, and
    `semantic_level` and `preference_level`, by which `search.hub_correction` multiplies the scores
    of a listener's profile.
    """
    vectors = list(map(index.space_vectors, range(len(index.spaces))))
    columns = [pl.Series(TRACK_ID, index.track_ids, dtype=pl.String)]
    columns += _vector_columns(vectors)
    _, levels = index.profiles(config.profile_l2, config.hub_correction)
    for number, name in enumerate(SPACE_NAMES[: len(vectors)]):
        values = levels[number] if levels else np.ones(len(index.track_ids), dtype=np.float32)
        columns.append(pl.Series(f"{name}_level", values))
    return pl.DataFrame(columns).with_columns(_space_id(index))


def listener_table(
    index: EmbeddingIndex, history: ListeningHistory, config: SearchConfig
) -> pl.DataFrame:
    """Returns a row per user with a liked track in the index, by id; `MAX_LISTENERS` at most.

    `semantic`, `preference` (d,) and `semantic_offset`, `preference_offset`: a track with the
    vector v has the components `level * (profile @ v - offset)` of the score that `recommend`
    ranks by, each before its share of the blend. `n_liked`: how many tracks of
    the index they like; the profile is of the latest.
    """
    numbers, audience = load_audience(index, history, config)
    columns = [
        pl.Series(USER_ID, history.users, dtype=pl.String).gather(numbers),
        pl.Series(N_LIKED, history.n_liked[numbers], dtype=pl.Int64),
    ]
    columns += _vector_columns(audience.vectors)
    for number, offsets in enumerate(audience.offsets):
        values = np.asarray(offsets, dtype=np.float32)[:, 0]
        columns.append(pl.Series(f"{SPACE_NAMES[number]}_offset", values))
    return pl.DataFrame(columns).with_columns(_space_id(index))


def _vector_columns(vectors: Sequence[np.ndarray]) -> list[pl.Series]:
    columns = []
    for number, matrix in enumerate(vectors):
        dtype = pl.Array(pl.Float32, matrix.shape[1])
        columns.append(pl.Series(SPACE_NAMES[number], np.ascontiguousarray(matrix), dtype=dtype))
    return columns


def _space_id(index: EmbeddingIndex) -> pl.Expr:
    return pl.lit("+".join(space.space_id for space in index.spaces)).alias(SPACE_ID)
