"""How a run's vectors lie on disk, in parts that are written once.

runs/<name>/vectors/<space id>/part-00000-<sha256>.parquet    track_id, mel_sha256, vector
runs/<name>/vectors/<space id>/jobs/part-...                  the same, by a job, until a whole call takes them in
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.data.columns import TRACK_ID
from ponticello.data.store import FrameStore
from ponticello.library import replacing

logger = logging.getLogger(__name__)
JOBS = "jobs"  # a folder among the parts
PARTS = "part-*.parquet"


class Sources:
    """What each track's vector is made of, as a hash: its frames, and its text where that counts."""

    def __init__(self, store: FrameStore, texts: Mapping[str, str] | None) -> None:
        self.store, self.texts = store, texts

    def sha256(self, track_id: str) -> str:
        """Hex; another where the vector has to be made again."""
        own = self.store.sha256(track_id)
        if self.texts is None:
            return own
        return hashlib.sha256(f"{own} {self.texts.get(track_id, '')}".encode()).hexdigest()


def read_parts(parts: Path, sources: Sources) -> dict[str, np.ndarray]:
    """The vectors written so far that still belong to a track's present mel; a damaged part counts as not written."""
    kept: dict[str, np.ndarray] = {}
    for part in sorted(parts.glob(PARTS)):
        data = part.read_bytes()
        if hashlib.sha256(data).hexdigest() != part.stem.split("-")[-1]:
            logger.warning("%s is damaged: its vectors are computed again", part)
            continue
        table = pl.read_parquet(io.BytesIO(data))
        matrix = table["vector"].to_numpy()
        for track_id, sha256, vector in zip(table[TRACK_ID], table["mel_sha256"], matrix, strict=True):
            if track_id in sources.store and sources.sha256(track_id) == sha256:
                kept[track_id] = vector
    return kept


def next_part(parts: Path) -> int:
    """The number after the highest among the parts; of jobs' parts none counts."""
    return 1 + max((int(part.stem.split("-")[1]) for part in parts.glob(PARTS)), default=-1)


def write_part(parts: Path, number: int, sources: Sources, track_ids: list[str], matrix: np.ndarray) -> None:
    """Writes the vectors (n, d) float32 of `track_ids`, row by row, as one part."""
    table = pl.DataFrame(
        {TRACK_ID: track_ids, "mel_sha256": [sources.sha256(track_id) for track_id in track_ids], "vector": matrix},
        schema_overrides={"vector": pl.Array(pl.Float32, matrix.shape[1])},
    )
    data = io.BytesIO()
    table.write_parquet(data)
    sha256 = hashlib.sha256(data.getvalue()).hexdigest()
    with replacing(parts / f"part-{number:05d}-{sha256}.parquet") as temporary:
        temporary.write_bytes(data.getvalue())


def take_in(parts: Path) -> None:
    """Moves what jobs wrote among the other parts: they count as done from now on."""
    for part in sorted((parts / JOBS).glob(PARTS)):
        part.replace(parts / part.name)
