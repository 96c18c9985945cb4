"""Layer-wise relevance propagation: the score is shared out, layer by layer, among what each layer saw.

Where a layer computes z = Σ_j x_j w_j + b, relevance R of z goes to input j in proportion to its part of z. Rules
differ in which parts count. `gradient_of` and the shapes are those of `gradient.py`; a map is (B, T, *S).

What isn't a convolution or a linear layer is treated alike under every rule: activations and batch norm pass relevance
on; a batch norm that follows a convolution or a linear layer is folded into it first; sums, residual additions, average
pools and products with constants share by proportion; maximum pools give all to the largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import Gradients
from pellucid.attribution.channels import Channels, over_channels
from pellucid.attribution.families import rewriting
from pellucid.attribution.rules import ACTIVATIONS, Answer, Call, Rewritten, Rule, moves_only, pulled_back, replaced
from pellucid.attribution.targets import described
from pellucid.errors import expected

RuleName = Literal["epsilon", "zero", "gamma", "alpha-beta", "z-plus"]
Composite = Literal[
    "epsilon-plus-flat", "epsilon-plus", "epsilon-alpha2-beta1-flat", "epsilon-alpha2-beta1", "epsilon-gamma-box"
]
Bounds = tuple[float | Tensor, float | Tensor]
Part = tuple[Tensor, Tensor, Tensor | None]  # an input, a weight and a bias, whose z are added up

STABILISER = 1e-6
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
PROPORTIONAL = frozenset({
    "add", "sub", "rsub", "mul", "div", "truediv", "true_divide", "neg", "sum", "mean", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate",
})  # fmt: skip
COMPOSITES: dict[str, tuple[str, str, str]] = {  # for the first layer, convolutions and linear layers
    "epsilon-plus-flat": ("flat", "z-plus", "epsilon"),
    "epsilon-plus": ("z-plus", "z-plus", "epsilon"),
    "epsilon-alpha2-beta1-flat": ("flat", "alpha-beta", "epsilon"),
    "epsilon-alpha2-beta1": ("alpha-beta", "alpha-beta", "epsilon"),
    "epsilon-gamma-box": ("box", "gamma", "epsilon"),
}
RULES = ("epsilon", "zero", "gamma", "alpha-beta", "z-plus")


@rewriting("lrp", family="relevance", source="Bach et al. 2015, section 'Layer-wise relevance'; Montavon et al. 2019")
def lrp(
    model: nn.Module,
    gradient_of: Gradients,
    images: Tensor,
    seeds: Tensor,
    *,
    rule: RuleName | None = None,
    composite: Composite = "epsilon-plus-flat",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    bounds: Bounds | None = None,
    channels: Channels = "sum",
) -> Tensor:
    """Relevance of each pixel: the score shared out backwards through the network.

    `rule` is one rule for every layer ("alpha-beta" is α = 2, β = 1); without it `composite` gives rules by place.
    `epsilon` ≥ 0 and `gamma` ≥ 0 are those of their rules. `bounds` are the lowest and the highest value that a pixel
    of the normalised image can have, for "epsilon-gamma-box": values, or tensors that broadcast to (C, *S); None takes
    each image's own range in each channel.
    """
    if rule is not None and rule not in RULES:
        raise expected("rule", ", ".join(map(repr, RULES)) + " or None", repr(rule))
    if composite not in COMPOSITES:
        raise expected("composite", " or ".join(map(repr, COMPOSITES)), repr(composite))
    for argument, value in (("epsilon", epsilon), ("gamma", gamma)):
        if value < 0:
            raise expected(argument, "at least 0", value)
    rules: dict[str, LayerRule] = {
        "epsilon": lambda layer, flow, x: epsilon_rule(layer, flow, x, epsilon),
        "zero": lambda layer, flow, x: epsilon_rule(layer, flow, x, 0.0),
        "gamma": lambda layer, flow, x: gamma_rule(layer, flow, x, gamma),
        "alpha-beta": alpha_beta_rule,
        "z-plus": z_plus_rule,
        "flat": flat_rule,
        "box": lambda layer, flow, x: box_rule(layer, flow, x, bounds),
    }
    first, convolution, linear = (rules[name] for name in ((rule,) * 3 if rule else COMPOSITES[composite]))

    def begin() -> Answer:
        return _Pass(first, convolution, linear)

    rewritten = Rewritten(nn.Sequential(model, _Score()), begin, lambda step: not moves_only(step), "lrp")
    everyone = torch.arange(len(images), device=images.device)
    return over_channels(gradient_of.through(rewritten)(images, everyone), channels)


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer: a function linear in its input, its weight and its bias."""

    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, call: Call) -> Layer:
        """The layer that a call applies to its first argument."""
        rest, options = call.args[3:], {k: v for k, v in call.options.items() if k not in ("weight", "bias")}
        function = call.function
        return cls(lambda x, w, b: function(x, w, b, *rest, **options), call.given(1, "weight"), call.given(2, "bias"))

    def scaled(self, scale: Tensor, shift: Tensor) -> Layer:
        """The layer followed by `scale` and `shift` of its output's channels; both (K,)."""
        weight = self.weight * scale.reshape(-1, *(1,) * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)


