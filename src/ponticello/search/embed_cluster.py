"""Embedding by Ray: each worker loads the model once and does lot after lot, as a job with a shard would."""

from collections.abc import Callable, Mapping
from functools import partial

from ponticello.data.catalog import read_tracks
from ponticello.data.cluster import Task, on_ray
from ponticello.data.store import FrameStore
from ponticello.data.text import fused_texts
from ponticello.library import Folder
from ponticello.model.front_end import frames_for
from ponticello.model.space import run_config
from ponticello.search.embed import Lots
from ponticello.search.parts import JOBS


def embed_on_ray(
    folder: Folder,
    run: str,
    store: FrameStore,
    texts: Mapping[str, str] | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Has Ray compute what the vectors of `run` lack, for `embed_library` to take in; how many those were.

    The caller holds `folder.lock()`; every worker must see the library under the same path. What was done before an
    error is kept. Errors: as of `Lots`; ConfigError without Ray; PonticelloError where a worker failed.
    """
    lots = Lots(folder.run(run), store, texts)
    todo = [lot for lot in range(len(lots.lots)) if not lots.is_given(lot)]
    n_new = 0
    for n_tracks in on_ray(partial(_begin, folder, run, lots.lot_size), todo):
        n_new += n_tracks
        if on_progress:
            on_progress(n_new, sum(len(lots.lots[lot]) for lot in todo))
    return n_new


def _begin(folder: Folder, run: str, lot_size: int) -> Task:
    """What a worker does with the number of a lot; gives how many tracks it has."""
    config = run_config(folder.run(run))
    store, texts = frames_for(folder, config), fused_texts(read_tracks(folder), config.front_end)
    lots = Lots(folder.run(run), store, texts, lot_size=lot_size)
    return lambda lot: len(lots.compute(lot, lots.parts / JOBS))
