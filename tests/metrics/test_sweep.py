"""Every registered metric, in 2-D and 3-D: what it declares, its range, and that an image's value is its own."""

from __future__ import annotations

import warnings
from functools import cache

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.explanation import Explanation
from pellucid.metrics import METRICS, Truth
from pellucid.metrics.evaluate import MissingValuesWarning, evaluate
from pellucid.metrics.families import Metric
from pellucid.registry import Choice

METHODS = ("layer-cam", "saliency", "random")
SHAPES = {2: (16, 16), 3: (8, 8, 8)}
COUNT = 5
# metrics of an image among others, whose value depends on which others there are
AMONG_OTHERS = {"sufficiency", "consistency"}
FEWER = {"subsets": 12, "draws": 3, "steps": 6, "stages": 2, "regions": 4, "cells": 4, "grid": 3}
ROUNDING = 2e-4


@cache
def network(axes: int) -> nn.Module:
    """A small network with weights at a scale at which scores move."""
    kinds = {2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d), 3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d)}
    convolution, norm, pool = kinds[axes]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [convolution(2, 8, 3, padding=1), norm(8), nn.ReLU(), convolution(8, 8, 3, padding=1), nn.ReLU()]
        model = nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(8, 3))
        model[-1].weight.data *= 8
    return model.eval()


@cache
def case(axes: int) -> tuple[Tensor, Explanation, Truth]:
    """Images that differ, maps of three methods and of none's, and all that is known of them."""
    draw = torch.Generator().manual_seed(axes)
    shape = SHAPES[axes]
    images = torch.randn(COUNT, 2, *shape, generator=draw)
    explanation = pellucid.explain(network(axes), images, METHODS)
    corner = tuple(slice(place, place + 4) for place in range(axes))
    masks = torch.zeros(COUNT, *shape, dtype=torch.bool)
    masks[(slice(None), *corner)] = True
    low = torch.tensor([[part.start for part in corner], [part.stop for part in corner]])
    anatomy = torch.ones(COUNT, *shape, dtype=torch.bool)
    anatomy[:, 0] = False
    return images, explanation, Truth(masks, [low.unsqueeze(0)] * COUNT, anatomy, (0.5,) * axes)


def choice_of(name: str) -> Choice[Metric]:
    """The metric with few draws, so that the sweep is quick."""
    entry = METRICS[name]
    options: dict[str, object] = {option: value for option, value in FEWER.items() if option in entry.options}
    if name == "irof":
        options["regions"] = 4  # blocks, which need no package
    if name == "region-perturbation":
        options["patch_size"] = 4
    if name == "sufficiency":
        options["threshold"] = 1.5  # random images' maps lie far apart
    if name == "data-randomisation":
        options["network"] = other_network()
    return METRICS.choose(name, **options)


@cache
def other_network() -> nn.Module:
    """One of the same make with other weights, in two dimensions."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(*[nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()])
        model.extend([nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)])
    return model.eval()


def part_of(axes: int, rows: slice) -> tuple[Tensor, Explanation, Truth]:
    images, explanation, truth = case(axes)
    assert truth.masks is not None
    assert truth.boxes is not None
    assert truth.anatomy is not None
    some = Truth(truth.masks[rows], truth.boxes[rows], truth.anatomy[rows], truth.spacing)
    return images[rows], explanation[rows], some


def values(axes: int, name: str, batch_size: int = 32, rows: slice = slice(0, COUNT)) -> pd.DataFrame:
    images, explanation, truth = part_of(axes, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingValuesWarning)
        return evaluate(network(axes), images, explanation, choice_of(name), truth, batch_size=batch_size)


def cases() -> list[tuple[str, int]]:
    every = [(name, axes) for name in METRICS.names() for axes in (2, 3)]
    return [pair for pair in every if pair != ("data-randomisation", 3)]


@pytest.mark.parametrize("name", METRICS.names())
def test_declares_itself(name: str) -> None:
    entry = METRICS[name]
    assert entry.source
    assert entry.summary.endswith((".", "alike."))
    assert entry.higher_is_better is not None
    assert entry.range is not None
    assert entry.range[0] < entry.range[1]
    assert len(entry.options) <= 6


@pytest.mark.parametrize(("name", "axes"), cases())
def test_values_are_in_range_and_an_image_s_own(name: str, axes: int) -> None:
    model = network(axes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    whole = values(axes, name)
    found = whole["value"].dropna()
    low, high = METRICS[name].range or (0.0, 0.0)
    assert len(found), whole["reason"].unique()
    assert found.between(low - 1e-9, high + 1e-9).all(), (found.min(), found.max())
    assert (whole["reason"] == "").equals(whole["value"].notna())
    assert whole.equals(values(axes, name))  # the same bytes again
    pd.testing.assert_frame_equal(whole, values(axes, name, batch_size=2), rtol=ROUNDING, atol=ROUNDING)
    if name not in AMONG_OTHERS:
        few = values(axes, name, rows=slice(0, 2))
        first = whole[whole["sample"] < 2]
        pd.testing.assert_frame_equal(few, first, rtol=ROUNDING, atol=ROUNDING)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", METRICS.names())
def test_a_map_without_evidence_has_a_value_or_a_reason(name: str) -> None:
    """All zero, and the same everywhere: never an error, never a value out of range."""
    images, explanation, truth = case(2)
    shape = (COUNT, *SHAPES[2])
    maps = {**explanation.maps, "zero": torch.zeros(shape), "constant": torch.ones(shape)}
    own = Explanation(**{**vars(explanation), "maps": maps, "layer_maps": {}})

    def explainer(model: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> dict[str, Tensor]:
        made = pellucid.explain(model, rows, METHODS, target=target, generator=seeds).maps
        return {**made, "zero": torch.zeros(len(rows), *shape[1:]), "constant": torch.ones(len(rows), *shape[1:])}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingValuesWarning)
        table = evaluate(network(2), images, own, choice_of(name), truth, explainer=explainer)
    low, high = METRICS[name].range or (0.0, 0.0)
    for method in ("zero", "constant"):
        part = table[table["method"] == method]
        assert (part["value"].isna() | part["value"].between(low - 1e-9, high + 1e-9)).all()
        assert (part["reason"] == "").equals(part["value"].notna())
