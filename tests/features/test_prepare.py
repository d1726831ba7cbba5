"""Preparing by several jobs: the bytes of a single process, whichever of them ran, together or not."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from ponticello.datasets.synthetic import make_catalogue
from ponticello.errors import LibraryError
from ponticello.features.prepare import (
    mel_front_end,
    merge_shards,
    prepare_frames,
    prepare_shard,
    require_shards_done,
)
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.tracks.catalog import audio_files, import_tracks


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
    prepare_frames(other, audio_files(folder))
    return _bytes(other)


def _bytes(folder: LibraryPaths) -> dict[str, bytes]:
    store = FeatureStore(folder.mels)
    assert store.verify() == []
    return {track_id: store.read(track_id).tobytes() for track_id in store.track_ids}


def _end(folder: LibraryPaths) -> tuple[int, int, int]:
    """The call that brings the parts together: tracks adopted, prepared now, skipped."""
    with folder.lock():
        n_adopted = merge_shards(folder.mels, mel_front_end(folder).key)
        done = prepare_frames(folder, audio_files(folder))
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
    require_shards_done(sources, mel_front_end(folder), 3)
    assert _end(folder) == (7, 0, 1)
    assert _bytes(folder) == _whole(folder, tmp_path)
    assert "broken.wav" in folder.skipped.read_text(encoding="utf-8")
    assert not list(folder.mels.glob("part-*"))


def test_missing_part_is_prepared_by_the_last_call(folder: LibraryPaths, tmp_path: Path) -> None:
    prepare_shard(folder, audio_files(folder), (1, 3))
    with pytest.raises(
        LibraryError, match=r"mels: shards 2/3, 3/3 are not finished; run those jobs again"
    ):
        require_shards_done(audio_files(folder), mel_front_end(folder), 3)
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
    sources, front_end = audio_files(folder), mel_front_end(folder)
    prepare_shard(folder, sources, (1, 2), replace(front_end, key="other"))
    prepare_shard(folder, sources, (2, 2), front_end)
    with pytest.raises(
        LibraryError, match=r"mels: shards 1/2 were made with other settings; run those jobs again"
    ):
        require_shards_done(sources, front_end, 2)
    (front_end.place / "part-1-of-2" / "finished").unlink()
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
            merge_shards(folder.mels, mel_front_end(folder).key)
    assert part.is_dir()
