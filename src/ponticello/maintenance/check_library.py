"""Checks of a library: its tables, prepared features, training runs and index.

Missing rows and files, damage, interrupted or outdated runs, an index that does not fit the models
or the catalogue, and collapsed vector spaces.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

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
from ponticello.train.runs import RUN_FILE, STARTER, finished_run, is_finished, read_started

_MIN_REPORTED_BYTES = 100 * 2**20


def check_runs(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks every training run."""
    runs = sorted(path for path in (folder.root / "runs").glob("*") if path.is_dir())
    is_trained = any(run.name != STARTER for run in runs)
    if not is_trained and folder.tracks.is_file():
        what = "nothing is trained yet: answers come from the starter model, where there are any"
        yield Finding("note", what, "runs/", "ponticello train semantic")
    for run in runs:
        where = f"runs/{run.name}/"
        yield from run_check(where, partial(_check_run, run, where))


def _check_run(run: Path, where: str) -> Iterator[Finding]:
    if (run / RETRAIN_FILE).is_file():
        what = f"it learned from a listener who has been forgotten since{_why(run / RETRAIN_FILE)}"
        yield Finding("warning", what, where, f"delete {where}, train it again, and embed")
    train = f"ponticello train {_stage(run)} --name {run.name}"
    try:
        if not is_finished(run):
            read_started(run)
            note = "training was begun and has not ended"
            yield Finding("note", note, where, f"{train}, which goes on; or delete {where}")
            return
        finished_run(run, _stage(run), None)
        check_checksums(run)
        space = space_id(run)
    except (PonticelloError, OSError, ValueError) as error:
        what = f"its model cannot be read: {error}" if is_finished(run) else str(error)
        yield Finding("error", what, where, f"delete {where}, then {train}, and ponticello embed")
        return
    yield Finding("ok", f"finished, space {space}", where)
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
            name = f"{where}{path.relative_to(run)}/"
            yield Finding("note", size, name, "delete it, if the room is wanted")


def _count_bytes(path: Path) -> int:
    """Returns the size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _why(note: Path) -> str:
    """Returns the reason in a retraining note, in brackets; "" if the note is damaged."""
    try:
        return f" ({dict(json.loads(note.read_text(encoding='utf-8')))['why']})"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _stage(run: Path) -> str:
    """Returns the stage of a run: from its record, its start settings, or its name."""
    try:
        stage = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["stage"]
    except (OSError, ValueError, LookupError, TypeError):
        stage = None
    if stage in ("semantic", "preference"):
        return str(stage)
    try:
        begun = read_started(run)
    except CheckpointError:
        begun = {}
    is_preference = "preference" in begun if begun else run.name.startswith("preference")
    return "preference" if is_preference else "semantic"


MAX_ROWS = 5_000  # vectors that are examined, evenly spaced
MAX_TEXTS = 200
# squared distance by which a text must be closer to its own track than to others
LEAST_ALIGNED = 0.02
MANY_HUBS = 5.0  # skewness of how often tracks are neighbours; music spaces have 1 to 3
NAMES = ("semantic space", "preference space")


def check_index(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the live index against its hashes, the catalogue and the models, and its spaces."""
    if not (folder.index / "CURRENT").is_file():
        if folder.tracks.is_file():
            yield Finding(
                "warning",
                "there is no index: nothing can be asked yet",
                "index/",
                "ponticello embed",
            )
        return
    # CheckpointError names the damaged file.
    index = open_index(folder.index, folder.config.search.backend)
    taste = "meaning and taste" if index.has_preference else "meaning only"
    yield Finding(
        "ok", f"{len(index.track_ids):,} tracks, {taste}, every file as it was written", "index/"
    )
    for where, check in (
        ("index/", _check_tracks),
        ("index/", _check_models),
        ("spaces", _check_spaces),
    ):
        yield from run_check(where, partial(check, folder, index))


