"""The joint measurement: meaning and taste of the same vectors, on the same held-out tracks, in one list of figures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ARTIST, PLAYED_AT, TRACK_ID, USER_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.listeners import USER_PREFIX
from ponticello.data.pairs import read_pairs
from ponticello.data.splits import Splits, check_no_leak, load_splits, train_events
from ponticello.data.store import MelStore
from ponticello.data.text import track_texts
from ponticello.errors import DataError, LibraryError
from ponticello.evaluate.baselines import mel_statistics, popularity, random_vectors
from ponticello.evaluate.metrics import bootstrap_mean, paired_difference, rank_metrics, retrieval_ranks
from ponticello.evaluate.preference import Task, make_tasks, scores_at_random, scores_by_vectors
from ponticello.evaluate.semantic import linear_probe
from ponticello.library import Folder
from ponticello.model.htcl import HTCL
from ponticello.search.embed import embed_library

STAGE_ONE, STAGE_TWO = "stage one", "stage two"


@dataclass(frozen=True)
class Figure:
    """One number of the table with its 95 % bootstrap interval; n = queries, listeners or labels it is a mean over."""

    side: str  # meaning | taste
    task: str
    metric: str
    method: str
    value: float
    low: float
    high: float
    n: int


@dataclass
class Evaluation:
    """All figures, the paired differences stage two minus stage one, and what a reader must know beside them."""

    figures: list[Figure] = field(default_factory=list)
    differences: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Materials:
    """What every part of the measurement reads."""

    config: Config
    tracks: pl.DataFrame  # with a prepared mel, in order of id
    ids: list[str]
    roles: list[str]
    texts: list[str]
    vectors: dict[str, np.ndarray]  # a method's (n, d) unit vectors, row i for ids[i]
    models: dict[str, HTCL]


def evaluate_library(
    folder: Folder, runs: dict[str, str], label: str | None, on_progress: Callable[[str], None] | None = None
) -> Evaluation:
    """Measures the runs named in `runs` ({"stage one": run, "stage two": run}, either may be left out).

    label: the column a linear probe reads; None = no probe. Uses test tracks and the test window only; refuses, naming
    rows, if something held out stands in the training pairs.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError("nothing is held out yet; run: ponticello pairs")
    interactions = read_interactions(folder) if folder.interactions.is_file() else None
    if folder.pairs.is_file():
        events = None if interactions is None else train_events(interactions, splits)
        check_no_leak(splits, read_tracks(folder), read_pairs(folder), events)
    evaluation = Evaluation()
    say = on_progress or (lambda _: None)
    materials = _gather(folder, runs, splits, say)
    say("meaning: retrieval")
    _measure_retrieval(evaluation, materials)
    if label is not None:
        say("meaning: probe")
        _measure_probe(evaluation, materials, label)
    if interactions is None:
        evaluation.notes.append("No listening has been imported: the taste side is not measured.")
    else:
        say("taste: ranking")
        _measure_taste(evaluation, interactions, materials, splits)
    return evaluation


def _gather(folder: Folder, runs: dict[str, str], splits: Splits, say: Callable[[str], None]) -> _Materials:
    store = MelStore(folder.mels)
    tracks = read_tracks(folder).filter(pl.col(TRACK_ID).is_in(store.track_ids)).sort(TRACK_ID)
    ids = tracks[TRACK_ID].to_list()
    roles = [splits.roles.get(track_id, "new") for track_id in ids]
    training = [track_id for track_id, role in zip(ids, roles, strict=True) if role == "train"]
    vectors = {
        "random": random_vectors(len(ids), 64, folder.config.evaluate.seed),
        "mel statistics": mel_statistics(store, ids, training),
    }
    models = {}
    for method, run in runs.items():
        say(f"vectors of {method}")
        found, _ = embed_library(folder.run(run), store)
        rows = {track_id: row for row, track_id in enumerate(found.track_ids)}
        vectors[method] = found.matrix[[rows[track_id] for track_id in ids]]
        models[method] = HTCL.from_pretrained(folder.run(run))
    return _Materials(folder.config, tracks, ids, roles, track_texts(tracks), vectors, models)


def _add(
    evaluation: Evaluation,
    where: tuple[str, str, str],
    per_query: dict[str, np.ndarray],
    clusters: np.ndarray | None,
    config: Config,
) -> None:
    """One figure a method, and the paired difference of the two stages where both were measured."""
    options = {"rounds": config.evaluate.bootstrap_rounds, "seed": config.evaluate.seed}
    for method, values in per_query.items():
        n = int(np.isfinite(values).sum())
        evaluation.figures.append(Figure(*where, method, *bootstrap_mean(values, clusters, **options), n))
    if {STAGE_ONE, STAGE_TWO} <= per_query.keys():
        one, two = per_query[STAGE_ONE], per_query[STAGE_TWO]
        n = int((np.isfinite(one) & np.isfinite(two)).sum())
        change = paired_difference(two, one, clusters, **options)
        evaluation.differences.append(Figure(*where, "stage two - stage one", *change, n))


