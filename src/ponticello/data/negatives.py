"""What listeners turned away from after what: pairs that training may push apart."""

import polars as pl

from ponticello.config import PairsConfig
from ponticello.data.candidates import Candidates, one_row_a_listener
from ponticello.data.caps import cap_tracks
from ponticello.data.columns import ANCHOR_ID, N_USERS, NEGATIVE_ID, POSITIVE_ID, WEIGHT
from ponticello.data.evidence import refused_events
from ponticello.data.log import WEIGHT_UNIT, Log
from ponticello.library import Folder, replacing

NEGATIVES_SCHEMA = {ANCHOR_ID: pl.String(), NEGATIVE_ID: pl.String(), N_USERS: pl.Int64(), WEIGHT: pl.Float64()}


def mine_negatives(log: Log, pairs: pl.DataFrame, config: PairsConfig) -> pl.DataFrame:
    """(anchor_id, negative_id, n_users, weight): the second was skipped, disliked or cut short after the first.

    Under the rules of pairs: `min_listeners` distinct listeners, the caps a listener and a track. A pair of tracks that
    is in `pairs`, whatever its order, is none: more like it. Sorted by both ids.
    """
    stack = Candidates(log, config, "refused")
    for part in log.parts():
        refused = refused_events(part, config.min_played_s, config.session_gap_min)
        stack.add({"skip": one_row_a_listener(refused)})
    found = log.engine.frame(cap_tracks(stack.confirmed(), config.max_pairs_per_track))
    named = pl.DataFrame(
        {
            ANCHOR_ID: log.tracks.gather(found[ANCHOR_ID]),
            NEGATIVE_ID: log.tracks.gather(found[POSITIVE_ID]),
            N_USERS: found[N_USERS],
            WEIGHT: found[WEIGHT] / WEIGHT_UNIT,
        },
        schema=NEGATIVES_SCHEMA,
    )
    for one, other in ((ANCHOR_ID, POSITIVE_ID), (POSITIVE_ID, ANCHOR_ID)):
        named = named.join(pairs, left_on=[ANCHOR_ID, NEGATIVE_ID], right_on=[one, other], how="anti")
    return named.sort(ANCHOR_ID, NEGATIVE_ID)


def write_negatives(folder: Folder, negatives: pl.DataFrame | None) -> None:
    """Puts `negatives` in the library, or takes away those of an earlier mining."""
    if negatives is None:
        folder.negatives.unlink(missing_ok=True)
        return
    with replacing(folder.negatives) as temporary:
        negatives.rechunk().write_parquet(temporary, compression="zstd")
