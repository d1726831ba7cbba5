"""The joint measurement: meaning and taste of the same vectors, on the same held-out tracks, in one list of figures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ARTIST, TRACK_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.pairs import read_pairs
from ponticello.data.splits import Splits, check_no_leak, load_splits
from ponticello.data.store import MelStore
from ponticello.data.text import track_texts
from ponticello.errors import DataError, LibraryError
from ponticello.evaluate.baselines import mel_statistics, random_vectors, unit
from ponticello.evaluate.figures import STAGE_ONE, STAGE_TWO, Evaluation, Figure, add_figures
from ponticello.evaluate.integrity import alignment, modality_gap, most_moved, neighbour_overlap, space_health
from ponticello.evaluate.metrics import retrieval_ranks
from ponticello.evaluate.semantic import linear_probe
from ponticello.evaluate.taste import measure_taste
from ponticello.library import Folder
from ponticello.model.htcl import HTCL
from ponticello.search.embed import embed_library

NEIGHBOURS = 10


@dataclass(frozen=True)
class _Materials:
    """What every part of the measurement reads."""

    config: Config
    tracks: pl.DataFrame  # with a prepared mel, in order of id
    ids: list[str]
    roles: list[str]
    texts: list[str]
    vectors: dict[str, np.ndarray]  # a method's (n, d) unit vectors, row i for ids[i]
    text_vectors: np.ndarray  # (n, D) unit vectors of the pretrained text encoder; 0 for a track without text
    models: dict[str, HTCL]

    @property
    def known(self) -> dict[str, np.ndarray]:
        """The methods that know a track by its content, the two stages last."""
        stages = {method: self.vectors[method] for method in (STAGE_ONE, STAGE_TWO) if method in self.vectors}
        return {"mel statistics": self.vectors["mel statistics"], "text only": self.text_vectors, **stages}


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
        check_no_leak(splits, read_tracks(folder), read_pairs(folder), None)
    evaluation = Evaluation()
    say = on_progress or (lambda _: None)
    materials = _gather(folder, runs, splits, say)
    say("meaning: retrieval")
    _measure_retrieval(evaluation, materials)
    if label is not None:
        say("meaning: probe")
        _measure_probe(evaluation, materials, label)
    say("integrity")
    _measure_integrity(evaluation, materials)
    if interactions is None:
        evaluation.notes.append("No listening has been imported: the taste side is not measured.")
    else:
        say("taste: ranking")
        vectors = {name: dict(zip(materials.ids, side, strict=True)) for name, side in materials.known.items()}
        measure_taste(evaluation, interactions, splits, materials.tracks, vectors, materials.config)
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
    say("text vectors")
    texts = track_texts(tracks)
    states = (
        HTCL.from_settings(folder.config).encode_text_states(texts) * np.array([bool(text) for text in texts])[:, None]
    )
    return _Materials(folder.config, tracks, ids, roles, texts, vectors, unit(states), models)


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
            add_figures(evaluation, ("meaning", task, f"R@{k}"), {**chance, **hits}, clusters, materials.config)
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
    add_figures(evaluation, ("meaning", f"probe: {label}", first.metric), per_query, None, materials.config)
    evaluation.notes.append(
        f"Probe on {label!r}: logistic regression on {first.n_train} training tracks, {first.n_classes} labels, "
        "strength chosen on validation tracks."
    )


def _measure_integrity(evaluation: Evaluation, materials: _Materials) -> None:
    """What became of the space: its health under both stages, and how far stage two moved each track's neighbours."""
    with_text = [row for row, text in enumerate(materials.texts) if text]
    for method, model in materials.models.items():
        vectors = materials.vectors[method]
        health = space_health(vectors)
        shown = {
            "vectors not finite": float(health.n_nan),
            "effective rank": health.effective_rank,
            "mean cosine": health.mean_cosine,
            "uniformity": health.uniformity,
            "hubness": health.hubness,
        }
        if with_text:
            text = model.encode_text([materials.texts[row] for row in with_text])
            shown["audio-text alignment"] = alignment(vectors[with_text], text)
            shown["modality gap"] = modality_gap(vectors[with_text], text)
        for metric, value in shown.items():
            figure = Figure("integrity", "the space", metric, method, value, math.nan, math.nan, len(vectors))
            evaluation.figures.append(figure)
        if health.is_collapsed:
            evaluation.notes.append(f"COLLAPSED: the vectors of {method} hardly differ; do not serve them.")
    if {STAGE_ONE, STAGE_TWO} <= materials.models.keys() and len(materials.ids) > NEIGHBOURS:
        one, two = materials.vectors[STAGE_ONE], materials.vectors[STAGE_TWO]
        kept = {STAGE_TWO: neighbour_overlap(one, two, NEIGHBOURS)}
        where = ("integrity", "neighbours kept from stage one", f"overlap@{NEIGHBOURS}")
        add_figures(evaluation, where, kept, None, materials.config)
        moved = ", ".join(materials.ids[row] for row in most_moved(one, two, NEIGHBOURS)[:5])
        evaluation.notes.append(f"Stage two moved these tracks most: {moved}.")
