"""--engine ray: what Ray's workers prepare and embed has the bytes of a single process."""

import shutil

import numpy as np
import pytest

from ponticello.errors import ConfigError
from ponticello.features import prepare as prepare_part
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.search import embed
from tests.cli.commands import error, out


def test_engine_that_is_none_is_refused(trained: Library) -> None:
    for command in ("embed", "prepare"):
        message = error(ConfigError, command, "--engine", "dask", "-L", trained.folder.root)
        assert message == "engine 'dask' must be here or ray"


@pytest.mark.slow
def test_ray_embeds_with_the_bytes_of_one_process(
    trained_copy: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In four parts, of which each worker embeds some."""
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setattr(embed, "PART_SIZE", 16)
    folder = trained_copy.folder
    for name in ("semantic", "preference"):
        shutil.rmtree(folder.run(name) / "vectors")
    out("embed", "-L", folder.root)
    before = Library.open(folder.root).index.vectors.copy()
    run = folder.run("preference")
    shutil.rmtree(run / "vectors")
    assert ", 60 vectors new; in " in out("embed", "--engine", "ray", "-L", folder.root)
    assert np.array_equal(Library.open(folder.root).index.vectors, before)
    assert len(list(run.glob("vectors/*/part-*"))) == 4
    assert not list(run.glob("vectors/*/jobs/*"))
    assert ", 0 vectors new; in " in out("embed", "--engine", "ray", "-L", folder.root)


@pytest.mark.long
def test_ray_prepares_with_the_bytes_of_one_process(
    trained_copy: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In four parts, so that workers do several."""
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setattr(prepare_part, "TRACKS_PER_TASK", 16)
    folder = trained_copy.folder
    whole = FeatureStore(folder.mels)
    before = {track_id: whole.read(track_id).tobytes() for track_id in whole.track_ids}
    shutil.rmtree(folder.mels)
    said = out("prepare", "--engine", "ray", "--workers", "1", "-L", folder.root)
    assert said.startswith("60 tracks prepared, 0 unchanged")
    found = FeatureStore(folder.mels)
    assert {track_id: found.read(track_id).tobytes() for track_id in found.track_ids} == before
    assert not list(folder.mels.glob("part-*"))
