"""How fast and how complete the ways of finding tracks are, on one thread.

    python bench/search.py --tracks 1000000 --peers

Made-up vectors of two spaces of 100: each a mixture of 2,000 clusters of unlike size whose spectrum
falls as 1 / rank, the second space partly a turn of the first. Questions are draws of the same
mixture that are not in the index, at three positions of the dial. Prints Markdown; `--json FILE`
writes every figure.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # read when numpy and faiss are loaded
)

import numpy as np

from ponticello.search.embed import Vectors
from ponticello.search.faiss_index import best_rows, query_at_blend
from ponticello.search.generations import open_index, write_index
from ponticello.search.index import Calibration, CandidateFinder, VectorSpace, nearest_rows

DIALS = (0.0, 0.5, 1.0)
SIZE, PLACES, N_QUESTIONS = 100, 10, 200
N_CLUSTERS, SPREAD = (
    2_000,
    0.7,
)  # of the mixture; the spread is a track's distance from its cluster's centre
COMMON = 0.6  # of the second space: how much of it is the first
FILTER_SHARE = 0.05
PLAIN = Calibration(0.0, 1.0)


def made_up(n: int, seed: int) -> np.ndarray:
    """(n, 2 * SIZE) float32: two unit vectors a row."""
    generator = np.random.default_rng(seed)
    first, own = _mixture(n, 1, generator), _mixture(n, 2, generator)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((SIZE, SIZE)))[0].astype(
        np.float32
    )
    second = COMMON * first @ turn + (1 - COMMON**2) ** 0.5 * own
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.concatenate([first, second], axis=1)


def _mixture(n: int, world: int, generator: np.random.Generator) -> np.ndarray:
    """(n, SIZE) unit vectors drawn by `generator` from the mixture that `world` names."""
    fixed = np.random.default_rng(world)
    spectrum = (1.0 + np.arange(SIZE)) ** -0.5
    turn = np.linalg.qr(fixed.standard_normal((SIZE, SIZE)))[0]
    centres = fixed.standard_normal((N_CLUSTERS, SIZE)) * spectrum
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    shares = (1.0 + np.arange(N_CLUSTERS)) ** -0.7
    clusters = generator.choice(N_CLUSTERS, size=n, p=shares / shares.sum())
    found = np.empty((n, SIZE), dtype=np.float32)
    for start in range(0, n, 50_000):
        part = centres[clusters[start : start + 50_000]]
        part = part + SPREAD * generator.standard_normal(part.shape) * spectrum / np.linalg.norm(
            spectrum
        )
        found[start : start + 50_000] = part @ turn / np.linalg.norm(part, axis=1, keepdims=True)
    return found


def asked(
    top: Callable[[np.ndarray, int], np.ndarray],
    questions: np.ndarray,
    wanted: Sequence[np.ndarray] | np.ndarray,
) -> dict[str, float]:
    """Recall of the first `PLACES`, and the median time of a question in ms, by the clock and of
    the processor.
    """
    wall, own, hits = [], [], 0
    for query, rows in zip(questions, wanted, strict=True):
        began, began_own = time.perf_counter(), time.process_time()
        found = top(query, PLACES)
        wall.append(time.perf_counter() - began)
        own.append(time.process_time() - began_own)
        hits += len(np.intersect1d(found, rows))
    recall = hits / (PLACES * len(questions))
    return {"recall": recall, "p50_ms": median_ms(wall), "cpu_ms": median_ms(own)}


def median_ms(seconds: list[float]) -> float:
    """The median of `seconds`, in ms."""
    return round(float(np.median(seconds)) * 1000, 3)


def measured(
    finder: CandidateFinder | None, vectors: np.ndarray, questions: np.ndarray, n: int
) -> dict[str, Any]:
    """At each dial, of the first `n` questions; and at 0.5 among 5 % of the tracks, drawn at
    random.
    """
    top = partial(nearest_rows, vectors, finder=finder)
    found: dict[str, Any] = {}
    for dial in DIALS:
        at = query_at_blend(questions[:n], 2, dial)
        found[f"{dial:g}"] = asked(lambda q, k: top(q, k)[0], at, best_rows(vectors, at, PLACES))
    at = query_at_blend(questions[:n], 2, 0.5)
    allowed = np.flatnonzero(np.random.default_rng(4).random(len(vectors)) < FILTER_SHARE)
    wanted = [allowed[rows] for rows in best_rows(vectors[allowed], at, PLACES)]
    found["filter"] = asked(lambda q, k: top(q, k, allowed)[0], at, wanted)
    return found


@contextmanager
def timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """The block's seconds by the clock, as `name`_s, and of the processor, as `name`_cpu_s."""
    began, began_own = time.perf_counter(), time.process_time()
    yield
    into[f"{name}_s"] = round(time.perf_counter() - began, 2)
    into[f"{name}_cpu_s"] = round(time.process_time() - began_own, 2)


