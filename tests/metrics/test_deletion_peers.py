"""Removal curves beside Quantus: equal where it is right, and for each of its faults what it gives and what is due."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.metrics import filling
from pellucid.metrics.deletion import (
    deletion,
    irof,
    patch_numbers,
    pixel_flipping,
    region_perturbation,
    region_removals,
    selectivity,
)
from pellucid.metrics.removals import First
from pellucid.metrics.road import road
from pellucid.metrics.scores import ScoreOf, Scores
from references import removal as reference


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def order_of(saliency: Tensor) -> list[int]:
    """The most relevant first; none are equal."""
    order: list[int] = saliency.flatten().argsort(descending=True).tolist()
    return order


def mean_brightness(rows: Tensor, sample: Tensor) -> Tensor:
    return rows.flatten(1).mean(dim=1)


class Seen(nn.Module):
    """A small network that keeps what it was shown."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 3))
        self.inner[3].weight.data *= 4
        self.rows: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.rows += list(images.detach())
        outputs: Tensor = self.inner(images.float())
        return outputs


def softmax_of(model: nn.Module, classes: Sequence[int]) -> ScoreOf:
    """The probability of each image's class, and the class with the largest."""

    @torch.no_grad()
    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        logits = model(rows)
        places = torch.tensor(classes)[sample].unsqueeze(1)
        top = logits.argmax(dim=1, keepdim=True).to(logits)
        return torch.cat([logits.softmax(dim=1).gather(1, places), logits.gather(1, places), top], dim=1)

    return score_of


CLASSES = [0, 2]


def peer(name: str, **options: object) -> Any:
    quantus = pytest.importorskip("quantus")
    return getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True, **options)


def asked(
    metric: Any,
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    classes: Sequence[int] = CLASSES,
    **options: object,
) -> Any:
    """What Quantus gives for images (B, C, H, W) and maps (B, H, W)."""
    return metric(
        model=model.eval(),
        x_batch=images.numpy(),
        y_batch=np.array(classes[: len(images)]),
        a_batch=maps.unsqueeze(1).numpy(),
        channel_first=True,
        device="cpu",
        **options,
    )


parity = pytest.mark.parity
quietly = pytest.mark.filterwarnings("ignore")


@parity
@quietly
def test_pixel_flipping_has_quantus_scores_of_grey_images() -> None:
    model, images, maps = Seen(1).eval(), drawn(2, 1, 12, 12), drawn(2, 12, 12, seed=1)
    theirs = asked(peer("PixelFlipping", features_in_step=9, perturb_baseline=0.0), model, images, maps)
    scores = Scores(softmax_of(model, CLASSES), images)
    order = torch.stack([torch.tensor(order_of(each)) for each in maps])
    ours = scores.without(First(order, list(range(9, 145, 9))), "zero")
    np.testing.assert_allclose(ours.numpy(), np.array(theirs), atol=1e-6)
    curve = torch.cat([scores.unperturbed().unsqueeze(1), ours], dim=1).double()
    exact = torch.trapezoid(curve, torch.linspace(0, 1, 17, dtype=torch.float64), dim=1)
    torch.testing.assert_close(pixel_flipping(scores, maps, features_in_step=9), exact)


