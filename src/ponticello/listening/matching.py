"""From what a history says of a track to a track of the catalogue: by id, by file, by name. Nothing
is guessed.

The rules, in order: track_id, mbid, isrc, uri, path, title (artist and title, word by word),
edition (the same but for a remaster's label, where nothing else is there). Where a rule finds
several tracks, album, duration (within 3 s) and spelling decide; if they do not, it is refused.
`nearest` adds a last rule, fuzzy, for those who ask for it.

Tracks that one key names, such as one artist and title, few of which are weighed against a line of
a history.

What a line may be hangs on answers of yes and no: the same version, the same album, a length as
near. Tracks with the same answers fare alike, so the first few of each kind stand for the others,
be there thousands called "Track 01".
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ponticello.listening.importers.records import (
    TrackReference,
    parse_isrc,
    parse_mbid,
    parse_number,
    parse_uri,
)
from ponticello.storage.schema import ALBUM, ARTIST, DURATION_S, ISRC, MBID, PATH, TITLE, TRACK_ID
from ponticello.tracks.names import (
    ALBUM_WORDS,
    GENERIC_TITLES,
    NO_ARTIST,
    Artist,
    Title,
    normalize_words,
    parse_album,
    parse_artist,
    parse_title,
)

SAME_DURATION_S = 3.0
EXCERPT_S = 61.0  # a shorter file of the catalogue may be an excerpt, and says nothing of the whole
MAX_SUGGESTIONS = 3  # tracks that are listed beside a line that is none of them
_OTHER_DURATION_S, _OTHER_DURATION = (
    10.0,
    0.1,
)  # seconds and share from which two lengths are two versions
_MAX_COMPARED = 32  # tracks that are weighed one by one as quickly


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A track of the catalogue, ready to be compared. album_name: `parse_album` its album."""

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
    """What of a group's n tracks is compared: numbers for their values, lengths, and what each
    track has at all.
    """

    numbers: tuple[dict[Hashable, int], ...]
    columns: NDArray[np.int32]  # (9, n)
    durations: NDArray[np.float64]  # (n,), s; NaN where unknown
    has: NDArray[np.int32]  # (n,), bits


class CandidateGroup:
    """The tracks that one key names, in the order of the catalogue."""

    __slots__ = ("_kinds", "entries")

    def __init__(self) -> None:
        self.entries: list[CatalogEntry] = []
        self._kinds: _Kinds | None = None

    def distinct_candidates(
        self, heard: TrackReference, title: Title | None, artist: Artist | None
    ) -> list[CatalogEntry]:
        """Of each kind that `heard` makes of these tracks the first three: one is found, two tie,
        three are listed.

        title, artist: those of `heard`. To be asked once `entries` is complete. Cost: some 20 ns a
        track.
        """
        if len(self.entries) <= _MAX_COMPARED:
            return self.entries
        self._kinds = known = self._kinds or _kinds(self.entries)
        kind = known.has
        values = _values(title, artist, heard.album, heard.mbid, parse_spelling(heard))
        for codes, column, value in zip(known.numbers, known.columns, values, strict=True):
            kind = kind * 2 + (column == codes.get(value, -1))
        if heard.duration_s is not None:
            apart = np.abs(known.durations - heard.duration_s)
            kind = (
                kind * 4
                + (apart <= SAME_DURATION_S)
                + (apart <= max_duration_difference(heard.duration_s))
            )
        order = np.argsort(kind, kind="stable")
        kind = kind[order]
        is_first = np.ones(len(kind), dtype=bool)
        is_first[MAX_SUGGESTIONS:] = kind[MAX_SUGGESTIONS:] != kind[:-MAX_SUGGESTIONS]
        return [self.entries[place] for place in np.sort(order[is_first])]


def max_duration_difference(duration_s: float) -> float:
    """By how many seconds another length may differ and be the same version."""
    return max(_OTHER_DURATION_S, _OTHER_DURATION * duration_s)


def album_flags(album: str | None) -> frozenset[str]:
    """The words of an album's name that tell that its songs were played anew."""
    return ALBUM_WORDS & frozenset(normalize_words(album).split()) if album else frozenset()


def parse_spelling(heard: TrackReference) -> tuple[str, str]:
    """Artist and title as they are written."""
    return spelling(heard.artist), spelling(heard.title)


def spelling(value: str | None) -> str:
    """A name as it is written, NFC."""
    return unicodedata.normalize("NFC", value or "").strip()


