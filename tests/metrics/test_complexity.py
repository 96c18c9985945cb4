"""Complexity against plain loops, cases with a known answer, and Quantus."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.complexity import effective_complexity, entropy, sparseness
from references import complexity as reference

NAMES = METRICS.names("complexity")
SHAPES = [(6, 5), (4, 3, 5)]
QUANTUS = ["ignore:.*:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:RuntimeWarning"]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Maps (8, *S) of few values, so with many ties, and signed."""
    return torch.randint(-3, 4, (8, *shape), generator=torch.Generator().manual_seed(seed)).float()


def test_all_three_are_there() -> None:
    assert set(NAMES) == {"sparseness", "entropy", "effective-complexity"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_paper(name: str, shape: tuple[int, ...]) -> None:
    maps = drawn(shape)
    slow = [getattr(reference, name.replace("-", "_"))(saliency) for saliency in maps.double().numpy()]
    assert len(set(slow)) > 1
    np.testing.assert_allclose(METRICS[name].function(maps), slow, rtol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 4)])
def test_one_place_half_of_them_and_all(shape: tuple[int, ...]) -> None:
    one, half, everywhere = torch.zeros(3, *shape).unbind()
    one.flatten()[5], half.flatten()[::2], everywhere[:] = -3.0, 2.0, 0.5
    maps = torch.stack([one, half, everywhere])
    assert sparseness(maps).tolist() == [1 - 1 / 64, 0.5, 0.0]
    assert entropy(maps).tolist() == pytest.approx([0, math.log(32), math.log(64)])
    assert effective_complexity(maps).tolist() == [1, 32, 64]


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7, 1e-20])
def test_a_constant_map_is_the_most_complex(value: float) -> None:
    maps = torch.full((1, 31, 29), value)
    assert sparseness(maps).item() == pytest.approx(0, abs=1e-12)
    assert entropy(maps).item() == pytest.approx(math.log(31 * 29))
    assert effective_complexity(maps).item() == 31 * 29


@pytest.mark.parametrize("name", NAMES)
def test_a_map_of_zeros_has_no_complexity_and_leaves_the_others_theirs(name: str) -> None:
    maps = drawn((6, 5))
    whole = METRICS[name].function(maps)
    maps[2] = 0
    values = METRICS[name].function(maps)
    assert METRICS[name].missing == "the map is zero everywhere"
    assert math.isnan(values[2].item())
    others = torch.arange(8) != 2
    assert torch.equal(values[others], whole[others])


@pytest.mark.parametrize("name", NAMES)
def test_one_image_scores_as_in_a_batch(name: str) -> None:
    maps, function = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(2)), METRICS[name].function
    together = function(maps)
    assert together.dtype == torch.float64
    assert torch.equal(together, torch.cat([function(maps[row : row + 1]) for row in range(5)]))


@pytest.mark.parametrize("name", NAMES)
def test_neither_scale_nor_sign_nor_place_matters(name: str) -> None:
    maps, function = drawn((6, 5), seed=4), METRICS[name].function
    for changed in (maps * 2.0**-40, -maps, maps.flip(1)):
        torch.testing.assert_close(function(changed), function(maps), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_its_range_and_prefers_the_simpler_map(name: str) -> None:
    entry = METRICS[name]
    least, most = entry.range or (math.nan, math.nan)
    for seed in range(20):
        values = entry.function(torch.randn(10, 6, 6, generator=torch.Generator().manual_seed(seed)))
        assert ((values >= least) & (values <= most)).all()
    simple, busy = torch.zeros(1, 6, 6), torch.ones(1, 6, 6)
    simple[0, 2, 2:4] = 1.0
    assert (entry.function(simple) > entry.function(busy)).item() == entry.higher_is_better
    assert entry.needs == ("maps",)
    assert entry.source


@pytest.mark.parametrize("eps", [-0.1, 1.0])
def test_eps_is_a_share(eps: float) -> None:
    with pytest.raises(InputError, match="^eps"):
        effective_complexity(drawn((6, 5)), eps=eps)
    assert effective_complexity(torch.tensor([[10.0, 5.0, 1.0, 0.0]]), eps=0.1).item() == 2


# Quantus


def quantus_values(name: str, maps: Tensor, **options: object) -> np.ndarray:
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(disable_warnings=True, **options)
    images, labels = np.zeros((len(maps), 1, *maps.shape[1:])), np.zeros(len(maps), dtype=int)
    given = {"x_batch": images, "y_batch": labels, "a_batch": maps.double().unsqueeze(1).numpy().copy()}
    return np.array(metric(model=None, channel_first=True, **given), dtype=float).ravel()


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
@pytest.mark.parametrize(
    ("name", "peer"),
    [("sparseness", "Sparseness"), ("entropy", "Complexity"), ("effective-complexity", "EffectiveComplexity")],
)
def test_equals_quantus_on_maps_of_one_scale(name: str, peer: str) -> None:
    maps = torch.randn(6, 12, 12, generator=torch.Generator().manual_seed(1))
    maps[:, 0, 0] = 4.0  # the largest of each, by which Quantus scales all
    np.testing.assert_allclose(METRICS[name].function(maps), quantus_values(peer, maps), rtol=1e-6)


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_counts_a_weak_map_by_the_strongest_of_its_batch() -> None:
    """It scales by the largest value of all images: a map of 100 places has none beside one a million times larger."""
    maps = torch.ones(2, 10, 10)
    maps[0, 0, 0] = 2.0
    maps[1] = maps[0] * 1e6
    assert quantus_values("EffectiveComplexity", maps).tolist() == [0, 100]
    assert effective_complexity(maps).tolist() == [100, 100]


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_spreads_a_weak_map_by_a_fixed_number() -> None:
    """It adds 1e-7 to each value: one place of 1e-6 among 100 is 1 − 1/100 sparse, and there 0.09."""
    maps = torch.zeros(2, 10, 10)
    maps[0, 3, 3], maps[1, 3, 3] = 1e-6, 1.0
    weak, strong = quantus_values("Sparseness", maps)
    assert weak == pytest.approx(0.09, abs=1e-3)
    assert strong == pytest.approx(0.99, abs=1e-4)
    assert sparseness(maps).tolist() == pytest.approx([0.99, 0.99])


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_calls_a_map_of_zeros_evenly_spread() -> None:
    """0 there, as of a constant map; nothing to be sparse is missing here."""
    maps = torch.zeros(2, 10, 10)
    maps[1, 3, 3] = 1.0
    assert quantus_values("Sparseness", maps)[0] == pytest.approx(0, abs=1e-9)
    assert math.isnan(sparseness(maps)[0].item())
