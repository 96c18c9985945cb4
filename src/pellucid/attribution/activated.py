"""A feature map that no module gives: `NAME:relu`, what `relu` makes of the output of the module NAME.

The activation may be called as a function, or by a module that others share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def parted(layer: str) -> tuple[str, str]:
    """A layer's module, and the activation that follows it or none.

    >>> parted("features:relu"), parted("layer4")
    (('features', 'relu'), ('layer4', ''))
    """
    name, _, activation = layer.partition(":")
    return name, activation


def module_of(model: nn.Module, layer: str) -> nn.Module:
    """The module whose output a layer is, or is made of."""
    return model.get_submodule(parted(layer)[0])


@contextlib.contextmanager
def changed(model: nn.Module, layer: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Let the network go on with `change(output)` in place of the layer's output, for as long as the block lasts."""
    name, activation = parted(layer)
    follower = _Follower(activation, change) if activation else None

    def hook(module: nn.Module, inputs: object, output: object) -> object:
        if follower is None:
            return change(output)
        follower.awaited = output
        return None

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        with follower or contextlib.nullcontext():
            yield
    finally:
        handle.remove()


class _Follower(TorchFunctionMode):
    """Changes what an activation makes of the awaited tensor, in place where it works so."""

    def __init__(self, activation: str, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.awaited: object = None
        self._activation = activation
        self._change = change

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = args[0] if args else (kwargs or {}).get("input")
        if given is None or given is not self.awaited or plain_name(func) != self._activation:
            return func(*args, **(kwargs or {}))
        self.awaited = None
        output = func(*args, **(kwargs or {}))
        made = self._change(output)
        return given.copy_(made) if output is given and isinstance(given, Tensor) else made


def plain_name(function: Callable[..., Any]) -> str:
    """A function's name without what marks it as in place.

    >>> plain_name(Tensor.relu_)
    'relu'
    """
    return str(getattr(function, "__name__", "")).strip("_")
