"""Preparing by several jobs gives the bytes of a single process, in any order of the jobs."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from filelock import FileLock

from ponticello.errors import LibraryError
from ponticello.features.extraction import mel_job
from ponticello.features.prepare import (
    merge_shards,
    prepare_features,
    prepare_library,
    prepare_shard,
    require_shards_done,
    tag_library,
)
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.tracks.catalog import audio_files, import_tracks
from tests.synthetic import make_catalogue


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    """A library of seven tracks of half a second, not yet prepared, and one that is no sound."""
    table = make_catalogue(n_tracks=7, n_artists=7, seconds=0.5, seed=0).write(tmp_path / "sounds")
    (tmp_path / "sounds" / "broken.wav").write_text("this is no sound", encoding="utf-8")
    with table.open("a", encoding="utf-8") as file:
        file.write("broken,Broken,Artist 9,Album 9,,broken.wav\n")
    folder = create_library(tmp_path / "lib", "tiny")
    import_tracks(folder, table)
    return folder


def _whole(folder: LibraryPaths, tmp_path: Path) -> dict[str, bytes]:
    """What one process makes of the same files, elsewhere."""
    other = create_library(tmp_path / "alone", "tiny")
    prepare_features(other, audio_files(folder))
    return _bytes(other)


def _bytes(folder: LibraryPaths) -> dict[str, bytes]:
    store = FeatureStore(folder.mels)
    assert store.verify() == []
    return {track_id: store.read(track_id).tobytes() for track_id in store.track_ids}


def _end(folder: LibraryPaths) -> tuple[int, int, int]:
    """The call that brings the parts together: tracks adopted, prepared now, skipped."""
    with folder.lock():
        n_adopted = merge_shards(mel_job(folder))
        done = prepare_features(folder, audio_files(folder))
    return n_adopted, done.n_new, len(done.skipped)


def test_parts_make_the_bytes_of_one_process(folder: LibraryPaths, tmp_path: Path) -> None:
    """By the CRC-32 of the ids over 3, of eight files job 2 has two, of which one is no sound, and
    the others three.
    """
    sources = audio_files(folder)
    with folder.lock():  # no job needs it
        done = [prepare_shard(folder, sources, (number, 3)) for number in (3, 1, 2)]
    assert [one.n_new for one in done] == [3, 3, 1]
    assert [len(one.skipped) for one in done] == [0, 0, 1]
    assert not folder.skipped.exists()
    assert prepare_shard(folder, sources, (3, 3)).n_kept == 3, "a job that runs again resumes"
    require_shards_done(sources, mel_job(folder), 3)
    assert _end(folder) == (7, 0, 1)
    assert _bytes(folder) == _whole(folder, tmp_path)
    assert "broken.wav" in folder.skipped.read_text(encoding="utf-8")
    assert not list(folder.mels.glob("part-*"))


def test_missing_part_is_prepared_by_the_last_call(folder: LibraryPaths, tmp_path: Path) -> None:
    prepare_shard(folder, audio_files(folder), (1, 3))
    with pytest.raises(
        LibraryError, match=r"mels: shards 2/3, 3/3 are not finished; run those jobs again"
    ):
        require_shards_done(audio_files(folder), mel_job(folder), 3)
    assert _end(folder) == (3, 4, 1)
    assert _bytes(folder) == _whole(folder, tmp_path)


def test_parts_at_the_same_time_make_the_bytes_of_one_process(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    sources = audio_files(folder)
    jobs = [
        threading.Thread(target=prepare_shard, args=(folder, sources, (number, 2)))
        for number in (1, 2)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert _end(folder) == (7, 0, 1)
    assert _bytes(folder) == _whole(folder, tmp_path)


def test_part_leaves_alone_what_the_library_has(folder: LibraryPaths) -> None:
    _end(folder)
    assert prepare_shard(folder, audio_files(folder), (2, 2)).n_new == 0
    assert _end(folder)[:2] == (0, 0)


def test_job_that_was_stopped_or_had_other_settings_is_missed(folder: LibraryPaths) -> None:
    """Of job 1 the mark that it ended is taken away, as if it were killed in its last moment."""
    sources, front_end = audio_files(folder), mel_job(folder)
    prepare_shard(folder, sources, (1, 2), replace(front_end, key="other"))
    prepare_shard(folder, sources, (2, 2), front_end)
    with pytest.raises(
        LibraryError, match=r"mels: shards 1/2 were made with other settings; run those jobs again"
    ):
        require_shards_done(sources, front_end, 2)
    (front_end.folder / "part-1-of-2" / "finished").unlink()
    with pytest.raises(
        LibraryError, match=r"mels: shards 1/2 are not finished; run those jobs again"
    ):
        require_shards_done(sources, front_end, 2)
    prepare_shard(folder, sources, (1, 2), front_end)
    require_shards_done(sources, front_end, 2)


def test_files_that_another_lacks_leave_a_job_its_own(folder: LibraryPaths) -> None:
    """Which tracks a job has hangs on their ids alone."""
    sources = audio_files(folder)
    fewer = {
        track_id: path
        for track_id, path in sources.items()
        if track_id not in ("broken", "track-0004")
    }
    assert [prepare_shard(folder, given, (2, 2)).n_new for given in (sources, fewer)] == [3, 0]
    assert FeatureStore(folder.mels / "part-2-of-2").track_ids == ["track-0005", "track-0006"]


def test_part_that_is_being_made_is_neither_made_twice_nor_adopted(folder: LibraryPaths) -> None:
    prepare_shard(folder, audio_files(folder), (1, 2))
    part = folder.mels / "part-1-of-2"
    with FileLock(part / ".lock"):
        with pytest.raises(LibraryError, match="part-1-of-2 is being prepared by another process"):
            prepare_shard(folder, audio_files(folder), (1, 2))
        with pytest.raises(LibraryError, match="part-1-of-2 is being prepared by another process"):
            merge_shards(mel_job(folder))
    assert part.is_dir()


def test_library_has_the_features_of_its_front_end_beside_log_mels(folder: LibraryPaths) -> None:
    steps: list[tuple[str, int, int]] = []
    musicnn = open_library(folder.root, ["front_end=musicnn"])
    result = prepare_library(musicnn, workers=1, on_progress=lambda *step: steps.append(step))
    assert (result.n_new, result.n_kept, result.folder) == (7, 0, folder.mels)
    assert [row.value for row in result.skipped] == ["broken"]
    assert FeatureStore(folder.frames).track_ids == FeatureStore(folder.mels).track_ids
    assert [step for step in steps if step[1] == step[2]] == [
        ("log-mels", 8, 8),
        ("features", 7, 7),
    ]
    again = prepare_library(musicnn, workers=1)
    assert (again.n_new, again.n_kept) == (0, 7)


def test_shares_are_merged_by_the_call_that_names_their_number(folder: LibraryPaths) -> None:
    with folder.lock():
        first = prepare_library(folder, workers=1, shard=(1, 2))
    with pytest.raises(LibraryError, match="shards 2/2 are not finished"):
        prepare_library(folder, workers=1, n_shards=2)
    second = prepare_library(folder, workers=1, shard=(2, 2))
    assert first.n_new + second.n_new == 7
    assert prepare_library(folder, workers=1, n_shards=2).n_new == 7


def test_vectors_of_the_user_are_counted_in_place_of_log_mels(folder: LibraryPaths) -> None:
    ids = np.array(["track-0000", "stranger"])
    np.savez(folder.root / "v.npz", ids=ids, vectors=np.ones((2, 3)))
    settings = ["front_end=features", "features=v.npz"]
    result = prepare_library(open_library(folder.root, settings), workers=1)
    assert (result.n_new, result.folder) == (1, folder.frames / "features")
    assert [row.value for row in result.skipped] == ["broken", "stranger"]


def test_licence_of_an_encoder_is_logged_before_it_is_used(
    audio_encoder_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = create_library(tmp_path / "encoded", "tiny")
    pl.DataFrame({"track_id": ["a"]}).write_parquet(folder.tracks)
    prepare_library(open_library(folder.root, [f"front_end=hf:{audio_encoder_folder}"]))
    assert f"audio encoder {audio_encoder_folder}: licence cc-by-nc-4.0" in caplog.messages


def test_tagging_counts_the_tracks_of_each_tag(folder: LibraryPaths) -> None:
    first = tag_library(folder, workers=1)
    assert (first.n_tagged, first.n_new) == (7, 7)
    assert [row.value for row in first.skipped] == ["broken"]
    assert list(first.tags.values()) == sorted(first.tags.values(), reverse=True)
    again = tag_library(folder, workers=1)
    assert (again.n_new, again.tags) == (0, first.tags)
