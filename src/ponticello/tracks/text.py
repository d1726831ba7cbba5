"""Builds the text of a track for the text encoder from its catalogue columns.

For training there are other wordings of it: queries are never the fixed text either.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ponticello.storage import schema


@dataclass(frozen=True)
class Field:
    """How one column enters a text.

    drop_rate: the share of training texts without it; the fixed text has every column.
    is_name: whether the column names the track or artist rather than describing the sound.
    wordings: `{}` becomes "a, b, c" and `{and}` "a, b and c"; the fixed text uses the first.
    """

    column: str
    drop_rate: float
    is_name: bool
    wordings: tuple[str, ...]


# In the order of the fixed text. Names describe the sound least and are easily learned by heart,
# so they are dropped most often.
TEMPLATE = (
    Field(schema.TITLE, 0.5, True, ("{}", "called {}", "the track {}")),
    Field(schema.ARTIST, 0.5, True, ("by {}", "{} plays", "music by {}")),
    Field(schema.ALBUM, 0.25, True, ("from {}", "on the album {}")),
    Field(schema.GENRES, 0.25, False, ("{}", "{and} music", "genre {}", "a {and} track")),
    Field(schema.TAGS, 0.25, False, ("{}", "tagged {}", "{and} music")),
    Field(
        schema.MACHINE_TAGS, 0.25, False, ("sounds like {}", "{}", "{and} music", "one hears {and}")
    ),
    Field(schema.LANGUAGE, 0.25, False, ("{}", "language {}")),
    Field(schema.DESCRIPTION, 0.25, False, ("{}",)),
    Field(schema.LYRICS, 0.25, False, ("{}", "the words are {}")),
)
# Of description and of lyrics, so that neither fills the encoder's window alone.
MAX_CHARACTERS = 400
MARKS = (".", ",", ";")  # between two phrases of another wording
_SENTENCE_ENDS = ("!", "?", "…", "。", "！", "？")


def track_text(row: Mapping[str, Any], with_names: bool = True) -> str:
    """Returns the text of one track: the first wordings of `TEMPLATE`, joined by ". "; "" if empty.

    with_names: whether title, artist and album are included.
    Lists are joined by ", ", white space is collapsed, and description and lyrics are cut at 400
    characters. Full stops at the end of a column are dropped; no stop follows another sentence
    mark, as in "Why?".

        >>> track_text({"title": "Blue Hour", "artist": "Ada", "genres": ["jazz", "piano"]})
        'Blue Hour. by Ada. jazz, piano'
    """
    phrases = []
    for field in TEMPLATE:
        if with_names or not field.is_name:
            phrases.append(render_text(field, field_items(row, field), field.wordings[0]))
    return join_phrases(phrases, ".")


def track_texts(tracks: pl.DataFrame) -> list[str]:
    """Returns `track_text` of every row, in order."""
    return [track_text(row) for row in text_rows(tracks)]


def fused_texts(tracks: pl.DataFrame, front_end: str) -> dict[str, str]:
    """Returns {track_id: the text that is fused with its audio}.

    With a frozen front end the text leaves out names: those of new tracks are unseen, and with
    them fused vectors were worse than audio alone (docs/benchmarks.md, "What each part is worth").
    """
    texts = [track_text(row, with_names=front_end == "logmel") for row in text_rows(tracks)]
    return dict(zip(tracks[schema.TRACK_ID], texts, strict=True))


def text_rows(tracks: pl.DataFrame) -> list[dict[str, Any]]:
    """Returns the columns of `TEMPLATE` of every row, in order."""
    columns = [field.column for field in TEMPLATE if field.column in tracks.columns]
    if not columns:
        return [{}] * tracks.height
    return tracks.select(columns).to_dicts()


def field_items(row: Mapping[str, Any], field: Field) -> list[str]:
    """Returns the non-empty texts in the field's column, with white space collapsed."""
    value = row.get(field.column)
    texts = [value] if isinstance(value, str) else value
    items = [" ".join((text or "").split()) for text in texts or ()]
    return [item for item in items if item]


def render_text(field: Field, items: Sequence[str], wording: str) -> str:
    """Returns `items` in one wording of the field, cut, without final full stops; "" if empty."""
    placeholder = "{}"
    text = ", ".join(items)
    if "{and}" in wording:
        placeholder = "{and}"
        if len(items) > 1:
            text = f"{', '.join(items[:-1])} and {items[-1]}"
    if field.column in (schema.DESCRIPTION, schema.LYRICS):
        text = text[:MAX_CHARACTERS]
    text = text.rstrip(" .")
    return wording.replace(placeholder, text) if text else ""


def join_phrases(phrases: Sequence[str], mark: str) -> str:
    """Joins the non-empty phrases by `mark`, which is left out after a sentence mark."""
    text = ""
    for phrase in phrases:
        if not phrase:
            continue
        if text:
            text += " " if text.endswith(_SENTENCE_ENDS) else f"{mark} "
        text += phrase
    return text


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
    for track_id, row in zip(tracks[schema.TRACK_ID], text_rows(tracks), strict=True):
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
