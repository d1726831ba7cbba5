"""The tables: what they name that is not there, files that moved, and what a stopped process left
behind.

Training runs: those that stopped, those that have to be trained again, and what they leave lying
about.

The index and the spaces in it: whole, of today's models and tracks, and not collapsed.
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

_WORTH_TELLING = 100 * 2**20  # bytes


def check_runs(folder: LibraryPaths) -> Iterator[Finding]:
    """Every run in the library."""
    runs = sorted(path for path in (folder.root / "runs").glob("*") if path.is_dir())
    if not [run for run in runs if run.name != STARTER] and folder.tracks.is_file():
        what = "nothing is trained yet: answers come from the starter model, where there are any"
        yield Finding("note", what, "runs/", "ponticello train semantic")
    for run in runs:
        where = f"runs/{run.name}/"
        yield from run_check(
            where, partial(_check_run, run, where)
        )  # one that fails hides no other


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
        own = space_id(run)
    except (PonticelloError, OSError, ValueError) as error:
        what = f"its model cannot be read: {error}" if is_finished(run) else str(error)
        yield Finding("error", what, where, f"delete {where}, then {train}, and ponticello embed")
        return
    yield Finding("ok", f"finished, space {own}", where)
    stale = [
        path
        for path in (run / "vectors").glob("*")
        if path.is_dir() and path.name.split("-")[0] != own
    ]
    for path, what in [
        *((path, "vectors of a model it no longer is") for path in stale),
        *_checkpoints(run),
    ]:
        n_bytes = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        if n_bytes >= _WORTH_TELLING:
            told = f"{what}, {n_bytes / 2**20:,.0f} MB"
            yield Finding(
                "note", told, f"{where}{path.relative_to(run)}/", "delete it, if the room is wanted"
            )


def _checkpoints(run: Path) -> list[tuple[Path, str]]:
    place = run / "checkpoints"
    return [(place, "checkpoints of a run that has ended")] if place.is_dir() else []


def _why(note: Path) -> str:
    """What a note says of how it came about, in brackets; nothing where it is damaged: that it is
    there says enough.
    """
    try:
        return f" ({dict(json.loads(note.read_text(encoding='utf-8')))['why']})"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _stage(run: Path) -> str:
    """As its record says, or what it began with, which names the settings of its stage; else as it
    is called.
    """
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


MOST_ROWS = 5_000  # vectors looked at, evenly drawn
MOST_TEXTS = 200
LEAST_ALIGNED = (
    0.02  # by how much a text must lie nearer to its own track than to another, as squared distance
)
MANY_HUBS = 5.0  # skewness of how often tracks are near; music spaces lie at 1 to 3
NAMES = ("semantic space", "preference space")


def check_index(folder: LibraryPaths) -> Iterator[Finding]:
    """The live index against its hashes, the catalogue and the models, and its spaces. It is read
    once.
    """
    if not (folder.index / "CURRENT").is_file():
        if folder.tracks.is_file():
            yield Finding(
                "warning",
                "there is no index: nothing can be asked yet",
                "index/",
                "ponticello embed",
            )
        return
    index = open_index(
        folder.index, folder.config.search.backend
    )  # CheckpointError names what is damaged
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
    """The tracks of the index against the catalogue."""
    tracks = read_tracks(folder)
    known, held = set(tracks[TRACK_ID]), set(index.track_ids)
    if held - known:
        what = f"{len(held - known):,} tracks of the index are not in the catalogue any more"
        yield Finding(
            "note", what, "index/", "ponticello embed, once they are gone from what is prepared"
        )
    lacking = set(tracks.drop_nulls(PATH)[TRACK_ID]) - held
    if lacking:
        what = f"{len(lacking):,} tracks with audio cannot be found by it"
        yield Finding("warning", what, "index/", "ponticello prepare, then ponticello embed")


def _check_models(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    """The runs behind the index against what they were when it was made."""
    for space in index.spaces:
        try:
            check_checksums(folder.run(space.run))
            found = space_id(folder.run(space.run))
        except (PonticelloError, OSError) as error:
            what = f"run {space.run!r} behind it cannot be read ({error}): words and sounds cannot be asked"
            yield Finding("error", what, "index/", "ponticello train, then ponticello embed")
            continue
        if found != space.space_id:
            what = f"run {space.run!r} was trained anew: it is space {found}, the index holds {space.space_id}"
            yield Finding("error", what, "index/", "ponticello embed")


def _check_spaces(folder: LibraryPaths, index: EmbeddingIndex) -> Iterator[Finding]:
    """Collapse, hubs and alignment of each space."""
    if len(index.track_ids) < 2:
        return
    rows = np.unique(np.linspace(0, len(index.track_ids) - 1, MOST_ROWS).round().astype(np.int64))
    for number, name in enumerate(NAMES[: len(index.spaces)]):
        health = space_health(np.asarray(index.side(number)[rows]))
        run = index.spaces[number].run
        if health.n_nan:
            what = f"{health.n_nan:,} vectors are not finite"
            yield Finding("error", what, name, f"delete runs/{run}/ and train it again")
        if health.is_collapsed:
            what = f"it has collapsed: {health.effective_rank:.1f} dimensions in use, mean cosine {health.mean_cosine:.2f}"
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
    """Whether texts lie nearer to their own tracks than to others, in the semantic space."""
    tracks = read_tracks(folder)
    texts = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    told = [track_id for track_id in index.track_ids if texts.get(track_id)][:MOST_TEXTS]
    if len(told) < 2:
        return
    run = folder.run(index.spaces[0].run)
    try:
        check_checksums(run)
        space_id(run)
    except (PonticelloError, OSError):
        return  # `_check_models` has told
    vectors = HTCL.from_pretrained(run).encode_text([texts[each] for each in told])
    own = np.asarray(index.side(0)[[index.rows[each] for each in told]])
    near, apart = alignment(own, vectors), alignment(own, np.roll(vectors, 1, axis=0))
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
    """The catalogue, and whether its files are where it says."""
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
        what = f"{len(missing):,} of {len(paths):,} audio files are not where they were, such as {missing[0]!r}"
        yield Finding(
            "warning", what, "tracks.parquet", "ponticello scan FOLDER, where they are now"
        )
    untitled = tracks[TITLE].is_null().sum()
    line = f"{tracks.height:,} tracks, {len(paths) - len(missing):,} with their audio file, {untitled:,} without a title"
    yield Finding("ok", line, "tracks.parquet")


def check_log(folder: LibraryPaths) -> Iterator[Finding]:
    """The log, and whom it names that the catalogue does not know."""
    if not folder.interactions.is_file():
        what = "there is no listening history: stage two and recommendations need one"
        yield Finding("note", what, "interactions.parquet", "ponticello import-history FILE")
        return
    events = scan_interactions(folder)
    known = read_tracks(folder).lazy().select(TRACK_ID)
    with wrap_read_errors(folder.interactions):
        n_events = events.select(pl.len()).collect().item()
        n_lost = events.join(known, on=TRACK_ID, how="anti").select(pl.len()).collect().item()
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
    """The splits' hash, and pairs that name what is not there or held out."""
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
    for path in [path for path in (folder.pairs, folder.validation_pairs) if path.is_file()]:
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
    pairs, known = read_stored_table(path), tracks[TRACK_ID].implode()
    lost = pairs.filter(~(pl.col(ANCHOR_ID).is_in(known) & pl.col(POSITIVE_ID).is_in(known))).height
    if lost:
        what = f"{lost:,} of {pairs.height:,} pairs name tracks that are not in the catalogue"
        yield Finding("warning", what, path.name, "ponticello mine-pairs")
    yield Finding("ok", f"{pairs.height:,} pairs", path.name)