@parity
@quietly
def test_quantus_area_grows_with_the_number_of_steps_and_ours_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a step for 1 and leaves out the image: a score that stays 1 has an area of 1, not of 15 or 143."""
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # gone from NumPy 2.4, where its areas raise
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model[1].bias.data[0] = 100.0
    images, maps = drawn(1, 1, 12, 12), drawn(1, 12, 12, seed=1)
    scores = Scores(softmax_of(model, [0]), images)
    for features, wrong in ((9, 15.0), (1, 143.0)):
        metric = peer("PixelFlipping", features_in_step=features, perturb_baseline=0.0, return_auc_per_sample=True)
        assert asked(metric, model, images, maps) == [pytest.approx(wrong)]
        assert pixel_flipping(scores, maps, features_in_step=features).item() == pytest.approx(1.0)


@parity
@quietly
def test_quantus_flips_the_channels_of_a_pixel_apart_and_ours_together() -> None:
    model, image, maps = Seen(3).eval(), drawn(1, 3, 12, 12), drawn(1, 12, 12, seed=1)
    asked(peer("PixelFlipping", features_in_step=8, perturb_baseline=0.0), model, image, maps)
    halves = [(row.float() != image[0]) for row in model.rows]
    apart = sum(not torch.equal(changed.any(dim=0), changed.all(dim=0)) for changed in halves)
    assert len(halves) == 54  # steps of eight values, not of eight pixels
    assert apart == 36  # every step but each third leaves a pixel of which some channels are gone
    model.rows.clear()
    pixel_flipping(Scores(softmax_of(model, [0]), image), maps, features_in_step=8)
    assert len(model.rows) == 1 + 18
    for row in model.rows:
        changed = row != image[0]
        assert torch.equal(changed.any(dim=0), changed.all(dim=0))


@parity
@quietly
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_have_quantus_scores_where_they_fit_the_image(channels: int) -> None:
    model, images, maps = Seen(channels).eval(), drawn(2, channels, 12, 12), drawn(2, 12, 12, seed=1)
    scores = Scores(softmax_of(model, CLASSES), images)
    metric = peer("RegionPerturbation", patch_size=4, regions_evaluation=5, perturb_baseline=0.0)
    falls = np.array(asked(metric, model, images, maps))
    ours = region_perturbation(scores, maps, patch_size=4, regions=5, fill="zero")
    np.testing.assert_allclose(ours.numpy(), falls.sum(axis=1) / 6, atol=1e-6)  # step 0, no fall, is left out there
    curve = np.array(asked(peer("Selectivity", patch_size=4, perturb_baseline=0.0), model, images, maps))
    curve = np.concatenate([scores.unperturbed().numpy()[:, None], curve], axis=1)
    exact = [reference.area(each, np.linspace(0, 1, 10).tolist()) for each in curve.tolist()]
    np.testing.assert_allclose(selectivity(scores, maps, patch_size=4).numpy(), exact, atol=1e-6)


@parity
@quietly
def test_quantus_mean_is_of_what_is_left_and_ours_of_the_image() -> None:
    """What a patch is filled with there depends on which went before it."""
    model, image, maps = Seen(1), drawn(1, 1, 12, 12), drawn(1, 12, 12, seed=1)
    asked(peer("Selectivity", patch_size=4, perturb_baseline="mean"), model, image, maps)
    assert len(model.rows[-1].unique()) == 9  # all is gone, and each patch has another value
    model.rows.clear()
    selectivity(Scores(softmax_of(model, [0]), image), maps, patch_size=4, fill="mean")
    (ours,) = [row for row in model.rows if len(row.unique()) == 1]
    assert ours[0, 0, 0].item() == pytest.approx(image.mean().item())


def planned(monkeypatch: pytest.MonkeyPatch, numbers: Sequence[Tensor]) -> None:
    """Let Quantus take these segments, image by image."""
    pytest.importorskip("quantus")
    from quantus.helpers import utils

    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    given = iter(numbers)
    monkeypatch.setattr(utils, "get_superpixel_segments", lambda img, segmentation_method: next(given).numpy())


@parity
@quietly
def test_irof_has_quantus_scores_of_grey_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, maps = Seen(1).eval(), drawn(2, 1, 12, 12), drawn(2, 12, 12, seed=1)
    numbers = patch_numbers((12, 12), 4)
    planned(monkeypatch, [numbers, numbers])
    theirs = asked(peer("IROF", perturb_baseline=0.0, return_aggregate=False), model, images, maps)
    scores = Scores(softmax_of(model, CLASSES), images)
    removals = region_removals(maps, numbers.expand(2, -1, -1), scores.seeds, mean=True)
    relative = (scores.without(removals, "zero") / scores.unperturbed().unsqueeze(1)).double()
    np.testing.assert_allclose(9 - torch.trapezoid(relative[:, 1:], dim=1).numpy(), theirs, rtol=1e-5)  # its area
    exact = 1 - torch.trapezoid(relative, dim=1) / 9  # patches are of one size, so shares are ninths
    torch.testing.assert_close(irof(scores, maps, regions=numbers, fill="zero"), exact)


@parity
@quietly
def test_quantus_irof_of_a_score_that_never_falls_is_one_and_ours_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the areas of n - 1 steps from n; and an image with fewer segments than its neighbour gets half more."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    nn.init.zeros_(model[1].weight)
    images, maps = drawn(2, 1, 12, 12), drawn(2, 12, 12, seed=1)
    coarse, fine = patch_numbers((12, 12), 6), patch_numbers((12, 12), 4)
    planned(monkeypatch, [fine, fine, coarse, fine])
    assert asked(peer("IROF", perturb_baseline=0.0, return_aggregate=False), model, images, maps) == pytest.approx(
        [1.0, 1.0]
    )
    mixed = asked(peer("IROF", perturb_baseline=0.0, return_aggregate=False), model, images, maps)
    assert mixed == pytest.approx([0.5, 1.0])
    scores = Scores(softmax_of(model, CLASSES), images)
    assert irof(scores, maps, regions=fine).tolist() == pytest.approx([0.0, 0.0])
    assert irof(scores, maps, regions=coarse).tolist() == pytest.approx([0.0, 0.0])


@parity
@quietly
def test_quantus_irof_refuses_colour_images_and_ours_has_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, maps = Seen(3).eval(), drawn(1, 3, 12, 12), drawn(1, 12, 12, seed=1)
    planned(monkeypatch, [patch_numbers((12, 12), 4)])
    with pytest.raises(AssertionError, match="shape of arr must be the same as the mask"):
        asked(peer("IROF", perturb_baseline=0.0, return_aggregate=False), model, images, maps)
    value = irof(Scores(softmax_of(model, [0]), images), maps, regions=3, fill="zero").item()
    assert math.isfinite(value)


@parity
@quietly
def test_quantus_road_raises_on_colour_images_and_ours_has_a_value() -> None:
    model, images, maps = Seen(3).eval(), drawn(2, 3, 12, 12), drawn(2, 12, 12, seed=1)
    with pytest.raises(IndexError):
        asked(peer("ROAD", percentages=[50]), model, images, maps)
    assert road(Scores(softmax_of(model, CLASSES), images), maps).isfinite().all()


def kept_class(scores: Scores, maps: Tensor, counts: Sequence[int], classes: Sequence[int]) -> Tensor:
    """Whether the explained class is still the largest (B, R), as the most relevant pixels go."""
    orders = torch.stack([torch.tensor(order_of(each)) for each in maps])
    found = scores.without(First(orders, counts), filling("linear", noise=0.0), "class")
    return found == torch.tensor(classes).unsqueeze(1)


@parity
@quietly
def test_road_keeps_the_class_of_grey_images_where_quantus_does() -> None:
    model, images, maps = Seen(1).eval(), drawn(6, 1, 12, 12), drawn(6, 12, 12, seed=1)
    classes = model(images).argmax(dim=1).tolist()
    percentages = [10, 20, 30, 40, 50, 60, 70, 80, 90]
    theirs = asked(peer("ROAD", percentages=percentages, noise=0.0), model, images, maps, classes)
    counts = [int(144 * percentage / 100) for percentage in percentages]
    ours = kept_class(Scores(softmax_of(model, classes), images), maps, counts, classes).double().mean(dim=0)
    assert list(theirs.values()) == pytest.approx(ours.tolist())
    assert 0 < sum(theirs.values()) < 9


@parity
@quietly
def test_quantus_road_scores_its_first_batch_alone_and_ours_each_image() -> None:
    """One image keeps its class and one never has it: in batches of one Quantus says 1, or 0, by which comes first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([1.0, 0.0, 0.0])  # always class 0; the second is explained for class 2
    images, maps = drawn(2, 1, 12, 12), drawn(2, 12, 12, seed=1)
    theirs = [
        asked(peer("ROAD", percentages=[50], noise=0.0), model, images, maps, batch_size=size)[50] for size in (1, 2)
    ]
    assert theirs == [1.0, 0.5]
    ours = kept_class(Scores(softmax_of(model, CLASSES), images), maps, [72], CLASSES)
    assert ours.flatten().tolist() == [True, False]


@parity
@quietly
def test_quantus_noise_differs_from_call_to_call_and_ours_repeats() -> None:
    quantus = pytest.importorskip("quantus")
    image = drawn(1, 12, 12).double().numpy()
    gone = np.arange(30)
    first, second = (quantus.functions.perturb_func.noisy_linear_imputation(image, gone, noise=0.1) for _ in range(2))
    assert np.abs(first - second).max() > 0.05
    uniform = [quantus.functions.perturb_func.get_baseline_value("uniform", image, (4,)) for _ in range(2)]
    assert not np.array_equal(*uniform)
    for fill in (filling("linear", noise=0.1), filling("noise", kind="uniform")):
        values = [
            deletion(Scores(mean_brightness, drawn(1, 1, 12, 12)), drawn(1, 12, 12, seed=1), fill=fill)
            for _ in range(2)
        ]
        assert torch.equal(*values)
