"""Processor time and memory of importing 100 MB exports, each in a process of its own.

    python bench/importing.py --megabytes 100

The catalogue has 20,000 made-up tracks; the exports hold plays of 40,000, so half of what is heard finds no track.
Prints the table of docs/data.md.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from ponticello.data.catalog import import_tracks
from ponticello.data.history.ingest import import_history
from ponticello.library import create_library, open_library

N_TRACKS, N_HEARD, SEED = 20_000, 40_000, 3407
START = datetime(2010, 1, 1, tzinfo=UTC)


def _names(song: int) -> tuple[str, str, str]:
    return f"Artist {song % 4000}", f"Song {song}", f"Album {song // 12}"


def spotify(song: int, at: datetime) -> str:
    artist, title, album = _names(song)
    row = {
        "ts": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "platform": "x",
        "ms_played": 180_000 + song,
        "conn_country": "ZZ",
        "ip_addr": "203.0.113.7",
        "master_metadata_track_name": title,
        "master_metadata_album_artist_name": artist,
        "master_metadata_album_album_name": album,
        "spotify_track_uri": f"spotify:track:{song:022d}",
        "episode_name": None,
        "reason_start": "trackdone",
        "reason_end": "trackdone",
        "shuffle": False,
        "skipped": False,
        "offline_timestamp": None,
        "incognito_mode": False,
    }
    return json.dumps(row)


def listenbrainz(song: int, at: datetime) -> str:
    artist, title, album = _names(song)
    said = {
        "artist_name": artist,
        "track_name": title,
        "release_name": album,
        "additional_info": {"duration_ms": 180_000},
    }
    return json.dumps({"listened_at": int(at.timestamp()), "track_metadata": said | {"mbid_mapping": None}})


def lastfm(song: int, at: datetime) -> str:
    artist, title, album = _names(song)
    return f"{artist},{album},{title},{at.strftime('%d %b %Y %H:%M')}"


FORMS: dict[str, tuple[str, Callable[[int, datetime], str], str, str, str]] = {
    "Spotify, one JSON array": ("s.json", spotify, "[", ",\n", "]"),
    "ListenBrainz, JSONL": ("l.jsonl", listenbrainz, "", "\n", "\n"),
    "Last.fm, CSV without a header": ("l.csv", lastfm, "", "\n", "\n"),
}


def write_export(path: Path, form: str, megabytes: int) -> int:
    """An export of about so many MB; gives its number of events."""
    _, row, before, between, after = FORMS[form]
    draw, at, n = random.Random(SEED), START, 0
    with path.open("w", encoding="utf-8") as file:
        size = file.write(before)
        while size < megabytes * 1_000_000:
            at += timedelta(seconds=draw.randrange(60, 600))
            size += file.write((between if n else "") + row(draw.randrange(N_HEARD), at))
            n += 1
        file.write(after)
    return n


def one(root: Path, path: Path) -> None:
    """Imports in this process and prints CPU seconds, MiB at the most, and what was done, as JSON."""
    folder = open_library(root)
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = import_history(folder, path)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([time.process_time() - started, before / 1024, most / 1024, done.n_new, done.n_kept]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--one", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one)
        return
    print("| export | events | CPU seconds | MiB before | MiB at the most | new | kept without a track |")
    print("|---|---|---|---|---|---|---|")
    for form, (name, *_) in FORMS.items():
        with tempfile.TemporaryDirectory() as place:
            root, path = Path(place) / "library", Path(place) / name
            folder = create_library(root, "tiny")
            rows = [(f"t{song}", *_names(song)) for song in range(N_TRACKS)]
            table = pl.DataFrame(rows, ["track_id", "artist", "title", "album"], orient="row")
            table.write_csv(Path(place) / "tracks.csv")
            import_tracks(folder, Path(place) / "tracks.csv")
            n = write_export(path, form, options.megabytes)
            command = [sys.executable, __file__, "--one", str(root), str(path)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, before, most, n_new, n_kept = json.loads(printed)
            print(
                f"| {form} | {n:,} | {seconds:.1f} | {before:.0f} | {most:.0f} | {n_new:,} | {n_kept:,} |", flush=True
            )


if __name__ == "__main__":
    main()
