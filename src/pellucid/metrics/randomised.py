"""Networks whose weights are random from the output down, and given back as they were.

A module owns the parameters and buffers that are its own attributes, not those of the modules inside it; so a class
token or a position embedding is owned by the network that bears it. What has random weights is told by owners.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pellucid.attribution.layout import relaid
from pellucid.errors import expected

_NEAR_NOUGHT = 0.02  # standard deviation where all of a parameter's own values are 0, as tokens are begun with
_CONSTANT = (0.5, 1.5)  # between which a parameter's one value is multiplied


def owners(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Names of the modules that own weights, in the order in which the network last uses them, the last used first.

    The order is that of a run on `images` (M, C, *S), whatever the order in which modules were defined. Those that
    take no part in it come last. The network itself is named "".

    >>> backwards = nn.ModuleDict({"head": nn.Linear(4, 2), "stem": nn.Linear(3, 4)})
    >>> backwards.forward = lambda images: backwards["head"](backwards["stem"](images))
    >>> owners(backwards, torch.zeros(1, 3))
    ('head', 'stem')
    """
    names = [name for name, module in model.named_modules() if any(_own(module))]
    watch = _Uses()
    handles = [module.register_forward_hook(watch.ran) for module in model.modules() if not _is_scripted(module)]
    try:
        with torch.no_grad(), watch:
            model(images.clone())
    finally:
        for handle in handles:
            handle.remove()
    last = {name: watch.last(model.get_submodule(name)) for name in names}
    backwards = names[::-1]  # where the run says nothing, the last defined first
    return tuple(sorted(backwards, key=lambda name: -last[name]))


@contextlib.contextmanager
def randomised(model: nn.Module, names: Sequence[str], seed: int = 0) -> Iterator[nn.Module]:
    """The network with random weights in the modules `names`; every weight and buffer is given back, bit for bit.

    A module that can reset its own parameters does, with its running statistics. Any parameter or floating-point buffer
    that this leaves, as a bare one, a frozen norm's or attention's projection, gets normal values of its own mean,
    standard deviation and range; one that is the same everywhere is multiplied by something between 0.5 and 1.5.
    Buffers of integers, and those that aren't saved with the network, are indices and constants, and stay.

    A module's random weights follow from `seed` and its name, whatever others are reset, so that each stage of a
    cascade goes on from the one before; a module that resets itself draws otherwise on another kind of device. The
    random state of torch is left as it was.

    Raises:
        UnknownNameError, InputError: no such module.

    >>> model = nn.Linear(2, 1)
    >>> before = model.weight.clone()
    >>> with randomised(model, [""]):
    ...     bool((model.weight == before).any())
    False
    >>> bool((model.weight == before).all())
    True
    """
    modules = dict(model.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise expected("names", "names of modules in the model", repr(unknown[0]))
    # random values are drawn in the order of memory, so that they would be others in another layout
    usual = contextlib.nullcontext() if _is_scripted(model) else relaid(model.parameters(), torch.contiguous_format)
    with usual:
        kept = {name: {key: _Kept.of(modules[name], key, own) for key, own in _own(modules[name])} for name in names}
        try:
            with torch.inference_mode(False), torch.no_grad(), _own_randomness(model):
                for name in names:
                    _randomise(modules[name], kept[name], _seed(seed, name))
            yield model
        finally:
            with torch.inference_mode(False), torch.no_grad():
                for owned in kept.values():
                    for each in owned.values():
                        each.restore()


def _randomise(module: nn.Module, kept: Mapping[str, _Kept], seed: int) -> None:
    torch.manual_seed(seed)
    if (reset := _own_reset(module)) is not None:
        reset()
    generator = torch.Generator().manual_seed(seed)
    temporary: set[str] = getattr(module, "_non_persistent_buffers_set", set())
    for key, tensor in _own(module):
        if key in kept and kept[key].stands(tensor) and key not in temporary and tensor.is_floating_point():
            tensor.copy_(_alike(kept[key].values, generator))


def _alike(values: Tensor, generator: torch.Generator) -> Tensor:
    """Random values of the mean, standard deviation and range of those given; infinite ones stay."""
    wide = values.cpu() if values.dtype == torch.float64 else values.float().cpu()
    if not bool(wide.isfinite().all()):
        return values
    low, high = wide.min(), wide.max()
    noise = torch.randn(wide.shape, generator=generator, dtype=wide.dtype)
    if low < high:
        fresh = (wide.mean() + wide.std(correction=0) * noise).clamp(low, high)
    elif low == 0:
        fresh = _NEAR_NOUGHT * noise
    else:
        fresh = wide * torch.empty_like(wide).uniform_(*_CONSTANT, generator=generator)
    return fresh.to(values)


def _own_reset(module: nn.Module) -> Callable[[], object] | None:
    """What resets its parameters, where that doesn't reach for those of modules inside it, which have their turn."""
    reset: Callable[[], object] | None = getattr(module, "reset_parameters", None)
    if not callable(reset) or any(any(_own(inner)) for inner in module.modules() if inner is not module):
        return None
    try:
        inspect.signature(reset).bind()
    except TypeError:
        return None
    return reset


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters and buffers, by their names."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest(), "big")


def _own_randomness(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Leaves torch's random state as it was, on the CPU and where the model lies."""
    kind = next((tensor.device.type for tensor in [*model.parameters(), *model.buffers()]), "cpu")
    if kind == "cpu":
        return torch.random.fork_rng(devices=[])
    places = range(torch.get_device_module(kind).device_count())
    return torch.random.fork_rng(devices=list(places), device_type=kind)


@dataclass(frozen=True)
class _Kept:
    """A parameter or buffer as it was: the tensor, its version and a copy of its values."""

    module: nn.Module
    name: str
    tensor: Tensor
    version: int
    values: Tensor

    @classmethod
    def of(cls, module: nn.Module, name: str, tensor: Tensor) -> _Kept:
        return cls(module, name, tensor, tensor._version, tensor.detach().clone())

    def stands(self, tensor: Tensor) -> bool:
        """Whether what is there now is that tensor still, and nothing was written to it."""
        return tensor is self.tensor and tensor._version == self.version and torch.equal(tensor, self.values)

    def restore(self) -> None:
        if not _is_scripted(self.module) and getattr(self.module, self.name) is not self.tensor:
            setattr(self.module, self.name, self.tensor)
        self.tensor.detach().copy_(self.values)


class _Uses(TorchFunctionMode):
    """Notes when a tensor is last handed to an operation, and when a module last ran."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = 0
        self._tensors: dict[int, int] = {}
        self._modules: dict[nn.Module, int] = {}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") != "__get__":  # asking for a shape or a dtype is no use
            self._clock += 1
            for each in tree_leaves((args, kwargs)):
                if isinstance(each, Tensor):
                    self._tensors[id(each)] = self._clock
        return func(*args, **(kwargs or {}))

    def ran(self, module: nn.Module, inputs: object, output: object) -> None:
        """Forward hook."""
        self._clock += 1
        self._modules[module] = self._clock

    def last(self, module: nn.Module) -> int:
        """When any of a module's own tensors was last used; else when it last ran, as scripted code hides its use."""
        used = [self._tensors[id(tensor)] for _, tensor in _own(module) if id(tensor) in self._tensors]
        return max(used) if used else self._modules.get(module, 0)
