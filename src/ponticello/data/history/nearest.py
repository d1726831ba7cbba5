"""What comes near where nothing matched: for the list of what is unmatched, and for the rule `fuzzy`, which is off.

Fuzzy lets accents and spaces go, and no letter: a letter more or less is another song as often as a slip. Versions,
numbers and guests must be the same, album and length must not disagree, and no second track may come as near.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from rapidfuzz import fuzz, process

from ponticello.data.history.listen import Heard
from ponticello.data.history.match import Catalogue, Entry, agrees
from ponticello.data.history.titles import NO_ARTIST, Artist, Title, artist_of, title_of

MOST_NEAR = 3
NEAR = 75.0  # of 100: from which likeness on a track is worth showing
_MOST_ARTISTS = 3


class Nearest:
    """The catalogue by what names look like. About 5 us an artist and question."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._by_artist: dict[str, list[Entry]] = defaultdict(list)
        self._by_core: dict[str, list[Entry]] = defaultdict(list)
        for entry in catalogue.entries:
            if entry.title is not None:
                self._by_core[folded(entry.title.core)].append(entry)
                if entry.artist is not None:
                    self._by_artist[folded(entry.artist.name)].append(entry)
        self._artists = list(self._by_artist)
        self._near_artists: dict[str, list[tuple[str, float]]] = {}

    def near(self, heard: Heard) -> list[tuple[Entry, str]]:
        """Up to three tracks of like names, the nearest first, with what is not the same."""
        if not heard.title:
            return []
        title, artist = title_of(heard.title), _artist(heard)
        found = []
        for entry, artist_likeness in self._pool(title, artist):
            assert entry.title is not None
            likeness = fuzz.ratio(folded(title.core), folded(entry.title.core))
            if min(likeness, artist_likeness) >= NEAR or likeness == 100.0:
                found.append((likeness + artist_likeness, entry, _what_differs(likeness, artist_likeness)))
        found.sort(key=lambda row: (-row[0], row[1].track_id))
        return [(entry, why) for _, entry, why in found[:MOST_NEAR]]

    def fuzzy(self, heard: Heard) -> Entry | None:
        """The one track that differs by accents and spaces only, or None."""
        artist = _artist(heard)
        if not heard.title or artist is None:
            return None
        title = title_of(heard.title)
        found = [entry for entry, _ in self._pool(title, artist) if _is_same(heard, title, artist, entry)]
        return found[0] if len(found) == 1 else None

    def _pool(self, title: Title, artist: Artist | None) -> Iterable[tuple[Entry, float]]:
        """Tracks of artists of like names, and tracks of the same title, each with the artists' likeness of 100."""
        pool: dict[str, tuple[Entry, float]] = {}
        for name, likeness in self._like(folded(artist.name)) if artist else ():
            pool |= {entry.track_id: (entry, likeness) for entry in self._by_artist[name]}
        for entry in self._by_core.get(folded(title.core), []):
            other = folded(entry.artist.name) if entry.artist else ""
            likeness = fuzz.ratio(folded(artist.name), other) if artist and other else 0.0
            pool.setdefault(entry.track_id, (entry, likeness))
        return pool.values()

    def _like(self, name: str) -> list[tuple[str, float]]:
        if name not in self._near_artists:
            found = process.extract(name, self._artists, scorer=fuzz.ratio, score_cutoff=NEAR, limit=_MOST_ARTISTS)
            self._near_artists[name] = [(str(other), float(likeness)) for other, likeness, _ in found]
        return self._near_artists[name]


def folded(words: str) -> str:
    """Words without spaces and without the accents of Latin letters."""
    parts = []
    for character in words:
        apart = unicodedata.normalize("NFKD", character)
        is_latin = "a" <= apart[0] <= "z"
        parts.append(apart[0] if is_latin else character)
    return "".join(parts).replace(" ", "")


def _is_same(heard: Heard, title: Title, artist: Artist, entry: Entry) -> bool:
    other = entry.title
    if other is None or entry.artist is None or title.versions != other.versions:
        return False
    if (artist.guests | title.guests) != (entry.artist.guests | other.guests):
        return False
    if re.findall(r"\d+", title.core) != re.findall(r"\d+", other.core):  # 1.5 is not 15
        return False
    here, there = (title.core, artist.name), (other.core, entry.artist.name)
    if tuple(map(folded, here)) != tuple(map(folded, there)):
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
