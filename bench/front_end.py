"""Which of MusiCNN's layers say best who made a track, and which game it is from.

    python bench/front_end.py PATH/TO/freemusic --work WORK_FOLDER

For each track, all others are ranked by cosine: precision@10 and AUC of the tracks of the same
game, and of the same artist (the game where none is given). Nothing is trained. Prints Markdown.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from freemusic import prepared, read_catalogue
from ponticello.features.musicnn import N_PENULTIMATE
from ponticello.features.musicnn_frontend import TAGGER_SIZE
from ponticello.features.store import FeatureStore

MIN_SAME = 3  # other tracks of a game or an artist
MIN_DEVIATION = 1e-4
# Weights of each tagger's penultimate layer and tags.
CHOICES = {
    "penultimate of MSD": (1.0, 0.0, 0.0, 0.0),
    "penultimate of MTT": (0.0, 0.0, 1.0, 0.0),
    "both penultimates": (1.0, 0.0, 1.0, 0.0),
    "both penultimates, MTT 0.7 (default)": (1.0, 0.0, 0.7, 0.0),
    "both penultimates, tags 0.5": (1.0, 0.5, 1.0, 0.5),
    "tags alone": (0.0, 1.0, 0.0, 1.0),
}


def measure(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns mean precision@10 and AUC of the tracks with the same label."""
    cosines = vectors @ vectors.T
    values = []
    for row in range(len(vectors)):
        is_other = np.arange(len(vectors)) != row
        is_same = (labels == labels[row])[is_other]
        if is_same.sum() < MIN_SAME:
            continue
        scores = cosines[row][is_other]
        best = np.argsort(-scores, kind="stable")[:10]
        values.append((is_same[best].mean(), roc_auc_score(is_same, scores)))
    means: np.ndarray = np.mean(values, axis=0)
    return means


def main() -> None:
    """Reads the tracks and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv, auto_tags.csv and audio/")
    parser.add_argument("--work", type=Path, required=True, help="keeps the prepared frames")
    given = parser.parse_args()
    base = prepared(given.work / "base", given.folder, 2)
    rows = read_catalogue(given.folder)
    store = FeatureStore(base.frames)
    means = np.array([store.read(row["track_id"]).mean(axis=0, dtype=float) for row in rows])
    scores = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), MIN_DEVIATION)
    games = np.array([row["game"] for row in rows])
    artists = np.array([row["artist"] or row["game"] for row in rows])
    ends = [N_PENULTIMATE, TAGGER_SIZE, TAGGER_SIZE + N_PENULTIMATE]
    print("| vector | same game P@10 / AUC | same artist P@10 / AUC |\n|---|---|---|")
    for name, weights in CHOICES.items():
        parts = []
        for block, weight in zip(np.split(scores, ends, axis=1), weights, strict=True):
            parts.append(block * weight / np.sqrt(block.shape[1]))
        vectors = np.concatenate(parts, axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cells = ["{:.3f} / {:.3f}".format(*measure(vectors, label)) for label in (games, artists)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
