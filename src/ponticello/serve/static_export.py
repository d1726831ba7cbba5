"""The explorer as a folder of files: it opens from any file server and needs no service.

All answers are written in advance: the catalogue, the maps, and for each track its nearest tracks
at five blends, with their unweighted scores in each space, so that the page can rank them at any
blend exactly. The only listener data is their number; paths of files are not written.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ponticello.errors import LibraryError
from ponticello.library import Library
from ponticello.serve.app import EXPLORER
from ponticello.serve.catalog import tracks_of
from ponticello.serve.projection import load_kept_projection, map_json
from ponticello.serve.routes.library import library_info
from ponticello.serve.security import HEADERS
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.files import atomic_write
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.names import lead_artist

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # blends whose nearest tracks are kept
NEAREST = 30  # tracks at each of them
TRACKS_A_FILE = 64  # tracks per file of nearest tracks: about 100 kB, fetched on demand
DECIMALS = 5  # of a component; scores are of order 1
_SPARE = 30  # duplicates that can be skipped before all tracks are ranked again
_SERVICE = '<meta name="ponticello-source" content="service">'
_FOLDER = '<meta name="ponticello-source" content="folder">'


@dataclass(frozen=True)
class Exported:
    """Counts of an export. n_indexed: tracks with similar tracks."""

    folder: Path
    n_tracks: int
    n_indexed: int
    n_bytes: int


def export_explorer(
    library: Library, target: Path, on_progress: Callable[[int, int], None] | None = None
) -> Exported:
    """Writes the explorer over `library` as the folder `target`, whole or not at all.

    An earlier export is replaced; LibraryError for any other folder that is not empty, and for a
    library without an index. on_progress: called with tracks done and tracks in all.
    Cost: n * n * d, and the maps if they were never drawn.
    """
    _require_ours(target)
    snapshot = Snapshot(library, ())
    if snapshot.index is None:
        raise LibraryError(snapshot.problems[0].message)
    n_tracks = snapshot.tracks.height
    with atomic_write(target) as folder:
        ignore = shutil.ignore_patterns("*.html")
        shutil.copytree(EXPLORER, folder / "static", ignore=ignore)
        (folder / "index.html").write_text(_page(), encoding="utf-8")
        data = folder / "data"
        data.mkdir()
        _write(data / "library.json", _about(snapshot))
        recordings = _recordings(snapshot)
        indexed_ids = snapshot.index.track_ids
        catalog_rows = np.array([snapshot.rows.get(track_id, -1) for track_id in indexed_ids])
        _write(data / "tracks.json", {"tracks": _tracks(snapshot, recordings)})
        maps = load_kept_projection(library.folder, snapshot.index, snapshot.generation or "")
        (data / "map.json").write_bytes(map_json(snapshot, maps))
        for first in range(0, n_tracks, TRACKS_A_FILE):
            rows = range(first, min(first + TRACKS_A_FILE, n_tracks))
            near = _neighbours(snapshot, rows, catalog_rows, recordings)
            _write(data / f"near-{first // TRACKS_A_FILE}.json", near)
            if on_progress:
                on_progress(rows.stop, n_tracks)
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Exported(target, n_tracks, snapshot.service.tracks.height, n_bytes)


def _require_ours(target: Path) -> None:
    """Raises LibraryError unless `target` is new, empty or an earlier export."""
    if not target.exists():
        return
    if not target.is_dir():
        raise LibraryError(f"{target} is a file; name a folder for the explorer")
    page = target / "index.html"
    is_ours = page.is_file() and _FOLDER in page.read_text(encoding="utf-8", errors="replace")
    if any(target.iterdir()) and not is_ours:
        raise LibraryError(
            f"{target} holds other files; name a new or empty folder for the explorer"
        )


def _page() -> str:
    """Returns the page for a folder without a service, with the policy of the service's headers."""
    # Only a header can set frame-ancestors.
    policy = HEADERS["Content-Security-Policy"].replace("; frame-ancestors 'none'", "")
    page = (EXPLORER / "index.html").read_text(encoding="utf-8")
    assert _SERVICE in page
    return page.replace(
        _SERVICE, f'{_FOLDER}\n  <meta http-equiv="Content-Security-Policy" content="{policy}">'
    )