LayerRule = Callable[[Layer, Tensor, Tensor], Tensor]  # layer, relevance of its output, its input: relevance of that


def share(layer: Layer, flow: Tensor, parts: Sequence[Part], epsilon: float = STABILISER) -> Tensor:
    """Relevance of the input where the parts' z add up and each part gets its share of `flow`.

    >>> layer = Layer(torch.nn.functional.linear, torch.tensor([[1.0, 3.0]]), None)
    >>> share(layer, torch.tensor([[8.0]]), [(torch.ones(1, 2), layer.weight, None)], epsilon=0)
    tensor([[2., 6.]])
    """
    inputs = [x for x, _, _ in parts]

    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in inputs]
        zs = [layer.function(leaf, w, b) for leaf, (_, w, b) in zip(leaves, parts, strict=True)]
        z = reduce(torch.add, zs)
        slopes = torch.autograd.grad(z, leaves, divided(flow, z.detach(), epsilon))
    return reduce(torch.add, (x * slope for x, slope in zip(inputs, slopes, strict=True)))


def divided(flow: Tensor, z: Tensor, epsilon: float) -> Tensor:
    """flow / (z + ε sign z), where the sign of 0 is 1; 0 where that is 0 / 0 or without bounds.

    >>> divided(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, -0.5, 0.0]), 0.5).tolist()
    [1.0, -1.0, 2.0]
    """
    below = z + torch.where(z < 0, -epsilon, epsilon)
    return torch.where(below == 0, 0.0, flow / torch.where(below == 0, 1.0, below))


