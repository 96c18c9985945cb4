"""Gradient methods against slow versions from their papers, analytic cases and Captum."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.asking import generator_of
from pellucid.attribution.engine import image_seeds
from pellucid.errors import InputError
from references.smooth_networks import network

GRADIENT = ("saliency", "input-x-gradient", "smooth-grad", "smooth-grad-squared", "var-grad", "integrated-gradients",
            "expected-gradients")  # fmt: skip


def pictures(count: int = 3, axes: int = 2) -> Tensor:
    return torch.randn(count, 2, *(7, 6, 5)[:axes], generator=torch.Generator().manual_seed(2))


def linear_model(size: int = 2 * 7 * 6) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 3))


def explained(model: nn.Module, images: Tensor, *choices: object, **options: object) -> dict[str, Tensor]:
    return dict(pellucid.explain(model, images, list(choices), **options).maps)  # type: ignore[arg-type]


def score_gradient(model: nn.Module, image: Tensor, target: int) -> Tensor:
    leaf = image.unsqueeze(0).clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[0, target], leaf)[0][0]


@pytest.mark.parametrize("axes", [2, 3])
def test_saliency_and_input_x_gradient_are_their_formulas(axes: int) -> None:
    model, images = network(axes), pictures(axes=axes)
    maps = explained(model, images, "saliency", "input-x-gradient", target=1)
    for i, image in enumerate(images):
        slope = score_gradient(model, image, 1)
        torch.testing.assert_close(maps["saliency"][i], slope.abs().amax(dim=0))
        torch.testing.assert_close(maps["input-x-gradient"][i], (image * slope).sum(dim=0))


@pytest.mark.parametrize("axes", [2, 3])
def test_noisy_averages_are_their_formulas(axes: int) -> None:
    model, images = network(axes), pictures(axes=axes)
    names = ("smooth-grad", "smooth-grad-squared", "var-grad")
    choices = [pellucid.method(name, samples=7, noise=0.2, channels="keep") for name in names]
    maps = list(explained(model, images, *choices, target=2, batch_size=4).values())
    seeds = image_seeds(torch.Generator().manual_seed(0), len(images))
    for i, image in enumerate(images):
        deviation = 0.2 * (image.max() - image.min())
        slopes = torch.stack([
            score_gradient(model, image + deviation * torch.randn(image.shape, generator=draws), 2)
            for draws in (generator_of(int(seeds[i]), k) for k in range(7))
        ])  # fmt: skip
        torch.testing.assert_close(maps[0][i], slopes.mean(dim=0))
        torch.testing.assert_close(maps[1][i], slopes.square().mean(dim=0))
        torch.testing.assert_close(maps[2][i], slopes.var(dim=0, correction=0))


def test_integrated_gradients_are_complete_and_their_integral() -> None:
    model, images = network(), pictures()
    start = torch.full((2, 7, 6), 0.1)
    maps = explained(model, images, pellucid.method("integrated-gradients", steps=24, baseline=0.1), target=0)
    (found,) = maps.values()
    with torch.no_grad():
        rise = model(images)[:, 0] - model(start.unsqueeze(0))[:, 0]
    torch.testing.assert_close(found.sum(dim=(1, 2)), rise, rtol=1e-4, atol=1e-5)
    places = np.linspace(0, 1, 2001)
    line = torch.stack([score_gradient(model, start + float(a) * (images[0] - start), 0) for a in places]).double()
    integral = ((line[1:] + line[:-1]) / 2).mean(dim=0)
    torch.testing.assert_close(found[0].double(), ((images[0] - start) * integral).sum(dim=0), rtol=1e-4, atol=1e-5)


def test_a_linear_model_gives_every_method_its_weights() -> None:
    model, images = linear_model(), pictures()
    weight = model[1].weight[1].detach().reshape(2, 7, 6)  # type: ignore[index, union-attr]
    maps = explained(model, images, *GRADIENT, target=1)
    for i, image in enumerate(images):
        for name in ("input-x-gradient", "integrated-gradients", "expected-gradients"):
            torch.testing.assert_close(maps[name][i], (image * weight).sum(dim=0), msg=name)
        for name in ("saliency", "smooth-grad"):
            torch.testing.assert_close(maps[name][i], weight.abs().amax(dim=0), msg=name)
        torch.testing.assert_close(maps["smooth-grad-squared"][i], weight.square().amax(dim=0))
        assert float(maps["var-grad"][i].max()) < 1e-10


def test_expected_gradients_draw_from_the_background() -> None:
    model, images = linear_model(), pictures()
    weight = model[1].weight[0].detach().reshape(2, 7, 6)  # type: ignore[index, union-attr]
    pool = torch.stack([torch.full((2, 7, 6), 1.0), torch.full((2, 7, 6), 3.0)])
    choice = pellucid.method("expected-gradients", samples=400, background=pool)
    (found,) = explained(model, images, choice, target=0).values()
    share = (((images[0] * weight).sum(dim=0) - found[0]) / weight.sum(dim=0)).mean()  # the mean baseline
    assert 1.85 < float(share) < 2.15


@pytest.mark.parametrize("name", GRADIENT)
def test_a_map_depends_on_neither_batch_nor_batch_size(name: str) -> None:
    model, images = network(), pictures(7)
    whole = explained(model, images, name)[name]
    alone = explained(model, images[:1], name)[name]
    small = explained(model, images, name, batch_size=2)[name]
    torch.testing.assert_close(alone[0], whole[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(small, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GRADIENT)
def test_all_classes_at_once_are_each_class_alone(name: str) -> None:
    model, images = network(), pictures()
    together = explained(model, images, name, target="all")[name]
    assert together.shape == (3, 3, 7, 6)
    for k in range(3):
        torch.testing.assert_close(together[:, k], explained(model, images, name, target=k)[name])


def test_captum_agrees() -> None:
    attr = pytest.importorskip("captum.attr")
    model, images = network(), pictures()
    keep = {"channels": "keep"}
    choices = [pellucid.method("saliency", **keep), pellucid.method("input-x-gradient", **keep),
               pellucid.method("integrated-gradients", steps=20, **keep)]  # fmt: skip
    ours = list(explained(model, images, *choices, target=1).values())
    with warnings.catch_warnings(action="ignore"):
        theirs = [
            attr.Saliency(model).attribute(images.clone(), target=1),
            attr.InputXGradient(model).attribute(images.clone(), target=1),
            attr.IntegratedGradients(model).attribute(images.clone(), target=1, n_steps=20),
        ]
    for mine, peer in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, peer.detach().float(), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_used_is_named() -> None:
    model, images = network(), pictures()
    for choice, said in (
        (pellucid.method("smooth-grad", samples=0), "samples: expected at least 1"),
        (pellucid.method("smooth-grad", noise=-1.0), "noise"),
        (pellucid.method("integrated-gradients", baseline=torch.zeros(3, 7, 6)), "baseline"),
        (pellucid.method("saliency", channels="mean"), "channels: expected 'sum'"),
        (pellucid.method("expected-gradients", background=torch.zeros(0, 2, 7, 6)), "background"),
    ):
        with pytest.raises(InputError, match=said):
            pellucid.explain(model, images, choice)
