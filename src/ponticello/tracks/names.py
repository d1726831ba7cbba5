"""Parses artist, title and album names, so that two spellings of one recording compare equal.

No word of a title is dropped: a title is split into its core, the versions it names ("live"), its
guests ("feat. X") and its editions ("2011 remaster"), and two titles are equal where the core and
the versions are. `listening.matching` compares guests and editions by rules of its own.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from ponticello.storage.schema import ALBUM, ARTIST, TRACK_ID

_VERSIONS = """
live unplugged concert remix mix mixed remixed edit edited version ver demo demos acoustic
instrumental karaoke cover tribute remaster remastered session sessions rehearsal take outtake
alternate alternative extended radio dub rework reworked bootleg mono stereo acapella cappella
orchestral symphonic stripped rerecorded recorded recording slowed reverb sped nightcore 8d vip
club unmixed clean explicit original reprise medley single album short long commentary performed
style famous popular backing workout flip mashup piano string strings redux vocal vocals dj set
broadcast bbc peel kexp stream studio early rough soundcheck excerpt full minus"""
# A label in brackets or after a dash is the name of a version if it has one of these words.
_VERSION_WORDS = frozenset(_VERSIONS.split())
_ALBUM_VERSIONS = """
live unplugged concert karaoke tribute remixes remixed acoustic instrumentals demos bootleg
rehearsals"""
# Words in an album's name that mean other recordings of its songs.
ALBUM_WORDS = frozenset(_ALBUM_VERSIONS.split())
_NO_ARTISTS = "|various artists|various|unknown artist|unknown|va|v a|n a|none|no artist|artist"
NO_ARTIST = frozenset(_NO_ARTISTS.split("|"))  # "" among them
# Titles that one artist gives to pieces on many albums.
GENERIC_TITLES = re.compile(
    r"(?:(?:untitled|track|title|titel|piste|pista|intro|outro|interlude|skit|prelude|overture|"
    r"opening|ending|finale|prologue|epilogue|introduction|theme|main theme|main title|"
    r"title screen|menu|credits|end credits|hidden track|bonus track|unknown)"
    r"(?: (?:track )?\d+)?|\d+)$"
)
_APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼ`´′ʹ‛"), None)
_BRACKETS = str.maketrans("【】〔〕《》〈〉", "[][][][]")
_BLANK = dict.fromkeys(map(ord, "~|"), " ")
_GROUP = re.compile(r"[(\[{]([^()\[\]{}]*)[)\]}]")
_DASH = re.compile(r"\s+[-‐‑‒–—―]+\s+")
_FEAT = r"(?:feat\.?|ft\.?|featuring)"
_FEAT_GROUP = re.compile(rf"[(\[{{]\s*{_FEAT}\s+([^()\[\]{{}}]+)[)\]}}]", re.IGNORECASE)
_FEAT_BARE = re.compile(
    rf"(?<=\S)\s+{_FEAT}\s+(?!of\b)(.+?)(?=\s*[(\[{{]|\s+[-–—]\s+|$)", re.IGNORECASE
)
_GUESTS = re.compile(r"\s*(?:[,;/&+]|\band\b|\bx\b|\bwith\b)\s*", re.IGNORECASE)
_EDITION = re.compile(
    r"(?:\d{4} )?(?:newly )?(?:digital(?:ly)? )?remaster(?:ed)?(?: (?:in )?\d{4})?"
    r"(?: (?:version|edition))?(?: \d{4})?$"
)
_ALBUM_EDITION = re.compile(
    r"\b(?:edition|remaster|remastered|deluxe|expanded|anniversary|reissue)\b"
)
_ABBREVIATIONS = {"pt": "part", "pts": "parts", "vol": "volume"}


class Title(NamedTuple):
    """A parsed title. core: all words that name no version, guest or edition."""

    core: str
    versions: frozenset[str]
    guests: frozenset[str]
    editions: frozenset[str]


class Artist(NamedTuple):
    """A parsed artist name, without a leading "The", and its guests."""

    name: str
    guests: frozenset[str]


@lru_cache(maxsize=200_000)
def normalize_words(value: str) -> str:
    """Returns the words of `value` in lower case (NFKC, casefold), separated by single spaces.

    Punctuation is removed; letters, accents, digits and signs such as + and $ stay. A name of
    punctuation alone is kept as it is.
    """
    folded = unicodedata.normalize("NFKC", value.translate(_APOSTROPHES)).casefold()
    folded = unicodedata.normalize("NFKC", folded).translate(_APOSTROPHES)
    folded = folded.replace("&", " and ").translate(_BLANK)
    characters = []
    for character in folded:
        if _is_word_character(character):
            characters.append(character)
        elif unicodedata.category(character) not in ("Cf", "Me"):  # those separate no words
            characters.append(" ")
    words = " ".join("".join(characters).split())
    return words or "".join(unicodedata.normalize("NFKC", value).casefold().split())


@lru_cache(maxsize=200_000)
def parse_title(value: str) -> Title:
    """Splits a title into its core, versions, guests and editions.

    >>> parse_title("Blue Hour (feat. Ada) - Live / 2011 Remaster").core
    'blue hour'
    """
    title = unicodedata.normalize("NFKC", value.translate(_BRACKETS).translate(_APOSTROPHES))
    title, guests = _split_guests(_collapse_spaces(title))
    versions: set[str] = set()
    editions: set[str] = set()

    def without_version(group: re.Match[str]) -> str:
        return " " if _add_versions(group[1], versions, editions) else group[0]

    pieces = _DASH.split(_collapse_spaces(_GROUP.sub(without_version, title)))
    core = pieces[0]
    for label in pieces[1:]:
        if not _add_versions(label, versions, editions):
            core += f" {label}"
    if not any(map(_is_word_character, core)):  # a title such as "(Live)" is a name
        return Title(_expand_words(value), frozenset(), frozenset(), frozenset())
    return Title(_expand_words(core), frozenset(versions), frozenset(guests), frozenset(editions))


@lru_cache(maxsize=100_000)
def parse_artist(value: str) -> Artist:
    """Splits an artist into name and guests; names joined in other ways than "feat." stay whole."""
    names = [name for name in _collapse_spaces(value).split(";") if name.strip()]
    first, guests = _split_guests(names[0] if names else "")
    for name in names[1:]:
        guests |= _guest_names(name)
    first = re.sub(r",\s*the\s*$", "", first, flags=re.IGNORECASE)
    return Artist(_without_the(first), frozenset(guests))


@lru_cache(maxsize=100_000)
def parse_album(value: str) -> str:
    """Returns an album's words without its edition, such as (Deluxe Edition) or - 2009 Remaster."""

    def is_edition(label: str) -> bool:
        return bool(_ALBUM_EDITION.search(normalize_words(label)))

    bare = _GROUP.sub(lambda group: " " if is_edition(group[1]) else group[0], value)
    pieces = _DASH.split(_collapse_spaces(bare))
    name = pieces[0]
    for label in pieces[1:]:
        if not is_edition(label):
            name += f" {label}"
    return normalize_words(name) or normalize_words(value)


