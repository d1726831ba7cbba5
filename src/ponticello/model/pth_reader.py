"""Turns a .pth file of plain tensors into safetensors, in a process of its own: `python -m ... IN.pth OUT`.

`weights_only` refuses code, and the process of its own keeps a fault in the reader away from the caller.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(source: str, target: str) -> int:
    """0 if every value of the file was a tensor and is written to `target`; else 1, with a reason on stderr."""
    try:
        weights = torch.load(Path(source), map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        # Whatever a hostile or damaged file provokes ends here, as one line for the parent.
        print(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'unreadable'}", file=sys.stderr)
        return 1
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        print("the file is not a state dict of tensors", file=sys.stderr)
        return 1
    save_file({str(name): value.detach().clone().contiguous() for name, value in weights.items()}, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
