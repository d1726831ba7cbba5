"""The projection and fusion heads of the paper.

Source: HTCL (arXiv 2505.23298), projection and fusion heads.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU and dropout between them; the last one is linear."""

    def __init__(self, sizes: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns (B, sizes[-1]), not normalised; vectors: (B, sizes[0])."""
        for linear in self.linears[:-1]:
            vectors = self.dropout(linear(vectors).relu())
        last: Tensor = self.linears[-1](vectors)
        return last
