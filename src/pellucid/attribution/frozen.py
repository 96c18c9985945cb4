"""A borrowed network in a form that runs faster, for many images of one shape and no gradient."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from pellucid.attribution.asking import cached_rows, gains_by_channels_last
from pellucid.attribution.graph import graph_of
from pellucid.attribution.memory import is_out_of_memory
from pellucid.attribution.nearby import Nearby, Plan, changes, series
from pellucid.attribution.packed import SMALL, pack
from pellucid.errors import PellucidError
from pellucid.models.checkpoints import digest

_compiling = threading.Lock()  # so that each program knows its own code
_PAYS = 4096  # images after which the seconds that a compiler takes come back
_MORE = 5  # times as many images run at once by what changes
_APART = {torch.bfloat16: 0.1, torch.float32: 1e-3}  # from the network's own outputs, relative to the largest


class CompiledWarning(UserWarning):
    """What was made of a network to run faster gives other values than the network itself, and isn't used."""


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

    splits = True  # it runs as many images at once as is best, however many it is given without gradients

    def __init__(self, model: nn.Module, rows: int) -> None:
        """Arguments: a borrowed model, and how many rows run at once at most."""
        super().__init__()
        self._frozen = Frozen(model, rows)
        self._traced = torch.compile(model)

    def forward(self, images: Tensor) -> Any:
        """What the model gives for images (M, C, *S)."""
        return self._traced(images) if torch.is_grad_enabled() else self._frozen(images)


class Frozen:
    """A borrowed model read as a graph with its weights as constants, laid out and folded as the device likes them.

    On a CPU, images that differ little from those before run only where the change reaches. Elsewhere, once so many
    images ran that it pays, a program is compiled for them, which takes one number of rows; so is a model at once that
    can't be read for any number of them. The model itself runs once its weights are written to.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        """Arguments: a borrowed model, and how many rows run at once at most."""
        self._model, self._most = model, rows
        self._state = _State(model)
        self._channels_last: bool | None = None  # whether the model takes it, once that is known
        self._made: dict[tuple[object, ...], _Made | None] = {}

    def knows(self, images: Tensor) -> bool:
        """Whether there is nothing to prepare for images (M, C, *S)."""
        key = self._key(images)
        return key in self._made and not self._is_due(self._made[key])

    def prepare(self, images: Tensor) -> None:
        """Make now what images (M, C, *S) run through.

        Raises:
            PellucidError: the model can't be compiled.

        Warns:
            CompiledWarning: what was made gives other values, and isn't used.
        """
        key = self._key(images)
        self._look_at(images)
        if key not in self._made:
            self._made[key] = self._checked_graph(key, images[:1])
        made = self._made[key]
        if made is not None and self._is_due(made):
            made.ran = -math.inf  # once
            try:
                made.program = self._checked_program(images[:1].expand(self._rows(images), *images.shape[1:]))
            except PellucidError:
                if made.graph is None:
                    raise

    def __call__(self, images: Tensor) -> Any:
        """What the model gives for images (M, C, *S)."""
        self._look_at(images)
        made = None
        if self._state.is_current:
            self.prepare(images)
            made = self._made[self._key(images)]
        if made is None:
            return _joined([self._model(self._laid(part)) for part in images.split(self._rows(images))])
        if made.nearby is None:
            return _joined(self._wholly(made, images))
        return self._by_changes(made, made.nearby, images)

    def _rows(self, images: Tensor) -> int:
        return cached_rows(images, self._most)

    def _key(self, images: Tensor) -> tuple[object, ...]:
        return self._rows(images), *images.shape[1:], images.dtype, images.device, _precision(images)

    def _is_due(self, made: _Made | None) -> bool:
        return made is not None and made.program is None and made.ran >= _PAYS

    def _wholly(self, made: _Made, images: Tensor) -> list[Any]:
        """What images give, a few at a time."""
        rows, program = self._rows(images), made.program
        made.ran += len(images)
        any_number = made.graph or self._model
        full = any_number if program is None else program.run
        parts = images.split(rows)
        return [(full if len(part) == rows else any_number)(self._laid(part)) for part in parts]

    def _by_changes(self, made: _Made, nearby: Nearby, images: Tensor) -> Any:
        """What images give, those that differ little from the one before by what differs."""
        low, high = changes(images)
        distinct = (high > low).all(axis=1)
        if not distinct.all():
            images, low, high = images[torch.from_numpy(distinct)], low[distinct], high[distinct]
        found = []
        for part, is_near in series(low, high, images.shape[2:], min(self._most, _MORE * self._rows(images))):
            plan = nearby.plan(low[part], high[part]) if is_near and made.nearby is not None else None
            if plan is not None and plan.pays:
                found.append(self._near(made, nearby, images[part], plan))
            else:
                found += self._wholly(made, images[part])
        return _rows_of(_joined(found), torch.from_numpy(distinct.cumsum() - 1))

    def _near(self, made: _Made, nearby: Nearby, images: Tensor, plan: Plan) -> Any:
        """What images give, by a plan; wholly where that turns out to be something else."""
        found = nearby(images, plan)
        if not made.is_sure:
            few = images[: self._rows(images)]
            same = self._is_same(self._model(self._laid(few)), _rows_of(found, slice(len(few))), "what changes alone")
            made.is_sure, made.nearby = True, nearby if same else None
        return found if made.nearby is not None else _joined(self._wholly(made, images))

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

    def _checked_graph(self, key: tuple[object, ...], image: Tensor) -> _Made | None:
        """The model's graph, if it gives what the model gives."""
        own = self._model(self._laid(image))  # first, so that images it doesn't take are told of as elsewhere
        weights = f"{digest(self._model)} {self._model!r}"
        known = _KNOWN.get(self._model)
        if known is None or known.weights != weights:
            known = _KNOWN[self._model] = _Known(weights, {})
        if key in known.made:
            return known.made[key]
        known.made[key] = made = self._read(image)
        if made.graph is not None and not self._is_same(own, made.graph(self._laid(image)), "its graph"):
            del known.made[key]
            return None
        return made

    def _read(self, image: Tensor) -> _Made:
        """The model's graph, or else a program that is due, where it is another for each number of images."""
        last = bool(self._channels_last)
        try:
            with _quiet():
                graph = graph_of(self._model, image, last)
        except Exception as error:  # each network may fail in a way of its own
            if is_out_of_memory(error):
                raise
            return _Made(ran=math.inf)
        if image.device.type != "cpu":
            return _Made(graph)
        is_packed = pack(graph, self._rows(image))
        return _Made(graph, Nearby(graph, last), ran=-math.inf if is_packed else 0)  # no program is faster

    def _checked_program(self, images: Tensor) -> _Program | None:
        """A program for so many images, if it gives what the model gives."""
        program = _program(self._model, self._laid(images))
        own = self._model(self._laid(images))
        return program if self._is_same(own, program.run(self._laid(images)), "its compiled form") else None

    def _is_same(self, own: Any, other: Any, what: str) -> bool:
        """Whether outputs are the model's own. Warns: CompiledWarning."""
        leaves = [each for each in tree_leaves(own) if isinstance(each, Tensor)]
        apart = _apart(own, other)
        if apart <= _APART.get(_precision(leaves[0]), _APART[torch.float32]):
            return True
        warnings.warn(
            f"the network through {what} gives what differs by {apart:.1e} from its own outputs; it isn't used.",
            CompiledWarning,
            stacklevel=2,
        )
        return False