def epsilon_rule(layer: Layer, flow: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """LRP-ε: parts x w, damped by ε; LRP-0 with ε = 0. Bach et al. 2015, eq. 58; Montavon et al. 2019, 10.2.1."""
    return share(layer, flow, [(x, layer.weight, layer.bias)], epsilon)


def z_plus_rule(layer: Layer, flow: Tensor, x: Tensor) -> Tensor:
    """Only positive parts (x w)⁺ and b⁺: α = 1, β = 0. Bach et al. 2015, eq. 60; Montavon et al. 2017, z⁺ rule."""
    return share(layer, flow, _signed(layer, x, 1.0))


def alpha_beta_rule(layer: Layer, flow: Tensor, x: Tensor, alpha: float = 2.0, beta: float = 1.0) -> Tensor:
    """α times the share of positive parts less β times that of negative ones. Bach et al. 2015, eq. 60."""
    positive, negative = (share(layer, flow, _signed(layer, x, sign)) for sign in (1.0, -1.0))
    return alpha * positive - beta * negative


def gamma_rule(layer: Layer, flow: Tensor, x: Tensor, gamma: float) -> Tensor:
    """LRP-γ: parts of the output's own sign count 1 + γ times. Montavon et al. 2019, 10.2.1."""
    z = layer.function(x, layer.weight, layer.bias)
    return _gamma_half(layer, flow * (z > 0), x, gamma, 1.0) + _gamma_half(layer, flow * (z < 0), x, gamma, -1.0)


def flat_rule(layer: Layer, flow: Tensor, x: Tensor) -> Tensor:
    """Every input of an output alike. Lapuschkin et al. 2019."""
    return share(layer, flow, [(torch.ones_like(x), torch.ones_like(layer.weight), None)])


def box_rule(layer: Layer, flow: Tensor, x: Tensor, bounds: Bounds | None) -> Tensor:
    """Parts x w − low w⁺ − high w⁻, for values within bounds. Montavon et al. 2017, z^B rule."""
    axes = tuple(range(2, x.ndim))
    low, high = (x.amin(dim=axes, keepdim=True), x.amax(dim=axes, keepdim=True)) if bounds is None else bounds
    ends = [torch.as_tensor(end, dtype=x.dtype, device=x.device).expand_as(x) for end in (low, high)]
    sides: list[Part] = []
    for end, sign in zip(ends, (1.0, -1.0), strict=True):
        bias = None if layer.bias is None else -_half(layer.bias, sign)
        sides.append((end, -_half(layer.weight, sign), bias))
    return share(layer, flow, [(x, layer.weight, layer.bias), *sides])


def proportional(call: Call) -> Rule:
    """What is linear in its inputs: each gets its share of the output."""

    def rule(flow: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        slopes = pulled_back(call, inputs, divided(flow, call(*inputs), STABILISER))
        return tuple(x * slope for x, slope in zip(inputs, slopes, strict=True))

    return rule


def _half(values: Tensor, sign: float) -> Tensor:
    """The positive or the negative part."""
    return values.clamp(min=0) if sign > 0 else values.clamp(max=0)


def _half_bias(layer: Layer, sign: float) -> Tensor | None:
    return None if layer.bias is None else _half(layer.bias, sign)


def _signed(layer: Layer, x: Tensor, sign: float) -> list[Part]:
    """The parts x w and b that have a sign."""
    return [
        (x.clamp(min=0), _half(layer.weight, sign), _half_bias(layer, sign)),
        (x.clamp(max=0), _half(layer.weight, -sign), None),
    ]


def _gamma_half(layer: Layer, flow: Tensor, x: Tensor, gamma: float, sign: float) -> Tensor:
    bias = None if layer.bias is None else layer.bias + gamma * _half(layer.bias, sign)
    parts: list[Part] = [
        (x.clamp(min=0), layer.weight + gamma * _half(layer.weight, sign), bias),
        (x.clamp(max=0), layer.weight + gamma * _half(layer.weight, -sign), None),
    ]
    return share(layer, flow, parts)


class _Score(nn.Module):
    """Where relevance starts: an output's relevance is its value times what the score makes of it."""

    def forward(self, outputs: object) -> Tensor:
        if not isinstance(outputs, Tensor):
            raise expected("model", "one tensor as its output, for 'lrp'", described(outputs))
        return replaced(torch.clone, lambda flow, out: (flow * out,), outputs)


class _Pass:
    """The answers of one pass; it remembers the last layer, lest a batch norm follows."""

    def __init__(self, first: LayerRule, convolution: LayerRule, linear: LayerRule) -> None:
        self._first: LayerRule | None = first
        self._convolution = convolution
        self._linear = linear
        self._last: tuple[Tensor, Tensor, Layer, LayerRule] | None = None  # output, input, layer, rule

    def __call__(self, call: Call) -> Tensor | None:
        if call.moving == [0]:
            if call.name in CONVOLUTIONS or call.name == "linear":
                return self._layer(call)
            if call.name == "batch_norm":
                return self._batch_norm(call)
            if call.name in ACTIVATIONS:
                return call.ruled(lambda flow, x: (flow,))
        if call.name in PROPORTIONAL and (call.moving == [0] or call.name in ("add", "sub", "rsub")):
            return call.ruled(proportional(call))
        return None

    def _layer(self, call: Call) -> Tensor:
        rule = self._first or (self._linear if call.name == "linear" else self._convolution)
        layer, x, self._first = Layer.of(call), call.args[0], None
        out = replaced(call, lambda flow, x: (rule(layer, flow, x),), x)
        self._last = None if "transpose" in call.name else (out, x, layer, rule)
        return out

    def _batch_norm(self, call: Call) -> Tensor | None:
        mean, variance, gain, shift = (
            call.given(i, n) for i, n in enumerate(("running_mean", "running_var", "weight", "bias"), start=1)
        )
        if mean is None or call.given(5, "training", False):
            return None  # the batch's own moments
        if self._last is None or self._last[0] is not call.args[0]:
            return call.ruled(lambda flow, x: (flow,))
        out, x, layer, rule = self._last
        scale = (variance + call.given(7, "eps", 1e-5)).rsqrt() * (1.0 if gain is None else gain)
        folded = layer.scaled(scale, (0.0 if shift is None else shift) - mean * scale)
        return replaced(lambda _: call(out.detach()), lambda flow, x: (rule(folded, flow, x),), x)
