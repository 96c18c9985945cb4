"""Graphs as calls of oneDNN: the same outputs for any number of images, and maps that others need stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from pellucid.attribution import packed
from pellucid.attribution.graph import graph_of
from pellucid.attribution.packed import Layouts, pack
from references.cam_networks import seeded

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch comes without oneDNN")


class Residual(nn.Module):
    """A sum with what a convolution before it gives, which is taken twice before, and once more after if `later`."""

    def __init__(self, later: bool = False, in_place: bool = False) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.later, self.in_place = later, in_place

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images).relu()
        way = self.two(self.one(maps).relu())
        way = way.add_(maps) if self.in_place else way + maps
        found: Tensor = way.relu()
        return found * maps if self.later else found


class OwnInput(nn.Module):
    """Sums of which the convolution reads what is added, itself or by another name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = (
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
        )
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        maps = self.one(maps) + maps
        found: Tensor = self.two(self.drop(maps)) + maps
        return found


class Broadcasting(nn.Module):
    """Sums with things that aren't maps of the same shape, or that come later."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        self.offset = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        first = self.one(images) + self.offset
        second = self.two(images) + 1.0
        means: Tensor = self.two(images) + first.mean(dim=(2, 3), keepdim=True)
        return (first + second).sigmoid() + means.tanh()


class Aliased(nn.Module):
    """A sum with a map of which another call holds the memory, and that is needed after."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.drop = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.one(images)
        kept = self.drop(maps)  # is `maps` itself
        return (self.two(images) + kept) * maps


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "nonlinearities": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.SiLU(inplace=True),
            nn.Conv2d(4, 4, 3, 2, 1, groups=2),
            nn.Sigmoid(),
            nn.Conv2d(4, 4, (3, 1), dilation=2, padding=(2, 0)),
            nn.Tanh(),
            nn.Conv2d(4, 2, 1),
            nn.GELU(),
        ),
        {"_convolution_pointwise.default": 4, "gelu.default": 1},
    ),
    "norms": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        {"_convolution_pointwise.default": 1, "max_pool2d.default": 1},
    ),
    "a sum": (Residual, {"_convolution_pointwise.default": 2, "_convolution_pointwise_.binary": 1}),
    "a sum in place": (
        lambda: Residual(in_place=True),
        {"_convolution_pointwise.default": 2, "_convolution_pointwise_.binary": 1},
    ),
    "a sum with what is needed later": (
        lambda: Residual(later=True),
        {"_convolution_pointwise.default": 2, "_convolution_pointwise.binary": 1, "mul.Tensor": 1},
    ),
    "a sum with its own input": (OwnInput, {"_convolution_pointwise.binary": 2, "_convolution_pointwise_.binary": 0}),
    "other sums": (Broadcasting, {"_convolution_pointwise.default": 3}),
    "a sum with what is held twice": (Aliased, {"_convolution_pointwise.binary": 1, "mul.Tensor": 1}),
}


def calls(graph: fx.GraphModule) -> Counter[str]:
    return Counter(node.target.__name__ for node in graph.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_the_network_gives(name: str, precision: str) -> None:
    make, wanted = NETWORKS[name]
    model, images = seeded(make()), torch.randn(5, 2, 12, 13, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            own = model(images)
            graph = graph_of(model, images[:1], channels_last=True)
            assert pack(graph, 3)
            rounding = 0.0 if precision == "float32" else float((own - exact).abs().max())
            for rows in (1, 3, 5):
                found = graph(images[:rows].contiguous(memory_format=torch.channels_last))
                assert (found - exact[:rows]).abs().max() < 1e-5 * exact.abs().max() + 2 * rounding
    assert all(each.ndim <= 1 or "packed" in name for name, each in graph.named_buffers())  # no other copies of weights
    if precision == "float32":
        found_calls = calls(graph)
        assert {call: found_calls[call] for call in wanted} == wanted
        assert found_calls["conv2d.default"] == 0


def test_volumes_and_signals() -> None:
    for axes, convolution in ((1, nn.Conv1d), (3, nn.Conv3d)):
        model = seeded(nn.Sequential(convolution(2, 4, 3), nn.ReLU(), convolution(4, 3, 1))).eval()
        images = torch.randn(3, 2, *(7, 6, 8)[:axes])
        with torch.no_grad():
            graph = graph_of(model, images[:1], channels_last=False)
            assert pack(graph, 3)
            torch.testing.assert_close(graph(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_have_the_layout_that_calls_of_their_size_want(dtype: torch.dtype) -> None:
    weight, how = torch.randn(1024, 256, 1, 1).to(dtype), ([0, 0], [1, 1], [1, 1], 1)
    layouts = Layouts(weight, how, (6, 256, 14, 14))
    for shape in ((1, 256, 14, 14), (30, 256, 7, 7), (26, 256, 10, 10), (1, 256, 14, 14)):
        assert torch.equal(layouts(shape).to_dense(), weight)
    describe = torch.ops.mkldnn._get_mkldnn_serialized_md
    for shape in ((6, 256, 14, 14), (1, 256, 14, 14), (30, 256, 7, 7)):
        assert torch.equal(describe(layouts(shape)), describe(packed._laid_out(weight, how, shape)))
    assert len(layouts._held) <= 3


def test_each_layout_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, how = torch.randn(4, 2, 3, 3), ([1, 1], [1, 1], [2, 2], 1)
    heights: dict[int, int] = {}  # for which each tensor was laid out
    made = packed._laid_out
    kept: list[Tensor] = []

    def laid(weight: Tensor, how: packed._How, shape: tuple[int, ...]) -> Tensor:
        found = made(weight, how, shape)
        heights[id(found)] = shape[2]
        kept.append(found)
        return found

    monkeypatch.setattr(packed, "_laid_out", laid)
    monkeypatch.setattr(packed, "_LAYOUT", lambda tensor: torch.tensor(heights[id(tensor)] % 3))
    layouts = Layouts(weight, how, (2, 2, 10, 10))  # and for windows of 5 x 5
    assert [heights[id(each)] for each in layouts._held] == [10, 5]
    assert layouts((3, 2, 7, 9)) is layouts.whole
    assert layouts((3, 2, 8, 9)) is layouts((1, 2, 8, 9)) is layouts._held[1]
    assert layouts((3, 2, 9, 9)) is layouts.whole  # as it wants what isn't there
    assert all(torch.equal(each.to_dense(), weight) for each in layouts._held)


def test_a_torch_that_tells_no_layouts_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_LAYOUT", None)
    layouts = Layouts(torch.randn(1024, 256, 1, 1), ([0, 0], [1, 1], [1, 1], 1), (6, 256, 14, 14))
    assert layouts((1, 256, 14, 14)) is layouts.whole


def test_without_the_library_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.no_grad():
        assert not pack(graph_of(nn.Conv2d(1, 1, 1).eval(), torch.randn(1, 1, 4, 4), channels_last=True), 3)
