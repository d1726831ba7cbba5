"""What a track says about itself, as one text for the text encoder. Other wordings of it, for
training: `wording`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    DESCRIPTION,
    GENRES,
    LANGUAGE,
    LYRICS,
    MACHINE_TAGS,
    TAGS,
    TITLE,
    TRACK_ID,
)


@dataclass(frozen=True)
class Field:
    """One column's part of a text."""

    column: str
    drop_rate: (
        float  # share of the texts for training that leave it out; the fixed text has everything
    )
    is_name: bool  # names the track or who made it, rather than saying how it sounds
    wordings: tuple[
        str, ...
    ]  # `{}`: the items as "a, b, c"; `{and}`: as "a, b and c"; the first is the fixed text's


# Order: the fixed text's. Names say little of the sound and are easily learned by heart, so they
# are dropped most.
TEMPLATE = (
    Field(TITLE, 0.5, True, ("{}", "called {}", "the track {}")),
    Field(ARTIST, 0.5, True, ("by {}", "{} plays", "music by {}")),
    Field(ALBUM, 0.25, True, ("from {}", "on the album {}")),
    Field(GENRES, 0.25, False, ("{}", "{and} music", "genre {}", "a {and} track")),
    Field(TAGS, 0.25, False, ("{}", "tagged {}", "{and} music")),
    Field(MACHINE_TAGS, 0.25, False, ("sounds like {}", "{}", "{and} music", "one hears {and}")),
    Field(LANGUAGE, 0.25, False, ("{}", "language {}")),
    Field(DESCRIPTION, 0.25, False, ("{}",)),
    Field(LYRICS, 0.25, False, ("{}", "the words are {}")),
)
MAX_CHARACTERS = (
    400  # of description and of lyrics, so that neither pushes the rest out of the encoder's window
)
_SENTENCE_ENDS = ("!", "?", "…", "。", "！", "？")


def track_text(row: Mapping[str, Any], with_names: bool = True) -> str:
    """The text of one track: `TEMPLATE`'s first wordings of the columns it has, joined by ". "; ""
    if it has none.

    with_names: title, artist and album too.
    Lists are joined by ", ", white space is collapsed, description and lyrics are cut at 400
    characters. A column's own full stops at its end are dropped; where it ends in another sentence
    mark, as in "Why?", no stop is added.

        >>> track_text({"title": "Blue Hour", "artist": "Ada", "genres": ["jazz", "piano"], "album": None})
        'Blue Hour. by Ada. jazz, piano'
    """
    fields = [field for field in TEMPLATE if with_names or not field.is_name]
    return join_phrases(
        [render_text(field, field_items(row, field), field.wordings[0]) for field in fields], "."
    )


def track_texts(tracks: pl.DataFrame) -> list[str]:
    """`track_text` of every row, in order."""
    return [track_text(row) for row in text_rows(tracks)]


def fused_texts(tracks: pl.DataFrame, front_end: str) -> dict[str, str]:
    """The text of each track that stands beside its sound in a fused vector, by track id.

    Over a frozen front end it says how the track sounds and leaves names out: those of tracks yet
    to come are new, and with them fused vectors were worse than audio alone (docs/benchmarks.md,
    "What each part is worth").
    """
    texts = [track_text(row, with_names=front_end == "logmel") for row in text_rows(tracks)]
    return dict(zip(tracks[TRACK_ID], texts, strict=True))


def text_rows(tracks: pl.DataFrame) -> list[dict[str, Any]]:
    """Every row's columns that `TEMPLATE` knows, in order."""
    columns = [field.column for field in TEMPLATE if field.column in tracks.columns]
    return tracks.select(columns).to_dicts() if columns else [{} for _ in range(tracks.height)]


def field_items(row: Mapping[str, Any], field: Field) -> list[str]:
    """What the row has in the field's column, white space collapsed: the items of a list, or one
    text; else nothing.
    """
    value = row.get(field.column)
    words = [value] if isinstance(value, str) else [item for item in value or () if item]
    return [clean for word in words if (clean := " ".join(word.split()))]


def render_text(field: Field, items: Sequence[str], wording: str) -> str:
    """`items` in one of the field's wordings, cut and without full stops at their end; "" if
    nothing is left.
    """
    with_and = " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)
    text = with_and if "{and}" in wording else ", ".join(items)
    if field.column in (DESCRIPTION, LYRICS):
        text = text[:MAX_CHARACTERS]
    text = text.rstrip(" .")
    return wording.replace("{and}" if "{and}" in wording else "{}", text) if text else ""


def join_phrases(parts: Sequence[str], mark: str) -> str:
    """The parts that are not empty, `mark` after each but the last and those that end a sentence by
    themselves.
    """
    parts = [part for part in parts if part]
    marked = [part if part.endswith(_SENTENCE_ENDS) else f"{part}{mark}" for part in parts]
    return " ".join([*marked[:-1], *parts[-1:]])
