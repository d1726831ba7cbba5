"""Matches an entry of a listening history to a track of the catalogue by id, file or name.

The rules, in order: track_id, mbid, isrc, uri, path, title (artist and title, word by word),
edition (as title, but for a remaster's label, if no closer track exists). If a rule finds several
tracks, album, duration (within 3 s) and spelling decide; if they do not, the entry stays unmatched.
`unmatched.SuggestionIndex` adds a last, optional rule: fuzzy.

Blocking: some keys ("Track 01") match thousands of tracks. Candidates that give the same result in
every comparison (version, album, duration, ...) are interchangeable, so only the first three per
combination of results are compared in full.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ponticello.listening.importers import records
from ponticello.storage.schema import ALBUM, ARTIST, DURATION_S, ISRC, MBID, PATH, TITLE, TRACK_ID
from ponticello.tracks import names

RULES = ("track_id", "mbid", "isrc", "uri", "path", "title", "edition", "fuzzy")
MAX_SUGGESTIONS = 3  # tracks that are listed beside an entry without a match
SAME_DURATION_S = 3.0
EXCERPT_S = 61.0  # a shorter file may be an excerpt, with another duration than the recording
_MIN_DIFFERENCE_S = 10.0
_MIN_DIFFERENCE = 0.1  # a share; two durations this far apart are two versions
_MAX_COMPARED = 32  # candidates up to which blocking saves no time
_PATH_TAIL = 3  # last components of a path that identify a file where the roots differ
_URI_COLUMNS = ("spotify_uri", "spotify_url", "uri", "url")
_TIED = "others fit alike by"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A track of the catalogue or of a history, parsed for comparison.

    artist: None if unknown or a name such as "Various Artists". guests: of title and artist.
    label: title and artist, for lists. spelling: artist and title as written (NFC).
    album_words: None without an album; album_name: without its edition; album_versions: words in
    it that mean other recordings, such as "live". path: its components.
    """

    track_id: str
    artist: names.Artist | None
    title: names.Title | None
    guests: frozenset[str]
    label: str
    spelling: tuple[str, str]
    album_words: str | None
    album_name: str | None
    album_versions: frozenset[str]
    mbid: str | None
    duration_s: float | None
    path: tuple[str, ...]


Refusal = tuple[CatalogEntry, str]  # a track, and what speaks against it


@dataclass(frozen=True, slots=True)
class Match:
    """The result for one entry of a history.

    track_id, rule: the track and the rule that matched it. Without a match: reason, and refused,
    tracks of similar names with what speaks against each, the first three or more.
    """

    track_id: str | None
    rule: str = ""
    reason: str = ""
    refused: tuple[Refusal, ...] = ()


class CandidateGroup:
    """The tracks that share a key, in the order of the catalogue."""

    __slots__ = ("_columns", "entries")

    def __init__(self) -> None:
        self.entries: list[CatalogEntry] = []
        self._columns: _GroupColumns | None = None

    def distinct_candidates(self, query: CatalogEntry) -> list[CatalogEntry]:
        """Returns the first three tracks of each combination of comparisons with `query`.

        One can match, two show a tie and three are listed, so the others change no result. Call
        it once `entries` is complete. Cost: about 20 ns per track.
        """
        if len(self.entries) <= _MAX_COMPARED:
            return self.entries
        if self._columns is None:
            self._columns = _group_columns(self.entries)
        comparisons = _compare(self._columns, query)
        # np.unique over the rows would do the same, but sorts them 100 times more slowly.
        combinations = comparisons @ (1 << np.arange(comparisons.shape[1]))
        order = np.argsort(combinations, kind="stable")
        ordered = combinations[order]
        is_kept = np.ones(len(order), dtype=bool)
        is_kept[MAX_SUGGESTIONS:] = ordered[MAX_SUGGESTIONS:] != ordered[:-MAX_SUGGESTIONS]
        return [self.entries[row] for row in np.sort(order[is_kept])]


@dataclass(frozen=True, slots=True)
class _GroupColumns:
    """The values by which the n tracks of a group are compared.

    codes: the number of each value, per column. values: (n, 9), numbers of the tracks' values.
    has: (n, 6), which fields a track has. durations_s: (n,), NaN where unknown.
    """

    codes: list[dict[Hashable, int]]
    values: NDArray[np.int32]
    has: NDArray[np.bool_]
    durations_s: NDArray[np.float64]


