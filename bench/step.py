"""The audio side of a training step of the `paper` preset's size, and embedding, beside the
released way.

    OMP_NUM_THREADS=2 python bench/step.py --json step.json
    python bench/step.py --device cuda --pairs 64 [--bf16]   # says so where there is no GPU
    python bench/step.py --compile                           # ours by torch.compile

Ours is `AudioEncoder` with its masks, anchors and positives in one pass, each batch as long as its
longest track, and `contrastive_loss`; the reference is `reference_step.py`, which fills every track
up to 120 s. Both in float32, forward and backward without an optimiser, dropout on. Weights and
sounds are random: only time means anything. The limit is this machine's own matrix product, 2,048 x
2,048 in float32, timed in turn with the rest; a step's operations are those of its convolutions and
matrix products, three times the forward pass. Mixed lengths: a quarter each of 30, 60, 90 and 120
s, each batch of one length.
Prints Markdown: the table of `docs/speed.md`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.config import Config
from ponticello.model.audio_encoder import AudioEncoder, masked_mean
from ponticello.model.htcl import MLP
from ponticello.train.losses import contrastive_loss
from reference_step import ReferenceTower, reference_step
from timing import in_turn, said

MATRIX = 2048
CONFIG = Config.from_preset("paper")
FULL = CONFIG.mel.max_frames


@dataclass(frozen=True)
class Row:
    """Work, s of ours, the reference's time times ours, and the share of the machine's matrix
    products reached.
    """

    work: str
    ours_s: float
    reference: tuple[float, float, float]
    ours_of_limit: float
    reference_of_limit: float
    gflops_s: float


class Ours(nn.Module):
    """The audio tower and head of an `HTCL`, without its text side."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = AudioEncoder(config.audio, config.mel.n_mels)
        self.head = MLP(
            (config.audio.hidden_size, *config.heads.hidden_sizes, config.heads.embed_dim),
            config.heads.dropout,
        )

    def forward(self, mel: Tensor, padding_mask: Tensor) -> Tensor:
        """(B, T, F), (B, T) -> (B, d), unit length."""
        return F.normalize(self.head(masked_mean(*self.encoder(mel, padding_mask))), dim=-1)


def our_step(tower: Ours, tracks: Tensor, masks: Tensor, scale: Tensor) -> None:
    """Forward and backward of 2B tracks, anchors first."""
    tower.zero_grad()
    anchors, positives = tower(tracks, masks).chunk(2)
    numbers = torch.arange(2 * len(anchors), device=tracks.device).chunk(2)
    contrastive_loss(anchors, positives, scale, *numbers).backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def embedded(tower: nn.Module, *inputs: Tensor) -> None:
    """In eval mode."""
    tower.eval()
    tower(*inputs)
    tower.train()


def operations(n_frames: int) -> float:
    """Of the forward pass of one track: two for each multiplication and addition of convolutions
    and products.
    """
    audio, total, length, n_in = CONFIG.audio, 0.0, n_frames, CONFIG.mel.n_mels
    for channels, kernel, stride in zip(
        audio.conv_channels, audio.conv_kernels, audio.conv_strides, strict=True
    ):
        length = (length - kernel) // stride + 1
        total += length * channels * n_in * kernel
        n_in = channels
    size = audio.hidden_size
    total += (
        length * n_in * size + length * size * size // audio.position_groups * audio.position_kernel
    )
    tokens = length + 1
    total += (
        audio.n_layers * tokens * (4 * size * size + 2 * size * audio.ffn_size + 2 * tokens * size)
    )
    return 2 * total


def finished(case: Callable[[], object], device: str, bf16: bool) -> None:
    """Runs a case to its end; a GPU works on after a call returns, so it is waited for."""
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        case()
    if device == "cuda":
        torch.cuda.synchronize()


