"""Which tracks are one recording, so that an answer can hold it once: kept with the index, and up to date with it."""

from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ponticello.data.columns import TRACK_ID
from ponticello.data.duplicates import OTHER_ID, near_duplicates
from ponticello.data.shards import MANIFEST
from ponticello.data.store import FrameStore

MEL_SHA256, RECORDING = "mel_sha256", "recording"
SCHEMA = {TRACK_ID: pl.String(), MEL_SHA256: pl.String(), RECORDING: pl.String()}


def find_recordings(mels: Path, known: pl.DataFrame | None, hop_s: float) -> pl.DataFrame:
    """(track_id, mel_sha256, recording) of every track prepared in `mels`, by id; no row if nothing is prepared.

    recording: the smallest id of the tracks that `near_duplicates` joins, also in several steps. known: an earlier
    answer; only tracks that are new or have another mel since are compared, with all. hop_s: from one frame of a mel to
    the next. Cost: as `near_duplicates`, or none where nothing changed.
    """
    if not (mels / MANIFEST).exists():
        return pl.DataFrame(schema=SCHEMA)
    store = FrameStore(mels)
    now = pl.DataFrame(
        {TRACK_ID: store.track_ids, MEL_SHA256: [store.sha256(track_id) for track_id in store.track_ids]},
        schema={TRACK_ID: pl.String, MEL_SHA256: pl.String},
    )
    earlier = pl.DataFrame(schema=SCHEMA) if known is None else known.select(*SCHEMA)
    now = now.join(earlier, on=[TRACK_ID, MEL_SHA256], how="left", maintain_order="left")
    new = now.filter(pl.col(RECORDING).is_null())[TRACK_ID].to_list()
    pairs = near_duplicates(store, new, hop_s=hop_s)
    return now.with_columns(pl.Series(RECORDING, joined(now[TRACK_ID], now[RECORDING], pairs), dtype=pl.String))


def joined(track_ids: pl.Series, recordings: pl.Series, pairs: pl.DataFrame) -> list[str]:
    """The smallest id of each track's recording, from names of recordings (null = none yet) and pairs of one recording.

    pairs: track_id, other_id, all of them in `track_ids`.
    """
    place = {track_id: row for row, track_id in enumerate(track_ids)}
    first: dict[str, int] = {}
    edges = [(place[left], place[right]) for left, right in pairs.select(TRACK_ID, OTHER_ID).iter_rows()]
    edges += [(first.setdefault(name, row), row) for row, name in enumerate(recordings) if name is not None]
    left, right = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(edges)), (left, right)), shape=(len(place), len(place)))
    numbers = connected_components(graph, directed=False)[1] if len(place) else np.zeros(0, dtype=np.int64)
    smallest: dict[int, str] = {}
    for number, track_id in zip(numbers.tolist(), track_ids, strict=True):
        smallest[number] = min(track_id, smallest.get(number, track_id))
    return [smallest[number] for number in numbers.tolist()]
