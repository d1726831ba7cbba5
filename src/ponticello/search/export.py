"""An index as tables for other programs, a ranker above all: a row a track, a row a listener.

Both carry `space_id`, the models behind the vectors: rows of different models must not meet, so
join on it too.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ponticello.config import SearchConfig
from ponticello.search.index import EmbeddingIndex
from ponticello.search.user_history import ListeningHistory, load_audience
from ponticello.storage.schema import TRACK_ID, USER_ID

SIDES = ("semantic", "preference")
SPACE_ID, N_LIKED = "space_id", "n_liked"


def track_vector_table(index: EmbeddingIndex) -> pl.DataFrame:
    """A row a track of the index: `track_id`, unit vectors (d,) `semantic` and, after stage two,
    `preference`.
    """
    sides = [index.side(number) for number in range(len(index.spaces))]
    columns = [pl.Series(TRACK_ID, index.track_ids, dtype=pl.String), *_vectors(sides)]
    return pl.DataFrame(columns).with_columns(_space(index))


def listener_table(
    index: EmbeddingIndex, listening: ListeningHistory, config: SearchConfig
) -> pl.DataFrame:
    """A row a listener who likes a track of the index, `MOST_LISTENERS` of them at most, by id:
    their profile.

    `semantic`, `preference` (d,) and `semantic_offset`, `preference_offset`: a track with the
    vector v has the parts `profile @ v - offset` of the score that `recommend` ranks by, each
    before its share of the dial, and before `search.hub_correction`. `n_liked`: how many tracks of
    the index they like; the profile is of the latest.
    """
    numbers, audience = load_audience(index, listening, config)
    offsets = [
        side @ own.mean.astype(np.float32)
        for side, own in zip(audience.sides, audience.profiles, strict=True)
    ]
    columns = [
        pl.Series(USER_ID, [listening.users[number] for number in numbers], dtype=pl.String),
        pl.Series(N_LIKED, listening.n_liked[numbers], dtype=pl.Int64),
        *_vectors(audience.sides),
        *(
            pl.Series(f"{name}_offset", offset)
            for name, offset in zip(SIDES, offsets, strict=False)
        ),
    ]
    return pl.DataFrame(columns).with_columns(_space(index))


def _vectors(sides: Sequence[np.ndarray]) -> list[pl.Series]:
    """A column a space, each row an array of its size."""
    return [
        pl.Series(name, np.ascontiguousarray(side), dtype=pl.Array(pl.Float32, side.shape[1]))
        for name, side in zip(SIDES, sides, strict=False)
    ]


def _space(index: EmbeddingIndex) -> pl.Expr:
    return pl.lit("+".join(space.space_id for space in index.spaces)).alias(SPACE_ID)