def measured(runs: int, device: str, pairs: int, bf16: bool, compiled: bool) -> list[Row]:
    """All rows."""
    torch.manual_seed(0)
    ours, theirs = Ours(CONFIG).train().to(device), ReferenceTower(CONFIG).train().to(device)
    if compiled:
        ours.encoder.compile(dynamic=False)
    scale = torch.tensor(CONFIG.heads.logit_scale, device=device)
    full = torch.randn(2 * pairs, FULL, CONFIG.mel.n_mels, device=device)
    matrix = torch.randn(
        MATRIX, MATRIX, device=device, dtype=torch.bfloat16 if bf16 else torch.float32
    )
    none = torch.zeros(2 * pairs, FULL, dtype=torch.bool, device=device)
    quarters = [1 + (FULL - 1) * quarter // 4 for quarter in (1, 2, 3, 4)]
    short = quarters[0]

    def bucketed(step: Callable[..., None]) -> None:
        for length in quarters:
            step(full[:, :length], none[:, :length])

    def unsorted(step: Callable[..., None]) -> None:
        for _ in quarters:
            step()

    our = partial(our_step, ours)
    their = partial(reference_step, theirs, full[:pairs], full[pairs:], scale)
    mixed = sum(operations(length) for length in quarters)
    works: list[tuple[str, Callable[[], object], Callable[[], object], float]] = [
        ("training, 120 s", partial(our, full, none, scale), their, 3 * operations(FULL)),
        (
            "training, 30 s",
            partial(our, full[:, :short], none[:, :short], scale),
            their,
            3 * operations(short),
        ),
        (
            "training, 30 to 120 s",
            partial(bucketed, lambda tracks, masks: our_step(ours, tracks, masks, scale)),
            partial(unsorted, their),
            3 * mixed,
        ),
        (
            "embedding, 120 s",
            partial(embedded, ours, full, none),
            partial(embedded, theirs, full),
            operations(FULL),
        ),
        (
            "embedding, 30 s",
            partial(embedded, ours, full[:, :short], none[:, :short]),
            partial(embedded, theirs, full),
            operations(short),
        ),
    ]
    rows = []
    for work, our_way, their_way, work_operations in works:
        cases: dict[str, Callable[[], object]] = {
            "ours": our_way,
            "theirs": their_way,
            "limit": partial(torch.mm, matrix, matrix),
        }
        timed = in_turn(
            {
                name: partial(finished, case, device, bf16 and name == "ours")
                for name, case in cases.items()
            },
            runs,
        )
        per_s = 2 * MATRIX**3 / timed.median("limit")
        ours_per_s = 2 * pairs * work_operations / timed.median("ours")
        their_work = (
            operations(FULL)
            * (3 if work.startswith("training") else 1)
            * (4 if "to" in work else 1)
        )
        theirs_per_s = 2 * pairs * their_work / timed.median("theirs")
        ratio = timed.ratio("theirs", "ours")
        rows.append(
            Row(
                work,
                timed.median("ours"),
                ratio,
                ours_per_s / per_s,
                theirs_per_s / per_s,
                per_s / 1e9,
            )
        )
        shares = (
            f"{rows[-1].ours_of_limit:.0%} | {rows[-1].reference_of_limit:.0%} | {per_s / 1e9:.0f}"
        )
        print(f"| {work} | {timed.median('ours'):.2f} s | {said(ratio)} | {shares} |", flush=True)
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="every number")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, default=4, help="of a batch")
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="ours and the limit in bfloat16; the reference stays in float32",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="our tower by torch.compile, as the setting `compile` does",
    )
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("No GPU here: nothing was measured.")
        return
    name = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    print(
        f"one full track: {3 * operations(FULL) / 1e9:.0f} GFLOP forward and backward; "
        f"{2 * options.pairs} tracks a step; {name}\n"
    )
    print("| work | ours | the reference takes | ours, of the limit | the reference ", end="")
    print("| limit, GFLOP/s |\n|---|---|---|---|---|---|")
    rows = measured(options.runs, options.device, options.pairs, options.bf16, options.compile)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