def _group_columns(entries: list[CatalogEntry]) -> _GroupColumns:
    codes: list[dict[Hashable, int]] = []
    columns = []
    for column in zip(*map(_compared_values, entries), strict=True):
        numbers: dict[Hashable, int] = {}
        columns.append([numbers.setdefault(value, len(numbers)) for value in column])
        codes.append(numbers)
    has = []
    for entry in entries:
        is_excerpt = entry.duration_s is not None and entry.duration_s <= EXCERPT_S
        fields = (entry.title, entry.guests, entry.album_words, entry.mbid, entry.duration_s)
        has_fields = list(map(bool, fields))
        has_fields.append(is_excerpt)
        has.append(has_fields)
    durations_s = [np.nan if entry.duration_s is None else entry.duration_s for entry in entries]
    values = np.array(columns, np.int32).T
    return _GroupColumns(codes, values, np.array(has), np.array(durations_s, np.float64))


def _compared_values(entry: CatalogEntry) -> tuple[Hashable, ...]:
    title = entry.title or names.Title("", frozenset(), frozenset(), frozenset())
    return (
        title.core,
        title.versions,
        title.editions,
        entry.guests,
        entry.album_words,
        entry.album_name,
        entry.album_versions,
        entry.mbid,
        entry.spelling,
    )


def _compare(columns: _GroupColumns, query: CatalogEntry) -> NDArray[np.bool_]:
    """Returns (n, 15 or 17): the results of every comparison with the tracks of a group."""
    query_codes = []
    for numbers, value in zip(columns.codes, _compared_values(query), strict=True):
        query_codes.append(numbers.get(value, -1))
    results = [columns.values == query_codes, columns.has]
    if query.duration_s is not None:
        difference_s = np.abs(columns.durations_s - query.duration_s)[:, None]  # NaN is far
        results.append(difference_s <= [SAME_DURATION_S, _min_other_version_s(query.duration_s)])
    return np.hstack(results)


def _groups() -> defaultdict[Any, CandidateGroup]:
    return defaultdict(CandidateGroup)


@dataclass
class CatalogMatcher:
    """The catalogue, indexed by everything that can name a track in a history.

    by_path: whole paths; by_tail: their last two and last three components. by_song: artist and
    core title.
    """

    entries: list[CatalogEntry] = field(default_factory=list)
    by_id: dict[str, CatalogEntry] = field(default_factory=dict)
    by_mbid: dict[str, CandidateGroup] = field(default_factory=_groups)
    by_isrc: dict[str, CandidateGroup] = field(default_factory=_groups)
    by_uri: dict[str, CandidateGroup] = field(default_factory=_groups)
    by_path: dict[tuple[str, ...], CandidateGroup] = field(default_factory=_groups)
    by_tail: dict[tuple[str, ...], CandidateGroup] = field(default_factory=_groups)
    by_song: dict[tuple[str, str], CandidateGroup] = field(default_factory=_groups)


def build_catalog(tracks: pl.DataFrame, root: PurePosixPath) -> CatalogMatcher:
    """Indexes the tracks, in about 30 us each. root: the folder that relative paths start from."""
    catalog = CatalogMatcher()
    for row in tracks.iter_rows(named=True):
        reference = records.TrackReference(
            artist=row[ARTIST],
            title=row[TITLE],
            album=row[ALBUM],
            mbid=records.parse_mbid(row[MBID]),
            duration_s=records.parse_number(row[DURATION_S]),
            path=(root / row[PATH]).as_posix() if row[PATH] else None,
        )
        entry = parse_reference(reference, row[TRACK_ID])
        catalog.entries.append(entry)
        catalog.by_id[entry.track_id] = entry
        if entry.mbid:
            catalog.by_mbid[entry.mbid].entries.append(entry)
        if isrc := records.parse_isrc(row[ISRC]):
            catalog.by_isrc[isrc].entries.append(entry)
        for uri in {records.parse_uri(row.get(column)) for column in _URI_COLUMNS}:
            if uri is not None:
                catalog.by_uri[uri].entries.append(entry)
        if entry.path:
            catalog.by_path[entry.path].entries.append(entry)
        for n_components in range(2, min(len(entry.path), _PATH_TAIL) + 1):
            catalog.by_tail[entry.path[-n_components:]].entries.append(entry)
        if entry.artist and entry.title:
            catalog.by_song[entry.artist.name, entry.title.core].entries.append(entry)
    return catalog


