"""Layer-wise relevance propagation with each layer as a matrix, written from the papers with plain loops.

What attends is after Achtibat et al. 2024: propositions 3.1 (softmax), 3.3 (matrix products) and 3.4 (norms).
"""

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
               "epsilon-alpha2-beta1-flat": "alpha-beta", "epsilon-gamma-box": "gamma",
               "attn-lrp": "gamma"}  # fmt: skip
LINEAR = {"attn-lrp": "weak gamma"}
GAMMA = {"gamma": 0.25, "weak gamma": 0.05}


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
        kind = LINEAR.get(rule, "epsilon") if isinstance(layer, nn.Linear) else CONVOLUTION.get(rule, rule)
        kind = FIRST.get(rule, kind) if first else kind
        chosen.append(kind if rule in CONVOLUTION else rule)
        first = first and not _has_weights(layer)
    return _backwards(layers, inputs, chosen, relevance, low, high).reshape(image.shape)


def contrastive_relevance(layers: Sequence[nn.Module], activations: Tensor, target: int) -> Array:
    """Relevance (K, *s) of activations (1, K, *s) that layers go on from, by the z⁺ rule, against the other classes."""
    inputs = [activations.double()]
    for layer in layers:
        inputs.append(layer(inputs[-1]).detach())
    count = inputs[-1].shape[1]
    start = np.array([1.0 if k == target else -1 / (count - 1) for k in range(count)])
    return _backwards(layers, inputs, ["z-plus"] * len(layers), start, 0, 0).reshape(activations.shape[1:])


def _backwards(
    layers: Sequence[nn.Module], inputs: list[Tensor], rules: list[str], relevance: Array, low: float, high: float
) -> Array:
    for layer, x, name in zip(layers[::-1], inputs[-2::-1], rules[::-1], strict=True):
        if isinstance(layer, nn.MaxPool2d | nn.MaxPool3d):
            flow = torch.from_numpy(relevance).reshape(layer(x).shape)
            relevance = torch.autograd.functional.vjp(layer, x, flow)[1].flatten().numpy()
        elif isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d):
            weight, bias = _matrix(layer, x)
            relevance = _shared("epsilon", x.flatten().numpy(), weight, bias, weight, relevance, low, high)
        elif _has_weights(layer):
            weight, bias = _matrix(layer, x)
            joined = _matrix(_ones(layer), x)[0] if name == "flat" else weight
            relevance = _shared(name, x.flatten().numpy(), weight, bias, joined, relevance, low, high)
    return relevance


