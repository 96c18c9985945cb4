"""LIME and KernelSHAP against slow versions from their papers, analytic cases and Captum."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.asking import generator_of
from pellucid.attribution.coalitions import halves, shapley_coalitions, shapley_fit
from pellucid.attribution.engine import image_seeds
from pellucid.attribution.superpixels import regions_of
from pellucid.errors import InputError
from references.smooth_networks import explained, linear_model, network, pictures

CHOICES = {
    "lime": pellucid.method("lime", samples=60, regions=3, baseline=0.2),
    "kernel-shap": pellucid.method("kernel-shap", samples=60, regions=3, baseline=0.2),
    "exact": pellucid.method("kernel-shap", regions=2, baseline=0.2),
}


def value(model: nn.Module, image: Tensor, labels: Tensor, kept: Tensor, target: int, baseline: float = 0.2) -> float:
    with torch.no_grad():
        return float(model(torch.where(kept[labels] > 0, image, baseline).unsqueeze(0))[0, target])


def seeds_of(images: Tensor) -> list[int]:
    return image_seeds(torch.Generator().manual_seed(0), len(images)).tolist()


@pytest.mark.parametrize("axes", [2, 3])
def test_few_regions_have_their_exact_shapley_values(axes: int) -> None:
    model, images = network(axes), pictures(2, axes)
    found = explained(model, images, CHOICES["exact"], target=1)
    labels = regions_of(images, 2)[0]
    n = 2**axes
    for i, image in enumerate(images):
        known = {
            code: value(model, image, labels, torch.tensor(code), 1) for code in itertools.product((0, 1), repeat=n)
        }
        for region in range(n):
            shapley = 0.0  # Shapley 1953: the mean gain over all orders
            for code in known:
                if not code[region]:
                    k, joined = sum(code), (*code[:region], 1, *code[region + 1 :])
                    weight = math.factorial(k) * math.factorial(n - k - 1) / math.factorial(n)
                    shapley += weight * (known[joined] - known[code])
            mine = found[i][labels == region]
            torch.testing.assert_close(mine, torch.full_like(mine, shapley), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [20, 61, 512])
def test_shapley_values_add_up_to_the_whole_rise(samples: int) -> None:
    model, images = network(), pictures()
    choice = pellucid.method("kernel-shap", samples=samples, regions=3, baseline=0.2)
    found = explained(model, images, choice, target=0)
    labels = regions_of(images, 3)[0]
    firsts = torch.stack([found[:, labels == region][:, 0] for region in range(9)], dim=1)
    for i, image in enumerate(images):
        whole = value(model, image, labels, torch.ones(9), 0) - value(model, image, labels, torch.zeros(9), 0)
        assert float(firsts[i].double().sum()) == pytest.approx(whole, abs=2e-6)


def test_a_sampled_fit_is_the_constrained_least_squares_solution() -> None:
    """Lagrange's conditions of min |w (Z phi - y)|² subject to sum phi = v(all) - v(none), solved as one system."""
    kept, weights = shapley_coalitions(6, 40, torch.Generator().manual_seed(6))
    assert kept[2::2].add(kept[3::2]).eq(1).all()
    y = torch.randn(40, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    z = kept.double()
    normal = torch.zeros(7, 7, dtype=torch.float64)
    normal[:6, :6], normal[:6, 6], normal[6, :6] = 2 * z.T @ (weights[:, None] * z), 1.0, 1.0
    right = torch.cat([2 * z.T @ (weights[:, None] * (y - y[0])), (y[1] - y[0])[None]])
    torch.testing.assert_close(shapley_fit(kept, weights, y), torch.linalg.solve(normal, right)[:6])


def test_sampled_sizes_follow_the_kernel() -> None:
    kept, _ = shapley_coalitions(12, 4002, torch.Generator().manual_seed(8))
    sizes = kept[2:].sum(dim=1).long().bincount(minlength=13)[1:12].double()
    kernel = torch.tensor([1 / (k * (12 - k)) for k in range(1, 12)], dtype=torch.float64)
    torch.testing.assert_close(sizes / sizes.sum(), kernel / kernel.sum(), rtol=0, atol=0.02)


def test_sampled_values_near_the_exact_ones() -> None:
    model, images = network(), pictures(1)
    exact = explained(model, images, pellucid.method("kernel-shap", samples=512, regions=3), target=1)
    sampled = explained(model, images, pellucid.method("kernel-shap", samples=400, regions=3), target=1)
    assert not torch.equal(exact, sampled)
    assert float((exact - sampled).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize("axes", [2, 3])
def test_lime_is_its_weighted_ridge_fit(axes: int) -> None:
    model, images = network(axes), pictures(2, axes)
    found = explained(model, images, CHOICES["lime"], target=2, batch_size=7)
    labels = regions_of(images, 3)[0]
    n = 3**axes
    for i, (image, seed) in enumerate(zip(images, seeds_of(images), strict=True)):
        kept = halves(n, 60, generator_of(seed, 0)).double()
        y = torch.tensor([value(model, image, labels, row, 2) for row in kept], dtype=torch.float64)
        whole = torch.ones(n, dtype=torch.float64)
        cosine = torch.stack([row @ whole / max(float(row.norm() * whole.norm()), 1e-9) for row in kept])
        weights = torch.exp(-((1 - cosine) ** 2) / 0.25**2)
        design = torch.cat([kept, torch.ones(60, 1, dtype=torch.float64)], dim=1)
        penalty = torch.diag(torch.tensor([1.0] * n + [0.0], dtype=torch.float64))  # the intercept isn't penalised
        fit = torch.linalg.solve(design.T @ (weights[:, None] * design) + penalty, design.T @ (weights * y))
        torch.testing.assert_close(found[i], fit[:n].float()[labels], rtol=1e-4, atol=1e-5)


def test_a_linear_model_gives_both_its_terms() -> None:
    model, images = linear_model(), pictures()
    weight = model[1].weight[1].detach().reshape(2, 8, 7)  # type: ignore[index, union-attr]
    terms = (images * weight).sum(dim=1)
    labels = regions_of(images, 3)[0]
    expected = torch.zeros_like(terms)
    for region in range(9):
        expected[:, labels == region] = terms[:, labels == region].sum(dim=1, keepdim=True)
    for choice in (
        pellucid.method("kernel-shap", samples=60, regions=3),
        pellucid.method("kernel-shap", samples=512, regions=3),
        pellucid.method("lime", samples=100, regions=3, penalty=1e-9),
    ):
        torch.testing.assert_close(explained(model, images, choice, target=1), expected, rtol=1e-4, atol=1e-5)


def test_lasso_drops_what_the_score_ignores() -> None:
    class Corner(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[:, 0, 0, 0], -images[:, 0, 0, 0]], dim=1)

    choice = pellucid.method("lime", samples=200, regions=2, surrogate="lasso", penalty=0.01)
    found = explained(Corner(), torch.full((1, 1, 4, 4), 2.0), choice, target=0)[0]
    assert 1.5 < float(found[0, 0]) <= 2
    assert not found[2:].any()
    assert not found[:, 2:].any()


def test_one_region_has_the_whole_rise() -> None:
    model, images = network(), pictures()
    found = explained(model, images, pellucid.method("kernel-shap", regions=1), target=0)
    with torch.no_grad():
        rise = model(images)[:, 0] - model(torch.zeros_like(images))[:, 0]
    torch.testing.assert_close(found, rise[:, None, None].expand(3, 8, 7), rtol=1e-4, atol=1e-6)


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


def test_images_may_have_other_numbers_of_regions() -> None:
    model, images = network(), pictures(2)
    images[1] = images[1].abs()

    def signs(image: Tensor) -> Tensor:
        return (image[0] > 0).long() + 2 * (image[1] > 0).long()

    for name in ("lime", "kernel-shap", "feature-ablation"):
        choice = pellucid.method(name, regions=signs)
        both = explained(model, images, choice, target=0, batch_size=2)
        for i in range(2):
            assert len(both[i].unique()) == len(signs(images[i]).unique()), name
        if name == "kernel-shap":
            alone = explained(model, images[1:], choice, target=0)
            torch.testing.assert_close(alone[0], both[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("axes", [2, 3])
def test_captum_agrees_on_the_same_coalitions(axes: int) -> None:
    attr = pytest.importorskip("captum.attr")
    from captum._utils.models.linear_model import SkLearnLinearModel, SkLearnLinearRegression

    model, images = network(axes), pictures(2, axes)
    n = 3**axes
    labels = regions_of(images, 3)[:1]

    def peers(image: Tensor, rows: Tensor, weights: Tensor, linear: Any) -> Tensor:
        def coalitions(*_: object, **__: object) -> Iterator[Tensor]:
            yield from rows.split(1)

        left = iter(weights.tolist())
        with warnings.catch_warnings(action="ignore"):
            peer = attr.Lime(model, interpretable_model=linear, perturb_func=coalitions,
                             similarity_func=lambda *_, **__: torch.tensor([next(left)]))  # fmt: skip
            return peer.attribute(
                image[None], baselines=0.2, target=1, feature_mask=labels[:, None], n_samples=len(rows)
            )[0, 0]

    ours = explained(model, images, CHOICES["lime"], target=1)
    shap = explained(model, images, pellucid.method("kernel-shap", samples=90, regions=3, baseline=0.2), target=1)
    for i, (image, seed) in enumerate(zip(images, seeds_of(images), strict=True)):
        rows = halves(n, 60, generator_of(seed, 0))
        near = torch.exp(-((1 - rows.mean(dim=1).sqrt()) ** 2) / 0.25**2)
        theirs = peers(image, rows, near, SkLearnLinearModel("linear_model.Ridge", alpha=1.0))
        torch.testing.assert_close(ours[i], theirs.float(), rtol=1e-5, atol=1e-5)
        rows, weights = shapley_coalitions(n, 90, generator_of(seed, 0))
        weights[:2] = 1e6  # Captum's stand-in for the two constraints
        theirs = peers(image, rows, weights, SkLearnLinearRegression())
        np.testing.assert_allclose(shap[i].numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_captum_agrees_where_sampling_does_not_matter() -> None:
    attr = pytest.importorskip("captum.attr")
    model, images = linear_model(), pictures()
    labels = regions_of(images, 3)[:1]
    ours = explained(model, images, pellucid.method("kernel-shap", samples=512, regions=3), target=1)
    with warnings.catch_warnings(action="ignore"):
        for i, image in enumerate(images):
            torch.manual_seed(0)
            peer = attr.KernelShap(model)
            theirs = peer.attribute(image[None], target=1, feature_mask=labels[:, None], n_samples=60)[0, 0]
            torch.testing.assert_close(ours[i], theirs.float(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_used_is_named() -> None:
    model, images = network(), pictures()
    for name, options, said in (
        ("lime", {"samples": 1}, "samples: expected at least 2"),
        ("lime", {"width": 0.0}, "width"),
        ("lime", {"penalty": -1.0}, "penalty"),
        ("lime", {"surrogate": "tree"}, "surrogate: expected 'ridge' or 'lasso'"),
        ("lime", {"baseline": torch.zeros(3, 8, 7)}, "baseline"),
        ("kernel-shap", {"samples": 97}, "samples: expected at least 98"),
    ):
        with pytest.raises(InputError, match=said):
            pellucid.explain(model, images, pellucid.method(name, **options))
