"""Machine tags: which ones a track gets, and what becomes of the tracks table."""

from pathlib import Path

import numpy as np
import pytest

from ponticello.errors import LibraryError
from ponticello.features.musicnn import N_TAGS, tag_names
from ponticello.features.musicnn_frontend import (
    FRAME_SIZE,
    MAX_TAGS,
    TAGGER_SIZE,
    musicnn_job,
    rank_tags,
    tag_tracks,
)
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import create_library
from ponticello.storage.schema import MACHINE_TAGS, TRACK_ID
from ponticello.tracks.catalog import audio_files, import_tracks, read_tracks
from tests.synthetic import make_catalogue


def _frames(msd: dict[str, float], mtt: dict[str, float], n: int = 2) -> np.ndarray:
    """n frames in which both taggers hear just these tags."""
    frames = np.zeros((n, FRAME_SIZE), dtype=np.float16)
    for number, (tagger, scores) in enumerate((("msd", msd), ("mtt", mtt))):
        for tag, score in scores.items():
            names = tag_names("msd" if tagger == "msd" else "mtt")
            frames[:, (number + 1) * TAGGER_SIZE - N_TAGS + names.index(tag)] = score
    return frames


def test_tags_come_by_clearness_and_a_shared_one_counts_once() -> None:
    """jazz .3 / .1 = 3; piano .4 / .2 = 2; rock: .125 / .1 = 1.25 by one, .3 / .2 = 1.5 by the
    other; sad is below.
    """
    found = rank_tags(
        _frames({"jazz": 0.3, "rock": 0.125, "sad": 0.09}, {"piano": 0.4, "rock": 0.3})
    )
    assert list(found) == ["jazz", "piano", "rock"]
    np.testing.assert_allclose(list(found.values()), [3.0, 2.0, 1.5], rtol=1e-3)


def test_scores_are_means_over_frames() -> None:
    half = _frames({"jazz": 0.3}, {})
    half[1] = 0
    assert rank_tags(half) == pytest.approx({"jazz": 1.5}, rel=1e-3)


def test_nothing_clear_is_no_tag_and_too_many_are_cut() -> None:
    assert rank_tags(_frames({}, {})) == {}
    assert len(rank_tags(_frames(dict.fromkeys(tag_names("msd"), 0.5), {}))) == MAX_TAGS


def test_only_the_machine_tags_of_heard_tracks_change(tmp_path: Path) -> None:
    table = make_catalogue(n_tracks=3, n_artists=3, seconds=0.5, seed=0).write(tmp_path / "sounds")
    with table.open("a", encoding="utf-8") as file:
        file.write("silent,Unheard,Artist 9,Album 9,,\n")
    folder = create_library(tmp_path / "lib", "tiny")
    import_tracks(folder, table)
    before = read_tracks(folder)
    with pytest.raises(LibraryError, match="holds no prepared"):
        tag_tracks(folder)
    with folder.lock():
        prepare_features(folder, audio_files(folder), musicnn_job(folder))
        tagged = tag_tracks(folder)
    after = read_tracks(folder)
    assert after.drop(MACHINE_TAGS).equals(before.drop(MACHINE_TAGS))
    tags = dict(after.select(TRACK_ID, MACHINE_TAGS).iter_rows())
    assert tags["silent"] is None
    store = FeatureStore(folder.frames)
    assert {track_id: tags[track_id] for track_id in store.track_ids} == {
        track_id: list(rank_tags(store.read(track_id))) for track_id in store.track_ids
    }
    assert tagged == {track_id: tags[track_id] for track_id in store.track_ids}
    assert len(tagged) == 3
