"""Prepared mels: made once, resumed, checked, and read in place."""

import csv
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ponticello.audio.mel import mel_key, mel_of_file
from ponticello.config import Config, MelConfig
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.features import prepare as prepare_module
from ponticello.features.extraction import ExtractionJob
from ponticello.features.prepare import PrepareResult, prepare_features
from ponticello.features.store import FeatureStore, hash_features, read_manifest, write_shard
from ponticello.storage.layout import LibraryPaths, SkippedRow, create_library


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return create_library(tmp_path / "library", "tiny")


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """Five tracks of noise, 0.5 to 0.9 s; the ids are not in order."""
    return {f"t{n}": write_noise(tmp_path / f"{n}.flac", n) for n in (3, 1, 0, 4, 2)}


def write_noise(path: Path, seed: int) -> Path:
    samples = np.random.default_rng(seed).normal(0, 0.1, 8_000 + 1_600 * seed)
    soundfile.write(path, samples, 16_000, format="FLAC")
    return path


def counts(prepared: PrepareResult) -> tuple[int, int, int, int]:
    return prepared.n_new, prepared.n_kept, prepared.n_removed, len(prepared.skipped)


def files(folder: LibraryPaths) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.mels.iterdir()
    }


def stop_after(n: int) -> Callable[[int, int], None]:
    def on_progress(n_done: int, n_todo: int) -> None:
        assert n_done <= n_todo
        if n_done == n:
            raise KeyboardInterrupt

    return on_progress


def test_store_gives_back_what_was_prepared(folder: LibraryPaths, sources: dict[str, Path]) -> None:
    progress: list[tuple[int, int]] = []
    prepared = prepare_features(folder, sources, on_progress=lambda *step: progress.append(step))
    assert counts(prepared) == (5, 0, 0, 0)
    assert progress == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    store = FeatureStore(folder.mels)
    assert store.track_ids == ["t0", "t1", "t2", "t3", "t4"]
    assert len(store) == 5
    assert "t3" in store
    assert "t5" not in store
    assert [store.n_frames(track_id) for track_id in store.track_ids] == [
        6,
        7,
        8,
        9,
        10,
    ]  # 1 + n // 1536
    for track_id, path in sources.items():
        mel = store.read(track_id)
        assert mel.dtype == np.float16
        assert not mel.flags.writeable
        np.testing.assert_array_equal(mel, mel_of_file(path, folder.config.mel))
        assert store.sha256(track_id) == hash_features(mel)
    assert store.verify() == []


