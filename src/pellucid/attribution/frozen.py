"""A borrowed network compiled with its weights as constants, for many images of one shape and no gradient."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pellucid.attribution.asking import cached_rows, gains_by_channels_last
from pellucid.attribution.memory import is_out_of_memory
from pellucid.errors import PellucidError, expected
from pellucid.models.checkpoints import digest

_compiling = threading.Lock()  # so that each program knows its own code
_APART = {torch.bfloat16: 0.1, torch.float32: 1e-3}  # from the network's own outputs, relative to the largest


class CompiledWarning(UserWarning):
    """A compiled network gives other values than the network itself, which runs in its place."""


@contextlib.contextmanager
def told_if_uncompiled() -> Iterator[None]:
    """Say in words that a compiler failed or is missing. Raises PellucidError."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise _uncompiled(error) from error


def _uncompiled(error: Exception) -> PellucidError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return PellucidError(f"compile: this model can't be compiled here ({reason}). Leave compile=True out.")


class Compiled(nn.Module):
    """Runs in a borrowed model's place: as `torch.compile` makes it where gradients are wanted, else frozen.

    What was compiled once is found again while the model lives and its weights are the same.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        """Arguments: a borrowed model, and how many rows run at once at most."""
        super().__init__()
        self._frozen = Frozen(model, rows)
        self._traced = torch.compile(model)

    def forward(self, images: Tensor) -> Any:
        """What the model gives for images (M, C, *S)."""
        return self._traced(images) if torch.is_grad_enabled() else self._frozen(images)


class Frozen:
    """A borrowed model whose weights are constants of a compiled program, folded and laid out as the device likes them.

    A program takes one number of rows. Rows that are left over run beside copies of the last, or in the model itself
    where they are few, as all do once its weights are written to.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        """Arguments: a borrowed model, and how many rows run at once at most."""
        self._model, self._most = model, rows
        self._state = _State(model)
        self._channels_last: bool | None = None  # whether the model takes it, once that is known
        self._programs: dict[tuple[object, ...], _Program | None] = {}

    def knows(self, images: Tensor) -> bool:
        """Whether it is compiled for images (M, C, *S) already, or can't be for them."""
        return self._key(images) in self._programs

    def prepare(self, images: Tensor) -> None:
        """Compile for images (M, C, *S) now.

        Raises:
            PellucidError: the model can't be compiled.

        Warns:
            CompiledWarning: the program gives other values, and isn't used.
        """
        key = self._key(images)
        self._look_at(images)
        if key not in self._programs:
            self._programs[key] = self._checked(key, images[:1].expand(key[0], *images.shape[1:]))

    def __call__(self, images: Tensor) -> Any:
        """What the model gives for images (M, C, *S)."""
        rows = cached_rows(images, self._most)
        self._look_at(images)
        program = None
        if 2 * len(images) > rows and self._state.is_current:
            self.prepare(images)
            program = self._programs[self._key(images)]
        parts = [self._of(program, part, rows) for part in images.split(rows)]
        return parts[0] if len(parts) == 1 else tree_map(lambda *each: torch.cat(each), *parts)

    def _key(self, images: Tensor) -> tuple[int, *tuple[object, ...]]:
        return cached_rows(images, self._most), *images.shape[1:], images.dtype, images.device, _precision(images)

    def _of(self, program: _Program | None, images: Tensor, rows: int) -> Any:
        count = len(images)
        if program is None or 2 * count <= rows:
            return self._model(self._laid(images))
        if count < rows:
            images = torch.cat([images, images[-1:].expand(rows - count, *images.shape[1:])])
        outputs = program.run(self._laid(images))
        return outputs if count == rows else tree_map(lambda each: each[:count], outputs)

    def _look_at(self, images: Tensor) -> None:
        """Find out in which layout the model takes images."""
        if self._channels_last is not None:
            return
        self._channels_last = gains_by_channels_last(images)
        try:
            self._model(self._laid(images[:1]))
        except RuntimeError:  # a view that wants the usual layout, or a fault that comes again
            self._channels_last = False

    def _laid(self, images: Tensor) -> Tensor:
        """A copy, lest it is written to, in the layout that runs fastest."""
        return images.clone(memory_format=torch.channels_last if self._channels_last else torch.contiguous_format)

    def _checked(self, key: tuple[object, ...], sample: Tensor) -> _Program | None:
        """The program for so many copies of an image, if it gives what the model gives."""
        own = self._model(self._laid(sample))  # first, so that images it doesn't take are told of as elsewhere
        weights = f"{digest(self._model)} {self._model!r}"
        known = _KNOWN.get(self._model)
        if known is None or known.weights != weights:
            known = _KNOWN[self._model] = _Known(weights, {})
        program = known.programs.get(key) or _program(self._model, self._laid(sample))
        apart = _apart(own, program.run(self._laid(sample)))
        if not apart <= _APART.get(_precision(sample), _APART[torch.float32]):
            warnings.warn(
                f"the compiled network's outputs differ by {apart:.1e} from its own, so that it runs uncompiled.",
                CompiledWarning,
                stacklevel=2,
            )
            return None
        known.programs[key] = program
        return program


