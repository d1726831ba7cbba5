"""The joint measurement: meaning and taste of the same vectors, on the same held-out tracks.

What an evaluation was made of, for its report; and all seeds of one, summarised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.datasets.simulated import USER_PREFIX
from ponticello.errors import DataError, LibraryError
from ponticello.evaluate.labels import (
    ensemble,
    known_labels,
    probe_scores,
    prompts,
    zero_shot_scores,
)
from ponticello.evaluate.recommendation import EvaluationListening, measure_preference
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import (
    STAGE_ONE,
    STAGE_TWO,
    Evaluation,
    EvaluationInfo,
    ScalarMetric,
    Scores,
    Summary,
)
from ponticello.evaluate.retrieval import music_to_music_scores, retrieval_scores
from ponticello.evaluate.summary import summarise
from ponticello.evaluate.tasks import deduplicate_task, next_tracks
from ponticello.evaluate.tradeoff import measure_tradeoff
from ponticello.evaluate.vectors import FUSED, MUSICNN, TEXT, EvaluationVectors, load_vectors
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
from ponticello.splits.splits import Splits, describe, load_splits, splits_sha256
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ARTIST, GENRES, MACHINE_TAGS, TAGS, TITLE, TRACK_ID, USER_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.names import lead_artists
from ponticello.tracks.text import TEMPLATE

NEIGHBOURS = 10
LABELS = (GENRES, TAGS, MACHINE_TAGS)  # probed where they hold something and no others are named
N_MOVED = 5  # tracks named


@dataclass(frozen=True)
class MethodsToCompare:
    """What is measured: run names and files of vectors, by method, and label columns (None = those
    of `LABELS`).
    """

    runs: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    labels: Sequence[str] | None = None


def evaluate_library(
    folder: LibraryPaths,
    compared: MethodsToCompare,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measures meaning, taste, the front between the stages, and the health of the space, on test
    tracks and events.

    seed: of what is random in the baselines. say: told each step. Refuses, naming rows, if
    something held out stands in the training pairs or beside its own copy.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(
            "nothing is held out yet",
            code="no_splits",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    say("leaks")
    evaluation = Evaluation()
    pairs = read_pairs(folder) if folder.pairs.is_file() else None
    evaluation.notes += check_no_leak(
        splits, read_tracks(folder), pairs, None, find_duplicates(folder, splits)
    )
    materials = load_vectors(folder, compared.runs, compared.files, splits, evaluation.notes, say)
    say("meaning")
    _measure_retrieval(evaluation, materials)
    for column in _label_columns(materials, compared.labels):
        _measure_labels(evaluation, materials, column, say)
    listening = _listening(folder, splits, materials)
    if listening is None:
        evaluation.notes.append("No listening has been imported: the taste side is not measured.")
    else:
        if listening.is_simulated:
            evaluation.notes.append(
                "SIMULATED LISTENERS: the taste figures show that planted taste is found, nothing else."
            )
        vectors = {method: materials.by_id(method) for method in materials.vectors}
        measure_preference(
            evaluation,
            listening,
            vectors,
            materials.content,
            materials.config,
            seed,
            say,
            materials.beside,
        )
        _, cold = next_tracks(listening.interactions, splits, set(materials.ids), materials.config)
        measure_tradeoff(
            evaluation,
            materials,
            deduplicate_task(cold, listening.recordings),
            listening.is_simulated,
            say,
        )
    say("integrity")
    _measure_integrity(evaluation, materials)
    return evaluation


def _listening(
    folder: LibraryPaths, splits: Splits, materials: EvaluationVectors
) -> EvaluationListening | None:
    if not folder.interactions.is_file():
        return None
    pairs, artists = mine_test_pairs(folder), lead_artists(materials.tracks)
    return EvaluationListening(
        read_interactions(folder), splits, pairs, artists, _recordings(folder)
    )


def _recordings(folder: LibraryPaths) -> dict[str, str]:
    """{track: its recording} where answers hold a recording once."""
    if not folder.config.search.deduplicate_recordings:
        return {}
    found = find_recordings(folder.mels, load_recordings(folder.index), folder.config.mel.hop_s)
    return dict(found.select(TRACK_ID, RECORDING).iter_rows())


def _measure_retrieval(evaluation: Evaluation, materials: EvaluationVectors) -> None:
    """Text to audio and back, among the test tracks that have a text."""
    rows = [row for row in materials.rows_of("test") if materials.texts[row]]
    if len(rows) < 2:
        evaluation.notes.append(
            "Fewer than two test tracks have a text: retrieval is not measured."
        )
        return
    if not materials.models:
        evaluation.notes.append("No method has a text tower: retrieval is not measured.")
        return
    words = [materials.texts[row] for row in rows]
    texts = {method: model.encode_text(words) for method, model in materials.models.items()}
    audio = {method: materials.vectors[method][rows] for method in materials.models}
    evaluation.scores += retrieval_scores(texts, audio, *_asked(materials, rows))


def _label_columns(materials: EvaluationVectors, named: Sequence[str] | None) -> list[str]:
    if named is None:
        columns = [column for column in LABELS if column in materials.tracks.columns]
        return [
            column for column in columns if any(known_labels(materials.tracks[column].to_list())[0])
        ]
    for column in named:
        if column not in materials.tracks.columns:
            found = ", ".join(materials.tracks.columns)
            raise DataError(f"tracks have no column {column!r} to read labels from; found {found}")
    return list(named)


def _measure_labels(
    evaluation: Evaluation, materials: EvaluationVectors, column: str, say: Callable[[str], None]
) -> None:
    """Can labels be read off the vectors, do prompts name them, do neighbours share them?

    What holds the text is not asked where that holds the very labels: the text encoder alone, and
    vectors fused with it. Nor is the tagger about its own tags.
    """
    labels = materials.tracks[column].to_list()
    sets, _ = known_labels(labels)
    left_out = {TEXT, MUSICNN} if column == MACHINE_TAGS else {TEXT}
    if column in {field.column for field in TEMPLATE}:
        fused = [
            f"{run}{FUSED}" for run in materials.models if f"{run}{FUSED}" in materials.vectors
        ]
        left_out |= {*fused}
        evaluation.notes += [
            f"{display_name(name)} is not asked about {column}: the text in its vectors says it."
            for name in fused
        ]
    heard = {
        method: vectors for method, vectors in materials.vectors.items() if method not in left_out
    }
    built_on_it = [
        method
        for method, model in materials.models.items()
        if model.settings.front_end == "musicnn"
    ]
    if column == MACHINE_TAGS and built_on_it:
        evaluation.notes.append(
            f"{' and '.join(map(display_name, built_on_it))} hear through the taggers that made {column}, which flatters them there."
        )
    rows = [row for row in materials.rows_of("test") if sets[row]]
    say(f"meaning: {column}, probe")
    scores, notes = probe_scores(
        heard, labels, materials.roles, materials.ids, materials.clusters, column
    )
    if materials.models and rows:
        say(f"meaning: {column}, prompts")
        known = sorted(set().union(*sets))
        asked = prompts(known)
        vectors = {
            method: np.stack([ensemble(model.encode_text(words)) for words in asked])
            for method, model in materials.models.items()
        }
        audio = {method: materials.vectors[method][rows] for method in materials.models}
        queries, clusters = _asked(materials, rows)
        shot = zero_shot_scores(
            audio, vectors, [sets[row] for row in rows], known, queries, clusters, column
        )
        scores, notes = scores + shot[0], notes + shot[1]
    if len(rows) > 1:
        say(f"meaning: {column}, neighbours")
        test = {method: vectors[rows] for method, vectors in heard.items()}
        scores += music_to_music_scores(
            test, [sets[row] for row in rows], *_asked(materials, rows), column
        )
    evaluation.scores += scores
    evaluation.notes += notes


def _asked(materials: EvaluationVectors, rows: list[int]) -> tuple[list[str], list[str]]:
    """The ids and the clusters of some rows."""
    return [materials.ids[row] for row in rows], [materials.clusters[row] for row in rows]


def _measure_integrity(evaluation: Evaluation, materials: EvaluationVectors) -> None:
    """What became of the space: its health under every encoder, and how far stage two moved each
    track's neighbours.
    """
    with_text = [row for row, text in enumerate(materials.texts) if text]
    encoders = [method for method in materials.vectors if method != TEXT]
    for method in encoders:
        vectors = materials.vectors[method]
        health = space_health(vectors)
        shown = {
            "vectors not finite": float(health.n_nan),
            "effective rank": health.effective_rank,
            "mean cosine": health.mean_cosine,
            "uniformity": health.uniformity,
            "hubness": health.hubness,
        }
        if with_text and method in materials.models:
            text = materials.models[method].encode_text([materials.texts[row] for row in with_text])
            shown["audio-text alignment"] = alignment(vectors[with_text], text)
            shown["modality gap"] = modality_gap(vectors[with_text], text)
        for metric, value in shown.items():
            evaluation.facts.append(
                ScalarMetric("integrity", "space", metric, method, value, len(vectors))
            )
        if health.is_collapsed:
            evaluation.notes.append(
                f"COLLAPSED: the vectors of {display_name(method)} hardly differ; do not serve them."
            )
    if {STAGE_ONE, STAGE_TWO} <= materials.models.keys() and len(materials.ids) > NEIGHBOURS:
        one, two = materials.vectors[STAGE_ONE], materials.vectors[STAGE_TWO]
        kept = {STAGE_TWO: neighbour_overlap(one, two, NEIGHBOURS)}
        task, metric = "neighbours_kept", f"overlap@{NEIGHBOURS}"
        evaluation.scores.append(
            Scores("integrity", task, metric, materials.ids, materials.clusters, kept)
        )
        names = ", ".join(
            _name(materials.tracks, row)
            for row in largest_shifts(one, two, NEIGHBOURS)[:N_MOVED].tolist()
        )
        evaluation.notes.append(f"Stage two moved these tracks most: {names}.")


def _name(tracks: pl.DataFrame, row: int) -> str:
    title, artist = tracks[TITLE][row], tracks[ARTIST][row]
    return f"{title or tracks[TRACK_ID][row]}{f' by {artist}' if artist else ''}"


def evaluate_seeds(
    folder: LibraryPaths,
    by_seed: Sequence[MethodsToCompare],
    command: str,
    say: Callable[[str], None],
) -> tuple[Summary, list[Evaluation]]:
    """Measures every seed's runs on the same held-out tracks and events, and draws figures, tests
    and claims from all.

    by_seed: what to compare, one a seed; the i-th gets baselines with seed `evaluate.seed` + i.
    command: as typed, for the report. LibraryError and DataError as `evaluate_library`.
    """
    seeds = tuple(folder.config.evaluate.seed + number for number in range(len(by_seed)))
    evaluations = []
    for number, (seed, compared) in enumerate(zip(seeds, by_seed, strict=True), 1):
        prefix = f"seed {number} of {len(seeds)}, " if len(seeds) > 1 else ""
        evaluations.append(evaluate_library(folder, compared, seed, partial(_say, say, prefix)))
    about = _about(folder, by_seed, seeds, command)
    return summarise(evaluations, about, folder.config), evaluations


def _named(folder: LibraryPaths, run: str) -> str:
    """A run and the space it puts vectors in, which no other model has."""
    return f"{run} (space {space_id(folder.run(run))})"


def _say(say: Callable[[str], None], prefix: str, step: str) -> None:
    say(prefix + step)


def _about(
    folder: LibraryPaths, by_seed: Sequence[MethodsToCompare], seeds: tuple[int, ...], command: str
) -> EvaluationInfo:
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(
            "nothing is held out yet",
            code="no_splits",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    log = (
        read_interactions(folder) if folder.interactions.is_file() else pl.DataFrame({USER_ID: []})
    )
    runs = {
        method: ", ".join(_named(folder, compared.runs[method]) for compared in by_seed)
        for method in by_seed[0].runs
    }
    return EvaluationInfo(
        library=folder.root.name,
        version=version("ponticello"),
        preset=folder.config.preset,
        runs=runs | {method: path.name for method, path in by_seed[0].files.items()},
        n_tracks=read_tracks(folder).height,
        n_listeners=log[USER_ID].n_unique(),
        n_events=log.height,
        held_out=describe(splits),
        splits_sha256=splits_sha256(splits),
        seeds=seeds,
        command=command,
        is_simulated=bool(log[USER_ID].cast(pl.String).str.starts_with(USER_PREFIX).any()),
    )
