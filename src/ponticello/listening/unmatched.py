"""What comes near where nothing matched: for the list of what is unmatched, and for the rule
`fuzzy`, which is off.

Fuzzy lets accents and spaces go, and no letter: a letter more or less is another song as often as a
slip. Versions, numbers and guests must be the same, album and length must not disagree, and no
second track may come as near.

Events whose track the catalogue does not have: kept until it has, and listed with what came near.
"""

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from rapidfuzz import fuzz, process

from ponticello.listening.importers.records import (
    IS_KEPT,
    IS_TABLE,
    REFERENCE,
    REFERENCE_COLUMNS,
    TrackReference,
)
from ponticello.listening.matching import (
    MAX_SUGGESTIONS,
    CandidateGroup,
    CatalogEntry,
    CatalogMatcher,
    Match,
    album_or_duration_agrees,
)
from ponticello.storage.files import atomic_write, escape_csv_cell
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import EVENT, N_TIMES, PLAYED_AT, SESSION_ID, USER_ID
from ponticello.tracks.catalog import read_stored_table
from ponticello.tracks.names import NO_ARTIST, Artist, Title, parse_artist, parse_title

MIN_SIMILARITY = 75.0  # of 100: from which likeness on a track is worth showing
_MOST_ARTISTS = 3


class SuggestionIndex:
    """The catalogue by what names look like. About 5 us an artist and question, and 0.1 us a title
    of a like artist.
    """

    def __init__(self, catalogue: CatalogMatcher) -> None:
        self._by_artist: dict[str, dict[str, list[CatalogEntry]]] = defaultdict(
            lambda: defaultdict(list)
        )  # artist, core
        self._by_core: dict[str, dict[str, list[CatalogEntry]]] = defaultdict(
            lambda: defaultdict(list)
        )  # core, artist
        self._by_letters: dict[tuple[str, str, tuple[str, ...]], CandidateGroup] = defaultdict(
            CandidateGroup
        )
        for entry in sorted(
            catalogue.entries, key=lambda entry: entry.track_id
        ):  # so that names stand by first id
            if entry.title is None:
                continue
            core, artist = (
                fold_accents(entry.title.core),
                fold_accents(entry.artist.name) if entry.artist else "",
            )
            first = self._by_core[core][artist]
            if len(first) < MAX_SUGGESTIONS:
                first.append(entry)
            if entry.artist is not None:
                self._by_artist[artist][core] = first
                self._by_letters[artist, core, _numbers(entry.title)].entries.append(entry)
        self._artists = list(self._by_artist)
        self._near_artists: dict[str, list[tuple[str, float]]] = {}

    def suggest(self, heard: TrackReference) -> list[tuple[CatalogEntry, str]]:
        """Up to three tracks of like names, the nearest first, with what is not the same."""
        if not heard.title:
            return []
        core, artist = fold_accents(parse_title(heard.title).core), _artist(heard)
        name = fold_accents(artist.name) if artist else ""
        found: dict[str, tuple[float, CatalogEntry, str]] = {}
        for other, artist_likeness in self._like(name) if artist else ():
            for title, likeness in _most_like(core, list(self._by_artist[other]), MIN_SIMILARITY):
                why = _what_differs(likeness, artist_likeness)
                for entry in self._by_artist[other][title]:
                    found[entry.track_id] = (likeness + artist_likeness, entry, why)
        if core in self._by_core:
            for other, artist_likeness in _most_like(name, list(self._by_core[core]), 0.0):
                for entry in self._by_core[core][other]:
                    why = _what_differs(100.0, artist_likeness)
                    found.setdefault(entry.track_id, (100.0 + artist_likeness, entry, why))
        nearest = sorted(found.values(), key=lambda row: (-row[0], row[1].track_id))
        return [(entry, why) for _, entry, why in nearest[:MAX_SUGGESTIONS]]

    def fuzzy_match(self, heard: TrackReference) -> CatalogEntry | None:
        """The one track that differs by accents and spaces only, or None."""
        artist = _artist(heard)
        if not heard.title or artist is None:
            return None
        title = parse_title(heard.title)
        group = self._by_letters.get(
            (fold_accents(artist.name), fold_accents(title.core), _numbers(title))
        )
        like = group.distinct_candidates(heard, title, artist) if group else []
        found = [entry for entry in like if _is_same(heard, title, artist, entry)]
        return found[0] if len(found) == 1 else None

    def _like(self, name: str) -> list[tuple[str, float]]:
        if name not in self._near_artists:
            found = process.extract(
                name,
                self._artists,
                scorer=fuzz.ratio,
                score_cutoff=MIN_SIMILARITY,
                limit=_MOST_ARTISTS,
            )
            self._near_artists[name] = [
                (str(other), float(likeness)) for other, likeness, _ in found
            ]
        return self._near_artists[name]


def _most_like(name: str, others: list[str], least: float) -> list[tuple[str, float]]:
    """(name, likeness of 100) of the three most like, of as like ones the first; none below
    `least`.
    """
    if not name:
        return [(other, 0.0) for other in others[:MAX_SUGGESTIONS]]
    likeness = process.cdist(
        [name], others, scorer=fuzz.ratio, score_cutoff=least, dtype=np.float64
    )[0]
    best = np.argsort(-likeness, kind="stable")[:MAX_SUGGESTIONS].tolist()
    return [(others[place], float(likeness[place])) for place in best if likeness[place] >= least]


def _numbers(title: Title) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", title.core))  # 1.5 is not 15


@lru_cache(maxsize=100_000)
def fold_accents(words: str) -> str:
    """Words without spaces and without the accents of Latin letters."""
    parts = []
    for character in words:
        apart = unicodedata.normalize("NFKD", character)
        is_latin = "a" <= apart[0] <= "z"
        parts.append(apart[0] if is_latin else character)
    return "".join(parts).replace(" ", "")