def check_frames(folder: LibraryPaths) -> Iterator[Finding]:
    """What is prepared, whether a sample of it is what was written, and what still has to be."""
    place = folder.frames_of(folder.config.front_end)
    where = f"{place.relative_to(folder.root)}/"
    if not (place / "manifest.parquet").is_file():
        if folder.tracks.is_file():
            yield Finding("warning", "nothing is prepared yet", where, "ponticello prepare")
        return
    store = FeatureStore(place)
    sample = store.track_ids[:: max(1, len(store) // CHECKED_FRAMES)]
    damaged = [track_id for track_id in sample if not store.is_intact(track_id)]
    if damaged:
        what = f"{len(damaged):,} of {len(sample):,} tracks looked at are damaged, such as {damaged[0]!r}"
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
    """Bytes that `prepare` and `embed` would still write: tracks lacking, by what those before them
    took.

    Where nothing is prepared yet, log-mels are counted from the tracks' durations, and other frames
    not at all.
    """
    if not folder.tracks.is_file():
        return 0
    try:
        tracks = read_tracks(folder).drop_nulls(PATH)
        prepared, written = _prepared(folder.frames_of(folder.config.front_end))
    except (DataError, LibraryError):
        return 0  # the checks of those tables have told
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


def _prepared(place: Path) -> tuple[set[str], int]:
    """The tracks whose frames lie at `place`, and the bytes they take."""
    if not (place / "manifest.parquet").is_file():
        return set(), 0
    return set(FeatureStore(place).track_ids), sum(
        path.stat().st_size for path in place.glob("*.npy")
    )


def check_left_over(folder: LibraryPaths) -> Iterator[Finding]:
    """Half-written files of processes that have ended."""
    found = [path for path in folder.root.rglob(".*.tmp") if is_left_over(path)]
    if found:
        n_bytes = sum(
            each.stat().st_size
            for path in found
            for each in (path.rglob("*") if path.is_dir() else [path])
        )
        what = f"{len(found):,} half-written files of processes that have ended, {n_bytes / 2**20:,.0f} MB"
        yield Finding(
            "note", what, str(found[0].relative_to(folder.root)), "delete them: nothing reads them"
        )
