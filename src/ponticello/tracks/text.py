"""Builds the text of a track for the text encoder from its catalogue columns.

`text_augmentation` makes other wordings of it for training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
