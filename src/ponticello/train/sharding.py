"""A model shared out: each process holds a part of every weight, of its gradient and of its moments (FSDP2).

A weight is whole for as long as its layer computes. What is written is whole too: a checkpoint is what one process
would write, and goes on with any number of processes.

The Trainer's own way to FSDP leads through accelerate, which knows it on GPUs only; this one is the same on the CPU.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.utils import SAFE_WEIGHTS_NAME

from ponticello.errors import ConfigError
from ponticello.model.htcl import HTCL
from ponticello.train.distributed import launched, rank, world_size
from ponticello.train.stages import Stage

OLDEST_TORCH = (2, 13)  # the first whose FSDP finds the tensors in `Embeddings`


def check_sharding(stage: Stage) -> None:
    """ConfigError where the stage asks for shards that cannot be, or were never checked."""
    name, settings = f"{stage.name}.fsdp", stage.settings
    if not settings.fsdp:
        return
    if launched()[1] == 1:
        raise ConfigError(f"{name} shares a model out among several processes; there is one: start it with torchrun")
    if settings.compile:
        raise ConfigError(f"{name} and {stage.name}.compile were not checked together; set one of them to false")
    found = torch.__version__
    if tuple(int(number) for number in found.split(".")[:2]) < OLDEST_TORCH:
        raise ConfigError(f"{name} needs torch {'.'.join(map(str, OLDEST_TORCH))} or newer; found {found}")


def shard(model: HTCL) -> None:
    """Leaves of every weight this process's part, in place, after all have taken the first process's weights.

    A layer of a tower is gathered at once, and so are the word embeddings, and all the rest. The log scales stay
    whole: a number cannot be parted; see `average_whole_gradients`.
    """
    for value in (*model.parameters(), *model.buffers()):
        dist.broadcast(value.data, 0)
    options: dict[str, Any] = {"reshard_after_forward": True, "ignored_params": set(model.logit_scales.parameters())}
    for module in reversed(list(_layers(model))):  # inner ones first
        fully_shard(module, **options)
    fully_shard(model, **options)


def _layers(model: HTCL) -> Iterator[nn.Module]:
    yield from (module for module in model.audio_encoder.modules() if isinstance(module, nn.TransformerEncoderLayer))
    yield model.text_encoder.get_input_embeddings()
    for module in model.text_encoder.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def leave_unwrapped(accelerator: Any) -> None:
    """Lets accelerate prepare a model as for evaluation: with bfloat16, and without DDP around what is shared out."""
    accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)


def average_whole_gradients(model: nn.Module) -> None:
    """The mean over the processes of the gradients that FSDP leaves alone."""
    for parameter in model.parameters():
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def whole_model(model: HTCL) -> HTCL:
    """A model of its own with all weights of the shared one, on the CPU; of the first process. All have to call it."""
    weights = whole_state(model.state_dict())
    if rank():
        return model
    config: Any = model.config
    whole = HTCL(config)
    whole.load_state_dict(weights)
    whole.tokenizer = model.tokenizer
    whole.train(False)
    return whole


def whole_state(state: dict[Any, Any]) -> dict[Any, Any]:
    """A state dict, nested or not, with whole tensors on the CPU; empty ones but on the first process.

    All processes have to call it, with the same keys in the same order.
    """
    return {key: whole_state(value) if isinstance(value, dict) else _whole(value) for key, value in state.items()}


def _whole(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    gathered = value.full_tensor()
    return torch.empty(0) if rank() else gathered.cpu()


def load_whole(model: HTCL, folder: Path) -> None:
    """Gives the shared model the weights saved in `folder`, of which each process keeps its parts."""
    weights, here = load_file(folder / SAFE_WEIGHTS_NAME), model.state_dict()
    model.load_state_dict({name: _part(weights[name], like) for name, like in here.items()})


def part_what_is_loaded(optimizer: torch.optim.Optimizer) -> None:
    """From now on what the optimizer loads is parted like the weights it belongs to."""

    def part(loaded: torch.optim.Optimizer) -> None:
        for parameter, state in loaded.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = _part(value, parameter)

    optimizer.register_load_state_dict_post_hook(part)


def _part(whole: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
