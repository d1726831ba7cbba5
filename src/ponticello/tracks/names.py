"""Names of songs and artists, taken apart so that two spellings of one recording meet and two
recordings do not.

No word of a title is ever dropped. A title becomes its core and the versions it names; two titles
are the same where both agree. Only guests ("feat. X") and editions ("2011 Remaster") stand apart,
for `match_track` to judge.

Who made a track, for whatever must not tell two spellings of one artist apart: splits, caps,
clusters of queries.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from ponticello.storage.schema import ALBUM, ARTIST, TRACK_ID

_VERSIONS = """
live unplugged concert remix mix mixed remixed edit edited version ver demo demos acoustic instrumental karaoke
cover tribute remaster remastered session sessions rehearsal take outtake alternate alternative extended radio dub
rework reworked bootleg mono stereo acapella cappella orchestral symphonic stripped rerecorded recorded recording
slowed reverb sped nightcore 8d vip club unmixed clean explicit original reprise medley single album short long
commentary performed style famous popular backing workout flip mashup piano string strings redux vocal vocals
dj set broadcast bbc peel kexp stream studio early rough soundcheck excerpt full minus"""
VERSION_WORDS = frozenset(
    _VERSIONS.split()
)  # what in brackets or after a dash makes a label the name of a version
_ALBUMS = "live unplugged concert karaoke tribute remixes remixed acoustic instrumentals demos bootleg rehearsals"
ALBUM_WORDS = frozenset(
    _ALBUMS.split()
)  # what in an album's name tells that its songs were played anew
NO_ARTIST = frozenset(
    [
        "",
        "various artists",
        "various",
        "unknown artist",
        "unknown",
        "va",
        "v a",
        "n a",
        "none",
        "no artist",
        "artist",
    ]
)
# Names that one artist gives to a piece on every other album.
GENERIC_TITLES = re.compile(
    r"(?:(?:untitled|track|title|titel|piste|pista|intro|outro|interlude|skit|prelude|overture|opening|ending|finale|"
    r"prologue|epilogue|introduction|theme|main theme|main title|title screen|menu|credits|end credits|hidden track|"
    r"bonus track|unknown)(?: (?:track )?\d+)?|\d+)$"
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
    r"(?:\d{4} )?(?:newly )?(?:digital(?:ly)? )?remaster(?:ed)?(?: (?:in )?\d{4})?(?: (?:version|edition))?(?: \d{4})?$"
)
_SHORTS = {"pt": "part", "pts": "parts", "vol": "volume"}


class Title(NamedTuple):
    """A title taken apart. core: all words that name no version, guest or edition."""

    core: str
    versions: frozenset[str]
    guests: frozenset[str]
    editions: frozenset[str]


class Artist(NamedTuple):
    """An artist's name without a leading "The", and who is named beside them."""

    name: str
    guests: frozenset[str]


@lru_cache(maxsize=200_000)
def normalize_words(value: str) -> str:
    """`value` in small letters (NFKC, casefold), its words parted by single spaces, without
    punctuation.

    Letters, accents, digits and signs such as + and $ stay. A name that is all punctuation stays as
    it is.
    """
    plain = unicodedata.normalize("NFKC", value.translate(_APOSTROPHES)).casefold()
    plain = (
        unicodedata.normalize("NFKC", plain)
        .translate(_APOSTROPHES)
        .replace("&", " and ")
        .translate(_BLANK)
    )
    kept = "".join(character if _counts(character) else _gap(character) for character in plain)
    return " ".join(kept.split()) or "".join(
        unicodedata.normalize("NFKC", value).casefold().split()
    )


@lru_cache(maxsize=200_000)
def parse_title(value: str) -> Title:
    """A title taken apart.

    title_of("Blue Hour (feat. Ada) - Live / 2011 Remaster")
    # core "blue hour", versions {"live"}, guests {"ada"}, editions {"2011 remaster"}
    """
    rest = _narrow(
        unicodedata.normalize("NFKC", value.translate(_BRACKETS).translate(_APOSTROPHES))
    )
    guests: set[str] = set()
    for pattern in (_FEAT_GROUP, _FEAT_BARE):
        for found in pattern.finditer(rest):
            guests |= _guests(found[1])
        rest = _narrow(pattern.sub(" ", rest))
    versions: set[str] = set()
    editions: set[str] = set()
    rest = _GROUP.sub(
        lambda group: " " if _is_version(group[1], versions, editions) else group[0], rest
    )
    first, *tails = _DASH.split(_narrow(rest))
    core = " ".join([first, *[tail for tail in tails if not _is_version(tail, versions, editions)]])
    if not any(map(_counts, core)):  # "(Live)" as a whole title is a name
        return Title(_shortened(normalize_words(value)), frozenset(), frozenset(), frozenset())
    return Title(
        _shortened(normalize_words(core)),
        frozenset(versions),
        frozenset(guests),
        frozenset(editions),
    )


