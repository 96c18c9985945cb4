"""Localisation against plain loops, cases with a known answer, and Quantus."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor, nn

from pellucid.attribution import explain
from pellucid.errors import InputError
from pellucid.metrics import METRICS, Truth, metric
from pellucid.metrics.evaluate import evaluate
from pellucid.metrics.localisation import (
    attribution_localisation,
    auprc,
    auroc,
    energy_pointing,
    hit_rate,
    iou,
    outside_anatomy,
    peak_distance,
    pointing_game,
    relevance_rank,
    top_k_intersection,
)
from references import lesions, localisation

NAMES = METRICS.names("localisation")
SHAPES = [(6, 5), (4, 3, 5)]
BLIND = ("pointing-game", "relevance-rank", "top-k-intersection", "auprc", "energy-pointing")  # a constant map's value
QUANTUS = ["ignore:.*:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:RuntimeWarning"]


def with_mask(shape: tuple[int, ...], seed: int = 0, images: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randint(-3, 4, (images, *shape), generator=draw).float()  # many ties
    masks = torch.rand(images, *shape, generator=draw) < 0.3
    masks.flatten(1)[:, 0] = True
    return maps, masks


def boxes_in(shape: tuple[int, ...], seed: int) -> Tensor:
    """Two boxes (2, 2, axes) within a shape; one of them all of it where the seed is odd."""
    draw = np.random.default_rng(seed)
    corners = [[sorted(draw.choice(length + 1, 2, replace=False)) for length in shape] for _ in range(2)]
    if seed % 2:
        corners[0] = [[0, length] for length in shape]
    return torch.tensor(np.array(corners)).transpose(1, 2)


def told(name: str, masks: Tensor) -> list[object]:
    """What a metric is called with besides the maps: the masks, boxes drawn for each image, an uneven spacing."""
    shape = tuple(masks.shape[1:])
    spacing = torch.tensor([0.5, 2.0, 0.7], dtype=torch.float64)[: len(shape)].expand(len(masks), -1)
    boxes = [boxes_in(shape, int(mask.sum())) for mask in masks]
    known = {"masks": masks, "anatomy": masks, "boxes": boxes, "spacing": spacing}
    return [known[need] for need in METRICS[name].needs if need != "maps"]


def values_of(name: str, maps: Tensor, masks: Tensor) -> Tensor:
    return METRICS[name].function(maps, *told(name, masks))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_paper(name: str, shape: tuple[int, ...]) -> None:
    maps, masks = with_mask(shape)
    reference = getattr(lesions if name == "lesion-recall" else localisation, name.replace("-", "_"))
    slow = [
        reference(saliency.double().numpy(), *(np.asarray(each[row]) for each in rest))
        for rest in [told(name, masks)]
        for row, saliency in enumerate(maps)
    ]
    assert len(set(slow)) > 1
    np.testing.assert_allclose(values_of(name, maps, masks).numpy(), slow, rtol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 4)])
@pytest.mark.parametrize(("inside", "share"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_relevance_all_half_and_not_in_the_mask(shape: tuple[int, ...], inside: float, share: float) -> None:
    mask = torch.zeros(1, *shape, dtype=torch.bool)
    mask[:, :2] = True
    saliency = torch.where(mask, inside / mask.sum(), (1 - inside) / (~mask).sum())
    assert energy_pointing(saliency, mask).item() == pytest.approx(share, abs=1e-6)
    assert outside_anatomy(saliency, mask).item() == pytest.approx(1 - share, abs=1e-6)
    of_image = mask.double().mean().item()
    assert attribution_localisation(saliency, mask).item() == pytest.approx(share / of_image, abs=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 4)])
@pytest.mark.parametrize(("moved", "share"), [(0, 1.0), (1, 0.5), (2, 0.0)])
def test_the_top_all_half_and_not_in_the_mask(shape: tuple[int, ...], moved: int, share: float) -> None:
    """A map that is the mask moved by none, half and all of its width."""
    mask = torch.zeros(1, *shape, dtype=torch.bool)
    mask[:, :2] = True
    saliency = mask.roll(moved, dims=1).float()
    spacing = torch.tensor([[3.0] * len(shape)])
    boxes = [torch.tensor([[[0] * len(shape), [2, *shape[1:]]]])]
    assert relevance_rank(saliency, mask).item() == share
    assert top_k_intersection(saliency, mask, k=int(mask.sum())).item() == share
    assert pointing_game(saliency, mask).item() == share
    assert iou(saliency, mask).item() == pytest.approx(share / (2 - share))
    assert hit_rate(saliency, boxes).item() == (share == 1)
    assert hit_rate(saliency, boxes, overlap=0.3).item() == (share > 0)
    assert peak_distance(saliency, mask, spacing).item() == {0: 0, 1: 1.5, 2: (3 + 6) / 2}[moved]


def test_a_map_that_is_the_mask_ranks_it_wholly_and_its_opposite_not_at_all() -> None:
    _, masks = with_mask((6, 6))
    assert (auroc(masks.float(), masks) == 1).all()
    assert (auprc(masks.float(), masks) == 1).all()
    assert (auroc(-masks.float(), masks) == 0).all()
    assert torch.allclose(auprc(-masks.float(), masks), masks.flatten(1).double().mean(dim=1))


def test_negative_relevance_neither_counts_nor_is_counted() -> None:
    saliency = torch.tensor([[[3.0, 1.0, -50.0, -7.0]]])
    assert energy_pointing(saliency, torch.tensor([[[True, False, True, False]]])).item() == 0.75


@pytest.mark.parametrize("saliency", [torch.zeros(1, 2, 2), -torch.ones(1, 2, 2)])
@pytest.mark.parametrize("name", ["energy-pointing", "attribution-localisation", "iou", "outside-anatomy", "hit-rate"])
def test_a_map_without_evidence_has_no_place(name: str, saliency: Tensor) -> None:
    assert METRICS[name].missing == "the map has no positive value"
    assert math.isnan(values_of(name, saliency, torch.ones(1, 2, 2, dtype=torch.bool)).item())


def test_the_maximum_hits_or_misses() -> None:
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[:, 1, 1] = True
    saliency = torch.zeros(2, 3, 3)
    saliency[0, 1, 1], saliency[1, 0, 1] = 1e-6, 1e-6
    assert pointing_game(saliency, mask).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("value", [0.0, 4.0, -1.0])
@pytest.mark.parametrize("name", BLIND)
def test_a_constant_map_points_as_a_blind_guess(name: str, value: float) -> None:
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 0] = True
    wanted = 0.25 if name != "energy-pointing" or value > 0 else math.nan
    assert values_of(name, torch.full((1, 4, 5), value), mask).item() == pytest.approx(wanted, nan_ok=True)
    assert auroc(torch.full((1, 4, 5), value), mask).item() == 0.5


def test_a_constant_map_is_as_dense_in_a_small_mask_as_in_a_large_one() -> None:
    masks = torch.zeros(2, 4, 5, dtype=torch.bool)
    masks[0, 0, 0], masks[1, :3] = True, True
    assert attribution_localisation(torch.ones(2, 4, 5), masks).tolist() == pytest.approx([1, 1])


def test_tied_maxima_count_by_their_share() -> None:
    saliency = torch.tensor([[[9.0, 9.0, 9.0, 1.0]]])
    assert pointing_game(saliency, torch.tensor([[[True, True, False, True]]])).item() == pytest.approx(2 / 3)


def test_tied_places_count_as_over_all_orders_they_could_come_in() -> None:
    saliency, mask = [2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [False, True, True, False, False, True]
    shares = []
    for order in itertools.permutations(range(6)):
        largest = sorted(order, key=lambda place: -saliency[place])[:3]
        shares.append(sum(mask[place] for place in largest) / 3)
    maps, masks = torch.tensor([[saliency]]), torch.tensor([[mask]])
    assert relevance_rank(maps, masks).item() == pytest.approx(sum(shares) / len(shares))
    assert top_k_intersection(maps, masks, k=3).item() == pytest.approx(sum(shares) / len(shares))
    assert top_k_intersection(maps, masks, k=0.5).item() == top_k_intersection(maps, masks, k=3).item()


def test_shares_of_ties_never_sum_to_more_than_all() -> None:
    maps, masks = torch.ones(1, 7, 7), torch.ones(1, 7, 7, dtype=torch.bool)
    values = [top_k_intersection(maps, masks, k=k).item() for k in range(1, 50)]
    assert max(values) <= 1
    assert values == pytest.approx([1] * 49)


def test_the_areas_equal_scikit_learn_with_ties_and_without() -> None:
    for maps, masks in (with_mask((12, 12)), (positive_maps()[0], with_mask((12, 12), seed=4)[1])):
        pairs = [
            (mask.flatten().numpy(), saliency.flatten().numpy()) for saliency, mask in zip(maps, masks, strict=True)
        ]
        np.testing.assert_allclose(auroc(maps, masks), [sklearn.roc_auc_score(*pair) for pair in pairs], rtol=1e-12)
        precision = [sklearn.average_precision_score(*pair) for pair in pairs]
        np.testing.assert_allclose(auprc(maps, masks), precision, rtol=1e-12)


def test_a_mask_of_the_whole_image_leaves_nothing_to_rank_against() -> None:
    maps, masks = torch.rand(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    assert math.isnan(auroc(maps, masks).item())
    assert METRICS["auroc"].missing == "the mask covers the whole image"
    assert auprc(maps, masks).item() == relevance_rank(maps, masks).item() == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_has_no_value_and_leaves_the_others_theirs(name: str) -> None:
    maps, masks = with_mask((6, 6))
    given = told(name, masks)
    whole = METRICS[name].function(maps, *given)
    empty = [masks.clone().index_fill_(0, torch.tensor([2]), False) if each is masks else each for each in given]
    empty = [
        [each[row] if row != 2 else each[row][:0] for row in range(6)] if isinstance(each, list) else each
        for each in empty
    ]
    values = METRICS[name].function(maps, *empty)
    assert math.isnan(values[2].item())
    others = torch.arange(6) != 2
    assert torch.equal(values[others], whole[others])


def test_the_threshold_is_a_share_of_the_maximum() -> None:
    saliency, mask = torch.tensor([[[8.0, 4.0, 2.0, -8.0]]]), torch.tensor([[[True, True, True, False]]])
    for threshold, found in ((1.0, 1), (0.51, 1), (0.5, 2), (0.25, 3), (0.01, 3)):
        assert iou(saliency, mask, threshold=threshold).item() == pytest.approx(found / 3)


def test_the_box_is_that_of_the_largest_part_alone() -> None:
    saliency = torch.zeros(1, 8, 8)
    saliency[0, 1:3, 1:4], saliency[0, 6, 6] = 0.3, 1.0  # a part of six, and the peak alone
    round_the_part, round_the_peak = torch.tensor([[[1, 1], [3, 4]]]), torch.tensor([[[6, 6], [7, 7]]])
    assert hit_rate(saliency, [round_the_part]).item() == 1
    assert hit_rate(saliency, [round_the_peak]).item() == 0
    assert hit_rate(saliency, [torch.cat([round_the_peak, round_the_part])]).item() == 1
    assert hit_rate(saliency, [round_the_peak], threshold=0.5).item() == 1


def test_parts_of_one_size_hit_by_their_share_and_touch_through_corners() -> None:
    saliency = torch.zeros(1, 6, 6)
    saliency[0, 0, 0] = saliency[0, 5, 5] = saliency[0, 0, 5] = 1.0
    assert hit_rate(saliency, [torch.tensor([[[0, 0], [1, 1]]])]).item() == pytest.approx(1 / 3)
    saliency[0, 1, 1] = 1.0
    assert hit_rate(saliency, [torch.tensor([[[0, 0], [2, 2]]])]).item() == 1


def test_the_peak_s_distance_follows_spacing_and_is_missing_without() -> None:
    saliency, mask = torch.zeros(1, 5, 9), torch.zeros(1, 5, 9, dtype=torch.bool)
    saliency[0, 0, 0], mask[0, 3, 4], mask[0, 4, 8] = 1.0, True, True
    assert peak_distance(saliency, mask, torch.tensor([[1.0, 1.0]])).item() == 5
    assert peak_distance(saliency, mask, torch.tensor([[2.0, 0.5]])).item() == pytest.approx(math.hypot(6, 2))
    assert peak_distance(saliency, mask, torch.tensor([[2.0, 0.5]]), unit="pixels").item() == 5
    assert math.isnan(peak_distance(saliency, mask, None).item())
    assert peak_distance(saliency, mask, None, unit="pixels").item() == 5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iou", {"threshold": 0.0}),
        ("iou", {"threshold": 1.5}),
        ("hit-rate", {"threshold": -1.0}),
        ("hit-rate", {"overlap": 0.0}),
        ("top-k-intersection", {"k": 0}),
        ("top-k-intersection", {"k": 37}),
        ("top-k-intersection", {"k": 1.5}),
        ("top-k-intersection", {"k": 0.0}),
        ("peak-distance", {"unit": "cm"}),
    ],
)
def test_an_option_out_of_range_is_named(name: str, options: dict[str, object]) -> None:
    maps, masks = with_mask((6, 6))
    with pytest.raises(InputError, match=next(iter(options))):
        METRICS[name].function(maps, *told(name, masks), **options)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_scores_as_in_a_batch(name: str) -> None:
    maps, masks = with_mask((6, 6))
    together = values_of(name, maps, masks)
    alone = torch.cat([values_of(name, maps[row : row + 1], masks[row : row + 1]) for row in range(len(maps))])
    assert together.dtype == torch.float64
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_positive_scale_changes_nothing(name: str) -> None:
    maps, masks = with_mask((6, 6), seed=3)
    torch.testing.assert_close(values_of(name, maps * 1024, masks), values_of(name, maps, masks), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_its_range_and_prefers_the_mask_to_its_opposite(name: str) -> None:
    entry = METRICS[name]
    least, most = entry.range or (math.nan, math.nan)
    for seed in range(20):
        _, masks = with_mask((6, 6), seed=seed, images=10)
        maps = torch.randn(10, 6, 6, generator=torch.Generator().manual_seed(seed))
        values = values_of(name, maps, masks)
        assert ((values >= least) & (values <= most)).all()
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:5, 3:6] = True
    given = [
        [torch.tensor([[[2, 3], [5, 6]]])] if need == "boxes" else each
        for need, each in zip(entry.needs[1:], told(name, mask), strict=True)
    ]
    pointing, missing = (entry.function(each.float(), *given).item() for each in (mask, ~mask))
    assert (pointing > missing) == entry.higher_is_better
    assert pointing != missing


@pytest.mark.parametrize("name", NAMES)
def test_declares_itself(name: str) -> None:
    entry = METRICS[name]
    needs = {"hit-rate": ("maps", "boxes"), "outside-anatomy": ("maps", "anatomy")}
    assert entry.needs == needs.get(
        name, ("maps", "masks", "spacing") if name == "peak-distance" else ("maps", "masks")
    )
    assert entry.higher_is_better == (name not in ("outside-anatomy", "peak-distance"))
    unbounded = name in ("attribution-localisation", "peak-distance")
    assert entry.range == ((0, math.inf) if unbounded else (0, 1))
    assert entry.source


def test_a_planted_map_comes_first_and_noise_last() -> None:
    """Two lesions in each of 30 images: a map of them, that map under noise, and noise alone."""
    draw = torch.Generator().manual_seed(0)
    masks, boxes = torch.zeros(30, 24, 24, dtype=torch.bool), []
    for mask in masks:
        row, column, height, width = (int(torch.randint(low, 8, (), generator=draw)) for low in (0, 0, 5, 5))
        mask[row : row + height, column : column + width] = True
        mask[row + height + 1 : row + height + 7, 18:] = True
        boxes.append(torch.tensor([[[row, column], [row + height, column + width]]]))
    noise = torch.rand(30, 24, 24, generator=draw)
    planted = masks * (1 + 0.1 * torch.rand(masks.shape, generator=draw))
    known = {"masks": masks, "anatomy": masks, "boxes": boxes, "spacing": torch.ones(30, 2)}
    for name in NAMES:
        entry = METRICS[name]
        given = [known[need] for need in entry.needs[1:]]
        means = [entry.function(maps, *given).mean().item() for maps in (planted, planted + noise, noise)]
        assert means == sorted(means, reverse=bool(entry.higher_is_better)), name
        assert means[0] != means[2], name


@pytest.mark.filterwarnings("ignore::pellucid.metrics.evaluate.MissingValuesWarning")
def test_the_runner_hands_each_what_it_needs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images, (_, masks) = torch.rand(4, 1, 12, 12), with_mask((12, 12), images=4)
    masks[2] = False
    explanation = explain(model, images, methods=["saliency"])
    boxes = [boxes_in((12, 12), 1) if row != 2 else torch.zeros(0, 2, 2) for row in range(4)]
    truth = Truth(masks, boxes=boxes, anatomy=masks, spacing=(0.5, 2.0))
    table = evaluate(model, images, explanation, NAMES, masks=truth)
    known = {"masks": masks, "anatomy": masks, "boxes": boxes, "spacing": torch.tensor([[0.5, 2.0]] * 4)}
    for name in NAMES:
        entry = METRICS[name]
        rows = table[table["metric"] == name]
        wanted = entry.function(explanation["saliency"], *(known[need] for need in entry.needs[1:]))
        np.testing.assert_array_equal(rows["value"], wanted)
        assert (rows["reason"] != "").tolist() == [False, False, True, False]
    alone = evaluate(model, images, explanation, "peak-distance", masks=masks)
    assert alone["value"].isna().all()
    assert alone["reason"][0].startswith("no spacing was given")
    assert (
        evaluate(model, images, explanation, metric("peak-distance", unit="pixels"), masks=masks)["value"].count() == 3
    )


# Real masks


def real_masks(folder: Path, kind: str, count: int) -> list[tuple[Tensor, Tensor | None]]:
    """The finding and, for chest X-rays, the lungs of some images: bool (H, W), every second pixel of each side."""
    from PIL import Image

    def read(path: str) -> Tensor:
        with Image.open(folder / "lesion_masks" / path) as picture:
            return torch.from_numpy(np.array(picture.convert("L"))[::2, ::2] > 127)

    with (folder / "lesion_masks" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if kind in row["path"] and row["mask_path"]]
    chosen = [row for row in rows if kind != "chest_xray" or row["lung_masks_path"]][:count]
    return [
        (read(row["mask_path"]), read(row["lung_masks_path"]) if row["lung_masks_path"] else None) for row in chosen
    ]


def test_brain_tumours_are_found_by_a_bell_on_them_and_not_by_one_elsewhere(shared_data: Path) -> None:
    pairs = real_masks(shared_data, "brain_mri", 6)
    assert len(pairs) == 6
    for mask, _ in pairs:
        places = mask.nonzero().double()
        centre, extent = places.mean(dim=0), places.std(dim=0).clamp(min=1)
        grid = torch.stack(torch.meshgrid(*(torch.arange(side) for side in mask.shape), indexing="ij"), dim=-1)
        on = torch.exp(-(((grid - centre) / extent) ** 2).sum(dim=-1) / 2).float()
        off = on.flip(0, 1)
        box = [torch.stack([places.amin(dim=0), places.amax(dim=0) + 1])[None]] * 2
        maps, masks = torch.stack([on, off]), mask.expand(2, -1, -1)
        for name in NAMES:
            entry = METRICS[name]
            known = {"maps": maps, "masks": masks, "anatomy": masks, "boxes": box, "spacing": torch.ones(2, 2)}
            hit, miss = entry.function(*(known[need] for need in entry.needs)).tolist()
            assert hit >= miss if entry.higher_is_better else hit <= miss, name
        assert auroc(on[None], mask[None]).item() > 0.95
        assert relevance_rank(on[None], mask[None]).item() > 0.7
        assert peak_distance(on[None], mask[None], torch.ones(1, 2)).item() < 3


def test_a_chest_x_ray_s_findings_lie_in_the_lungs_and_its_rim_outside(shared_data: Path) -> None:
    pairs = real_masks(shared_data, "chest_xray", 8)
    assert len(pairs) == 8
    for finding, lungs in pairs:
        assert lungs is not None
        lungs = lungs[None]
        rim = torch.zeros(1, *finding.shape)
        rim[:, :2] = 1.0
        assert outside_anatomy(rim, lungs).item() > 0.9
        assert outside_anatomy(lungs.float(), lungs).item() == 0
        outside = (finding & ~lungs[0]).sum() / finding.sum()
        assert outside_anatomy(finding[None].float(), lungs).item() == pytest.approx(outside.item(), abs=1e-6)
    assert np.mean([outside_anatomy(finding[None].float(), lungs[None]).item() for finding, lungs in pairs]) < 0.35


# Quantus


def quantus_values(name: str, maps: Tensor, masks: Tensor, **options: object) -> np.ndarray:
    """A localisation metric of Quantus for maps of one channel, as they are."""
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(disable_warnings=True, **{"abs": False, "normalise": False, **options})
    images = np.zeros((len(maps), 1, *maps.shape[1:]))
    given = {"a_batch": maps.unsqueeze(1).numpy().copy(), "s_batch": masks.unsqueeze(1).numpy()}
    labels = np.zeros(len(maps), dtype=int)
    scores = metric(model=None, x_batch=images, y_batch=labels, channel_first=True, **given)
    return np.array(scores, dtype=float).ravel()


def positive_maps(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Maps above 0 without ties, and masks."""
    maps = torch.rand(6, 12, 12, generator=torch.Generator().manual_seed(seed)) + 0.01
    return maps, with_mask((12, 12), seed=seed)[1]


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
@pytest.mark.parametrize(
    ("name", "peer", "ours", "theirs"),
    [
        ("energy-pointing", "RelevanceMassAccuracy", {}, {}),
        ("energy-pointing", "AttributionLocalisation", {}, {"abs": True}),
        ("relevance-rank", "RelevanceRankAccuracy", {}, {}),
        ("top-k-intersection", "TopKIntersection", {"k": 20}, {"k": 20}),
        ("auroc", "AUC", {}, {}),
        ("pointing-game", "PointingGame", {}, {}),
    ],
)
def test_equals_quantus_where_nothing_is_tied(
    name: str, peer: str, ours: dict[str, object], theirs: dict[str, object]
) -> None:
    maps, masks = positive_maps()
    got = METRICS[name].function(maps, masks, **ours)
    np.testing.assert_allclose(got, quantus_values(peer, maps, masks, **theirs), rtol=1e-5)


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_counts_an_empty_mask_as_a_hit() -> None:
    """NaN written into an array of bools is True: the blank mask scores as the best one. It has no value."""
    maps, masks = positive_maps()
    masks[3] = False
    assert quantus_values("PointingGame", maps, masks)[3] == 1.0
    assert math.isnan(pointing_game(maps, masks)[3].item())


