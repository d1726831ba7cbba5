"""Two plane maps of a library, by semantic and by preference similarity, aligned with each other.

t-SNE of at most `ANCHORS` evenly spaced tracks; every other track is put between the three anchors
nearest to it. The preference map begins with the positions of the semantic map, and is turned to
lie as close to it as it can. Kept in the library's `maps/`, by generation.

Source: van der Maaten and Hinton 2008 (t-SNE), by scikit-learn; Procrustes by scipy.
"""

import contextlib
import logging
import threading
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ponticello.search.index import EmbeddingIndex
from ponticello.serve.schemas import Map
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ARTIST, TITLE, TRACK_ID

logger = logging.getLogger(__name__)
ANCHORS = 2_000  # t-SNE takes about ten seconds for them on one core
FULL = 65_535  # the far edge of a map
STRETCH = 1.7  # distances on such a map are no measure
MAX_SHIFTS = 200
_NEAREST = 3  # anchors between which another track lies
_NEIGHBOURS = 15  # anchors by which the shift of a track is measured
_FEW = 5  # fewer tracks are put on a line
_BLOCK = 4_096  # rows compared with all anchors at once
_KEPT = 2  # generations with maps on disk


@dataclass(frozen=True)
class ProjectedSpaces:
    """Both maps, (n, 2) int64 in 0..FULL, and the rows that moved most, the largest shift first."""

    semantic: np.ndarray
    preference: np.ndarray | None
    largest_shifts: np.ndarray


def project_spaces(index: EmbeddingIndex) -> ProjectedSpaces:
    """Returns both maps of an index. Cost: about 10 s per map, then n x ANCHORS x d."""
    n = len(index.track_ids)
    anchors = np.unique(np.linspace(0, n - 1, min(n, ANCHORS)).round().astype(np.int64))
    semantic = index.space_vectors(0)
    semantic_plane = _plane(semantic[anchors], None)
    semantic_map = _scaled(_between(semantic, anchors, semantic_plane))
    if not index.has_preference:
        return ProjectedSpaces(semantic_map, None, np.zeros(0, dtype=np.int64))
    preference = index.space_vectors(1)
    preference_plane = _plane(preference[anchors], semantic_plane)
    preference_plane = _turned(preference_plane, semantic_plane)
    preference_map = _scaled(_between(preference, anchors, preference_plane))
    shifts = _shifts(semantic, preference, anchors)
    largest_shifts = np.argsort(-shifts, kind="stable")[:MAX_SHIFTS]
    return ProjectedSpaces(semantic_map, preference_map, largest_shifts[shifts[largest_shifts] > 0])


