"""The tables: what they name that is not there, files that moved, and what a stopped process left behind."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl

from ponticello.data.catalog import audio_path, read_tracks, stored_table
from ponticello.data.columns import ANCHOR_ID, DURATION_S, PATH, POSITIVE_ID, TITLE, TRACK_ID
from ponticello.data.interactions import scan_interactions
from ponticello.data.leaks import check_no_leak
from ponticello.data.parquet import reading
from ponticello.data.splits import load_splits
from ponticello.data.store import FrameStore
from ponticello.doctor.finding import Finding, run_check
from ponticello.errors import DataError, LibraryError
from ponticello.library import Folder, is_running

_LEFT_OVER = re.compile(r"\..+\.(\d+)\.tmp")
_BYTES_OF_A_MEL = 2  # float16
_BYTES_OF_A_NUMBER = 4  # float32
_COPIES_OF_A_VECTOR = 4  # two spaces, each kept with its run and in the index
CHECKED_FRAMES = 200  # tracks whose prepared bytes are compared with their hash, evenly drawn


def check_tracks(folder: Folder) -> Iterator[Finding]:
    """The catalogue, and whether its files are where it says."""
    if not folder.tracks.is_file():
        yield Finding("warning", "there are no tracks yet", "tracks.parquet", "ponticello scan FOLDER")
        return
    tracks = read_tracks(folder)
    twice = tracks.height - tracks[TRACK_ID].n_unique()
    if twice:
        what = f"{twice:,} rows repeat a track_id"
        yield Finding("error", what, "tracks.parquet", "ponticello import-tracks TABLE, with ids that are unique")
    paths = tracks[PATH].drop_nulls()
    missing = [path for path in paths if not audio_path(folder, path).is_file()]
    if missing:
        what = f"{len(missing):,} of {len(paths):,} audio files are not where they were, such as {missing[0]!r}"
        yield Finding("warning", what, "tracks.parquet", "ponticello scan FOLDER, where they are now")
    untitled = tracks[TITLE].is_null().sum()
    line = (
        f"{tracks.height:,} tracks, {len(paths) - len(missing):,} with their audio file, {untitled:,} without a title"
    )
    yield Finding("ok", line, "tracks.parquet")


def check_log(folder: Folder) -> Iterator[Finding]:
    """The log, and whom it names that the catalogue does not know."""
    if not folder.interactions.is_file():
        what = "there is no listening history: stage two and recommendations need one"
        yield Finding("note", what, "interactions.parquet", "ponticello import-history FILE")
        return
    events = scan_interactions(folder)
    known = read_tracks(folder).lazy().select(TRACK_ID)
    with reading(folder.interactions):
        n_events = events.select(pl.len()).collect().item()
        n_lost = events.join(known, on=TRACK_ID, how="anti").select(pl.len()).collect().item()
    if n_lost:
        what = f"{n_lost:,} of {n_events:,} events name tracks that are not in the catalogue"
        yield Finding(
            "warning", what, "interactions.parquet", "import those tracks again; until then they do not count"
        )
    yield Finding("ok", f"{n_events:,} events", "interactions.parquet")


def check_pairs(folder: Folder) -> Iterator[Finding]:
    """The splits' hash, and pairs that name what is not there or held out."""
    splits = load_splits(folder)  # DataError if changed since it was written
    if splits is not None:
        yield Finding("ok", "as they were written", "splits.parquet")
    if not folder.pairs.is_file():
        if folder.interactions.is_file():
            yield Finding("note", "no pairs are mined yet", "pairs.parquet", "ponticello pairs")
        return
    tracks = read_tracks(folder)
    for path in [path for path in (folder.pairs, folder.validation_pairs) if path.is_file()]:
        yield from run_check(path.name, partial(_known_pairs, path, tracks))
    if splits is not None:
        try:
            check_no_leak(splits, tracks, stored_table(folder.pairs), None)
        except DataError as error:
            yield Finding("error", f"held-out tracks reach training: {error}", "pairs.parquet", "ponticello pairs")


