"""Which layers give a network's last feature maps at each scale, before it goes on to a coarser one."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_MAKERS = "_pellucid_makers"  # on a tensor, the names of the modules that gave it


def find_stages(model: nn.Module, images: Tensor, last: str) -> list[str]:
    """Layers with the last feature map at each scale finer than that of `last`, the finest first.

    The network runs once on the first of `images` (B, C, *S), in evaluation mode. Scales are halvings of the image,
    to rounding. A feature map (B, K, *s) counts where a module takes it and gives a smaller one; of the modules that
    gave it the outermost is named, if it runs but once and isn't a pooling. Maps with channels last aren't found. Where
    there is but one scale, as in a ViT, they are the layers of the same kind in the blocks before that of `last`.

    >>> small = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), nn.ReLU())
    >>> find_stages(small, torch.zeros(1, 1, 16, 16), last="4")
    ['1']
    """
    last = last.partition(":")[0]  # the module, where an activation follows it as a function
    # scripted modules take no hook
    names = {m: name for name, m in model.named_modules() if name and not isinstance(m, torch.jit.ScriptModule)}
    runs = dict.fromkeys(names.values(), 0)
    left: dict[tuple[int, ...], list[str]] = {}  # scale -> who gave the maps that something made smaller
    end: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = names[module]
        runs[name] += 1
        given = inputs[0] if inputs else None
        if not isinstance(output, Tensor) or output.ndim != images.ndim or isinstance(module, nn.Linear):
            return
        if isinstance(given, Tensor) and given.ndim == images.ndim and _smaller(output, given) and not end:
            left.setdefault(_scale(images, given), []).extend(getattr(given, _MAKERS, []))
        if _gives_features(module):
            setattr(output, _MAKERS, [*getattr(output, _MAKERS, []), name])
        if name == last:
            end.append(_scale(images, output))

    with _noting(names, note), torch.no_grad():
        model(images[:1].clone())
    stages = {scale: _outermost([name for name in makers if runs[name] == 1]) for scale, makers in left.items()}
    # with channels last the axes of a map may seem longer than the image's
    finer = [scale for scale in stages if end and min(scale) >= 0 and _below(scale, end[0])]
    found = [name for scale in sorted(finer, key=sum) if (name := stages[scale]) is not None]
    return found or _in_earlier_blocks(model, last)


def _in_earlier_blocks(model: nn.Module, last: str) -> list[str]:
    """`blocks.0.norm1` and `blocks.1.norm1` before `blocks.2.norm1`, if they are of the same type."""
    parts = re.fullmatch(r"(.*\.)(\d+)(\..*)", last)
    if parts is None:
        return []
    before, number, after = parts.groups()
    modules = dict(model.named_modules())
    names = [f"{before}{place}{after}" for place in range(int(number))]
    return [name for name in names if type(modules.get(name)) is type(modules[last])]


def _scale(images: Tensor, features: Tensor) -> tuple[int, ...]:
    """How often each axis was halved."""
    return tuple(round(math.log2(n / s)) for n, s in zip(images.shape[2:], features.shape[2:], strict=True))


def _smaller(output: Tensor, given: Tensor) -> bool:
    """Whether a feature map is smaller than another, and not pooled to a point."""
    return output.shape[2:].numel() > 1 and _below(tuple(output.shape[2:]), tuple(given.shape[2:]))


def _below(one: Sequence[int], other: Sequence[int]) -> bool:
    return one != other and all(here <= there for here, there in zip(one, other, strict=True))


def _gives_features(module: nn.Module) -> bool:
    """Neither a pooling nor a padding, nor a norm of channels that come last."""
    kind = type(module).__name__.lower()
    return type(module) is not nn.LayerNorm and "pool" not in kind and "pad" not in kind


def _outermost(makers: Sequence[str]) -> str | None:
    """The name with the fewest dots, the last of several."""
    depth = min((name.count(".") for name in makers), default=0)
    return next((name for name in reversed(makers) if name.count(".") == depth), None)


@contextlib.contextmanager
def _noting(names: dict[nn.Module, str], note: Callable[[nn.Module, tuple[Any, ...], Any], None]) -> Iterator[None]:
    """Hooks on every module, and all in evaluation mode, for as long as the block lasts."""
    modes = [(module, module.training) for module in names]
    handles = [module.register_forward_hook(note) for module in names]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