def parse_reference(reference: records.TrackReference, track_id: str = "") -> CatalogEntry:
    """Parses an entry of a history, or a track of the catalogue, for comparison."""
    artist = reference.artist
    title = reference.title
    album = reference.album
    parsed_artist = names.parse_artist(artist) if artist else None
    if parsed_artist is not None and parsed_artist.name in names.NO_ARTIST:
        parsed_artist = None
    parsed_title = names.parse_title(title) if title else None
    guests = parsed_title.guests if parsed_title else frozenset()
    if parsed_artist is not None and parsed_artist.guests:
        guests |= parsed_artist.guests
    album_words = names.normalize_words(album) if album else None
    return CatalogEntry(
        track_id=track_id,
        artist=parsed_artist,
        title=parsed_title,
        guests=guests,
        label=", ".join(name for name in (title, artist) if name),
        spelling=(_spelling(artist), _spelling(title)),
        album_words=album_words,
        album_name=names.parse_album(album) if album else None,
        album_versions=names.ALBUM_WORDS.intersection((album_words or "").split()),
        mbid=reference.mbid,
        duration_s=reference.duration_s,
        path=_path_components(reference.path or ""),
    )


def _spelling(name: str | None) -> str:
    return unicodedata.normalize("NFC", name or "").strip()


def _path_components(value: str) -> tuple[str, ...]:
    """Returns the components of a path or file:// address (NFC); () for any other address."""
    if "://" in value:
        if not value.lower().startswith("file://"):
            return ()
        value = unquote(re.sub(r"file://[^/]*", "", value, flags=re.IGNORECASE))
    components = unicodedata.normalize("NFC", value.replace("\\", "/")).split("/")
    return tuple(component for component in components if component not in ("", ".", ".."))


def match_track(reference: records.TrackReference, catalog: CatalogMatcher) -> Match:
    """Returns the track that an entry of a history is, with the rule; or why none matched."""
    if reference.track_id in catalog.by_id:
        return Match(reference.track_id, "track_id")
    query = parse_reference(reference)
    refused: list[Refusal] = []
    # The whole path, else the same last three components (or fewer).
    files = catalog.by_path.get(query.path) or catalog.by_tail.get(query.path[-_PATH_TAIL:])
    keys: tuple[tuple[str, CandidateGroup | None, Conflict], ...] = (
        ("mbid", catalog.by_mbid.get(reference.mbid or ""), _version_conflict),
        ("isrc", catalog.by_isrc.get(reference.isrc or ""), _version_conflict),
        ("uri", catalog.by_uri.get(reference.uri or ""), _no_conflict),
        ("path", files, _file_conflict),
    )
    for rule, group, conflict in keys:
        if group is not None:
            candidates = group.distinct_candidates(query)
            track_id = _select(query, candidates, conflict, rule, refused)
            if track_id is not None:
                return Match(track_id, rule)
    song = None
    if query.artist and query.title:
        song = catalog.by_song.get((query.artist.name, query.title.core))
    if song is not None:
        for rule, candidates in _tiers(query, song.distinct_candidates(query), refused):
            track_id = _select(query, candidates, _recording_conflict, rule, refused)
            if track_id is not None:
                return Match(track_id, rule)
            if candidates:
                break  # a closer tier without a match rules out the others
    first_refusals: dict[str, Refusal] = {}
    for entry, conflict_text in refused:
        first_refusals.setdefault(entry.track_id, (entry, conflict_text))
    reason = _no_match_reason(reference, query, refused)
    return Match(None, reason=reason, refused=tuple(first_refusals.values()))


def album_or_duration_agrees(query: CatalogEntry, entry: CatalogEntry) -> bool:
    """Returns whether the album or the duration shows that two tracks are one recording."""
    return _same_album(query, entry) or _same_duration(query, entry)


def _select(
    query: CatalogEntry,
    candidates: Iterable[CatalogEntry],
    conflict: "Conflict",
    rule: str,
    refused: list[Refusal],
) -> str | None:
    """Returns the only candidate without a conflict and without a tie; others go to `refused`."""
    fitting = []
    for entry in candidates:
        if text := conflict(query, entry):
            refused.append((entry, text))
        else:
            fitting.append(entry)
    for agrees in (_same_album_words, _same_album, _same_duration, _same_spelling):
        if len(fitting) > 1:
            agreeing = [entry for entry in fitting if agrees(query, entry)]
            fitting = agreeing or fitting
    if len(fitting) == 1:
        return fitting[0].track_id
    for entry in fitting:
        refused.append((entry, f"{_TIED} {rule}"))
    return None


def _tiers(
    query: CatalogEntry, candidates: list[CatalogEntry], refused: list[Refusal]
) -> list[tuple[str, list[CatalogEntry]]]:
    """Groups candidates of one artist and core title by trust; returns (rule, candidates)."""
    equal = []
    with_guest = []
    other_edition = []
    for entry in candidates:
        assert query.title is not None
        assert entry.title is not None
        if text := _version_conflict(query, entry) or _guest_conflict(query, entry):
            refused.append((entry, text))
        elif query.title.editions != entry.title.editions:
            other_edition.append(entry)
        elif query.guests != entry.guests:
            with_guest.append(entry)
        else:
            equal.append(entry)
    return [("title", equal), ("title", with_guest), ("edition", other_edition)]