@dataclass(eq=False)
class _Made:
    """What was made of a model for one kind of images."""

    graph: fx.GraphModule | None = None  # for any number of images
    nearby: Nearby | None = None
    is_sure: bool = False  # whether what `nearby` gives was held against the model
    program: _Program | None = None
    ran: float = 0  # rows that ran whole, after enough of which a program pays


@dataclass(frozen=True)
class _Program:
    """A compiled network."""

    run: Callable[[Tensor], Any]


@dataclass(frozen=True)
class _Known:
    """What was made of a model, and the weights that are in it."""

    weights: str
    made: dict[tuple[object, ...], _Made]


_KNOWN: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()


def _program(model: nn.Module, sample: Tensor) -> _Program:
    """Compile a model for images of a sample's shape (M, C, *S). Raises PellucidError where it can't be."""
    import torch._inductor

    with _compiling:
        before = {id(module) for module in _generated()}
        try:
            with _quiet():
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch tells of a network that it reads: what it can't read is told of as an error."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


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


def _joined(parts: list[Any]) -> Any:
    """Outputs for rows from those for some of them each."""
    return parts[0] if len(parts) == 1 else tree_map(lambda *each: torch.cat(each), *parts)


def _rows_of(outputs: Any, rows: slice | Tensor) -> Any:
    """Outputs for some of the rows."""
    return tree_map(lambda each: each[rows], outputs)


def _apart(own: Any, other: Any) -> float:
    """The largest difference of two outputs, relative to the largest value of the first; infinite for other shapes."""
    pairs = [tree_leaves(own), tree_leaves(other)]
    tensors = [[each.float() for each in leaves if isinstance(each, Tensor)] for leaves in pairs]
    if [each.shape for each in tensors[0]] != [each.shape for each in tensors[1]]:
        return math.inf
    least = torch.finfo(torch.float32).tiny
    found = [float((a - b).abs().max() / a.abs().max().clamp(min=least)) for a, b in zip(*tensors, strict=True)]
    return math.nan if any(map(math.isnan, found)) else max(found, default=math.inf)


def copied_bytes(model: nn.Module, precision: str) -> int:
    """The bytes that copies of a model's weights may take once it is read."""
    share = 2 if precision == "bfloat16" else 1
    sizes = ((each.nbytes // share, each.ndim > 3) for each in model.parameters())
    return sum(size * 2 if is_convolution and size <= SMALL else size for size, is_convolution in sizes)
