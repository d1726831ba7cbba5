"""What an evaluation was made of, for its report; and all seeds of one, summarised."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version

import polars as pl

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import USER_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.listeners import USER_PREFIX
from ponticello.data.splits import describe, load_splits, splits_sha256
from ponticello.errors import LibraryError
from ponticello.evaluate.figures import About, Evaluation, Summary
from ponticello.evaluate.joint import Compared, evaluate_library
from ponticello.evaluate.summary import summarise
from ponticello.library import Folder
from ponticello.model.space import space_id


def evaluate_seeds(
    folder: Folder, by_seed: Sequence[Compared], command: str, say: Callable[[str], None]
) -> tuple[Summary, list[Evaluation]]:
    """Measures every seed's runs on the same held-out tracks and events, and draws figures, tests and claims from all.

    by_seed: what to compare, one a seed; the i-th gets baselines with seed `evaluate.seed` + i. command: as typed, for
    the report. LibraryError and DataError as `evaluate_library`.
    """
    seeds = tuple(folder.config.evaluate.seed + number for number in range(len(by_seed)))
    evaluations = []
    for number, (seed, compared) in enumerate(zip(seeds, by_seed, strict=True), 1):
        prefix = f"seed {number} of {len(seeds)}, " if len(seeds) > 1 else ""
        evaluations.append(evaluate_library(folder, compared, seed, partial(_say, say, prefix)))
    about = _about(folder, by_seed, seeds, command)
    return summarise(evaluations, about, folder.config), evaluations


def _named(folder: Folder, run: str) -> str:
    """A run and the space it puts vectors in, which no other model has."""
    return f"{run} (space {space_id(folder.run(run))})"


def _say(say: Callable[[str], None], prefix: str, step: str) -> None:
    say(prefix + step)


def _about(folder: Folder, by_seed: Sequence[Compared], seeds: tuple[int, ...], command: str) -> About:
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError("nothing is held out yet; run: ponticello pairs")
    log = read_interactions(folder) if folder.interactions.is_file() else pl.DataFrame({USER_ID: []})
    runs = {
        method: ", ".join(_named(folder, compared.runs[method]) for compared in by_seed) for method in by_seed[0].runs
    }
    return About(
        library=folder.root.name,
        version=version("ponticello"),
        preset=folder.config.preset,
        runs=runs | {method: path.name for method, path in by_seed[0].files.items()},
        n_tracks=read_tracks(folder).height,
        n_listeners=log[USER_ID].n_unique(),
        n_events=log.height,
        held_out=describe(splits),
        splits_sha256=splits_sha256(splits),
        seeds=seeds,
        command=command,
        is_simulated=bool(log[USER_ID].cast(pl.String).str.starts_with(USER_PREFIX).any()),
    )
