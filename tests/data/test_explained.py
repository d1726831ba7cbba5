"""Why two tracks are a pair or none: each rule's own words, on a library small enough to count by hand."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ponticello.config import Config
from ponticello.data.explained import STALE, explain_pair
from ponticello.data.mining import mine_library
from ponticello.data.pairs import read_pairs
from ponticello.data.splits import Splits, save_splits
from ponticello.errors import DataError
from ponticello.library import Folder, create_library

START = datetime(2024, 1, 1, tzinfo=UTC)


def _folder(root: Path, likes: Sequence[tuple[str, str, float]], **pairs: Any) -> Folder:
    """Of ten tracks t0 to t8 are for training and "held" for testing; likes: (users, track, day)."""
    folder = create_library(root, "tiny")
    roles = {**{f"t{number}": "train" for number in range(9)}, "held": "test"}
    pl.DataFrame({"track_id": list(roles), "artist": list(roles)}).write_parquet(folder.tracks)
    rows = [(user, track, START + timedelta(days=day), "like") for users, track, day in likes for user in users]
    rows += [("late", "held", START + timedelta(days=999 + n), "like") for n in range(len(rows))]
    schema: dict[str, Any] = {
        "user_id": pl.String,
        "track_id": pl.String,
        "played_at": pl.Datetime("us", "UTC"),
        "event": pl.String,
    }
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder.interactions)
    save_splits(folder, Splits(roles, None, None))
    settings = {"pairs": {"sources": ["session", "cooccurrence"], **pairs}, "splits": {"train_until": 0.5}}
    folder = replace(folder, config=Config.from_preset("tiny", settings))
    mine_library(folder)
    return folder


def _verdicts(folder: Folder, one: str, other: str) -> dict[str, str]:
    return {row.source: row.verdict for row in explain_pair(folder, one, other).evidence}


def test_a_kept_pair_shows_its_listeners_and_what_chance_has(tmp_path: Path) -> None:
    """Of six listeners abc like both t0 and t1: by chance 3 * 3 / 6 = 1.5 would."""
    folder = _folder(tmp_path / "a", [("abc", "t0", 0), ("abc", "t1", 1), ("def", "t2", 0)])
    found = explain_pair(folder, "t1", "t0")
    assert (found.n_one, found.n_other, found.n_all, found.expected) == (3, 3, 6, 1.5)
    (row,) = found.evidence
    assert (row.source, row.anchor_id, row.positive_id, row.n_listeners, row.n_within, row.weight) == (
        "cooccurrence", "t0", "t1", 3, 3, 3.0
    )  # fmt: skip
    assert row.verdict == "kept"


def test_every_rule_says_itself_why_it_cut(tmp_path: Path) -> None:
    two = _folder(tmp_path / "two", [("ab", "t0", 0), ("ab", "t1", 1), ("cdef", "t2", 0)])
    assert _verdicts(two, "t0", "t1") == {"cooccurrence": "cut: fewer than 3 listeners"}
    assert _verdicts(two, "t0", "t2") == {}
    all_like = _folder(tmp_path / "all", [("abc", "t0", 0), ("abc", "t1", 1)])
    assert _verdicts(all_like, "t0", "t1") == {"cooccurrence": "cut: no likelier than chance has it"}
    together = [("abc", "t0", 0), ("abc", "t1", 0.001), ("defghi", "t2", 0)]
    hits = _folder(tmp_path / "hits", together, max_listener_share=0.3)
    assert _verdicts(hits, "t0", "t1")["session"] == "cut: more than 30% of all listeners like one of the two"
    many = [("abcd", "t0", 0), ("abcd", "t1", 9), ("abc", "t2", 18), ("xyzuvw", "t3", 0)]
    capped = _folder(tmp_path / "capped", many, max_pairs_per_track=1)
    assert _verdicts(capped, "t0", "t1") == {"cooccurrence": "kept"}
    assert _verdicts(capped, "t0", "t2") == {"cooccurrence": "cut: stronger ones fill the 1 of one of the two"}


def test_listeners_beyond_their_own_cap_are_told_apart(tmp_path: Path) -> None:
    """One pair a listener and source: a's latest is t3-t4, b and c have t0-t1 alone."""
    likes = [("abc", "t0", 0), ("abc", "t1", 0.001), ("a", "t3", 5), ("a", "t4", 5.001)]
    folder = _folder(tmp_path / "a", likes, max_pairs_per_user=1, min_listeners=2, sources=["session"])
    (row,) = explain_pair(folder, "t0", "t1").evidence
    assert (row.n_listeners, row.n_within, row.verdict) == (3, 2, "kept")


def test_pairs_of_another_log_are_called_stale(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "a", [("abc", "t0", 0), ("abc", "t1", 1), ("def", "t2", 0)])
    pairs = read_pairs(folder)
    pairs.with_columns(n_users=pl.lit(9, pl.Int64)).write_parquet(folder.pairs)
    assert _verdicts(folder, "t0", "t1") == {"cooccurrence": STALE}


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        (("t0", "t0"), "'t0' is named twice; name two tracks"),
        (("t0", "none"), "track 'none' is not in the catalogue; check the id in"),
        (("held", "t0"), r"track 'held' is held out \(test\), so it is in no training pair"),
    ],
)
def test_a_track_that_cannot_be_asked_about_is_named(tmp_path: Path, tracks: tuple[str, str], message: str) -> None:
    folder = _folder(tmp_path / "a", [("abc", "t0", 0)])
    with pytest.raises(DataError, match=message):
        explain_pair(folder, *tracks)
