"""Occlusion, ablation of regions and RISE against slow versions from their papers, analytic cases and Captum."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pellucid
from pellucid.attribution.asking import generator_of
from pellucid.attribution.engine import image_seeds
from pellucid.attribution.perturbation import enlarged
from pellucid.attribution.superpixels import regions_of
from pellucid.errors import InputError
from references.smooth_networks import explained, linear_model, network, pictures

CHOICES = {
    "occlusion": pellucid.method("occlusion", window=3, stride=2, baseline=0.2),
    "feature-ablation": pellucid.method("feature-ablation", regions=3, baseline=0.2),
    "rise": pellucid.method("rise", samples=40, cells=3, share=0.4, baseline=0.2),
}


def score(model: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(image.unsqueeze(0))[0, target])


@pytest.mark.parametrize("axes", [2, 3])
def test_occlusion_is_the_mean_fall_over_the_windows_of_a_pixel(axes: int) -> None:
    model, images = network(axes), pictures(axes=axes)
    found = explained(model, images, CHOICES["occlusion"], target=1)
    shape = images.shape[2:]
    for i, image in enumerate(images):
        falls: dict[tuple[int, ...], list[float]] = {place: [] for place in np.ndindex(*shape)}
        starts = [range(0, length - 3 + 2, 2) for length in shape]  # the first window to reach the end is the last
        for corner in itertools.product(*starts):
            window = tuple(slice(at, at + 3) for at in corner)
            copy = image.clone()
            copy[(slice(None), *window)] = 0.2
            fall = score(model, image, 1) - score(model, copy, 1)
            for place in falls:
                if all(at <= where < at + 3 for at, where in zip(corner, place, strict=True)):
                    falls[place].append(fall)
        expected = torch.tensor([np.mean(falls[place]) for place in falls]).reshape(shape).float()
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("axes", [2, 3])
def test_feature_ablation_is_the_fall_without_a_region(axes: int) -> None:
    model, images = network(axes), pictures(axes=axes)
    labels = torch.randint(4, images.shape[2:], generator=torch.Generator().manual_seed(4)) * 5 - 3
    found = explained(model, images, pellucid.method("feature-ablation", regions=labels, baseline=0.2), target=2)
    for i, image in enumerate(images):
        for label in labels.unique():
            fall = score(model, image, 2) - score(model, torch.where(labels == label, 0.2, image), 2)
            torch.testing.assert_close(found[i][labels == label], torch.full((int((labels == label).sum()),), fall),
                                       rtol=1e-4, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("axes", [2, 3])
def test_rise_is_its_sum(axes: int) -> None:
    model, images = network(axes), pictures(axes=axes)
    found = explained(model, images, CHOICES["rise"], target=1, batch_size=7)
    seeds = image_seeds(torch.Generator().manual_seed(0), len(images))
    shape = images.shape[2:]
    cells = [-(-length // 3) for length in shape]
    for i, image in enumerate(images):
        total = torch.zeros(shape)
        for k in range(40):
            draws = generator_of(int(seeds[i]), k)
            grid = (torch.rand((3,) * axes, generator=draws) < 0.4).float()
            shift = [
                int(part * (cell + 1)) for part, cell in zip(torch.rand(axes, generator=draws), cells, strict=True)
            ]
            larger = functional.interpolate(grid[None, None], [4 * cell for cell in cells],
                                            mode="bilinear" if axes == 2 else "trilinear")[0, 0]  # fmt: skip
            mask = larger[tuple(slice(at, at + length) for at, length in zip(shift, shape, strict=True))]
            total += score(model, mask * image + (1 - mask) * 0.2, 1) * mask
        torch.testing.assert_close(found[i], total / (40 * 0.4), rtol=1e-4, atol=1e-5)


def test_a_linear_model_gives_occlusion_and_ablation_its_terms() -> None:
    model, images = linear_model(), pictures()
    weight = model[1].weight[1].detach().reshape(2, 8, 7)  # type: ignore[index, union-attr]
    terms = (images * weight).sum(dim=1)
    choice = pellucid.method("occlusion", window=1, stride=1)
    torch.testing.assert_close(explained(model, images, choice, target=1), terms, rtol=1e-4, atol=1e-5)
    every = torch.arange(56).reshape(8, 7)
    choice = pellucid.method("feature-ablation", regions=every)
    torch.testing.assert_close(explained(model, images, choice, target=1), terms, rtol=1e-4, atol=1e-5)


def test_rise_finds_the_pixel_that_decides() -> None:
    """Where the score is x at pixel c, the map at q tends to x E[M_c M_q] / p, with the masks' own covariance."""

    class Corner(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[:, 0, 1, 2], -images[:, 0, 1, 2]], dim=1)

    images = torch.full((1, 1, 4, 4), 2.0)
    found = explained(Corner(), images, pellucid.method("rise", samples=3000, cells=4, share=0.5), target=0)[0]
    assert found.argmax() == 1 * 4 + 2
    shared = np.zeros((4, 4))  # how much two pixels of an axis share of the grid's cells, over the shifts 0 and 1
    for shift in (0, 1):
        places = (np.arange(4) + shift + 0.5) * 4 / 5 - 0.5
        near = np.stack([np.interp(places, np.arange(4), unit) for unit in np.eye(4)], axis=1)
        shared += near @ near.T / 2
    expected = 2.0 * (0.25 + 0.25 * np.outer(shared[1], shared[2])) / 0.5
    np.testing.assert_allclose(found.numpy(), expected, atol=0.06)


