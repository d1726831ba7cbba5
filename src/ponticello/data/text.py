"""What a track says about itself, as one text for the text encoder."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ponticello.data.columns import (
    ALBUM,
    ARTIST,
    DESCRIPTION,
    GENRES,
    LANGUAGE,
    LYRICS,
    MACHINE_TAGS,
    TAGS,
    TITLE,
)

_SENTENCE_ENDS = ("!", "?", "…", "。", "！", "？")
MAX_CHARACTERS = 400  # of description and of lyrics, so that neither pushes the rest out of the encoder's window
TEMPLATE = (
    (TITLE, "{}"),
    (ARTIST, "by {}"),
    (ALBUM, "from {}"),
    (GENRES, "{}"),
    (TAGS, "{}"),
    (MACHINE_TAGS, "sounds like {}"),
    (LANGUAGE, "{}"),
    (DESCRIPTION, "{}"),
    (LYRICS, "{}"),
)


def track_text(row: Mapping[str, Any]) -> str:
    """The text of one track: `TEMPLATE` over the columns it has, joined by ". "; "" if it has none.

    Lists are joined by ", ", white space is collapsed, description and lyrics are cut at 400 characters. A column's
    own full stops at its end are dropped; where it ends in another sentence mark, as in "Why?", no stop is added.

        >>> track_text({"title": "Blue Hour", "artist": "Ada", "genres": ["jazz", "piano"], "album": None})
        'Blue Hour. by Ada. jazz, piano'
    """
    parts = []
    for column, form in TEMPLATE:
        value = row.get(column)
        words = [value] if isinstance(value, str) else [item for item in value or () if item]
        text = ", ".join(clean for word in words if (clean := " ".join(word.split())))
        if column in (DESCRIPTION, LYRICS):
            text = text[:MAX_CHARACTERS]
        if text := text.rstrip(" ."):
            parts.append(form.replace("{}", text))
    return " ".join(part if part.endswith(_SENTENCE_ENDS) else f"{part}." for part in parts).removesuffix(".")


def track_texts(tracks: pl.DataFrame) -> list[str]:
    """`track_text` of every row, in order."""
    columns = [column for column, _ in TEMPLATE if column in tracks.columns]
    if not columns:
        return [""] * tracks.height
    return [track_text(row) for row in tracks.select(columns).iter_rows(named=True)]
