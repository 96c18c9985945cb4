"""Agreement between methods against plain loops, SciPy, scikit-image, and cases with a known answer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pellucid.attribution import explain
from pellucid.attribution.explanation import Explanation
from pellucid.errors import InputError
from pellucid.metrics import METRICS, metric
from pellucid.metrics.agreement import agreement_table, rank_correlation, ssim, top_k_overlap
from references import agreement as reference

NAMES = METRICS.names("agreement")


def pair(shape: tuple[int, ...], seed: int = 0, images: int = 5) -> tuple[Tensor, Tensor]:
    """Two maps that agree somewhat, with many ties."""
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randint(-3, 4, (images, *shape), generator=draw).float()
    return maps, maps + torch.randint(-2, 3, maps.shape, generator=draw)


def test_all_three_are_there() -> None:
    assert set(NAMES) == {"rank-correlation", "ssim", "top-k-overlap"}


@pytest.mark.parametrize("shape", [(7, 6), (13, 12), (4, 3, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_paper(name: str, shape: tuple[int, ...]) -> None:
    maps, other = pair(shape)
    pairs = zip(maps.double().numpy(), other.double().numpy(), strict=True)
    slow = [getattr(reference, name.replace("-", "_"))(*each) for each in pairs]
    assert len(set(slow)) > 1
    np.testing.assert_allclose(METRICS[name].function(maps, other), slow, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_agrees_with_itself_and_either_way_round(name: str) -> None:
    maps, other = pair((12, 12))
    function = METRICS[name].function
    torch.testing.assert_close(function(maps, 3 * maps + 1), torch.ones(5, dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(function(maps, other), function(other, maps), rtol=1e-12, atol=1e-12)


def test_opposites_agree_least() -> None:
    maps = torch.rand(3, 14, 14, generator=torch.Generator().manual_seed(3))
    assert rank_correlation(maps, -maps).tolist() == pytest.approx([-1] * 3)
    assert (ssim(maps, -maps) < -0.5).all()
    assert top_k_overlap(maps, -maps).tolist() == [0, 0, 0]


def test_half_of_the_top_in_common_is_a_third() -> None:
    one, other = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10)
    one[0, 0], other[0, 0, :5], other[0, 1, :5] = 1.0, 1.0, 1.0
    assert top_k_overlap(one, other).item() == pytest.approx(1 / 3)
    assert top_k_overlap(one, other, k=10).item() == pytest.approx(1 / 3)


def test_tied_places_are_shared() -> None:
    """Two of a hundred stand out and eight places are left for the other 98."""
    one = torch.zeros(1, 10, 10)
    one[0, 0, :2] = 1.0
    rest = 8 / 98
    other = torch.zeros(1, 10, 10)
    other[0, 0] = 1.0
    shared = 2 + 8 * rest
    assert top_k_overlap(one, other).item() == pytest.approx(shared / (20 - shared))


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_map_agrees_with_nothing_and_leaves_the_others_theirs(name: str) -> None:
    maps, other = pair((12, 12))
    function = METRICS[name].function
    whole = function(maps, other)
    maps[1], other[3] = 0.7, 0.0
    values = function(maps, other)
    assert METRICS[name].missing == "one of the maps is the same everywhere"
    assert values.isnan().tolist() == [False, True, False, True, False]
    kept = torch.tensor([0, 2, 4])
    assert torch.equal(values[kept], whole[kept])


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_rank_correlation_equals_scipy(shape: tuple[int, ...]) -> None:
    maps, other = pair(shape, seed=5)
    theirs = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, other, strict=True)]
    np.testing.assert_allclose(rank_correlation(maps, other), theirs, rtol=1e-9)


@pytest.mark.parametrize("shape", [(11, 11), (20, 17), (12, 13, 14)])
def test_ssim_equals_scikit_image(shape: tuple[int, ...]) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    draw = torch.Generator().manual_seed(1)
    maps = torch.randn(2, *shape, generator=draw)
    other = maps + torch.randn(maps.shape, generator=draw) / 2
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    scaled = [(each - each.min()) / np.ptp(each) for pairs in (maps, other) for each in pairs.double().numpy()]
    theirs = [skimage.structural_similarity(scaled[row], scaled[row + 2], **options) for row in range(2)]
    np.testing.assert_allclose(ssim(maps, other), theirs, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_scores_as_in_a_batch(name: str) -> None:
    maps, other = pair((13, 12))
    function = METRICS[name].function
    together = function(maps, other)
    alone = torch.cat([function(maps[row : row + 1], other[row : row + 1]) for row in range(5)])
    assert together.dtype == torch.float64
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_its_range_and_declares_itself(name: str) -> None:
    entry = METRICS[name]
    least, most = entry.range or (math.nan, math.nan)
    for seed in range(10):
        draw = torch.Generator().manual_seed(seed)
        maps, other = torch.randn(10, 12, 12, generator=draw), torch.randn(10, 12, 12, generator=draw)
        values = entry.function(maps, other)
        assert ((values >= least) & (values <= most)).all()
        assert (entry.function(maps, maps + other / 10) > values).all()
    assert entry.higher_is_better
    assert entry.needs == ("maps", "other")
    assert entry.source


@pytest.mark.parametrize("k", [0, 145, 1.5, -0.1])
def test_k_is_a_share_or_a_count(k: float) -> None:
    with pytest.raises(InputError, match="^k"):
        top_k_overlap(*pair((12, 12)), k=k)


# The table


def explained(images: int = 3) -> Explanation:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return explain(model, torch.rand(images, 1, 12, 12), methods=["grad-cam", "layer-cam", "saliency", "random"])


def test_the_table_has_each_pair_once_in_order() -> None:
    explanation = explained()
    table = agreement_table(explanation)
    assert list(table.columns) == ["sample", "method", "other", "metric", "value"]
    assert len(table) == 3 * 6 * 3
    pairs = list(dict.fromkeys(zip(table["method"], table["other"], strict=True)))
    methods = list(explanation.maps)
    assert pairs == [(methods[a], methods[b]) for a in range(4) for b in range(a + 1, 4)]
    assert table["sample"].is_monotonic_increasing
    for name in NAMES:
        row = table.query("sample == 1 and method == 'saliency' and other == 'random' and metric == @name")
        wanted = METRICS[name].function(explanation["saliency"], explanation["random"])[1].item()
        assert row["value"].tolist() == [wanted]


def test_the_table_takes_options_and_says_what_is_missing() -> None:
    explanation = explained()
    broken = explanation["random"].clone()
    broken[1, 0, 0], broken[2] = math.nan, 1.0
    changed = replace(explanation, maps={"saliency": explanation["saliency"], "random": broken})
    table = agreement_table(changed, [metric("top-k-overlap", k=0.25)])
    assert table["metric"].unique().tolist() == ["top-k-overlap[k=0.25]"]
    assert table["value"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("argument", "metrics", "methods"),
    [("metrics", ["road"], 2), ("metrics", [], 2), ("explanation", ["ssim"], 1)],
)
def test_what_cannot_be_compared_is_named(argument: str, metrics: list[str], methods: int) -> None:
    explanation = explained(1)
    few = replace(explanation, maps=dict(list(explanation.maps.items())[:methods]))
    with pytest.raises(InputError, match=f"^{argument}"):
        agreement_table(few, metrics)


def test_maps_of_several_classes_are_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    explanation = explain(model, torch.rand(1, 1, 12, 12), methods=["grad-cam", "layer-cam"], target="all")
    with pytest.raises(InputError, match="one class"):
        agreement_table(explanation)