def _is_same(heard: TrackReference, title: Title, artist: Artist, entry: CatalogEntry) -> bool:
    """Whether a track of the same letters and numbers is the same one in all else."""
    other = entry.title
    if other is None or entry.artist is None or title.versions != other.versions:
        return False
    if (artist.guests | title.guests) != (entry.artist.guests | other.guests):
        return False
    may_differ = not (heard.album and entry.album) and not (heard.duration_s and entry.duration_s)
    return may_differ or album_or_duration_agrees(heard, entry)


def _artist(heard: TrackReference) -> Artist | None:
    artist = parse_artist(heard.artist) if heard.artist else None
    return None if artist is None or artist.name in NO_ARTIST else artist


def _what_differs(likeness: float, artist_likeness: float) -> str:
    if likeness == 100.0 == artist_likeness:
        return "written otherwise"
    if likeness == 100.0:
        return (
            "the same title by another artist"
            if artist_likeness < MIN_SIMILARITY
            else "the artist's name is written otherwise"
        )
    return (
        "another title"
        if artist_likeness == 100.0
        else "another title, and the artist's name is written otherwise"
    )


KEPT_FILE = "unmatched-history.parquet"
LIST_FILE = "unmatched.csv"
_WHAT = tuple(name for name in REFERENCE_COLUMNS if name != "msid")


def pending_events_path(folder: LibraryPaths) -> Path:
    """Where the events without a track are kept."""
    return folder.root / KEPT_FILE


def unmatched_list_path(folder: LibraryPaths) -> Path:
    """Where the tracks that were not found are listed."""
    return folder.root / LIST_FILE


def read_pending_events(folder: LibraryPaths) -> pl.DataFrame | None:
    """The events that found no track so far, each with what was heard; None if there are none."""
    return (
        read_stored_table(pending_events_path(folder))
        if pending_events_path(folder).is_file()
        else None
    )


def write_pending_events(
    folder: LibraryPaths, events: pl.DataFrame, heard: list[TrackReference]
) -> pl.DataFrame:
    """Writes the events without a track in the place of those kept before, each once, and gives
    them back.
    """
    counted, is_playlist = pl.col(N_TIMES).is_not_null(), pl.col(EVENT) == "playlist"
    playlists = is_playlist & ~pl.col(IS_TABLE)  # a table's rows have the times they have
    counts = events.filter(counted).sort(N_TIMES, descending=True)
    parts = [
        events.filter(~counted & ~is_playlist).unique(
            (USER_ID, PLAYED_AT, EVENT, REFERENCE), keep="first"
        ),
        events.filter(is_playlist & ~playlists).unique(
            (USER_ID, PLAYED_AT, SESSION_ID, REFERENCE), keep="first", maintain_order=True
        ),
        events.filter(playlists).unique(
            (USER_ID, SESSION_ID, REFERENCE), keep="first", maintain_order=True
        ),
        counts.unique((USER_ID, EVENT, REFERENCE), keep="first", maintain_order=True),
    ]
    kept = pl.concat(parts).drop(IS_KEPT).sort(PLAYED_AT, USER_ID, EVENT, REFERENCE)
    if kept.is_empty():
        pending_events_path(folder).unlink(missing_ok=True)
        return kept
    what = pl.DataFrame(heard, schema=REFERENCE_COLUMNS, orient="row").with_row_index(REFERENCE)
    with atomic_write(pending_events_path(folder)) as temporary:
        wide = kept.join(what, on=REFERENCE, how="left", maintain_order="left")
        wide.drop(REFERENCE).write_parquet(temporary, compression="zstd")
    return kept


def write_unmatched_list(
    folder: LibraryPaths,
    kept: pl.DataFrame,
    heard: list[TrackReference],
    matches: list[Match],
    nearest: SuggestionIndex,
) -> None:
    """unmatched.csv: a row for each track that was not found, the most heard first; without it, no
    file.

    Columns: how many events, what was heard, why it matched nothing, and up to three tracks that
    came near, each with what spoke against it.
    """
    if kept.is_empty():
        unmatched_list_path(folder).unlink(missing_ok=True)
        return
    times = (
        kept.with_columns(pl.col(N_TIMES).fill_null(1))
        .group_by(REFERENCE)
        .agg(n=pl.col(N_TIMES).sum())
    )
    header = ["events", *_WHAT, "reason"]
    for rank in range(1, MAX_SUGGESTIONS + 1):
        header += [f"near_{rank}", f"near_{rank}_id", f"not_{rank}"]
    with (
        atomic_write(unmatched_list_path(folder)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(
            _rows(
                times.sort("n", REFERENCE, descending=[True, False]).iter_rows(),
                heard,
                matches,
                nearest,
            )
        )


def _rows(
    times: Iterable[tuple[int, int]],
    heard: list[TrackReference],
    matches: list[Match],
    nearest: SuggestionIndex,
) -> Iterable[list[object]]:
    for place, n in times:
        said, found = heard[place], matches[place]
        near = list(found.refused)
        met = {entry.track_id for entry, _ in near}
        if len(near) < MAX_SUGGESTIONS:
            near += [
                (entry, why) for entry, why in nearest.suggest(said) if entry.track_id not in met
            ]
        cells: list[object] = [
            n,
            *(escape_csv_cell(getattr(said, name)) for name in _WHAT),
            escape_csv_cell(found.reason),
        ]
        for entry, why in near[:MAX_SUGGESTIONS]:
            cells += [
                escape_csv_cell(entry.shown),
                escape_csv_cell(entry.track_id),
                escape_csv_cell(why),
            ]
        yield cells + [""] * (3 * (MAX_SUGGESTIONS - len(near[:MAX_SUGGESTIONS])))
