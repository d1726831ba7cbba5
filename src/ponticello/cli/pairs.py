"""mine-pairs: the pairs of tracks that stage two learns from."""

from typing import TYPE_CHECKING

from ponticello.cli import options, output

if TYPE_CHECKING:
    from ponticello.pairs.mine import MiningResult
    from ponticello.storage.layout import LibraryPaths


def mine_pairs(
    library: options.LibraryPath = options.HERE,
    settings: options.Settings = None,
    engine: options.MiningEngine = "duckdb",
    memory: options.Memory = None,
    threads: options.Threads = None,
    temp: options.Temp = None,
    as_json: options.Json = False,
) -> None:
    """Mines pairs of tracks that listeners liked together, from training tracks and events only.

    \b
    Example:
    ponticello mine-pairs -L my-library --set pairs.min_users=3 --memory 4GB
    """
    from ponticello.pairs.engine import EngineOptions

    opened = options.open_library(library, settings)
    result = opened.mine_pairs(EngineOptions(engine, memory, threads, temp))
    record = {
        "n_pairs": result.n_pairs,
        "n_validation_pairs": result.n_validation_pairs,
        "funnel": dict(result.funnel.steps),
    }
    output.print_outcome(as_json, record, mining_lines(result, opened.folder))


def mining_lines(result: "MiningResult", folder: "LibraryPaths") -> list[str]:
    """Returns the funnel, the splits and the number of pairs."""
    splits = result.splits
    roles = list(splits.roles.values())
    counts = [f"{roles.count(role):,} {role}" for role in ("train", "validation", "test")]
    if splits.n_without_role:
        counts.append(f"{splits.n_without_role:,} without a role")
    limit = "events count for training before each listener's last two sessions"
    if splits.train_until:
        limit = f"events count for training before {splits.train_until:%Y-%m-%d %H:%M}"
    if splits.shares:
        limit = f"the log has no times: {splits.shares[0]:.0%} of each listener's tracks train"
    lines = [
        f"tracks: {', '.join(counts)}; {limit}",
        f"{result.n_pairs:,} pairs in {folder.pairs}, "
        f"{result.n_validation_pairs:,} held out for validation",
    ]
    return list(result.funnel.lines()) + list(result.notes) + lines
