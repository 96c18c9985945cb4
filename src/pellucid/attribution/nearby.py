"""A network on images that each differ in one place from the image before: only what the change reaches runs again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from pellucid.attribution.graph import CONVOLUTIONS, ONEDNN_CONVOLUTIONS, SUMS, constant, given, on_axes, weight_of

Ints = NDArray[np.int64]

_ATEN = torch.ops.aten
_NEAR = 0.1  # of an image, that a change may take
_LEAST = 4  # images in a row; the first of them runs whole
_SAVED = 10**8  # multiplications of an image that must be saved, lest to find out what to do takes longer
_SHARE = 0.75  # of multiplications that may be left
_REACHED = 0.6  # of a feature map; where a change reaches more of it, the map is made whole
_PLACE_BY_PLACE = {
    getattr(_ATEN, name).default
    for each in ("relu", "silu", "gelu", "sigmoid", "tanh", "elu", "leaky_relu", "hardtanh", "hardswish", "hardsigmoid")
    for name in (each, f"{each}_")
    if hasattr(_ATEN, name)
} | {_ATEN.batch_norm.default, _ATEN.dropout.default, _ATEN.dropout_.default, _ATEN.to.dtype}
_CONVOLUTIONS = {*CONVOLUTIONS, *ONEDNN_CONVOLUTIONS}
_POOLS = {
    getattr(_ATEN, f"{kind}_pool{axes}d").default: outside
    for kind, outside in (("max", -math.inf), ("avg", 0.0))
    for axes in (2, 3)
}


def changes(images: Tensor) -> tuple[Ints, Ints]:
    """Where images (M, C, *S) aren't as the one before: first corners of boxes (M, d), and last ones, exclusive.

    A box is empty where nothing changed, and the whole image for the first.

    >>> images = torch.zeros(2, 1, 4, 4)
    >>> images[1, :, 1:3, 2] = 1
    >>> low, high = changes(images)
    >>> low.tolist(), high.tolist()
    ([[0, 0], [1, 2]], [[4, 4], [3, 3]])
    """
    differ = (images[1:] != images[:-1]).any(dim=1)
    shape = images.shape[2:]
    low = np.zeros((len(images), len(shape)), dtype=np.int64)
    high = np.tile(np.array(shape), (len(images), 1))
    for axis, length in enumerate(shape):
        others = [1 + other for other in range(len(shape)) if other != axis]
        line = (differ.any(dim=others) if others else differ).numpy(force=True)
        places = np.arange(length)
        low[1:, axis] = np.where(line, places, length).min(axis=1)
        high[1:, axis] = np.where(line, places + 1, 0).max(axis=1)
    return low, np.maximum(low, high)


def series(low: Ints, high: Ints, shape: Sequence[int], most: int) -> list[tuple[slice, bool]]:
    """Which images (M) to run together, and whether each but the first of them is near the one before.

    `low` and `high` are what `changes` gives, `shape` is *S. Series of near ones have at most `most` images, and
    where there are more of them as many each as can be.
    """
    near = ((high - low) / np.array(shape)).prod(axis=1) <= _NEAR
    starts = [*np.flatnonzero(~near).tolist(), len(near)]
    found: list[tuple[slice, bool]] = []
    for start, stop in itertools.pairwise(starts):
        parts = -(-(stop - start) // most)
        edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
        for first, last in itertools.pairwise(edges):
            is_near = last - first >= _LEAST
            if found and not is_near and not found[-1][1]:
                found[-1] = slice(found[-1][0].start, last), False
            else:
                found.append((slice(first, last), is_near))
    return found


@dataclass(frozen=True)
class _Kernel:
    """What slides over maps, in numbers for each axis (d,)."""

    size: Ints
    stride: Ints
    dilation: Ints


@dataclass(frozen=True)
class _Rule:
    """A call that looks at a few places of maps, for each place of what it gives.

    Attributes:
        sources: the maps. All but the first have the shape of what it gives and are looked at in the same place alone.
        run: `(maps, padding) -> map`.
        padding: places around the first map along each axis.
        outside: the value there.
        kernel: None where the first too is looked at in the same place alone.
    """

    sources: list[fx.Node]
    run: Callable[[Sequence[Tensor], list[int]], Tensor]
    padding: list[int]
    outside: float = 0.0
    kernel: _Kernel | None = None


@dataclass(frozen=True)
class _Windows:
    """Where feature maps of N images are computed, windows of one size, and where within they aren't as the one before.

    Attributes:
        size: of each window, in places along each axis.
        corner: (N, d) where it begins.
        low: (N, d) where the change begins.
        high: (N, d) where it ends, exclusive.
    """

    size: tuple[int, ...]
    corner: Ints
    low: Ints
    high: Ints


def _windows(low: Ints, high: Ints, shape: Sequence[int]) -> _Windows:
    """The smallest that hold each change within maps of a shape (d,)."""
    size = np.maximum((high - low).max(axis=0), 1)
    return _Windows(tuple(size.tolist()), np.minimum(low, np.array(shape) - size), low, high)


@dataclass(frozen=True)
class Plan:
    """What to compute of N images.

    Attributes:
        windows: of each feature map that is computed in windows.
        seen: the windows that its call looks at of each map, with the first one's padding counted in.
        multiplied: multiplications by convolutions.
        plain: those of N passes through the network.
    """

    windows: Mapping[fx.Node, _Windows]
    seen: Mapping[fx.Node, list[_Windows]]
    multiplied: int
    plain: int

    @property
    def pays(self) -> bool:
        """Whether much is saved."""
        count = len(next(iter(self.windows.values())).corner)
        return self.plain - self.multiplied >= _SAVED * count and self.multiplied <= _SHARE * self.plain


class Nearby:
    """Runs the graph of a network on images that each differ little from the one before.

    The first image runs whole. Of each other one, every feature map is computed in the window that the change reaches,
    and is the map of the image before around it, until a change reaches most of a map or an operation looks at all of
    it; from there on images run whole. What it gives differs from the network's own outputs by rounding alone.
    """

    def __init__(self, graph: fx.GraphModule, channels_last: bool) -> None:
        """Arguments: what `graph_of` gives, and whether its operations take channels that lie last."""
        self._graph, self._channels_last = graph.graph, channels_last
        self._nodes = list(self._graph.nodes)
        self._constants = {node: found for node in self._nodes if (found := constant(graph, node)) is not None}
        self._image = next(node for node in self._nodes if node.op == "placeholder")
        self._axes = len(_shape(self._image))
        self._rules = {node: rule for node in self._nodes if (rule := self._rule(node)) is not None}
        last = {used: node for node in self._nodes for used in node.all_input_nodes if used not in self._constants}
        self._done: dict[fx.Node, list[fx.Node]] = {}
        for used, node in last.items():
            self._done.setdefault(node, []).append(used)

    def plan(self, low: Ints, high: Ints) -> Plan:
        """What to compute of images of which only such boxes (N, d) aren't as before; the first counts for nothing."""
        low, high = (np.concatenate([corner[1:2], corner[1:]]) for corner in (low, high))
        windows = {self._image: _windows(low, high, _shape(self._image))}
        seen = {}
        multiplied = plain = 0
        for node in self._nodes:
            rule = self._rules.get(node)
            if rule is not None and all(source in windows for source in rule.sources):
                found, around = self._reached(rule, [windows[source] for source in rule.sources], _shape(node))
                if math.prod(found.size) <= _REACHED * math.prod(_shape(node)):
                    windows[node], seen[node] = found, around
            if node.target in _CONVOLUTIONS:
                each = self._constants[weight_of(node)].numel()
                places = math.prod(_shape(node))
                plain += len(low) * places * each
                windowed = places + len(low) * math.prod(windows[node].size) if node in windows else len(low) * places
                multiplied += windowed * each
        return Plan(windows, seen, multiplied, plain)

    def __call__(self, images: Tensor, plan: Plan) -> Any:
        """What the network gives for images (N, C, *S)."""
        first: dict[fx.Node, Any] = {}  # of the first image, where the others are known
        parts: dict[fx.Node, Tensor] = {}  # in windows (N, C, *W)
        whole: dict[fx.Node, Any] = dict(self._constants)  # of all images
        for node in self._nodes:
            if node is self._image:
                first[node], parts[node] = self._cut(images, plan.windows[node])
            elif node in plan.seen:
                rule, nothing = self._rules[node], [0] * self._axes
                paddings = [rule.padding, *[nothing] * (len(rule.sources) - 1)]
                maps = [  # before the call, which may write to its map
                    _in_windows(first[source], parts[source], plan.windows[source], seen, padding, rule.outside)
                    for source, seen, padding in zip(rule.sources, plan.seen[node], paddings, strict=True)
                ]
                ones = [first[source] for source in rule.sources]
                first[node] = rule.run(ones, rule.padding)
                parts[node] = rule.run(maps, nothing)
            elif node.target is _ATEN.sym_size.int and node.args == (self._image, 0):
                whole[node] = len(images)
            elif node.op != "get_attr":
                for source in set(node.all_input_nodes) - whole.keys():
                    whole[source] = self._completed(first[source], parts[source], plan.windows[source])
                if node.op == "output":
                    break
                run: Any = node.target
                whole[node] = run(*_known(node.args, whole), **_known(node.kwargs, whole))
            for used in self._done.get(node, []):
                for values in (first, parts, whole):
                    values.pop(used, None)
        return self._graph.process_outputs(_known(node.args[0], whole))

    def _cut(self, images: Tensor, windows: _Windows) -> tuple[Tensor, Tensor]:
        """The first image, and windows of all."""
        corners = zip(images, windows.corner.tolist(), strict=True)
        cut = [image[:, *_inside(corner, windows.size)] for image, corner in corners]
        return self._laid(images[:1]), self._laid(torch.stack(cut))

    def _completed(self, first: Tensor, parts: Tensor, windows: _Windows) -> Tensor:
        """Whole maps (N, C, *S) of what is known of the first image and in windows of all."""
        nowhere = np.zeros_like(windows.corner)
        everywhere = _Windows(tuple(first.shape[2:]), nowhere, nowhere, nowhere)
        maps = _in_windows(first, parts, windows, everywhere, [0] * self._axes, 0.0)
        return maps if self._channels_last else maps.contiguous()

    def _laid(self, images: Tensor) -> Tensor:
        return images.clone(memory_format=torch.channels_last if self._channels_last else torch.contiguous_format)

    def _reached(
        self, rule: _Rule, sources: Sequence[_Windows], shape: Sequence[int]
    ) -> tuple[_Windows, list[_Windows]]:
        """Windows of what a call gives, a map of such a shape, and those that it looks at, with padding counted in."""
        if rule.kernel is None and len(sources) == 1:
            return sources[0], [sources[0]]
        lows, highs = [each.low for each in sources], [each.high for each in sources]
        if rule.kernel is not None:
            stride, padding = rule.kernel.stride, np.array(rule.padding)
            reach = rule.kernel.dilation * (rule.kernel.size - 1)
            first = np.maximum((lows[0] + padding - reach + stride - 1) // stride, 0)
            highs[0] = np.minimum((highs[0] - 1 + padding) // stride + 1, np.array(shape))
            lows[0] = np.minimum(first, highs[0])
        found = _windows(np.minimum.reduce(lows), np.maximum.reduce(highs), shape)
        seen = [found] * len(sources)
        if rule.kernel is not None:
            size = (np.array(found.size) - 1) * stride + reach + 1
            seen[0] = _Windows(tuple(size.tolist()), found.corner * stride, found.low, found.high)
        return found, seen

    def _rule(self, node: fx.Node) -> _Rule | None:
        """How a call looks at its maps, if it looks at few places of them at once."""
        sources = [source for source in node.all_input_nodes if source not in self._constants]
        call: Any = node.target
        if node.target in SUMS and list(node.args) == sources and not node.kwargs:
            return self._joining(node, sources, lambda maps, padding: torch.add(*maps))
        if node.target is _ATEN.cat.default and list(node.args) == [sources, 1]:
            return self._joining(node, sources, lambda maps, padding: torch.cat(tuple(maps), dim=1))
        if node.target not in _CONVOLUTIONS and node.target not in _POOLS and node.target not in _PLACE_BY_PLACE:
            return None
        options = given(node)
        names: list[str] = [name for name in ("X", "other") if name in options] or list(options)[:1]  # of the maps
        if set(sources) != {options[name] for name in names}:
            return None
        sources = [options.pop(name) for name in names]
        layouts = options["W"].meta["layouts"] if "W" in options else None
        options = {name: _known(value, self._constants) for name, value in options.items()}
        if node.target in _PLACE_BY_PLACE:
            return _Rule(sources, lambda maps, padding: call(**{names[0]: maps[0]}, **options), [0] * self._axes)
        if options.get("ceil_mode") or not options.get("count_include_pad", True):
            return None

        def run(maps: Sequence[Tensor], padding: list[int]) -> Tensor:
            weights = {} if layouts is None else {"W": layouts(maps[0].shape)}
            found: Tensor = call(**options | dict(zip(names, maps, strict=True)) | weights | {"padding": padding})
            return found

        is_pool = node.target in _POOLS
        size = self._each(options["kernel_size"] if is_pool else self._constants[weight_of(node)].shape[2:])
        return _Rule(
            sources,
            run,
            self._each(options["padding"]).tolist(),
            _POOLS.get(node.target, 0.0),
            _Kernel(size, self._each(options["stride"] or size.tolist()), self._each(options.get("dilation", 1))),
        )

    def _joining(
        self, node: fx.Node, sources: list[fx.Node], run: Callable[[Sequence[Tensor], list[int]], Tensor]
    ) -> _Rule | None:
        """The rule of a call that puts maps of one shape together place by place."""
        if any(_shape(source) != _shape(node) for source in sources):
            return None
        return _Rule(sources, run, [0] * self._axes)

    def _each(self, value: int | Sequence[int]) -> Ints:
        """A number for each axis (d,)."""
        return np.array(on_axes(value, self._axes))


def _shape(node: fx.Node) -> list[int]:
    """*S of the map that a node gives; empty where it gives another thing."""
    value = node.meta.get("val")
    return list(value.shape[2:]) if isinstance(value, Tensor) else []


def _known(arguments: Any, values: Mapping[fx.Node, Any]) -> Any:
    return fx.map_arg(arguments, values.__getitem__)


def _in_windows(
    first: Tensor, parts: Tensor, windows: _Windows, seen: _Windows, padding: list[int], outside: float
) -> Tensor:
    """What N images' maps hold in other windows (N, C, *W), with `outside` around them.

    Each place is as the latest image that was computed there left it: one of `parts` (N, C, *W), or the `first`
    (1, C, *S).
    """
    same = seen is windows or (seen.size == windows.size and np.array_equal(seen.corner, windows.corner))
    if same and not any(padding):
        return parts
    places, count = first.shape[2:].numel(), len(parts)
    known = torch.cat([_by_place(first), first.new_full((1, first.shape[1]), outside), _by_place(parts)])
    whole = np.arange(places).reshape(first.shape[2:])
    latest = np.pad(whole, [(side, side) for side in padding], constant_values=places)
    own = np.arange(math.prod(windows.size)).reshape(windows.size) + places + 1
    wanted = np.empty((count, *seen.size), dtype=np.int64)
    corners = zip((windows.corner + np.array(padding)).tolist(), seen.corner.tolist(), strict=True)
    for image, (computed, looked_at) in enumerate(corners):
        latest[_inside(computed, windows.size)] = own + image * own.size
        wanted[image] = latest[_inside(looked_at, seen.size)]
    chosen = torch.from_numpy(wanted.ravel()).to(first.device)
    return known.index_select(0, chosen).view(count, *seen.size, -1).movedim(-1, 1)


def _inside(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The window of that size at a corner."""
    return tuple(slice(at, at + length) for at, length in zip(corner, size, strict=True))


def _by_place(maps: Tensor) -> Tensor:
    """Maps (N, C, *S) as one row of channels for each place of each."""
    return maps.movedim(1, -1).reshape(-1, maps.shape[1])
