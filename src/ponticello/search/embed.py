"""Vectors of a whole library, one run at a time: resumable, and never mixed between models.

runs/<name>/vectors/<space id>/part-00000-<sha256>.parquet    track_id, mel_sha256, vector
runs/<name>/vectors/<space id>/jobs/part-...                  the same, by a job that does its shard

A track's vector depends, in its last bits, on the tracks that share its batch. So what is missing is cut into parts the
same way by every job and by a single process: only parts that a whole call has taken in count as done for the cut.
"""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.columns import TRACK_ID
from ponticello.data.store import FrameStore
from ponticello.errors import CheckpointError
from ponticello.library import replacing
from ponticello.model.front_end import frames_key
from ponticello.model.htcl import HTCL

logger = logging.getLogger(__name__)
JOBS = "jobs"  # a folder among the parts
PART_SIZE = 512  # tracks embedded between two writes: what an interrupted run repeats at most


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of tracks: row i of `matrix` (n, d) float32 belongs to `track_ids[i]`; ids are sorted."""

    track_ids: list[str]
    matrix: np.ndarray
    space_id: str


def run_config(run: Path) -> Config:
    """The settings the model in `run` was made with; CheckpointError if there is no model, or its config is damaged."""
    path = run / "config.json"
    if not path.is_file() or not (run / "model.safetensors").is_file():
        raise CheckpointError(f"{run} holds no model; train it with: ponticello train")
    try:
        return Config.model_validate(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def space_id(run: Path) -> str:
    """Names the space a model folder puts vectors in: a hash of its weights and of what it does to its input."""
    config = run_config(run)
    with (run / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(served_vector(run).encode())
    digest.update(config.model_dump_json(include={"front_end", "mel", "audio", "text", "heads"}).encode())
    return digest.hexdigest()[:12]


def served_vector(run: Path) -> str:
    """What stands for a track that has a text under the model in `run`: "audio" alone, or "fused" with the text."""
    vector: str = json.loads((run / "config.json").read_text(encoding="utf-8")).get("vector", "audio")
    return vector


def front_end_weights(run: Path) -> str:
    """The weights of the front end that the model in `run` was trained over; "" where its settings say it all."""
    weights: str = json.loads((run / "config.json").read_text(encoding="utf-8")).get("front_end_weights", "")
    return weights


def embed_library(
    run: Path,
    store: FrameStore,
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[Vectors, int]:
    """Vectors of every prepared track under the model in `run`, and how many were computed now.

    texts: by track id; where the model serves fused vectors a track with a text gets its fused one. Without `texts` all
        vectors are of the audio alone.
    What an earlier, also an interrupted, call has written is kept; a track whose mel, or text where it counts, changed
    is embedded again, and what jobs have done (`embed_shard`) is taken in. Deterministic; a vector does not depend on
    the tracks beside it (to 1e-5). LibraryError if the mels were prepared with other settings than the model's.
    """
    parts, sources = _parts_of(run, store, texts)
    done = read_parts(parts, sources)
    n_new = 0
    jobs = read_parts(parts / JOBS, sources)
    for number, chunk, matrix in _embed(run, parts, sources, done, jobs, None, batch_size):
        if matrix is None:
            done.update({track_id: jobs[track_id] for track_id in chunk})
        else:
            _write_part(parts, number, sources, chunk, matrix)
            done.update(zip(chunk, matrix, strict=True))
            n_new += len(chunk)
        if on_progress:
            on_progress(len(done), len(store))
    _take_in(parts)
    track_ids = sorted(done)
    vectors = Vectors(track_ids, np.stack([done[track_id] for track_id in track_ids]), space_id(run))
    return vectors, n_new


def embed_shard(
    run: Path,
    store: FrameStore,
    shard: tuple[int, int],
    on_progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
    texts: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Does part `shard` (i, n), from 1, of what `embed_library` would; how many tracks that is, and how many now.

    Any number of jobs may do their shards at once; `embed_library`, once they are done, takes them in, does what is
    missing, and gives the bytes it would have given alone. Tracks go to jobs in lots of `PART_SIZE`, neighbours by
    length, so that with more jobs than lots some have nothing to do.
    """
    parts, sources = _parts_of(run, store, texts)
    done, jobs = read_parts(parts, sources), read_parts(parts / JOBS, sources)
    own = [chunk for _, chunk in _of_shard(_plan(store, done), shard)]
    n_tracks, n_done, n_new = sum(map(len, own)), 0, 0
    for number, chunk, matrix in _embed(run, parts, sources, done, jobs, shard, batch_size):
        n_done += len(chunk)
        if matrix is not None:
            _write_part(parts / JOBS, number, sources, chunk, matrix)
            n_new += len(chunk)
        if on_progress:
            on_progress(n_done, n_tracks)
    return n_tracks, n_new


