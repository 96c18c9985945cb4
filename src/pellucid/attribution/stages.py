"""One forward pass that keeps what several layers gave, and a score's gradients at all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attribution.activated import changed, parted
from pellucid.attribution.tokens import Layout, Tokens, Witness, split
from pellucid.errors import InputError, expected, unknown_name
from pellucid.models.stages import find_stages


@dataclass(frozen=True)
class Stages:
    """A batch's feature maps (B, K, *s) at several layers, in the order in which these were named, and the outputs."""

    layers: tuple[str, ...]
    activations: tuple[Tensor, ...]
    outputs: Any
    _nodes: tuple[Tensor, ...]  # the layers' outputs in the graph
    _layouts: tuple[Layout, ...]

    def gradients(self, score: Tensor) -> tuple[Tensor, ...]:
        """∂score/∂activations (B, K, *s) at each layer, of a score (B,), each image's own.

        Raises:
            InputError: the score doesn't depend on a layer.
        """
        slopes = torch.autograd.grad(score.sum(), self._nodes, retain_graph=True, allow_unused=True)
        found = []
        for name, slope, maps, layout in zip(self.layers, slopes, self.activations, self._layouts, strict=True):
            if slope is None:
                raise InputError(f"layer: the score doesn't depend on the output of {name!r}.")
            grid = None if layout.positions is None else tuple(maps.shape[2:])
            found.append(split(slope, grid, 0 if layout.prefix is None else layout.prefix.shape[1])[0])
        return tuple(found)


def stage_layers(model: nn.Module, images: Tensor, layer: str, asked: object, method: str) -> list[str]:
    """The layers that a method combines with `layer`, which comes last: `asked` names them or says how many in all.

    Raises:
        InputError: layers that aren't there, none beside `layer`, or something else than names or a number.
    """
    if isinstance(asked, int):
        if asked < 2:
            raise expected("layers", "at least 2, or names of layers", asked)
        before = find_stages(model, images, layer)[1 - asked :]
        if not before:
            wanted = f"feature maps at a finer scale than that of {layer!r}, or layers like it before it"
            raise expected("model", wanted, "none", do=f"Name some: pellucid.method({method!r}, layers=(...)).")
    elif isinstance(asked, tuple | list):
        known = [name for name, _ in model.named_modules() if name]
        before = [name for name in asked if name != layer]
        for name in before:
            if name not in known:
                raise unknown_name("layer", name, known)
    else:
        raise expected("layers", "how many, or a tuple of their names", repr(asked))
    if not before:
        raise expected("layers", f"layers to combine with {layer!r}", "none")
    return [*before, layer]


def capture_stages(model: nn.Module, layers: Sequence[str], images: Tensor, tokens: Tokens | None = None) -> Stages:
    """Run a borrowed model once on `images` (B, C, *S) and keep the outputs of `layers`.

    The graph begins at the first of them to run. The network goes on with clones, so that in-place operations can't
    rewrite what was kept. `tokens` tells of the last of `layers`, as in `capture`.

    Raises:
        InputError: a layer doesn't run, or runs more than once, or its output holds no feature map.
    """
    witnesses = {
        name: Witness(model, parted(name)[0], images, tokens if name == layers[-1] else None) for name in layers
    }
    seen: dict[str, tuple[Tensor, Tensor, Layout]] = {}

    def keep(name: str) -> Callable[[Any], Tensor]:
        def change(output: Any) -> Tensor:
            if name in seen:
                raise expected("layer", "a layer that runs once per image", f"{name!r}, which runs again")
            maps, layout = witnesses[name].split(output)
            node: Tensor = output.clone() if output.requires_grad else output.detach().clone().requires_grad_()
            seen[name] = maps.detach().clone(memory_format=torch.contiguous_format), node, layout
            return node.clone()

        return change

    with contextlib.ExitStack() as stack:
        for witness in witnesses.values():  # whose hooks come first, so that they see the layer itself
            stack.enter_context(witness.watching())
        for name in layers:
            stack.enter_context(changed(model, name, keep(name)))
        outputs = model(images.clone())
    for name in layers:
        if name not in seen:
            raise expected("layer", "a layer that runs on these images", f"{name!r}, which doesn't")
    activations, nodes, layouts = zip(*(seen[name] for name in layers), strict=True)
    return Stages(tuple(layers), activations, outputs, nodes, layouts)
