"""--shard and --merge-shards: a job's share from the command line, without the library's lock."""

import shutil

import numpy as np
import pytest

from ponticello.cli.options import read_shard
from ponticello.errors import ConfigError, LibraryError
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from tests.cli.commands import error, out


def test_commands_do_parts_while_the_library_is_held_and_then_the_index(
    trained_copy: Library,
) -> None:
    folder = trained_copy.folder
    before = Library(folder).index.vectors.copy()
    for name in ("semantic", "preference"):
        shutil.rmtree(folder.run(name) / "vectors")
    with folder.lock():
        said = [out("embed", "--shard", f"{number}/2", "-L", folder.root) for number in (1, 2)]
    tail = (
        f"; when all shards have ended, run: ponticello embed --merge-shards 2 -L {folder.root}\n"
    )
    assert said == [
        f"shard 1 of 2: 120 vectors, 120 new{tail}",
        f"shard 2 of 2: 0 vectors, 0 new{tail}",
    ]
    assert ", 0 vectors new; in " in out("embed", "--merge-shards", "2", "-L", folder.root)
    assert np.array_equal(Library.open(folder.root).index.vectors, before)


def test_vectors_of_a_missing_job_are_an_error_and_no_index(trained_copy: Library) -> None:
    folder = trained_copy.folder
    live = (folder.index / "CURRENT").read_text(encoding="utf-8")
    shutil.rmtree(folder.run("preference") / "vectors")
    out("embed", "--shard", "2/2", "-L", folder.root)
    message = error(LibraryError, "embed", "--merge-shards", "2", "-L", folder.root)
    assert "run 'preference': 60 vectors of shards 1/2 are missing; run those jobs again" in message
    assert (folder.index / "CURRENT").read_text(encoding="utf-8") == live


def test_sounds_prepared_in_parts_are_those_of_one_process(trained_copy: Library) -> None:
    folder = trained_copy.folder
    whole = FeatureStore(folder.mels)
    before = {track_id: whole.read(track_id).tobytes() for track_id in whole.track_ids}
    shutil.rmtree(folder.mels)
    first = out("prepare", "--workers", "1", "--shard", "1/2", "-L", folder.root)
    assert first.startswith("shard 1 of 2: ")
    assert first.endswith(f"run: ponticello prepare --merge-shards 2 -L {folder.root}\n")
    message = error(LibraryError, "prepare", "--merge-shards", "2", "-L", folder.root)
    assert "shards 2/2 are not finished; run those jobs again" in message
    out("prepare", "--workers", "1", "--shard", "2/2", "-L", folder.root)
    assert out("prepare", "--merge-shards", "2", "-L", folder.root).startswith(
        "60 tracks prepared, 0 unchanged"
    )
    found = FeatureStore(folder.mels)
    assert {track_id: found.read(track_id).tobytes() for track_id in found.track_ids} == before


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0"])
def test_shard_that_is_none_is_refused(shard: str) -> None:
    with pytest.raises(
        ConfigError, match=f"--shard '{shard}' must be i/n with i from 1 to n, such as 2/4"
    ):
        read_shard(shard, None, "here")


def test_shard_is_not_joined_in_the_same_call() -> None:
    for shard, join, engine in (("1/2", 2, "here"), ("1/2", None, "ray"), (None, 2, "ray")):
        with pytest.raises(
            ConfigError, match="--shard, --merge-shards and --engine exclude each other"
        ):
            read_shard(shard, join, engine)
