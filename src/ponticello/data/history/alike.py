"""Tracks that one key names, such as one artist and title, few of which are weighed against a line of a history.

What a line may be hangs on answers of yes and no: the same version, the same album, a length as near. Tracks with the
same answers fare alike, so the first few of each kind stand for the others, be there thousands called "Track 01".
"""

import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ponticello.data.history.listen import Heard
from ponticello.data.history.titles import ALBUM_WORDS, Artist, Title, album_of, words

SAME_DURATION_S = 3.0
EXCERPT_S = 61.0  # a shorter file of the catalogue may be an excerpt, and says nothing of the whole
MOST_NEAR = 3  # tracks that are listed beside a line that is none of them
_OTHER_DURATION_S, _OTHER_DURATION = 10.0, 0.1  # seconds and share from which two lengths are two versions
_FEW = 32  # tracks that are weighed one by one as quickly


@dataclass(frozen=True, slots=True)
class Entry:
    """A track of the catalogue, ready to be compared. album_name: `album_of` its album."""

    track_id: str
    artist: Artist | None
    title: Title | None
    shown: str
    spelling: tuple[str, str]
    album: str | None
    album_words: str
    album_name: str
    album_flags: frozenset[str]
    mbid: str | None
    duration_s: float | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Kinds:
    """What of a group's n tracks is compared: numbers for their values, lengths, and what each track has at all."""

    numbers: tuple[dict[Hashable, int], ...]
    columns: NDArray[np.int32]  # (9, n)
    durations: NDArray[np.float64]  # (n,), s; NaN where unknown
    has: NDArray[np.int32]  # (n,), bits


class Group:
    """The tracks that one key names, in the order of the catalogue."""

    __slots__ = ("_kinds", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._kinds: _Kinds | None = None

    def few(self, heard: Heard, title: Title | None, artist: Artist | None) -> list[Entry]:
        """Of each kind that `heard` makes of these tracks the first three: one is found, two tie, three are listed.

        title, artist: those of `heard`. To be asked once `entries` is complete. Cost: some 20 ns a track.
        """
        if len(self.entries) <= _FEW:
            return self.entries
        self._kinds = known = self._kinds or _kinds(self.entries)
        kind = known.has
        values = _values(title, artist, heard.album, heard.mbid, spelled(heard))
        for number, column, value in zip(known.numbers, known.columns, values, strict=True):
            kind = kind * 2 + (column == number.get(value, -1))
        if heard.duration_s is not None:
            apart = np.abs(known.durations - heard.duration_s)
            kind = kind * 4 + (apart <= SAME_DURATION_S) + (apart <= most_apart(heard.duration_s))
        order = np.argsort(kind, kind="stable")
        kind = kind[order]
        is_first = np.ones(len(kind), dtype=bool)
        is_first[MOST_NEAR:] = kind[MOST_NEAR:] != kind[:-MOST_NEAR]
        return [self.entries[place] for place in np.sort(order[is_first])]


def most_apart(duration_s: float) -> float:
    """By how many seconds another length may differ and be the same version."""
    return max(_OTHER_DURATION_S, _OTHER_DURATION * duration_s)


def album_flags(album: str | None) -> frozenset[str]:
    """The words of an album's name that tell that its songs were played anew."""
    return ALBUM_WORDS & frozenset(words(album).split()) if album else frozenset()


def spelled(heard: Heard) -> tuple[str, str]:
    """Artist and title as they are written."""
    return spelling(heard.artist), spelling(heard.title)


def spelling(value: str | None) -> str:
    """A name as it is written, NFC."""
    return unicodedata.normalize("NFC", value or "").strip()


def _kinds(entries: list[Entry]) -> _Kinds:
    rows = [_values(entry.title, entry.artist, entry.album, entry.mbid, entry.spelling) for entry in entries]
    columns = list(zip(*rows, strict=True))
    numbers = tuple({value: number for number, value in enumerate(dict.fromkeys(column))} for column in columns)
    coded = [[number[value] for value in column] for number, column in zip(numbers, columns, strict=True)]
    durations = [np.nan if entry.duration_s is None else entry.duration_s for entry in entries]
    return _Kinds(
        numbers, np.array(coded, np.int32), np.array(durations, np.float64), np.array(_has(entries), np.int32)
    )


def _has(entries: list[Entry]) -> list[int]:
    found = []
    for entry in entries:
        is_excerpt = entry.duration_s is not None and entry.duration_s <= EXCERPT_S
        known = (entry.title, _guests(entry.title, entry.artist), entry.album, entry.mbid, entry.duration_s, is_excerpt)
        found.append(sum(bool(value) << place for place, value in enumerate(known)))
    return found


def _values(
    title: Title | None, artist: Artist | None, album: str | None, mbid: str | None, written: tuple[str, str]
) -> tuple[Hashable, ...]:
    of_title = (None, None, None) if title is None else (title.core, title.versions, title.editions)
    of_album = (words(album), album_of(album)) if album else (None, None)
    return (*of_title, _guests(title, artist), *of_album, album_flags(album), mbid, written)


def _guests(title: Title | None, artist: Artist | None) -> frozenset[str]:
    return (title.guests if title else frozenset()) | (artist.guests if artist else frozenset())
