"""Keeps events without a track, lists them in unmatched.csv and suggests similar tracks.

Also the optional rule `fuzzy`: it ignores accents and spaces but no letter, since a letter more or
less is another song as often as a slip. Versions, numbers and guests must be equal, album and
duration must not disagree, and the track must be the only one.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import polars as pl
from rapidfuzz import fuzz, process

from ponticello.listening import matching
from ponticello.listening.importers.records import (
    IS_KEPT,
    IS_TABLE,
    REFERENCE,
    REFERENCE_COLUMNS,
    TrackReference,
)
from ponticello.storage.files import write_csv_rows
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import EVENT, N_TIMES, PLAYED_AT, SESSION_ID, USER_ID
from ponticello.storage.tables import write_parquet
from ponticello.tracks.catalog import read_stored_table

MIN_SIMILARITY = 75.0  # of 100; tracks below it are not suggested
_MAX_ARTISTS = 3
_LISTED_FIELDS = tuple(name for name in REFERENCE_COLUMNS if name != "msid")


class SuggestionIndex:
    """The catalogue by the spelling of its names; about 5 us per artist and query."""

    def __init__(self, catalog: matching.CatalogMatcher) -> None:
        # Both hold the same lists: by artist and title, and by title and artist.
        self._by_artist: dict[str, dict[str, list[matching.CatalogEntry]]] = defaultdict(dict)
        self._by_title: dict[str, dict[str, list[matching.CatalogEntry]]] = defaultdict(dict)
        self._by_letters: dict[tuple[str, str, tuple[str, ...]], matching.CandidateGroup] = (
            defaultdict(matching.CandidateGroup)
        )
        for entry in sorted(catalog.entries, key=lambda entry: entry.track_id):
            if entry.title is None:
                continue
            artist = _folded_artist(entry)
            title = fold_accents(entry.title.core)
            first_entries = self._by_title[title].setdefault(artist, [])
            if len(first_entries) < matching.MAX_SUGGESTIONS:
                first_entries.append(entry)
            if entry.artist is not None:
                self._by_artist[artist][title] = first_entries
                self._by_letters[_letters(entry)].entries.append(entry)
        self._artists = list(self._by_artist)
        self._similar_artists_cache: dict[str, list[tuple[str, float]]] = {}

    def suggest(self, reference: TrackReference) -> list[matching.Refusal]:
        """Returns up to three tracks of similar names, the best first, with what differs."""
        query = matching.parse_reference(reference)
        if query.title is None:
            return []
        title = fold_accents(query.title.core)
        artist = _folded_artist(query)
        ranked: dict[str, tuple[float, matching.CatalogEntry, str]] = {}
        for similar_artist, artist_similarity in self._similar_artists(artist):
            titles = self._by_artist[similar_artist]
            for similar_title, similarity in _most_similar(title, list(titles), MIN_SIMILARITY):
                difference = _difference(similarity, artist_similarity)
                for entry in titles[similar_title]:
                    ranked[entry.track_id] = (similarity + artist_similarity, entry, difference)
        artists = self._by_title.get(title, {})
        for other_artist, artist_similarity in _most_similar(artist, list(artists), 0.0):
            difference = _difference(100.0, artist_similarity)
            for entry in artists[other_artist]:
                ranked.setdefault(entry.track_id, (100.0 + artist_similarity, entry, difference))
        best = sorted(ranked.values(), key=lambda row: (-row[0], row[1].track_id))
        return [(entry, difference) for _, entry, difference in best[: matching.MAX_SUGGESTIONS]]

    def fuzzy_match(self, reference: TrackReference) -> matching.CatalogEntry | None:
        """Returns the one track that differs only in accents and spaces, or None."""
        query = matching.parse_reference(reference)
        if query.title is None or query.artist is None:
            return None
        group = self._by_letters.get(_letters(query))
        if group is None:
            return None
        candidates = group.distinct_candidates(query)
        equal = [entry for entry in candidates if _is_same_but_for_accents(query, entry)]
        return equal[0] if len(equal) == 1 else None

    def _similar_artists(self, artist: str) -> list[tuple[str, float]]:
        if not artist:
            return []
        if artist not in self._similar_artists_cache:
            results = process.extract(
                artist,
                self._artists,
                scorer=fuzz.ratio,
                score_cutoff=MIN_SIMILARITY,
                limit=_MAX_ARTISTS,
            )
            self._similar_artists_cache[artist] = [(name, score) for name, score, _ in results]
        return self._similar_artists_cache[artist]


@lru_cache(maxsize=100_000)
def fold_accents(words: str) -> str:
    """Removes spaces, and the accents of Latin letters."""
    letters = []
    for character in words:
        base = unicodedata.normalize("NFKD", character)[0]
        letters.append(base if "a" <= base <= "z" else character)
    return "".join(letters).replace(" ", "")


def read_pending_events(folder: LibraryPaths) -> pl.DataFrame | None:
    """Returns the events without a track, with the fields of their references, or None."""
    path = folder.unmatched_history
    return read_stored_table(path) if path.is_file() else None


def write_pending_events(
    folder: LibraryPaths, events: pl.DataFrame, references: list[TrackReference]
) -> pl.DataFrame:
    """Replaces the stored events without a track by `events`, each once; returns those."""
    is_count = pl.col(N_TIMES).is_not_null()
    is_playlist = pl.col(EVENT) == "playlist"
    keys = (
        (~is_count & ~is_playlist, (REFERENCE, USER_ID, PLAYED_AT, EVENT)),
        # A table has exact times.
        (is_playlist & pl.col(IS_TABLE), (REFERENCE, USER_ID, PLAYED_AT, SESSION_ID)),
        (is_playlist & ~pl.col(IS_TABLE), (REFERENCE, USER_ID, SESSION_ID)),
        (is_count & ~is_playlist, (REFERENCE, USER_ID, EVENT)),
    )
    events = events.sort(N_TIMES, descending=True, maintain_order=True)  # the largest count first
    groups = []
    for condition, key in keys:
        groups.append(events.filter(condition).unique(key, keep="first", maintain_order=True))
    pending = pl.concat(groups)
    pending = pending.drop(IS_KEPT).sort(PLAYED_AT, USER_ID, EVENT, REFERENCE)
    if pending.is_empty():
        folder.unmatched_history.unlink(missing_ok=True)
        return pending
    fields = pl.DataFrame(references, schema=REFERENCE_COLUMNS, orient="row")
    fields = fields.with_row_index(REFERENCE)
    rows = pending.join(fields, on=REFERENCE, how="left", maintain_order="left")
    write_parquet(folder.unmatched_history, rows.drop(REFERENCE))
    return pending


def write_unmatched_list(
    folder: LibraryPaths,
    pending: pl.DataFrame,
    references: list[TrackReference],
    matches: list[matching.Match],
    suggestions: SuggestionIndex,
) -> None:
    """Writes unmatched.csv, a row per track without a match, the most played first.

    Columns: the number of events, the track's fields, why it matched no track, and up to three
    similar tracks, each with what speaks against it. Without such tracks the file is removed.
    """
    if pending.is_empty():
        folder.unmatched.unlink(missing_ok=True)
        return
    counts = pending.with_columns(pl.col(N_TIMES).fill_null(1)).group_by(REFERENCE)
    counts_by_size = counts.agg(n=pl.col(N_TIMES).sum()).sort(
        "n", REFERENCE, descending=[True, False]
    )
    header = ["events"]
    header += _LISTED_FIELDS
    header.append("reason")
    for rank in range(1, matching.MAX_SUGGESTIONS + 1):
        header += [f"near_{rank}", f"near_{rank}_id", f"not_{rank}"]
    rows = _list_rows(counts_by_size.iter_rows(), references, matches, suggestions)
    write_csv_rows(folder.unmatched, header, rows)


def _list_rows(
    counts: Iterable[tuple[int, int]],
    references: list[TrackReference],
    matches: list[matching.Match],
    suggestions: SuggestionIndex,
) -> Iterator[list[object]]:
    for index, n_events in counts:
        similar = list(matches[index].refused[: matching.MAX_SUGGESTIONS])
        if len(similar) < matching.MAX_SUGGESTIONS:
            refused_ids = {entry.track_id for entry, _ in similar}
            for entry, difference in suggestions.suggest(references[index]):
                if entry.track_id not in refused_ids:
                    similar.append((entry, difference))
        cells: list[object] = [n_events]
        cells += [getattr(references[index], name) for name in _LISTED_FIELDS]
        cells.append(matches[index].reason)
        similar = similar[: matching.MAX_SUGGESTIONS]
        for entry, difference in similar:
            cells += [entry.label, entry.track_id, difference]
        cells += [""] * (3 * (matching.MAX_SUGGESTIONS - len(similar)))
        yield cells


def _folded_artist(entry: matching.CatalogEntry) -> str:
    return fold_accents(entry.artist.name) if entry.artist else ""


def _letters(entry: matching.CatalogEntry) -> tuple[str, str, tuple[str, ...]]:
    """Returns the key of `fuzzy`: artist and title without accents and spaces, and the numbers."""
    assert entry.title is not None
    numbers = re.findall(r"\d+", entry.title.core)  # 1.5 is not 15
    return _folded_artist(entry), fold_accents(entry.title.core), tuple(numbers)


def _is_same_but_for_accents(query: matching.CatalogEntry, entry: matching.CatalogEntry) -> bool:
    assert query.title is not None
    assert entry.title is not None
    if query.title.versions != entry.title.versions or query.guests != entry.guests:
        return False
    has_album = query.album_words is not None and entry.album_words is not None
    has_duration = bool(query.duration_s and entry.duration_s)
    return not (has_album or has_duration) or matching.album_or_duration_agrees(query, entry)


def _most_similar(name: str, names: list[str], minimum: float) -> list[tuple[str, float]]:
    """Returns the three most similar names from `minimum` of 100 on; of equal ones the first."""
    if not name:
        return [(first_name, 0.0) for first_name in names[: matching.MAX_SUGGESTIONS]]
    similarity = process.cdist(
        [name], names, scorer=fuzz.ratio, score_cutoff=minimum, dtype=np.float64
    )[0]
    best = np.argsort(-similarity, kind="stable")[: matching.MAX_SUGGESTIONS]
    return [(names[row], float(similarity[row])) for row in best if similarity[row] >= minimum]


def _difference(title_similarity: float, artist_similarity: float) -> str:
    has_same_artist = artist_similarity == 100.0
    if title_similarity < 100.0:
        suffix = "" if has_same_artist else ", and the artist's name is written otherwise"
        return f"another title{suffix}"
    if has_same_artist:
        return "written otherwise"
    if artist_similarity < MIN_SIMILARITY:
        return "the same title by another artist"
    return "the artist's name is written otherwise"
