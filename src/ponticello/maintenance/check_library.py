"""Checks of a library: its tables, prepared features, training runs and index.

Missing rows and files, damage, interrupted or outdated runs, an index that does not fit the models
or the catalogue, and collapsed vector spaces.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ponticello.errors import CheckpointError, DataError, LibraryError, PonticelloError
from ponticello.features.store import FeatureStore
from ponticello.listening.log import scan_interactions
from ponticello.maintenance.erase_user import RETRAIN_FILE
from ponticello.maintenance.findings import Finding, run_check
from ponticello.metrics.embedding_space import alignment, space_health
from ponticello.model.htcl import HTCL
from ponticello.model.saving import check_checksums, space_id
from ponticello.search.generations import open_index
from ponticello.search.index import EmbeddingIndex
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import load_splits
from ponticello.storage.files import is_left_over
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ANCHOR_ID, DURATION_S, PATH, POSITIVE_ID, TITLE, TRACK_ID
from ponticello.storage.tables import wrap_read_errors
from ponticello.tracks.catalog import audio_path, read_stored_table, read_tracks
from ponticello.tracks.text import track_texts
from ponticello.train.runs import (
    RUN_FILE,
    STARTER,
    finished_run,
    is_finished,
    read_started,
    why_one_space,
)

_MIN_REPORTED_BYTES = 100 * 2**20  # folders that take less room are not reported
MAX_ROWS = 5_000  # vectors that are examined, evenly spaced
MAX_TEXTS = 200
# squared distance by which a text must be closer to its own track than to others
LEAST_ALIGNED = 0.02
MANY_HUBS = 5.0  # skewness of how often tracks are neighbours; music spaces have 1 to 3
NAMES = ("semantic space", "preference space")
_BYTES_OF_A_MEL = 2  # float16
_BYTES_OF_A_NUMBER = 4  # float32
_COPIES_OF_A_VECTOR = 4  # two spaces, each kept with its run and in the index
_PREPARE = "ponticello prepare"
_MINE = "ponticello mine-pairs"
CHECKED_FRAMES = 200  # tracks whose prepared bytes are compared with their hash, evenly drawn


def check_runs(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks every training run."""
    runs = sorted(path for path in (folder.root / "runs").glob("*") if path.is_dir())
    is_trained = any(run.name != STARTER for run in runs)
    if not is_trained and folder.tracks.is_file():
        what = "nothing is trained yet: answers come from the starter model, where there are any"
        yield Finding("note", what, "ponticello train semantic")
    for run in runs:
        yield from run_check(f"runs/{run.name}/", partial(_check_run, run))


def _check_run(run: Path) -> Iterator[Finding]:
    where = f"runs/{run.name}/"
    if (run / RETRAIN_FILE).is_file():
        what = f"it learned from a listener who has been forgotten since{_why(run / RETRAIN_FILE)}"
        yield Finding("warning", what, f"delete {where}, train it again, and embed")
    train = f"ponticello train {_stage(run)} --name {run.name}"
    try:
        if not is_finished(run):
            read_started(run)
            what = "training was begun and has not ended"
            yield Finding("note", what, f"{train}, which goes on; or delete {where}")
            return
        finished_run(run, _stage(run), None)
        check_checksums(run)
        space = space_id(run)
    except (PonticelloError, OSError, ValueError) as error:
        what = f"its model cannot be read: {error}" if is_finished(run) else str(error)
        yield Finding("error", what, f"delete {where}, then {train}, and ponticello embed")
        return
    yield Finding("ok", f"finished, space {space}")
    folders = {}
    for path in (run / "vectors").glob("*"):
        if path.is_dir() and path.name.split("-")[0] != space:
            folders[path] = "vectors of a former model"
    if (run / "checkpoints").is_dir():
        folders[run / "checkpoints"] = "checkpoints of a finished run"
    for path, what in folders.items():
        n_bytes = _count_bytes(path)
        if n_bytes >= _MIN_REPORTED_BYTES:
            size = f"{what}, {n_bytes / 2**20:,.0f} MB"
            subfolder = f"{where}{path.relative_to(run)}/"
            yield Finding("note", size, "delete it, if the room is wanted", subfolder)


