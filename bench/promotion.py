"""What 1 % fake listeners can do for one track: its exposure@10 with and without the caps of mining, in Markdown.

    python bench/promotion.py

A made-up log (`bench/listening.py`), and then the same with fakes who do nothing but put one track beside others, in
every way that mining listens to: liked by the same listener, in one sitting, set off by the other. Exposure@10 is the
number of tracks in whose list of ten partners the track stands; a list holds a track's pairs, those with the most
listeners over all sources first, ids breaking ties.
"""

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from listening import make_library
from ponticello.config import PairsConfig
from ponticello.data.interactions import read_interactions
from ponticello.data.pairs import mine_pairs

NO_CAP = 10**9
SETTINGS = {
    "no caps": PairsConfig(max_pairs_per_user=NO_CAP, max_pairs_per_track=NO_CAP),
    "50 pairs a track": PairsConfig(max_pairs_per_track=50),
    "default": PairsConfig(),
    "no hits": PairsConfig(max_listener_share=0.05),
    "twice chance": PairsConfig(min_lift=2),
}
N_PARTNERS = 39  # that a fake puts the track beside: with it, as many as mining reads from one listener
FIRST_LISTED = 10


def exposure(pairs: pl.DataFrame) -> dict[str, int]:
    """{track: in how many tracks' lists of ten it stands}."""
    both = [pairs.select(track=a, partner=b, n="n_users") for a, b in (_ENDS, _ENDS[::-1])]
    merged = pl.concat(both).group_by("track", "partner").agg(pl.sum("n"))
    ranked = merged.sort("track", "n", "partner", descending=[False, True, False])
    listed = ranked.group_by("track", maintain_order=True).head(FIRST_LISTED)
    return dict(listed.group_by("partner").len().iter_rows())


_ENDS = ("anchor_id", "positive_id")


def fakes(
    log: pl.DataFrame, target: str, share: float, partners: list[str], generator: np.random.Generator
) -> pl.DataFrame:
    """`log` with fake listeners, `share` of the real ones, who put `target` beside tracks drawn from `partners`."""
    n_fakes = round(share * log["user_id"].n_unique())
    first = log["played_at"].min()
    assert first is not None
    rows: list[tuple[object, ...]] = []
    for number in range(n_fakes):
        chosen = generator.choice(len(partners), size=min(N_PARTNERS, len(partners)), replace=False)
        for place, other in enumerate(partners[int(row)] for row in chosen):
            user, at = f"fake-{number}", first + timedelta(minutes=place * 10)  # type: ignore[operator]
            rows.append((user, other, at, "like", None))
            rows.append((user, target, at + timedelta(minutes=1), "like", other))
    schema = ["user_id", "track_id", "played_at", "event", "context_track_id"]
    made = pl.DataFrame(rows, schema=schema, orient="row", schema_overrides={"played_at": pl.Datetime("us", "UTC")})
    return pl.concat([log, made], how="diagonal")


def main(
    events: Annotated[int, typer.Option(help="Of the real log; there is a listener for every hundred.")] = 300_000,
    share: Annotated[float, typer.Option(help="Fake listeners, as a share of the real ones.")] = 0.01,
    targets: Annotated[int, typer.Option(help="Tracks promoted, one at a time, of all degrees of exposure.")] = 5,
    seed: int = 0,
) -> None:
    """Mines with and without fakes, setting by setting."""
    with tempfile.TemporaryDirectory() as work:
        log = read_interactions(make_library(Path(work) / "library", events, seed))
    popular = log.group_by("track_id").len().sort("len", "track_id", descending=[True, False])["track_id"].to_list()
    plain = exposure(mine_pairs(log, SETTINGS["default"])[0])
    shown = sorted(plain, key=lambda track: (plain[track], track))
    promoted = [shown[int((number + 0.5) / targets * len(shown))] for number in range(targets)]
    print("| settings | beside | before | after | most times | median times |")
    print("|---|---|---|---|---|---|")
    for name, config in SETTINGS.items():
        before = exposure(mine_pairs(log, config)[0])
        for beside, partners in (
            ("the 39 greatest hits", popular[:N_PARTNERS]),
            ("any of the 500 most heard", popular[:500]),
        ):
            generator = np.random.default_rng(seed)
            after = []
            for target in promoted:
                others = [track for track in partners if track != target]
                found = exposure(mine_pairs(fakes(log, target, share, others, generator), config)[0])
                after.append(found.get(target, 0))
            base = [before.get(target, 0) for target in promoted]
            times = [_times(new, old) for new, old in zip(after, base, strict=True)]
            cells = [name, beside, str(base), str(after), f"{max(times):.1f}", f"{np.median(times):.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def _times(new: int, old: int) -> float:
    """How much more `new` is; nothing stays nothing."""
    return 1.0 if new == old else new / old if old else float("inf")


if __name__ == "__main__":
    typer.run(main)
