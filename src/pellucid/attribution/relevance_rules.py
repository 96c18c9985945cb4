"""The rules of layer-wise relevance propagation: what flows to a step's inputs of the relevance of its output.

Where a layer computes z = Σ_j x_j w_j + b, relevance R of z goes to input j in proportion to its part of z. Rules
differ in which parts count. For what isn't linear there are the rules of Achtibat et al. 2024 (AttnLRP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from pellucid.attribution.rules import Call, Rule, pulled_back

Bounds = tuple[float | Tensor, float | Tensor]
Part = tuple[Tensor, Tensor, Tensor | None]  # an input, a weight and a bias, whose z are added up

STABILISER = 1e-6


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


def bilinear(call: Call) -> Rule:
    """A matrix product of two moving factors: half to each, by its share. Achtibat et al. 2024, proposition 3.3."""

    def rule(flow: Tensor, *factors: Tensor) -> tuple[Tensor, ...]:
        slopes = pulled_back(call, factors, divided(flow, 2 * call(*factors), STABILISER))
        return tuple(x * slope for x, slope in zip(factors, slopes, strict=True))

    return rule


def uniform(flow: Tensor, *factors: Tensor) -> tuple[Tensor, ...]:
    """An elementwise product: the same to each factor. Achtibat et al. 2024, proposition 3.2.

    >>> uniform(torch.tensor([4.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([5.0]))
    (tensor([2., 1.]), tensor([3.]))
    """
    return tuple((flow / len(factors)).sum_to_size(x.shape) for x in factors)


def passed(flow: Tensor, *_inputs: Tensor) -> tuple[Tensor]:
    """What acts value by value, or divides by a norm: all to its input. Achtibat et al. 2024, eq. 9, proposition 3.4.

    >>> passed(torch.tensor([4.0, 2.0]), torch.tensor([1.0, 1.0]))
    (tensor([4., 2.]),)
    """
    return (flow,)


def softmax_rule(call: Call) -> Rule:
    """x_i (R_i - s_i Σ_j R_j), what is left over being the bias's. Achtibat et al. 2024, proposition 3.1."""
    dim = call.given(1, "dim", -1)

    def rule(flow: Tensor, x: Tensor) -> tuple[Tensor]:
        seen = torch.where(x.isinf(), 0.0, x)  # a mask's -inf, whose s is 0
        return (seen * (flow - call(x) * flow.sum(dim=dim, keepdim=True)),)

    return rule


def normalised(call: Call) -> Rule:
    """Layer, group and instance norm with their standard deviation held constant, so that they are linear.

    Achtibat et al. 2024, proposition 3.4 for the division and the ε rule for what is subtracted and added.
    """

    def rule(flow: Tensor, x: Tensor) -> tuple[Tensor]:
        rows, gain, eps = _moments(call, x)  # each row has moments of its own
        below = (x.reshape(rows).var(dim=-1, correction=0, keepdim=True) + eps).sqrt().expand(rows).reshape(x.shape)
        shares = (divided(flow, call(x), STABILISER) * gain / below).reshape(rows)
        return (x * (shares - shares.mean(dim=-1, keepdim=True)).reshape(x.shape),)

    return rule


def _moments(call: Call, x: Tensor) -> tuple[tuple[int, ...], Tensor | float, float]:
    """A norm's input shape with one axis for what shares its moments; its gain; its ε."""
    if call.name == "layer_norm":
        axes = len(call.given(1, "normalized_shape"))
        weight, eps = call.given(2, "weight"), call.given(4, "eps", 1e-5)
        return (*x.shape[:-axes], math.prod(x.shape[-axes:])), 1.0 if weight is None else weight, eps
    by_group = call.name == "group_norm"
    groups = call.given(1, "num_groups") if by_group else x.shape[1]
    weight = call.given(2 if by_group else 3, "weight")
    gain = 1.0 if weight is None else weight.reshape(-1, *(1,) * (x.ndim - 2))
    count = math.prod(x.shape[1:]) // groups
    return (len(x), groups, count), gain, call.given(4 if by_group else 7, "eps", 1e-5)


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