def _known_pairs(path: Path, tracks: pl.DataFrame) -> Iterator[Finding]:
    pairs, known = stored_table(path), tracks[TRACK_ID].implode()
    lost = pairs.filter(~(pl.col(ANCHOR_ID).is_in(known) & pl.col(POSITIVE_ID).is_in(known))).height
    if lost:
        what = f"{lost:,} of {pairs.height:,} pairs name tracks that are not in the catalogue"
        yield Finding("warning", what, path.name, "ponticello pairs")
    yield Finding("ok", f"{pairs.height:,} pairs", path.name)


def check_frames(folder: Folder) -> Iterator[Finding]:
    """What is prepared, whether a sample of it is what was written, and what still has to be."""
    place = folder.frames_of(folder.config.front_end)
    where = f"{place.relative_to(folder.root)}/"
    if not (place / "manifest.parquet").is_file():
        if folder.tracks.is_file():
            yield Finding("warning", "nothing is prepared yet", where, "ponticello prepare")
        return
    store = FrameStore(place)
    sample = store.track_ids[:: max(1, len(store) // CHECKED_FRAMES)]
    damaged = [track_id for track_id in sample if not store.is_whole(track_id)]
    if damaged:
        what = f"{len(damaged):,} of {len(sample):,} tracks looked at are damaged, such as {damaged[0]!r}"
        yield Finding("error", what, where, f"delete {where} and run: ponticello prepare")
    yield Finding("ok", f"{len(store):,} tracks prepared, {len(sample):,} compared with their hash", where)
    with_audio = set(read_tracks(folder).drop_nulls(PATH)[TRACK_ID]) if folder.tracks.is_file() else set()
    lacking = with_audio - set(store.track_ids)
    if lacking:
        yield Finding("note", f"{len(lacking):,} tracks with audio are not prepared", where, "ponticello prepare")


def bytes_to_write(folder: Folder) -> int:
    """Bytes that `prepare` and `embed` would still write: tracks lacking, by what those before them took.

    Where nothing is prepared yet, log-mels are counted from the tracks' durations, and other frames not at all.
    """
    if not folder.tracks.is_file():
        return 0
    try:
        tracks = read_tracks(folder).drop_nulls(PATH)
        prepared, written = _prepared(folder.frames_of(folder.config.front_end))
    except (DataError, LibraryError):
        return 0  # the checks of those tables have told
    lacking = tracks.filter(~pl.col(TRACK_ID).is_in(list(prepared)))
    vectors = lacking.height * folder.config.heads.embed_dim * _BYTES_OF_A_NUMBER * _COPIES_OF_A_VECTOR
    if prepared:
        return written * lacking.height // len(prepared) + vectors
    if folder.config.front_end != "logmel":
        return vectors
    mel = folder.config.mel
    seconds = lacking[DURATION_S].cast(pl.Float64).fill_null(mel.max_seconds).clip(0, mel.max_seconds).sum()
    return int(seconds * mel.sample_rate / mel.hop_length) * mel.n_mels * _BYTES_OF_A_MEL + vectors


def _prepared(place: Path) -> tuple[set[str], int]:
    """The tracks whose frames lie at `place`, and the bytes they take."""
    if not (place / "manifest.parquet").is_file():
        return set(), 0
    return set(FrameStore(place).track_ids), sum(path.stat().st_size for path in place.glob("*.npy"))


def check_left_over(folder: Folder) -> Iterator[Finding]:
    """Half-written files of processes that have ended."""
    found = [path for path in folder.root.rglob(".*.tmp") if _is_left_over(path)]
    if found:
        n_bytes = sum(each.stat().st_size for path in found for each in (path.rglob("*") if path.is_dir() else [path]))
        what = f"{len(found):,} half-written files of processes that have ended, {n_bytes / 2**20:,.0f} MB"
        yield Finding("note", what, str(found[0].relative_to(folder.root)), "delete them: nothing reads them")


def _is_left_over(path: Path) -> bool:
    match = _LEFT_OVER.fullmatch(path.name)
    return match is not None and not is_running(int(match[1]))