def attending(model: nn.Module, image: Tensor, target: int, convolution: str, linear: str) -> Array:
    """Relevance (C, *S) of an image through `Attending` in double precision, token by token and head by head."""
    pixels = image.double().unsqueeze(0)
    embed, embed_bias = _matrix(model.embed, pixels)
    width = model.embed.out_channels
    tokens = (embed @ pixels.flatten().numpy() + embed_bias).reshape(width, -1).T
    normed = _normed(model.norm1, tokens)
    rows = _linear(model.qkv, normed)
    heads, logits, weights, mixed = [], [], [], np.zeros_like(tokens)
    for h in range(2):
        q, k, v = (rows[:, start + h * width // 2 : start + (h + 1) * width // 2] for start in (0, width, 2 * width))
        product = q @ k.T
        logit = product / np.sqrt(width / 2)
        weight = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
        heads.append((q, k, v, product))
        logits.append(logit)
        weights.append(weight)
        mixed[:, h * width // 2 : (h + 1) * width // 2] = weight @ v
    attended = _linear(model.proj, mixed)
    middle = tokens + attended
    normed2 = _normed(model.norm2, middle)
    hidden = _linear(model.fc1, normed2)
    bent = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    branch = _linear(model.fc2, bent)
    last = middle + branch
    pooled = last.mean(axis=0)
    scores = _linear(model.head, pooled[None])[0]

    start = np.where(np.arange(len(scores)) == target, scores, 0.0)
    of_pooled = _rows(linear, model.head, pooled[None], start[None])[0]
    of_last = np.zeros_like(last)
    for n in range(len(last)):
        for c in range(width):
            of_last[n, c] = _of(last[n, c] / len(last), pooled[c]) * of_pooled[c]
    of_middle, of_branch = _sum_of(middle, branch, of_last)
    of_hidden = _rows(linear, model.fc2, bent, of_branch)  # through the GELU as it is
    of_middle = of_middle + _of_norm(model.norm2, middle, _rows(linear, model.fc1, normed2, of_hidden))
    of_tokens, of_attended = _sum_of(tokens, attended, of_middle)
    of_mixed = _rows(linear, model.proj, mixed, of_attended)
    of_rows = np.zeros_like(rows)
    for h, (q, k, v, _) in enumerate(heads):
        part = slice(h * width // 2, (h + 1) * width // 2)
        of_weight, of_v = product_of(weights[h], v, of_mixed[:, part])
        of_logit = softmax_of(logits[h], weights[h], of_weight)  # the scale is a constant
        of_q, of_k = product_of(q, k.T, of_logit)
        for place, found in enumerate((of_q, of_k.T, of_v)):
            of_rows[:, place * width + part.start : place * width + part.stop] = found
    of_tokens = of_tokens + _of_norm(model.norm1, tokens, _rows(linear, model.qkv, normed, of_rows))
    flat = of_tokens.T.flatten()
    found = _shared(convolution, pixels.flatten().numpy(), embed, embed_bias, embed, flat, 0, 0)
    return found.reshape(image.shape)


def softmax_of(x: Array, s: Array, relevance: Array) -> Array:
    """Proposition 3.1, row by row."""
    found = np.zeros_like(x)
    for row in range(len(x)):
        for i in range(x.shape[1]):
            found[row, i] = x[row, i] * (relevance[row, i] - s[row, i] * sum(relevance[row]))
    return found


def product_of(a: Array, v: Array, relevance: Array) -> tuple[Array, Array]:
    """Proposition 3.3 for O = A V: to A_ji and V_ip the share A_ji V_ip / (2 O_jp + ε)."""
    of_a, of_v, out = np.zeros_like(a), np.zeros_like(v), a @ v
    for j in range(a.shape[0]):
        for p in range(v.shape[1]):
            for i in range(a.shape[1]):
                share = _of(a[j, i] * v[i, p], 2 * out[j, p]) * relevance[j, p]
                of_a[j, i] += share
                of_v[i, p] += share
    return of_a, of_v


def norm_of(x: Array, gain: Array, shift: Array, eps: float, relevance: Array) -> Array:
    """Proposition 3.4: values that share their moments (n,), as a matrix with the standard deviation held constant."""
    n = len(x)
    matrix = np.diag(gain) @ (np.eye(n) - np.ones((n, n)) / n) / np.sqrt(x.var() + eps)
    return _shared("epsilon", x, matrix, shift, matrix, relevance, 0, 0)


def _of_norm(norm: nn.Module, tokens: Array, relevance: Array) -> Array:
    gain, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return np.stack([norm_of(x, gain, shift, norm.eps, r) for x, r in zip(tokens, relevance, strict=True)])


def _normed(norm: nn.Module, tokens: Array) -> Array:
    return norm(torch.from_numpy(tokens)).detach().numpy()  # type: ignore[no-any-return]


def _linear(layer: nn.Module, tokens: Array) -> Array:
    return tokens @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()  # type: ignore[no-any-return]


def _rows(name: str, layer: nn.Module, tokens: Array, relevance: Array) -> Array:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    pairs = zip(tokens, relevance, strict=True)
    return np.stack([_shared(name, x, weight, bias, weight, r, 0, 0) for x, r in pairs])


def _sum_of(a: Array, b: Array, relevance: Array) -> tuple[Array, Array]:
    found = np.zeros((2, *a.shape))
    for place in np.ndindex(*a.shape):
        for which, values in enumerate((a, b)):
            found[(which, *place)] = _of(values[place], a[place] + b[place]) * relevance[place]
    return found[0], found[1]


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
        elif name in GAMMA:
            cut: Callable[..., Array] = _up if z.sum() + bias[k] > 0 else _down
            more, gamma = z + GAMMA[name] * cut(z), GAMMA[name]
            found += _of(more, more.sum() + bias[k] + gamma * cut(bias[k])) * of_output
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