def _count_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _why(note: Path) -> str:
    try:
        return f" ({dict(json.loads(note.read_text(encoding='utf-8')))['why']})"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _stage(run: Path) -> str:
    with suppress(OSError, ValueError, LookupError, TypeError):
        stage = str(json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["stage"])
        if stage in ("semantic", "preference"):
            return stage
    started: dict[str, Any] = {}
    with suppress(CheckpointError):
        started = read_started(run)
    is_preference = "preference" in started if started else run.name.startswith("preference")
    return "preference" if is_preference else "semantic"


def check_index(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the live index against its hashes, the catalogue and the models, and its spaces."""
    if not (folder.index / "CURRENT").is_file():
        if folder.tracks.is_file():
            what = "there is no index: nothing can be asked yet"
            yield Finding("warning", what, "ponticello embed")
        return
    # CheckpointError names the damaged file.
    index = open_index(folder.index, folder.config.search.backend)
    spaces = "semantic and preference" if index.has_preference else "semantic only"
    yield Finding("ok", f"{len(index.track_ids):,} tracks, {spaces}, every file as it was written")
    if not index.has_preference:
        yield Finding("note", why_one_space(folder.run("preference")))
    yield from run_check("index/", partial(_check_tracks, folder, index))
    yield from run_check("index/", partial(_check_models, folder, index))
    yield from run_check("spaces", partial(_check_spaces, folder, index))


def _check_tracks(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    tracks = read_tracks(folder)
    indexed_ids = set(index.track_ids)
    deleted_ids = indexed_ids - set(tracks[TRACK_ID])
    if deleted_ids:
        what = f"{len(deleted_ids):,} tracks of the index are not in the catalogue any more"
        yield Finding("note", what, "ponticello embed, once they are gone from what is prepared")
    missing_ids = set(tracks.drop_nulls(PATH)[TRACK_ID]) - indexed_ids
    if missing_ids:
        what = f"{len(missing_ids):,} tracks with audio are not in it"
        yield Finding("warning", what, "ponticello prepare, then ponticello embed")


def _check_models(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    for space in index.spaces:
        run = f"run {space.run!r}"
        try:
            check_checksums(folder.run(space.run))
            current_id = space_id(folder.run(space.run))
        except (PonticelloError, OSError) as error:
            what = f"{run} behind it cannot be read ({error}): words and sounds cannot be searched"
            yield Finding("error", what, "ponticello train, then ponticello embed")
            continue
        if current_id != space.space_id:
            space_ids = f"it is space {current_id}, the index holds {space.space_id}"
            yield Finding("error", f"{run} was trained anew: {space_ids}", "ponticello embed")


def _check_spaces(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    if len(index.track_ids) < 2:
        return
    rows = np.unique(np.linspace(0, len(index.track_ids) - 1, MAX_ROWS).round().astype(np.int64))
    for number, name in enumerate(NAMES[: len(index.spaces)]):
        health = space_health(np.asarray(index.space_vectors(number)[rows]))
        if health.n_nan:
            what = f"{health.n_nan:,} vectors are not finite"
            do = f"delete runs/{index.spaces[number].run}/ and train it again"
            yield Finding("error", what, do, name)
        rank = health.effective_rank
        cosine = f"mean cosine {health.mean_cosine:.2f}"
        if health.is_collapsed:
            what = f"it has collapsed: {rank:.1f} dimensions in use, {cosine}"
            do = "train again with a lower rate, more tracks, or from the starter"
            yield Finding("error", what, do, name)
        elif health.hubness > MANY_HUBS:
            what = f"a few tracks are near to nearly all (hubness {health.hubness:.1f})"
            do = "try search.hub_correction = 0.5 in ponticello.toml"
            yield Finding("warning", what, do, name)
        what = f"{rank:.0f} dimensions in use, hubness {health.hubness:.1f}, {cosine}"
        yield Finding("ok", what, where=name)
    yield from _check_alignment(folder, index)


def _check_alignment(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    tracks = read_tracks(folder)
    texts = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    with_text = [track_id for track_id in index.track_ids if texts.get(track_id)][:MAX_TEXTS]
    if len(with_text) < 2:
        return
    run = folder.run(index.spaces[0].run)
    try:
        check_checksums(run)
        space_id(run)
    except (PonticelloError, OSError):
        return  # reported by `_check_models`
    queries = [texts[track_id] for track_id in with_text]
    text_vectors = HTCL.from_pretrained(run).encode_text(queries)
    rows = [index.rows[track_id] for track_id in with_text]
    track_vectors = np.asarray(index.space_vectors(0)[rows])
    near = alignment(track_vectors, text_vectors)
    apart = alignment(track_vectors, np.roll(text_vectors, 1, axis=0))
    if apart - near < LEAST_ALIGNED:
        what = f"texts lie no nearer to their own tracks ({near:.2f}) than to others ({apart:.2f})"
        do = "train semantic, on more texts, or from the starter"
        yield Finding("warning", what, do, NAMES[0])
    else:
        what = f"texts lie at {near:.2f} from their own tracks, {apart:.2f} from others"
        yield Finding("ok", what, where=NAMES[0])


def check_tracks(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the catalogue and the paths of its files."""
    if not folder.tracks.is_file():
        yield Finding("warning", "there are no tracks yet", "ponticello scan FOLDER")
        return
    tracks = read_tracks(folder)
    n_repeated = tracks.height - tracks[TRACK_ID].n_unique()
    if n_repeated:
        do = "ponticello import-tracks TABLE, with ids that are unique"
        yield Finding("error", f"{n_repeated:,} rows repeat a track_id", do)
    paths = tracks[PATH].drop_nulls()
    missing = [path for path in paths if not audio_path(folder, path).is_file()]
    if missing:
        what = (
            f"{len(missing):,} of {len(paths):,} audio files are not where they were, "
            f"such as {missing[0]!r}"
        )
        yield Finding("warning", what, "ponticello scan FOLDER, where they are now")
    what = (
        f"{tracks.height:,} tracks, {len(paths) - len(missing):,} with their audio file, "
        f"{tracks[TITLE].null_count():,} without a title"
    )
    yield Finding("ok", what)


def check_log(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the log for tracks that the catalogue does not have."""
    if not folder.interactions.is_file():
        what = "there is no listening history: stage two and recommendations need one"
        yield Finding("note", what, "ponticello import-history FILE")
        return
    events = scan_interactions(folder)
    catalog_ids = read_tracks(folder).lazy().select(TRACK_ID)
    with wrap_read_errors(folder.interactions):
        n_events = events.select(pl.len()).collect().item()
        n_lost = events.join(catalog_ids, on=TRACK_ID, how="anti").select(pl.len()).collect().item()
    if n_lost:
        what = f"{n_lost:,} of {n_events:,} events name tracks that are not in the catalogue"
        yield Finding("warning", what, "import those tracks again; until then they do not count")
    yield Finding("ok", f"{n_events:,} events")


def check_pairs(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the splits' hash, and pairs for missing or held-out tracks."""
    splits = load_splits(folder)  # DataError if changed since it was written
    if splits is not None:
        yield Finding("ok", "as they were written", where="splits.parquet")
    if not folder.pairs.is_file():
        if folder.interactions.is_file():
            yield Finding("note", "no pairs are mined yet", _MINE)
        return
    tracks = read_tracks(folder)
    for path in (folder.pairs, folder.validation_pairs):
        if path.is_file():
            yield from run_check(path.name, partial(_check_pair_ids, path, tracks))
    if splits is not None:
        try:
            check_no_leak(splits, tracks, read_stored_table(folder.pairs), None)
        except DataError as error:
            yield Finding("error", f"held-out tracks reach training: {error}", _MINE)


def _check_pair_ids(path: Path, tracks: pl.DataFrame) -> Iterator[Finding]:
    pairs = read_stored_table(path)
    track_ids = tracks[TRACK_ID].implode()
    is_known = pl.col(ANCHOR_ID).is_in(track_ids) & pl.col(POSITIVE_ID).is_in(track_ids)
    n_lost = pairs.filter(~is_known).height
    if n_lost:
        what = f"{n_lost:,} of {pairs.height:,} pairs name tracks that are not in the catalogue"
        yield Finding("warning", what, _MINE)
    yield Finding("ok", f"{pairs.height:,} pairs")


def check_frames(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks a sample of the prepared features, and whether tracks are not prepared."""
    frames = folder.frames_of(folder.config.front_end)
    where = f"{frames.relative_to(folder.root)}/"
    if not (frames / "manifest.parquet").is_file():
        if folder.tracks.is_file():
            yield Finding("warning", "nothing is prepared yet", _PREPARE, where)
        return
    store = FeatureStore(frames)
    sample = store.track_ids[:: max(1, len(store) // CHECKED_FRAMES)]
    damaged = [track_id for track_id in sample if not store.is_intact(track_id)]
    if damaged:
        n_damaged = f"{len(damaged):,} of {len(sample):,} tracks looked at"
        what = f"{n_damaged} are damaged, such as {damaged[0]!r}"
        yield Finding("error", what, f"delete {where} and run: {_PREPARE}", where)
    what = f"{len(store):,} tracks prepared, {len(sample):,} compared with their hash"
    yield Finding("ok", what, where=where)
    if folder.tracks.is_file():
        with_audio = set(read_tracks(folder).drop_nulls(PATH)[TRACK_ID])
        n_lacking = len(with_audio - set(store.track_ids))
        if n_lacking:
            what = f"{n_lacking:,} tracks with audio are not prepared"
            yield Finding("note", what, _PREPARE, where)


def check_left_over(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks for half-written files of processes that have ended."""
    paths = [path for path in folder.root.rglob(".*.tmp") if is_left_over(path)]
    if paths:
        size = _size(sum(map(_count_bytes, paths)))
        what = f"{len(paths):,} half-written files of processes that have ended, {size}"
        where = str(paths[0].relative_to(folder.root))
        yield Finding("note", what, "delete them: no command reads them", where)


def check_room(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the free disk space against that which `prepare` and `embed` would still take."""
    needed = bytes_to_write(folder)
    free = shutil.disk_usage(folder.root).free
    what = f"{_size(free)} free"
    if needed:
        what += f"; preparing and embedding the rest would take about {_size(needed)}"
    if free < needed:
        yield Finding("error", f"not enough room: {what}", "make room, or move the library")
    elif free < 2 * needed or free < 2**30:
        yield Finding("warning", f"little room: {what}", "make room before long work")
    else:
        yield Finding("ok", what)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MB"


def bytes_to_write(folder: LibraryPaths) -> int:
    """Estimates the bytes that `prepare` and `embed` would still write."""
    config = folder.config
    frames = folder.frames_of(config.front_end)
    prepared_ids: list[str] = []
    try:
        tracks = read_tracks(folder).drop_nulls(PATH)
        if (frames / "manifest.parquet").is_file():
            prepared_ids = list(FeatureStore(frames).track_ids)
    except (DataError, LibraryError):
        return 0  # there are no tracks, or the checks of those tables report it
    lacking = tracks.filter(~pl.col(TRACK_ID).is_in(prepared_ids))
    n_numbers = lacking.height * config.heads.embed_dim
    vectors = n_numbers * _BYTES_OF_A_NUMBER * _COPIES_OF_A_VECTOR
    if prepared_ids:
        n_written = sum(path.stat().st_size for path in frames.glob("*.npy"))
        return n_written * lacking.height // len(prepared_ids) + vectors
    if config.front_end != "logmel":
        return vectors
    mel = config.mel
    durations_s = lacking[DURATION_S].cast(pl.Float64).fill_null(mel.max_seconds)
    n_samples = durations_s.clip(0, mel.max_seconds).sum() * mel.sample_rate
    return int(n_samples / mel.hop_length) * mel.n_mels * _BYTES_OF_A_MEL + vectors