# Conflicts: each returns what speaks against a candidate, or "" if the two may be one recording.
Conflict = Callable[[CatalogEntry, CatalogEntry], str]


def _no_conflict(_query: CatalogEntry, _entry: CatalogEntry) -> str:
    return ""


def _version_conflict(query: CatalogEntry, entry: CatalogEntry) -> str:
    if not query.title or not entry.title or query.title.versions == entry.title.versions:
        return ""
    query_versions = _listed(query.title.versions)
    return f"another version: {query_versions} heard, {_listed(entry.title.versions)} here"


def _guest_conflict(query: CatalogEntry, entry: CatalogEntry) -> str:
    if query.guests == entry.guests:
        return ""
    if query.guests and entry.guests:
        return f"other guests: {_listed(query.guests)} heard, {_listed(entry.guests)} here"
    if album_or_duration_agrees(query, entry):
        return ""
    guests = _listed(query.guests or entry.guests)
    return f"{guests} named on one side only, and no album or duration agrees"


def _file_conflict(query: CatalogEntry, entry: CatalogEntry) -> str:
    if query.path == entry.path:
        return ""
    if query.title and entry.title:
        has_same_title = query.title[:2] == entry.title[:2]  # core and versions
        return "" if has_same_title else "the file has another title"
    if len(query.path) < _PATH_TAIL:
        return f"fewer than {_PATH_TAIL} parts of the path agree, and no title does"
    return ""


def _recording_conflict(query: CatalogEntry, entry: CatalogEntry) -> str:
    """Compares tracks of the same artist, core title and versions.

    Two performances of a song may last equally long: between live and studio recordings only the
    album decides.
    """
    assert query.title is not None
    versions = query.title.versions
    has_same_duration = _same_duration(query, entry)
    if _same_album(query, entry):
        return ""
    if not versions and query.album_versions != entry.album_versions:
        query_versions = _listed(query.album_versions)
        entry_versions = _listed(entry.album_versions)
        return f"another version by its album: {query_versions} heard, {entry_versions} here"
    if versions and query.album_words is not None and entry.album_words is not None:
        is_performance = not names.ALBUM_WORDS.isdisjoint(" ".join(versions).split())
        if is_performance or not has_same_duration:
            return f"{_listed(versions)} on another album"
    if has_same_duration:
        return ""
    if names.GENERIC_TITLES.match(query.title.core):
        return "a title of many pieces, and no album or duration agrees"
    if query.mbid and entry.mbid and query.mbid != entry.mbid:
        return "another MusicBrainz id, and no album or duration agrees"
    return _duration_conflict(query.duration_s, entry.duration_s)


def _duration_conflict(query_s: float | None, entry_s: float | None) -> str:
    if not query_s or not entry_s or entry_s <= EXCERPT_S < query_s:
        return ""
    if abs(query_s - entry_s) <= _min_other_version_s(query_s):
        return ""
    return f"lasts {entry_s:.0f} s, heard was one of {query_s:.0f} s"


def _min_other_version_s(duration_s: float) -> float:
    """Returns the difference in duration up to which two tracks may be one version."""
    return max(_MIN_DIFFERENCE_S, _MIN_DIFFERENCE * duration_s)


def _same_album_words(query: CatalogEntry, entry: CatalogEntry) -> bool:
    return query.album_words is not None and query.album_words == entry.album_words


def _same_album(query: CatalogEntry, entry: CatalogEntry) -> bool:
    return query.album_name is not None and query.album_name == entry.album_name


def _same_duration(query: CatalogEntry, entry: CatalogEntry) -> bool:
    if query.duration_s is None or entry.duration_s is None:
        return False
    return abs(query.duration_s - entry.duration_s) <= SAME_DURATION_S


def _same_spelling(query: CatalogEntry, entry: CatalogEntry) -> bool:
    return query.spelling == entry.spelling


def _listed(labels: Iterable[str]) -> str:
    return " + ".join(sorted(labels)) or "none"


def _no_match_reason(
    reference: records.TrackReference, query: CatalogEntry, refused: list[Refusal]
) -> str:
    if any(text.startswith(_TIED) for _, text in refused):
        return "several tracks fit alike"
    if refused:
        return "only other recordings come near"
    if query.title is None and reference.track_id:
        return "track is not in the catalogue"
    if query.title is None:
        return "names no title, and its id or file is not here"
    if query.artist is None:
        return "names no artist, and its id or file is not here"
    return "no track of this artist and title"
