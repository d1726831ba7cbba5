"""The exact gradient of a contrastive batch of any size, with the activations of one chunk in
memory.

A contrastive loss needs the vectors of all rows at once, but not the activations behind them. So
the towers run twice: first without a graph, for the vectors, with respect to which the loss gives
its gradient; then chunk by chunk again, with that gradient passed on and dropout replayed.
Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup".
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ponticello.model.htcl import Embeddings

SIDES = ("audio", "text", "fused")


@dataclass(frozen=True)
class RngState:
    """Where torch's generators stand: the CPU's, and those of the CUDA devices in use here."""

    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> "RngState":
        """As they stand; a CUDA that was never touched is left alone."""
        has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all() if has_cuda else [])

    def restore(self) -> None:
        """Lets them give again what they gave from here."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def cached_backward(
    encode: Callable[[Tensor], Embeddings],
    chunks: Sequence[Tensor],
    loss: Callable[[Embeddings], dict[str, Tensor]],
    unsynced: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Tensor]:
    """The parts of the loss over all rows, detached; the gradient of their sum is added to the
    parameters'.

    encode: row numbers (n,) -> their embeddings, of the same inputs each time; what it draws from
    torch's generators is
        replayed. chunks: row numbers, each row of the batch in one of them. loss: of all rows in
        the order of their numbers; it may gather those of other processes.
    unsynced: wraps all but the last chunk: under DDP its `no_sync`, so that gradients are reduced
    once.

    The generators end where a single pass over the chunks would leave them. Cost: one forward pass
    more than a direct step. Memory: vectors of all rows, activations of one chunk.
    """
    order = torch.cat(list(chunks)).argsort()
    dice, cached = [], []
    with torch.no_grad():
        for chunk in chunks:
            dice.append(RngState.now())
            cached.append(encode(chunk))
    after = RngState.now()
    vectors = {side: torch.cat([getattr(chunk, side) for chunk in cached])[order] for side in SIDES}
    leaves = {
        side: rows.float().requires_grad_() for side, rows in vectors.items()
    }  # the loss is in float32
    scales = {
        name: scale.detach().requires_grad_() for name, scale in cached[0].logit_scales.items()
    }
    parts = loss(Embeddings(**leaves, logit_scales=scales))
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {side: leaf.grad for side, leaf in leaves.items() if leaf.grad is not None}

    last = len(chunks) - 1
    for number, chunk in enumerate(chunks):
        dice[number].restore()
        felt = {side: rows[chunk.to(rows.device)] for side, rows in gradients.items()}
        if number < last:
            with unsynced():
                _pass_on(encode(chunk), felt, {})
        else:  # a scale belongs to the loss, not to a chunk: once
            _pass_on(
                encode(chunk),
                felt,
                {name: scale.grad for name, scale in scales.items() if scale.grad is not None},
            )
    after.restore()
    return {name: part.detach() for name, part in parts.items()}


def _pass_on(chunk: Embeddings, felt: dict[str, Tensor], of_scales: dict[str, Tensor]) -> None:
    """Backward through one chunk's towers, whose graph is gone afterwards, also where no loss
    reaches it.
    """
    pairs = [(getattr(chunk, side), rows) for side, rows in felt.items()]
    pairs += [(chunk.logit_scales[name], gradient) for name, gradient in of_scales.items()]
    outputs, gradients = zip(
        *[(output, rows) for output, rows in pairs if output.requires_grad], strict=True
    )
    torch.autograd.backward(
        outputs, [rows.to(output.dtype) for output, rows in zip(outputs, gradients, strict=True)]
    )
