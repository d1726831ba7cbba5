"""Runs on several processes as `torchrun` starts them: one is killed, and their number changes."""

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ponticello.errors import PonticelloError
from ponticello.library import Library
from ponticello.train.distributed import terminate_gracefully
from ponticello.train.runs import is_finished
from tests.cli.commands import out
from tests.train.test_semantic_and_preference import log_of

PONTICELLO = ["-m", "ponticello"]
DYING = [str(Path(__file__).parent / "dying_process.py")]
NEVER = "99"  # a step that no run reaches
RUN = "runs/semantic"
SETTINGS = ["max_steps=9", "eval_steps=3", "batch_size=6", "early_stopping_patience=9"]
CHUNKS = ["chunk_size=4"]
RESUME = "start the same command again: the run goes on at its last checkpoint"
TIMEOUT_S = 300


def arguments(root: Path, settings: Sequence[str]) -> list[str]:
    """Returns the arguments of `ponticello` that train nine steps of stage one."""
    options = [part for name in (*SETTINGS, *settings) for part in ("--set", f"semantic.{name}")]
    return ["train", "semantic", "-L", str(root), *options]


def launch(root: Path, n_processes: int, program: list[str]) -> subprocess.CompletedProcess[str]:
    """Trains on so many processes; one is started without torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(n_processes)]
    command = [sys.executable, *(torchrun if n_processes > 1 else []), *program]
    return subprocess.run(
        [*command, *arguments(root, [])],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def launch_on_two_hosts(
    root: Path, n_each: int, program: list[str], *settings: str
) -> list[tuple[int, str, str]]:
    """Returns (exit code, stdout, stderr) of two torchruns that meet as two machines do, both on
    the loopback address.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = f"-m torch.distributed.run --nnodes 2 --nproc-per-node {n_each}"
    torchrun += f" --master-addr 127.0.0.1 --master-port {port} --node-rank"
    hosts = []
    for host in ("0", "1"):
        command = [*torchrun.split(), host, *program, *arguments(root, settings)]
        hosts.append(
            subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    with ThreadPoolExecutor() as pool:  # both pipes are read, so that neither fills
        outputs = list(pool.map(lambda host: host.communicate(timeout=TIMEOUT_S), hosts))
    return [(host.returncode, *streams) for host, streams in zip(hosts, outputs, strict=True)]


def assert_ended_in_time(stderr: str, ended: float) -> None:
    """The job ended within 30 s of the death of a rank."""
    killed = re.search(r"killed at ([\d.]+)", stderr)
    assert killed, stderr
    assert ended - float(killed[1]) < 30


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_the_run_goes_on_to_the_weights_of_one_left_alone(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Rank 1 of 2 dies after step 5. From the checkpoint of step 3 two processes go on to the same
    weights as an undisturbed run, and one process goes on to step 9.
    """
    undisturbed = tmp_path / "undisturbed"
    killed = tmp_path / "killed"
    make_library(undisturbed)
    shutil.copytree(undisturbed, killed)
    whole = launch(undisturbed, 2, [*DYING, NEVER])
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("stage semantic: 9 steps on 39 tracks") == 1
    assert "Warning" not in whole.stderr
    assert is_finished(undisturbed / RUN)
    assert not (undisturbed / RUN / "checkpoints").exists()
    ended = launch(killed, 2, [*DYING, "5"])
    assert ended.returncode != 0
    assert_ended_in_time(ended.stderr, time.time())
    assert "error: process 0 of 2" in ended.stderr
    assert RESUME in ended.stderr
    assert "SIGKILL" in ended.stderr  # torchrun's report
    assert not is_finished(killed / RUN)
    before = log_of(killed / RUN)
    alone = Path(shutil.copytree(killed, tmp_path / "alone"))
    again = launch(killed, 2, [*DYING, NEVER])
    weights = [re.findall(r"^weights (\w+)$", run.stderr, re.M) for run in (whole, again)]
    assert len(weights[0]) == 2, whole.stderr
    assert len({*weights[0], *weights[1]}) == 1, weights
    model = f"{RUN}/model.safetensors"
    assert (killed / model).read_bytes() == (undisturbed / model).read_bytes()
    assert "stage semantic: 9 steps" in out(*arguments(alone, []))
    log = log_of(alone / RUN)
    assert [entry for entry in log if entry["step"] <= 3] == before
    assert all(math.isfinite(entry["loss"]) for entry in log if "loss" in entry)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_begun_alone_goes_on_with_four_processes_of_two_hosts(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    root = tmp_path / "library"
    make_library(root)
    ended = launch(root, 1, [*DYING, "5"])
    assert ended.returncode == -9, ended.stderr
    again = launch_on_two_hosts(root, 2, PONTICELLO)
    assert [code for code, _, _ in again] == [0, 0], again
    assert [entry["step"] for entry in log_of(root / RUN) if "eval_mrr" in entry] == [3, 6, 9]


@pytest.mark.slow
def test_a_rank_killed_on_another_host_ends_both_and_both_go_on(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Two hosts of one process: the second one's dies after step 5, and both go on from step 3."""
    root = tmp_path / "library"
    make_library(root)
    (first, _, told), (second, _, report) = launch_on_two_hosts(root, 1, [*DYING, "5"], *CHUNKS)
    assert_ended_in_time(report, time.time())
    assert (first, second) == (1, 1)
    assert re.search(r"error: process 0 of 2 (lost the others|was told to stop)", told), told
    assert RESUME in told
    assert "SIGKILL" in report
    before = log_of(root / RUN)
    again = launch_on_two_hosts(root, 1, PONTICELLO, *CHUNKS)
    assert [code for code, _, _ in again] == [0, 0], again
    assert [printed.count("stage semantic: 9 steps") for _, printed, _ in again] == [1, 0]
    log = log_of(root / RUN)
    assert [entry for entry in log if entry["step"] <= 3] == before
    assert [entry["step"] for entry in log if "eval_mrr" in entry] == [3, 6, 9]
    assert is_finished(root / RUN)


def test_a_lost_connection_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponticello.train.distributed.REPORT_WAIT_S", 0.0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = (
        r"^process 1 of 2 lost the others \(Connection closed by peer .*\); torchrun's report "
        r"names the rank; start"
    )
    with pytest.raises(PonticelloError, match=line), terminate_gracefully(print):
        raise RuntimeError(
            "[../third_party/gloo/pair.cc:547] Connection closed by peer [127.0.0.1]:34121"
        )


def test_another_error_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shapes differ"), terminate_gracefully(print):
        raise RuntimeError("shapes differ")


def test_a_process_told_to_stop_says_so_from_within_a_long_call() -> None:
    """`time.sleep` in place of a collective: SIGTERM ends it when the time for a checkpoint is
    over, with the line.
    """
    code = (
        "import os, signal, threading, time\n"
        "from ponticello.train import distributed\n"
        "distributed.GRACE_S = 0.1\n"
        "with distributed.terminate_gracefully(print):\n"
        "    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: process 0 of 2 was told to stop")
