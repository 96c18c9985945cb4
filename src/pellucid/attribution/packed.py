"""A network's graph for a CPU: a convolution and what follows it are one call, with weights that lie as that wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pellucid.attribution.graph import (
    CONVOLUTIONS,
    ONEDNN_CONVOLUTIONS,
    SUMS,
    constant,
    drop_held,
    given,
    held,
    on_axes,
    tidy,
    weight_of,
)

_ATEN, _ONEDNN = torch.ops.aten, torch.ops.mkldnn
_AFTER = {
    getattr(_ATEN, f"{name}{place}").default: told
    for name, told in (("relu", "relu"), ("silu", "swish"), ("sigmoid", "sigmoid"), ("tanh", "tanh"))
    for place in ("", "_")
}
_LAYOUT = getattr(getattr(_ONEDNN, "_get_mkldnn_serialized_md", None), "default", None)
_FEW, _MANY = 4, 5  # images from which on their number mostly makes no other layout; times as many in windows
SMALL = 2 << 20  # bytes of weights that may be held in several layouts; larger ones are where windows are whole maps
_NEW = ("_convolution_pointwise", "_convolution_pointwise_", "max_pool2d", "max_pool3d")  # give memory of their own

_How = tuple[list[int], list[int], list[int], int]  # padding, stride, dilation and groups of a convolution


class Layouts:
    """A convolution's weights as oneDNN wants them for whole images, for one image and for windows of many.

    A call that is given them in another layout changes that itself each time, which may take longer than it runs.
    """

    def __init__(self, weight: Tensor, how: _How, shape: Sequence[int]) -> None:
        """Arguments: weights (K, C, *k), and the shape (N, C, *S) of whole images."""
        self.whole = _laid_out(weight, how, shape)
        self._held, self._how = [self.whole], how
        self._known: dict[tuple[int, ...], Tensor] = {}
        reach = [1 + dilation * (size - 1) for dilation, size in zip(how[2], weight.shape[2:], strict=True)]
        part = [max(length // 2, least) for length, least in zip(shape[2:], reach, strict=True)]
        others = (1, *shape[1:]), (_MANY * shape[0], shape[1], *part)
        for other in others if _LAYOUT is not None and weight.nbytes <= SMALL else ():
            made = _laid_out(weight, how, other)
            if not any(_alike(each, made) for each in self._held):
                self._held.append(made)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Those for images of a shape (N, C, *S), if they are among them, else those for whole images."""
        key = min(shape[0], _FEW), *shape[2:]
        if len(self._held) > 1 and key not in self._known:
            wanted = _laid_out(torch.empty(self.whole.shape, dtype=self.whole.dtype), self._how, shape)
            self._known[key] = next((each for each in self._held if _alike(each, wanted)), self.whole)
        return self._known.get(key, self.whole)


