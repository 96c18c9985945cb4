"""Removal curves against plain loops and networks whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.attribution.superpixels import regions_of
from pellucid.errors import InputError
from pellucid.metrics import METRICS, filling
from pellucid.metrics.deletion import (
    STEPS,
    _patch_size,
    deletion,
    insertion,
    irof,
    patch_numbers,
    pixel_flipping,
    region_perturbation,
    region_removals,
    selectivity,
)
from pellucid.metrics.draws import noise_field, tie_order
from pellucid.metrics.road import road
from pellucid.metrics.scores import ScoreOf, Scores
from references import removal as reference
from references import road as road_reference

SHAPES = [(7, 6), (3, 4, 5)]
NAMES = ("deletion", "insertion", "pixel-flipping", "region-perturbation", "selectivity", "irof")
OPTIONS: dict[str, dict[str, object]] = {
    "region-perturbation": {"patch_size": 2, "regions": 5},
    "selectivity": {"patch_size": 2},
    "irof": {"regions": 3},
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(weights: Tensor) -> ScoreOf:
    """A score in (0, 1) that isn't linear in the pixels."""
    return lambda rows, sample: (rows.double() * weights).flatten(1).sum(dim=1).div(4).sigmoid()


def reading(weights: Tensor) -> Callable[[np.ndarray], float]:
    """The same of one image."""
    return lambda image: 1 / (1 + math.exp(-float((image * weights.numpy()).sum()) / 4))


