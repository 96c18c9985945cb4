"""Similarity of two maps: against SciPy and scikit-image, and where the answer is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.similarity import (
    by_ranks,
    by_structure,
    histogram_entropy,
    similarity_of,
)
from references import robustness as slow
from references.explaining import drawn


@pytest.mark.parametrize("shape", [(12, 12), (5, 6, 7)])
def test_the_rank_correlation_is_scipys_with_ties(shape: tuple[int, ...]) -> None:
    maps = (2 * drawn(4, *shape)).round()
    others = (maps + drawn(4, *shape, seed=1)).round()
    wanted = [spearmanr(one.ravel(), two.ravel()).statistic for one, two in zip(maps, others, strict=True)]
    assert by_ranks(maps, others).tolist() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("shape", [(24, 17), (13, 14, 15)])
def test_ssim_is_scikit_images_with_gaussian_windows(shape: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    maps = drawn(3, *shape)
    others = maps + 0.5 * drawn(3, *shape, seed=1)

    def wanted(one: Any, two: Any) -> float:
        one, two = ((each - each.min()) / (each.max() - each.min()) for each in (one, two))
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        return float(metrics.structural_similarity(one, two, **options))

    found = by_structure(maps, others).tolist()
    pairs = zip(maps.double().numpy(), others.double().numpy(), strict=True)
    assert found == pytest.approx([wanted(*pair) for pair in pairs], abs=1e-9)


@pytest.mark.parametrize("name", ["spearman", "ssim"])
@pytest.mark.parametrize("shape", [(12, 12), (4, 4), (3, 5), (6, 6, 6), (9,)])
def test_a_map_is_like_itself_at_any_scale_and_unlike_its_negative(name: str, shape: tuple[int, ...]) -> None:
    maps = drawn(5, *shape)
    alike = similarity_of(name)
    assert alike(maps, 1e-6 * maps).tolist() == pytest.approx([1] * 5)
    assert bool((alike(maps, -maps) < 0).all())
    unlike = alike(maps, drawn(5, *shape, seed=9))
    assert bool((unlike.abs() <= 1).all())
    one = alike(maps[2:3], drawn(5, *shape, seed=9)[2:3])
    assert one.item() == pytest.approx(unlike[2].item())


@pytest.mark.parametrize("name", ["spearman", "ssim"])
def test_a_constant_map_has_no_similarity_and_a_constant_other_none(name: str) -> None:
    alike = similarity_of(name)
    maps, flat = drawn(1, 16, 16), torch.zeros(1, 16, 16)
    assert alike(flat, maps).isnan().all()
    assert alike(flat, flat).isnan().all()
    assert alike(maps, flat).item() == alike(maps, flat + 3).item() == 0


def test_the_entropy_is_that_of_numpys_histogram() -> None:
    maps = drawn(4, 20, 20)
    assert histogram_entropy(maps, 30).tolist() == pytest.approx([slow.entropy(each.numpy(), 30) for each in maps])
    even = torch.arange(100.0).view(1, 10, 10)
    assert histogram_entropy(even, 10).item() == pytest.approx(math.log(10))
    assert histogram_entropy(torch.ones(1, 4, 4)).item() == 0


def test_an_unknown_similarity_is_refused() -> None:
    with pytest.raises(InputError, match="similarity: expected 'spearman' or 'ssim', got 'pearson'"):
        similarity_of("pearson")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_takes_the_structural_similarity_of_flattened_maps() -> None:
    """Its metrics flatten maps before SSIM, so that windows run along rows alone: transposing both maps, which changes
    nothing between neighbouring pixels, changes its value and not ours."""
    pytest.importorskip("quantus")
    from quantus.functions.similarity_func import ssim

    maps = drawn(1, 16, 16).cumsum(dim=1)  # smooth down each column
    others = maps + drawn(1, 16, 16, seed=1)

    def theirs(one: Tensor, two: Tensor) -> float:
        return float(ssim(one.flatten(1).double().numpy(), two.flatten(1).double().numpy(), batched=True)[0])

    ours = by_structure(maps, others).item()
    assert ours == pytest.approx(by_structure(maps.mT, others.mT).item(), abs=1e-9)
    assert abs(theirs(maps, others) - theirs(maps.mT, others.mT)) > 0.02


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_calls_opposite_maps_alike_by_ssim() -> None:
    """Windows with a negative mean beside a positive one turn SSIM's sign twice. Ours scales each to [0, 1] first."""
    pytest.importorskip("quantus")
    from quantus.functions.similarity_func import ssim

    maps = drawn(1, 20, 20) / 5 + torch.tensor([-1.0] * 10 + [1.0] * 10)
    flat = maps.flatten(1).double().numpy()
    assert ssim(flat, -flat, batched=True)[0] == pytest.approx(0.81, abs=0.01)
    assert by_structure(maps, -maps).item() == pytest.approx(-0.60, abs=0.01)