def faiss_of(vectors: np.ndarray, folder: Path, row: dict[str, Any]) -> CandidateFinder | None:
    """A generation with FAISS of `vectors`, opened; `row` gets the times, the files' size and the
    recall as built.
    """
    ids = [f"track-{number:07d}" for number in range(len(vectors))]
    sides = [Vectors(ids, vectors[:, :SIZE], "a"), Vectors(ids, vectors[:, SIZE:], "b")]
    spaces = [VectorSpace("one", "a", PLAIN, PLAIN), VectorSpace("two", "b", PLAIN, PLAIN)]
    with timed(row, "build"):
        generation = write_index(folder, sides[0], sides[1], spaces, backend="faiss")
    with timed(row, "open"):
        index = open_index(folder)
    row |= json.loads((generation / "index.json").read_text(encoding="utf-8"))["finder"]
    row["mb"] = round(sum(file.stat().st_size for file in generation.glob("*.faiss")) / 1e6)
    return index.finder


def peers(vectors: np.ndarray, questions: np.ndarray) -> dict[str, dict[str, Any]]:
    """hnswlib and usearch, those that are installed, by inner product over the same vectors."""
    rows: dict[str, dict[str, Any]] = {}
    for name, made in (("hnswlib", _hnswlib), ("usearch", _usearch)):
        row: dict[str, Any] = {}
        try:
            with timed(row, "build"):
                top = made(vectors)
        except ImportError:
            continue
        for dial in DIALS:
            at = query_at_blend(questions, 2, dial)
            row[f"{dial:g}"] = asked(top, at, best_rows(vectors, at, PLACES))
        rows[name] = row
    return rows


def _hnswlib(vectors: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=100)
    index.set_num_threads(1)
    index.add_items(vectors)
    index.set_ef(200)
    return lambda query, k: np.asarray(index.knn_query(query, k)[0][0])


def _usearch(vectors: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=100
    )
    index.expansion_search = 200
    index.add(np.arange(len(vectors)), vectors, threads=1)
    return lambda query, k: np.asarray(index.search(query, k, threads=1).keys)


def markdown(figures: dict[str, Any]) -> str:
    """The tables of docs/search-speed.md; in brackets the processor's time, which is the clock's on
    an idle machine.
    """
    lines = [
        "| | build s | recall@10, dial 0 / 0.5 / 1 | p50 ms | recall, 5 % filter | p50 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["ways"].items():
        at = [row[f"{dial:g}"] for dial in DIALS]
        recalls = " / ".join(f"{found['recall']:.3f}" for found in at)
        times = " / ".join(_ms(found) for found in at)
        narrow = row.get("filter")
        filtered = f"{narrow['recall']:.3f} | {_ms(narrow)}" if narrow else "- | -"
        build = _seconds(row, "build") if "build_s" in row else "-"
        lines.append(f"| {name} | {build} | {recalls} | {times} | {filtered} |")
    if figures.get("growth"):
        lines += [
            "",
            "| tracks | build s | open s, hashes checked | FAISS files MB |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {n:,} | {_seconds(row, 'build')} | {_seconds(row, 'open')} | {row['mb']} |"
            for n, row in figures["growth"].items()
        ]
    return "\n".join(lines)


def _ms(found: dict[str, float]) -> str:
    return f"{found['p50_ms']:.2f} [{found['cpu_ms']:.2f}]"


def _seconds(row: dict[str, Any], name: str) -> str:
    return f"{row[f'{name}_s']:.1f} [{row[f'{name}_cpu_s']:.1f}]"


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument(
        "--peers", action="store_true", help="hnswlib and usearch, if they are installed, too"
    )
    parser.add_argument(
        "--peer-tracks", type=int, default=100_000, help="how many the peers are measured on"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    both = made_up(options.tracks + N_QUESTIONS, 0)
    vectors, questions = both[: options.tracks], both[options.tracks :].copy()
    ways: dict[str, Any] = {}
    growth: dict[int, Any] = {}
    for n in (options.tracks // 10, options.tracks):
        with tempfile.TemporaryDirectory() as folder:
            row: dict[str, Any] = {}
            searched = faiss_of(vectors[:n], Path(folder), row)
            growth[n] = dict(row)
            if n == options.tracks:
                ways["exact"] = measured(None, vectors, questions, 30)
                ways["FAISS"] = row | measured(searched, vectors, questions, N_QUESTIONS)
    figures: dict[str, Any] = {"n_tracks": options.tracks, "ways": ways, "growth": growth}
    print(markdown(figures), flush=True)
    if options.peers:
        few = vectors[: options.peer_tracks]
        with tempfile.TemporaryDirectory() as folder:
            row = {}
            searched = faiss_of(few, Path(folder), row)
            beside = {"FAISS": row | measured(searched, few, questions, N_QUESTIONS)} | peers(
                few, questions
            )
        figures["peers"] = {"n_tracks": len(few), "ways": beside}
        print(f"\n{len(few):,} tracks\n\n" + markdown({"ways": beside, "growth": {}}))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
