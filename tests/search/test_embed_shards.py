"""Embedding by several jobs: the bytes of a single process, also at once, with one missing, and
with a part damaged.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ponticello.errors import LibraryError
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.search import embed
from ponticello.search.embed import Vectors, embed_library, embed_shard, require_shards
from tests.forks import fork_context

LOT = 16  # tracks a part: 60 tracks are four lots, of 16, 16, 16 and 12


@pytest.fixture
def run(trained_copy: Library, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage-one run of a library that may be changed, without its vectors."""
    monkeypatch.setattr(embed, "PART_SIZE", LOT)
    run = trained_copy.folder.run("semantic")
    shutil.rmtree(run / "vectors")
    return run


@pytest.fixture
def store(trained_copy: Library) -> FeatureStore:
    return FeatureStore(trained_copy.folder.mels)


def _alone(run: Path, store: FeatureStore) -> Vectors:
    vectors, n_new = embed_library(run, store)
    assert n_new == 60
    shutil.rmtree(run / "vectors")
    return vectors


def _assert_same_bytes(found: Vectors, wanted: Vectors) -> None:
    assert found.track_ids == wanted.track_ids
    assert found.matrix.tobytes() == wanted.matrix.tobytes()


def _job(run: Path, mels: Path, shard: tuple[int, int]) -> None:
    embed.PART_SIZE = LOT
    embed_shard(run, FeatureStore(mels), shard)


def test_jobs_one_after_the_other_give_the_bytes_of_one_process(
    run: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last call has nothing left to compute. A job that begins when others have ended keeps to
    its own lots.
    """
    wanted = _alone(run, store)
    assert [embed_shard(run, store, (number, 3)) for number in (3, 1, 2)] == [
        (16, 16),
        (28, 28),
        (16, 16),
    ]
    assert embed_shard(run, store, (2, 3)) == (16, 0)
    monkeypatch.setattr(
        HTCL, "from_pretrained", lambda _: pytest.fail("nothing was to be computed")
    )
    found, n_new = embed_library(run, store)
    assert n_new == 0
    _assert_same_bytes(found, wanted)
    _assert_same_bytes(embed_library(run, store)[0], wanted)
    assert list(next((run / "vectors").iterdir()).glob("jobs/*")) == []


def test_a_missing_job_is_made_up_for_with_the_same_bytes(run: Path, store: FeatureStore) -> None:
    wanted = _alone(run, store)
    embed_shard(run, store, (2, 2))
    found, n_new = embed_library(run, store)
    assert n_new == 32, "the first and third lot"
    _assert_same_bytes(found, wanted)


def test_a_missing_job_is_named(run: Path, store: FeatureStore) -> None:
    """Jobs 1 and 3 of 3 lack, of four lots, the first, third and last: 16 + 16 + 12 tracks."""
    embed_shard(run, store, (2, 3))
    with pytest.raises(
        LibraryError,
        match="run 'semantic': 44 vectors of shards 1/3, 3/3 are missing; run those jobs",
    ):
        require_shards(run, store, 3)
    for number in (1, 3):
        embed_shard(run, store, (number, 3))
    require_shards(run, store, 3)
    embed_library(run, store)
    require_shards(run, store, 3)


def test_jobs_of_another_model_are_told_from_missing_ones(run: Path, store: FeatureStore) -> None:
    embed_shard(run, store, (1, 1))
    weights = load_file(run / "model.safetensors")
    weights["logit_scales.audio_text"] = np.asarray(
        weights["logit_scales.audio_text"] + np.float32(0.5)
    )
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        LibraryError,
        match=r"shards 1/1 are missing; .* what lies in .* was made with another model",
    ):
        require_shards(run, store, 1)


def test_a_damaged_part_of_a_job_is_made_again(run: Path, store: FeatureStore) -> None:
    wanted = _alone(run, store)
    embed_shard(run, store, (1, 1))
    part = min(next((run / "vectors").iterdir()).glob("jobs/part-*"))
    part.write_bytes(part.read_bytes()[:-1])
    found, n_new = embed_library(run, store)
    assert n_new == LOT
    _assert_same_bytes(found, wanted)


@pytest.mark.slow
def test_jobs_at_the_same_time_give_the_bytes_of_one_process(
    run: Path, store: FeatureStore, trained_copy: Library
) -> None:
    wanted = _alone(run, store)
    context = fork_context()
    jobs = [
        context.Process(target=_job, args=(run, trained_copy.folder.mels, (number, 2)))
        for number in (1, 2)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    found, n_new = embed_library(run, store)
    assert n_new == 0
    _assert_same_bytes(found, wanted)