@dataclass(frozen=True)
class _Program:
    """A compiled network."""

    run: Callable[[Tensor], Any]


@dataclass(frozen=True)
class _Known:
    """The programs of a model, and the weights that are in them."""

    weights: str
    programs: dict[tuple[object, ...], _Program]


_KNOWN: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()


def _program(model: nn.Module, sample: Tensor) -> _Program:
    """Compile a model for images of a sample's shape (M, C, *S). Raises PellucidError where it can't be."""
    import torch._inductor

    with _compiling:
        before = {id(module) for module in _generated()}
        try:
            with warnings.catch_warnings(action="ignore"):  # of what it meets while it reads the network
                graph = torch.export.export(model, (sample,)).module()
                run = torch._inductor.compile(graph, [sample], options={"freezing": True})
                run(sample)  # which compiles what is left
        except Exception as error:  # each network may fail in a way of its own
            if is_out_of_memory(error):
                raise
            raise _uncompiled(error) from error
        program = _Program(run)
        weakref.finalize(program, _let_go, [module for module in _generated() if id(module) not in before])
        return program


def _generated() -> list[ModuleType]:
    """The modules of generated code that torch holds."""
    from torch._inductor.codecache import PyCodeCache

    return list(PyCodeCache.modules)


def _let_go(modules: Iterable[ModuleType]) -> None:
    """Drop the constants of generated code, which torch keeps for good."""
    for module in modules:
        for name in [name for name, value in vars(module).items() if isinstance(value, Tensor)]:
            delattr(module, name)


class _State:
    """A model's weights as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = [*model.parameters(), *model.buffers()]
        self._seen = [(each.data_ptr(), each._version) for each in self._tensors]

    @property
    def is_current(self) -> bool:
        """Whether none was written to or put elsewhere since."""
        return all((t.data_ptr(), t._version) == seen for t, seen in zip(self._tensors, self._seen, strict=True))


def _precision(images: Tensor) -> torch.dtype:
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype


def _apart(own: Any, other: Any) -> float:
    """The largest difference of two outputs, relative to the largest value of the first; infinite for other shapes."""
    pairs = [tree_leaves(own), tree_leaves(other)]
    tensors = [[each.float() for each in leaves if isinstance(each, Tensor)] for leaves in pairs]
    if [each.shape for each in tensors[0]] != [each.shape for each in tensors[1]]:
        return math.inf
    least = torch.finfo(torch.float32).tiny
    found = [float((a - b).abs().max() / a.abs().max().clamp(min=least)) for a, b in zip(*tensors, strict=True)]
    return math.nan if any(map(math.isnan, found)) else max(found, default=math.inf)


def check_spare(model: nn.Module, spare: int | None, precision: str) -> None:
    """Raise InputError where a program's copy of the weights takes more bytes than are left within max_memory."""
    needed = sum(each.nbytes for each in model.parameters()) // (2 if precision == "bfloat16" else 1)
    if spare is not None and needed > spare:
        wanted = f"{needed - spare} bytes ({(needed - spare) / 2**20:.1f} MiB) more, for the compiled network's weights"
        raise expected("max_memory", wanted, "fewer", do="Give more, or leave compile=True out.")
