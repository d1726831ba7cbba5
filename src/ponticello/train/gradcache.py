"""The exact gradient of a contrastive batch of any size, with the activations of one chunk.

A contrastive loss needs the vectors of all rows at once, but not their activations. The towers run
twice: first without a graph, for the vectors and the loss's gradient with respect to them; then
chunk by chunk, with that gradient passed on and dropout replayed.
Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup".
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ponticello.model.htcl import Embeddings

VECTOR_NAMES = ("audio", "text", "fused")


@dataclass(frozen=True)
class RngState:
    """The state of torch's generators: the CPU's, and those of the CUDA devices in use."""

    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> "RngState":
        """Returns the current state, without initialising CUDA."""
        has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all() if has_cuda else [])

    def restore(self) -> None:
        """Sets the generators back to this state."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def cached_backward(
    encode: Callable[[Tensor], Embeddings],
    chunks: Sequence[Tensor],
    loss: Callable[[Embeddings], dict[str, Tensor]],
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Tensor]:
    """Returns the detached loss terms over all rows and adds the gradient of their sum.

    encode: row numbers (n,) -> their embeddings, of the same inputs each time; random draws are
        replayed.
    chunks: row numbers; each row of the batch is in one chunk.
    loss: of all rows in the order of their numbers; it may gather rows of other processes.
    no_sync: wraps all chunks but the last, such as DDP's `no_sync`: gradients are reduced once.

    The generators end where one pass over the chunks would leave them. Cost: one forward pass more
    than a direct step. Memory: the vectors of all rows, the activations of one chunk.
    """
    rng_states = []
    outputs = []
    with torch.no_grad():
        for chunk in chunks:
            rng_states.append(RngState.now())
            outputs.append(encode(chunk))
    final_rng_state = RngState.now()
    order = torch.cat(list(chunks)).argsort()
    vectors = {}
    for name in VECTOR_NAMES:
        rows = torch.cat([getattr(output, name) for output in outputs])[order]
        vectors[name] = rows.float().requires_grad_()  # the loss is in float32
    scales = {}
    for name, scale in outputs[0].logit_scales.items():
        scales[name] = scale.detach().requires_grad_()
    terms = loss(Embeddings(**vectors, logit_scales=scales))
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    for number, chunk in enumerate(chunks):
        rng_states[number].restore()
        is_last = number == len(chunks) - 1
        with nullcontext() if is_last else no_sync():
            output = encode(chunk)
            # The scales belong to the loss, not to a chunk: their gradient is passed on once.
            _pass_gradients(output, chunk, vectors, scales if is_last else {})
    final_rng_state.restore()
    return {name: term.detach() for name, term in terms.items()}


def _pass_gradients(
    output: Embeddings, chunk: Tensor, vectors: dict[str, Tensor], scales: dict[str, Tensor]
) -> None:
    """Runs backward through one chunk's towers, also where no loss reaches them: it frees them."""
    outputs = []
    gradients = []
    for name, leaf in vectors.items():
        rows = getattr(output, name)
        if leaf.grad is not None and rows.requires_grad:
            outputs.append(rows)
            gradients.append(leaf.grad[chunk.to(leaf.grad.device)].to(rows.dtype))
    for name, leaf in scales.items():
        scale = output.logit_scales[name]
        if leaf.grad is not None and scale.requires_grad:
            outputs.append(scale)
            gradients.append(leaf.grad.to(scale.dtype))
    torch.autograd.backward(outputs, gradients)
