"""Mines pairs from events in memory."""

import polars as pl

from ponticello.config import PairsConfig
from ponticello.pairs.engine import EngineOptions, open_engine
from ponticello.pairs.events import EVENTS_SCHEMA, encode_log
from ponticello.pairs.mine import MiningFunnel, mine_log
from ponticello.storage.schema import CONTEXT_TRACK_ID, TRACK_ID


def mine_pairs(
    events: pl.DataFrame, config: PairsConfig, options: EngineOptions | None = None
) -> tuple[pl.DataFrame, MiningFunnel]:
    """Returns the pairs of `events`, with the columns of EVENTS_SCHEMA, as `mine_log`."""
    events = events.cast(pl.Schema(EVENTS_SCHEMA)).select(list(EVENTS_SCHEMA))
    track_ids = pl.concat([events[TRACK_ID], events[CONTEXT_TRACK_ID].rename(TRACK_ID)])
    with open_engine(options) as engine:
        table = engine.upload(events, "events")
        log = encode_log(engine, table, track_ids.drop_nulls().unique().sort(), None)
        return mine_log(log, config)
