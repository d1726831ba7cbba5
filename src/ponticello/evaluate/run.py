"""Evaluates a library: measures every method on held-out data and writes the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.checks import require_list
from ponticello.datasets.simulated import USER_PREFIX
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.evaluate.labels import (
    LABEL_COLUMNS,
    ensemble,
    known_labels,
    probe_scores,
    prompts,
    zero_shot_scores,
)
from ponticello.evaluate.recommendation import EvaluationListening, measure_preference
from ponticello.evaluate.report.tables import METHOD_NAMES, display_name
from ponticello.evaluate.report.write import write_report
from ponticello.evaluate.results import (
    FUSED,
    STAGE_ONE,
    STAGE_TWO,
    Evaluation,
    EvaluationInfo,
    Measurements,
    ScalarMetric,
    Scores,
    Summary,
    pick,
)
from ponticello.evaluate.retrieval import music_to_music_scores, retrieval_scores
from ponticello.evaluate.summary import summarise
from ponticello.evaluate.tasks import deduplicate_task, next_tracks
from ponticello.evaluate.tradeoff import measure_tradeoff
from ponticello.evaluate.vectors import MUSICNN, TEXT, EvaluationVectors, load_vectors
from ponticello.evaluate.words import measure_words
from ponticello.features.fingerprint import RECORDING, find_recordings
from ponticello.listening.log import read_interactions
from ponticello.metrics.embedding_space import (
    alignment,
    largest_shifts,
    modality_gap,
    neighbour_overlap,
    space_health,
)
from ponticello.model.saving import space_id
from ponticello.pairs.mine import find_duplicates, mine_test_pairs, read_pairs
from ponticello.search.generations import load_recordings
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import Splits, describe, splits_sha256
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ARTIST, MACHINE_TAGS, TITLE, TRACK_ID, USER_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.names import artist_groups, lead_artists
from ponticello.tracks.text import TEMPLATE
from ponticello.train.dataset import require_splits
from ponticello.train.runs import is_finished, seed_run

NEIGHBOURS = 10  # of a track; measures how stage two changes them
N_SHIFTED = 5  # tracks with the most changed neighbours that a note names
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class MethodsToCompare:
    """The methods of one evaluation.

    runs: run name by method; files: file of vectors by method. labels: columns that are read off
    the vectors; None = those of `LABEL_COLUMNS` that the library has.
    """

    runs: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    labels: Sequence[str] | None = None


def evaluate_library(
    folder: LibraryPaths,
    semantic: str = "semantic",
    preference: str = "preference",
    *,
    labels: Sequence[str] | None = None,
    vectors: Mapping[str, str | Path] | None = None,
    n_seeds: int = 1,
    command: str = "Library.evaluate",
    on_step: OnStep = lambda _: None,
) -> Evaluation:
    """Measures both stages beside the baselines on held-out tracks and events; writes the report.

    semantic, preference: run names; a run that is not finished is left out. labels: columns of the
    catalogue to read off the vectors; None = genres, tags and machine tags, if any.
    vectors: files of another encoder's vectors (.npz or .parquet) by method name.
    n_seeds: number of seeds that were trained; the i-th reads the runs that `train --seeds` named.
    command: shown in the report. on_step: called with one line per step.

    Holds the library's lock. LibraryError if it is locked, no track is held out, or a seed's run is
    missing; ConfigError if a name in `vectors` is that of another method; DataError if a held-out
    track is in the training pairs or has a copy in training.
    """
    files = {name: Path(path) for name, path in (vectors or {}).items()}
    for name in files.keys() & METHOD_NAMES.keys():
        raise ConfigError(
            f"{files[name]} has the name of a method of the evaluation, {name!r}; "
            "give it another one: --vectors NAME=FILE"
        )
    if labels is not None:
        require_list(labels, "labels")
    runs_by_seed = _runs_by_seed(folder, semantic, preference, n_seeds, on_step)
    methods_by_seed = [MethodsToCompare(runs, files, labels) for runs in runs_by_seed]
    with folder.lock():
        summary, measured = measure_seeds(folder, methods_by_seed, command, on_step)
        return Evaluation(summary, write_report(folder.report, summary, measured))


def _runs_by_seed(
    folder: LibraryPaths, semantic: str, preference: str, n_seeds: int, on_step: OnStep
) -> list[dict[str, str]]:
    runs = {}
    for method, run in ((STAGE_ONE, semantic), (STAGE_TWO, preference)):
        if is_finished(folder.run(run)):
            runs[method] = run
        else:
            on_step(f"{display_name(method)} is left out: run {run!r} is not finished")
    runs_by_seed = []
    for number in range(1, n_seeds + 1):
        seed_runs = {}
        for method, run in runs.items():
            seed_runs[method] = seed_run(run, number)
            if not is_finished(folder.run(seed_runs[method])):
                stage = "semantic" if method == STAGE_ONE else "preference"
                raise LibraryError(
                    f"run {seed_runs[method]!r} is not finished",
                    remedy=f"ponticello train {stage} --seeds {n_seeds}",
                    library=folder.root,
                )
        runs_by_seed.append(seed_runs)
    return runs_by_seed


def measure_seeds(
    folder: LibraryPaths,
    methods_by_seed: Sequence[MethodsToCompare],
    command: str,
    on_step: OnStep = lambda _: None,
) -> tuple[Summary, list[Measurements]]:
    """Measures each seed's runs on the same held-out data and summarises them.

    The baselines of the i-th seed are drawn with seed `evaluate.seed` + i. command, on_step: as in
    `evaluate_library`.
    """
    splits = require_splits(folder)
    first_seed = folder.config.evaluate.seed
    seeds = tuple(range(first_seed, first_seed + len(methods_by_seed)))
    measured = []
    for number, methods in enumerate(methods_by_seed):
        prefix = f"seed {number + 1} of {len(seeds)}, " if len(seeds) > 1 else ""

        def on_seed_step(step: str, prefix: str = prefix) -> None:
            on_step(f"measuring {prefix}{step}")

        measured.append(measure_library(folder, methods, seeds[number], on_seed_step))
    info = _evaluation_info(folder, methods_by_seed, splits, seeds, command)
    return summarise(measured, info, folder.config), measured


def _evaluation_info(
    folder: LibraryPaths,
    methods_by_seed: Sequence[MethodsToCompare],
    splits: Splits,
    seeds: tuple[int, ...],
    command: str,
) -> EvaluationInfo:
    runs = {}
    for method in methods_by_seed[0].runs:
        descriptions = []
        for methods in methods_by_seed:
            run = methods.runs[method]
            descriptions.append(f"{run} (space {space_id(folder.run(run))})")
        runs[method] = ", ".join(descriptions)
    for method, path in methods_by_seed[0].files.items():
        runs[method] = path.name
    user_ids = pl.Series(dtype=pl.String)
    if folder.interactions.is_file():
        user_ids = read_interactions(folder)[USER_ID]
    return EvaluationInfo(
        library=folder.root.name,
        version=version("ponticello"),
        preset=folder.config.preset,
        runs=runs,
        n_tracks=read_tracks(folder).height,
        n_listeners=user_ids.n_unique(),
        n_events=len(user_ids),
        held_out=describe(splits),
        splits_sha256=splits_sha256(splits),
        seeds=seeds,
        command=command,
        is_simulated=bool(user_ids.str.starts_with(USER_PREFIX).any()),
    )


def measure_library(
    folder: LibraryPaths,
    methods: MethodsToCompare,
    seed: int,
    on_step: OnStep = lambda _: None,
) -> Measurements:
    """Measures one seed: semantic and preference tasks, the trade-off, and the embedding space.

    seed: of the random numbers in the baselines. Errors as `evaluate_library`, except for the lock.
    """
    splits = require_splits(folder)
    on_step("leaks")
    pairs = read_pairs(folder) if folder.pairs.is_file() else None
    duplicates = find_duplicates(folder, splits)
    measured = Measurements()
    measured.notes += check_no_leak(splits, read_tracks(folder), pairs, None, duplicates)
    vectors = load_vectors(folder, methods.runs, methods.files, splits, measured.notes, on_step)
    on_step("meaning")
    _measure_retrieval(measured, vectors)
    for column in _label_columns(vectors, methods.labels):
        _measure_labels(measured, vectors, column, on_step)
    if folder.interactions.is_file():
        _measure_listening(measured, folder, vectors, splits, seed, on_step)
    else:
        measured.notes.append("No listening has been imported: the taste side is not measured.")
    on_step("integrity")
    _measure_space(measured, vectors)
    return measured


def _measure_retrieval(measured: Measurements, vectors: EvaluationVectors) -> None:
    rows = vectors.test_rows_with_text()
    if len(rows) < 2:
        measured.notes.append("Fewer than two test tracks have a text: retrieval is not measured.")
        return
    if not vectors.towers:
        measured.notes.append("No method has a text tower: retrieval is not measured.")
        return
    texts = pick(vectors.texts, rows)
    text_vectors = {method: model.encode_text(texts) for method, model in vectors.towers.items()}
    queries, clusters = vectors.queries(rows)
    measured.scores += retrieval_scores(text_vectors, vectors.of_towers(rows), queries, clusters)


def _label_columns(vectors: EvaluationVectors, columns: Sequence[str] | None) -> list[str]:
    tracks = vectors.tracks
    if columns is None:
        present = [column for column in LABEL_COLUMNS if column in tracks.columns]
        return [column for column in present if any(known_labels(tracks[column].to_list())[0])]
    for column in columns:
        if column not in tracks.columns:
            raise DataError(
                f"tracks have no column {column!r} to read labels from; "
                f"found {', '.join(tracks.columns)}"
            )
    return list(columns)


def _measure_labels(
    measured: Measurements, vectors: EvaluationVectors, column: str, on_step: OnStep
) -> None:
    """Adds the probe, zero-shot tags and same-label neighbours of one column of labels."""
    labels = vectors.tracks[column].to_list()
    label_sets, _ = known_labels(labels)
    excluded = _methods_with_labels(vectors, column, measured.notes)
    by_method = {}
    for method, matrix in vectors.vectors.items():
        if method not in excluded:
            by_method[method] = matrix
    on_step(f"meaning: {column}, probe")
    scores, notes = probe_scores(
        by_method, labels, vectors.roles, vectors.ids, vectors.clusters, column
    )
    measured.scores += scores
    measured.notes += notes
    rows = [row for row in vectors.rows_of("test") if label_sets[row]]
    test_labels = pick(label_sets, rows)
    queries, clusters = vectors.queries(rows)
    if vectors.towers and rows:
        on_step(f"meaning: {column}, prompts")
        names = sorted(set(chain.from_iterable(label_sets)))
        label_prompts = prompts(names)
        prompt_vectors = {}
        for method, model in vectors.towers.items():
            encoded = [ensemble(model.encode_text(texts)) for texts in label_prompts]
            prompt_vectors[method] = np.stack(encoded)
        scores, notes = zero_shot_scores(
            vectors.of_towers(rows), prompt_vectors, test_labels, names, queries, clusters, column
        )
        measured.scores += scores
        measured.notes += notes
    if len(rows) > 1:
        on_step(f"meaning: {column}, neighbours")
        by_method = {method: matrix[rows] for method, matrix in by_method.items()}
        measured.scores += music_to_music_scores(by_method, test_labels, queries, clusters, column)


def _methods_with_labels(vectors: EvaluationVectors, column: str, notes: list[str]) -> set[str]:
    """Returns the methods with vectors that hold the labels themselves; notes why.

    These are the text encoder, fused vectors if the column is part of a track's text, and the
    taggers on their own tags.
    """
    excluded = {TEXT}
    if column in {part.column for part in TEMPLATE}:
        for run_method in vectors.models:
            method = run_method + FUSED
            if method in vectors.vectors:
                excluded.add(method)
                notes.append(
                    f"{display_name(method)} is not asked about {column}: "
                    "the text in its vectors says it."
                )
    if column == MACHINE_TAGS:
        excluded.add(MUSICNN)
        flattered = []
        for method, model in vectors.models.items():
            if model.settings.front_end == "musicnn":
                flattered.append(display_name(method))
        if flattered:
            notes.append(
                f"{' and '.join(flattered)} hear through the taggers that made {column}, "
                "which flatters them there."
            )
    return excluded


def _measure_listening(
    measured: Measurements,
    folder: LibraryPaths,
    vectors: EvaluationVectors,
    splits: Splits,
    seed: int,
    on_step: OnStep,
) -> None:
    config = vectors.config
    recordings = {}
    if config.search.deduplicate_recordings:
        table = find_recordings(folder.mels, load_recordings(folder.index), config.mel.hop_s)
        recordings = dict(table.select(TRACK_ID, RECORDING).iter_rows())
    track_ids = vectors.tracks[TRACK_ID]
    listening = EvaluationListening(
        read_interactions(folder),
        splits,
        mine_test_pairs(folder),
        lead_artists(vectors.tracks),
        recordings,
        dict(zip(track_ids, artist_groups(vectors.tracks), strict=True)),
    )
    if listening.is_simulated:
        measured.notes.append(
            "SIMULATED LISTENERS: the taste figures show that planted taste is found, nothing else."
        )
    measure_preference(measured, listening, vectors, seed, on_step)
    measure_words(measured, listening, vectors, on_step)
    _, cold = next_tracks(listening.interactions, splits, set(vectors.ids), config)
    cold_recordings = deduplicate_task(cold.with_groups(listening.groups), recordings)
    measure_tradeoff(measured, vectors, cold_recordings, listening.is_simulated, on_step)


def _measure_space(measured: Measurements, vectors: EvaluationVectors) -> None:
    """Adds the health of each encoder's space, and how far stage two moved neighbours."""
    with_text = [row for row, text in enumerate(vectors.texts) if text]
    texts = pick(vectors.texts, with_text)
    for method, matrix in vectors.vectors.items():
        if method == TEXT:
            continue
        health = space_health(matrix)
        metrics = {"vectors not finite": float(health.n_nan)}
        for name in ("effective_rank", "mean_cosine", "uniformity", "hubness"):
            metrics[name.replace("_", " ")] = getattr(health, name)
        if with_text and method in vectors.models:
            text_vectors = vectors.models[method].encode_text(texts)
            metrics["audio-text alignment"] = alignment(matrix[with_text], text_vectors)
            metrics["modality gap"] = modality_gap(matrix[with_text], text_vectors)
        for metric, value in metrics.items():
            measured.facts.append(
                ScalarMetric("integrity", "space", metric, method, value, len(matrix))
            )
        if health.is_collapsed:
            measured.notes.append(
                f"COLLAPSED: the vectors of {display_name(method)} hardly differ; "
                "do not serve them."
            )
    if {STAGE_ONE, STAGE_TWO} <= vectors.models.keys() and len(vectors.ids) > NEIGHBOURS:
        _measure_shifts(measured, vectors)


def _measure_shifts(measured: Measurements, vectors: EvaluationVectors) -> None:
    """Adds how many of each track's neighbours stage two kept, and which tracks it moved most."""
    stage_one = vectors.vectors[STAGE_ONE]
    stage_two = vectors.vectors[STAGE_TWO]
    overlap = neighbour_overlap(stage_one, stage_two, NEIGHBOURS)
    metric = f"overlap@{NEIGHBOURS}"
    by_method = {STAGE_TWO: overlap}
    measured.scores.append(
        Scores("integrity", "neighbours_kept", metric, vectors.ids, vectors.clusters, by_method)
    )
    tracks = vectors.tracks
    names = []
    for row in largest_shifts(stage_one, stage_two, overlap, N_SHIFTED).tolist():
        name = tracks[TITLE][row] or tracks[TRACK_ID][row]
        artist = tracks[ARTIST][row]
        names.append(f"{name} by {artist}" if artist else name)
    measured.notes.append(f"Stage two moved these tracks most: {', '.join(names)}.")
