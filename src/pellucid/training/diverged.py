"""Where a loss that isn't finite began: in an image, or in a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_NAMED = 3  # images, of those that hold no number


def where_it_began(network: nn.Module, images: Tensor, names: Sequence[str]) -> str:
    """One sentence on the first thing that isn't finite when the network runs on a batch (B, C, *S).

    The images if they aren't finite, by `names`; else the first layer that gives what isn't finite, whose weights
    may be at fault; else the loss itself.
    """
    broken = [name for name, image in zip(names, images, strict=True) if not bool(torch.isfinite(image).all())]
    if broken:
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        return f"It began in the input: {', '.join(broken[:_NAMED])}{more} held values that aren't finite."
    layer = _first_layer(network, images)
    if layer is None:
        return "The network's output was finite: it began in the loss."
    weights = [name for name, value in network.named_parameters() if not bool(torch.isfinite(value).all())]
    if weights:
        return f"It began in the weights: those of {weights[0]} weren't finite any more."
    return f"It began in layer {layer or 'the network'}, the first whose output wasn't finite; the images were."


def _first_layer(network: nn.Module, images: Tensor) -> str | None:
    found: list[str] = []

    def hook(name: str) -> Any:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return note

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
