"""A table of play counts, without any time, trains and serves stage two from the command line."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.validation import score_spaces_on_validation
from ponticello.library import Library
from ponticello.listening.importers.tables import UNKNOWN_TIME
from ponticello.listening.log import read_interactions
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import before_test, in_test, load_splits
from ponticello.storage.schema import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.train.estimate import score_higher_every_time
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.preference import train_preference
from ponticello.train.runs import RUN_FILE, read_record

N_TRACKS, N_LISTENERS, SIZE = 150, 120, 16


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, text_encoder_folder: Path) -> Path:
    """The folder of a library: vectors, tags, and the play counts of two crowds of listeners."""
    root = tmp_path_factory.mktemp("counted") / "library"
    Library.create(root, "tiny")
    settings = [
        'preset = "tiny"',
        'front_end = "features"',
        'features = "vectors.npz"',
        f'text.name = "{text_encoder_folder.as_posix()}"',
        "heads.embed_dim = 32",
        "semantic.min_steps = 20",
        "semantic.eval_steps = 10",
        "preference.epochs_tried = [20]",
        "preference.batch_size = 32",
    ]
    (root / "ponticello.toml").write_text("\n".join(settings) + "\n", encoding="utf-8")
    generator = np.random.default_rng(0)
    crowd = np.arange(N_TRACKS) % 2
    vectors = generator.standard_normal((N_TRACKS, SIZE)).astype(np.float32)
    vectors[:, 0] += 3.0 * crowd
    track_ids = np.array([f"t{number:03}" for number in range(N_TRACKS)])
    np.savez(root / "vectors.npz", ids=track_ids, vectors=vectors)
    with (root / "tracks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "title", "artist", "tags"])
        for number, track_id in enumerate(track_ids):  # tags that say nothing of a crowd
            tag = "bright" if number % 3 else "dark"
            writer.writerow([track_id, track_id, f"by {track_id}", tag])
    with (root / "plays.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "track_id", "plays"])
        for listener in range(N_LISTENERS):
            liked = np.flatnonzero(crowd == listener % 2)
            for number in generator.choice(liked, 15, replace=False):
                writer.writerow([f"u{listener:03}", track_ids[number], 3])
    _run("import-tracks", root / "tracks.csv", "-L", root)
    _run("import-history", root / "plays.csv", "-L", root)
    return root


@pytest.fixture(scope="module")
def printed(counted: Path) -> dict[str, str]:
    """What each command of the pipeline prints."""
    return {
        "prepare": _run("prepare", "-L", counted),
        "mine": _run("mine-pairs", "-L", counted),
        "semantic": _run("train", "semantic", "-L", counted),
        "preference": _run("train", "preference", "-L", counted),
        "embed": _run("embed", "-L", counted),
    }


def test_counts_are_events_without_a_time(counted: Path) -> None:
    log = read_interactions(Library.open(counted).folder)
    assert log.height == N_LISTENERS * 15
    assert log[PLAYED_AT].unique().to_list() == [UNKNOWN_TIME]
    assert log["event"].unique().to_list() == ["collect"]


def test_importing_the_same_counts_again_adds_nothing(counted: Path) -> None:
    _run("import-history", counted / "plays.csv", "-L", counted)
    assert read_interactions(Library.open(counted).folder).height == N_LISTENERS * 15


def test_likes_are_held_out_at_random_and_mining_says_so(
    counted: Path, printed: dict[str, str]
) -> None:
    assert "the log has no times: 70% of each listener's tracks train" in printed["mine"]
    folder = Library.open(counted).folder
    splits = load_splits(folder)
    assert splits is not None
    log = read_interactions(folder)
    held_out = in_test(splits, log)
    is_train_track = pl.col(TRACK_ID).replace_strict(splits.roles) == "train"
    on_training_tracks = log.filter(is_train_track)
    share = held_out.filter(is_train_track).height / on_training_tracks.height
    assert share == pytest.approx(0.2, abs=0.04)
    roles = before_test(splits, log)[TRACK_ID].replace_strict(splits.roles).unique().to_list()
    assert "test" not in roles, "no like of a cold track is learned from"


def test_stage_two_is_trained_chosen_and_served(counted: Path, printed: dict[str, str]) -> None:
    assert "stage preference: fitted to " in printed["preference"]
    assert "kept: " in printed["preference"]
    record = read_record(counted / "runs" / "preference" / RUN_FILE)
    assert record["selection"]["is_served"]
    batches = round(N_LISTENERS / 32)  # of the listeners, all of whom have two likes or more
    assert record["n_steps"] == 20 * batches
    names = [candidate["name"] for candidate in record["selection"]["candidates"]]
    assert "listener sets, 20 epochs" in names
    assert "regression, l2 1" in names
    assert sum(" and " in name for name in names) == 1, "both together"
    library = Library.open(counted)
    assert len(library.index.spaces) == 2
    log = read_interactions(library.folder)
    user = log[USER_ID][0]
    crowd = int(log[TRACK_ID][0][1:]) % 2
    recommended = library.recommend(user, k=10, blend=1)
    assert all(int(result.track_id[1:]) % 2 == crowd for result in recommended)


class _CountSteps(TrainingObserver):
    """Counts the steps of every fit."""

    def __init__(self) -> None:
        self.n_steps: list[int] = []

    def on_start(self, loop: TrainingLoop[Any]) -> None:
        self.n_steps.append(0)

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        self.n_steps[-1] += 1


def test_dry_run_estimates_every_fit_and_the_one_on_all_data(
    counted: Path, printed: dict[str, str]
) -> None:
    assert "before it was fitted again" in printed["preference"]
    folder = Library.open(counted).folder
    counter = _CountSteps()
    train_preference(
        folder,
        "again",
        "semantic",
        retrieval_figures,
        space_scorer=score_spaces_on_validation(folder),
        observers=[counter],
    )
    assert len(counter.n_steps) == 3, "contrast, contrast beside regression, and again on all data"
    shutil.rmtree(counted / "runs" / "again")
    estimate = json.loads(_run("train", "preference", "--dry-run", "--json", "-L", counted))
    assert (estimate["n_fits"], estimate["n_steps"]) == (3, sum(counter.n_steps))
    steps_s = estimate["n_steps"] * estimate["seconds_per_step"]
    validations_s = estimate["n_validations"] * estimate["seconds_per_validation"]
    parts = steps_s + validations_s + estimate["other_seconds"]
    assert estimate["seconds"] == pytest.approx(parts)
    assert estimate["other_seconds"] > 0
    lines = _run("train", "preference", "--dry-run", "-L", counted).splitlines()
    assert lines[0].startswith(f"at most 3 fits with {sum(counter.n_steps)} steps of ")
    assert lines[-1] == "the library was not changed"


def test_refit_encodes_each_track_once(counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training tracks' vectors are kept for the fit on training and validation tracks."""
    n_encoded = []
    encode = HTCL.encode_audio_block

    def counting(self: HTCL, features: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        n_encoded.append(len(features))
        return encode(self, features, batch_size)

    monkeypatch.setattr(HTCL, "encode_audio_block", counting)
    folder = Library.open(counted).folder
    scorer = score_higher_every_time(lambda *_: np.zeros(0))
    train_preference(folder, "once", "semantic", retrieval_figures, space_scorer=scorer)
    splits = load_splits(folder)
    assert splits is not None
    roles = Counter(splits.roles.values())
    assert n_encoded == [roles["train"], roles["validation"]]
    shutil.rmtree(counted / "runs" / "once")


def test_too_few_listeners_leave_no_folder_of_a_run(counted: Path, printed: dict[str, str]) -> None:
    assert "kept: " in printed["preference"]
    arguments = ["train", "preference", "--name", "none", "--set", "pairs.min_users=1000"]
    done = CliRunner().invoke(app, [*arguments, "-L", str(counted)])
    assert done.exit_code == 1
    assert "0 listeners like two training tracks or more" in str(done.exception)
    assert not (counted / "runs" / "none").exists()
