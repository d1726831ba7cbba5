"""How a question is asked of the same vectors: each option on its own beside none, with what it gains or loses.

    python bench/asking.py PATH/TO/freemusic --hetrec PATH/TO/hetrec2011-lastfm-2k --work WORK_FOLDER --seeds 5

Hubs corrected, copies collapsed, an artist's known tracks, and weighed seeds. On freemusic every seed draws its own
held-out games and artists (or single tracks, for new tracks of known artists), SIMULATED listeners and initial weights;
HetRec's listeners are real, its items are artists under their tags. Prints Markdown: the tables of
`docs/benchmarks.md`. WORK_FOLDER keeps the prepared frames and the trained runs, so that a second run is quick.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asking_artists import artist_text_questions, new_track_questions
from asking_copies import QUESTIONS, Answers, measure_copies
from asking_freemusic import AS_NOW, Measured, listener_questions, neighbour_questions, text_questions
from asking_hetrec import listener_questions as real_listener_questions
from asking_hetrec import neighbour_questions as real_neighbour_questions
from asking_worlds import trained_world
from freemusic import prepared
from hetrec import encode_texts, read_listening
from ponticello.evaluate.intervals import bootstrap_mean

ROUNDS = 1000


@dataclass(frozen=True)
class Run:
    """One seed's numbers, and which of its queries belong together, by name; None = each is alone."""

    measured: Measured
    clusters: list[str] | None


def table(runs: Sequence[Run]) -> str:
    """A row an option: the mean over all seeds' queries, and the 95 % interval of the paired difference to `AS_NOW`.

    Queries of all seeds count alike; those of one cluster are drawn together, also across seeds.
    """
    questions = list(runs[0].measured[AS_NOW])
    lines = ["| | " + " | ".join(questions) + " |", "|---" * (len(questions) + 1) + "|"]
    for option in runs[0].measured:
        cells = []
        for question in questions:
            own = np.concatenate([run.measured[option][question] for run in runs])
            cell = f"{np.nanmean(own):.4f}"
            if option != AS_NOW:
                names = [_clusters(run, len(run.measured[option][question]), n) for n, run in enumerate(runs)]
                numbers = np.unique(np.concatenate(names), return_inverse=True)[1]
                gaps = own - np.concatenate([run.measured[AS_NOW][question] for run in runs])
                _, low, high = bootstrap_mean(gaps, numbers, ROUNDS, 0)
                cell += f" [{low:+.4f}, {high:+.4f}]"
            cells.append(cell)
        lines.append(f"| {option} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _clusters(run: Run, n: int, number: int) -> list[str]:
    """A name a query; a question with another number of queries than there are names has queries that stand alone."""
    if run.clusters is not None and len(run.clusters) == n:
        return run.clusters
    return [f"{number} {query}" for query in range(n)]


def copies_table(found: Sequence[Answers]) -> str:
    """A row a question: repeated places and recordings shared with the answer before copies were planted, of 10."""
    head = "places of 10 that repeat a recording | collapsed | recordings as without copies | collapsed"
    lines = [f"| | queries | {head} | order otherwise kept |", "|---|---|---|---|---|---|---|"]
    for question in QUESTIONS:
        columns = [
            np.concatenate([getattr(one, name)[question] for one in found])
            for name in ("repeats", "repeats_collapsed", "shared", "shared_collapsed")
        ]
        kept = np.concatenate([one.kept[question] for one in found])
        cells = [f"{column.mean():.2f}" for column in columns]
        lines.append(f"| {question} | {len(kept)} | " + " | ".join(cells) + f" | {kept.mean():.0%} |")
    known = ", ".join(f"{one.found:.0%}" for one in found)
    lines += ["", f"Planted copies known as such: {known}; tracks joined wrongly: {sum(one.wrong for one in found)}."]
    return "\n".join(lines)


def real_tables(folder: Path, seeds: Sequence[int]) -> list[tuple[str, list[Run]]]:
    """HetRec: a listener's splits are one cluster."""
    listening = read_listening(folder)
    vectors = encode_texts(listening.texts)
    names = [str(user) for user in range(listening.matrix.shape[0])]
    return [
        ("real listeners, from a profile", [Run(real_listener_questions(listening, vectors, s), names) for s in seeds]),
        (
            "real listeners, from one artist",
            [Run(real_neighbour_questions(listening, vectors, s), names) for s in seeds],
        ),
    ]


def worlds_tables(given: argparse.Namespace, started: float) -> list[str]:
    """Freemusic: every table, and what was chosen on validation."""
    base = prepared(given.work / "base", given.source, given.workers)
    shown: dict[str, list[Run]] = {}
    chosen, copies = [], []
    for seed in range(1, given.seeds + 1):
        one = trained_world(given.work / f"game-{seed}", base, given.source, seed, by_track=False)
        own = [one.clusters[row] for row in one.rows_of("test")]
        shown.setdefault("from words", []).append(Run(text_questions(one), own))
        shown.setdefault("from a track", []).append(Run(neighbour_questions(one), own))
        shown.setdefault("from a listener, SIMULATED", []).append(Run(listener_questions(one), None))
        copies.append(measure_copies(given.work / f"copies-{seed}", one, seed, given.workers))
        one = trained_world(given.work / f"track-{seed}", base, given.source, seed, by_track=True)
        measured, share = new_track_questions(one)
        shown.setdefault("new tracks, SIMULATED listeners", []).append(Run(measured, None))
        own = [one.clusters[row] for row in one.rows_of("test")]
        told, share_of_text = artist_text_questions(one)
        shown.setdefault("new tracks, from their text", []).append(Run(told, own))
        chosen.append(f"- {share}; {share_of_text}")
        print(f"seed {seed} done after {time.monotonic() - started:.0f} s", flush=True)
    parts = [f"\n{title}\n\n{table(runs)}" for title, runs in shown.items()]
    return [*parts, "\nShare of the artist chosen on validation, a seed each:", *chosen, f"\n{copies_table(copies)}"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("--work", type=Path, required=True, help="where libraries are made")
    parser.add_argument("--seeds", type=int, default=5, help="worlds of freemusic, 0 = none")
    parser.add_argument("--hetrec", type=Path, help="hetrec2011-lastfm-2k, unpacked; else no real listeners are asked")
    parser.add_argument("--real-seeds", type=int, default=5, help="splits of HetRec")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    started = time.monotonic()
    lines = worlds_tables(given, started) if given.seeds else []
    if given.hetrec:
        lines += [f"\n{title}\n\n{table(runs)}" for title, runs in real_tables(given.hetrec, range(given.real_seeds))]
    print(f"\n{time.monotonic() - started:.0f} s; brackets: minus '{AS_NOW}', paired, 95 %")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
