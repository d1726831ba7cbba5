"""What someone gets who has untagged files and the command line alone: the time of every step, and five answers.

    python bench/untagged.py PATH/TO/freemusic --tracks 500 --library NEW_FOLDER

Writes a table of `track_id,path` with numbers for ids, and runs the commands a user would, each a process of its own.
What the folder's tracks.csv knows (title, game) the library never sees; it is printed beside the answers to judge them.
Prints Markdown: the table of times, and a table an answer.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

TEXTS = (
    "heavy metal with electric guitars",
    "calm ambient",
    "solo piano",
    "fast techno",
    "orchestral film music",
)
N_ANSWERS = 5
WISHED_S = 12 * 60  # all steps together, on two cores


def sampled(rows: Sequence[Mapping[str, str]], n_tracks: int, seed: int) -> dict[str, Mapping[str, str]]:
    """So many rows drawn from `seed`, in the table's order, under ids that say nothing: {"track-0001": row}."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:n_tracks]).tolist()
    return {f"track-{number:04d}": rows[place] for number, place in enumerate(chosen, start=1)}


def bare_table(known: Mapping[str, Mapping[str, str]], folder: Path) -> str:
    """The CSV of `track_id,path` and nothing else; paths start from `folder`, made absolute."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("track_id", "path"))
    writer.writerows((track_id, str((folder / row["file"]).resolve())) for track_id, row in known.items())
    return text.getvalue()


def steps(table: Path, library: Path) -> list[list[str]]:
    """The commands up to a library that answers, without the program's name."""
    here = ["-L", str(library)]
    return [
        ["init", str(library), "--preset", "small"],
        ["import-tracks", str(table), *here],
        ["prepare", *here],
        ["tag", *here],
        # The starter model was made from these files too: a user's it has never heard.
        ["train", "semantic", *here, "--set", "semantic.from_starter=false"],
        ["embed", *here],
    ]


def run(command: Sequence[str]) -> tuple[str, float]:
    """What `ponticello COMMAND` wrote to standard output, and the seconds it took; CalledProcessError if it failed."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ponticello", *command], check=True, text=True, encoding="utf-8", stdout=subprocess.PIPE
    )
    return done.stdout, time.perf_counter() - started


def times_table(times: Sequence[tuple[str, float]]) -> list[str]:
    """A line a step, the total, and whether it is within what is wished for."""
    total = sum(seconds for _, seconds in times)
    verdict = "within" if total <= WISHED_S else "**above**"
    return [
        "| step | s |",
        "|---|---|",
        *(f"| `{step}` | {seconds:.1f} |" for step, seconds in times),
        f"| all | {total:.1f} ({total / 60:.1f} min, {verdict} {WISHED_S // 60}) |",
    ]


def answers_table(
    answers: Sequence[Mapping[str, Any]],
    tags: Mapping[str, Sequence[str]],
    known: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """A line an answer: its score, its machine tags, and what tracks.csv knows of it.

    answers: as `search --json` gives them. tags: {track_id: machine tags}. known: as `sampled` gives it.
    """
    lines = ["| score | machine tags | what it is (never seen) |", "|---|---|---|"]
    for answer in answers:
        row = known[answer["track_id"]]
        title = row.get("title") or row.get("title_from_file") or "(untitled)"
        heard = ", ".join(tags.get(answer["track_id"]) or ("(none)",))
        lines.append(f"| {answer['score']:.2f} | {heard} | {title}, {row['game']} |".replace("\n", " "))
    return lines


def measure(folder: Path, library: Path, n_tracks: int, seed: int) -> list[str]:
    """Runs every step in a new library; the lines of the report."""
    with (folder / "tracks.csv").open(encoding="utf-8", newline="") as file:
        known = sampled(list(csv.DictReader(file)), n_tracks, seed)
    table = library.with_name(f"{library.name}-tracks.csv")
    table.write_text(bare_table(known, folder), encoding="utf-8")
    times = []
    for command in steps(table, library):
        name = " ".join(command[:2] if command[0] == "train" else command[:1])
        output, seconds = run(command)
        times.append((name, seconds))
        print(f"{name}: {seconds:.1f} s\n{output}", file=sys.stderr, flush=True)
    tracks = pl.read_parquet(library / "tracks.parquet", columns=["track_id", "machine_tags"])
    tags = dict(tracks.iter_rows())
    answers: list[str] = []
    for text in TEXTS:
        output, seconds = run(["search", text, "-L", str(library), "-k", str(N_ANSWERS), "--json"])
        times.append((f'search "{text}"', seconds))
        answers += ["", f"### {text}", "", *answers_table(json.loads(output), tags, known)]
    cores = f"{len(known)} tracks, seed {seed}, {os.cpu_count()} processor cores"
    return [cores, "", *times_table(times), *answers]


def main() -> None:
    """Reads the arguments and prints the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv with columns file, title, title_from_file, game")
    parser.add_argument("--tracks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", type=Path, help="a folder that does not exist yet, kept; else a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        library = (given.library or Path(temporary) / "library").resolve()
        library.parent.mkdir(parents=True, exist_ok=True)
        print("\n".join(measure(given.folder, library, given.tracks, given.seed)))


if __name__ == "__main__":
    main()
