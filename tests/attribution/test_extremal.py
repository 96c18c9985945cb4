"""Extremal masks against a slow version from the paper and a score whose best part is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.extremal import area_error, smooth_masks
from pellucid.errors import InputError
from references.smooth_networks import explained, network, pictures

CHOICE = pellucid.method("extremal-masks", areas=(0.1, 0.3), steps=12, cells=3, baseline=0.2)


def slow_mask(values: Tensor, shape: tuple[int, ...], cells: int) -> Tensor:
    """The smooth maximum pixel by pixel, with the paper's exponential weights."""
    flat = []
    for pixel in np.ndindex(*shape):
        kernel = []
        for cell in np.ndindex(*(cells,) * len(shape)):
            centre = [(c + 0.5) * length / cells - 0.5 for c, length in zip(cell, shape, strict=True)]
            z = float(np.linalg.norm(np.subtract(pixel, centre))) / (0.09 * max(shape))
            kernel.append(np.exp(-(max(0.0, z - 1) ** 2) / 4))
        f = values * torch.tensor(kernel)
        flat.append((f * torch.exp(20 * f)).sum() / torch.exp(20 * f).sum())
    return torch.stack(flat).reshape(shape)


def slow_aims(mask: Tensor, area: float) -> Tensor:
    """What each pixel's rank should be: 1 for the highest share, else 0; equal pixels take their ranks' mean."""
    values = mask.detach().flatten().tolist()
    ranked = sorted(values)
    zeros = round(len(values) * (1 - area))
    aims = [[float(rank >= zeros) for rank, other in enumerate(ranked) if abs(other - one) <= 1e-5] for one in values]
    return torch.tensor([np.mean(each) for each in aims])


@pytest.mark.parametrize("axes", [2, 3])
def test_masks_are_descents_of_the_papers_objective(axes: int) -> None:
    model, images = network(axes), pictures(1, axes)
    steps, shape = 12 if axes == 2 else 2, tuple(images.shape[2:])
    choice = pellucid.method("extremal-masks", areas=(0.1, 0.3), steps=steps, cells=3, baseline=0.2)
    found = explained(model, images, choice, target=1)[0]
    total = torch.zeros(shape, dtype=torch.float64)
    model = model.double()
    for area in (0.1, 0.3):
        values = torch.ones(3**axes, dtype=torch.float64, requires_grad=True)
        descent = torch.optim.SGD([values], lr=0.01, momentum=0.9)
        for step in range(steps):
            mask = slow_mask(values, shape, 3)
            score = model((mask * images[0].double() + (1 - mask) * 0.2).unsqueeze(0))[0, 1]
            loss = 300 * 1.0035**step * ((mask.flatten() - slow_aims(mask, area)) ** 2).mean() - score
            descent.zero_grad()
            loss.backward()
            descent.step()
            with torch.no_grad():
                values.clamp_(0, 1)
        total += slow_mask(values, shape, 3).detach() / 2
    assert float(total.max() - total.min()) > 0.02
    torch.testing.assert_close(found, total.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("corner", [(3, 4), (11, 10)])
def test_the_mask_lies_on_what_the_score_needs_and_has_the_area(corner: tuple[int, int]) -> None:
    y, x = corner

    class Blob(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            score = 50 * images[:, 0, y - 2 : y + 3, x - 2 : x + 3].mean(dim=(1, 2))
            return torch.stack([score, -score], dim=1)

    choice = pellucid.method("extremal-masks", areas=(25 / 256,), steps=150, cells=8)
    mask = explained(Blob(), torch.ones(1, 1, 16, 16), choice, target=0)[0]
    inside = mask[y - 2 : y + 3, x - 2 : x + 3]
    assert float(inside.mean()) > 0.75
    assert float((mask.sum() - inside.sum()) / (256 - 25)) < 0.15
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1


def test_without_a_score_only_the_area_counts() -> None:
    class Nothing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2] * 0.0

    choice = pellucid.method("extremal-masks", areas=(0.999,), steps=30, cells=4)
    assert float(explained(Nothing(), torch.ones(1, 1, 8, 8), choice, target=0).min()) > 0.99


def test_errors_of_areas() -> None:
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    for area, squares in ((0.25, 0.25), (0.5, 0.25), (0.75, 3 * 0.25)):  # last, the two zeros should be 0 and 1
        assert float(area_error(mask, torch.tensor([area]))) == pytest.approx(squares / 4)


def test_chunks_change_neither_masks_nor_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(2, 9, generator=torch.Generator().manual_seed(4), requires_grad=True)
    whole = smooth_masks(values, (6, 5), 3)
    (slope,) = torch.autograd.grad(whole.square().sum(), values)
    monkeypatch.setattr("pellucid.attribution.extremal.CHUNK", 90)
    parts = smooth_masks(values, (6, 5), 3)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), values)[0], slope)


def test_a_map_depends_on_neither_batch_nor_batch_size() -> None:
    model, images = network(), pictures(4)
    whole = explained(model, images, CHOICE)
    torch.testing.assert_close(explained(model, images[:1], CHOICE)[0], whole[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(explained(model, images, CHOICE, batch_size=3), whole, rtol=1e-3, atol=1e-4)


def test_all_classes_at_once_are_each_class_alone() -> None:
    model, images = network(), pictures()
    together = explained(model, images, CHOICE, target="all")
    assert together.shape == (3, 3, 8, 7)
    assert float((together[:, 0] - together[:, 1]).abs().max()) > 1e-3
    for k in range(3):
        alone = explained(model, images, CHOICE, target=k)
        torch.testing.assert_close(together[:, k], alone, rtol=1e-3, atol=1e-4)


def test_few_images_run_at_once_and_the_model_is_given_back() -> None:
    model, images = network().train(), pictures(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    explained(model, images, CHOICE, batch_size=3)
    hook.remove()
    assert max(sizes) <= 3
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_what_cannot_be_used_is_named() -> None:
    model, images = network(), pictures()
    for options, said in (
        ({"areas": ()}, "areas: expected one or more"),
        ({"areas": (0.1, 1.0)}, "areas"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"cells": 0}, "cells"),
        ({"weight": -1.0}, "weight"),
        ({"baseline": torch.zeros(3, 8, 7)}, "baseline"),
    ):
        with pytest.raises(InputError, match=said):
            pellucid.explain(model, images, pellucid.method("extremal-masks", **options))
