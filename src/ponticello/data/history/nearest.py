"""What comes near where nothing matched: for the list of what is unmatched, and for the rule `fuzzy`, which is off.

Fuzzy lets accents and spaces go, and no letter: a letter more or less is another song as often as a slip. Versions,
numbers and guests must be the same, album and length must not disagree, and no second track may come as near.
"""

import re
import unicodedata
from collections import defaultdict
from functools import lru_cache

import numpy as np
from rapidfuzz import fuzz, process

from ponticello.data.history.alike import MOST_NEAR, Entry, Group
from ponticello.data.history.listen import Heard
from ponticello.data.history.match import Catalogue, agrees
from ponticello.data.history.titles import NO_ARTIST, Artist, Title, artist_of, title_of

NEAR = 75.0  # of 100: from which likeness on a track is worth showing
_MOST_ARTISTS = 3


class Nearest:
    """The catalogue by what names look like. About 5 us an artist and question, and 0.1 us a title of a like artist."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._by_artist: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))  # artist, core
        self._by_core: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))  # core, artist
        self._by_letters: dict[tuple[str, str, tuple[str, ...]], Group] = defaultdict(Group)
        for entry in sorted(catalogue.entries, key=lambda entry: entry.track_id):  # so that names stand by first id
            if entry.title is None:
                continue
            core, artist = folded(entry.title.core), folded(entry.artist.name) if entry.artist else ""
            first = self._by_core[core][artist]
            if len(first) < MOST_NEAR:
                first.append(entry)
            if entry.artist is not None:
                self._by_artist[artist][core] = first
                self._by_letters[artist, core, _numbers(entry.title)].entries.append(entry)
        self._artists = list(self._by_artist)
        self._near_artists: dict[str, list[tuple[str, float]]] = {}

    def near(self, heard: Heard) -> list[tuple[Entry, str]]:
        """Up to three tracks of like names, the nearest first, with what is not the same."""
        if not heard.title:
            return []
        core, artist = folded(title_of(heard.title).core), _artist(heard)
        name = folded(artist.name) if artist else ""
        found: dict[str, tuple[float, Entry, str]] = {}
        for other, artist_likeness in self._like(name) if artist else ():
            for title, likeness in _most_like(core, list(self._by_artist[other]), NEAR):
                why = _what_differs(likeness, artist_likeness)
                for entry in self._by_artist[other][title]:
                    found[entry.track_id] = (likeness + artist_likeness, entry, why)
        if core in self._by_core:
            for other, artist_likeness in _most_like(name, list(self._by_core[core]), 0.0):
                for entry in self._by_core[core][other]:
                    why = _what_differs(100.0, artist_likeness)
                    found.setdefault(entry.track_id, (100.0 + artist_likeness, entry, why))
        nearest = sorted(found.values(), key=lambda row: (-row[0], row[1].track_id))
        return [(entry, why) for _, entry, why in nearest[:MOST_NEAR]]

    def fuzzy(self, heard: Heard) -> Entry | None:
        """The one track that differs by accents and spaces only, or None."""
        artist = _artist(heard)
        if not heard.title or artist is None:
            return None
        title = title_of(heard.title)
        group = self._by_letters.get((folded(artist.name), folded(title.core), _numbers(title)))
        like = group.few(heard, title, artist) if group else []
        found = [entry for entry in like if _is_same(heard, title, artist, entry)]
        return found[0] if len(found) == 1 else None

    def _like(self, name: str) -> list[tuple[str, float]]:
        if name not in self._near_artists:
            found = process.extract(name, self._artists, scorer=fuzz.ratio, score_cutoff=NEAR, limit=_MOST_ARTISTS)
            self._near_artists[name] = [(str(other), float(likeness)) for other, likeness, _ in found]
        return self._near_artists[name]


def _most_like(name: str, others: list[str], least: float) -> list[tuple[str, float]]:
    """(name, likeness of 100) of the three most like, of as like ones the first; none below `least`."""
    if not name:
        return [(other, 0.0) for other in others[:MOST_NEAR]]
    likeness = process.cdist([name], others, scorer=fuzz.ratio, score_cutoff=least, dtype=np.float64)[0]
    best = np.argsort(-likeness, kind="stable")[:MOST_NEAR].tolist()
    return [(others[place], float(likeness[place])) for place in best if likeness[place] >= least]


def _numbers(title: Title) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", title.core))  # 1.5 is not 15


@lru_cache(maxsize=100_000)
def folded(words: str) -> str:
    """Words without spaces and without the accents of Latin letters."""
    parts = []
    for character in words:
        apart = unicodedata.normalize("NFKD", character)
        is_latin = "a" <= apart[0] <= "z"
        parts.append(apart[0] if is_latin else character)
    return "".join(parts).replace(" ", "")


def _is_same(heard: Heard, title: Title, artist: Artist, entry: Entry) -> bool:
    """Whether a track of the same letters and numbers is the same one in all else."""
    other = entry.title
    if other is None or entry.artist is None or title.versions != other.versions:
        return False
    if (artist.guests | title.guests) != (entry.artist.guests | other.guests):
        return False
    may_differ = not (heard.album and entry.album) and not (heard.duration_s and entry.duration_s)
    return may_differ or agrees(heard, entry)


def _artist(heard: Heard) -> Artist | None:
    artist = artist_of(heard.artist) if heard.artist else None
    return None if artist is None or artist.name in NO_ARTIST else artist


def _what_differs(likeness: float, artist_likeness: float) -> str:
    if likeness == 100.0 == artist_likeness:
        return "written otherwise"
    if likeness == 100.0:
        return (
            "the same title by another artist" if artist_likeness < NEAR else "the artist's name is written otherwise"
        )
    return "another title" if artist_likeness == 100.0 else "another title, and the artist's name is written otherwise"
