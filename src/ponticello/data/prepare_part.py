"""Preparing on many machines: each job does its part of the tracks in a folder of its own, and a last call adopts them.

    mels/part-2-of-4/      what job 2 of 4 made: shards and a manifest, as in mels/ itself
      finished             once it has ended: the key of the settings it was made with

Jobs share nothing they write, so none waits for another. Which tracks a job has hangs on their ids alone, so that a job
that begins late or again has the same ones.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

import polars as pl
from filelock import FileLock, Timeout

from ponticello.data.cluster import Task, on_ray
from ponticello.data.columns import TRACK_ID
from ponticello.data.prepare import FrontEnd, Prepared, mel_front_end, plan_frames, prepare_frames
from ponticello.data.shards import MANIFEST, SCHEMA, adopt_shard, read_manifest, write_manifest
from ponticello.errors import LibraryError
from ponticello.library import Folder

FINISHED = "finished"
TRACKS_A_TASK = 250  # of Ray: some minutes of one core, and a shard of 80 MB
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
    own, part = _lacking(front_end, sources, shard), _place(front_end, shard)
    part.mkdir(parents=True, exist_ok=True)
    with _held(part):
        (part / FINISHED).unlink(missing_ok=True)
        unusable = front_end.unusable if shard[0] == 1 else ()
        done = prepare_frames(
            replace(folder, root=part),
            own,
            replace(front_end, place=part, unusable=unusable),
            workers=workers,
            on_progress=on_progress,
        )
        (part / FINISHED).write_text(front_end.key, encoding="utf-8")
    return done


def require_parts(sources: Mapping[str, Path], front_end: FrontEnd, n_parts: int) -> None:
    """LibraryError that names the parts, of `n_parts`, whose jobs have not ended, or were done with other settings."""
    missing: list[str] = []
    foreign: list[str] = []
    for number in range(1, n_parts + 1):
        shard = (number, n_parts)
        record = _place(front_end, shard) / FINISHED
        found = record.read_text(encoding="utf-8") if record.exists() else None
        if found != front_end.key and _lacking(front_end, sources, shard):
            (missing if found is None else foreign).append(f"{number}/{n_parts}")
    told = [f"shards {', '.join(missing)} are not finished"] if missing else []
    told += [f"shards {', '.join(foreign)} were made with other settings"] if foreign else []
    if told:
        raise LibraryError(
            f"{front_end.place}: {'; '.join(told)}; run those jobs again, or ponticello prepare alone to do here what "
            "is missing"
        )


def prepare_on_ray(
    folder: Folder,
    sources: Mapping[str, Path],
    front_end: FrontEnd,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Has Ray prepare what is missing, in parts, and adopts them; how many tracks that gave.

    The caller holds `folder.lock()`; every worker must see the library and the files under the same paths.
    ConfigError without Ray, PonticelloError where a worker failed; finished parts are kept for the next call.
    """
    n_adopted = adopt_parts(front_end.place, front_end.key)
    n_missing = len(_lacking(front_end, sources, (1, 1)))
    n_parts = -(-n_missing // TRACKS_A_TASK)
    n_done = 0
    for n_tracks in on_ray(partial(_begin, folder, sources, front_end, n_parts), range(1, n_parts + 1)):
        n_done += n_tracks
        if on_progress:
            on_progress(n_done, n_missing)
    return n_adopted + adopt_parts(front_end.place, front_end.key)


def _begin(folder: Folder, sources: Mapping[str, Path], front_end: FrontEnd, n_parts: int) -> Task:
    """What a worker does with the number of a part; gives how many tracks it looked at."""

    def task(number: int) -> int:
        done = prepare_part(folder, sources, (number, n_parts), front_end, workers=1)
        return done.n_new + len(done.skipped)

    return task


def _lacking(front_end: FrontEnd, sources: Mapping[str, Path], shard: Shard) -> dict[str, Path]:
    """The tracks of a part that `front_end.place` lacks."""
    whole, (number, n_parts) = front_end.place, shard
    own = {track_id: path for track_id, path in sources.items() if crc32(track_id.encode()) % n_parts == number - 1}
    missing = plan_frames(whole, _manifest(whole), own, front_end.key)[1]
    return {source.track_id: source.path for source in missing}


def _place(front_end: FrontEnd, shard: Shard) -> Path:
    return front_end.place / f"part-{shard[0]}-of-{shard[1]}"


def _manifest(place: Path) -> pl.DataFrame:
    return read_manifest(place) if (place / MANIFEST).exists() else pl.DataFrame(schema=SCHEMA)


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
    known = _manifest(place)
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
