"""Preparing on many machines: each job does its part of the tracks in a folder of its own, and a last call adopts them.

    mels/part-2-of-4/      what job 2 of 4 made: shards and a manifest, as in mels/ itself

Jobs share nothing they write, so none waits for another. Which tracks a job has hangs on their ids alone, so that a job
that begins late or again has the same ones.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
from filelock import FileLock, Timeout

from ponticello.data.columns import TRACK_ID
from ponticello.data.prepare import FrontEnd, Prepared, mel_front_end, plan_frames, prepare_frames
from ponticello.data.shards import MANIFEST, SCHEMA, adopt_shard, read_manifest, write_manifest
from ponticello.errors import LibraryError
from ponticello.library import Folder

Shard = tuple[int, int]
"""(i, n): the i-th of n parts, from 1."""


def prepare_part(
    folder: Folder,
    sources: Mapping[str, Path],
    shard: Shard,
    front_end: FrontEnd | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Prepares part `shard` of what `prepare_frames` would; `adopt_parts` brings it in. Resumes, and raises, alike.

    The library's lock is not needed: LibraryError where another process is at the same part. What cannot be decoded is
    listed in the part's own skipped.csv, and by the call that adopts it in the library's.
    """
    front_end = front_end or mel_front_end(folder)
    whole, (number, n_parts) = front_end.place, shard
    there = read_manifest(whole) if (whole / MANIFEST).exists() else pl.DataFrame(schema=SCHEMA)
    missing = {source.track_id for source in plan_frames(whole, there, sources, front_end.key)[1]}
    own = {
        track_id: sources[track_id]
        for place, track_id in enumerate(sorted(sources))
        if place % n_parts == number - 1 and track_id in missing
    }
    part = whole / f"part-{number}-of-{n_parts}"
    part.mkdir(parents=True, exist_ok=True)
    with _held(part):
        unusable = front_end.unusable if number == 1 else ()
        return prepare_frames(
            replace(folder, root=part),
            own,
            replace(front_end, place=part, unusable=unusable),
            workers=workers,
            on_progress=on_progress,
        )


def adopt_parts(place: Path, key: str) -> int:
    """Moves what jobs prepared into `place`, the frames' own folder, and says of how many tracks.

    The caller holds `folder.lock()`. key: `FrontEnd.key`; parts of another are thrown away. LibraryError if a job is
    still at its part. Ended half-way, a track may have to be prepared again, and nothing else.
    """
    n_tracks = 0
    for part in sorted(place.glob("part-*-of-*")):
        with _held(part):
            n_tracks += _adopt(part, place, key)
            shutil.rmtree(part)
    return n_tracks


def _adopt(part: Path, place: Path, key: str) -> int:
    if not (part / MANIFEST).exists():
        return 0
    rows = read_manifest(part).filter(pl.col("mel_key") == key)
    known = read_manifest(place) if (place / MANIFEST).exists() else pl.DataFrame(schema=SCHEMA)
    for number in rows["shard"].unique().sort():
        of_shard = rows.filter(pl.col("shard") == number)
        moved = of_shard.with_columns(pl.lit(adopt_shard(part, number, place), pl.Int64).alias("shard"))
        known = pl.concat([known.filter(~pl.col(TRACK_ID).is_in(moved[TRACK_ID].to_list())), moved])
        write_manifest(place, known)
    return len(rows)


@contextmanager
def _held(part: Path) -> Iterator[None]:
    try:
        with FileLock(part / ".lock", timeout=0):
            yield
    except Timeout:
        raise LibraryError(f"{part} is being prepared by another process; wait for it to end") from None