def _kinds(entries: list[CatalogEntry]) -> _Kinds:
    rows = [
        _values(entry.title, entry.artist, entry.album, entry.mbid, entry.spelling)
        for entry in entries
    ]
    columns = list(zip(*rows, strict=True))
    numbers = tuple(
        {value: code for code, value in enumerate(dict.fromkeys(column))} for column in columns
    )
    coded = [
        [codes[value] for value in column] for codes, column in zip(numbers, columns, strict=True)
    ]
    durations = [np.nan if entry.duration_s is None else entry.duration_s for entry in entries]
    return _Kinds(
        numbers,
        np.array(coded, np.int32),
        np.array(durations, np.float64),
        np.array(_has(entries), np.int32),
    )


def _has(entries: list[CatalogEntry]) -> list[int]:
    found = []
    for entry in entries:
        is_excerpt = entry.duration_s is not None and entry.duration_s <= EXCERPT_S
        known = (
            entry.title,
            _guests(entry.title, entry.artist),
            entry.album,
            entry.mbid,
            entry.duration_s,
            is_excerpt,
        )
        found.append(sum(bool(value) << place for place, value in enumerate(known)))
    return found


def _values(
    title: Title | None,
    artist: Artist | None,
    album: str | None,
    mbid: str | None,
    written: tuple[str, str],
) -> tuple[Hashable, ...]:
    of_title = (None, None, None) if title is None else (title.core, title.versions, title.editions)
    of_album = (normalize_words(album), parse_album(album)) if album else (None, None)
    return (*of_title, _guests(title, artist), *of_album, album_flags(album), mbid, written)


def _guests(title: Title | None, artist: Artist | None) -> frozenset[str]:
    return (title.guests if title else frozenset()) | (artist.guests if artist else frozenset())


RULES = ("track_id", "mbid", "isrc", "uri", "path", "title", "edition", "fuzzy")
_URI_COLUMNS = ("spotify_uri", "spotify_url", "uri", "url")
_TAIL = 3  # last parts of a path that tell a file where the roots differ


@dataclass(frozen=True, slots=True)
class Match:
    """track_id and the rule that found it; or None, why not, and tracks that came near with what
    spoke against.

    Of those at least the first three.
    """

    track_id: str | None
    rule: str = ""
    reason: str = ""
    refused: tuple[tuple[CatalogEntry, str], ...] = ()


@dataclass
class CatalogMatcher:
    """The catalogue by everything a history may name a track with."""

    entries: list[CatalogEntry]
    by_id: dict[str, CatalogEntry] = field(default_factory=dict)
    by_mbid: dict[str, CandidateGroup] = field(default_factory=lambda: defaultdict(CandidateGroup))
    by_isrc: dict[str, CandidateGroup] = field(default_factory=lambda: defaultdict(CandidateGroup))
    by_uri: dict[str, CandidateGroup] = field(default_factory=lambda: defaultdict(CandidateGroup))
    by_path: dict[tuple[str, ...], CandidateGroup] = field(
        default_factory=lambda: defaultdict(CandidateGroup)
    )
    by_tail: dict[tuple[str, ...], CandidateGroup] = field(
        default_factory=lambda: defaultdict(CandidateGroup)
    )  # two and three parts
    by_song: dict[tuple[str, str], CandidateGroup] = field(
        default_factory=lambda: defaultdict(CandidateGroup)
    )


def build_catalog(tracks: pl.DataFrame, root: PurePosixPath) -> CatalogMatcher:
    """The catalogue's tracks, ready to be matched. root: what their relative paths start from.
    About 30 us a track.
    """
    catalogue = CatalogMatcher([])
    for row in tracks.iter_rows(named=True):
        artist = parse_artist(row[ARTIST]) if row[ARTIST] else None
        entry = CatalogEntry(
            track_id=row[TRACK_ID],
            artist=None if artist is None or artist.name in NO_ARTIST else artist,
            title=parse_title(row[TITLE]) if row[TITLE] else None,
            shown=", ".join(part for part in (row[TITLE], row[ARTIST]) if part),
            spelling=(spelling(row[ARTIST]), spelling(row[TITLE])),
            album=row[ALBUM],
            album_words=normalize_words(row[ALBUM] or ""),
            album_name=parse_album(row[ALBUM] or ""),
            album_flags=album_flags(row[ALBUM]),
            mbid=parse_mbid(row[MBID]),
            duration_s=parse_number(row[DURATION_S]),
            path=path_parts((root / row[PATH]).as_posix()) if row[PATH] else (),
        )
        catalogue.entries.append(entry)
        catalogue.by_id[entry.track_id] = entry
        for index, key in (
            (catalogue.by_mbid, entry.mbid),
            (catalogue.by_isrc, parse_isrc(row[ISRC])),
        ):
            if key:
                index[key].entries.append(entry)
        for uri in {
            parse_uri(row[column]) for column in _URI_COLUMNS if isinstance(row.get(column), str)
        } - {None}:
            catalogue.by_uri[str(uri)].entries.append(entry)
        if entry.path:
            catalogue.by_path[entry.path].entries.append(entry)
        for n_parts in range(2, min(len(entry.path), _TAIL) + 1):
            catalogue.by_tail[entry.path[-n_parts:]].entries.append(entry)
        if entry.artist and entry.title:
            catalogue.by_song[entry.artist.name, entry.title.core].entries.append(entry)
    return catalogue


