"""Layer-wise relevance propagation with each layer as a matrix, written from the papers with plain loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]

STABILISER = 1e-6
FIRST = {"epsilon-plus-flat": "flat", "epsilon-alpha2-beta1-flat": "flat", "epsilon-gamma-box": "box"}
CONVOLUTION = {"epsilon-plus": "z-plus", "epsilon-plus-flat": "z-plus", "epsilon-alpha2-beta1": "alpha-beta",
               "epsilon-alpha2-beta1-flat": "alpha-beta", "epsilon-gamma-box": "gamma"}  # fmt: skip


def lrp(layers: Sequence[nn.Module], image: Tensor, target: int, rule: str, low: float, high: float) -> Array:
    """Relevance (C, *S) of an image by one rule, or by a composite, low and high bounding its values."""
    inputs = [image.double().unsqueeze(0)]
    for layer in layers:
        inputs.append(layer(inputs[-1]).detach())
    score = inputs[-1][0].numpy()
    relevance = np.where(np.arange(len(score)) == target, score, 0.0)
    first = True
    chosen = []
    for layer in layers:  # rules in the order of the network
        kind = "epsilon" if isinstance(layer, nn.Linear) else CONVOLUTION.get(rule, rule)
        kind = FIRST.get(rule, kind) if first else kind
        chosen.append(kind if rule in CONVOLUTION else rule)
        first = first and not _has_weights(layer)
    for layer, x, name in zip(layers[::-1], inputs[-2::-1], chosen[::-1], strict=True):
        if isinstance(layer, nn.MaxPool2d | nn.MaxPool3d):
            flow = torch.from_numpy(relevance).reshape(layer(x).shape)
            relevance = torch.autograd.functional.vjp(layer, x, flow)[1].flatten().numpy()
        elif _has_weights(layer):
            weight, bias = _matrix(layer, x)
            joined = _matrix(_ones(layer), x)[0] if name == "flat" else weight
            relevance = _shared(name, x.flatten().numpy(), weight, bias, joined, relevance, low, high)
    return relevance.reshape(image.shape)


def _shared(
    name: str, x: Array, weight: Array, bias: Array, joined: Array, relevance: Array, low: float, high: float
) -> Array:
    found = np.zeros_like(x)
    for k, of_output in enumerate(relevance):
        z = x * weight[k]
        if name in ("epsilon", "zero"):
            found += _of(z, z.sum() + bias[k], 0.0 if name == "zero" else STABILISER) * of_output
        elif name == "z-plus":
            found += _of(_up(z), _up(z).sum() + _up(bias[k])) * of_output
        elif name == "alpha-beta":
            found += 2 * _of(_up(z), _up(z).sum() + _up(bias[k])) * of_output
            found -= _of(_down(z), _down(z).sum() + _down(bias[k])) * of_output
        elif name == "gamma":
            cut: Callable[..., Array] = _up if z.sum() + bias[k] > 0 else _down
            more = z + 0.25 * cut(z)
            found += _of(more, more.sum() + bias[k] + 0.25 * cut(bias[k])) * of_output
        elif name == "flat":
            found += _of(joined[k], joined[k].sum()) * of_output
        else:
            boxed = z - low * _up(weight[k]) - high * _down(weight[k])
            found += _of(boxed, boxed.sum()) * of_output
    return found


def _of(parts: Array, total: float, epsilon: float = STABILISER) -> Array:
    below = total + (epsilon if total >= 0 else -epsilon)
    return parts / below if below else np.zeros_like(parts)


def _up(values: Array) -> Array:
    return np.maximum(values, 0)


def _down(values: Array) -> Array:
    return np.minimum(values, 0)


def _has_weights(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())


def _matrix(layer: nn.Module, x: Tensor) -> tuple[Array, Array]:
    """A layer as W x + b over flat values."""
    jacobian = torch.autograd.functional.jacobian(layer, x)
    bias = layer(torch.zeros_like(x)).flatten().detach().numpy()
    return jacobian.reshape(len(bias), x.numel()).numpy(), bias


def _ones(layer: nn.Module) -> nn.Module:
    inner = layer[0] if isinstance(layer, nn.Sequential) else layer
    inner = type(inner)(inner.in_channels, inner.out_channels, inner.kernel_size, padding=inner.padding)  # type: ignore[call-arg, arg-type, operator]
    nn.init.ones_(inner.weight)
    nn.init.zeros_(inner.bias)
    return inner.double()