def _about(snapshot: Snapshot) -> dict[str, Any]:
    return {
        **library_info(snapshot),
        "one_space": snapshot.service.one_space,
        "name": snapshot.library.folder.root.name,
        "version": version("ponticello"),
        "columns": [],
        "filter_values": {},
        "problems": [],
        "can_search_text": False,
        "can_hear": False,
        "limits": {},
        "tracks_a_file": TRACKS_A_FILE,
    }


def _recordings(snapshot: Snapshot) -> np.ndarray:
    index = snapshot.service.index
    if not snapshot.library.folder.config.search.deduplicate_recordings:
        return np.arange(len(index.track_ids))
    return np.unique(index.recordings, return_inverse=True)[1]


def _tracks(snapshot: Snapshot, recordings: np.ndarray) -> list[dict[str, Any]]:
    """Returns the tracks with `lead`, the lead artist, and the number of the `recording`."""
    tracks = tracks_of(snapshot, snapshot.tracks[TRACK_ID].to_list())
    for track in tracks:
        row = track["row"]
        track["lead"] = lead_artist(track["artist"])
        track["recording"] = None if row is None else int(recordings[row])
    return tracks


def _neighbours(
    snapshot: Snapshot, rows: range, catalog_rows: np.ndarray, recordings: np.ndarray
) -> dict[str, list[list[float]]]:
    """Returns {row of the catalogue: [[another's row, semantic, preference], ...]} for those of
    `rows` that are in the index.

    The others are among the `NEAREST` at one of `BLENDS`. semantic: the unweighted component at
    blend 0, preference: at 1; 0 before stage two. catalog_rows: (n,) of the index's rows; -1 = not
    in the catalogue any more. recordings: as `_recordings`.
    """
    index = snapshot.service.index
    catalog_ids = snapshot.tracks[TRACK_ID][rows.start : rows.stop].to_list()
    track_ids = [track_id for track_id in catalog_ids if track_id in index.rows]
    if not track_ids:
        return {}
    query = index.track_query(track_ids)
    semantic = index.scores(query, 0.0)
    preference = index.scores(query, 1.0) if index.has_preference else None
    neighbours = {}
    for number, track_id in enumerate(track_ids):
        row = index.rows[track_id]
        allowed = (catalog_rows >= 0) & (recordings != recordings[row])
        row_preference = None if preference is None else preference[number]
        near = nearest_at_any(semantic[number], row_preference, allowed, recordings)
        scores = np.zeros((len(near), 2))
        scores[:, 0] = semantic[number][near]
        if row_preference is not None:
            scores[:, 1] = row_preference[near]
        near_rows = catalog_rows[near].tolist()
        entries = zip(near_rows, scores.round(DECIMALS).tolist(), strict=True)
        neighbours[str(catalog_rows[row])] = [[near_row, *pair] for near_row, pair in entries]
    return neighbours


def nearest_at_any(
    semantic: np.ndarray, preference: np.ndarray | None, allowed: np.ndarray, recordings: np.ndarray
) -> list[int]:
    """Returns the `allowed` rows that are among the nearest at one of `BLENDS`, sorted."""
    nearest: set[int] = set()
    for blend in BLENDS if preference is not None else BLENDS[:1]:
        scores = semantic
        if preference is not None:
            scores = (1 - blend) * semantic + blend * preference
        nearest.update(_best(np.where(allowed, scores, -np.inf), recordings))
    return sorted(nearest)


def _best(scores: np.ndarray, recordings: np.ndarray) -> list[int]:
    n = min(NEAREST + _SPARE, len(scores))
    while True:
        first = np.argpartition(-scores, n - 1)[:n] if n < len(scores) else np.arange(len(scores))
        order = first[np.lexsort((first, -scores[first]))]
        order = order[np.isfinite(scores[order])]
        order = order[np.sort(np.unique(recordings[order], return_index=True)[1])]
        if len(order) >= NEAREST or n == len(scores):
            return [int(row) for row in order[:NEAREST]]
        n = len(scores)


def _write(path: Path, value: Any) -> None:
    path.write_text(
        json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
        encoding="utf-8",
    )