def match_track(heard: TrackReference, catalogue: CatalogMatcher) -> Match:
    """The one track that `heard` is, with the rule that says so; or why it is none."""
    if heard.track_id in catalogue.by_id:
        return Match(heard.track_id, "track_id")
    refused: list[tuple[CatalogEntry, str]] = []
    title = parse_title(heard.title) if heard.title else None
    artist = parse_artist(heard.artist) if heard.artist else None
    by_key: tuple[tuple[str, CandidateGroup | None, Callable[[CatalogEntry], str]], ...] = (
        (
            "mbid",
            catalogue.by_mbid.get(heard.mbid or ""),
            lambda entry: _other_version(title, entry),
        ),
        (
            "isrc",
            catalogue.by_isrc.get(heard.isrc or ""),
            lambda entry: _other_version(title, entry),
        ),
        ("uri", catalogue.by_uri.get(heard.uri or ""), lambda _: ""),
        ("path", _by_path(heard, catalogue), lambda entry: _other_name(heard, title, entry)),
    )
    for rule, found, why_not in by_key:
        if found and (
            one := _one(
                heard, found.distinct_candidates(heard, title, artist), why_not, rule, refused
            )
        ):
            return one
    song = catalogue.by_song.get((artist.name, title.core)) if title and artist else None
    if title and artist and song:
        candidates = song.distinct_candidates(heard, title, artist)
        for rule, tier in _tiers(heard, artist, title, candidates, refused):
            one = _one(heard, tier, lambda entry: _conflict(heard, title, entry), rule, refused)
            if one:
                return one
            if tier:
                break
    return Match(None, reason=_reason(heard, title, artist, refused), refused=_once(refused))


def path_parts(value: str) -> tuple[str, ...]:
    """The parts of a path or file:// address, NFC, with either slash; () for another address."""
    if "://" in value:
        if not value.lower().startswith("file://"):
            return ()
        value = unquote(re.sub(r"file://[^/]*", "", value, flags=re.IGNORECASE))
    value = unicodedata.normalize("NFC", value.replace("\\", "/"))
    return tuple(part for part in value.split("/") if part not in ("", ".", ".."))


def album_or_duration_agrees(heard: TrackReference, entry: CatalogEntry) -> bool:
    """Whether album or duration say that the two are one recording."""
    return _same_album(heard, entry) or _same_duration(heard, entry)


def _one(
    heard: TrackReference,
    found: Iterable[CatalogEntry],
    why_not: Callable[[CatalogEntry], str],
    rule: str,
    refused: list[tuple[CatalogEntry, str]],
) -> Match | None:
    """The one of `found` that nothing speaks against and that nothing else ties with; what does not
    is in `refused`.
    """
    fit = []
    for entry in found:
        if reason := why_not(entry):
            refused.append((entry, reason))
        else:
            fit.append(entry)
    for narrows in (
        lambda entry: (
            bool(heard.album and entry.album)
            and normalize_words(heard.album or "") == entry.album_words
        ),
        lambda entry: _same_album(heard, entry),
        lambda entry: _same_duration(heard, entry),
        lambda entry: entry.spelling == parse_spelling(heard),
    ):
        if len(fit) > 1:
            fit = [entry for entry in fit if narrows(entry)] or fit
    if len(fit) > 1:
        refused.extend((entry, f"others fit alike by {rule}") for entry in fit)
    return Match(fit[0].track_id, rule) if len(fit) == 1 else None


def _tiers(
    heard: TrackReference,
    artist: Artist,
    title: Title,
    candidates: list[CatalogEntry],
    refused: list[tuple[CatalogEntry, str]],
) -> list[tuple[str, list[CatalogEntry]]]:
    """Candidates of one artist and core title in the order of trust; the first tier that holds any
    decides.
    """
    guests = artist.guests | title.guests
    tiers: dict[str, list[CatalogEntry]] = {"title": [], "title with a guest": [], "edition": []}
    for entry in candidates:
        assert entry.title is not None
        assert entry.artist is not None
        theirs = entry.artist.guests | entry.title.guests
        if reason := _other_version(title, entry):
            refused.append((entry, reason))
        elif guests != theirs and guests and theirs:
            refused.append((entry, f"other guests: {_named(guests)} heard, {_named(theirs)} here"))
        elif guests != theirs and not album_or_duration_agrees(heard, entry):
            refused.append(
                (
                    entry,
                    f"{_named(guests or theirs)} named on one side only, and no album or duration agrees",
                )
            )
        elif title.editions != entry.title.editions:
            tiers["edition"].append(entry)
        else:
            tiers["title" if guests == theirs else "title with a guest"].append(entry)
    return [
        ("title", tiers["title"]),
        ("title", tiers["title with a guest"]),
        ("edition", tiers["edition"]),
    ]


