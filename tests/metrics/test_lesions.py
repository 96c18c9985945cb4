"""Lesions as candidates find them, against plain loops and cases with a known answer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.components import components
from pellucid.metrics.lesions import RATES, Froc, froc, lesion_recall, peaks
from references import lesions as reference
from references.localisation import parts

SHAPES = [(9, 8), (4, 5, 6)]


def drawn(shape: tuple[int, ...], seed: int = 0, images: int = 5) -> tuple[Tensor, Tensor]:
    """Maps with plateaus and ties, and masks of several lesions, the last image having none."""
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randint(-3, 5, (images, *shape), generator=draw).float()
    masks = torch.rand(images, *shape, generator=draw) < 0.15
    masks[-1] = False
    masks[0].flatten()[0] = True
    return maps, masks


def dots(size: int, *places: tuple[int, int, float]) -> Tensor:
    """A map (1, size, size) that is 0 but for some values."""
    saliency = torch.zeros(1, size, size)
    for row, column, value in places:
        saliency[0, row, column] = value
    return saliency


@pytest.mark.parametrize("shape", [(17,), *SHAPES])
@pytest.mark.parametrize("radius", [1, 2])
def test_peaks_are_those_found_by_flooding_plateaus(shape: tuple[int, ...], radius: int) -> None:
    maps, _ = drawn(shape, images=8)
    counts = set()
    for saliency, found in zip(maps, peaks(maps, radius=radius), strict=True):
        wanted = reference.peaks(saliency.double().numpy(), radius)
        assert list(zip(found.values.tolist(), map(tuple, found.places.tolist()), strict=True)) == wanted
        counts.add(len(wanted))
    assert max(counts) > 1


def test_a_plateau_is_one_peak_and_a_step_none() -> None:
    saliency = torch.tensor([[[0.0, 2.0, 2.0, 2.0, 0.0, 1.0, 1.0, 3.0]]])
    (found,) = peaks(saliency)
    assert found.places.tolist() == [[0, 7], [0, 2]]
    assert found.values.tolist() == [3, 2]


@pytest.mark.parametrize("saliency", [torch.zeros(1, 5, 5), torch.ones(1, 5, 5), -torch.eye(5)[None]])
def test_a_map_without_evidence_or_without_relief_has_no_peak(saliency: Tensor) -> None:
    assert len(peaks(saliency)[0].values) == 0
    mask = torch.eye(5, dtype=torch.bool)[None]
    curve = froc(saliency, mask)
    assert (curve.score, curve.thresholds.tolist()) == (0.0, [math.inf])
    assert lesion_recall(saliency, mask).item() == 0


@pytest.mark.parametrize("reach", [0.0, 1.0, 1.6])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_curve_equals_the_definition(shape: tuple[int, ...], reach: float) -> None:
    maps, masks = drawn(shape)
    spacing = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)[: len(shape)]
    slow = reference.froc(maps.double().numpy(), masks.numpy(), spacing.numpy(), reach)
    curve = froc(maps, masks, spacing=spacing, reach=reach)
    points = torch.stack([curve.thresholds, curve.sensitivity, curve.false_positives], dim=1)
    np.testing.assert_allclose(points, slow, rtol=1e-12)
    assert curve.score == pytest.approx(reference.score(slow), rel=1e-12)
    assert curve.lesions == sum(len(parts(mask)) for mask in masks.numpy())
    assert curve.images == 5
    assert len(slow) > 3


def test_the_curve_rises_and_the_score_is_a_share() -> None:
    for seed in range(10):
        curve = froc(*drawn((9, 8), seed=seed))
        assert (curve.sensitivity.diff() >= 0).all()
        assert (curve.false_positives.diff() >= 0).all()
        assert (curve.thresholds.diff() < 0).all()
        assert 0 <= curve.score <= curve.sensitivity[-1] <= 1


@pytest.mark.parametrize(("found", "share"), [(4, 1.0), (2, 0.5), (0, 0.0)])
def test_all_half_and_none_of_the_lesions_found(found: int, share: float) -> None:
    places = [(1, 1), (1, 8), (8, 1), (8, 8)]
    masks = dots(10, *((row, column, 1.0) for row, column in places)) > 0
    saliency = dots(10, *((row, column, 1.0 + row) for row, column in places[:found]))
    curve = froc(saliency, masks)
    assert curve.score == share
    assert curve.false_positives[-1].item() == 0
    assert lesion_recall(saliency, masks).item() == share


def test_the_score_reads_the_curve_at_seven_rates() -> None:
    """Two images, two lesions: a hit at once, then three false ones, then the other hit."""
    maps = torch.cat([dots(9, (0, 0, 9.0), (4, 4, 8.0), (8, 0, 5.0)), dots(9, (0, 8, 7.0), (8, 8, 6.0))])
    masks = torch.cat([dots(9, (0, 0, 1.0), (8, 0, 1.0)), dots(9)]) > 0
    curve = froc(maps, masks)
    assert curve.false_positives.tolist() == [0, 0, 0.5, 1, 1.5, 1.5]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 1]
    assert curve.at(RATES).tolist() == [0.5, 0.5, 0.5, 0.5, 1, 1, 1]
    assert curve.score == pytest.approx(5 / 7)


def test_between_two_points_the_curve_is_a_line() -> None:
    """A hit and a false positive of one value come together: half of the one for half of the other."""
    curve = froc(dots(9, (0, 0, 2.0), (8, 8, 2.0)), dots(9, (0, 0, 1.0)) > 0)
    assert curve.at([0.0, 0.5, 1.0, 3.0]).tolist() == [0, 0.5, 1, 1]


def test_a_normal_image_adds_false_positives_alone() -> None:
    maps, mask = dots(9, (1, 1, 5.0), (7, 7, 3.0)), dots(9, (1, 1, 1.0)) > 0
    alone = froc(maps, mask)
    beside = froc(torch.cat([maps, maps]), torch.cat([mask, mask & False]))
    assert (alone.lesions, beside.lesions, beside.images) == (1, 1, 2)
    assert alone.sensitivity.tolist() == beside.sensitivity.tolist() == [0, 1, 1]
    assert alone.false_positives.tolist() == [0, 0, 1]
    assert beside.false_positives.tolist() == [0, 0.5, 1.5]


def test_normal_images_only_have_no_sensitivity() -> None:
    curve = froc(dots(9, (1, 1, 5.0)), dots(9) > 0)
    assert curve.lesions == 0
    assert math.isnan(curve.score)
    assert curve.false_positives.tolist() == [0, 1]


def test_further_peaks_on_a_lesion_are_neither_hits_nor_false() -> None:
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, :, :4] = True
    curve = froc(dots(9, (0, 0, 3.0), (4, 0, 2.0), (8, 0, 1.0)), mask)
    assert curve.sensitivity.tolist() == [0, 1]
    assert curve.thresholds.tolist() == [math.inf, 3]
    assert curve.false_positives.sum() == 0


def test_reach_is_in_mm_where_spacing_is_known() -> None:
    saliency, mask = dots(9, (4, 4, 1.0)), dots(9, (4, 7, 1.0)) > 0
    for spacing, reach, hit in ((None, 3.0, 1), (None, 2.9, 0), ((9.0, 0.5), 1.5, 1), ((9.0, 0.5), 1.4, 0)):
        assert froc(saliency, mask, spacing=spacing, reach=reach).score == hit
    both = froc(saliency.expand(2, -1, -1), mask.expand(2, -1, -1), spacing=torch.tensor([[1, 1], [1, 2]]), reach=3)
    assert both.sensitivity[-1].item() == 0.5


def test_boxes_and_labels_are_lesions_too() -> None:
    maps, mask = drawn((9, 8))[0], torch.zeros(5, 9, 8, dtype=torch.bool)
    mask[0, 1:4, 2:5], mask[0, 6:8, 0:3], mask[3, 0:2, 5:8] = True, True, True
    boxes = [torch.zeros(0, 2, 2) for _ in range(5)]
    boxes[0], boxes[3] = torch.tensor([[[1, 2], [4, 5]], [[6, 0], [8, 3]]]), torch.tensor([[[0, 5], [2, 8]]])
    labels = torch.from_numpy(components(mask)[0])
    assert_same(froc(maps, mask), froc(maps, boxes))
    assert_same(froc(maps, mask), froc(maps, labels))


def test_a_box_between_pixels_holds_those_that_it_touches() -> None:
    saliency = dots(9, (4, 4, 1.0))
    for low, high, hit in ((4.2, 4.3, 1), (3.1, 4.1, 1), (4.9, 6.0, 1), (5.0, 6.0, 0), (2.5, 4.0, 0)):
        box = torch.tensor([[[low, low], [high, high]]])
        assert froc(saliency, [box]).score == hit


def test_labels_keep_lesions_apart_that_touch() -> None:
    labels = torch.zeros(1, 9, 9, dtype=torch.long)
    labels[0, :, :4], labels[0, :, 4:8] = 1, 2
    saliency = dots(9, (4, 1, 1.0))
    assert froc(saliency, labels).score == 0.5
    assert froc(saliency, labels > 0).score == 1


def assert_same(one: Froc, other: Froc) -> None:
    for field in ("thresholds", "sensitivity", "false_positives"):
        assert torch.equal(getattr(one, field), getattr(other, field))
    assert (one.score, one.images, one.lesions) == (other.score, other.images, other.lesions)
    assert one.lesions > 1


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_recall_equals_all_ways_to_choose_among_ties(shape: tuple[int, ...], extra: int) -> None:
    maps, masks = drawn(shape)
    values = lesion_recall(maps, masks, extra=extra)
    pairs = zip(maps[:-1].double().numpy(), masks[:-1].numpy(), strict=True)
    slow = [reference.lesion_recall(saliency, mask, extra) for saliency, mask in pairs]
    np.testing.assert_allclose(values[:-1], slow, rtol=1e-12)
    assert math.isnan(values[-1].item())
    assert len(set(slow)) > 1


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("reach", {"reach": -1.0}),
        ("radius", {"radius": 0}),
        ("radius", {"radius": 1.5}),
        ("spacing", {"spacing": (1.0, 0.0)}),
        ("spacing", {"spacing": (1.0, 1.0, 1.0)}),
        ("lesions", {"lesions": torch.ones(1, 9, 8, dtype=torch.bool)}),
        ("lesions", {"lesions": torch.ones(5, 9, 8)}),
        ("lesions", {"lesions": [torch.zeros(0, 2, 2)]}),
        ("lesions", {"lesions": [torch.zeros(0, 2, 3)] * 5}),
        ("maps", {"maps": torch.full((5, 9, 8), math.nan)}),
        ("maps", {"maps": torch.ones(5, 9, 8, 2, 2)}),
    ],
)
def test_what_cannot_be_used_is_named(argument: str, options: dict[str, object]) -> None:
    maps, masks = drawn((9, 8))
    given = {"maps": maps, "lesions": masks, **options}
    with pytest.raises(InputError, match=f"^{argument}"):
        froc(given.pop("maps"), given.pop("lesions"), **given)


def test_recall_refuses_fewer_peaks_than_lesions() -> None:
    with pytest.raises(InputError, match="^extra"):
        lesion_recall(*drawn((9, 8)), extra=-1)


def test_chest_x_rays_several_findings_are_found_by_bells_on_them(shared_data: Path) -> None:
    """Of real findings in several places: a bell on the first of each image finds those, and nothing else."""
    import csv

    from PIL import Image

    folder = shared_data / "lesion_masks"
    with (folder / "manifest.csv").open() as file:
        rows = [row["mask_path"] for row in csv.DictReader(file) if "chest_xray" in row["path"] and row["mask_path"]][
            :6
        ]
    maps, masks, total = [], [], 0
    for path in rows:
        with Image.open(folder / path) as picture:
            mask = torch.from_numpy(np.array(picture.convert("L").resize((96, 96), Image.Resampling.NEAREST)) > 127)
        found = parts(mask.numpy())
        first = torch.tensor(sorted(found[0])[len(found[0]) // 2])
        grid = torch.stack(torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij"), dim=-1)
        maps.append(torch.exp(-((grid - first) ** 2).sum(dim=-1) / 18.0))
        masks.append(mask)
        total += len(found)
    curve = froc(torch.stack(maps), torch.stack(masks))
    assert (curve.images, curve.lesions) == (6, total)
    assert total > 6
    assert curve.score == pytest.approx(6 / total)
    assert curve.false_positives[-1].item() == 0
