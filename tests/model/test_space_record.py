"""What a model folder says of its space: true of the files, and for others to read."""

import hashlib
import json
from importlib.metadata import version

from ponticello.library import Library
from ponticello.model.saving import SPACE_FILE, space_id


def test_a_trained_run_says_which_space_it_is(trained: Library) -> None:
    run = trained.folder.run("preference")
    record = json.loads((run / SPACE_FILE).read_text())
    assert record["space_id"] == space_id(run) == trained.index.spaces[1].space_id
    assert (
        record["weights_sha256"]
        == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    )
    assert record["embed_dim"] == trained.index.embed_dim
    assert record["preprocessing"]["mel"]["sample_rate"] == 16_000
    assert record["ponticello"] == version("ponticello")
    plain = json.dumps(record["preprocessing"], sort_keys=True)
    assert record["preprocessing_sha256"] == hashlib.sha256(plain.encode()).hexdigest()


def test_two_models_with_one_preprocessing_are_two_spaces(trained: Library) -> None:
    one, two = (
        json.loads((trained.folder.run(name) / SPACE_FILE).read_text())
        for name in ("semantic", "preference")
    )
    assert one["preprocessing_sha256"] == two["preprocessing_sha256"]
    assert one["weights_sha256"] != two["weights_sha256"]
    assert one["space_id"] != two["space_id"]


def test_the_file_is_not_what_decides(trained_copy: Library) -> None:
    run = trained_copy.folder.run("semantic")
    before = space_id(run)
    (run / SPACE_FILE).write_text(json.dumps({"space_id": "another"}))
    assert space_id(run) == before