class Recorder:
    """A score that keeps what it was shown."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __call__(self, rows: Tensor, sample: Tensor) -> Tensor:
        self.rows += list(rows)
        return rows.flatten(1).mean(dim=1)


def order_of(saliency: Tensor, seed: int) -> list[int]:
    ties = tie_order(seed, saliency.numel()).tolist()
    return list(road_reference.order(saliency.double().numpy(), ties, most_relevant_first=True))


def exact_counts(positions: int, steps: int) -> list[int]:
    return [round(step * positions / steps) for step in range(steps + 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_deletion_insertion_and_pixel_flipping_equal_plain_loops(shape: tuple[int, ...]) -> None:
    images, weights = drawn(2, 2, *shape) + 0.5, drawn(2, *shape, seed=1).double()
    maps = drawn(2, *shape, seed=2).relu()  # half zeros, so ties matter
    seeds, positions = torch.tensor([8, 9]), math.prod(shape)
    scores = Scores(smooth(weights), images, seeds)
    found = [
        deletion(scores, maps, steps=9, fill="mean"),
        insertion(scores, maps, steps=9, fill=filling("blur", sigma=1.5)),
        pixel_flipping(scores, maps, features_in_step=8),
    ]
    for row, (image, saliency, seed) in enumerate(zip(images.double().numpy(), maps, seeds.tolist(), strict=True)):
        order, counts = order_of(saliency, seed), exact_counts(positions, 9)
        shares = [count / positions for count in counts]
        gone = reference.curve(reading(weights), image, order, counts, reference.mean)
        assert found[0][row].item() == pytest.approx(reference.area(gone, shares), abs=1e-6)

        def blur(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
            return reference.blur(image, removed, 1.5)

        there = [reading(weights)(blur(image, ~reference.first(order, count, shape))) for count in counts]
        assert found[1][row].item() == pytest.approx(reference.area(there, shares), abs=1e-6)
        counts = [*range(0, positions, 8), positions]
        flipped = reference.curve(reading(weights), image, order, counts, reference.zero)
        exact = reference.area(flipped, [count / positions for count in counts])
        assert found[2][row].item() == pytest.approx(exact, abs=1e-6)
    assert all(values.dtype == torch.float64 for values in found)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_metrics_over_regions_equal_plain_loops(shape: tuple[int, ...]) -> None:
    """Patches of 2, so that those at the far borders are cut."""
    images, weights = drawn(2, 2, *shape) + 0.5, drawn(2, *shape, seed=1).double()
    maps = drawn(2, *shape, seed=2)
    maps[:, 2:] = 0  # several patches tie
    seeds = torch.tensor([8, 9])
    scores = Scores(smooth(weights), images, seeds)
    perturbed = region_perturbation(scores, maps, patch_size=2, regions=4)
    selected = selectivity(scores, maps, patch_size=2, fill="mean")
    pixels = torch.arange(math.prod(shape)).view(shape)
    labels = (pixels % 5 + pixels // 11) % 4  # regions of no shape
    over = irof(scores, maps, regions=labels)
    parts = [np.flatnonzero(labels.flatten().numpy() == label).tolist() for label in range(4)]
    for row, (image, saliency, seed) in enumerate(zip(images.double().numpy(), maps, seeds.tolist(), strict=True)):
        score_of, flat = reading(weights), saliency.double().numpy()
        patches = reference.patches(shape, 2)
        order = reference.region_order(flat, patches, tie_order(seed, len(patches)).tolist(), mean_of=False)
        field = noise_field(seed, image.shape).double().numpy()
        uniform = (2 * torch.distributions.Normal(0.0, 1.0).cdf(torch.from_numpy(field)) - 1).numpy() * 3**0.5

        def noise(image: np.ndarray, removed: np.ndarray, whole: np.ndarray = image) -> np.ndarray:
            return reference.put(
                image,
                removed,
                lambda c, at: whole[c].mean() + whole[c].std() * uniform[(c, *at)],  # noqa: B023
            )

        curve, _ = reference.region_curve(score_of, image, order, noise)
        assert perturbed[row].item() == pytest.approx(sum(curve[0] - value for value in curve[:5]) / 5, abs=1e-6)
        curve, shares = reference.region_curve(score_of, image, order, reference.mean)
        assert selected[row].item() == pytest.approx(reference.area(curve, shares), abs=1e-6)
        order = reference.region_order(flat, parts, tie_order(seed, 4).tolist(), mean_of=True)
        curve, shares = reference.region_curve(score_of, image, order, reference.mean)
        relative = reference.area([1 - value / curve[0] for value in curve], shares)
        assert over[row].item() == pytest.approx(relative, abs=1e-6)


def patch_case() -> tuple[Scores, Tensor]:
    """A bright patch of 4 x 4 on black, a model that looks at it alone, and the map that says so."""
    image = torch.zeros(1, 1, 12, 12)
    image[..., 4:8, 4:8] = 1
    return Scores(lambda rows, sample: rows[..., 4:8, 4:8].mean(dim=(1, 2, 3)), image), image[:, 0]


def test_a_model_that_looks_at_one_patch() -> None:
    """The score falls from 1 to 0 over the first ninth of the pixels, and stays there."""
    scores, perfect = patch_case()
    ninth = 1 / 9
    assert deletion(scores, perfect, steps=144).item() == pytest.approx(ninth / 2)
    assert deletion(scores, -perfect, steps=144).item() == pytest.approx(1 - ninth / 2)
    assert insertion(scores, perfect, steps=144, fill="zero").item() == pytest.approx(1 - ninth / 2)
    assert insertion(scores, -perfect, steps=144, fill="zero").item() == pytest.approx(ninth / 2)
    assert pixel_flipping(scores, perfect, features_in_step=16).item() == pytest.approx(ninth / 2)
    assert selectivity(scores, perfect, patch_size=4).item() == pytest.approx(ninth / 2)
    assert selectivity(scores, -perfect, patch_size=4).item() == pytest.approx(1 - ninth / 2)
    assert irof(scores, perfect, regions=3, fill="zero").item() == pytest.approx(1 - ninth / 2)
    assert irof(scores, -perfect, regions=3, fill="zero").item() == pytest.approx(ninth / 2)
    assert region_perturbation(scores, perfect, patch_size=4, regions=4, fill="zero").item() == pytest.approx(4 / 5)
    assert region_perturbation(scores, -perfect, patch_size=4, regions=4, fill="zero").item() == pytest.approx(0)


def test_of_a_linear_model_no_map_beats_what_each_pixel_adds() -> None:
    images, weights = drawn(3, 1, 10, 10), drawn(1, 10, 10, seed=1).double()
    scores = Scores(lambda rows, sample: (rows.double() * weights).flatten(1).sum(dim=1), images)
    faithful = (images * weights)[:, 0].float()
    others = [drawn(3, 10, 10, seed=seed) for seed in range(2, 12)]
    best = deletion(scores, faithful, steps=100), insertion(scores, faithful, steps=100, fill="zero")
    for other in [*others, -faithful]:
        assert (deletion(scores, other, steps=100) > best[0]).all()
        assert (insertion(scores, other, steps=100, fill="zero") < best[1]).all()
    # what is put in adds what taking it out takes away
    torch.testing.assert_close(best[0] + best[1], scores.unperturbed().double())


def test_a_constant_map_goes_in_the_seeds_order_whatever_its_value() -> None:
    images, weights = drawn(1, 1, 8, 8), drawn(1, 8, 8, seed=1).double()
    scores = Scores(smooth(weights), images, torch.tensor([5]))
    for name in NAMES:
        values = {
            METRICS[name].function(scores, torch.full((1, 8, 8), value), **OPTIONS.get(name, {})).item()
            for value in (0.0, 0.1, -7.3)
        }
        assert len(values) == 1
        assert all(math.isfinite(value) for value in values)
    other = Scores(smooth(weights), images, torch.tensor([6]))
    assert deletion(scores, torch.zeros(1, 8, 8)) != deletion(other, torch.zeros(1, 8, 8))


def test_equal_sums_of_equal_patches_tie_whatever_the_order_of_their_pixels() -> None:
    maps = torch.full((1, 4, 6), 0.1)
    order = region_removals(maps, patch_numbers((4, 6), 2).expand(1, 4, 6), torch.tensor([3])).orders[0]
    patches = [patch_numbers((4, 6), 2).flatten()[position].item() for position in order.tolist()[::4]]
    assert patches == tie_order(3, 6).tolist()


def test_all_channels_of_a_pixel_go_together_and_exactly_the_share_asked_for() -> None:
    recorder, image = Recorder(), drawn(1, 3, 10, 10)
    deletion(Scores(recorder, image), drawn(1, 10, 10, seed=1).relu(), steps=10)
    counts = []
    for row in recorder.rows:
        changed = row != image[0]
        assert torch.equal(changed.any(dim=0), changed.all(dim=0))
        counts.append(int(changed.any(dim=0).sum()))
    assert sorted(counts) == list(range(0, 101, 10))


def test_more_steps_than_pixels_are_as_many_as_pixels() -> None:
    recorder = Recorder()
    scores = Scores(recorder, drawn(1, 1, 4, 4))
    fine = deletion(scores, drawn(1, 4, 4, seed=1))
    assert len(recorder.rows) == 1 + 16 < 1 + STEPS
    assert fine == deletion(scores, drawn(1, 4, 4, seed=1), steps=16)


def test_what_metrics_share_is_scored_once() -> None:
    recorder = Recorder()
    scores, maps = Scores(recorder, drawn(2, 1, 12, 12)), drawn(2, 12, 12, seed=1)
    deletion(scores, maps)
    assert len(recorder.rows) == 2 * (1 + STEPS)
    assert torch.equal(pixel_flipping(scores, maps), deletion(scores, maps))
    deletion(scores, 3 * maps)  # the same order
    assert len(recorder.rows) == 2 * (1 + STEPS)
    pixel_flipping(scores, maps, features_in_step=1)
    assert len(recorder.rows) == 2 * (1 + 144)  # deletion's steps are among them


def test_deletion_by_imputation_shares_roads_rows() -> None:
    recorder = Recorder()
    scores, maps = Scores(recorder, drawn(1, 1, 10, 10)), drawn(1, 10, 10, seed=1)
    road(scores, maps)
    assert len(recorder.rows) == 1 + 18
    deletion(scores, maps, steps=10, fill="linear")
    deletion(scores, maps, steps=10, fill=filling("linear", noise=0.01))
    assert len(recorder.rows) == 1 + 18 + 1  # all of it gone is no share of ROAD's
    deletion(scores, maps, steps=10, fill=filling("linear", noise=0.5))
    assert len(recorder.rows) == 1 + 18 + 1 + 10


def test_patches_of_one_pixel_are_pixel_flipping_and_blocks_are_patches() -> None:
    scores, maps = Scores(smooth(drawn(1, 6, 6, seed=1).double()), drawn(1, 1, 6, 6)), drawn(1, 6, 6, seed=2)
    assert selectivity(scores, maps, patch_size=1) == pixel_flipping(scores, maps, features_in_step=1)
    whole = scores.unperturbed().double()
    over = irof(scores, maps, regions=3, fill="zero")
    torch.testing.assert_close(over, 1 - selectivity(scores, maps, patch_size=2) / whole)


@pytest.mark.parametrize(
    ("shape", "patches", "size"),
    [((224, 224), 625, 9), ((224, 224), 196, 16), ((96, 96, 96), 196, 16), ((12, 12), 196, 1), ((48, 24), 196, 3)],
)
def test_patches_are_about_as_many_at_any_size(shape: tuple[int, ...], patches: int, size: int) -> None:
    name, options = {625: ("region-perturbation", {"regions": 2}), 196: ("selectivity", {})}[patches]
    scores, maps = Scores(Recorder(), torch.ones(1, 1, *shape)), drawn(1, *shape)
    function = METRICS[name].function
    if math.prod(shape) < 3000:
        assert torch.equal(function(scores, maps, **options), function(scores, maps, patch_size=size, **options))
    assert _patch_size(shape, patches, None) == size


def test_superpixels_are_made_once_for_all_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(images: Tensor, regions: object) -> Tensor:
        made.append(len(images))
        return regions_of(images, "slic")

    monkeypatch.setattr("pellucid.metrics.deletion.regions_of", counting)
    images = drawn(2, 1, 16, 16)
    scores = Scores(smooth(drawn(1, 16, 16, seed=1).double()), images)
    values = [irof(scores, drawn(2, 16, 16, seed=seed)) for seed in (2, 3)]
    assert made == [2]
    exact = irof(scores, drawn(2, 16, 16, seed=2), regions=lambda image: regions_of(image[None], "slic")[0])
    assert torch.equal(values[0], exact)


def test_a_score_of_zero_has_no_area_relative_to_it() -> None:
    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    scores = Scores(lambda rows, sample: rows.mean((1, 2, 3)), images)
    assert irof(scores, drawn(2, 4, 4), regions=2, fill="zero").isnan().tolist() == [True, False]
    assert METRICS["irof"].missing


def test_one_superpixel_alone_says_nothing_of_a_map() -> None:
    scores = Scores(lambda rows, sample: rows.mean((1, 2, 3)), torch.rand(2, 1, 4, 4))
    numbers = torch.zeros(4, 4, dtype=torch.long)
    numbers_of = iter([numbers, patch_numbers((4, 4), 2)])
    assert irof(scores, drawn(2, 4, 4), regions=lambda image: next(numbers_of)).isnan().tolist() == [True, False]


def test_the_logit_can_be_read_instead() -> None:
    images, maps = drawn(1, 1, 6, 6), drawn(1, 6, 6, seed=1)

    def readings(rows: Tensor, sample: Tensor) -> Tensor:
        logit = rows.flatten(1).sum(dim=1)
        return torch.stack([logit.sigmoid(), logit, torch.zeros_like(logit)], dim=1)

    scores = Scores(readings, images)
    logits = Scores(lambda rows, sample: rows.flatten(1).sum(dim=1), images)
    for name in ("deletion", "insertion", "pixel-flipping", "selectivity", "region-perturbation"):
        function = METRICS[name].function
        torch.testing.assert_close(function(scores, maps, reading="logit"), function(logits, maps))
        assert function(scores, maps) != function(logits, maps)
        with pytest.raises(InputError, match="reading: expected 'probability' or 'logit'"):
            function(scores, maps, reading="class")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 5)])
def test_an_image_alone_scores_as_in_a_batch(name: str, shape: tuple[int, ...]) -> None:
    images, maps, seeds = drawn(3, 2, *shape), drawn(3, *shape, seed=1).relu(), torch.tensor([4, 5, 6])
    weights = drawn(2, *shape, seed=2).double()
    function, options = METRICS[name].function, OPTIONS.get(name, {})
    together = function(Scores(smooth(weights), images, seeds), maps, **options)
    assert together.shape == (3,)
    for row in range(3):
        part = slice(row, row + 1)
        alone = function(Scores(smooth(weights), images[part], seeds[part], block_bytes=1), maps[part], **options)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


def test_an_image_with_fewer_superpixels_scores_as_alone() -> None:
    images, maps = drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    weights = drawn(1, 6, 6, seed=2).double()
    coarse, fine = patch_numbers((6, 6), 3), patch_numbers((6, 6), 2)

    def regions(image: Tensor) -> Tensor:
        return coarse if torch.equal(image, images[0]) else fine

    seeds = torch.tensor([1, 2])
    together = irof(Scores(smooth(weights), images, seeds), maps, regions=regions)
    for row, numbers in enumerate((coarse, fine)):
        scores = Scores(smooth(weights), images[row : row + 1], seeds[row : row + 1])
        alone = irof(scores, maps[row : row + 1], regions=numbers)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_values_keep_their_range_and_direction_over_many_maps(name: str) -> None:
    """Of a linear model in [0, 1], what pixels add is better than random maps are on average, its negative worse."""
    entry, options = METRICS[name], {**OPTIONS.get(name, {}), "fill": "zero"}  # a darker pixel is what isn't there
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) ** 6
    scores = Scores(lambda rows, sample: (rows * weights / weights.sum()).flatten(1).sum(dim=1).clamp(0, 1), images)
    assert entry.range is not None
    low, high = entry.range
    random = torch.stack([entry.function(scores, drawn(4, 8, 8, seed=seed), **options) for seed in range(40)])
    assert ((random >= low) & (random <= high)).all()
    faithful = (images * weights)[:, 0]
    sign = 1 if entry.higher_is_better else -1
    best, worst = (entry.function(scores, each, **options) * sign for each in (faithful, -faithful))
    blind = (random * sign).mean(dim=0)
    assert (best > blind).all()
    assert (worst < blind).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deletion", {"steps": 0}, "steps: expected a whole number of 1 or more, got 0"),
        ("insertion", {"steps": -1}, "steps: expected"),
        ("pixel-flipping", {"features_in_step": 0}, "features_in_step: expected"),
        ("region-perturbation", {"patch_size": 0}, "patch_size: expected"),
        ("region-perturbation", {"regions": 0}, "regions: expected a whole number"),
        ("selectivity", {"patch_size": 0}, "patch_size: expected"),
        ("irof", {"regions": "felzenszwalb"}, "regions: expected blocks per axis"),
        ("deletion", {"fill": "blurr"}, "blur"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        METRICS[name].function(Scores(Recorder(), drawn(1, 1, 8, 8)), drawn(1, 8, 8), **options)


@pytest.mark.parametrize("name", NAMES)
def test_maps_that_do_not_fit_are_refused(name: str) -> None:
    for maps, message in ((torch.zeros(1, 7, 7), "shape"), (torch.full((1, 8, 8), torch.nan), "finite")):
        with pytest.raises(InputError, match=f"maps: expected .*{message}"):
            METRICS[name].function(Scores(Recorder(), drawn(1, 1, 8, 8)), maps, **OPTIONS.get(name, {}))
