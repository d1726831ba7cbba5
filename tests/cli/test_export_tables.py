"""export --vectors and --listeners: Parquet files that other programs read, and what is said of
them.
"""

import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ponticello.errors import ConfigError, LibraryError
from ponticello.library import Library
from tests.cli.commands import error, out


def test_vectors_and_profiles_are_written_and_counted(trained: Library, tmp_path: Path) -> None:
    tracks, listeners = tmp_path / "tracks.parquet", tmp_path / "listeners.parquet"
    said = out(
        "export", "--vectors", tracks, "--listeners", listeners, "-L", trained.folder.root
    ).splitlines()
    d = trained.index.embed_dim
    assert (
        said[0]
        == f"{len(trained.index.track_ids)} tracks: semantic ({d}) + preference ({d}); in {tracks}"
    )
    assert said[1].endswith(f"listeners: semantic ({d}) + preference ({d}); in {listeners}")
    assert pl.read_parquet(tracks).equals(trained.track_vectors())
    assert pl.read_parquet(listeners).equals(trained.listener_vectors())


def test_other_readers_of_parquet_find_arrays_of_one_size(trained: Library, tmp_path: Path) -> None:
    out("export", "--vectors", tmp_path / "tracks.parquet", "-L", trained.folder.root)
    kind = pq.read_schema(tmp_path / "tracks.parquet").field("semantic").type
    assert (kind.list_size, str(kind.value_type)) == (trained.index.embed_dim, "float")


def test_json_names_files_rows_and_columns(trained: Library, tmp_path: Path) -> None:
    said = json.loads(
        out("export", "--vectors", tmp_path / "t.parquet", "-L", trained.folder.root, "--json")
    )
    assert said == {
        "vectors": {
            "file": str(tmp_path / "t.parquet"),
            "n_rows": len(trained.index.track_ids),
            "columns": [
                "track_id",
                "semantic",
                "preference",
                "semantic_level",
                "preference_level",
                "space_id",
            ],
        }
    }


def test_asking_for_nothing_says_what_there_is(trained: Library) -> None:
    assert error(ConfigError, "export", "-L", trained.folder.root).startswith(
        "say what to write: --vectors FILE"
    )


def test_a_library_without_an_index_says_what_to_do_and_leaves_no_file(tmp_path: Path) -> None:
    Library.create(tmp_path / "library")
    message = error(
        LibraryError, "export", "--vectors", tmp_path / "t.parquet", "-L", tmp_path / "library"
    )
    assert "ponticello embed" in message
    assert not (tmp_path / "t.parquet").exists()
