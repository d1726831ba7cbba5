"""The files of prepared mels: log-mel spectrograms at rest, as float16 in memory-mapped shards.

    mels/
      manifest.parquet   one row a track: shard, first row, frames, hash, and the source it was made from
      shard-00000.npy    (frames of many tracks, F) float16
      ...

A shard is never changed once it is there; the manifest is replaced whole and holds its own hash. Dimensions: T frames,
F mel bands.
"""

import hashlib
import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ponticello.errors import LibraryError
from ponticello.library import replacing

Mel = NDArray[np.float16]

MANIFEST = "manifest.parquet"
SCHEMA = {
    "track_id": pl.String(),
    "shard": pl.Int64(),
    "start": pl.Int64(),  # first row in the shard
    "n_frames": pl.Int64(),
    "sha256": pl.String(),  # hex, of the track's float16 bytes
    "source": pl.String(),  # path as given
    "source_size": pl.Int64(),  # bytes
    "source_mtime_ns": pl.Int64(),
    "mel_key": pl.String(),
}
AGAIN = "run: ponticello prepare"
_ARROW = {pl.Int64(): pa.int64(), pl.String(): pa.large_string()}
_ARROW_SCHEMA = pa.schema([(name, _ARROW[kind]) for name, kind in SCHEMA.items()])
_OWN_HASH = b"sha256"  # of all rows, among the Parquet file's metadata


def read_manifest(folder: Path) -> pl.DataFrame:
    """The manifest of a `mels` folder; LibraryError if it is missing or damaged."""
    path = folder / MANIFEST
    if not path.exists():
        raise LibraryError(f"{folder} holds no prepared mels ({MANIFEST} is missing); {AGAIN}")
    try:  # all by pyarrow: polars panics at some damaged files
        table = pq.read_table(path)
        table.validate(full=True)
        manifest = pl.DataFrame(pl.from_arrow(table.cast(_ARROW_SCHEMA)))
    except (OSError, ValueError, pa.ArrowException):
        table, manifest = pa.table({}), pl.DataFrame()
    written = (table.schema.metadata or {}).get(_OWN_HASH)  # none in a manifest that was written before it held one
    if manifest.schema != pl.Schema(SCHEMA) or written not in (None, _hash_rows(manifest)):
        raise LibraryError(f"{path} is damaged; delete it, then {AGAIN}")
    return manifest


def write_manifest(folder: Path, manifest: pl.DataFrame) -> None:
    """Replaces the manifest of a `mels` folder."""
    table = manifest.to_arrow().replace_schema_metadata({_OWN_HASH: _hash_rows(manifest)})
    with replacing(folder / MANIFEST) as temporary:
        pq.write_table(table, temporary)


def _hash_rows(manifest: pl.DataFrame) -> bytes:
    return hashlib.sha256(manifest.write_csv(include_header=False).encode()).hexdigest().encode()


def write_shard(folder: Path, mels: Sequence[Mel]) -> int:
    """Publishes mels, each (T, F), one after the other in a new shard, and gives its number."""
    number = 1 + max(_shard_numbers(folder), default=-1)
    shape = (sum(map(len, mels)), mels[0].shape[1])
    with replacing(_shard_path(folder, number)) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for mel in mels:
            file.write(np.ascontiguousarray(mel, dtype="<f2").data)
    return number


def adopt_shard(source: Path, number: int, folder: Path) -> int:
    """Moves a shard of another folder, on the same file system, to `folder`, and gives its number there."""
    own = 1 + max(_shard_numbers(folder), default=-1)
    _shard_path(source, number).rename(_shard_path(folder, own))
    return own


def open_shard(folder: Path, number: int) -> Mel:
    """A shard's rows: (frames, F) float16, read-only and in place; LibraryError if it is missing or damaged."""
    try:
        shard = np.load(_shard_path(folder, number), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError):  # the last three: its header
        raise damaged(folder, number) from None
    if not isinstance(shard, np.memmap) or shard.dtype != "<f2" or shard.ndim != 2:
        raise damaged(folder, number)
    return shard.view(np.ndarray)


def remove_unnamed_shards(folder: Path, manifest: pl.DataFrame) -> None:
    """Deletes the shards that no row of the manifest names."""
    for number in set(_shard_numbers(folder)) - set(manifest["shard"]):
        _shard_path(folder, number).unlink()


def damaged(folder: Path, number: int) -> LibraryError:
    """The error for a shard that cannot be read."""
    return LibraryError(f"{_shard_path(folder, number)} is missing or damaged; delete it, then {AGAIN}")


def hash_mel(mel: Mel) -> str:
    """The SHA-256 of a mel's bytes, in hex."""
    return hashlib.sha256(np.ascontiguousarray(mel, dtype="<f2").data).hexdigest()


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _shard_numbers(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.npy")]
