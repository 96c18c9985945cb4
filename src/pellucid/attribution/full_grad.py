"""FullGrad: the input's share of a score and every bias's, in one map."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from pellucid.attribution.asking import Gradients
from pellucid.attribution.families import rewriting
from pellucid.attribution.resize import resize_maps
from pellucid.errors import expected

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass
class BiasSlopes:
    """A bias (K,) that is added to a module's output, and that output's gradients (M, K, ...), one per score."""

    bias: Tensor
    slopes: list[Tensor] = field(default_factory=list)


@contextlib.contextmanager
def bias_slopes(model: nn.Module) -> Iterator[list[BiasSlopes]]:
    """Note every bias that a pass adds, and where a backward pass has come, the gradients there.

    Batch normalisation adds β - γ μ / √(σ² + ε). The network goes on with a clone of each output, lest an in-place
    operation rewrites it.
    """
    noted: list[BiasSlopes] = []
    handles: list[RemovableHandle] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        bias = added_bias(module)
        if bias is None or not output.requires_grad:
            return output
        entry = BiasSlopes(bias)
        noted.append(entry)
        output.register_hook(lambda slope: entry.slopes.append(slope.detach()))
        return output.clone()

    try:
        handles += [m.register_forward_hook(note) for m in model.modules() if added_bias(m) is not None]
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def added_bias(module: nn.Module) -> Tensor | None:
    """The constant (K,) that a linear layer, a convolution or a batch normalisation adds to its output."""
    if isinstance(module, _BatchNorm):
        if module.running_mean is None or module.running_var is None:
            return None
        scale = (module.running_var + module.eps).rsqrt()
        if module.weight is not None:
            scale = scale * module.weight
        shift = -module.running_mean * scale
        return (shift if module.bias is None else shift + module.bias).detach()
    if isinstance(module, _LINEAR) and module.bias is not None:
        return module.bias.detach()
    return None


@rewriting("fullgrad", family="gradient", source="Srinivas & Fleuret 2019, eqs. 3 and 4")
def fullgrad(model: nn.Module, gradient_of: Gradients, images: Tensor, seeds: Tensor) -> Tensor:
    """The image times its gradient and each bias times its gradient, layer by layer absolute, scaled and summed.

    Each layer is scaled over its channels and positions to [0, 1] and enlarged to the image, so that the map isn't
    negative. Biases without spatial extent, as a last linear layer's, have no place in it. In a network whose other
    parts are piecewise linear the unscaled terms add up to the score.

    Raises:
        InputError: a part of the network is scripted, so that its biases can't be seen.
    """
    scripted = next((name for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if scripted is not None:
        raise expected("model", "modules whose biases can be seen, for 'fullgrad'", f"{scripted!r}, which is scripted")
    found = []
    for sample in torch.arange(len(images), device=images.device).split(gradient_of.rows):
        with bias_slopes(model) as noted:
            slopes = gradient_of(images[sample], sample)
        maps = _scaled((images[sample].unsqueeze(1) * slopes).abs())
        for entry in noted:
            shares = torch.stack(entry.slopes, dim=1)  # (M, T, K, *s)
            if shares.ndim == slopes.ndim:
                shares = shares * entry.bias.reshape(-1, *(1,) * (shares.ndim - 3))
                maps = maps + resize_maps(_scaled(shares.abs()), images.shape[2:])
        found.append(maps)
    return torch.cat(found)


def _scaled(shares: Tensor) -> Tensor:
    """Shares (M, T, K, *s) scaled from least to largest of each image and score to [0, 1], summed over K."""
    flat = shares.flatten(2)
    least, most = (bound.reshape(*bound.shape, *(1,) * (shares.ndim - 2)) for bound in flat.aminmax(dim=2))
    spread = most - least
    return torch.where(spread > 0, (shares - least) / torch.where(spread > 0, spread, 1), 0).sum(dim=2)