def lead_artist(name: str | None) -> str:
    """Returns the main artist in lower case; "" if unknown or a name such as "Various Artists".

    >>> lead_artist("The Owls feat. Ada"), lead_artist("Ada & Bo"), lead_artist("Unknown Artist")
    ('owls', 'ada and bo', '')
    """
    lead = parse_artist(name or "").name
    return "" if lead in NO_ARTIST else lead


def lead_artists(tracks: pl.DataFrame) -> dict[str, str]:
    """Returns {track_id: lead artist} of the tracks with a known artist."""
    artists = {}
    for track_id, name in zip(tracks[TRACK_ID], _column(tracks, ARTIST), strict=True):
        if lead := lead_artist(name):
            artists[track_id] = lead
    return artists


def artist_groups(tracks: pl.DataFrame) -> list[str]:
    """Returns each track's group: `artist:` and its first spelling, else `album:` or `track:`."""
    leads = []
    spellings: dict[str, str] = {}
    for name in _column(tracks, ARTIST):
        lead = lead_artist(name)
        artist = normalize_name(name)
        leads.append(lead)
        spellings[lead] = min(spellings.get(lead, artist), artist)
    groups = []
    for track_id, lead, album in zip(tracks[TRACK_ID], leads, _column(tracks, ALBUM), strict=True):
        if lead:
            groups.append(f"artist:{spellings[lead]}")
        elif album_name := normalize_name(album):
            groups.append(f"album:{album_name}")
        else:
            groups.append(f"track:{track_id}")
    return groups


def normalize_name(name: str | None) -> str:
    """Returns a name in lower case with single spaces."""
    return _collapse_spaces((name or "").casefold())


def slugify(name: str, max_length: int) -> str:
    """Returns a name as the readable piece of an id: lower-case letters, digits and hyphens."""
    slug = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", name).casefold())
    return slug.strip("-")[:max_length].strip("-")


def _column(tracks: pl.DataFrame, name: str) -> Iterable[str | None]:
    return tracks[name] if name in tracks.columns else [None] * tracks.height


def _collapse_spaces(value: str) -> str:
    """Replaces runs of white space, in which the patterns above take quadratic time."""
    return " ".join(value.split())


def _split_guests(name: str) -> tuple[str, set[str]]:
    guests: set[str] = set()
    for pattern in (_FEAT_GROUP, _FEAT_BARE):
        for match in pattern.finditer(name):
            guests |= _guest_names(match[1])
        name = _collapse_spaces(pattern.sub(" ", name))
    return name, guests


def _guest_names(value: str) -> set[str]:
    return {_without_the(name) for name in _GUESTS.split(value) if normalize_words(name)}


def _add_versions(label: str, versions: set[str], editions: set[str]) -> bool:
    if _VERSION_WORDS.isdisjoint(normalize_words(label).split()):
        return False
    for piece in re.split(r"[/,;]", label):
        name = normalize_words(piece)
        if _EDITION.match(name):
            editions.add(name)
        elif name:
            versions.add(re.sub(r" (?:version|ver)$", "", name))
    return True


def _without_the(name: str) -> str:
    return re.sub(r"^the (?=.)", "", normalize_words(name))


def _expand_words(value: str) -> str:
    return " ".join(_ABBREVIATIONS.get(word, word) for word in normalize_words(value).split(" "))


def _is_word_character(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LNS" or category in ("Mn", "Mc")
