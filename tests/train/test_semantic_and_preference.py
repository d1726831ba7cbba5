"""Training runs: what they learn, what they leave behind, and that a killed one ends as if nothing
had happened.
"""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.metrics.ranking import retrieval_ranks
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import Splits
from ponticello.storage.schema import TRACK_ID
from ponticello.train.contrastive import contrastive_task
from ponticello.train.dataset import StageData, track_dataset
from ponticello.train.loop import TrainingLoop, TrainingObserver, run_loop
from ponticello.train.preference import train_preference
from ponticello.train.runs import (
    COMPLETE,
    LISTENING_FILE,
    is_finished,
    last_checkpoint,
    mark_complete,
)
from ponticello.train.semantic import train_semantic
from ponticello.train.stages import semantic_stage
from tests.forks import fork_context

SHORT = [
    "semantic.max_steps=12",
    "preference.max_steps=12",
    "semantic.eval_steps=3",
    "preference.eval_steps=3",
]
SHORT += [
    "semantic.batch_size=8",
    "preference.batch_size=8",
    "semantic.early_stopping_patience=9",
    "preference.early_stopping_patience=9",
]
SHORT += ["audio.crop_seconds=2"]


class KillAt(TrainingObserver):
    """Ends the process as `kill -9` does, after an optimiser step and before anything of it is
    saved.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        if loop.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(root: Path, stage: str, observers: Sequence[TrainingObserver] = ()) -> Path:
    """Trains one short stage of the library at `root`; gives its weights' file."""
    folder = Library.open(root, SHORT).folder
    if stage == "semantic":
        run = train_semantic(folder, "semantic", retrieval_figures, observers=observers)
    else:
        run = train_preference(
            folder, "preference", "semantic", retrieval_figures, observers=observers
        )
    return run.folder / "model.safetensors"


def log_of(run: Path) -> list[dict[str, Any]]:
    """Every line of the log."""
    return [
        json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def train_until_killed(root: str, stage: str, step: int) -> None:
    train(Path(root), stage, [KillAt(step)])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["semantic", "preference"])
