"""Peak memory and time of a contrastive step as the batch grows, at once and in chunks. Prints
Markdown.

`make bench-gradcache`: each row is measured in a process of its own, forward and backward of stage
one with dropout, over excerpts of 30 s; the tower is small, so that minutes are enough. Memory is
the peak resident set of that process (Linux only); the baseline is what a step of two tracks takes,
Python, PyTorch and weights included.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CASES = (
    (64, 0),
    (256, 0),
    (256, 32),
    (1024, 32),
    (4096, 32),
    (4096, 64),
)  # (batch, chunk), chunk 0 = at once
FRAMES = 313  # 30 s
TOWER = {
    "conv_channels": [128] * 3,
    "hidden_size": 128,
    "n_layers": 4,
    "n_heads": 4,
    "ffn_size": 512,
    "dropout": 0.1,
}
TEXT = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
MIB = 1024  # KiB


@dataclass(frozen=True)
class Measured:
    """One step. baseline_mib, peak_mib: the peak resident set before and after it."""

    batch: int
    chunk: int
    baseline_mib: float
    peak_mib: float
    seconds: float

    @property
    def own_mib(self) -> float:
        """What the step takes beyond the baseline."""
        return self.peak_mib - self.baseline_mib


def step(model: Any, stage: Any, config: Any, batch: int, chunk: int) -> None:
    """Forward and backward of `batch` tracks, all different: overlapping windows over one noise."""
    import numpy as np
    import torch

    from ponticello.model.batching import pad_features
    from ponticello.train.dataset import LazyBatch
    from ponticello.train.gradcache import cached_backward

    noise = (
        np.random.default_rng(0)
        .standard_normal((batch + FRAMES, config.mel.n_mels))
        .astype(np.float16)
    )
    states = torch.randn(batch, 1, TEXT["hidden_size"], generator=torch.Generator().manual_seed(0))  # type: ignore[call-overload]
    told = torch.ones(batch, dtype=torch.bool)
    rows = {
        "unpadded_features": [noise[i : i + FRAMES] for i in range(batch)],
        "text_states": states,
        "has_text": told,
    }
    feed = LazyBatch(
        rows,
        lambda mels: pad_features(mels, config.mel, 20),
        0,
        torch.device("cpu"),
        np.random.default_rng(0),
    )
    numbers = torch.arange(batch)
    if chunk:
        cached_backward(
            lambda r: model(**feed.rows(r)),
            feed.chunks(chunk),
            lambda e: stage.loss(e, numbers, numbers),
        )
    else:
        parts = stage.loss(model(**feed.rows(numbers)), numbers, numbers)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]


def peak_mib() -> float:
    """This process's own peak. (`ru_maxrss` begins at that of the process that started it.)"""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / MIB
    raise OSError("the kernel tells no peak: run the bench on Linux")


def measure(batch: int, chunk: int) -> Measured:
    """One step of this process, after one of two tracks."""
    import torch

    from ponticello.config import Config
    from ponticello.model.htcl import HTCL, HTCLConfig
    from ponticello.train.stages import semantic_stage

    torch.manual_seed(0)
    config = Config.from_preset(
        "tiny", {"front_end": "logmel", "audio": {**TOWER, "crop_seconds": 0.0}}
    )
    model = HTCL(HTCLConfig(config.model_dump(mode="json"), {**TEXT, "intermediate_size": 32}))
    stage = semantic_stage(config)
    stage.freeze_idle(model)
    model.train(True)
    step(model, stage, config, 2, chunk)
    baseline, started = peak_mib(), time.perf_counter()
    step(model, stage, config, batch, chunk)
    seconds = time.perf_counter() - started
    return Measured(batch, chunk, baseline, peak_mib(), seconds)


def in_own_process(batch: int, chunk: int) -> Measured:
    """`measure` in a process that is started for it: a peak never goes down again."""
    command = [sys.executable, __file__, "--one", str(batch), str(chunk)]
    return Measured(
        **json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    )


def table(rows: Sequence[Measured]) -> str:
    """Markdown; the ratios are to the first row."""
    lines = [
        "| batch | in chunks of | peak, MiB | x | without the baseline, MiB | x "
        "| s a step | tracks/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = rows[0]
    for row in rows:
        lines.append(
            f"| {row.batch:,} | {row.chunk or 'at once'} "
            f"| {row.peak_mib:,.0f} | {row.peak_mib / first.peak_mib:.2f} "
            f"| {row.own_mib:,.0f} | {row.own_mib / first.own_mib:.2f} | {row.seconds:.1f} "
            f"| {row.batch / row.seconds:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(asdict(measure(int(sys.argv[2]), int(sys.argv[3])))))
    else:
        print(table([in_own_process(*case) for case in CASES]))