def test_masks_of_rise_have_the_share_as_their_mean() -> None:
    draws = torch.Generator().manual_seed(5)
    grids = (torch.rand(4000, 3, 3, generator=draws) < 0.3).float()
    masks = enlarged(grids, torch.rand(4000, 2, generator=draws), (10, 7))
    assert masks.shape == (4000, 10, 7)
    assert float((masks.mean(dim=0) - 0.3).abs().max()) < 0.03
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1 + 1e-6


@pytest.mark.parametrize("name", CHOICES)
def test_a_map_depends_on_neither_batch_nor_batch_size(name: str) -> None:
    model, images = network(), pictures(7)
    whole = explained(model, images, CHOICES[name])
    torch.testing.assert_close(explained(model, images[:1], CHOICES[name])[0], whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explained(model, images, CHOICES[name], batch_size=2), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CHOICES)
def test_all_classes_at_once_are_each_class_alone(name: str) -> None:
    model, images = network(), pictures()
    together = explained(model, images, CHOICES[name], target="all")
    assert together.shape == (3, 3, 8, 7)
    for k in range(3):
        alone = explained(model, images, CHOICES[name], target=k)
        torch.testing.assert_close(together[:, k], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["occlusion", "feature-ablation", "rise"])
def test_no_more_than_batch_size_images_run_at_once_and_the_model_is_given_back(name: str) -> None:
    model, images = network().train(), pictures(5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    explained(model, images, CHOICES[name], batch_size=3)
    hook.remove()
    assert max(sizes) == 3
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parity
@pytest.mark.parametrize("axes", [2, 3])
def test_captum_agrees(axes: int) -> None:
    attr = pytest.importorskip("captum.attr")
    model, images = network(axes), pictures(axes=axes)
    labels = regions_of(images, 3)[:1]
    with warnings.catch_warnings(action="ignore"):
        occluded = attr.Occlusion(model).attribute(
            images, (2, *(3,) * axes), strides=(2, *(2,) * axes), baselines=0.2, target=1
        )
        ablated = attr.FeatureAblation(model).attribute(images, baselines=0.2, target=1, feature_mask=labels[:, None])
    ours = explained(model, images, CHOICES["occlusion"], target=1)
    torch.testing.assert_close(ours, occluded[:, 0].float(), rtol=1e-5, atol=1e-6)
    ours = explained(model, images, CHOICES["feature-ablation"], target=1)
    torch.testing.assert_close(ours, ablated[:, 0].float(), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_used_is_named() -> None:
    model, images = network(), pictures()
    for name, options, said in (
        ("occlusion", {"window": 9}, "window: expected 1 to"),
        ("occlusion", {"window": 3, "stride": 4}, "stride: expected 1 to"),
        ("occlusion", {"window": (3, 3, 3)}, "window"),
        ("occlusion", {"baseline": torch.zeros(3, 8, 7)}, "baseline"),
        ("feature-ablation", {"regions": 0}, "regions: expected at least 1 block"),
        ("feature-ablation", {"regions": torch.zeros(8, 7)}, "regions: expected whole numbers"),
        ("feature-ablation", {"regions": "squares"}, "regions"),
        ("rise", {"samples": 0}, "samples: expected at least 1"),
        ("rise", {"share": 0.0}, "share"),
        ("rise", {"cells": 0}, "cells"),
    ):
        with pytest.raises(InputError, match=said):
            pellucid.explain(model, images, pellucid.method(name, **options))
