"""Converts a .pth file of tensors: `python -m ponticello.model.pickled IN.pth OUT`.

A process of its own keeps faults of the pickle reader away from the caller; `weights_only` refuses
code. It imports torch and safetensors alone, to start in a second.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(source: str, target: str) -> int:
    """Converts a .pth file of tensors to safetensors; returns 1 with a reason on stderr if not."""
    try:
        weights = torch.load(Path(source), map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        # All errors of hostile or damaged files end here, as one line for the parent.
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        print(f"{type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    is_state_dict = isinstance(weights, dict)
    if not is_state_dict or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        print("the file is not a state dict of tensors", file=sys.stderr)
        return 1
    tensors = {}
    for name, value in weights.items():
        tensors[str(name)] = value.detach().clone().contiguous()
    save_file(tensors, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
