"""How well words find music by its sound alone: stage one, the starter, and what is not trained.

    python bench/words.py PATH/TO/freemusic --work WORK_FOLDER --seeds 5 --json figures.json

Each seed holds out games and artists. Questions about the held-out tracks, whose texts nobody
reads: single tags, pairs of tags, and paraphrases of tags written by hand. A track is relevant if
it has all tags of a question. The tags are the folder's genres and machine tags (MSD_musicnn), so
a question by the name of a tag is easy for the tagger itself; the paraphrases are the harder task.

The starter of a seed is made by the recipe of `starter.py` from the tracks that are not held out,
and stage one starts from it. Prints Markdown.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sklearn.metrics import roc_auc_score

import ponticello.model.starter as starter_module
from freemusic import prepared, world
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.features.musicnn_frontend import tagger_scores, tagger_tags
from ponticello.features.store import FeatureStore
from ponticello.metrics.bootstrap import bootstrap_mean
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import load_splits
from ponticello.storage.layout import LibraryPaths
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.dataset import tag_table
from ponticello.train.semantic import train_semantic
from starter import train_starter

UNTRAINED = "attention over the taggers' tags, untrained"
STARTER = "starter"
STAGE_ONE = "stage one"
UNTRAINED_TEMPERATURE = 0.03
ALL = "all questions"
MIN_RELEVANT = 5
MAX_SHARE = 0.7  # of the held-out tracks
BOOTSTRAP_ROUNDS = 1000
PARAPHRASES = {
    "80s": "retro eighties synth sound",
    "acoustic": "unplugged guitar",
    "alternative": "alt rock from the nineties",
    "ambient": "atmospheric background soundscape",
    "blues": "twelve bar guitar shuffle",
    "chillout": "relaxing laid-back tunes",
    "classic rock": "seventies rock anthems",
    "country": "nashville cowboy songs",
    "dance": "club beats to move to",
    "electro": "robotic synth bass lines",
    "electronic": "synthesizer music made with computers",
    "electronica": "synth beats and programmed sounds",
    "experimental": "strange avant-garde sounds",
    "female vocalists": "a woman sings",
    "folk": "traditional acoustic songs",
    "funk": "groovy slap bass",
    "guitar": "six string strumming",
    "hard rock": "aggressive rock riffs",
    "heavy metal": "headbanging loud guitar riffs",
    "house": "four on the floor dj club track",
    "indie": "independent label band",
    "instrumental": "no singing, only instruments",
    "jazz": "swing with saxophone and improvisation",
    "metal": "heavy distorted guitars and screaming",
    "pop": "catchy chart hits",
    "progressive rock": "long complex prog songs",
    "punk": "fast raw three chord songs",
    "rock": "a band with loud drums and electric guitars",
    "soul": "motown vocal groove",
}

Figures = dict[str, dict[str, dict[str, tuple[float, float]]]]
"""{method: {kind of question: {question: (precision@10, AUC)}}}"""


def build_questions(tag_names: list[str], tags: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Returns {kind: {question: (n,) bool}} of tracks with tags (n, W)."""
    columns = [tag_names.index(tag) for tag in PARAPHRASES if tag in tag_names]
    asked: dict[str, dict[str, np.ndarray]] = {"one tag": {}, "paraphrase": {}, "two tags": {}}
    for position, first in enumerate(columns):
        for second in columns[position:]:
            relevant = tags[:, first] & tags[:, second]
            if not MIN_RELEVANT <= relevant.sum() <= MAX_SHARE * len(tags):
                continue
            if first == second:
                asked["one tag"][tag_names[first]] = relevant
                asked["paraphrase"][PARAPHRASES[tag_names[first]]] = relevant
            else:
                asked["two tags"][f"{tag_names[first]} {tag_names[second]}"] = relevant
    return asked


def measure(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Returns precision@10 and AUC of one question's scores (n,)."""
    best = np.argsort(-scores, kind="stable")[:10]
    return float(relevant[best].mean()), float(roc_auc_score(relevant, scores))


def untrained_scores(reader: HTCL, means: np.ndarray, texts: list[str]) -> np.ndarray:
    """Returns (q, n), attention over what the taggers heard of their tags."""
    tags = reader.encode_text_states([f"{tag} music" for tag in tagger_tags()])
    states = reader.encode_text_states(texts)
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (states, tags)]
    weights = np.exp((units[0] @ units[1].T - 1) / UNTRAINED_TEMPERATURE)
    attention = weights / weights.sum(axis=1, keepdims=True)
    scores: np.ndarray = attention @ tagger_scores(means).T
    return scores