def test_manifest_tells_where_each_mel_came_from(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    rows = {row["track_id"]: row for row in read_manifest(folder.mels).to_dicts()}
    row, status = rows["t1"], sources["t1"].stat()
    assert (row["shard"], row["start"], row["n_frames"]) == (0, 9, 7)  # after t3, of 9 frames
    assert (row["source"], row["source_size"]) == (str(sources["t1"]), status.st_size)
    assert (row["source_mtime_ns"], row["features_key"]) == (
        status.st_mtime_ns,
        mel_key(folder.config.mel),
    )
    shard = np.load(folder.mels / "shard-00000.npy", mmap_mode="r", allow_pickle=False)
    assert shard.shape == (40, 128)
    assert shard.dtype == np.float16


def test_preparing_again_touches_nothing(folder: LibraryPaths, sources: dict[str, Path]) -> None:
    prepare_features(folder, sources)
    before = files(folder)
    assert counts(prepare_features(folder, sources)) == (0, 5, 0, 0)
    assert files(folder) == before


def test_changed_file_is_done_again_and_an_unused_shard_goes(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, {"t0": sources["t0"]})
    prepare_features(folder, sources)
    assert {row["shard"] for row in read_manifest(folder.mels).to_dicts()} == {0, 1}
    write_noise(sources["t0"], 9)
    assert counts(prepare_features(folder, sources)) == (1, 4, 0, 0)
    store = FeatureStore(folder.mels)
    np.testing.assert_array_equal(store.read("t0"), mel_of_file(sources["t0"], folder.config.mel))
    assert store.verify() == []
    assert not (folder.mels / "shard-00000.npy").exists()
    assert sorted(read_manifest(folder.mels)["track_id"]) == sorted(sources)


def test_new_time_of_the_same_size_is_a_change(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    os.utime(sources["t1"], ns=(0, 1))
    assert counts(prepare_features(folder, sources)) == (1, 4, 0, 0)


def test_other_settings_make_every_mel_stale(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    config = Config.from_preset("tiny", {"mel": {"n_mels": 64}})
    assert counts(prepare_features(LibraryPaths(folder.root, config), sources)) == (5, 0, 0, 0)
    assert FeatureStore(folder.mels).read("t0").shape == (6, 64)


def test_key_follows_the_settings_that_shape_a_mel() -> None:
    assert (
        mel_key(MelConfig())
        == mel_key(MelConfig(released_padding=True))
        != mel_key(MelConfig(top_db=70.0))
    )
    assert len(mel_key(MelConfig())) == 16


def test_track_that_is_no_source_loses_its_mel(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    del sources["t2"]
    assert counts(prepare_features(folder, sources)) == (0, 4, 1, 0)
    assert "t2" not in FeatureStore(folder.mels)
    assert FeatureStore(folder.mels).verify() == []


def test_prepared_track_whose_file_has_gone_keeps_its_mel(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    sources["t2"].unlink()
    assert counts(prepare_features(folder, sources)) == (0, 5, 0, 0)
    assert "t2" in FeatureStore(folder.mels)


def test_bad_files_are_listed_and_the_rest_goes_on(
    folder: LibraryPaths, sources: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "page.mp3").write_text("<html>")
    bad = {"page": tmp_path / "page.mp3", "none": tmp_path / "none.mp3"}
    prepared = prepare_features(folder, bad | sources)
    assert counts(prepared) == (5, 0, 0, 2)
    first = prepared.skipped[0]
    assert (first.file, first.line, first.field, first.value) == (
        str(bad["page"]),
        None,
        "path",
        "page",
    )
    assert first.reason == f"{bad['page']}: is text (a playlist, a web page or the like), not audio"
    with folder.skipped.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[:5] for row in rows] == [
        ["prepare", str(bad[value]), "", "path", value] for value in ("page", "none")
    ]
    assert FeatureStore(folder.mels).track_ids == sorted(sources)
    write_noise(bad["page"], 7)
    write_noise(bad["none"], 8)
    assert counts(prepare_features(folder, bad | sources)) == (2, 5, 0, 0)
    assert not folder.skipped.exists()


def test_file_that_went_bad_loses_its_old_mel(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    sources["t1"].write_bytes(b"\0" * 50)
    assert counts(prepare_features(folder, sources)) == (0, 4, 0, 1)
    assert "t1" not in FeatureStore(folder.mels)


def test_nothing_to_prepare_makes_an_empty_store(folder: LibraryPaths) -> None:
    assert counts(prepare_features(folder, {})) == (0, 0, 0, 0)
    assert FeatureStore(folder.mels).track_ids == []


@pytest.mark.parametrize("n_before", [1, 3, 4])
def test_interrupted_run_keeps_what_is_done_and_resumes(
    folder: LibraryPaths, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch, n_before: int
) -> None:
    monkeypatch.setattr(prepare_module, "_SHARD_TRACKS", 2)
    with pytest.raises(KeyboardInterrupt):
        prepare_features(folder, sources, on_progress=stop_after(n_before))
    assert FeatureStore(folder.mels).track_ids == sorted(list(sources)[:n_before])
    assert counts(prepare_features(folder, sources)) == (5 - n_before, n_before, 0, 0)
    assert FeatureStore(folder.mels).verify() == []
    assert len(FeatureStore(folder.mels)) == 5


KILLED = """
import os
from pathlib import Path
from ponticello.features import prepare
from ponticello.storage.layout import open_library
prepare._SHARD_TRACKS = 2
folder = open_library(os.environ["LIBRARY"])
sources = {path.stem: path for path in sorted(Path(os.environ["AUDIO"]).glob("*.flac"))}
def die(n_done, n_todo):
    if n_done == 3:
        os._exit(9)

prepare.prepare_features(folder, sources, on_progress=die)
"""


def test_killed_run_keeps_its_published_shards(
    folder: LibraryPaths, sources: dict[str, Path], tmp_path: Path
) -> None:
    """The process ends on the spot after 3 of 5 tracks, 2 to a shard: one shard was published."""
    environment = os.environ | {"LIBRARY": str(folder.root), "AUDIO": str(tmp_path)}
    assert (
        subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False).returncode == 9
    )
    assert FeatureStore(folder.mels).track_ids == ["0", "1"]
    write_shard(folder.mels, [np.zeros((2, 128), np.float16)])  # a shard no manifest names yet
    (folder.mels / ".shard-00002.npy.1.tmp").write_bytes(b"half")
    named = {track_id.removeprefix("t"): path for track_id, path in sources.items()}
    assert counts(prepare_features(folder, named)) == (3, 2, 0, 0)
    assert FeatureStore(folder.mels).verify() == []
    left = sorted(path.name for path in folder.mels.iterdir())
    assert left == ["manifest.parquet", "shard-00000.npy", "shard-00001.npy"]


def test_shards_are_cut_at_their_cap(
    folder: LibraryPaths, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_SHARD_BYTES", 15 * 128 * 2)
    prepare_features(folder, sources)  # 9 + 7 frames, 6 + 10, 8
    assert read_manifest(folder.mels)["shard"].to_list() == [0, 0, 1, 1, 2]
    assert FeatureStore(folder.mels).verify() == []


def test_two_workers_write_the_same_bytes_as_one(
    folder: LibraryPaths, sources: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "page.mp3").write_text("<html>")
    mixed = {"page": tmp_path / "page.mp3"} | sources
    one = prepare_features(folder, mixed)
    other = create_library(tmp_path / "other", "tiny")
    assert prepare_features(other, mixed, workers=2) == replace(one, folder=other.mels)
    assert {name: content for name, (_, content) in files(other).items()} == {
        name: content for name, (_, content) in files(folder).items()
    }


def die_at_0(path: Path, track_id: str) -> np.ndarray:
    if track_id == "t0":
        os.kill(os.getpid(), signal.SIGSEGV)
    return mel_of_file(path, MelConfig())


@pytest.mark.parametrize("workers", [1, 2])
def test_file_that_kills_its_decoder_costs_one_line(
    folder: LibraryPaths, sources: dict[str, Path], workers: int
) -> None:
    front_end = ExtractionJob(folder.mels, mel_key(MelConfig()), die_at_0, "prepare")
    done = prepare_features(folder, sources, front_end, workers=workers)
    assert counts(done) == (4, 0, 0, 1)
    assert done.skipped[0].value == "t0"
    assert done.skipped[0].reason == f"{sources['t0']}: crashes the process that reads it (SIGSEGV)"
    assert FeatureStore(folder.mels).track_ids == ["t1", "t2", "t3", "t4"]
    assert FeatureStore(folder.mels).verify() == []
    np.testing.assert_array_equal(
        FeatureStore(folder.mels).read("t2"), mel_of_file(sources["t2"], MelConfig())
    )


def give_length(path: Path, _track_id: str) -> np.ndarray:
    return np.array(path.stat().st_size, dtype=np.float64)


def test_what_workers_give_is_finished_in_this_process(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    sizes = []

    def finish(size: np.ndarray) -> np.ndarray:
        sizes.append(int(size))
        if size == sources["t3"].stat().st_size:
            raise DataError("too long")
        return np.full((1, 2), len(sizes), dtype=np.float16)

    done = prepare_features(
        folder,
        sources,
        ExtractionJob(folder.frames, "x", give_length, "prepare x", finish),
        workers=2,
    )
    assert sizes == [path.stat().st_size for path in sources.values()]
    assert [(line.value, line.reason) for line in done.skipped] == [("t3", "too long")]
    assert FeatureStore(folder.frames).read("t1")[0].tolist() == [2, 2]


def test_less_than_one_worker_is_refused(folder: LibraryPaths) -> None:
    with pytest.raises(ConfigError, match="workers must be at least 1; found 0"):
        prepare_features(folder, {}, workers=0)


def test_flipped_bytes_are_found_by_track(folder: LibraryPaths, sources: dict[str, Path]) -> None:
    prepare_features(folder, sources)
    path = folder.mels / "shard-00000.npy"
    content = bytearray(path.read_bytes())
    content[128 + 9 * 256 + 5] ^= 1  # after the header and t3's 9 frames of 128 x 2 bytes: in t1
    path.write_bytes(content)
    assert FeatureStore(folder.mels).verify() == ["t1"]


def test_flipped_frames_are_never_read(folder: LibraryPaths, sources: dict[str, Path]) -> None:
    """The first track's frames stand first in the one shard; what was read before the damage is not
    hashed again.
    """
    prepare_features(folder, sources)
    first, *others = sorted(sources, key=list(sources).index)
    shard = folder.mels / "shard-00000.npy"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    store = FeatureStore(folder.mels)
    with pytest.raises(
        LibraryError,
        match=r"shard-00000.npy is missing or damaged; delete it; run: ponticello",
    ):
        store.read(first)
    assert [len(store.read(track_id)) > 0 for track_id in others] == [True] * 4
    assert store.verify() == [first]


@pytest.mark.parametrize("damage", ["missing", "short", "no header", "bad header"])
def test_damaged_shard_is_reported_and_made_again(
    folder: LibraryPaths, sources: dict[str, Path], damage: str
) -> None:
    prepare_features(folder, sources)
    path = folder.mels / "shard-00000.npy"
    content = path.read_bytes()
    new = {
        "short": content[:-1],
        "no header": content[128:],
        "bad header": content.replace(b"descr'", b"descr(", 1),
    }
    path.unlink() if damage == "missing" else path.write_bytes(new[damage])
    store = FeatureStore(folder.mels)
    with pytest.raises(
        LibraryError,
        match=r"shard-00000\.npy is missing or damaged; delete it; run: ponticello",
    ):
        store.read("t0")
    assert store.verify() == sorted(sources)
    assert counts(prepare_features(folder, sources)) == (5, 0, 0, 0)
    assert FeatureStore(folder.mels).verify() == []


def test_rows_past_the_end_of_a_shard_are_damage(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    (folder.mels / "shard-00000.npy").unlink()
    write_shard(folder.mels, [np.zeros((12, 128), np.float16)])
    with pytest.raises(LibraryError, match="is missing or damaged"):
        FeatureStore(folder.mels).read("t2")
    assert counts(prepare_features(folder, sources)) == (5, 0, 0, 0)


def test_unknown_track_is_named(folder: LibraryPaths, sources: dict[str, Path]) -> None:
    prepare_features(folder, sources)
    store = FeatureStore(folder.mels)
    for ask in (store.read, store.n_frames, store.sha256):
        with pytest.raises(
            DataError, match="track 'x' has no prepared features; run: ponticello prepare"
        ):
            ask("x")


def test_store_survives_pickling_without_its_maps(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    prepare_features(folder, sources)
    store = FeatureStore(folder.mels)
    mel = store.read("t4")
    packed = pickle.dumps(store)
    assert mel.tobytes() not in packed
    np.testing.assert_array_equal(pickle.loads(packed).read("t4"), mel)


def test_frames_made_with_weights_answer_to_their_key_with_those_or_without(
    folder: LibraryPaths,
) -> None:
    """A front end's key may end in " @ " and the weights: another key that begins alike is still
    another.
    """

    def extract(_path: Path, track_id: str) -> np.ndarray:
        return np.full((2, 5), int(track_id), dtype=np.float16)

    place = folder.frames / "hf-some"
    prepare_features(
        folder,
        {"7": folder.root, "8": folder.root},
        ExtractionJob(place, "hf 30 x @ abc", extract, "prepare x"),
    )
    store = FeatureStore(place)
    assert (store.frame_size, store.weights, store.read("8")[0, 0]) == (5, "abc", 8)
    store.require("hf 30 x")
    store.require("hf 30 x @ abc")
    for key in ("hf 30 x @ abd", "hf 30", "hf 30 x @ ab", "hf 30 xy"):
        with pytest.raises(LibraryError, match="hf-some were prepared with other settings"):
            store.require(key)


def test_what_is_known_not_to_be_usable_is_listed_with_the_rest(
    folder: LibraryPaths, sources: dict[str, Path]
) -> None:
    unusable = (SkippedRow("v.npz", None, "track_id", "t9", "is no track of the catalogue"),)

    def extract(_path: Path, track_id: str) -> np.ndarray:
        if track_id == "t2":
            raise DataError("holds nothing")
        return np.zeros((1, 3), dtype=np.float16)

    front_end = ExtractionJob(
        folder.frames, "x", extract, "prepare x", is_safe=True, unusable=unusable
    )
    done = prepare_features(
        folder, sources, front_end, workers=2
    )  # a second process could not take `extract`
    assert (done.n_new, done.n_kept) == (4, 0)
    assert [(line.value, line.reason) for line in done.skipped] == [
        ("t9", "is no track of the catalogue"),
        ("t2", "holds nothing"),
    ]
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        assert [row["value"] for row in csv.DictReader(file)] == ["t9", "t2"]


def test_a_store_of_nothing_has_no_frame_size(folder: LibraryPaths) -> None:
    prepare_features(folder, {})
    with pytest.raises(
        LibraryError, match="mels were prepared from no track yet; run: ponticello prepare"
    ):
        _ = FeatureStore(folder.mels).frame_size
