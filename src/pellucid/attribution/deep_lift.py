"""DeepLIFT: what each pixel's difference from a reference adds to the score's difference, by the rescale rule.

Image and reference run side by side, 2 M rows for M images; `gradient_of` and the shapes are those of `gradient.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import Gradients
from pellucid.attribution.baselines import baseline_of
from pellucid.attribution.channels import Channels, over_channels
from pellucid.attribution.families import rewriting
from pellucid.attribution.rules import ACTIVATIONS, Answer, Call, Rewritten, Rule, moves_only, pulled_back
from pellucid.attribution.targets import described
from pellucid.errors import expected

NEAR = 1e-6  # inputs closer than this share of their size count as equal: their quotient would be rounding
UNARY = ACTIVATIONS | {"exp", "log", "sqrt", "square", "abs", "pow", "reciprocal"}
QUOTIENTS = frozenset({"div", "truediv", "true_divide"})
PRODUCTS = frozenset({"mul", "matmul", "mm", "bmm", "einsum"})
MAXIMUM_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d"})
LINEAR = frozenset({
    "Add", "Addmm", "Addmv", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D", "Bmm", "Convolution",
    "CudnnBatchNorm", "Div", "Linear", "Mean", "MiopenBatchNorm", "Mm", "Mul", "Mv", "NativeBatchNorm", "Neg", "Rsub",
    "Sub", "Sum", "UpsampleBilinear2D", "UpsampleNearest2D", "UpsampleNearest3D", "UpsampleTrilinear3D",
})  # fmt: skip


@rewriting("deep-lift", family="gradient", source="Shrikumar et al. 2017, section 3.5.1, the rescale rule")
def deep_lift(
    model: nn.Module,
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    baseline: float | Tensor = 0.0,
    channels: Channels = "sum",
) -> Tensor:
    """Each pixel's share of the score's difference from a reference, nonlinear steps taken as their secants.

    Summed over pixels and channels the map is score(image) - score(baseline), exactly. `baseline` is a value of the
    normalised image, or a tensor that broadcasts to one image (C, *S). Products of two activations, as in gates, are
    shared evenly between both factors.
    """
    start = baseline_of(baseline, images)

    def begin() -> Answer:
        return _answer

    rewritten = Rewritten(_Beside(model, start), begin, lambda step: not _may_stay(step), "deep-lift")
    rows = max(1, gradient_of.rows // 2)  # each runs with its reference
    multipliers = gradient_of.through(rewritten, rows)(images, torch.arange(len(images), device=images.device))
    return over_channels((images - start).unsqueeze(1) * multipliers, channels)


def rescaled(call: Call) -> Rule:
    """A step taken value by value: Δout / Δin, or the derivative where Δin is 0. Shrikumar et al. 2017, 3.5.1."""

    def rule(flow: Tensor, x: Tensor) -> tuple[Tensor]:
        rise, near = _rise(x)
        secant = _rise(call(x))[0] / torch.where(near, 1.0, rise)
        return (_for_images(torch.where(near, _plain(call, x, flow), _images(flow) * secant)),)

    return rule


def largest(call: Call) -> Rule:
    """A maximum pool: a rise is of the image's largest value, a fall of the reference's, each over its own Δin."""

    def rule(flow: Tensor, x: Tensor) -> tuple[Tensor]:
        rise, near = _rise(x)
        grown = _rise(call(x))[0] * _images(flow)
        above = _rise(call(x))[0] > 0
        parts = torch.cat([torch.where(above, grown, 0.0), torch.where(above, 0.0, grown)])
        (given,) = pulled_back(call, [x], parts)  # from the image's maximum, and from the reference's
        secant = given.unflatten(0, (2, -1)).sum(dim=0) / torch.where(near, 1.0, rise)
        return (_for_images(torch.where(near, _plain(call, x, flow), secant)),)

    return rule


def bilinear(call: Call) -> Rule:
    """A product: Δ(a b) = Δa b̄ + ā Δb, the means taken over image and reference; each factor's Shapley value."""

    def rule(flow: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        means = [each.unflatten(0, (2, -1)).mean(dim=0, keepdim=True).expand(2, -1, *each.shape[1:]) for each in inputs]
        return pulled_back(call, [mean.flatten(0, 1) for mean in means], flow)

    return rule


def _answer(call: Call) -> Tensor | None:
    if call.name in UNARY and call.moving == [0]:
        return call.ruled(rescaled(call))
    if call.name in QUOTIENTS and call.moving == [1]:
        return call.ruled(rescaled(call))
    if call.name in MAXIMUM_POOLS and not call.given(6, "return_indices", False):
        return call.ruled(largest(call))
    if call.name in PRODUCTS and len(call.moving) == 2:
        return call.ruled(bilinear(call))
    own_moments = call.name == "batch_norm" and (call.given(1, "running_mean") is None or call.given(5, "training"))
    if own_moments or call.name == "instance_norm" or (call.name in QUOTIENTS and len(call.moving) == 2):
        raise expected(
            "model", "steps that 'deep-lift' has rules for", f"{call.name!r}, nonlinear in more than one value"
        )
    return None


def _may_stay(step: str) -> bool:
    return moves_only(step) or step.partition("Backward")[0] in LINEAR


def _images(values: Tensor) -> Tensor:
    """The first half: of the images, not of their reference."""
    return values[: len(values) // 2]


def _for_images(flow: Tensor) -> Tensor:
    """What flows to the images, and nothing to their reference."""
    return torch.cat([flow, torch.zeros_like(flow)])


def _rise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Images less reference (M, ...), and where that is too near 0 to divide by."""
    image, reference = values.unflatten(0, (2, -1))
    return image - reference, (image - reference).abs() <= NEAR * (1 + image.abs())


def _plain(call: Call, x: Tensor, flow: Tensor) -> Tensor:
    return _images(pulled_back(call, [x], flow)[0])


class _Beside(nn.Module):
    """A network run on images (M, C, *S) and their reference together; its output for the images."""

    def __init__(self, model: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self._model = model
        self._reference = reference

    def forward(self, images: Tensor) -> Tensor:
        outputs = self._model(torch.cat([images, self._reference.expand_as(images)]))
        if not isinstance(outputs, Tensor):
            raise expected("model", "one tensor as its output, for 'deep-lift'", described(outputs))
        return _images(outputs)
