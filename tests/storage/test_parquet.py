"""A Parquet file is read by its own path, whatever the letters in it, and a damaged one is one
readable error.
"""

import importlib.util
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import DataError, PonticelloError
from ponticello.features.precomputed import read_vector_file
from ponticello.listening.importers.run import import_history
from ponticello.listening.log import read_interactions
from ponticello.maintenance.erase_user import erase_users, stored_ids
from ponticello.pairs.engine import EngineOptions, open_engine
from ponticello.pairs.mine import current_splits, encode_library_log, mine_library, read_pairs
from ponticello.storage.layout import create_library, open_library
from ponticello.storage.tables import read_parquet, read_raw, scan_parquet, wrap_read_errors
from ponticello.tracks.catalog import import_tracks, read_stored_table, read_tracks

# A folder, and another that it would fit as a pattern.
LOOKALIKES = [
    ("Music [FLAC]", "Music F"),
    ("star*", "starry"),
    ("what?", "whats"),
    ("a[12]b", "a1b"),
]
SETTINGS = ["pairs.min_users=1", "pairs.sources=['session']"]


@pytest.mark.parametrize("names", LOOKALIKES)
def test_library_under_a_name_that_reads_as_a_pattern_is_its_own(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    folders = []
    for name, others in zip(names, ("a", "b"), strict=True):
        root = tmp_path / name
        create_library(root / "library", "tiny")
        folder = open_library(root / "library", SETTINGS)
        tracks = [f"{others}{number}" for number in range(6)]
        plays = [(f"{others}-{user}", track) for user in "xyz" for track in tracks]
        table = pl.DataFrame(plays, schema=["user_id", "track_id"], orient="row").with_row_index(
            "minute"
        )
        table = table.select(
            "user_id", "track_id", played_at=pl.datetime(2025, 1, 1) + pl.duration(minutes="minute")
        )
        table.write_parquet(root / "plays.parquet")
        pl.DataFrame({"track_id": tracks, "artist": tracks}).write_parquet(root / "tracks.parquet")
        for _ in range(2):
            import_tracks(folder, root / "tracks.parquet")
            import_history(folder, root / "plays.parquet", pseudonyms=False)
        mine_library(folder)
        folders.append(folder)
    folder = folders[0]
    assert set(read_tracks(folder)["track_id"].str.slice(0, 1)) == {"a"}
    assert set(read_interactions(folder)["user_id"]) == {"a-x", "a-y", "a-z"}
    assert not read_pairs(folder).is_empty()
    assert set(read_pairs(folder)["anchor_id"].str.slice(0, 1)) == {"a"}
    assert stored_ids(folder, ["a-x"]) == ["a-x"]
    assert erase_users(folder, ["a-x"]).n_events == 6
    assert set(read_interactions(folder)["user_id"]) == {"a-y", "a-z"}
    assert set(read_interactions(folders[1])["user_id"]) == {"b-x", "b-y", "b-z"}


def test_what_waits_is_forgotten_also_under_such_a_name(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "Music [FLAC]" / "library", "tiny")
    (tmp_path / "tracks.csv").write_text("track_id\na\n")
    import_tracks(folder, tmp_path / "tracks.csv")
    (tmp_path / "plays.csv").write_text("user_id,track_id,played_at\nada,none,2025-01-01\n")
    import_history(folder, tmp_path / "plays.csv", pseudonyms=False)
    assert erase_users(folder, ["ada"]).n_rows == {"unmatched-history.parquet": 1}
    assert not (folder.root / "unmatched-history.parquet").exists()


@pytest.mark.parametrize("engine", ["duckdb", pytest.param("local[1]", marks=pytest.mark.long)])
def test_an_engine_reads_the_file_that_is_named(tmp_path: Path, engine: str) -> None:
    if engine != "duckdb" and (
        importlib.util.find_spec("pyspark") is None or shutil.which("java") is None
    ):
        pytest.skip("needs pyspark and Java")
    names = [*(name for pair in LOOKALIKES for name in pair), "{a,b}", "a"]
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        pl.DataFrame({"number": [number]}).write_parquet(tmp_path / name / "x.parquet")
    with open_engine(EngineOptions(engine)) as opened:
        tables = [opened.to_polars(opened.read([tmp_path / name / "x.parquet"])) for name in names]
    assert [table.rows() for table in tables] == [[(number,)] for number in range(len(names))]


def _damaged(path: Path, n_files: int) -> list[bytes]:
    """A table of several types, each time with three bytes flipped."""
    rows = {
        "track_id": [f"t{n}" for n in range(50)],
        "played_at": [datetime(2025, 1, 1, tzinfo=UTC)] * 50,
    }
    pl.DataFrame({**rows, "genres": [["a", "b"]] * 50, "year": range(50)}).write_parquet(
        path, compression="zstd"
    )
    whole, generator, files = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(n_files):
        data = bytearray(whole)
        for at in generator.integers(4, len(data) - 8, size=3):
            data[at] ^= int(generator.integers(1, 256))
        files.append(bytes(data))
    return files


def test_damage_is_one_error_of_ours_or_none(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    readers: list[Callable[[Path], object]] = [
        lambda path: read_parquet(path, path.name),
        scan_parquet,
        read_stored_table,
        lambda path: read_raw(path, path.name, {}),
        read_vector_file,
    ]
    reasons = []
    for data in _damaged(path, 300):
        path.write_bytes(data)
        for read in readers:
            try:
                read(path)
            except PonticelloError as error:
                reasons.append(str(error))
    assert len(reasons) > 500
    assert not [reason for reason in reasons if "\n" in reason]


def test_damage_in_the_rows_of_a_log_names_the_file_whoever_reads_them(tmp_path: Path) -> None:
    """The end of the file, which says what columns there are, is whole: only who reads the rows
    meets the damage.
    """
    folder = create_library(tmp_path / "library", "tiny")
    tracks = [f"t{n}" for n in range(20)]
    pl.DataFrame({"track_id": tracks, "artist": tracks}).write_parquet(folder.tracks)
    plays = pl.DataFrame(
        {"user_id": tracks, "track_id": tracks[::-1], "played_at": [datetime(2025, 1, 1)] * 20}
    )
    plays.write_parquet(tmp_path / "plays.parquet")
    import_history(folder, tmp_path / "plays.parquet", pseudonyms=False)
    whole = folder.interactions.read_bytes()
    n_bytes = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # of rows
    generator, reasons = np.random.default_rng(0), []
    readers: list[Callable[[], object]] = [
        lambda: stored_ids(folder, ["t1"]),
        lambda: erase_users(folder, ["t1"]),
        lambda: current_splits(folder),
    ]
    for _ in range(20):
        data = bytearray(whole)
        for at in generator.integers(4, n_bytes, size=3):
            data[at] ^= int(generator.integers(1, 256))
        for read in readers:
            folder.interactions.write_bytes(data)
            try:
                read()
            except PonticelloError as error:
                reasons.append(str(error))
    assert len(reasons) > 20
    assert all(
        reason.startswith("interactions.parquet cannot be read as Parquet (") for reason in reasons
    )
    folder.interactions.write_bytes(bytes(n_bytes) + whole[n_bytes:])
    with (
        open_engine() as engine,
        pytest.raises(DataError, match=r"interactions\.parquet cannot be read as Parquet"),
    ):
        encode_library_log(engine, folder, tracks, None)


def test_what_goes_wrong_over_a_whole_file_is_what_it_was(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ZeroDivisionError), wrap_read_errors(tmp_path / "x.parquet"):
        raise ZeroDivisionError
    wanted = r"x\.parquet cannot be read as Parquet \(index out of bounds\)"
    with pytest.raises(DataError, match=wanted), wrap_read_errors(tmp_path / "x.parquet"):
        raise pl.exceptions.PanicException("index out of bounds")


def test_damaged_pairs_are_to_be_mined_again(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "library", "tiny")
    for data in _damaged(folder.pairs, 100):
        folder.pairs.write_bytes(data)
        with pytest.raises(DataError, match="mine the pairs again"):
            read_pairs(folder)


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet", "x", ["b"]).rows() == [(2,)]
    with pytest.raises(DataError, match=r"x cannot be read as Parquet \(.*c"):
        read_parquet(tmp_path / "x.parquet", "x", ["c"])
