"""How long a whole evaluation takes and how much memory, for many listeners and tracks: nothing is
sampled away.

    python bench/ranking.py --listeners 50000 --tracks 100000

Makes a library of synthetic listening and 128-d vectors in a temporary folder and runs `ponticello
evaluate --vectors` on it, in a process of its own; prints time, peak memory and the taste figures
of record. The listening is made up: only the time and the memory mean anything.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.listening.log import merge_interactions
from ponticello.pairs.mine import refresh_splits
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.tracks.catalog import merge_tracks

DIMENSIONS = 128
N_KINDS = 200  # of music; a listener likes three of them
EVENTS_EACH = 40  # a listener's plays, over a year
TRACKS_AN_ARTIST = 10
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def make_library(root: Path, n_listeners: int, n_tracks: int, seed: int) -> LibraryPaths:
    """A library with vectors.npz beside it: tracks of `N_KINDS` kinds, popular by a power law, and
    who played them.
    """
    generator = np.random.default_rng(seed)
    folder = create_library(root, "tiny")
    kinds = generator.integers(N_KINDS, size=n_tracks)
    ids = [f"track-{number:07d}" for number in range(n_tracks)]
    artists = [
        f"artist {number // TRACKS_AN_ARTIST} of kind {kind}"
        for number, kind in enumerate(kinds.tolist())
    ]
    merge_tracks(folder, pl.DataFrame({"track_id": ids, "artist": artists}), "synthetic tracks")
    order = np.argsort(kinds, kind="stable")
    starts = np.searchsorted(kinds[order], np.arange(N_KINDS + 1))
    users = np.repeat(np.arange(n_listeners), EVENTS_EACH)
    liked = generator.integers(N_KINDS, size=(n_listeners, 3))
    chosen = liked[users, generator.integers(3, size=len(users))]
    sizes = starts[chosen + 1] - starts[chosen]
    places = starts[chosen] + (sizes * generator.random(len(users)) ** 2).astype(
        np.int64
    )  # the first are popular
    seconds = generator.integers(365 * 24 * 3600, size=len(users))
    log = pl.DataFrame(
        {
            "user_id": [f"listener-{user:06d}" for user in users.tolist()],
            "track_id": [ids[row] for row in order[np.minimum(places, n_tracks - 1)].tolist()],
            "played_at": pl.Series(seconds * 1_000_000).cast(pl.Duration("us")) + FIRST_DAY,
            "event": ["complete"] * len(users),
        }
    )
    merge_interactions(folder, log, "synthetic listening")
    refresh_splits(folder)
    centres = generator.standard_normal((N_KINDS, DIMENSIONS))
    vectors = (centres[kinds] + 1.5 * generator.standard_normal((n_tracks, DIMENSIONS))).astype(
        np.float32
    )
    np.savez(root / "vectors.npz", ids=np.array(ids), vectors=vectors)
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints one line of JSON."""
    parser = argparse.ArgumentParser(description="Time and memory of a whole evaluation.")
    parser.add_argument("--listeners", type=int, default=50_000)
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], help="a setting, such as evaluate.baselines=['als']"
    )
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_library(Path(scratch) / "library", given.listeners, given.tracks, given.seed)
        command = [sys.executable, "-m", "ponticello", "evaluate", "-L", str(folder.root)]
        command += [word for setting in given.set for word in ("--set", setting)]
        began = time.perf_counter()
        subprocess.run(
            [*command, "--vectors", f"synthetic={folder.root / 'vectors.npz'}"],
            check=True,
            stdout=sys.stderr,
        )
        seconds = time.perf_counter() - began
        summary = json.loads((folder.report / "evaluation.json").read_text(encoding="utf-8"))
    shown = {
        f"{figure['task']}: {figure['method']}": round(figure["value"], 4)
        for figure in summary["figures"]
        if figure["section"] == "preference" and figure["of_record"]
    }
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # kilobytes on Linux
    record = {"listeners": given.listeners, "tracks": given.tracks, "seconds": round(seconds, 1)}
    print(json.dumps(record | {"peak_gib": round(peak / 2**30, 2), "NDCG@10": shown}))


if __name__ == "__main__":
    main()