def _laid_out(weight: Tensor, how: _How, shape: Sequence[int]) -> Tensor:
    """A convolution's weights in the layout that is fastest on images of a shape (N, C, *S)."""
    made: Tensor = _ONEDNN._reorder_convolution_weight(weight, *how, list(shape))
    return made


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether weights have the same layout."""
    assert _LAYOUT is not None
    return torch.equal(_LAYOUT(one), _LAYOUT(other))


def pack(graph: fx.GraphModule, rows: int) -> bool:
    """Have a graph call oneDNN for its convolutions, with weights as it likes them and what follows as parts of calls.

    Arguments:
        graph: what `graph_of` gives of a model on a CPU, in the precision that holds here. It is changed.
        rows: how many images mostly run at once; others run as well.

    Returns:
        Whether this torch comes with oneDNN; without, nothing is changed.
    """
    if not torch.backends.mkldnn.is_available() or not ONEDNN_CONVOLUTIONS:
        return False
    for node in list(graph.graph.nodes):
        if node.target in CONVOLUTIONS[1:]:
            _pack(graph, node, rows)
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    for node in list(order):
        if node.target is ONEDNN_CONVOLUTIONS[0]:
            _fuse(graph, node, order)
    tidy(graph)
    return True


def _pack(graph: fx.GraphModule, convolution: fx.Node, rows: int) -> None:
    """Put a call of oneDNN in the place of a convolution."""
    options = given(convolution)
    weight, image = constant(graph, options["weight"]), options["input"].meta.get("val")
    if weight is None or not isinstance(image, Tensor) or weight.dtype not in (torch.float32, torch.bfloat16):
        return
    padding, stride, dilation = (on_axes(options[name], weight.ndim - 2) for name in ("padding", "stride", "dilation"))
    how = (padding, stride, dilation, options["groups"])
    shape = (rows, *image.shape[1:])
    layouts = Layouts(weight.contiguous(), how, shape)
    taken = held(graph, convolution, "packed", layouts.whole)
    taken.meta["layouts"] = layouts
    with graph.graph.inserting_before(convolution):
        maps = _cast(graph, options["input"], weight.dtype)
        arguments: tuple[Any, ...] = (maps, taken, options["bias"], *how, "none", [], "")
        made = graph.graph.call_function(_ONEDNN._convolution_pointwise.default, arguments)
    made.meta = dict(convolution.meta)
    convolution.replace_all_uses_with(made)
    graph.graph.erase_node(convolution)
    drop_held(graph, options["weight"])  # now, lest all weights are there twice


def _fuse(graph: fx.GraphModule, convolution: fx.Node, order: dict[fx.Node, int]) -> None:
    """Put a sum and a nonlinearity that alone take a convolution into its call."""
    maps, *rest = convolution.args[:7]
    replaced, summand, function = [convolution], None, "none"
    call: Any = convolution.target
    arguments: tuple[Any, ...]
    following = _only(convolution)
    if following is not None and following.target in SUMS and not following.kwargs:
        summand = _summand(following, convolution, order)
        if summand is not None:
            replaced.append(following)
            following = _only(following)
    if following is not None and following.target in _AFTER and (summand is None or _AFTER[following.target] == "relu"):
        function = _AFTER[following.target]
        replaced.append(following)
    last = replaced[-1]
    if last is convolution:
        return
    with graph.graph.inserting_before(last):
        if summand is None:
            arguments = (maps, *rest, function, [], "")
        else:
            weight = constant(graph, weight_of(convolution))
            other = _cast(graph, summand, torch.float32 if weight is None else weight.dtype)
            after = (*rest, "add", 1.0, None if function == "none" else function, [], "")
            if _is_free(summand, convolution, replaced[1], order):
                call, arguments = _ONEDNN._convolution_pointwise_.binary, (other, maps, *after)
            else:
                call, arguments = _ONEDNN._convolution_pointwise.binary, (maps, other, *after)
        made = graph.graph.call_function(call, arguments)
    made.meta, order[made] = dict(last.meta), order[last]
    last.replace_all_uses_with(made)
    for node in reversed(replaced):  # one that writes to its input isn't taken for dead
        graph.graph.erase_node(node)


def _summand(addition: fx.Node, convolution: fx.Node, order: dict[fx.Node, int]) -> fx.Node | None:
    """What is added to a convolution's output, if it is a map of its shape that is there before."""
    others = [each for each in addition.all_input_nodes if each is not convolution]
    if len(others) != 1 or order.get(others[0], math.inf) > order[convolution]:
        return None
    there, maps = others[0].meta.get("val"), convolution.meta.get("val")
    is_like = isinstance(there, Tensor) and isinstance(maps, Tensor) and there.shape == maps.shape
    return others[0] if is_like else None


def _is_free(summand: fx.Node, convolution: fx.Node, addition: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether nothing but the sum reads a map any more, so that the sum may take its memory; nor the convolution."""
    users = [user for user in summand.users if user is not addition]
    readers = [each for user in users for each in (user.users if user.target is _ATEN.to.dtype else [user])]
    others = [reader for reader in readers if reader is not addition]
    is_kept = any(each is convolution or not _is_new(each) or order.get(each, 0) > order[addition] for each in others)
    return _is_new(summand) and not is_kept


def _is_new(node: fx.Node) -> bool:
    """Whether a call gives memory of its own, not that of what it takes."""
    return getattr(node.target, "__name__", "").split(".")[0] in _NEW


def _cast(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    """A map in the type of the weights, as mixed precision has it."""
    if dtype == torch.float32:
        return node
    made = graph.graph.call_function(_ATEN.to.dtype, (node, dtype))
    made.meta = dict(node.meta)
    return made


def _only(node: fx.Node) -> fx.Node | None:
    """What alone takes a node."""
    return next(iter(node.users)) if len(node.users) == 1 else None
