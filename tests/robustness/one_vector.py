"""One file, one vector; and an index that only its own model may ask."""

import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ponticello.model.htcl import HTCL
from ponticello.model.saving import space_id
from tests.robustness.children import Child, command, in_child
from tests.robustness.rows import Outcome, Row, Trial, require
from tests.robustness.world import generation_of, make_world

CLOSE = 1e-5


def _alone(run: Path, path: Path) -> list[float]:
    return [float(value) for value in HTCL.from_pretrained(run).encode_audio([path])[0]]


def _again(run: Path, path: Path, others: list[Path], seed: int, n: int) -> list[list[float]]:
    """The file's vector n times, each in another company, place and batch size."""
    chance, model = random.Random(seed), HTCL.from_pretrained(run)
    found = []
    for _ in range(n):
        company = chance.sample(others, chance.randrange(len(others)))
        place = chance.randrange(len(company) + 1)
        vectors = model.encode_audio(
            [*company[:place], path, *company[place:]], chance.choice([1, 2, 3, 7, 32])
        )
        found.append([float(value) for value in vectors[place]])
    return found


def same(trial: Trial) -> Outcome:
    """A quarter of the tries run in their own process; their vectors must be equal bit for bit."""
    outcome = Outcome()
    root = make_world(trial.work, trial.seed, train=True)
    files = sorted((trial.work / "sounds").glob("*.wav"))[:12]
    run, n_processes = root / "runs" / "preference", max(1, trial.tries // 4)
    first = in_child(partial(_alone, run, files[0]))
    for number in range(n_processes):
        with outcome.counted(f"process {number}"):
            require(
                in_child(partial(_alone, run, files[0])) == first,
                "another process gives other bits",
            )
    apart = 0.0
    for number, vector in enumerate(
        in_child(partial(_again, run, files[0], files[1:], trial.seed, trial.tries - n_processes))
    ):
        with outcome.counted(f"company {number}"):
            off = float(np.abs(np.array(vector) - np.array(first)).max())
            apart = max(apart, off)
            require(off < CLOSE, f"{off:.1e} from the vector alone")
    outcome.notes.append(
        f"{n_processes} processes bit for bit; "
        f"beside others and in other batches at most {apart:.1e} off"
    )
    return outcome


def _nudge(run: Path, seed: int) -> str:
    """Another model in the run's folder, saved as one should be; its space's name."""
    model = HTCL.from_pretrained(run)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(run)
    return space_id(run)


def other_model(trial: Trial) -> Outcome:
    """The model behind the index is exchanged, now that of one stage and now that of the other."""
    outcome = Outcome()
    root = make_world(trial.work, trial.seed, train=True)
    record = json.loads((generation_of(root) / "index.json").read_text(encoding="utf-8"))
    known = {space["run"]: space["space_id"] for space in record["spaces"]}
    for number in range(trial.tries):
        name = ("semantic", "preference")[number % 2]
        now = in_child(partial(_nudge, root / "runs" / name, number))
        question = [
            ["search", "slow low"],
            ["similar", str(trial.work / "sounds" / "track-0000.wav")],
        ][number // 2 % 2]
        with outcome.counted(f"run {name}, {question[0]}"):
            ended = Child(command(*question, "-L", root)).wait()
            require(ended.code == 1, f"ends with {ended.code}: {ended.said[-300:]}")
            require(
                now in ended.said or number > 0,
                f"does not name the model {now}: {ended.said[-300:]}",
            )
            require(
                any(space in ended.said for space in known.values()),
                f"does not name the index's: {ended.said}",
            )
    return outcome


ROWS = [
    Row(
        "same-vector",
        "The same file gives the same vector: bit for bit in another process, to 1e-5 beside other "
        "files and in other batch sizes",
        100,
        12,
        same,
    ),
    Row(
        "wrong-model",
        "An index is not asked with another model than its own: refused in one line with both "
        "names",
        20,
        4,
        other_model,
    ),
]
