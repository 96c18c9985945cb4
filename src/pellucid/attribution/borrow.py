"""Borrow a model: evaluation mode, nothing to learn, and everything given back on every way out."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.errors import expected

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_guard = threading.Lock()


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode with frozen parameters; calls from several threads take turns.

    Inside, gradients can be taken even where the caller is under `no_grad` or `inference_mode`. On the way out
    each module's mode, each parameter's `requires_grad` and each buffer's value are as they were. `.grad` and the
    weights are never touched.

    Raises:
        InputError: a weight was made in inference mode, which no gradient can pass, or has no values yet.
    """
    with _lock(model):
        _check_weights(model)
        modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        buffers = [_Buffer.of(module, name) for module in model.modules() for name in _buffer_names(module)]
        try:
            for module, _ in modes:
                module.training = False  # not eval(): a model may override it to rewrite itself
            with torch.inference_mode(False), torch.enable_grad():
                for parameter in learning:
                    parameter.requires_grad_(False)
                yield
        finally:
            with torch.inference_mode(False):
                for parameter in learning:
                    parameter.requires_grad_(True)
                for buffer in buffers:
                    buffer.restore()
            for module, training in modes:
                module.training = training


def _lock(model: nn.Module) -> threading.RLock:
    with _locks_guard:
        return _locks.setdefault(model, threading.RLock())


def _check_weights(model: nn.Module) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise expected(
                "model",
                "weights that have a shape",
                f"{name!r} of a lazy module",
                do="Run the network once on a batch before it is explained.",
            )
        if tensor.is_meta:
            raise expected(
                "model",
                "weights that have values",
                f"{name!r} on the meta device",
                do="Load weights after model.to_empty(device=...).",
            )
        if tensor.is_inference():
            raise expected(
                "model",
                "weights that gradients can pass",
                f"{name!r}, made in inference mode",
                do="Create or load the model outside torch.inference_mode().",
            )


def _buffer_names(module: nn.Module) -> list[str]:
    """Names of a module's own buffers; a scripted module keeps them elsewhere than others do."""
    if isinstance(module, torch.jit.ScriptModule):
        return [name for name, _ in module.named_buffers(recurse=False)]
    return list(module._buffers)


@dataclass(frozen=True)
class _Buffer:
    """A buffer as it was: its tensor, the tensor's version and a copy of its values."""

    module: nn.Module
    name: str
    tensor: Tensor | None
    version: int
    values: Tensor | None

    @classmethod
    def of(cls, module: nn.Module, name: str) -> _Buffer:
        tensor = getattr(module, name)
        if tensor is None:
            return cls(module, name, None, 0, None)
        return cls(module, name, tensor, tensor._version, tensor.detach().clone())

    def restore(self) -> None:
        """Put the tensor back, and its values where they were written to."""
        if getattr(self.module, self.name) is not self.tensor:
            setattr(self.module, self.name, self.tensor)
        if self.tensor is not None and self.values is not None and self.tensor._version != self.version:
            with torch.no_grad():
                self.tensor.copy_(self.values)
