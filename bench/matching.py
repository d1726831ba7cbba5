"""How many lines of a history find their track, and how many the wrong one, on names made to be
mistaken.

    make bench-matching

Prints the tables of docs/data.md. Beside the rules stand two simple baselines over the same cases:
equal text (artist and title, small letters) and the nearest name (rapidfuzz, from 85 of 100 on).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import PurePosixPath

import polars as pl
from rapidfuzz import fuzz, process

from ponticello.listening.importers.records import TrackReference
from ponticello.listening.matching import CatalogMatcher, build_catalog, match_track
from ponticello.listening.unmatched import SuggestionIndex
from ponticello.storage.schema import TRACKS
from tests.listening.matching_cases import Case, Track, build

Matcher = Callable[[TrackReference], str | None]
NEAREST_FROM = 85


def catalogue(tracks: list[Track]) -> CatalogMatcher:
    """The cases' tracks as the library would hold them."""
    rows = pl.DataFrame([asdict(track) for track in tracks], infer_schema_length=None)
    missing = [
        pl.lit(None, pl.String).alias(name) for name in TRACKS.kinds if name not in rows.columns
    ]
    return build_catalog(rows.with_columns(missing), PurePosixPath("/music"))


def matchers(tracks: list[Track]) -> dict[str, Matcher]:
    """Each way to match, by name."""
    known = catalogue(tracks)
    nearest = SuggestionIndex(known)
    names = [f"{track.artist} {track.title}".lower() for track in tracks]
    equal = {
        name: track.track_id for name, track in reversed(list(zip(names, tracks, strict=True)))
    }

    def fuzzy(heard: TrackReference) -> str | None:
        found = match_track(heard, known).track_id
        slip = nearest.fuzzy_match(heard) if found is None else None
        return slip.track_id if slip else found

    def near(heard: TrackReference) -> str | None:
        found = process.extractOne(
            f"{heard.artist} {heard.title}".lower(),
            names,
            scorer=fuzz.WRatio,
            score_cutoff=NEAREST_FROM,
        )
        return tracks[found[2]].track_id if found else None

    return {
        "Ponticello": lambda heard: match_track(heard, known).track_id,
        "Ponticello, `--fuzzy`": fuzzy,
        "equal text": lambda heard: equal.get(f"{heard.artist} {heard.title}".lower()),
        f"nearest name (rapidfuzz WRatio >= {NEAREST_FROM})": near,
    }


def outcome(case: Case, found: str | None) -> str:
    """right, wrong (a track that is not the one), missed (refused, though it is here) or refused
    (rightly).
    """
    if found is not None:
        return "right" if found == case.truth else "wrong"
    return "refused" if case.truth is None else "missed"


def main() -> None:
    tracks, cases = build()
    counts = {
        name: Counter(outcome(case, matcher(case.reference)) for case in cases)
        for name, matcher in matchers(tracks).items()
    }
    n_here = sum(case.truth is not None for case in cases)
    print(
        f"{len(cases)} lines, {len(tracks)} tracks; {n_here} lines mean a track of the catalogue.\n"
    )
    print("| | wrong | right | missed | rightly refused | found, of those that are here |")
    print("|---|---|---|---|---|---|")
    for name, count in counts.items():
        cells = [count[each] for each in ("wrong", "right", "missed", "refused")]
        print(f"| {name} | {' | '.join(map(str, cells))} | {count['right'] / n_here:.1%} |")
    print(
        "\n| kind | lines | right | rightly refused | missed | wrong |\n|---|---|---|---|---|---|"
    )
    rules = matchers(tracks)["Ponticello"]
    for kind in dict.fromkeys(case.kind for case in cases):
        mine = [case for case in cases if case.kind == kind]
        count = Counter(outcome(case, rules(case.reference)) for case in mine)
        cells = [count[each] for each in ("right", "refused", "missed", "wrong")]
        print(f"| {kind} | {len(mine)} | {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
