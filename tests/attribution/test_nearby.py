"""Images that differ little from the one before: what the network gives for them, from what changes alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pellucid
from pellucid.attribution import nearby
from pellucid.attribution.graph import graph_of
from pellucid.attribution.nearby import Nearby, changes, series
from pellucid.attribution.packed import pack
from references.cam_networks import seeded


class Block(nn.Module):
    """Two ways that meet in a sum, in place."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(width, 4, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 8, 3, stride, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.other = nn.Sequential(nn.Conv2d(width, 8, 1, stride), nn.BatchNorm2d(8))

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.way(maps)
        found += self.other(maps)
        return found.relu_()


class Skip(nn.Module):
    """What a block takes is added to what it gives, which changes in more places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.two(self.one(maps).relu()) + maps
        return found.relu()


class Dense(nn.Module):
    """Maps that are kept beside those made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.convolution = nn.BatchNorm2d(6), nn.Conv2d(6, 3, 3, padding=1)
        self.next = nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        both = torch.cat([maps, self.convolution(self.norm(maps).relu())], dim=1)
        return torch.cat([both, self.next(both)], 1)


class Skipping(nn.Module):
    """One map taken by a call that looks at all of it, one that is reached nearly everywhere, and one that isn't."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.narrow = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 15, padding=7), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        means = maps.mean(dim=(2, 3))
        wide = self.wide(maps)
        return torch.cat([(wide + self.narrow(maps)).amax(dim=(2, 3)), means], dim=1)


def flat(*parts: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "strides and paddings": lambda: flat(
        nn.Conv2d(1, 4, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 6, (3, 5), padding=(0, 2)), width=6
    ),
    "dilation and groups": lambda: flat(
        nn.Conv2d(1, 4, 3, dilation=2), nn.SiLU(), nn.Conv2d(4, 8, 3, (2, 1), 2, (1, 3), groups=4), nn.GELU(), width=8
    ),
    "pools": lambda: flat(
        nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.Conv2d(1, 3, 3), nn.MaxPool2d((2, 3), dilation=(2, 1)), width=3
    ),
    "pools that are made whole": lambda: flat(
        nn.Conv2d(1, 3, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.MaxPool2d(2, ceil_mode=True), width=3
    ),
    "sums": lambda: flat(nn.Conv2d(1, 6, 3, padding=1), Block(6, 1), Block(8, 2), Block(8, 1), width=8),
    "sums with what is taken": lambda: flat(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), Skip(), Skip(), Skip(), width=6),
    "kept maps": lambda: flat(nn.Conv2d(1, 6, 3, padding=1), Dense(), nn.Dropout(0.5), width=11),
    "one map taken in many ways": lambda: nn.Sequential(Skipping(), nn.Linear(8, 3)),
    "a map": lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Hardtanh(-1, 1)),
    "nothing in windows": lambda: nn.Sequential(nn.Flatten(), nn.Linear(23 * 26, 3)),
}


def chain(shape: tuple[int, ...], boxes: list[tuple[tuple[int, int], ...]], channels: int = 1) -> Tensor:
    """Images of which each has one box more filled with noise."""
    source = torch.Generator().manual_seed(0)
    current = torch.randn(1, channels, *shape, generator=source)
    images = [current]
    for box in boxes:
        current = current.clone()
        inside = (..., *(slice(low, high) for low, high in box))
        current[inside] = torch.randn(current[inside].shape, generator=source)
        images.append(current)
    return torch.cat(images)


BOXES = [
    ((0, 3), (0, 4)),  # at a corner
    ((20, 23), (23, 26)),  # and the last
    ((10, 12), (0, 5)),
    ((11, 14), (3, 6)),  # over what changed before
    ((22, 23), (12, 13)),  # one place at a border
    ((9, 12), (9, 12)),
]


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_the_network_gives(name: str, channels_last: bool, is_packed: bool) -> None:
    model, images = seeded(NETWORKS[name]()), chain((23, 26), BOXES)
    kept = images.clone()
    with torch.no_grad():
        graph = graph_of(model, images[:1], channels_last)
        assert not is_packed or pack(graph, 4)
        run = Nearby(graph, channels_last)
        plan = run.plan(*changes(images))
        torch.testing.assert_close(run(images, plan), model(images), rtol=1e-4, atol=1e-5)
    assert torch.equal(images, kept)
    fused = 1 if is_packed and torch.backends.mkldnn.is_available() else 2  # a sum with what is made whole
    in_windows = {"pools that are made whole": 1, "nothing in windows": 0, "one map taken in many ways": fused}
    assert len(plan.seen) >= in_windows.get(name, 2)


def test_volumes() -> None:
    parts = [nn.Conv3d(2, 4, 3, 2, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2, 1), nn.Conv3d(4, 3, 3, padding=1)]
    model = seeded(nn.Sequential(*parts, nn.AdaptiveAvgPool3d(1), nn.Flatten()))
    images = chain(
        (17, 14, 15), [((0, 3), (0, 2), (0, 4)), ((7, 9), (12, 14), (6, 8)), ((15, 17), (3, 6), (13, 15))], 2
    )
    with torch.no_grad():
        run = Nearby(graph_of(model, images[:1], channels_last=False), channels_last=False)
        plan = run.plan(*changes(images))
        torch.testing.assert_close(run(images, plan), model(images), rtol=1e-4, atol=1e-5)
    assert len(plan.seen) >= 3


def test_a_plan_counts_what_a_change_reaches() -> None:
    """One pixel of 20 x 20 reaches 3 x 3 places of the first convolution, of 2 x 9 weights, and 5 x 5 of the second."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1), nn.Flatten()).eval()
    images = chain((20, 20), [((9, 10), (9, 10))] * 4)
    with torch.no_grad():
        run = Nearby(graph_of(model, images[:1], channels_last=True), channels_last=True)
    plan = run.plan(*changes(images))
    assert plan.plain == 5 * 400 * (18 + 18)
    assert plan.multiplied == 400 * (18 + 18) + 5 * (9 * 18 + 25 * 18)
    assert [windows.size for windows in plan.windows.values()] == [(1, 1), (3, 3), (5, 5)]
    assert not plan.pays  # of so small a network


