"""A network on images that each differ in one place from the image before: only what the change reaches runs again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pellucid.attribution.graph import CONVOLUTIONS, constant, given

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
} | {_ATEN.batch_norm.default, _ATEN.dropout.default, _ATEN.dropout_.default}
_SUMS = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_POOLS = {
    getattr(_ATEN, f"{kind}_pool{axes}d").default: outside
    for kind, outside in (("max", -math.inf), ("avg", 0.0))
    for axes in (2, 3)
}


def changes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where images (M, C, *S) aren't as the one before: first corners of boxes (M, d), and last ones, exclusive.

    They are on the CPU. A box is empty where nothing changed, and the whole image for the first.

    >>> images = torch.zeros(2, 1, 4, 4)
    >>> images[1, :, 1:3, 2] = 1
    >>> changes(images)
    (tensor([[0, 0],
            [1, 2]]), tensor([[4, 4],
            [3, 3]]))
    """
    differ = (images[1:] != images[:-1]).any(dim=1)
    low = torch.zeros(len(images), images.ndim - 2, dtype=torch.long)
    high = torch.tensor(images.shape[2:]).repeat(len(images), 1)
    for axis, length in enumerate(images.shape[2:]):
        others = [1 + other for other in range(images.ndim - 2) if other != axis]
        line = (differ.any(dim=others) if others else differ).cpu()
        places = torch.arange(length)
        low[1:, axis] = torch.where(line, places, length).amin(dim=1)
        high[1:, axis] = torch.where(line, places + 1, 0).amax(dim=1)
    return low, torch.maximum(low, high)


def series(low: Tensor, high: Tensor, shape: torch.Size, most: int) -> list[tuple[slice, bool]]:
    """Which images (M) to run together, and whether each but the first of them is near the one before.

    `low` and `high` are what `changes` gives, `shape` is *S. Series of near ones have at most `most` images.
    """
    near = ((high - low).double() / torch.tensor(shape)).prod(dim=1) <= _NEAR
    starts = [place for place, is_near in enumerate(near.tolist()) if not is_near] + [len(near)]
    found: list[tuple[slice, bool]] = []
    for start, stop in itertools.pairwise(starts):
        for first in range(start, stop, most):
            last = min(first + most, stop)
            is_near = last - first >= _LEAST
            if found and not is_near and not found[-1][1]:
                found[-1] = slice(found[-1][0].start, last), False
            else:
                found.append((slice(first, last), is_near))
    return found


@dataclass(frozen=True)
class _Rule:
    """A call that looks at a few places of maps of one shape, for each place of what it gives.

    Attributes:
        sources: the maps.
        run: `(maps, padding) -> map`.
        kernel, stride, padding, dilation: a number for each axis (d,).
        outside: what lies around the maps.
    """

    sources: list[fx.Node]
    run: Callable[[Sequence[Tensor], list[int]], Tensor]
    kernel: Tensor
    stride: Tensor
    padding: Tensor
    dilation: Tensor
    outside: float = 0.0


@dataclass(frozen=True)
class _Windows:
    """Where feature maps of N images are computed, windows of one size, and where within they aren't as the one before.

    Attributes:
        size: of each window, in places along each axis.
        corner: (N, d) where it begins.
        low: (N, d) where the change begins.
        high: (N, d) where it ends, exclusive.
    """

    size: list[int]
    corner: Tensor
    low: Tensor
    high: Tensor


def _windows(low: Tensor, high: Tensor, shape: Tensor) -> _Windows:
    """The smallest that hold each change within maps of a shape (d,)."""
    size = (high - low).amax(dim=0).clamp(min=1)
    return _Windows(size.tolist(), torch.minimum(low, shape - size), low, high)


