"""Two plane maps of a library, one of meaning and one of taste, laid over each other so that tracks
can be followed.

t-SNE of at most `ANCHORS` tracks, evenly drawn; every other track is put between the three anchors
nearest to it. The map of taste begins where the map of meaning ends and is turned to lie as close
to it as it can. Kept in the library's `maps/`, by generation.

Source: van der Maaten and Hinton 2008 (t-SNE), by scikit-learn; Procrustes by scipy.
"""

import contextlib
import logging
import threading
from dataclasses import dataclass

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ponticello.search.index import EmbeddingIndex
from ponticello.serve.schemas import Map
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths

logger = logging.getLogger(__name__)
ANCHORS = 2_000  # t-SNE takes some ten seconds for them on one core
FULL = 65_535  # the far edge of a map
STRETCH = 1.7  # distances on such a map are no measure
MAX_SHIFTS = 200
_NEAREST = 3  # anchors between which another track lies
_NEIGHBOURS = 15  # by which it is told how far a track moved
_FEW = 5  # fewer tracks are put on a line
_BLOCK = 4_096  # rows compared with all anchors at once
_KEPT = 2  # generations with maps on disk


@dataclass(frozen=True)
class ProjectedSpaces:
    """Both maps of an index. semantic, preference: (n, 2) int64 in 0..FULL; preference is None
    before stage two. largest_shifts: rows, the ones that moved most first.
    """

    semantic: np.ndarray
    preference: np.ndarray | None
    largest_shifts: np.ndarray


def project_spaces(index: EmbeddingIndex, seed: int = 0) -> ProjectedSpaces:
    """Both maps of an index; the same every time. Cost: some 10 s a map, then n x ANCHORS x d."""
    n = len(index.track_ids)
    anchors = np.unique(np.linspace(0, n - 1, min(n, ANCHORS)).round().astype(np.int64))
    sides = [index.space_vectors(number) for number in range(len(index.spaces))]
    first = _plane(sides[0][anchors], None, seed)
    planes = [_between(sides[0], anchors, first)]
    if len(sides) == 2:
        second = _plane(sides[1][anchors], first, seed)
        planes.append(_between(sides[1], anchors, _turned(second, first)))
    moved = np.zeros(n) if len(sides) == 1 else _moved(sides, anchors)
    largest_shifts = np.argsort(-moved, kind="stable")[:MAX_SHIFTS]
    placed = [_scaled(plane) for plane in planes]
    return ProjectedSpaces(
        placed[0],
        placed[1] if len(placed) == 2 else None,
        largest_shifts[moved[largest_shifts] > 0],
    )


def _plane(vectors: np.ndarray, begin: np.ndarray | None, seed: int) -> np.ndarray:
    """(a, 2) of anchors' vectors; begin: where they lie at first."""
    if len(vectors) < _FEW:
        return np.stack([np.arange(len(vectors), dtype=np.float64), np.zeros(len(vectors))], axis=1)
    start = begin
    if start is None:
        start = PCA(2, random_state=seed).fit_transform(vectors)
    # As scikit-learn scales its own start.
    start = start / max(float(start[:, 0].std()), 1e-9) * 1e-4
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    layout = TSNE(
        2, perplexity=perplexity, init=start.astype(np.float32), random_state=seed, metric="cosine"
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


def _moved(sides: list[np.ndarray], anchors: np.ndarray) -> np.ndarray:
    """(n,) the share of a track's nearest anchors in one space that are not among them in the
    other.
    """
    n, k = len(sides[0]), min(_NEIGHBOURS, len(anchors))
    moved = np.zeros(n)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        semantic, _ = _nearest(sides[0][rows], sides[0][anchors], k)
        preference, _ = _nearest(sides[1][rows], sides[1][anchors], k)
        both = (semantic[:, :, None] == preference[:, None, :]).any(axis=2).sum(axis=1)
        moved[start : start + _BLOCK] = 1 - both / k
    return moved


def _nearest(vectors: np.ndarray, anchors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `k` anchors with the highest cosine, by number, and the cosines: (n, k) each."""
    cosines = vectors @ anchors.T
    near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return near, np.take_along_axis(cosines, near, axis=1)


def _scaled(plane: np.ndarray) -> np.ndarray:
    """The map in whole numbers from 0 to `FULL`; its shorter side is stretched by `STRETCH` at most
    to fill it.
    """
    low, high = plane.min(axis=0), plane.max(axis=0)
    size = np.maximum(high - low, max(float((high - low).max()) / STRETCH, 1e-9))
    offset = (size - (high - low)) / 2
    scaled: np.ndarray = ((plane - low + offset) / size * FULL).round().astype(np.int64)
    return scaled


class ProjectionCache:
    """Draws maps in a thread and keeps the latest; until then answers have `ready` false."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: dict[str, bytes] = {}
        self._drawing: str | None = None

    def map_of(self, snapshot: Snapshot) -> bytes:
        """The map of a snapshot as JSON of `Map`; drawing begins when it is first asked for."""
        index, generation = snapshot.service.index, snapshot.generation or ""
        with self._lock:
            if generation in self._drawn:
                return self._drawn[generation]
            if self._drawing != generation:
                self._drawing = generation
                threading.Thread(
                    target=self._draw, args=(snapshot,), name="draw-maps", daemon=True
                ).start()
        empty = Map(
            generation=generation, ready=False, kind="t-SNE", n=len(index.track_ids), track_ids=[], titles=[],
            artists=[], semantic=[], preference=None, largest_shifts=[],
        )  # fmt: skip
        return empty.model_dump_json().encode()

    def _draw(self, snapshot: Snapshot) -> None:
        try:
            maps = load_kept_projection(
                snapshot.library.folder, snapshot.service.index, snapshot.generation or ""
            )
            drawn = map_json(snapshot, maps)
            with self._lock:
                self._drawn = {snapshot.generation or "": drawn}
        except Exception:
            logger.exception("the maps could not be drawn")
        finally:
            with self._lock:
                self._drawing = None if self._drawing == snapshot.generation else self._drawing


def load_kept_projection(
    folder: LibraryPaths, index: EmbeddingIndex, generation: str
) -> ProjectedSpaces:
    """The maps of a generation, read from the library or drawn and, where it can be written to,
    kept there.
    """
    maps_folder = folder.root / "maps"
    path = maps_folder / f"{generation}.npy"
    n = len(index.track_ids)
    with contextlib.suppress(OSError, ValueError):
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (n, 5) and kept.dtype == np.int64:
            largest_shifts = np.argsort(kept[:, 4], kind="stable")[
                n - int((kept[:, 4] >= 0).sum()) :
            ]
            return ProjectedSpaces(
                kept[:, :2], kept[:, 2:4] if index.has_preference else None, largest_shifts
            )
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
    """The maps as JSON of `Map`."""
    placed = snapshot.service.tracks
    names = dict(
        zip(placed["track_id"], zip(placed["title"], placed["artist"], strict=True), strict=True)
    )
    ids = snapshot.service.index.track_ids
    both = [names.get(track_id, (None, None)) for track_id in ids]
    return (
        Map(
            generation=snapshot.generation or "",
            ready=True,
            kind="t-SNE",
            n=len(ids),
            track_ids=ids,
            titles=[title for title, _ in both],
            artists=[artist for _, artist in both],
            semantic=maps.semantic.ravel().tolist(),
            preference=None if maps.preference is None else maps.preference.ravel().tolist(),
            largest_shifts=maps.largest_shifts.tolist(),
        )
        .model_dump_json()
        .encode()
    )
