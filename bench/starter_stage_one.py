"""Stage one from the starter against stage one from nothing, on libraries whose held-out games neither has heard.

    python bench/starter_stage_one.py PATH/TO/freemusic --work WORK_FOLDER --seeds 5 --tracks 0 125

The starter of each seed is made anew, from every track of the games that the library does not hold out. The library's
own training tracks are among them, which a user's are not. Prints Markdown.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from freemusic import prepared, read_catalogue, world
from ponticello.data.catalog import read_tracks
from ponticello.data.columns import TRACK_ID
from ponticello.data.splits import load_splits
from ponticello.data.store import FrameStore
from ponticello.data.text import track_texts
from ponticello.evaluate.intervals import bootstrap_mean, paired_difference
from ponticello.evaluate.metrics import auc
from ponticello.evaluate.semantic import music_to_music_scores, retrieval_figures, retrieval_scores
from ponticello.library import Folder
from ponticello.model.htcl import HTCL
from ponticello.model.starter import build_starter
from ponticello.train.run import train_semantic
from starter_figures import ROUNDS, questions_of
from starter_recipe import SETTINGS, Reader, learn_starter, read_heard

SCRATCH, STARTER, UNTRAINED = "from nothing", "from the starter", "the starter, untrained"
METHODS = (SCRATCH, STARTER, UNTRAINED)
Column = tuple[np.ndarray, list[str]]
"""A number a query, and each query's game."""


def run_seed(
    root: Path, base: Folder, source: Path, seed: int, n_tracks: int, read: Reader
) -> dict[str, dict[str, Column]]:
    """{method: {metric: column}} of one library; its validation games chose the weights."""
    shutil.rmtree(root, ignore_errors=True)
    config = {"heads": SETTINGS.heads.model_dump(mode="json"), "semantic": {"seed": seed}}
    folder = world(root, base, source, seed, config, n_tracks)
    splits = load_splits(folder)
    assert splits is not None
    rows = read_catalogue(source)
    held_out = {row["game"] for row in rows if splits.roles.get(row["track_id"], "train") != "train"}
    known = [row["track_id"] for row in rows if row["game"] not in held_out]
    weights = learn_starter(read, read_heard(base, known))
    weights = {name: value.float() for name, value in weights.items()}
    found = {}
    with mock.patch("ponticello.model.starter.starter_weights", return_value=weights):
        for method, from_starter in ((SCRATCH, False), (STARTER, True)):
            semantic = folder.config.semantic.model_copy(update={"from_starter": from_starter})
            own = replace(folder, config=folder.config.model_copy(update={"semantic": semantic}))
            run = train_semantic(own, method.replace(" ", "-"), retrieval_figures)
            found[method] = measured(folder, splits.roles, HTCL.from_pretrained(run.folder), source, seed)
        found[UNTRAINED] = measured(folder, splits.roles, build_starter(folder.config), source, seed)
    return found


def measured(folder: Folder, roles: Mapping[str, str], model: HTCL, source: Path, seed: int) -> dict[str, Column]:
    """What a model does with held-out tracks: their own texts, others' words for their tags, neighbours by tag."""
    tracks, store = read_tracks(folder).sort(TRACK_ID), FrameStore(folder.frames)
    told = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    rows = {row["track_id"]: row for row in read_catalogue(source)}
    columns: dict[str, Column] = {}
    for role in ("validation", "test"):
        ids = [track_id for track_id in told if roles[track_id] == role]
        games = [rows[track_id]["game"] for track_id in ids]
        audio = model.encode_mels([store.read(track_id) for track_id in ids])
        texts = model.encode_text([told[track_id] for track_id in ids])
        for score in retrieval_scores({"m": texts}, {"m": audio}, ids, games):
            if score.task == "text to audio" and score.metric in ("MRR", "R@10"):
                columns[f"{role}: its text, {score.metric}"] = score.by_method["m"], games
        questions = [q for q in questions_of([rows[track_id] for track_id in ids], seed) if q.kind == "in other words"]
        asked = model.encode_text([question.text for question in questions]) @ audio.T
        wanted = [np.isin(np.arange(len(ids)), list(question.relevant)) for question in questions]
        values = np.array([auc(scores, relevant) for scores, relevant in zip(asked, wanted, strict=True)])
        columns[f"{role}: in other words, AUC"] = values, [games[question.asker] for question in questions]
        sets = [set(filter(None, rows[track_id]["machine_tags"].split(";"))) for track_id in ids]
        near = music_to_music_scores({"m": audio}, sets, ids, games, "machine_tags")[0]
        columns[f"{role}: same machine tags, {near.metric}"] = near.by_method["m"], games
    return columns


def table(seeds: Sequence[dict[str, dict[str, Column]]]) -> list[str]:
    """A line a metric: each method, and what starting from the starter brings."""
    lines = [f"| metric | {' | '.join(METHODS)} | {STARTER} - {SCRATCH} |", "|---" * (len(METHODS) + 2) + "|"]
    for metric in seeds[0][SCRATCH]:
        games = [game for found in seeds for game in found[SCRATCH][metric][1]]
        clusters = np.unique(games, return_inverse=True)[1]
        columns = {method: np.concatenate([found[method][metric][0] for found in seeds]) for method in METHODS}
        means = [bootstrap_mean(columns[method], clusters, ROUNDS, 0) for method in METHODS]
        lead = paired_difference(columns[STARTER], columns[SCRATCH], clusters, ROUNDS, 0)
        cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in means]
        lines.append(f"| {metric} | {' | '.join(cells)} | {lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}] |")
    return lines


def main() -> None:
    """Prints a table for each size of library."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv, auto_tags.csv and audio/")
    parser.add_argument("--work", type=Path, required=True, help="where the prepared frames are kept")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tracks", type=int, nargs="+", default=[0], help="sizes of library; 0 = all tracks")
    given = parser.parse_args()
    read, base = Reader(), prepared(given.work / "base", given.folder, 2)
    for n_tracks in given.tracks:
        roots = [given.work / f"stage-one-{n_tracks}-{seed}" for seed in range(given.seeds)]
        seeds = [run_seed(root, base, given.folder, seed, n_tracks, read) for seed, root in enumerate(roots)]
        print(
            f"### {n_tracks or 'all'} tracks, seeds 0 to {given.seeds - 1}", "", *table(seeds), "", sep="\n", flush=True
        )


if __name__ == "__main__":
    main()