@dataclass(frozen=True)
class Plan:
    """What to compute of N images.

    Attributes:
        windows: of each feature map that is computed in windows.
        seen: the windows that its call looks at, with the maps' padding counted in.
        multiplied: multiplications by convolutions.
        plain: those of N passes through the network.
    """

    windows: Mapping[fx.Node, _Windows]
    seen: Mapping[fx.Node, _Windows]
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

    def plan(self, low: Tensor, high: Tensor) -> Plan:
        """What to compute of images of which only such boxes (N, d) aren't as before; the first counts for nothing."""
        low, high = (torch.cat([corner[1:2], corner[1:]]) for corner in (low, high))
        windows = {self._image: _windows(low, high, torch.tensor(_shape(self._image)))}
        seen = {}
        multiplied = plain = 0
        for node in self._nodes:
            rule = self._rules.get(node)
            if rule is not None and all(source in windows for source in rule.sources):
                found, around = self._reached(rule, [windows[source] for source in rule.sources], _shape(node))
                if math.prod(found.size) <= _REACHED * math.prod(_shape(node)):
                    windows[node], seen[node] = found, around
            if node.target in CONVOLUTIONS:
                each = self._constants[given(node)["weight"]].numel()
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
                rule, seen = self._rules[node], plan.seen[node]
                first[node] = rule.run([first[source] for source in rule.sources], rule.padding.tolist())
                maps = [
                    _in_windows(first[source], parts[source], plan.windows[source], seen, rule.padding, rule.outside)
                    for source in rule.sources
                ]
                parts[node] = rule.run(maps, [0] * self._axes)
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
        nowhere = torch.zeros_like(windows.corner)
        everywhere = _Windows(list(first.shape[2:]), nowhere, nowhere, nowhere)
        maps = _in_windows(first, parts, windows, everywhere, nowhere[0], 0.0)
        return maps if self._channels_last else maps.contiguous()

    def _laid(self, images: Tensor) -> Tensor:
        return images.clone(memory_format=torch.channels_last if self._channels_last else torch.contiguous_format)

    def _reached(self, rule: _Rule, sources: Sequence[_Windows], shape: Sequence[int]) -> tuple[_Windows, _Windows]:
        """Windows of what a call gives, a map of such a shape, and those that it looks at, with padding counted in."""
        low = torch.stack([each.low for each in sources]).amin(dim=0)
        high = torch.stack([each.high for each in sources]).amax(dim=0)
        reach = rule.dilation * (rule.kernel - 1)
        first = ((low + rule.padding - reach + rule.stride - 1) // rule.stride).clamp(min=0)
        last = torch.minimum((high - 1 + rule.padding) // rule.stride + 1, torch.tensor(shape))
        found = _windows(torch.minimum(first, last), last, torch.tensor(shape))
        size = ((torch.tensor(found.size) - 1) * rule.stride + reach + 1).tolist()
        return found, _Windows(size, found.corner * rule.stride, low, high)

    def _rule(self, node: fx.Node) -> _Rule | None:
        """How a call looks at its maps, if it looks at few places of them at once."""
        one, none = torch.ones(self._axes, dtype=torch.long), torch.zeros(self._axes, dtype=torch.long)
        if node.target in _SUMS and list(node.args) == node.all_input_nodes and not node.kwargs:
            return self._joining(node, lambda maps, padding: torch.add(*maps))
        if node.target is _ATEN.cat.default and list(node.args) == [node.all_input_nodes, 1]:
            return self._joining(node, lambda maps, padding: torch.cat(tuple(maps), dim=1))
        call: Any = node.target
        if node.target not in CONVOLUTIONS and node.target not in _POOLS and node.target not in _PLACE_BY_PLACE:
            return None
        source, *others = node.all_input_nodes
        if any(other not in self._constants for other in others):
            return None
        taken, *names = given(node)
        options = {name: _known(given(node)[name], self._constants) for name in names}
        if node.target in _PLACE_BY_PLACE:
            return _Rule([source], lambda maps, padding: call(**{taken: maps[0]}, **options), one, one, none, one)
        if options.get("ceil_mode") or not options.get("count_include_pad", True):
            return None
        kernel = self._each(options["weight"].shape[2:] if node.target in CONVOLUTIONS else options["kernel_size"])
        return _Rule(
            [source],
            lambda maps, padding: call(**options | {taken: maps[0], "padding": padding}),
            kernel,
            self._each(options["stride"] or kernel.tolist()),
            self._each(options["padding"]),
            self._each(options.get("dilation", 1)),
            _POOLS.get(node.target, 0.0),
        )

    def _joining(self, node: fx.Node, run: Callable[[Sequence[Tensor], list[int]], Tensor]) -> _Rule | None:
        """The rule of a call that puts maps of one shape together place by place."""
        sources = node.all_input_nodes
        if any(source in self._constants or _shape(source) != _shape(node) for source in sources):
            return None
        one, none = torch.ones(self._axes, dtype=torch.long), torch.zeros(self._axes, dtype=torch.long)
        return _Rule(sources, run, one, one, none, one)

    def _each(self, value: int | Sequence[int]) -> Tensor:
        """A number for each axis (d,)."""
        values = [value] if isinstance(value, int) else list(value)
        return torch.tensor(values * self._axes if len(values) == 1 else values)


def _shape(node: fx.Node) -> list[int]:
    """*S of the map that a node gives; empty where it gives another thing."""
    value = node.meta.get("val")
    return list(value.shape[2:]) if isinstance(value, Tensor) else []


def _known(arguments: Any, values: Mapping[fx.Node, Any]) -> Any:
    return fx.map_arg(arguments, values.__getitem__)


def _in_windows(
    first: Tensor, parts: Tensor, windows: _Windows, seen: _Windows, padding: Tensor, outside: float
) -> Tensor:
    """What N images' maps hold in other windows (N, C, *W), with `outside` around them.

    Each place is as the latest image that was computed there left it: one of `parts` (N, C, *W), or the `first`
    (1, C, *S).
    """
    if not bool(padding.any()) and seen.size == windows.size and torch.equal(seen.corner, windows.corner):
        return parts
    places, count = first.shape[2:].numel(), len(parts)
    known = torch.cat([_by_place(first), first.new_full((1, first.shape[1]), outside), _by_place(parts)])
    sides = [side for each in reversed(padding.tolist()) for side in (each, each)]
    latest = torch.nn.functional.pad(torch.arange(places).view(first.shape[2:]), sides, value=places)
    own = torch.arange(math.prod(windows.size)).view(windows.size) + places + 1
    wanted = torch.empty(count, *seen.size, dtype=torch.long)
    corners = zip((windows.corner + padding).tolist(), seen.corner.tolist(), strict=True)
    for image, (computed, looked_at) in enumerate(corners):
        latest[_inside(computed, windows.size)] = own + image * own.numel()
        wanted[image] = latest[_inside(looked_at, seen.size)]
    return known[wanted.flatten()].view(count, *seen.size, -1).movedim(-1, 1)


def _inside(corner: list[int], size: list[int]) -> tuple[slice, ...]:
    """The window of that size at a corner."""
    return tuple(slice(at, at + length) for at, length in zip(corner, size, strict=True))


def _by_place(maps: Tensor) -> Tensor:
    """Maps (N, C, *S) as one row of channels for each place of each."""
    return maps.movedim(1, -1).reshape(-1, maps.shape[1])