def _check_tracks(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    """Compares the tracks of the index with the catalogue."""
    tracks = read_tracks(folder)
    indexed_ids = set(index.track_ids)
    deleted_ids = indexed_ids - set(tracks[TRACK_ID])
    if deleted_ids:
        what = f"{len(deleted_ids):,} tracks of the index are not in the catalogue any more"
        yield Finding(
            "note", what, "index/", "ponticello embed, once they are gone from what is prepared"
        )
    missing_ids = set(tracks.drop_nulls(PATH)[TRACK_ID]) - indexed_ids
    if missing_ids:
        what = f"{len(missing_ids):,} tracks with audio are not in it"
        yield Finding("warning", what, "index/", "ponticello prepare, then ponticello embed")


def _check_models(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    """Compares the runs behind the index with those it was made from."""
    for space in index.spaces:
        try:
            check_checksums(folder.run(space.run))
            current_id = space_id(folder.run(space.run))
        except (PonticelloError, OSError) as error:
            what = (
                f"run {space.run!r} behind it cannot be read ({error}): "
                "words and sounds cannot be searched"
            )
            yield Finding("error", what, "index/", "ponticello train, then ponticello embed")
            continue
        if current_id != space.space_id:
            what = (
                f"run {space.run!r} was trained anew: it is space {current_id}, "
                f"the index holds {space.space_id}"
            )
            yield Finding("error", what, "index/", "ponticello embed")


def _check_spaces(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    """Checks each space for collapse, hubs and alignment."""
    if len(index.track_ids) < 2:
        return
    rows = np.unique(np.linspace(0, len(index.track_ids) - 1, MAX_ROWS).round().astype(np.int64))
    for number, name in enumerate(NAMES[: len(index.spaces)]):
        health = space_health(np.asarray(index.space_vectors(number)[rows]))
        run = index.spaces[number].run
        if health.n_nan:
            what = f"{health.n_nan:,} vectors are not finite"
            yield Finding("error", what, name, f"delete runs/{run}/ and train it again")
        if health.is_collapsed:
            what = (
                f"it has collapsed: {health.effective_rank:.1f} dimensions in use, "
                f"mean cosine {health.mean_cosine:.2f}"
            )
            yield Finding(
                "error",
                what,
                name,
                "train again with a lower rate, more tracks, or from the starter",
            )
        elif health.hubness > MANY_HUBS:
            what = f"a few tracks are near to nearly all (hubness {health.hubness:.1f})"
            yield Finding(
                "warning", what, name, "try search.hub_correction = 0.5 in ponticello.toml"
            )
        line = f"{health.effective_rank:.0f} dimensions in use, hubness {health.hubness:.1f}"
        yield Finding("ok", f"{line}, mean cosine {health.mean_cosine:.2f}", name)
    yield from _check_alignment(folder, index)


def _check_alignment(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    """Checks whether texts are closer to their own tracks than to others, in the semantic space."""
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
        yield Finding(
            "warning", what, NAMES[0], "train semantic, on more texts, or from the starter"
        )
    else:
        yield Finding(
            "ok",
            f"texts lie at {near:.2f} from their own tracks, {apart:.2f} from others",
            NAMES[0],
        )


_BYTES_OF_A_MEL = 2  # float16
_BYTES_OF_A_NUMBER = 4  # float32
_COPIES_OF_A_VECTOR = 4  # two spaces, each kept with its run and in the index
CHECKED_FRAMES = 200  # tracks whose prepared bytes are compared with their hash, evenly drawn


def check_tracks(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the catalogue and the paths of its files."""
    if not folder.tracks.is_file():
        yield Finding(
            "warning", "there are no tracks yet", "tracks.parquet", "ponticello scan FOLDER"
        )
        return
    tracks = read_tracks(folder)
    twice = tracks.height - tracks[TRACK_ID].n_unique()
    if twice:
        what = f"{twice:,} rows repeat a track_id"
        yield Finding(
            "error",
            what,
            "tracks.parquet",
            "ponticello import-tracks TABLE, with ids that are unique",
        )
    paths = tracks[PATH].drop_nulls()
    missing = [path for path in paths if not audio_path(folder, path).is_file()]
    if missing:
        what = (
            f"{len(missing):,} of {len(paths):,} audio files are not where they were, "
            f"such as {missing[0]!r}"
        )
        yield Finding(
            "warning", what, "tracks.parquet", "ponticello scan FOLDER, where they are now"
        )
    untitled = tracks[TITLE].is_null().sum()
    line = (
        f"{tracks.height:,} tracks, {len(paths) - len(missing):,} with their audio file, "
        f"{untitled:,} without a title"
    )
    yield Finding("ok", line, "tracks.parquet")


def check_log(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the log for tracks that the catalogue does not have."""
    if not folder.interactions.is_file():
        what = "there is no listening history: stage two and recommendations need one"
        yield Finding("note", what, "interactions.parquet", "ponticello import-history FILE")
        return
    events = scan_interactions(folder)
    catalog_ids = read_tracks(folder).lazy().select(TRACK_ID)
    with wrap_read_errors(folder.interactions):
        n_events = events.select(pl.len()).collect().item()
        n_lost = events.join(catalog_ids, on=TRACK_ID, how="anti").select(pl.len()).collect().item()
    if n_lost:
        what = f"{n_lost:,} of {n_events:,} events name tracks that are not in the catalogue"
        yield Finding(
            "warning",
            what,
            "interactions.parquet",
            "import those tracks again; until then they do not count",
        )
    yield Finding("ok", f"{n_events:,} events", "interactions.parquet")


def check_pairs(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks the splits' hash, and pairs for missing or held-out tracks."""
    splits = load_splits(folder)  # DataError if changed since it was written
    if splits is not None:
        yield Finding("ok", "as they were written", "splits.parquet")
    if not folder.pairs.is_file():
        if folder.interactions.is_file():
            yield Finding(
                "note", "no pairs are mined yet", "pairs.parquet", "ponticello mine-pairs"
            )
        return
    tracks = read_tracks(folder)
    for path in (folder.pairs, folder.validation_pairs):
        if path.is_file():
            yield from run_check(path.name, partial(_known_pairs, path, tracks))
    if splits is not None:
        try:
            check_no_leak(splits, tracks, read_stored_table(folder.pairs), None)
        except DataError as error:
            yield Finding(
                "error",
                f"held-out tracks reach training: {error}",
                "pairs.parquet",
                "ponticello mine-pairs",
            )


def _known_pairs(path: Path, tracks: pl.DataFrame) -> Iterator[Finding]:
    pairs = read_stored_table(path)
    track_ids = tracks[TRACK_ID].implode()
    is_known = pl.col(ANCHOR_ID).is_in(track_ids) & pl.col(POSITIVE_ID).is_in(track_ids)
    n_lost = pairs.filter(~is_known).height
    if n_lost:
        what = f"{n_lost:,} of {pairs.height:,} pairs name tracks that are not in the catalogue"
        yield Finding("warning", what, path.name, "ponticello mine-pairs")
    yield Finding("ok", f"{pairs.height:,} pairs", path.name)


def check_frames(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks a sample of the prepared features, and whether tracks are not prepared."""
    frames = folder.frames_of(folder.config.front_end)
    where = f"{frames.relative_to(folder.root)}/"
    if not (frames / "manifest.parquet").is_file():
        if folder.tracks.is_file():
            yield Finding("warning", "nothing is prepared yet", where, "ponticello prepare")
        return
    store = FeatureStore(frames)
    sample = store.track_ids[:: max(1, len(store) // CHECKED_FRAMES)]
    damaged = [track_id for track_id in sample if not store.is_intact(track_id)]
    if damaged:
        what = (
            f"{len(damaged):,} of {len(sample):,} tracks looked at are damaged, "
            f"such as {damaged[0]!r}"
        )
        yield Finding("error", what, where, f"delete {where} and run: ponticello prepare")
    yield Finding(
        "ok", f"{len(store):,} tracks prepared, {len(sample):,} compared with their hash", where
    )
    with_audio = (
        set(read_tracks(folder).drop_nulls(PATH)[TRACK_ID]) if folder.tracks.is_file() else set()
    )
    lacking = with_audio - set(store.track_ids)
    if lacking:
        yield Finding(
            "note",
            f"{len(lacking):,} tracks with audio are not prepared",
            where,
            "ponticello prepare",
        )


def bytes_to_write(folder: LibraryPaths) -> int:
    """Returns the bytes that `prepare` and `embed` would still write.

    Estimated from the prepared tracks; without any, log-mels from the durations, and other features
    as 0.
    """
    if not folder.tracks.is_file():
        return 0
    try:
        tracks = read_tracks(folder).drop_nulls(PATH)
        prepared, written = _prepared(folder.frames_of(folder.config.front_end))
    except (DataError, LibraryError):
        return 0  # reported by the checks of those tables
    lacking = tracks.filter(~pl.col(TRACK_ID).is_in(list(prepared)))
    vectors = (
        lacking.height * folder.config.heads.embed_dim * _BYTES_OF_A_NUMBER * _COPIES_OF_A_VECTOR
    )
    if prepared:
        return written * lacking.height // len(prepared) + vectors
    if folder.config.front_end != "logmel":
        return vectors
    mel = folder.config.mel
    seconds = (
        lacking[DURATION_S]
        .cast(pl.Float64)
        .fill_null(mel.max_seconds)
        .clip(0, mel.max_seconds)
        .sum()
    )
    return int(seconds * mel.sample_rate / mel.hop_length) * mel.n_mels * _BYTES_OF_A_MEL + vectors


def _prepared(frames: Path) -> tuple[set[str], int]:
    """Returns the ids of the tracks prepared in folder `frames`, and their bytes."""
    if not (frames / "manifest.parquet").is_file():
        return set(), 0
    n_bytes = sum(path.stat().st_size for path in frames.glob("*.npy"))
    return set(FeatureStore(frames).track_ids), n_bytes


def check_left_over(folder: LibraryPaths) -> Iterator[Finding]:
    """Checks for half-written files of processes that have ended."""
    paths = [path for path in folder.root.rglob(".*.tmp") if is_left_over(path)]
    if paths:
        n_bytes = sum(_count_bytes(path) for path in paths)
        what = (
            f"{len(paths):,} half-written files of processes that have ended, "
            f"{n_bytes / 2**20:,.0f} MB"
        )
        where = str(paths[0].relative_to(folder.root))
        yield Finding("note", what, where, "delete them: no command reads them")
