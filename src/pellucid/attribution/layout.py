"""The weights of convolutions with channels last, while a network runs so often that it pays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import gains_by_channels_last


@contextlib.contextmanager
def weights_laid_out(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Hold a borrowed model's convolutions in the layout in which they are faster on `images` (B, C, *S).

    Convolutions whose weights lie as channels do needn't rearrange them in every pass, which is a third of VGG16's time
    on a CPU. Where the network doesn't take that layout, as one that views its feature maps, or runs elsewhere, nothing
    is done. On the way out each weight has its own memory again.
    """
    convolutions = [module for module in model.modules() if type(module) is nn.Conv2d]
    weights = [weight for each in convolutions if (weight := each._parameters.get("weight")) is not None]
    if not weights or not gains_by_channels_last(images) or not all(each.device.type == "cpu" for each in weights):
        yield
        return
    with relaid(weights, torch.channels_last) as give_back:
        try:
            with torch.no_grad():
                model(images[:1].clone(memory_format=torch.channels_last))
        except RuntimeError:  # a view that wants the usual layout, or a fault that is told of when the model runs
            give_back()
        yield


@contextlib.contextmanager
def relaid(tensors: Iterable[Tensor], layout: torch.memory_format) -> Iterator[Callable[[], None]]:
    """Hold tensors in a layout, with the same values; what is given ends that at once.

    Afterwards each has its own memory again, without what was written to the other in between.
    """
    own = [(tensor, tensor.data) for tensor in tensors]

    def give_back() -> None:
        for tensor, data in own:
            tensor.data = data

    try:
        for tensor, data in own:
            tensor.data = data.contiguous(memory_format=layout)
        yield give_back
    finally:
        give_back()
