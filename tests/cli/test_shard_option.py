"""--shard: a job's part from the command line, without the library's lock, and what is no part."""

import shutil

import numpy as np
import pytest
from commands import out

from ponticello.api import Library
from ponticello.cli.console import read_shard
from ponticello.errors import ConfigError


def test_command_does_a_part_while_the_library_is_held_and_then_the_index(trained_copy: Library) -> None:
    folder = trained_copy.folder
    before = Library(folder).index.vectors.copy()
    for name in ("semantic", "preference"):
        shutil.rmtree(folder.run(name) / "vectors")
    with folder.lock():
        said = [out("embed", "--shard", f"{number}/2", "-L", folder.root) for number in (1, 2)]
    tail = "; when all parts have ended, run: ponticello embed\n"
    assert said == [f"part 1 of 2: 120 vectors, 120 new{tail}", f"part 2 of 2: 0 vectors, 0 new{tail}"]
    assert ", 0 vectors new; in " in out("embed", "-L", folder.root)
    assert np.array_equal(Library.open(folder.root).index.vectors, before)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0"])
def test_shard_that_is_none_is_refused(shard: str) -> None:
    with pytest.raises(ConfigError, match=f"--shard '{shard}' must be i/n with i from 1 to n, such as 2/4"):
        read_shard(shard)
