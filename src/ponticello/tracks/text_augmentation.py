"""Makes other wordings of a track's text for training: queries are never the fixed text either.

`text.TEMPLATE` has the wordings, and how often each column is dropped.
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

MARKS = (".", ",", ";")  # between two phrases


def reword_text(row: Mapping[str, Any], generator: np.random.Generator) -> str:
    """Returns another text of the track, the same for the same row and state of `generator`.

    Each column is dropped at its `drop_rate`; the others come in random order and wording. A list
    gives a random number of its items, at least one, shuffled. If every column is dropped, the
    text is `track_text`.

        >>> reword_text({"title": "Blue Hour", "genres": ["jazz", "piano"]}, default_rng(6))
        'called Blue Hour; jazz and piano music'
    """
    phrases = []
    for field in TEMPLATE:
        items = field_items(row, field)
        if not items or generator.random() < field.drop_rate:
            continue
        order = generator.permutation(len(items))
        n_items = generator.integers(1, len(items), endpoint=True)
        wording = field.wordings[generator.integers(len(field.wordings))]
        phrases.append(render_text(field, [items[i] for i in order[:n_items]], wording))
    shuffled = [phrases[i] for i in generator.permutation(len(phrases))]
    mark = MARKS[generator.integers(len(MARKS))]
    return join_phrases(shuffled, mark) or track_text(row)


def track_variants(tracks: pl.DataFrame, n: int, seed: int) -> list[list[str]]:
    """Returns n texts per row: `track_text`, then n - 1 of `reword_text`; [] without any text.

    A row's texts depend on its columns, its track_id and `seed` alone. Cost: about 50 us a text.
    """
    assert n >= 1
    variants: list[list[str]] = []
    for track_id, row in zip(tracks[TRACK_ID], text_rows(tracks), strict=True):
        texts = []
        if fixed := track_text(row):
            texts.append(fixed)
            generator = _track_generator(track_id, seed)
            for _ in range(n - 1):
                texts.append(reword_text(row, generator))
        variants.append(texts)
    return variants


def _track_generator(track_id: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {track_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest))
