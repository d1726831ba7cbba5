"""Vectors of other programs: how files are read, what is stored, and what is left out and why."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import CheckpointError, ConfigError, DataError
from ponticello.features.precomputed import PrecomputedFeatures, read_vector_file
from ponticello.features.prepare import PrepareResult, prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library

ROWS = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.5], "c": [0.0, -1.0, 0.25]}


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    """A library of four tracks without audio."""
    folder = create_library(tmp_path / "library", "tiny")
    pl.DataFrame({"track_id": ["a", "b", "c", "d"]}).write_parquet(folder.tracks)
    return folder


def _npz(place: Path, rows: dict[str, list[float]]) -> None:
    np.savez(
        place.with_suffix(".npz"), ids=np.array(list(rows)), vectors=np.array(list(rows.values()))
    )


def _parquet(place: Path, rows: dict[str, list[float]]) -> None:
    pl.DataFrame({"track_id": list(rows), "vector": list(rows.values())}).write_parquet(
        place.with_suffix(".parquet")
    )


def _npy(place: Path, rows: dict[str, list[float]]) -> None:
    place.mkdir(exist_ok=True)
    for track_id, row in rows.items():
        np.save(place / f"{track_id}.npy", np.array(row))


def _take_over(folder: LibraryPaths, place: str) -> PrepareResult:
    front_end, files = PrecomputedFeatures(place).job(folder)
    with folder.lock():
        return prepare_features(folder, files, front_end, workers=4)


def _store(folder: LibraryPaths) -> FeatureStore:
    return FeatureStore(folder.frames / "features")


def _reasons(folder: LibraryPaths) -> dict[str, str]:
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == {"prepare features"}
    return {row["value"]: row["reason"] for row in rows}


@pytest.mark.parametrize(
    ("write", "place"), [(_npz, "v.npz"), (_parquet, "v.parquet"), (_npy, "v")]
)
def test_every_kind_gives_one_frame_a_track(
    folder: LibraryPaths, write: Callable[[Path, dict[str, list[float]]], None], place: str
) -> None:
    write(folder.root / "v", ROWS)
    done = _take_over(folder, place)
    assert (done.n_new, done.n_kept, done.skipped) == (3, 0, [])
    store = _store(folder)
    store.require(f"features {place}")
    assert (store.track_ids, store.frame_size, store.weights) == (["a", "b", "c"], 3, "")
    for track_id, row in ROWS.items():
        np.testing.assert_array_equal(store.read(track_id), [row])
    assert store.verify() == []
    again = _take_over(folder, place)
    assert (again.n_new, again.n_kept) == (0, 3)


def test_a_file_of_several_frames_keeps_them_and_the_place_may_be_absolute(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere" / "a.npy", np.array([[1, 2], [3, 4], [5, 6]], dtype=np.int16))
    np.save(tmp_path / "elsewhere" / "b.npy", np.array([7.0, 8.0], dtype=np.float32))
    _take_over(folder, str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(_store(folder).read("a"), [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(_store(folder).read("b"), [[7, 8]])


def test_what_cannot_be_used_is_listed_with_its_reason(folder: LibraryPaths) -> None:
    rows = {
        **ROWS,
        "b": [np.nan, 0.0, 0.0],
        "c": [0.0, -70_000.0, 0.0],
        "stranger": [1.0, 1.0, 1.0],
    }
    _parquet(folder.root / "v", {**rows, "d": [1.0, 2.0]})
    done = _take_over(folder, "v.parquet")
    assert (done.n_new, _store(folder).track_ids) == (1, ["a"])
    assert _reasons(folder) == {
        "b": "holds numbers that are not finite",
        "c": "holds numbers above 65,504, which float16 cannot hold; scale the vectors down",
        "d": "has 2 numbers, where most vectors have 3",
        "stranger": "is no track of the catalogue",
    }


def test_files_that_are_no_frames_are_listed_and_never_unpickled(folder: LibraryPaths) -> None:
    _npy(folder.root / "v", {"a": [1.0, 2.0]})
    np.save(folder.root / "v" / "b.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder.root / "v" / "c.npy", np.zeros((2, 2, 2)))
    (folder.root / "v" / "d.npy").write_bytes(b"no array")
    assert _take_over(folder, "v").n_new == 1
    reasons = _reasons(folder)
    assert reasons["c"] == "must be (F,) or (T, F) numbers; found (2, 2, 2) of float64"
    for track_id in ("b", "d"):
        assert reasons[track_id].startswith("cannot be read as .npy without pickles: ")


def test_a_changed_file_is_read_again_and_other_sizes_leave_with_it(folder: LibraryPaths) -> None:
    """First two vectors of 3, then three new ones of 2, which outnumber them."""
    _npy(folder.root / "v", {"a": ROWS["a"]})
    _take_over(folder, "v")
    _npy(folder.root / "v", {"b": [1.0, 2.0], "c": [3.0, 4.0]})
    done = _take_over(folder, "v")
    assert (done.n_new, done.n_kept, done.n_removed) == (2, 0, 1)
    assert (_store(folder).track_ids, _store(folder).frame_size) == (["b", "c"], 2)
    assert _reasons(folder) == {"a": "has 3 numbers, where most vectors have 2"}
    _npy(folder.root / "v", {"b": [9.0, 9.0]})
    assert _take_over(folder, "v").n_new == 1
    np.testing.assert_array_equal(_store(folder).read("b"), [[9, 9]])


def test_a_setting_that_names_nothing_is_said(folder: LibraryPaths) -> None:
    with pytest.raises(
        ConfigError, match='front_end "features" needs the setting features = "FILE OR FOLDER'
    ):
        PrecomputedFeatures("")
    with pytest.raises(DataError, match=r"none\.npz does not exist"):
        PrecomputedFeatures("none.npz").job(folder)
    (folder.root / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"empty holds no \.npy file; name one TRACK_ID\.npy for each track"
    ):
        PrecomputedFeatures("empty").job(folder)


def test_sound_cannot_be_heard(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"trained on vectors from v\.npz and cannot read a sound"
    ):
        PrecomputedFeatures("v.npz").extract(tmp_path / "a.flac", 16_000)
    assert PrecomputedFeatures("v.npz").blocks(12) == ((12, 1.0),)


def test_both_kinds_of_file_give_the_same_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["a", "b"]), vectors=np.array([[1, 2], [3, 4]]))
    pl.DataFrame({"track_id": ["a", "b"], "vector": [[1, 2], [3, 4]]}).write_parquet(
        tmp_path / "v.parquet"
    )
    for name in ("v.npz", "v.parquet"):
        ids, vectors = read_vector_file(tmp_path / name)
        assert ids == ["a", "b"]
        np.testing.assert_array_equal(np.stack(vectors), [[1.0, 2.0], [3.0, 4.0]])
        assert vectors[0].dtype == np.float64


def test_parquet_rows_may_differ_in_size_or_be_empty(tmp_path: Path) -> None:
    table = pl.DataFrame({"track_id": [7, 8, 9], "vector": [[1.0, 2.0], None, [3.0]]})
    table.write_parquet(tmp_path / "v.parquet")
    ids, vectors = read_vector_file(tmp_path / "v.parquet")
    assert ids == ["7", "8", "9"]
    assert [row.tolist() for row in vectors] == [[1.0, 2.0], [], [3.0]]


def test_a_table_without_rows_or_with_a_repeated_id_is_refused(tmp_path: Path) -> None:
    pl.DataFrame(schema={"track_id": pl.String, "vector": pl.List(pl.Float64)}).write_parquet(
        tmp_path / "e.parquet"
    )
    with pytest.raises(DataError, match=r"e\.parquet: every row needs an id; 0 of 0 have none"):
        read_vector_file(tmp_path / "e.parquet")
    pl.DataFrame({"track_id": ["a", "a"], "vector": [[1.0], [2.0]]}).write_parquet(
        tmp_path / "r.parquet"
    )
    with pytest.raises(DataError, match=r"r\.parquet: id 'a' is listed twice"):
        read_vector_file(tmp_path / "r.parquet")