def _plane(vectors: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """Returns (a, 2) positions of anchors. start: their first positions; None = by PCA."""
    if len(vectors) < _FEW:
        return np.stack([np.arange(len(vectors), dtype=np.float64), np.zeros(len(vectors))], axis=1)
    if start is None:
        start = PCA(2, random_state=0).fit_transform(vectors)
    # As scikit-learn scales its own start.
    start = start / max(float(start[:, 0].std()), 1e-9) * 1e-4
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    layout = TSNE(
        2, perplexity=perplexity, init=start.astype(np.float32), random_state=0, metric="cosine"
    )
    plane: np.ndarray = layout.fit_transform(vectors).astype(np.float64)
    return plane


def _turned(plane: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """`plane` turned or mirrored, about its middle, to lie as close to `onto` as it can."""
    centred = plane - plane.mean(axis=0)
    rotation, _ = orthogonal_procrustes(centred, onto - onto.mean(axis=0))
    turned: np.ndarray = centred @ rotation
    return turned


def _between(vectors: np.ndarray, anchors: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """(n, 2): anchors where they are, the others at the weighted mean of their nearest anchors."""
    placed = np.zeros((len(vectors), 2))
    k = min(_NEAREST, len(anchors))
    for start in range(0, len(vectors), _BLOCK):
        near, cosines = _nearest(vectors[start : start + _BLOCK], vectors[anchors], k)
        weights = 1 / np.maximum(1 - cosines, 1e-4)
        weights /= weights.sum(axis=1, keepdims=True)
        placed[start : start + _BLOCK] = np.einsum("nk,nkx->nx", weights, plane[near])
    placed[anchors] = plane
    return placed


def _shifts(semantic: np.ndarray, preference: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Returns (n,) the share of a track's nearest anchors that differ between the spaces."""
    n = len(semantic)
    k = min(_NEIGHBOURS, len(anchors))
    shifts = np.zeros(n)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        before, _ = _nearest(semantic[rows], semantic[anchors], k)
        after, _ = _nearest(preference[rows], preference[anchors], k)
        n_common = (before[:, :, None] == after[:, None, :]).any(axis=2).sum(axis=1)
        shifts[rows] = 1 - n_common / k
    return shifts


def _nearest(vectors: np.ndarray, anchors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `k` anchors with the highest cosine, by number, and the cosines: (n, k) each."""
    cosines = vectors @ anchors.T
    near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return near, np.take_along_axis(cosines, near, axis=1)


def _scaled(plane: np.ndarray) -> np.ndarray:
    """Returns the map in 0 to `FULL`; its shorter edge is stretched by `STRETCH` at most."""
    low = plane.min(axis=0)
    extent = plane.max(axis=0) - low
    size = np.maximum(extent, max(float(extent.max()) / STRETCH, 1e-9))
    offset = (size - extent) / 2
    scaled: np.ndarray = ((plane - low + offset) / size * FULL).round().astype(np.int64)
    return scaled


class ProjectionCache:
    """Draws maps in a thread and keeps the latest; until then answers have `ready` false."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: dict[str, bytes] = {}
        self._drawing: str | None = None

    def map_of(self, snapshot: Snapshot) -> bytes:
        """Returns the map of a snapshot as JSON of `Map`; the first call begins to draw it."""
        generation = snapshot.generation or ""
        with self._lock:
            if generation in self._drawn:
                return self._drawn[generation]
            if self._drawing != generation:
                self._drawing = generation
                threading.Thread(
                    target=self._draw, args=(snapshot,), name="draw-maps", daemon=True
                ).start()
        n = len(snapshot.service.index.track_ids)
        return Map(generation=generation, ready=False, n=n).model_dump_json().encode()

    def _draw(self, snapshot: Snapshot) -> None:
        generation = snapshot.generation or ""
        try:
            folder = snapshot.library.folder
            maps = load_kept_projection(folder, snapshot.service.index, generation)
            drawn = map_json(snapshot, maps)
            with self._lock:
                self._drawn = {generation: drawn}
        except Exception:
            logger.exception("the maps could not be drawn")
        finally:
            with self._lock:
                if self._drawing == generation:
                    self._drawing = None


def load_kept_projection(
    folder: LibraryPaths, index: EmbeddingIndex, generation: str
) -> ProjectedSpaces:
    """Reads the maps of a generation, or draws them and writes them if possible."""
    maps_folder = folder.root / "maps"
    path = maps_folder / f"{generation}.npy"
    n = len(index.track_ids)
    with contextlib.suppress(OSError, ValueError):
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (n, 5) and kept.dtype == np.int64:
            n_shifts = int((kept[:, 4] >= 0).sum())
            largest_shifts = np.argsort(kept[:, 4], kind="stable")[n - n_shifts :]
            preference = kept[:, 2:4] if index.has_preference else None
            return ProjectedSpaces(kept[:, :2], preference, largest_shifts)
    maps = project_spaces(index)
    table = np.full((n, 5), -1, dtype=np.int64)  # x, y, x, y, and the order of the largest shifts
    table[:, :2] = maps.semantic
    table[:, 2:4] = maps.semantic if maps.preference is None else maps.preference
    table[maps.largest_shifts, 4] = np.arange(len(maps.largest_shifts))
    with contextlib.suppress(OSError):  # a library that cannot be written to is still served
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, table, allow_pickle=False)
        files = sorted(maps_folder.glob("*.npy"), key=lambda file: -file.stat().st_mtime)
        for old in files[_KEPT:]:
            old.unlink()
    return maps


def map_json(snapshot: Snapshot, maps: ProjectedSpaces) -> bytes:
    """Returns the maps as JSON of `Map`."""
    track_ids = snapshot.service.index.track_ids
    catalog = snapshot.service.tracks.select(TRACK_ID, TITLE, ARTIST)
    indexed = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String})
    names = indexed.join(catalog, on=TRACK_ID, how="left", maintain_order="left")
    drawn = Map(
        generation=snapshot.generation or "",
        ready=True,
        n=len(track_ids),
        track_ids=track_ids,
        titles=names[TITLE].to_list(),
        artists=names[ARTIST].to_list(),
        semantic=maps.semantic.ravel().tolist(),
        preference=None if maps.preference is None else maps.preference.ravel().tolist(),
        largest_shifts=maps.largest_shifts.tolist(),
    )
    return drawn.model_dump_json().encode()