def _measure_retrieval(evaluation: Evaluation, materials: _Materials) -> None:
    """Text to audio and back, among the test tracks that have a text; queries of one artist are drawn together."""
    rows = [row for row, role in enumerate(materials.roles) if role == "test" and materials.texts[row]]
    if len(rows) < 2:
        evaluation.notes.append("Fewer than two test tracks have a text: retrieval is not measured.")
        return
    target = np.arange(len(rows))
    artists = materials.tracks[ARTIST].fill_null(materials.tracks[TRACK_ID])[rows].to_list()
    clusters = np.unique(artists, return_inverse=True)[1]
    ranks: dict[str, dict[str, np.ndarray]] = {"text to audio": {}, "audio to text": {}}
    for method, model in materials.models.items():
        text, audio = model.encode_text([materials.texts[row] for row in rows]), materials.vectors[method][rows]
        ranks["text to audio"][method] = retrieval_ranks(text, audio, target)
        ranks["audio to text"][method] = retrieval_ranks(audio, text, target)
    for task, by_method in ranks.items():
        for k in (1, 5, 10):
            hits = {method: (found <= k).astype(np.float64) for method, found in by_method.items()}
            chance = {"random": np.full(len(rows), min(k / len(rows), 1.0))}
            _add(evaluation, ("meaning", task, f"R@{k}"), {**chance, **hits}, clusters, materials.config)
        for method, found in {"random": np.full(len(rows), (len(rows) + 1) / 2), **by_method}.items():
            low, high = _median_interval(found, materials.config)
            median = float(np.median(found))
            evaluation.figures.append(Figure("meaning", task, "median rank", method, median, low, high, len(rows)))


def _median_interval(ranks: np.ndarray, config: Config) -> tuple[float, float]:
    generator = np.random.default_rng(config.evaluate.seed)
    draws = generator.integers(len(ranks), size=(config.evaluate.bootstrap_rounds, len(ranks)))
    low, high = np.quantile(np.median(ranks[draws], axis=1), [0.025, 0.975])
    return float(low), float(high)


def _measure_probe(evaluation: Evaluation, materials: _Materials, label: str) -> None:
    """A straight line from every method's vectors to the label column."""
    if label not in materials.tracks.columns:
        raise DataError(f"tracks have no column {label!r} to probe; found {', '.join(materials.tracks.columns)}")
    labels: list[Any] = materials.tracks[label].to_list()
    probes = {}
    for method, vectors in materials.vectors.items():
        try:
            probes[method] = linear_probe(vectors, labels, materials.roles)
        except DataError as error:
            evaluation.notes.append(f"The probe on {label!r} is not measured: {error}.")
            return
    first = next(iter(probes.values()))
    per_query = {method: probe.per_query for method, probe in probes.items()}
    _add(evaluation, ("meaning", f"probe: {label}", first.metric), per_query, None, materials.config)
    evaluation.notes.append(
        f"Probe on {label!r}: logistic regression on {first.n_train} training tracks, {first.n_classes} labels, "
        "strength chosen on validation tracks."
    )


def _measure_taste(evaluation: Evaluation, interactions: pl.DataFrame, materials: _Materials, splits: Splits) -> None:
    """Full ranking for warm and strictly cold tracks."""
    config = materials.config
    simulated = interactions[USER_ID].str.starts_with(USER_PREFIX).any()
    if simulated:
        evaluation.notes.append(
            "SIMULATED LISTENERS: the taste figures show that planted taste is found, nothing else."
        )
    past = interactions.filter(pl.col(PLAYED_AT) < splits.validation_until)
    trained = past.filter(pl.col(TRACK_ID).is_in([t for t, role in splits.roles.items() if role == "train"]))
    for task in make_tasks(interactions, splits, set(materials.ids), config):
        if not task.users:
            evaluation.notes.append(f"Taste, {task.name}: no listener has anything to find in the test window.")
            continue
        for metric, by_method in _rank(task, materials, trained).items():
            name = f"{task.name} tracks" + (", SIMULATED listeners" if simulated else "")
            _add(evaluation, ("taste", name, metric), by_method, None, config)
        evaluation.notes.append(
            f"Taste, {task.name}: {len(task.users)} listeners, {len(task.candidates)} candidates, all of them ranked."
        )


def _rank(task: Task, materials: _Materials, trained: pl.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """{metric: {method: one number a listener}}."""
    config = materials.config
    scores = {
        "random": scores_at_random(task, config.evaluate.seed),
        "popularity": np.tile(popularity(trained, task.candidates), (len(task.users), 1)),
    }
    for method, vectors in materials.vectors.items():
        if method != "random":
            by_id = dict(zip(materials.ids, vectors, strict=True))
            scores[method] = scores_by_vectors(task, by_id, config.search.agreeing_seeds)
    k = config.evaluate.k
    measured = {m: rank_metrics(found, task.relevant, k, task.allowed) for m, found in scores.items()}
    names = {f"recall@{k}": f"Recall@{k}", f"ndcg@{k}": f"NDCG@{k}", "mrr": "MRR", "auc": "AUC"}
    return {shown: {method: figures[name] for method, figures in measured.items()} for name, shown in names.items()}