def _other_version(title: Title | None, entry: CatalogEntry) -> str:
    if title is None or entry.title is None or title.versions == entry.title.versions:
        return ""
    return f"another version: {_named(title.versions)} heard, {_named(entry.title.versions)} here"


def _other_name(heard: TrackReference, title: Title | None, entry: CatalogEntry) -> str:
    """Why a file found by the end of its path is not the one; "" where the whole path is the same."""
    if heard.path and path_parts(heard.path) == entry.path:
        return ""
    is_known = bool(title and entry.title)
    if (
        title
        and entry.title
        and (title.core, title.versions) != (entry.title.core, entry.title.versions)
    ):
        return "the file has another title"
    if not is_known and len(path_parts(heard.path or "")) < _TAIL:
        return f"fewer than {_TAIL} parts of the path agree, and no title does"
    return ""


def _conflict(heard: TrackReference, title: Title, entry: CatalogEntry) -> str:
    """What speaks against a track of the same artist and title; "" for nothing.

    One song played on two evenings may last as long: between concerts and studios only the album
    decides.
    """
    if _same_album(heard, entry):
        return ""
    flags = (album_flags(heard.album), entry.album_flags)
    if not title.versions and flags[0] != flags[1]:
        return f"another version by its album: {_named(flags[0])} heard, {_named(flags[1])} here"
    is_played_again = bool(ALBUM_WORDS & set(" ".join(title.versions).split()))
    if (
        title.versions
        and heard.album
        and entry.album
        and (is_played_again or not _same_duration(heard, entry))
    ):
        return f"{_named(title.versions)} on another album"
    if _same_duration(heard, entry):
        return ""
    if GENERIC_TITLES.match(title.core):
        return "a title of many pieces, and no album or duration agrees"
    if heard.mbid and entry.mbid and heard.mbid != entry.mbid:
        return "another MusicBrainz id, and no album or duration agrees"
    if (
        not (heard.duration_s and entry.duration_s)
        or entry.duration_s <= EXCERPT_S < heard.duration_s
    ):
        return ""
    is_far = abs(heard.duration_s - entry.duration_s) > max_duration_difference(heard.duration_s)
    return (
        f"lasts {entry.duration_s:.0f} s, heard was one of {heard.duration_s:.0f} s"
        if is_far
        else ""
    )


def _by_path(heard: TrackReference, catalogue: CatalogMatcher) -> CandidateGroup | None:
    """Files with the whole path, else with the same end: the whole of a relative one, the last
    three parts of any.
    """
    parts = path_parts(heard.path) if heard.path else ()
    return catalogue.by_path.get(parts) or catalogue.by_tail.get(parts[-_TAIL:])


def _same_album(heard: TrackReference, entry: CatalogEntry) -> bool:
    return bool(heard.album and entry.album) and parse_album(heard.album or "") == entry.album_name


def _same_duration(heard: TrackReference, entry: CatalogEntry) -> bool:
    if heard.duration_s is None or entry.duration_s is None:
        return False
    return abs(heard.duration_s - entry.duration_s) <= SAME_DURATION_S


def _named(names: Iterable[str]) -> str:
    return " + ".join(sorted(names)) or "none"


def _once(refused: list[tuple[CatalogEntry, str]]) -> tuple[tuple[CatalogEntry, str], ...]:
    met: dict[str, tuple[CatalogEntry, str]] = {}
    for entry, reason in refused:
        met.setdefault(entry.track_id, (entry, reason))
    return tuple(met.values())


def _reason(
    heard: TrackReference,
    title: Title | None,
    artist: Artist | None,
    refused: list[tuple[CatalogEntry, str]],
) -> str:
    if any(" fit alike by " in reason for _, reason in refused):
        return "several tracks fit alike"
    if refused:
        return "only other recordings come near"
    if title is None:
        return (
            "track is not in the catalogue"
            if heard.track_id
            else "names no title, and its id or file is not here"
        )
    if artist is None or artist.name in NO_ARTIST:
        return "names no artist, and its id or file is not here"
    return "no track of this artist and title"
