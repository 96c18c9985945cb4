"""Sobol indices and HSIC against slow versions from their papers and analytic cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.asking import generator_of
from pellucid.attribution.engine import image_seeds
from pellucid.attribution.sensitivity import dependence, jansen, two_designs
from pellucid.attribution.superpixels import regions_of
from pellucid.errors import InputError
from references.smooth_networks import explained, network, pictures

CHOICES = {
    "sobol": pellucid.method("sobol", designs=8, regions=3, baseline=0.2),
    "hsic": pellucid.method("hsic", samples=50, regions=3, baseline=0.2),
}


def value(model: nn.Module, image: Tensor, labels: Tensor, kept: Tensor, target: int, baseline: float = 0.2) -> float:
    share = kept[labels].float()
    with torch.no_grad():
        return float(model((share * image + (1 - share) * baseline).unsqueeze(0))[0, target])


def seeds_of(images: Tensor) -> list[int]:
    return image_seeds(torch.Generator().manual_seed(0), len(images)).tolist()


@pytest.mark.parametrize("axes", [2, 3])
def test_sobol_indices_are_their_estimator(axes: int) -> None:
    model, images = network(axes), pictures(2, axes)
    found = explained(model, images, CHOICES["sobol"], target=1, batch_size=7)
    labels = regions_of(images, 3)[0]
    for i, (image, seed) in enumerate(zip(images, seeds_of(images), strict=True)):
        first, second = two_designs(3**axes, 8, generator_of(seed, 0))
        f = np.array([value(model, image, labels, row, 1) for row in first])
        for region in range(3**axes):
            total = 0.0
            for j in range(8):
                row = first[j].clone()
                row[region] = second[j, region]
                total += (f[j] - value(model, image, labels, row, 1)) ** 2
            index = total / (2 * 8) / (((f - f.mean()) ** 2).sum() / 7)
            mine = found[i][labels == region]
            torch.testing.assert_close(mine, torch.full_like(mine, index), rtol=1e-3, atol=1e-5)


def test_a_sum_shares_its_variance_by_squares_and_a_product_adds_interactions() -> None:
    """Of a·m the total index is a² / sum a²; of m1 m2 with uniform m it is 4/7 for each (variance 7/144)."""
    terms = torch.tensor([3.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    first, second = two_designs(4, 2048, torch.Generator().manual_seed(3))
    swapped = torch.stack([torch.where(torch.arange(4) == column, second, first) for column in range(4)])
    found = jansen((first @ terms)[:, None], (swapped @ terms)[:, :, None])[:, 0]
    torch.testing.assert_close(found, terms.square() / terms.square().sum(), rtol=0.01, atol=1e-9)
    found = jansen((first[:, 0] * first[:, 1])[:, None], (swapped[..., 0] * swapped[..., 1])[:, :, None])[:, 0]
    torch.testing.assert_close(found, torch.tensor([4 / 7, 4 / 7, 0, 0]).double(), rtol=0.03, atol=1e-9)


def test_quasi_random_designs_are_even_and_belong_to_the_seed() -> None:
    designs = two_designs(5, 64, torch.Generator().manual_seed(4))
    assert designs.shape == (2, 64, 5)
    cells = (designs * 16).long()
    for column in torch.cat([cells[0], cells[1]], dim=1).T:  # a moved net still has 64 / 16 points in each part, +- 1
        assert int((column.bincount(minlength=16) - 4).abs().max()) <= 1
    assert not torch.equal(designs, two_designs(5, 64, torch.Generator().manual_seed(5)))
    assert torch.equal(designs[:, :40], two_designs(5, 40, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("axes", [2, 3])
def test_hsic_is_its_trace(axes: int) -> None:
    model, images = network(axes), pictures(2, axes)
    found = explained(model, images, CHOICES["hsic"], target=2, batch_size=7)
    labels = regions_of(images, 3)[0]
    for i, (image, seed) in enumerate(zip(images, seeds_of(images), strict=True)):
        kept = torch.rand(50, 3**axes, generator=generator_of(seed, 0)) < 0.5
        y = np.array([value(model, image, labels, row, 2) for row in kept])
        gaps = [abs(y[a] - y[b]) for a in range(50) for b in range(a)]
        gaps = [gap for gap in gaps if gap > 1e-5 * np.abs(y).max()]  # some of the 50 coalitions are drawn twice
        width = sorted(gaps)[(len(gaps) - 1) // 2]
        outer = np.array([[np.exp(-((a - b) ** 2) / (2 * width**2)) for a in y] for b in y])
        centring = np.eye(50) - 1 / 50
        for region in range(3**axes):
            inner = np.array([[0.5 if a == b else -0.5 for a in kept[:, region]] for b in kept[:, region]])
            index = np.trace(inner @ centring @ outer @ centring) / 49**2
            mine = found[i][labels == region]
            torch.testing.assert_close(mine, torch.full_like(mine, index), rtol=1e-3, atol=1e-7)


def test_hsic_of_a_coin_is_known_and_nothing_depends_on_what_is_ignored() -> None:
    """Of y = m with all four masks of two regions: gaps 0, 0 and four 1, width 1; tr is (1 - exp(-1/2)) · 4."""
    kept = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    found = dependence(kept, kept[:, :1])
    expected = torch.tensor([[4 * (1 - np.exp(-0.5)) / 9], [0.0]])
    torch.testing.assert_close(found, expected.double(), atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("name", CHOICES)
def test_the_region_that_decides_has_the_largest_index(name: str) -> None:
    class Corner(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[:, 0, 0, 5], -images[:, 0, 0, 5]], dim=1)

    images = torch.full((1, 1, 6, 6), 2.0)
    draws = {"sobol": {"designs": 8}, "hsic": {"samples": 400}}[name]
    found = explained(Corner(), images, pellucid.method(name, regions=3, **draws), target=0)[0]
    assert (found[:2, 4:] == found.max()).all()
    others = found.clone()
    others[:2, 4:] = 0
    assert float(others.max()) < 0.1 * float(found.max())
    if name == "sobol":
        assert not others.any()  # a region that the score ignores has the index 0


@pytest.mark.parametrize("name", CHOICES)
def test_a_score_that_does_not_vary_gives_zeros(name: str) -> None:
    images = torch.full((2, 2, 8, 7), 0.2)  # the baseline itself
    assert not explained(network(), images, CHOICES[name], target=0).any()
    assert not explained(network(), images, CHOICES[name], target=0, batch_size=3).any()  # rounded otherwise


def test_rounding_is_no_variation() -> None:
    scores = 5 + 1e-7 * torch.rand(50, 1, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert not jansen(scores[:10], scores[10:].unflatten(0, (4, 10))).any()
    assert not dependence((scores > scores.median()).float(), scores).any()
    assert dependence((scores > scores.median()).float(), scores - 5).all()


@pytest.mark.parametrize("name", CHOICES)
def test_a_map_depends_on_neither_batch_nor_batch_size(name: str) -> None:
    model, images = network(), pictures(7)
    whole = explained(model, images, CHOICES[name])
    torch.testing.assert_close(explained(model, images[:1], CHOICES[name])[0], whole[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(explained(model, images, CHOICES[name], batch_size=2), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", CHOICES)
def test_all_classes_at_once_are_each_class_alone(name: str) -> None:
    model, images = network(), pictures()
    together = explained(model, images, CHOICES[name], target="all")
    assert together.shape == (3, 3, 8, 7)
    assert not torch.equal(together[:, 0], together[:, 1])
    for k in range(3):
        alone = explained(model, images, CHOICES[name], target=k)
        torch.testing.assert_close(together[:, k], alone, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_used_is_named() -> None:
    model, images = network(), pictures()
    for name, options, said in (
        ("sobol", {"designs": 1}, "designs: expected at least 2"),
        ("sobol", {"regions": 0}, "regions"),
        ("sobol", {"regions": torch.arange(112 * 100).reshape(112, 100)}, "regions: expected at most 10600"),
        ("hsic", {"samples": 1}, "samples: expected at least 2"),
        ("hsic", {"baseline": torch.zeros(3, 8, 7)}, "baseline"),
    ):
        given = pictures().repeat(1, 1, 14, 15)[..., :100] if "10600" in said else images
        with pytest.raises(InputError, match=said):
            pellucid.explain(model, given, pellucid.method(name, **options))