def constant_beside_another() -> Tensor:
    """Maps of which all but the last are constant; Quantus refuses a batch where every value is the same."""
    return torch.cat([torch.full((2, 8, 8), 0.5), torch.arange(64.0).view(1, 8, 8)])


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_gives_a_constant_map_a_hit() -> None:
    """Any of the largest in the mask is a hit there, so a map of nothing is perfect; a blind guess gets 1 in 16."""
    maps, masks = constant_beside_another(), torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, :2, :2] = True
    assert quantus_values("PointingGame", maps, masks)[0] == 1.0
    assert pointing_game(maps, masks)[0].item() == 1 / 16


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
@pytest.mark.parametrize(
    ("peer", "name", "options"),
    [("RelevanceRankAccuracy", "relevance-rank", {}), ("TopKIntersection", "top-k-intersection", {"k": 8})],
)
def test_quantus_ranks_tied_pixels_by_where_they_stand(peer: str, name: str, options: dict[str, object]) -> None:
    """A constant map scores there by the place of the finding: 1 in the first rows; a blind guess gets 1 in 8."""
    maps, masks = constant_beside_another(), torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, 0], masks[1, 7], masks[2, 3] = True, True, True
    first, last = quantus_values(peer, maps, masks, **options)[:2]
    assert first != last
    assert max(abs(first - 1 / 8), abs(last - 1 / 8)) > 0.1
    assert METRICS[name].function(maps, masks, **options)[:2].tolist() == [1 / 8, 1 / 8]


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_adds_negative_relevance_to_a_mass() -> None:
    """A share of 11 there, as positive and negative cancel in the whole; 11 parts of 16 of the evidence are inside."""
    saliency, mask = torch.tensor([[[11.0, 5.0], [-9.0, -6.0]]]), torch.tensor([[[True, False], [False, False]]])
    assert quantus_values("RelevanceMassAccuracy", saliency, mask)[0] == pytest.approx(11.0)
    assert energy_pointing(saliency, mask).item() == 11 / 16


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_weighs_by_the_size_of_the_rest_of_the_batch() -> None:
    """Its weight for a mask's size divides by the pixels of images from the third on: one map in three batches."""
    maps, masks = positive_maps()
    plain = quantus_values("AttributionLocalisation", maps, masks)[0]
    sizes = {}
    for images in (3, 6):
        values = quantus_values("AttributionLocalisation", maps[:images], masks[:images], weighted=True)
        sizes[images] = plain / values[0] * masks[0].sum().item()
    assert sizes == {3: pytest.approx(144), 6: pytest.approx(4 * 144)}
    together, alone = energy_pointing(maps, masks)[0], energy_pointing(maps[:1], masks[:1])[0]
    assert together.item() == alone.item() == pytest.approx(plain)


@pytest.mark.parity
@pytest.mark.filterwarnings(*QUANTUS)
def test_quantus_favours_large_masks_by_its_weight_and_ours_is_the_papers() -> None:
    """The paper divides by the mask's share of the image; Quantus multiplies, so that a blind map gains by size."""
    blind = torch.ones(3, 12, 12) + 1e-6 * torch.rand(3, 12, 12)  # it refuses maps that are the same everywhere
    masks = torch.zeros(3, 12, 12, dtype=torch.bool)
    masks[0, :3, :4], masks[1, :6], masks[2, 0] = True, True, True
    theirs = quantus_values("AttributionLocalisation", blind, masks, weighted=True)
    share = np.array([12, 72, 12]) / 144
    np.testing.assert_allclose(theirs, share**2, rtol=1e-4)
    assert attribution_localisation(blind, masks).tolist() == pytest.approx([1, 1, 1], rel=1e-4)
