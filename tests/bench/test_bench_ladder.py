"""The data ladder's parts: what mixtures are made of, how a gain is judged, and what is printed and
drawn.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ladder_report import Cell, drawn, falls_below, gain, table
from mixtures import Mixture, draw_mixtures, mixed_frames, mixed_mel, mixed_rows, write_mixtures
from ponticello.config import Config
from ponticello.features.store import (
    MANIFEST_SCHEMA,
    Features,
    FeatureStore,
    hash_features,
    write_manifest,
    write_shard,
)
from ponticello.storage.layout import LibraryPaths, create_library

ROWS = [
    {
        "track_id": name,
        "path": f"{name}.opus",
        "title": name.upper(),
        "artist": artist,
        "game": game,
        "genres": "Rock",
    }
    for name, artist, game in (
        ("a", "Ada", "Chess"),
        ("b", "Ada", "Go"),
        ("c", "", "Go"),
        ("d", "Bo", "Dice"),
    )
]


def test_parents_share_a_component_of_games_and_artists() -> None:
    """Ada joins Chess and Go, so a, b and c belong together; d is alone and has nobody to be mixed
    with.
    """
    mixtures = draw_mixtures(ROWS, 200, seed=0)
    assert {mixture.parents for mixture in mixtures.values()} == {
        (x, y) for x in "abc" for y in "abc" if x != y
    }
    assert all(0.5 <= mixture.share <= 0.9 for mixture in mixtures.values())
    assert len(mixtures) == 200
    assert mixtures == draw_mixtures(ROWS, 200, seed=0)
    assert dict(list(mixtures.items())[:50]) == draw_mixtures(ROWS, 50, seed=0)


def test_a_mixture_is_its_first_parents_with_both_titles_and_mixed_tags() -> None:
    """At 0.75 "rock" scores 0.15 + 0.05 and "pop" 0.25 x 0.5; "folk" falls to 0.075, below the
    threshold of 0.1.
    """
    scores = {"a": {"rock": 0.2, "folk": 0.1}, "b": {"rock": 0.2, "pop": 0.5}}
    (row,) = mixed_rows(ROWS, {"m": Mixture(("a", "b"), 0.75)}, scores)
    assert row == {
        **ROWS[0],
        "track_id": "m",
        "path": "",
        "title": "A and B",
        "machine_tags": "rock;pop",
    }


def test_frames_that_do_not_change_are_mixed_exactly() -> None:
    one, two = np.full((5, 3), 4.0, dtype=np.float16), np.full((4, 3), 8.0, dtype=np.float16)
    mixed = mixed_frames(one, two, 0.75, (0,))
    assert mixed.dtype == np.float16
    np.testing.assert_array_equal(mixed, np.full((4, 3), 5.0))


def test_noise_has_the_spread_within_the_parents() -> None:
    """Both parents swing by 1 around 0 and never together: their mixture's variance is 0.5 from
    them, 1 from noise.
    """
    one = np.tile([[1.0], [-1.0]], (5000, 1)).astype(np.float16)
    two = np.tile([[1.0], [1.0], [-1.0], [-1.0]], (2500, 1)).astype(np.float16)
    mixed = mixed_frames(one, two, 0.5, (0,)).astype(np.float64)
    assert mixed.mean() == pytest.approx(0, abs=0.05)
    assert mixed.var() == pytest.approx(1.5, abs=0.06)
    np.testing.assert_array_equal(mixed, mixed_frames(one, two, 0.5, (0,)))


def test_mels_sound_together_by_power() -> None:
    """Equal levels stay; half of 0 dB beside half of silence is -3.01 dB."""
    loud, silent = np.zeros((150, 2), dtype=np.float16), np.full((120, 2), -100.0, dtype=np.float16)
    assert mixed_mel(loud, loud, 0.6).shape == (100, 2)
    np.testing.assert_allclose(mixed_mel(loud, loud, 0.6), 0.0, atol=1e-3)
    np.testing.assert_allclose(mixed_mel(loud, silent, 0.5), -3.01, atol=0.01)


def test_written_mixtures_are_read_like_any_track(tmp_path: Path) -> None:
    base, folder = (_library(tmp_path / name) for name in ("base", "all"))
    generator = np.random.default_rng(0)
    for place, n_frames in ((base.mels, 130), (base.frames, 4)):
        _write(
            place, {name: generator.normal(size=(n_frames, 3)).astype(np.float16) for name in "abc"}
        )
    mixtures = {"m": Mixture(("a", "c"), 0.6)}
    write_mixtures(folder, base, mixtures)
    frames, own, mels = (
        FeatureStore(folder.frames),
        FeatureStore(base.frames),
        FeatureStore(folder.mels),
    )
    assert frames.track_ids == mels.track_ids == ["a", "b", "c", "m"]
    assert frames.verify() == mels.verify() == []
    frames.require("key of frames")
    np.testing.assert_array_equal(frames.read("b"), own.read("b"))
    np.testing.assert_array_equal(
        frames.read("m"), mixed_frames(own.read("a"), own.read("c"), 0.6, (0, ord("m")))
    )
    assert mels.read("m").shape == (100, 3)
    before = {path: path.stat().st_mtime_ns for path in folder.frames.glob("shard-*")}
    write_mixtures(folder, base, mixtures)
    assert {path: path.stat().st_mtime_ns for path in folder.frames.glob("shard-*")} == before


def test_a_gain_is_paired_over_all_seeds_queries() -> None:
    """Gaps 0.1 and 0.3 on the first seed and 0.2 twice on the second: mean 0.2."""
    cells = [_cell(seed=1, taste=[0.6, 0.8]), _cell(seed=2, taste=[0.7, 0.7])]
    found = gain(cells, "served", "cold NDCG@10")
    assert found.mean == pytest.approx(0.2)
    assert 0.1 <= found.low <= found.high <= 0.3
    assert not falls_below(found)
    assert falls_below(gain([_cell(taste=[0.4, 0.3])], "served", "cold NDCG@10"))
    assert np.isnan(gain(cells, "served", "text R@10", "plain").mean)
    assert gain(cells, "start", "cold NDCG@10", "plain").mean == pytest.approx(0.1)


def test_tracks_of_one_artist_are_drawn_together() -> None:
    """Two artists, one with a loss of 1 on three tracks and one with a gain of 1 on one: any draw
    has -1, 1 or -0.5.
    """
    cell = _cell(texts=[0, 0, 0, 1], start_texts=[1, 1, 1, 0], clusters=["x", "x", "x", "y"])
    found = gain([cell], "audio", "text R@10")
    assert (found.mean, found.low, found.high) == (-0.5, -1.0, 1.0)


def test_a_record_gives_the_cell_again() -> None:
    cell = _cell(taste=[0.25, 0.5])
    again = Cell.of(json.loads(json.dumps(cell.record())))
    assert again.record() == cell.record()
    np.testing.assert_array_equal(again.measured["served"]["cold NDCG@10"], [0.25, 0.5])


def test_the_table_marks_and_names_what_falls_below() -> None:
    lines = table(
        [_cell(taste=[0.7, 0.7]), _cell(n_listeners=30, taste=[0.35, 0.25], alpha=0.0)]
    ).splitlines()
    assert lines[2].startswith("| 100 | 10 | 40 | 0.5 fused | +0.200 [+0.200, +0.200] |")
    assert lines[2].endswith("| 0 |")
    assert lines[3].startswith("| 100 | 30 | 40 | start | **-0.200 [-0.250, -0.150]** |")
    below = "below it by more than the interval (taste, NDCG@10 at 100 x 30)."
    assert f"Minus start: 1 of 4 figures are {below}" in lines
    assert f"Minus plain: 1 of 2 figures are {below}" in lines
    assert "| 100 | start | 0.500 |  |  |  | 0.500 |" in lines
    assert "| 100 | start minus plain | +0.100 [+0.100, +0.100] |  |  |  |  |" in lines


def test_the_picture_has_a_line_for_each_number_of_tracks(tmp_path: Path) -> None:
    cells = [_cell(n_tracks=n, n_listeners=m) for n in (100, 300) for m in (10, 30)]
    for name in ("curve.svg", "again.svg"):
        drawn(cells, tmp_path / name)
    svg = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert svg == (tmp_path / "again.svg").read_text(encoding="utf-8")
    assert all(
        text in svg for text in ("100 tracks", "300 tracks", "simulated listeners learned from")
    )
    drawn(cells, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def _cell(**changed: Any) -> Cell:
    """A rung whose front end scores 0.5 on two listeners and finds half of the texts' tracks."""
    taste, texts = changed.pop("taste", [0.6, 0.6]), changed.pop("texts", [0, 1])
    start = {"cold NDCG@10": [0.5, 0.5], "text R@10": changed.pop("start_texts", [0, 1])}
    kept = {"cold NDCG@10": taste, "text R@10": texts}
    record: Mapping[str, Any] = {
        "n_tracks": 100,
        "n_listeners": 10,
        "seed": 1,
        "n_pairs": 40,
        "alpha": 0.5,
        "vector": "fused",
        "said": "kept: 50% of the way",
        "measured": {"audio": kept, "served": kept},
        "start": start,
        "others": {"plain": {"cold NDCG@10": [0.4, 0.4]}},
        "clusters": ["x", "y"],
    }
    return Cell.of({**record, **changed})


def _library(root: Path) -> LibraryPaths:
    create_library(root, "tiny")
    return LibraryPaths(root.resolve(), Config.from_preset("tiny"))


def _write(place: Path, tracks: Mapping[str, Features]) -> None:
    """A prepared store of these frames, in one shard."""
    place.mkdir()
    shard, rows, start = write_shard(place, list(tracks.values())), [], 0
    for track_id, frames in tracks.items():
        source = (f"{track_id}.opus", 0, 0, f"key of {place.name}")
        rows.append((track_id, shard, start, len(frames), hash_features(frames), *source))
        start += len(frames)
    write_manifest(place, pl.DataFrame(rows, schema=MANIFEST_SCHEMA, orient="row"))