@lru_cache(maxsize=100_000)
def parse_artist(value: str) -> Artist:
    """An artist taken apart: `The Owls feat. Ada` is `owls` with the guest `ada`. Names joined
    otherwise stay whole.
    """
    first, *others = [part for part in _narrow(value).split(";") if part.strip()] or [""]
    guests: set[str] = set().union(*map(_guests, others))
    for pattern in (_FEAT_GROUP, _FEAT_BARE):
        for found in pattern.finditer(first):
            guests |= _guests(found[1])
        first = _narrow(pattern.sub(" ", first))
    return Artist(
        _without_the(re.sub(r",\s*the\s*$", "", first, flags=re.IGNORECASE)), frozenset(guests)
    )


@lru_cache(maxsize=100_000)
def parse_album(value: str) -> str:
    """An album's words, without brackets that tell an edition, such as (Deluxe Edition) or [2009
    Remaster].
    """

    def is_edition(label: str) -> bool:
        return bool(
            re.search(
                r"\b(?:edition|remaster|remastered|deluxe|expanded|anniversary|reissue)\b",
                normalize_words(label),
            )
        )

    bare = _GROUP.sub(lambda group: " " if is_edition(group[1]) else group[0], value)
    first, *tails = _DASH.split(_narrow(bare))
    return normalize_words(
        " ".join([first, *[tail for tail in tails if not is_edition(tail)]])
    ) or normalize_words(value)


def _narrow(value: str) -> str:
    """Every run of blanks as one: in a long run the patterns above would look from each blank to
    the last.
    """
    return " ".join(value.split())


def _is_version(label: str, versions: set[str], editions: set[str]) -> bool:
    """Whether a label in brackets or after a dash names a version; its pieces are added to the two
    sets.
    """
    if not VERSION_WORDS & set(normalize_words(label).split()):
        return False
    for piece in map(normalize_words, re.split(r"[/,;]", label)):
        if _EDITION.match(piece):
            editions.add(piece)
        elif piece:
            versions.add(re.sub(r" (?:version|ver)$", "", piece))
    return True


def _guests(value: str) -> set[str]:
    return {_without_the(part) for part in _GUESTS.split(value) if normalize_words(part)}


def _without_the(value: str) -> str:
    return re.sub(r"^the (?=.)", "", normalize_words(value))


def _shortened(value: str) -> str:
    return " ".join(_SHORTS.get(word, word) for word in value.split(" "))


def _counts(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNS" or unicodedata.category(character) in (
        "Mn",
        "Mc",
    )


def _gap(character: str) -> str:
    return "" if unicodedata.category(character) in ("Cf", "Me") else " "


def lead_artist(name: str | None) -> str:
    """The artist whom a track goes by, in small letters; "" for nobody, such as "Various Artists".

    Guests ("feat. ..."), a leading "The", case and punctuation make no other artist. Names joined
    otherwise stay whole: they may be one band's.

    >>> lead_artist("The Owls feat. Ada"), lead_artist("Ada & Bo"), lead_artist("Unknown Artist")
    ('owls', 'ada and bo', '')
    """
    lead = parse_artist(name or "").name
    return "" if lead in NO_ARTIST else lead


def normalize_name(name: str | None) -> str:
    """A name by its letters alone: case and white space apart."""
    return " ".join((name or "").casefold().split())


def lead_artists(tracks: pl.DataFrame) -> dict[str, str]:
    """{track_id: lead artist} of the tracks whose artist is known."""
    leads = zip(tracks[TRACK_ID], _leads(tracks), strict=True)
    return {track_id: lead for track_id, lead in leads if lead}


def artist_groups(tracks: pl.DataFrame) -> list[str]:
    """Each track's group: its lead artist, else its album, else itself, as `artist:...`,
    `album:...` or `track:...`.

    The groups of one lead artist are called by the first of its spellings in order, by case and
    white space alike.
    """
    leads = _leads(tracks)
    names: dict[str, str] = {}
    for lead, artist in zip(leads, _column(tracks, ARTIST), strict=True):
        names[lead] = min(names.get(lead, normalize_name(artist)), normalize_name(artist))
    groups = []
    for track_id, lead, album in zip(tracks[TRACK_ID], leads, _column(tracks, ALBUM), strict=True):
        if lead:
            groups.append(f"artist:{names[lead]}")
        elif name := normalize_name(album):
            groups.append(f"album:{name}")
        else:
            groups.append(f"track:{track_id}")
    return groups


def _leads(tracks: pl.DataFrame) -> list[str]:
    return [lead_artist(name) for name in _column(tracks, ARTIST)]


def _column(tracks: pl.DataFrame, name: str) -> Iterable[str | None]:
    return tracks[name] if name in tracks.columns else [None] * tracks.height
