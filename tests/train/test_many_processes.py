"""Runs on several processes as `torchrun` starts them: one is killed, and their number changes."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ponticello.errors import PonticelloError
from ponticello.library import Library
from ponticello.train.distributed import terminate_gracefully
from ponticello.train.runs import is_finished

PONTICELLO = ["-m", "ponticello"]
DYING = [str(Path(__file__).parent / "dying_process.py")]
SETTINGS = [
    "max_steps=9",
    "eval_steps=3",
    "batch_size=6",
    "early_stopping_patience=9",
    "chunk_size=4",
]
TIMEOUT_S = 300


def command(root: Path, program: list[str], *torchrun: str) -> list[str]:
    """`train semantic`, by torchrun if it has options."""
    several = ["-m", "torch.distributed.run", *torchrun] if torchrun else []
    settings = [part for setting in SETTINGS for part in ("--set", f"semantic.{setting}")]
    return [sys.executable, *several, *program, "train", "semantic", "-L", str(root), *settings]


def launch(root: Path, n_processes: int, program: list[str]) -> subprocess.CompletedProcess[str]:
    """`train semantic` on so many processes; one is started without torchrun."""
    torchrun = ["--nproc-per-node", str(n_processes)] if n_processes > 1 else []
    return subprocess.run(
        command(root, program, *torchrun),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def launch_on_two_hosts(root: Path, n_each: int, program: list[str]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of two torchruns that meet as two machines do, both on the
    loopback address.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        str(n_each),
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(port),
    ]
    hosts = [
        subprocess.Popen(
            command(root, program, *there, "--node-rank", str(host)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    with ThreadPoolExecutor() as pool:  # both pipes are read, so that neither fills
        said = list(pool.map(lambda host: host.communicate(timeout=TIMEOUT_S), hosts))
    return [(host.returncode, *streams) for host, streams in zip(hosts, said, strict=True)]


def log_of(root: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (root / "runs/semantic/log.jsonl").read_text("utf-8").splitlines()
    ]


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_with_a_line_and_one_process_goes_on(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Rank 1 of 2 dies after step 5; the checkpoint is of step 3, and one process goes on from
    there to step 9.
    """
    root = tmp_path / "library"
    make_library(root)
    ended = launch(root, 2, [*DYING, "5"])
    assert ended.returncode != 0
    killed = re.search(r"killed at ([\d.]+)", ended.stderr)
    assert killed, ended.stderr
    assert time.time() - float(killed[1]) < 30
    assert "error: process 0 of 2" in ended.stderr
    assert "start the same command again: the run goes on at its last checkpoint" in ended.stderr
    assert "SIGKILL" in ended.stderr  # torchrun's report
    assert not is_finished(root / "runs/semantic")
    before = log_of(root)
    again = launch(root, 1, PONTICELLO)
    assert again.returncode == 0, again.stderr
    assert "stage semantic: 9 steps" in again.stdout
    log = log_of(root)
    assert [entry for entry in log if entry["step"] <= 3] == before
    assert all(math.isfinite(entry["loss"]) for entry in log if "loss" in entry)


@pytest.mark.slow
def test_two_processes_hold_the_same_weights_and_a_killed_run_goes_on_to_them(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """One run to the end, and one whose rank 1 dies after step 5 and that goes on: four ranks, one
    set of weights.
    """
    make_library(tmp_path / "undisturbed")
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "killed")
    never = "99"
    whole = launch(tmp_path / "undisturbed", 2, [*DYING, never])
    assert launch(tmp_path / "killed", 2, [*DYING, "5"]).returncode != 0
    again = launch(tmp_path / "killed", 2, [*DYING, never])
    told = [re.findall(r"^weights (\w+)$", ended.stderr, re.M) for ended in (whole, again)]
    assert len(told[0]) == 2, whole.stderr
    assert len({*told[0], *told[1]}) == 1, told
    saved = [
        (tmp_path / root / "runs/semantic/model.safetensors").read_bytes()
        for root in ("undisturbed", "killed")
    ]
    assert saved[0] == saved[1]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_begun_alone_goes_on_with_four_processes(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    root = tmp_path / "library"
    make_library(root)
    ended = launch(root, 1, [*DYING, "5"])
    assert ended.returncode == -9, ended.stderr
    again = launch(root, 4, PONTICELLO)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("stage semantic: 9 steps") == 1
    assert [entry["step"] for entry in log_of(root) if "eval_mrr" in entry] == [3, 6, 9]


@pytest.mark.slow
def test_a_rank_killed_on_another_host_ends_both_and_four_processes_go_on(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Two hosts of one process: the second one's dies after step 5. Then two hosts of two go on
    from step 3.
    """
    root = tmp_path / "library"
    make_library(root)
    (first, _, told), (second, _, report) = launch_on_two_hosts(root, 1, [*DYING, "5"])
    ended = time.time()
    assert (first, second) == (1, 1)
    killed = re.search(r"killed at ([\d.]+)", report)
    assert killed, report
    assert ended - float(killed[1]) < 30
    assert re.search(r"error: process 0 of 2 (lost the others|was told to stop)", told), told
    assert "start the same command again: the run goes on at its last checkpoint" in told
    assert "SIGKILL" in report
    before = log_of(root)
    again = launch_on_two_hosts(root, 2, PONTICELLO)
    assert [code for code, _, _ in again] == [0, 0], again
    assert [out.count("stage semantic: 9 steps") for _, out, _ in again] == [1, 0]
    log = log_of(root)
    assert [entry for entry in log if entry["step"] <= 3] == before
    assert [entry["step"] for entry in log if "eval_mrr" in entry] == [3, 6, 9]
    assert is_finished(root / "runs/semantic")


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