@pytest.mark.parametrize("saved", [True, False])
def test_a_plan_pays_where_much_is_saved(saved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "_SAVED", 0)
    first = nn.Conv2d(1, 2, 3, padding=1) if saved else nn.Conv2d(1, 2, 19, padding=9)
    model = nn.Sequential(first, nn.Conv2d(2, 4, 3), nn.Flatten()).eval()
    images = chain((20, 20), [((9, 10), (9, 10))] * 4)
    with torch.no_grad():
        plan = Nearby(graph_of(model, images[:1], channels_last=True), channels_last=True).plan(*changes(images))
    assert plan.pays == saved


def boxes_slowly(images: Tensor) -> list[list[tuple[int, int]]]:
    found = []
    for one, other in itertools.pairwise(images):
        places = [
            place
            for place in itertools.product(*map(range, one.shape[1:]))
            if any(bool(a[place] != b[place]) for a, b in zip(one, other, strict=True))
        ]
        lines = list(zip(*places, strict=True))
        found.append([(min(line), max(line) + 1) for line in lines] if places else [])
    return found


@pytest.mark.parametrize("shape", [(5, 6), (7,), (3, 4, 5)])
def test_changes_are_the_smallest_boxes(shape: tuple[int, ...]) -> None:
    source = torch.Generator().manual_seed(0)
    images = torch.zeros(9, 2, *shape)
    for row in range(1, 9):
        images[row] = images[row - 1]
        if row != 4:  # which stays as it was
            for _ in range(2):
                images[(row, row % 2, *(int(torch.randint(n, (), generator=source)) for n in shape))] += 1
    low, high = changes(images)
    assert (low[0].tolist(), high[0].tolist()) == ([0] * len(shape), list(shape))
    for (first, last), box in zip(zip(low[1:], high[1:], strict=True), boxes_slowly(images), strict=True):
        if box:
            assert list(zip(first.tolist(), last.tolist(), strict=True)) == box
        else:
            assert bool((first >= last).all())
    images[3, 0] = math.nan  # which is nothing that was there before
    assert changes(images)[1][3].tolist() == list(shape)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(4, 9))
def test_series_hold_every_image_once_and_in_order(near: list[bool], most: int) -> None:
    size = np.array([[10, 10], *([1, 1] if each else [9, 9] for each in near)])
    found = series(np.zeros_like(size), size, (10, 10), most)
    assert [row for part, _ in found for row in range(part.start, part.stop)] == list(range(len(size)))
    for part, is_near in found:
        if is_near:
            assert 4 <= part.stop - part.start <= most
            assert all(near[part.start : part.stop - 1])
    assert not any(not one and not other for (_, one), (_, other) in itertools.pairwise(found))


def test_metrics_that_remove_patches_have_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "_SAVED", 0)
    model, images = seeded(NETWORKS["sums"]()), chain((23, 26), BOXES[:1])
    explanation = pellucid.explain(model, images, ["sobel", "random"])
    patches = [pellucid.metric("selectivity", patch_size=3), pellucid.metric("region-perturbation", patch_size=2)]
    ran, rows = Nearby.__call__, []
    monkeypatch.setattr(
        Nearby, "__call__", lambda self, given, plan: (rows.append(len(given)), ran(self, given, plan))[1]
    )
    compiled = pellucid.evaluate(model, images, explanation, [*patches, "irof"], compile=True)
    assert sum(rows) > 2 * 2 * 72  # most of the patches of each map
    plain = pellucid.evaluate(model, images, explanation, [*patches, "irof"])
    assert (compiled["value"] - plain["value"]).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet50", "densenet121", "vgg16", "mobilenetv2_100", "convnext_atto", "vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_networks_of_the_field(name: str, precision: str) -> None:
    import timm

    given = {"img_size": 96} if name.startswith("vit") else {}
    model = seeded(timm.create_model(name, num_classes=3, in_chans=3, **given)).eval()
    boxes = [((row, row + 8), (column, column + 8)) for row in (0, 40, 88) for column in (0, 44, 88)]
    images = chain((96, 96), boxes, 3)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            own = model(images).float()
            graph = graph_of(model, images[:1], channels_last=True)
            assert pack(graph, 4)
            run = Nearby(graph, channels_last=True)
            found = run(images, run.plan(*changes(images))).float()
    rounding = 0.0 if precision == "float32" else float((own - exact).abs().max())
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max() + 2 * rounding
