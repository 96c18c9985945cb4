"""A borrowed network as a graph of operations on tensors, each batch norm folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

_ATEN = torch.ops.aten
ONEDNN_CONVOLUTIONS = tuple(
    getattr(getattr(torch.ops.mkldnn, name), kind)
    for name, kind in (
        ("_convolution_pointwise", "default"),
        ("_convolution_pointwise", "binary"),  # with a map that is added to what the convolution gives,
        ("_convolution_pointwise_", "binary"),  # in that map's place
    )
    if hasattr(torch.ops.mkldnn, name)
)
CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)
SUMS = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_CAST = (*CONVOLUTIONS, _ATEN.linear.default)  # by mixed precision


def graph_of(model: nn.Module, image: Tensor, channels_last: bool) -> fx.GraphModule:
    """The graph of a model for any number of images like `image` (1, C, *S), in the precision that holds here.

    `channels_last` says whether they come with channels last in memory. Weights that were folded, cast or laid out anew
    are copies; the rest are the model's own.

    Raises:
        Exception: whatever `torch.export` raises of a model that it can't take for any number of images.
    """
    with torch.autocast(image.device.type, enabled=False):
        every = {0: torch.export.Dim.DYNAMIC}
        graph = torch.export.export(model, (torch.cat([image, image]),), dynamic_shapes=(every,)).module()
    assert isinstance(graph, fx.GraphModule)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and not node.users:  # checks of what is given
            graph.graph.erase_node(node)
    for node in list(graph.graph.nodes):
        if node.target is _ATEN.batch_norm.default:
            _fold(graph, node)
    for node in list(graph.graph.nodes):
        if node.target in _CAST:
            _lay_out(graph, node, image.device.type, channels_last)
    tidy(graph)
    return graph


def tidy(graph: fx.GraphModule) -> None:
    """Drop what nothing takes any more, weights too, and have the graph run as it is now."""
    graph.graph.eliminate_dead_code()
    taken = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name in graph._buffers if name not in taken]:
        delattr(graph, name)
    graph.recompile()


def weight_of(call: fx.Node) -> fx.Node:
    """What stands for the weight of a convolution."""
    options = given(call)
    weight: fx.Node = options["weight"] if "weight" in options else options["W"]
    return weight


def given(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by their names, with its defaults."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [each.name for each in node.target._schema.arguments]
    defaults = {each.name: each.default_value for each in node.target._schema.arguments}
    return defaults | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def on_axes(value: int | Sequence[int], axes: int) -> list[int]:
    """An option of a convolution or a pool as a number for each axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def constant(graph: fx.GraphModule, node: fx.Node | None) -> Tensor | None:
    """The weight that a node stands for."""
    if node is None or node.op != "get_attr":
        return None
    found: Tensor = attrgetter(str(node.target))(graph)
    return found


def _fold(graph: fx.GraphModule, norm: fx.Node) -> None:
    """Put an evaluating norm's scale and shift into the convolution whose output it alone takes."""
    options = given(norm)
    convolution = options["input"]
    if convolution.target not in CONVOLUTIONS or len(convolution.users) > 1 or options["training"]:
        return
    before = given(convolution)
    statistics = options["running_mean"], options["running_var"]
    weight, mean, variance = (constant(graph, node) for node in (before["weight"], *statistics))
    if weight is None or mean is None or variance is None:
        return
    bias, gamma, beta = (constant(graph, node) for node in (before["bias"], options["weight"], options["bias"]))
    scale = (variance + options["eps"]).rsqrt() * (1 if gamma is None else gamma)
    shift = ((0 if bias is None else bias) - mean) * scale + (0 if beta is None else beta)
    folded = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    _replace(graph, convolution, {"weight": folded, "bias": shift})
    norm.replace_all_uses_with(convolution)
    graph.graph.erase_node(norm)


def _lay_out(graph: fx.GraphModule, node: fx.Node, device: str, channels_last: bool) -> None:
    """Have a layer's weights as mixed precision and the device want them, so that no pass has to make them so."""
    options = given(node)
    found = {}
    for name in ("weight", "bias"):
        own = constant(graph, options[name])
        if own is None:
            continue
        made = own.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else own
        if channels_last and made.ndim == 4:
            made = made.contiguous(memory_format=torch.channels_last)
        if made is not own:
            found[name] = made
    _replace(graph, node, found)


def _replace(graph: fx.GraphModule, node: fx.Node, weights: dict[str, Tensor]) -> None:
    """Have a call take other weights."""
    for name, values in weights.items():
        options = given(node) | {name: held(graph, node, f"{name}_of_its_own", values)}
        node.args, node.kwargs = tuple(options.values()), {}


def held(graph: fx.GraphModule, node: fx.Node, name: str, values: Tensor) -> fx.Node:
    """A node before another one for a tensor that the graph holds from now on."""
    label = f"{node.name}_{name}"
    graph.register_buffer(label, values.detach(), persistent=False)
    with graph.graph.inserting_before(node):
        return graph.graph.get_attr(label)


def drop_held(graph: fx.GraphModule, node: fx.Node) -> None:
    """Drop a tensor of `held`, if nothing takes it any more."""
    if not node.users:
        graph.graph.erase_node(node)
        if all(other.target != node.target for other in graph.graph.nodes) and node.target in graph._buffers:
            delattr(graph, str(node.target))
