"""What reading each text in eight wordings costs and brings: whole texts, and questions in words of their own.

    python bench/wordings.py PATH/TO/freemusic WORK_FOLDER ...

WORK_FOLDER: what `ablate.py` has left, libraries `seed-*` with stage one trained on eight wordings and on one. Held-out
tracks are asked for with their whole texts, and with words of others for their machine tags (`questions.py`). Prints
Markdown.
"""

import argparse
from pathlib import Path

import numpy as np

from ablate import EIGHT_WORDINGS
from ponticello.data.splits import load_splits
from ponticello.evaluate.intervals import bootstrap_mean, paired_difference
from ponticello.library import open_library
from ponticello.model.htcl import HTCL
from starter_figures import ROUNDS
from starter_stage_one import Column, measured

RUNS = {"eight wordings": "eight-wordings", "one wording": "semantic"}


def table(libraries: list[dict[str, dict[str, Column]]]) -> list[str]:
    """A line a metric of test tracks: each way of reading, and eight wordings minus one, with intervals by game."""
    lines = ["| test tracks | eight wordings | one wording | eight - one |", "|---|---|---|---|"]
    for metric in (name for name in libraries[0]["eight wordings"] if name.startswith("test")):
        games = [game for found in libraries for game in found["eight wordings"][metric][1]]
        clusters = np.unique(games, return_inverse=True)[1]
        eight, one = (np.concatenate([found[name][metric][0] for found in libraries]) for name in RUNS)
        gap = paired_difference(eight, one, clusters, ROUNDS, 0)
        means = [f"{bootstrap_mean(column, clusters, ROUNDS, 0)[0]:.3f}" for column in (eight, one)]
        cells = [metric.removeprefix("test: "), *means, f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("work", type=Path, nargs="+", help=f"where ablate.py has trained {EIGHT_WORDINGS!r}")
    given = parser.parse_args()
    libraries = []
    for root in sorted(root for work in given.work for root in work.glob("seed-?")):
        folder = open_library(root)
        splits = load_splits(folder)
        assert splits is not None
        seed = int(root.name.removeprefix("seed-"))
        libraries.append(
            {
                name: measured(folder, splits.roles, HTCL.from_pretrained(folder.run(run)), given.source, seed)
                for name, run in RUNS.items()
            }
        )
    print(f"{len(libraries)} libraries\n", *table(libraries), sep="\n")


if __name__ == "__main__":
    main()
