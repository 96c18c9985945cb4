"""How many images a training step may take."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, nn

from pellucid.attribution.memory import free_bytes, most_held
from pellucid.errors import InputError, expected
from pellucid.models.layout import channels_last

_SPARED = 0.8  # of the free memory, since what libraries set aside for themselves isn't seen


def too_large(
    network: nn.Module, images: Tensor, batch_size: int, states: int, device: torch.device, reason: str
) -> InputError:
    """The error of a step that didn't fit into memory, with a batch size that does.

    Arguments:
        network: what was trained; it is moved to `device` and back.
        images: at least four of them, or as many as there are.
        batch_size: how many didn't fit.
        states: tensors of a weight's size that are kept for each: an optimiser's, a moving average's.
        device: where it ran out.
        reason: what the allocator said.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    free = free_bytes(device)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    fits = 0
    if free is not None:
        room = int(free * _SPARED) - states * weights - (0 if device.type == "cpu" else weights)
        fits = _within(network, images, batch_size - 1, room, device)
    where = f"the memory of {device}"
    got = f"{batch_size}, which don't fit into {where} ({reason})"
    if fits >= 2:
        return expected("batch_size", f"at most about {fits} images of this size", got, do=f"Set batch_size = {fits}.")
    if free is None and batch_size > 2:
        return expected("batch_size", f"fewer than {batch_size} images", got, do=f"Set batch_size = {batch_size // 2}.")
    do = "Choose a smaller network or image_size, or a device with more memory."
    return expected("model", f"a network whose training step fits into {where}", f"one that doesn't ({reason})", do=do)


def _within(network: nn.Module, images: Tensor, most: int, room: int, device: torch.device) -> int:
    """Rows whose step takes at most `room` bytes; from what two and four take, and 0 where two are too many."""

    def step(rows: int) -> None:
        batch = channels_last(images[torch.arange(rows) % len(images)].to(device))
        network(batch).float().logsumexp(dim=1).sum().backward()
        network.zero_grad(set_to_none=True)

    training, home = network.training, next(network.parameters()).device
    try:
        network.train().to(device).zero_grad(set_to_none=True)
        two = most_held(lambda: step(2))
        if two > room:
            return 0
        each = max((most_held(lambda: step(4)) - two) // 2, 1)
    except (RuntimeError, MemoryError):
        return 0
    finally:
        network.zero_grad(set_to_none=True)
        network.train(training).to(home)
    return min(most, 2 + (room - two) // each)
