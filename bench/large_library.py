"""A made-up library of any size that can be served: names, tags, listeners and vectors, but no
sound.

Its vectors lie in clusters, as music does; its models are the starter's, so that words cost what
they cost. Nothing in it describes a track or a person.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.datasets.simulated import USER_PREFIX
from ponticello.model.htcl import HTCL
from ponticello.model.saving import space_id
from ponticello.search.embed import Vectors
from ponticello.search.generations import write_index
from ponticello.search.index import VectorSpace, calibrate
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    EVENT,
    GENRES,
    PLAYED_AT,
    TAGS,
    TITLE,
    TRACK_ID,
    USER_ID,
)
from ponticello.train.runs import starter_run

WORDS = (
    "amber",
    "bell",
    "cloud",
    "dune",
    "echo",
    "fern",
    "glass",
    "harbour",
    "iris",
    "juniper",
    "kite",
    "lantern",
)
GENRE_NAMES = (
    "ambient",
    "blues",
    "classical",
    "electronic",
    "folk",
    "hip hop",
    "jazz",
    "metal",
    "pop",
    "rock",
)
TAG_NAMES = (
    "slow",
    "fast",
    "calm",
    "loud",
    "piano",
    "guitar",
    "strings",
    "singing",
    "dark",
    "bright",
)
TRACKS_A_CLUSTER, NOISE = 100, 0.6
TEXTS = tuple(f"{tag} {genre}" for tag in TAG_NAMES for genre in GENRE_NAMES)


def make_large_library(
    root: Path, n_tracks: int, n_listeners: int = 2_000, seed: int = 0
) -> LibraryPaths:
    """A library of `n_tracks` at `root`, embedded; one that is there already is left as it is."""
    if (root / "index" / "CURRENT").is_file():
        return open_library(root)
    generator = np.random.default_rng(seed)
    folder = create_library(root, "small")
    ids = [f"track-{number:07d}" for number in range(n_tracks)]
    _tracks(ids, generator).write_parquet(folder.tracks)
    run = starter_run(folder)
    model = HTCL.from_pretrained(run)
    texts = model.encode_text(list(TEXTS))
    sides, spaces = [], []
    for _ in range(2):
        matrix = _clustered(n_tracks, texts.shape[1], generator)
        sides.append(Vectors(ids, matrix, space_id(run)))
        spaces.append(
            VectorSpace(
                run.name, space_id(run), calibrate(matrix, matrix), calibrate(texts, matrix)
            )
        )
    write_index(folder.index, sides[0], sides[1], spaces)
    _listening(ids, n_listeners, generator).write_parquet(folder.interactions)
    return folder


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, int]]:
    """`ponticello serve` on a free port of this machine, ended in the end: its address and process
    id.
    """
    command = [sys.executable, "-m", "ponticello", "serve", "-L", str(root), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url, "the server did not start"
        yield url, server.pid
    finally:
        server.terminate()
        server.wait(30)


def _tracks(ids: list[str], generator: np.random.Generator) -> pl.DataFrame:
    n = len(ids)
    words = generator.integers(len(WORDS), size=(n, 2))
    artists = (n * generator.power(0.5, n) / 20).astype(int)
    return pl.DataFrame(
        {
            TRACK_ID: ids,
            TITLE: [
                f"{WORDS[one].title()} {WORDS[two]} {row}"
                for row, (one, two) in enumerate(words.tolist())
            ],
            ARTIST: [f"Artist {number}" for number in artists],
            ALBUM: [f"Album {number // 2}" for number in artists],
            GENRES: [
                [GENRE_NAMES[number]] for number in generator.integers(len(GENRE_NAMES), size=n)
            ],
            TAGS: [
                [TAG_NAMES[a], TAG_NAMES[b]]
                for a, b in generator.integers(len(TAG_NAMES), size=(n, 2))
            ],
        }
    )


def _clustered(n: int, d: int, generator: np.random.Generator) -> np.ndarray:
    """(n, d) float32 of unit length."""
    centres = generator.standard_normal((max(1, n // TRACKS_A_CLUSTER), d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[generator.integers(len(centres), size=n)] + NOISE / np.sqrt(
        d
    ) * generator.standard_normal((n, d))
    matrix: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _listening(ids: list[str], n_listeners: int, generator: np.random.Generator) -> pl.DataFrame:
    n_events = 60 * n_listeners
    start = datetime(2026, 1, 1, tzinfo=UTC)
    table = pl.DataFrame(
        {
            USER_ID: [
                f"{USER_PREFIX}{number:05d}"
                for number in generator.integers(n_listeners, size=n_events)
            ],
            TRACK_ID: [ids[row] for row in (len(ids) * generator.power(0.7, n_events)).astype(int)],
            PLAYED_AT: [
                start + timedelta(seconds=int(s))
                for s in generator.integers(3 * 10**7, size=n_events)
            ],
            EVENT: ["complete"] * n_events,
        }
    )
    return table.unique([USER_ID, TRACK_ID, PLAYED_AT]).sort(PLAYED_AT, USER_ID, TRACK_ID)
