"""A track's text said in other ways, for training: what is asked later is never the fixed text
either.

What is left out how often, and the wordings, stand in `text.TEMPLATE`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.text import (
    TEMPLATE,
    field_items,
    join_phrases,
    render_text,
    text_rows,
    track_text,
)

MARKS = (".", ",", ";")  # between two parts


def reword_text(row: Mapping[str, Any], generator: np.random.Generator) -> str:
    """Another text of the same track; the same for the same row and state of `generator`.

    Each column is left out as often as `TEMPLATE` says, the others come in random order and
    wording; of a list come a random number of its items, at least one, shuffled. Where nothing is
    left it is `track_text`, so "" only if that is.

        >>> reworded({"title": "Blue Hour", "artist": "Ada", "genres": ["jazz", "piano"]}, np.random.default_rng(8))
        'a piano and jazz track, by Ada'
    """
    parts = []
    for field in TEMPLATE:
        items = field_items(row, field)
        if not items or generator.random() < field.drop_rate:
            continue
        order = generator.permutation(len(items))[
            : generator.integers(1, len(items), endpoint=True)
        ]
        wording = field.wordings[generator.integers(len(field.wordings))]
        parts.append(render_text(field, [items[place] for place in order], wording))
    shuffled = [parts[place] for place in generator.permutation(len(parts))]
    return join_phrases(shuffled, MARKS[generator.integers(len(MARKS))]) or track_text(row)


def track_variants(tracks: pl.DataFrame, n: int, seed: int) -> list[list[str]]:
    """For each row n texts, `track_text` first and then n - 1 of `reword_text`; none for a track
    without text.

    n: 1 or more. A row's texts depend on its columns, its track_id and `seed`, not on the other
    rows or their order. Two of them may be equal, the more often the less the track says of itself.
    Cost: about 50 us a text.

        track_variants(read_tracks(folder), n=8, seed=0)
    """
    assert n >= 1
    variants = []
    for track_id, row in zip(tracks[TRACK_ID], text_rows(tracks), strict=True):
        fixed, generator = track_text(row), _generator_of(track_id, seed)
        variants.append(
            [fixed, *(reword_text(row, generator) for _ in range(n - 1))] if fixed else []
        )
    return variants


def _generator_of(track_id: str, seed: int) -> np.random.Generator:
    """The generator of one track under one seed, the same on every machine."""
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256(f"{seed} {track_id}".encode()).digest())
    )
