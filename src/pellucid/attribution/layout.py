"""Copies of a network's weights that run faster than its own, in their place while it runs so often that it pays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import gains_by_channels_last


@contextlib.contextmanager
def weights_laid_out(model: nn.Module, images: Tensor, spare: int | None = None) -> Iterator[None]:
    """Hold a borrowed model's convolutions in the layout in which they are faster on `images` (B, C, *S).

    Convolutions whose weights lie as channels do needn't rearrange them in every pass, which is a third of VGG16's time
    on a CPU. Nothing is done where the network doesn't take that layout, as one that views its feature maps, where it
    runs elsewhere, or where the copies take more than `spare` bytes. On the way out each weight has its own memory
    again.
    """
    weights = _weights_that_slide(model, images[:1]) if gains_by_channels_last(images) else []
    if spare is not None and sum(each.nbytes for each in weights) > spare:
        weights = []
    with relaid(weights, torch.channels_last):
        yield


def _weights_that_slide(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Weights of those convolutions that give several positions; one that sees its whole input gains nothing.

    None where the network doesn't take an image with channels last.
    """
    convolutions = [module for module in model.modules() if type(module) is nn.Conv2d]
    own = {each: weight for each in convolutions if (weight := each._parameters.get("weight")) is not None}
    if not own or any(weight.device.type != "cpu" for weight in own.values()):
        return []
    sliding: dict[nn.Conv2d, None] = {}

    def note(module: nn.Conv2d, _given: object, output: Tensor) -> None:
        if output.shape[2:].numel() > 1:
            sliding[module] = None

    hooks = [each.register_forward_hook(note) for each in own]
    try:
        with torch.no_grad():
            model(image.clone(memory_format=torch.channels_last))
    except RuntimeError:  # a view that wants the usual layout, or a fault that is told of when the model runs
        return []
    finally:
        for hook in hooks:
            hook.remove()
    return [own[module] for module in sliding]


@contextlib.contextmanager
def relaid(tensors: Iterable[Tensor], layout: torch.memory_format) -> Iterator[None]:
    """Hold tensors in a layout, with the same values.

    Afterwards each has its own memory again, without what was written to the other in between.
    """
    own = [(tensor, tensor.data) for tensor in tensors]
    try:
        for tensor, data in own:
            tensor.data = data.contiguous(memory_format=layout)
        yield
    finally:
        for tensor, data in own:
            tensor.data = data


class Casts:
    """A borrowed model's weights in bfloat16, for mixed precision, which else casts each of them in every pass.

    Those of convolutions and linear layers, which mixed precision casts, and with channels last where that is faster on
    `images` (B, C, *S).
    """

    _layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        modules = [module for module in model.modules() if type(module) in self._layers]
        weights = {weight for module in modules for weight in module._parameters.values() if weight is not None}
        last = gains_by_channels_last(images)
        self._casts = [_Cast(each, last) for each in weights if each.dtype == torch.float32]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold them in the weights' place; weights that were written to since stay as they are."""
        fresh = [cast for cast in self._casts if cast.is_fresh]
        try:
            for cast in fresh:
                cast.weight.data = cast.values
            yield
        finally:
            for cast in fresh:
                cast.weight.data = cast.own


class _Cast:
    """A weight, and its values in bfloat16."""

    def __init__(self, weight: Tensor, last: bool) -> None:
        layout = torch.channels_last if last and weight.ndim == 4 else torch.preserve_format
        self.weight, self.own = weight, weight.data
        self.values = self.own.to(torch.bfloat16, memory_format=layout)
        self._version = weight._version

    @property
    def is_fresh(self) -> bool:
        """Whether the weight is what was cast."""
        return self.weight.data_ptr() == self.own.data_ptr() and self.weight._version == self._version
