"""One forward pass that stops gradients at a layer: what lies before it builds no graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attribution.activated import changed, parted
from pellucid.attribution.head import Upstream, beside
from pellucid.attribution.linear import Forward, answered, is_linear_like, quick_forward
from pellucid.attribution.tokens import Layout, Tokens, Witness
from pellucid.errors import InputError, expected


@dataclass(frozen=True)
class Captured:
    """A batch's activations (B, K, *s) at a layer, a leaf that the outputs depend on, and the outputs."""

    activations: Tensor
    outputs: Any
    layout: Layout = field(default_factory=Layout)  # in which the layer gives them


def capture(
    model: nn.Module, layer: str, images: Tensor, upstream: Upstream | None = None, tokens: Tokens | None = None
) -> Captured:
    """Run a borrowed model once on `images` (B, C, *S), with the output of `layer` made a leaf.

    The network goes on with a clone, so that in-place operations can't rewrite what was captured. `upstream`, when
    given, notes which modules ran before the layer. Tokens and maps with channels last are captured as (B, K, *s),
    tokens on the grid that `tokens` or else the network tells of; class and register tokens stay as they are.
    `NAME:relu` is what the function `relu` makes of the output of the module NAME.

    Raises:
        InputError: the layer doesn't run, or runs more than once, or its output holds no feature map with as many
            spatial axes as the images, or it can't be told how.
    """
    seen: list[tuple[Tensor, Layout]] = []
    witness = Witness(model, parted(layer)[0], images, tokens)

    def detach(output: object) -> Tensor:
        if seen:
            raise expected("layer", "a layer that runs once per image", f"{layer!r}, which runs again", do=_PASS_LAYER)
        maps, layout = witness.split(output)
        leaf = maps.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        seen.append((leaf, layout))
        return layout.output(leaf, torch.arange(len(leaf), device=leaf.device)).clone()

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if upstream is not None and not seen:
            upstream.record(module, output)

    quick: dict[nn.Module, Forward] = {m: quick_forward(m) for m in model.modules() if is_linear_like(m)}
    # the witness's hooks come first, so that it sees the layer itself
    with witness.watching(), answered(quick), changed(model, layer, detach):
        before = beside(model, layer) if upstream is not None else ()
        handles = [module.register_forward_hook(note) for module in before]
        try:
            outputs = model(images)
        finally:
            for handle in handles:
                handle.remove()
    if not seen:
        raise expected("layer", "a layer that runs on these images", f"{layer!r}, which doesn't", do=_PASS_LAYER)
    leaf, layout = seen[0]
    return Captured(leaf, outputs, layout)


def gradients(scores: Tensor, activations: Tensor) -> Tensor:
    """∂scores/∂activations, (T, B, K, *s), of scores (B, T), each image's own.

    Raises:
        InputError: the scores don't depend on the activations.
    """
    if not scores.requires_grad:
        raise InputError(f"layer: the score doesn't depend on its output. {_PASS_LAYER}")
    each = [torch.autograd.grad(score.sum(), activations, retain_graph=True)[0] for score in scores.unbind(dim=1)]
    return torch.stack(each)


def rival_gradients(logits: Tensor, activations: Tensor, rivals: Tensor) -> Tensor:
    """∂logits/∂activations of the classes `rivals` (B, T, R), each image's own: (T, B, R, K, *s)."""
    slopes = gradients(logits.gather(1, rivals.flatten(1)), activations)
    return slopes.reshape(*rivals.shape[1:], *slopes.shape[1:]).transpose(1, 2)


def curvature(scores: Tensor, activations: Tensor) -> Tensor:
    """Hessian of scores (B, T) with respect to the activations, times the activations: (T, B, K, *s), as `gradients`.

    Zero where the score is linear in them.
    """
    along = activations.detach()
    each = []
    for score in scores.unbind(dim=1):
        (slopes,) = torch.autograd.grad(score.sum(), activations, create_graph=True)
        if slopes.requires_grad:
            (bent,) = torch.autograd.grad((slopes * along).sum(), activations, retain_graph=True, allow_unused=True)
        else:
            bent = None
        each.append(torch.zeros_like(along) if bent is None else bent)
    return torch.stack(each)


_PASS_LAYER = "Pass layer= with the dotted name of another layer; model.named_modules() lists them."