def _parts_of(run: Path, store: FrameStore, texts: Mapping[str, str] | None) -> tuple[Path, "_Sources"]:
    """Where the vectors of `run` lie, and what they are made of; LibraryError as `embed_library`."""
    store.require(frames_key(run_config(run), front_end_weights(run)))
    space = space_id(run)
    told = texts if texts is not None and served_vector(run) == "fused" else None
    return run / "vectors" / (space if told is None else f"{space}-fused"), _Sources(store, told)


def _plan(store: FrameStore, done: Mapping[str, np.ndarray]) -> list[list[str]]:
    """What is missing, in chunks of `PART_SIZE`; tracks of like length share a batch."""
    missing = sorted((track_id for track_id in store.track_ids if track_id not in done), key=store.n_frames)
    return [missing[start : start + PART_SIZE] for start in range(0, len(missing), PART_SIZE)]


def _of_shard(chunks: list[list[str]], shard: tuple[int, int] | None) -> list[tuple[int, list[str]]]:
    """The chunks of one shard, each with its place among all of them; of None all."""
    numbered = list(enumerate(chunks))
    return numbered if shard is None else [chunk for chunk in numbered if chunk[0] % shard[1] == shard[0] - 1]


def _embed(
    run: Path,
    parts: Path,
    sources: "_Sources",
    done: Mapping[str, np.ndarray],
    jobs: Mapping[str, np.ndarray],
    shard: tuple[int, int] | None,
    batch_size: int,
) -> Iterator[tuple[int, list[str], np.ndarray | None]]:
    """Each chunk that is not `done` with its part's number and vectors; None where jobs have them already."""
    store, told = sources.store, sources.texts
    chunks, first, model = _plan(store, done), _next_part(parts), None
    for place, chunk in _of_shard(chunks, shard):
        if all(track_id in jobs for track_id in chunk):
            yield first + place, chunk, None
            continue
        model = model or HTCL.from_pretrained(run)
        mels = [store.read(track_id) for track_id in chunk]
        if told is None:
            yield first + place, chunk, model.encode_mels(mels, batch_size)
        else:
            words = model.encode_text_states([told.get(track_id, "") for track_id in chunk], batch_size)
            yield first + place, chunk, model.encode_fused(mels, words, batch_size)


def _take_in(parts: Path) -> None:
    """Moves what jobs wrote among the other parts: they count as done from now on."""
    for part in sorted((parts / JOBS).glob("part-*.parquet")):
        part.replace(parts / part.name)


class _Sources:
    """What each track's vector is made of, as a hash: its frames, and its text where that counts."""

    def __init__(self, store: FrameStore, texts: Mapping[str, str] | None) -> None:
        self.store, self.texts = store, texts

    def sha256(self, track_id: str) -> str:
        own = self.store.sha256(track_id)
        if self.texts is None:
            return own
        return hashlib.sha256(f"{own} {self.texts.get(track_id, '')}".encode()).hexdigest()


def read_parts(parts: Path, sources: _Sources) -> dict[str, np.ndarray]:
    """The vectors written so far that still belong to a track's present mel; a damaged part counts as not written."""
    kept: dict[str, np.ndarray] = {}
    for part in sorted(parts.glob("part-*.parquet")):
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


def _next_part(parts: Path) -> int:
    return 1 + max((int(part.stem.split("-")[1]) for part in parts.glob("part-*.parquet")), default=-1)


def _write_part(parts: Path, number: int, sources: _Sources, track_ids: list[str], matrix: np.ndarray) -> None:
    table = pl.DataFrame(
        {TRACK_ID: track_ids, "mel_sha256": [sources.sha256(track_id) for track_id in track_ids], "vector": matrix},
        schema_overrides={"vector": pl.Array(pl.Float32, matrix.shape[1])},
    )
    data = io.BytesIO()
    table.write_parquet(data)
    sha256 = hashlib.sha256(data.getvalue()).hexdigest()
    with replacing(parts / f"part-{number:05d}-{sha256}.parquet") as temporary:
        temporary.write_bytes(data.getvalue())