def test_run_killed_at_any_step_resumes_to_identical_weights_and_losses(
    stage: str, make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Twelve steps, a checkpoint every third; five steps to die at are drawn, so most lie between
    checkpoints.
    """
    start = tmp_path / "start"
    make_library(start)
    if stage == "preference":
        train(start, "semantic")
    shutil.copytree(start, tmp_path / "undisturbed")
    expected = load_file(train(tmp_path / "undisturbed", stage))
    steps = np.random.default_rng(7).choice(np.arange(1, 12), size=5, replace=False).tolist()
    context = fork_context()
    killed = []
    for step in steps:
        root = tmp_path / f"killed-{step}"
        shutil.copytree(start, root)
        killed.append(
            (root, context.Process(target=train_until_killed, args=(str(root), stage, step)))
        )
    for _, process in killed:
        process.start()
    for root, process in killed:
        process.join(timeout=180)
        assert process.exitcode == -signal.SIGKILL
        assert not is_finished(root / "runs" / stage)
    for root, _ in killed:
        found = load_file(train(root, stage))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), root.name
        assert log_of(root / "runs" / stage) == log_of(tmp_path / "undisturbed" / "runs" / stage), (
            root.name
        )


def test_half_written_checkpoint_is_passed_over_and_removed(tmp_path: Path) -> None:
    for step in (3, 12, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (3, 6):
        (tmp_path / f"checkpoint-{step}" / "model").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model" / "weights").write_bytes(b"some weights")
        mark_complete(tmp_path / f"checkpoint-{step}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
    assert not (tmp_path / "checkpoint-12").exists()


@pytest.mark.parametrize("place", ["weights", COMPLETE])
@pytest.mark.parametrize("content", [b"", b"some weighty", None])
def test_checkpoint_that_is_not_what_was_written_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, content: bytes | None
) -> None:
    for step in (3, 12):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_bytes(b"some weights")
        mark_complete(checkpoint)
    assert last_checkpoint(tmp_path) == checkpoint
    if content is not None:
        (checkpoint / place).write_bytes(content)
    else:
        (checkpoint / "weights").unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert "of checkpoint-12 is damaged; using the one before" in caplog.text


@pytest.mark.slow
def test_stage_two_from_another_stage_one_is_another_run(trained_copy: Library) -> None:
    folder = trained_copy.folder
    shutil.copytree(folder.run("semantic"), folder.run("other"))
    model = HTCL.from_pretrained(folder.run("other"))
    with torch.no_grad():
        model.get_parameter("audio_head.linears.0.bias").add_(0.01)
    model.save_pretrained(folder.run("other"))
    for start, is_same in (("semantic", True), ("other", False)):
        if is_same:
            assert (
                train_preference(folder, "preference", start, retrieval_figures).stage
                == "preference"
            )
        else:
            with pytest.raises(
                CheckpointError, match="began from another stage one; choose another --name"
            ):
                train_preference(folder, "preference", start, retrieval_figures)


def test_no_checkpoint_means_a_fresh_start(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nothing") is None


def test_tiny_model_overfits_eight_tracks(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Every one of eight texts finds its own track first."""
    library = make_library(tmp_path / "library")
    config = library.folder.config
    store, track_ids = FeatureStore(library.folder.mels), library.tracks[TRACK_ID].to_list()[:8]
    texts = {track_id: f"piece {number}" for number, track_id in enumerate(track_ids)}
    dataset = track_dataset(store, texts, track_ids)
    torch.manual_seed(0)
    model = HTCL.from_settings(config)
    settings = config.semantic.model_copy(
        update={"max_steps": 150, "eval_steps": 50, "batch_size": 8}
    )
    stage = semantic_stage(config.model_copy(update={"semantic": settings}))
    splits = Splits(dict.fromkeys(track_ids, "validation"), None, None)
    data = StageData(dataset, dataset, splits, n_candidates=8)
    run_loop(contrastive_task(stage, model, data, retrieval_figures), tmp_path, [], {})
    text = model.encode_text(list(texts.values()))
    audio = model.encode_features([store.read(track_id) for track_id in track_ids])
    assert retrieval_ranks(text, audio, np.arange(8)).tolist() == [1.0] * 8


def test_finished_run_leaves_a_model_a_log_and_no_checkpoints_or_pickles(trained: Library) -> None:
    for stage in ("semantic", "preference"):
        run = trained.folder.run(stage)
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        names = {path.name for path in run.iterdir() if path.is_file()}
        assert {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "log.jsonl",
            "run.json",
        } <= names
        assert not (run / "checkpoints").exists()
        assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
        assert record["stage"] == stage
        assert record["settings"] == trained.folder.config.model_dump(mode="json")


def test_log_holds_every_part_of_the_loss_and_every_validation(trained: Library) -> None:
    lines = (
        (trained.folder.run("preference") / "log.jsonl").read_text(encoding="utf-8").splitlines()
    )
    entries = [json.loads(line) for line in lines]
    steps = [entry for entry in entries if "loss" in entry]
    parts = ("loss_audio_text", "loss_audio_audio", "loss_audio_fusion")
    assert steps
    assert all(
        entry["loss"] == pytest.approx(sum(entry[part] for part in parts), abs=1e-3)
        for entry in steps
    )
    validations = [entry for entry in entries if "eval_mrr" in entry]
    assert validations
    assert all(
        "eval_text_recall@10" in entry and "eval_pair_recall@10" in entry for entry in validations
    )
    best = json.loads((trained.folder.run("preference") / "run.json").read_text(encoding="utf-8"))[
        "best"
    ]
    assert best["mrr"] == max(entry["eval_mrr"] for entry in validations)


def test_stage_two_carries_the_heads_over_and_can_start_them_afresh(trained_copy: Library) -> None:
    """With the learning rates at zero nothing moves: the heads are stage one's, or they are not."""
    still = [
        "preference.max_steps=1",
        "preference.audio_lr=0",
        "preference.heads_lr=0",
        "preference.text_lr=0",
    ]
    before = HTCL.from_pretrained(trained_copy.folder.run("semantic")).state_dict()
    for name, reset in (("carried", "false"), ("fresh", "true")):
        folder = Library.open(
            trained_copy.folder.root, [*still, f"preference.reset_heads={reset}"]
        ).folder
        run = train_preference(folder, name, "semantic", retrieval_figures)
        after = HTCL.from_pretrained(run.folder).state_dict()
        weight = "audio_head.linears.0.weight"
        assert torch.equal(before[weight], after[weight]) is (name == "carried")
        tower = "audio_encoder.projection.weight"
        assert torch.equal(before[tower], after[tower])


def test_validation_uses_unseen_tracks_and_stays_out_of_training(trained: Library) -> None:
    roles = dict(pl.read_parquet(trained.folder.splits).select(TRACK_ID, "role").iter_rows())
    pairs = pl.read_parquet(trained.folder.validation_pairs)
    touched = [
        {roles[a], roles[b]} for a, b in pairs.select("anchor_id", "positive_id").iter_rows()
    ]
    assert touched
    assert all(pair == {"train", "validation"} for pair in touched)


def test_stage_two_notes_the_log_it_learned_from(trained: Library) -> None:
    note = json.loads(
        (trained.folder.run("preference") / LISTENING_FILE).read_text(encoding="utf-8")
    )
    assert note == {
        "log_sha256": hashlib.sha256(trained.folder.interactions.read_bytes()).hexdigest()
    }
    assert not (trained.folder.run("semantic") / LISTENING_FILE).exists()


def test_second_call_gives_the_finished_run_again(trained: Library) -> None:
    weights = trained.folder.run("semantic") / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run = train_semantic(trained.folder, "semantic", retrieval_figures)
    assert weights.stat().st_mtime_ns == before
    assert run.n_rows > 0


def test_name_of_the_other_stage_is_refused(trained: Library) -> None:
    with pytest.raises(
        CheckpointError, match="run 'preference' is of stage preference; choose another --name"
    ):
        train_semantic(trained.folder, "preference", retrieval_figures)


def test_stage_two_without_stage_one_says_what_to_run(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    library = make_library(tmp_path / "library")
    with pytest.raises(
        LibraryError, match="run 'semantic' is not a finished stage one; train it with"
    ):
        train_preference(library.folder, "preference", "semantic", retrieval_figures)


def test_too_little_to_train_on_is_said_with_the_counts(trained_copy: Library) -> None:
    root = trained_copy.folder.root
    shutil.rmtree(root / "runs" / "preference")
    pl.read_parquet(trained_copy.folder.pairs).head(1).write_parquet(trained_copy.folder.pairs)
    with pytest.raises(
        DataError, match=r"stage preference: 1 training and .* at least 2 of each are needed"
    ) as raised:
        train_preference(trained_copy.folder, "preference", "semantic", retrieval_figures)
    assert str(raised.value).endswith("or change the splits; until then stage one answers alone")


def test_without_any_pair_stage_one_still_answers(trained_copy: Library) -> None:
    shutil.rmtree(trained_copy.folder.run("preference"))
    pl.read_parquet(trained_copy.folder.pairs).head(0).write_parquet(trained_copy.folder.pairs)
    with pytest.raises(
        DataError, match=r"stage preference: 0 training and .* until then stage one answers alone"
    ):
        train_preference(trained_copy.folder, "preference", "semantic", retrieval_figures)
    assert not trained_copy.folder.run(
        "preference"
    ).exists()  # or `doctor` would tell of a run that was begun
    trained_copy.embed("semantic", with_preference=False)
    assert len(Library.open(trained_copy.folder.root).recommend("simulated-0001", k=3)) == 3


def test_other_architecture_is_refused_in_stage_two(trained_copy: Library) -> None:
    shutil.rmtree(trained_copy.folder.run("preference"))
    folder = Library.open(trained_copy.folder.root, ["audio.n_layers=3"]).folder
    with pytest.raises(CheckpointError, match=r"the model was made with \[audio\]"):
        train_preference(folder, "preference", "semantic", retrieval_figures)


def test_weights_that_are_not_finite_are_never_saved(trained: Library, tmp_path: Path) -> None:
    model = HTCL.from_pretrained(trained.folder.run("semantic"))
    dict(model.named_parameters())["audio_head.linears.0.weight"].data[0, 0] = float("nan")
    with pytest.raises(
        CheckpointError, match=r"audio_head.linears.0.weight is not finite: nothing was saved"
    ):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_finished_run_with_other_settings_is_not_passed_off_as_the_one_asked_for(
    trained: Library,
) -> None:
    folder = Library.open(trained.folder.root, ["semantic.epochs=11"]).folder
    with pytest.raises(
        CheckpointError, match=r"run 'semantic' is finished, with other settings in \[semantic\]"
    ):
        train_semantic(folder, "semantic", retrieval_figures)


class StopAt(TrainingObserver):
    """Ends training by an error, as Ctrl-C does, after a step."""

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        if loop.step == 4:
            raise KeyboardInterrupt


def test_interrupted_run_refuses_to_go_on_with_other_settings_or_data(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """A checkpoint at step 3, stopped at step 4; then another rate, and then one text less, are
    refused by name.
    """
    make_library(tmp_path / "library")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "library", "semantic", [StopAt()])
    folder = Library.open(tmp_path / "library", [*SHORT, "semantic.audio_lr=0.5"]).folder
    with pytest.raises(
        CheckpointError, match="was interrupted and cannot go on: semantic changed since"
    ):
        train_semantic(folder, "semantic", retrieval_figures)
    tracks = pl.read_parquet(folder.tracks)
    tracks.with_columns(pl.lit("other").alias("title")).write_parquet(folder.tracks)
    with pytest.raises(CheckpointError, match="cannot go on: training_rows_sha256 changed since"):
        train(tmp_path / "library", "semantic")
    tracks.write_parquet(folder.tracks)
    assert train(tmp_path / "library", "semantic").is_file()