def tag_precision(
    model: HTCL,
    tracks: pl.DataFrame,
    frames: list[np.ndarray],
    tag_names: list[str],
    tags: np.ndarray,
) -> float:
    """Returns the mean precision@10 of tags (n, W) of at least `MIN_RELEVANT` tracks, of at most
    as many as carry it, where the vectors hold the tracks' texts.
    """
    texts = fused_texts(tracks, model.settings.front_end)
    states = model.encode_text_states([texts[track_id] for track_id in tracks["track_id"]])
    vectors = model.encode_fused(frames, states)
    scores = model.encode_text(tag_names) @ vectors.T
    precisions = []
    for column in np.flatnonzero(tags.sum(axis=0) >= MIN_RELEVANT):
        best = np.argsort(-scores[column], kind="stable")[:10]
        precisions.append(tags[best, column].sum() / min(10, tags[:, column].sum()))
    return float(np.mean(precisions))


def run_seed(work: Path, base: LibraryPaths, source: Path, seed: int) -> Figures:
    """Returns the figures of one split."""
    folder = world(work / f"seed-{seed}", base, source, seed, {})
    splits = load_splits(folder)
    assert splits is not None
    tracks = read_tracks(folder).sort("track_id")
    tag_names, tags = tag_table(tracks)
    is_test = np.array([splits.roles[track_id] == "test" for track_id in tracks["track_id"]])
    store = FeatureStore(folder.frames)
    frames = [store.read(track_id) for track_id in tracks["track_id"]]
    known = [frame for frame, held_out in zip(frames, is_test, strict=True) if not held_out]
    weights = {name: weight.float() for name, weight in train_starter(known).items()}
    starter_module.starter_weights = lambda: weights  # type: ignore[assignment]
    models = {STARTER: starter_module.build_starter(folder.config)}
    semantic = folder.config.semantic.model_copy(update={"init_from_pretrained": True})
    config = folder.config.model_copy(update={"semantic": semantic})
    run = train_semantic(
        LibraryPaths(folder.root, config), "semantic", retrieval_figures, observers=()
    )
    models[STAGE_ONE] = HTCL.from_pretrained(run.folder)
    asked = build_questions(tag_names, tags.toarray()[is_test])
    catalogue = tag_precision(models[STAGE_ONE], tracks, frames, tag_names, tags.toarray())
    print(f"seed {seed}: tags of the whole catalogue, with its texts: precision@10 {catalogue:.3f}")
    figures: Figures = defaultdict(dict)
    means = np.array([frame.mean(axis=0, dtype=np.float64) for frame in frames])
    for kind, questions in asked.items():
        texts = list(questions)
        scores = {
            UNTRAINED: untrained_scores(models[STARTER], means, texts)[:, is_test],
        }
        for name, model in models.items():
            vectors = model.encode_features(list(frames))[is_test]
            scores[name] = model.encode_text(texts) @ vectors.T
        for name, method_scores in scores.items():
            by_question = {}
            for text, question_scores in zip(texts, method_scores, strict=True):
                by_question[text] = measure(question_scores, questions[text])
            figures[name][kind] = by_question
    return figures


def table(runs: list[Figures]) -> str:
    """Returns Markdown: means, and the paired interval of stage one minus the method."""
    kinds = [*runs[0][STAGE_ONE], ALL]
    lines = [f"| method | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name in (UNTRAINED, STARTER, STAGE_ONE):
        cells = []
        for kind in kinds:
            values = []
            gaps = []
            questions = []
            for run in runs:
                for kind_of_question in run[name] if kind == ALL else [kind]:
                    for question, figures in run[name][kind_of_question].items():
                        stage_one = run[STAGE_ONE][kind_of_question][question]
                        values.append(figures)
                        gaps.append(np.subtract(stage_one, figures))
                        questions.append(f"{kind_of_question}: {question}")
            cell = "{:.3f} / {:.3f}".format(*np.mean(values, axis=0))
            if name != STAGE_ONE:
                clusters = np.unique(questions, return_inverse=True)[1]
                for metric in range(2):
                    metric_gaps = np.array(gaps)[:, metric]
                    _, low, high = bootstrap_mean(metric_gaps, clusters, BOOTSTRAP_ROUNDS, 0)
                    cell += f" [{low:+.3f}, {high:+.3f}]"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark and prints Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv, auto_tags.csv and audio/")
    parser.add_argument("--work", type=Path, required=True, help="keeps the prepared frames")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures of every question")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = prepared(given.work / "base", given.folder, 2)
    runs = []
    with tempfile.TemporaryDirectory(prefix="ponticello-words-") as work:
        for seed in range(given.seeds):
            runs.append(run_seed(Path(work), base, given.folder, seed))
            print(f"seed {seed} done", flush=True)
    print("\nPrecision@10 / AUC; in brackets: stage one minus the method\n")
    print(table(runs))
    if given.json:
        given.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
