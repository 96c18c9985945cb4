"""Masked images against plain loops, networks whose answer is known, the papers' released code and pytorch-grad-cam."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.again import Again, Explained
from pellucid.metrics.confidence import (
    adcc,
    arcc,
    average_drop,
    average_gain,
    increase_in_confidence,
    unit_maps,
)
from pellucid.metrics.road import road
from pellucid.metrics.scores import ScoreOf, Scores
from references import removal as reference

SHAPES = [(7, 6), (3, 4, 5)]
MASKED = ("average-drop", "average-gain", "increase-in-confidence")
AGAIN = ("arcc", "adcc")

MapOf = Callable[[Tensor], Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(weights: Tensor) -> ScoreOf:
    return lambda rows, sample: (rows.double() * weights).flatten(1).sum(dim=1).div(4).sigmoid()


def again_of(images: Tensor, maps: Tensor, map_of: MapOf, asked: list[Tensor] | None = None) -> Again:
    """A method whose map of images (M, C, *S) is `map_of` them."""

    def explainer(model: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        if asked is not None:
            asked.append(rows)
        return {"method": map_of(rows)}

    zeros = torch.zeros(len(images), dtype=torch.long)
    model = nn.Identity()
    explained = Explained(model, explainer, lambda rows: rows, images, zeros, zeros, zeros, {"method": maps})
    return Again(explained, "method")


def brightness(rows: Tensor) -> Tensor:
    return rows.mean(dim=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_masked_metrics_equal_plain_loops(shape: tuple[int, ...]) -> None:
    images, weights = drawn(6, 2, *shape), drawn(2, *shape, seed=1).double()
    maps = drawn(6, *shape, seed=2)
    maps[5] = 3.0
    scores = Scores(smooth(weights), images)
    found = [METRICS[name].function(scores, maps) for name in MASKED]
    rises = 0
    for row, (image, saliency) in enumerate(zip(images.double().numpy(), maps.double().numpy(), strict=True)):
        masked = image * reference.scaled(saliency)
        whole, shown = (1 / (1 + math.exp(-float((each * weights.numpy()).sum()) / 4)) for each in (image, masked))
        assert found[0][row].item() == pytest.approx(max(0, whole - shown) / whole, abs=1e-6)
        assert found[1][row].item() == pytest.approx(max(0, shown - whole) / (1 - whole), abs=1e-6)
        assert found[2][row].item() == float(shown > whole)
        rises += shown > whole
    assert 0 < rises < 6
    assert all(values.dtype == torch.float64 for values in found)


@pytest.mark.parametrize("shape", [(9, 8), (4, 4, 5)])
def test_arcc_and_adcc_equal_plain_loops(shape: tuple[int, ...]) -> None:
    images, weights = drawn(5, 2, *shape), drawn(2, *shape, seed=1).double()
    maps = (images * weights).sum(dim=1).float() + 0.5 * drawn(5, *shape, seed=2)
    scores = Scores(smooth(weights), images)

    def map_of(rows: Tensor) -> Tensor:
        return rows.square().sum(dim=1) + rows[:, 0]

    again = again_of(images, maps, map_of)
    found = {name: METRICS[name].function(scores, again, maps) for name in AGAIN}
    increase = road(scores, maps, fractions=(0.2, 0.4, 0.6, 0.8)).tolist()
    drops = average_drop(scores, maps).tolist()
    for row, (image, saliency) in enumerate(zip(images.double().numpy(), maps.double().numpy(), strict=True)):
        unit = reference.scaled(saliency)
        masked = torch.from_numpy(image * unit)
        coherency = (reference.correlation(saliency, map_of(masked[None])[0].numpy()) + 1) / 2
        simplicity = 1 - unit.mean()
        faithful = min(max(2 * increase[row], 0), 1)
        exact = reference.harmonic_mean(coherency, simplicity, faithful)
        assert found["arcc"][row].item() == pytest.approx(exact, abs=1e-6)
        exact = reference.harmonic_mean(coherency, simplicity, 1 - drops[row])
        assert found["adcc"][row].item() == pytest.approx(exact, abs=1e-6)
    assert (found["arcc"] > 0).any()


def patch_case() -> tuple[Scores, Tensor]:
    """A bright patch on a brighter ground; the score is the patch's lead over the ground, from 0 to 1."""
    image = torch.full((1, 1, 12, 12), 0.5)
    image[..., 4:8, 4:8] = 0.9

    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        patch = rows[..., 4:8, 4:8].sum(dim=(1, 2, 3))
        ground = rows.sum(dim=(1, 2, 3)) - patch
        return patch / 16 - ground / 128

    perfect = torch.zeros(1, 12, 12)
    perfect[:, 4:8, 4:8] = 1
    return Scores(score_of, image), perfect


def test_a_model_that_looks_at_one_patch() -> None:
    """What the map shows alone: the score rises from 0.4 to 0.9; where it hides the patch, it falls to nothing."""
    scores, perfect = patch_case()
    assert scores.unperturbed().item() == pytest.approx(0.4)
    assert average_drop(scores, perfect).item() == 0
    assert average_gain(scores, perfect).item() == pytest.approx(0.5 / 0.6)
    assert increase_in_confidence(scores, perfect).item() == 1
    assert average_drop(scores, 1 - perfect).item() > 1  # a score that turns negative, which no probability does
    assert average_gain(scores, 1 - perfect).item() == 0
    assert increase_in_confidence(scores, 1 - perfect).item() == 0


def test_scale_and_shift_of_a_map_change_nothing() -> None:
    scores = Scores(smooth(drawn(1, 8, 8, seed=1).double()), drawn(3, 1, 8, 8))
    maps = drawn(3, 8, 8, seed=2)
    for name in MASKED:
        values = [METRICS[name].function(scores, each) for each in (maps, 4 * maps, maps + 2)]
        for other in values[1:]:
            torch.testing.assert_close(other, values[0], rtol=0, atol=1e-6)


def test_a_map_that_is_the_same_everywhere_shows_nothing() -> None:
    """Whatever its value, and where it differs by rounding alone, which scaling would blow up to all there is."""
    rounding = torch.full((1, 8, 8), 0.1)
    rounding[0, 0, 0] = torch.nextafter(torch.tensor(0.1), torch.tensor(1.0))
    for maps in (torch.zeros(1, 8, 8), torch.ones(1, 8, 8), torch.full((1, 8, 8), -7.0), rounding):
        assert torch.equal(unit_maps(maps), torch.zeros(1, 8, 8))
        images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        scores = Scores(lambda rows, sample: rows.mean((1, 2, 3)), images)
        assert average_drop(scores, maps).item() == 1
        assert average_gain(scores, maps).item() == 0
        assert increase_in_confidence(scores, maps).item() == 0
        again = again_of(images, maps, brightness)
        assert arcc(scores, again, maps).item() == 0
        assert adcc(scores, again, maps).item() == 0


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 1e30, 3e38])
def test_maps_of_any_size_are_scaled(size: float) -> None:
    maps = torch.tensor([[-1.0, 0.0, 1.0]]) * size
    torch.testing.assert_close(unit_maps(maps), torch.tensor([[0.0, 0.5, 1.0]]))


def test_a_score_of_nothing_has_no_drop_and_one_of_all_no_gain() -> None:
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    scores = Scores(lambda rows, sample: rows.amax((1, 2, 3)), images)
    maps = drawn(3, 4, 4)
    assert average_drop(scores, maps).isnan().tolist() == [True, False, False]
    assert average_gain(scores, maps).isnan().tolist() == [False, False, True]
    assert not increase_in_confidence(scores, maps).isnan().any()
    assert adcc(scores, again_of(images, maps, brightness), maps).isnan().tolist() == [True, False, False]
    assert all(METRICS[name].missing for name in ("average-drop", "average-gain", "arcc", "adcc"))


def test_a_part_that_is_zero_makes_arcc_zero_where_the_released_code_says_a_little_more() -> None:
    """A map without effect on the score: ROAD is 0, so is the mean of rates; with 1e-8 in each it is 3e-8."""
    images, maps = drawn(1, 1, 8, 8), drawn(1, 8, 8, seed=1)
    scores = Scores(lambda rows, sample: torch.full((len(rows),), 0.5), images)
    assert arcc(scores, again_of(images, maps, brightness), maps).item() == 0.0
    coherency, simplicity, faithful = 0.8, 0.7, 0.0
    released = 3 / sum(1 / (part + 1e-8) for part in (coherency, simplicity, faithful))
    assert released == pytest.approx(3e-8, rel=1e-4)
    assert reference.harmonic_mean(coherency, simplicity, faithful) == 0.0
    kept = 3 / sum(1 / (part + 1e-8) for part in (0.8, 0.7, 0.6))
    assert reference.harmonic_mean(0.8, 0.7, 0.6) == pytest.approx(kept, abs=1e-7)  # elsewhere nothing is changed


def test_a_weak_map_that_comes_back_is_coherent_where_the_released_code_halves_it() -> None:
    """Its 1e-8 beside the product of two standard deviations is no small number where maps are small."""
    images, maps = drawn(1, 1, 8, 8), drawn(1, 8, 8, seed=1) * 1e-4
    scores = Scores(smooth(drawn(1, 8, 8, seed=1).double()), images)
    values = [adcc(scores, again_of(images, each, lambda rows, each=each: each), each) for each in (maps, maps * 1e4)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-5)
    exact = reference.correlation(maps[0].double().numpy(), maps[0].double().numpy())
    spread = maps.double().std().item()
    assert exact == pytest.approx(1)
    assert spread**2 / (spread**2 + 1e-8) < 0.6  # theirs


def test_adcc_is_the_harmonic_mean_and_the_authors_code_its_inverse() -> None:
    """Their repository multiplies 3 by the sum of inverses, which isn't divided by: 12.4 where 0.73 is meant."""
    images = drawn(1, 1, 8, 8)
    weights = drawn(1, 8, 8, seed=1).double()
    maps = (images * weights)[:, 0].float()
    scores, again = Scores(smooth(weights), images), again_of(images, maps, brightness)
    masked = images * unit_maps(maps).unsqueeze(1)
    coherency = (reference.correlation(maps[0].double().numpy(), masked[0, 0].double().numpy()) + 1) / 2
    parts = (coherency, 1 - unit_maps(maps).mean().item(), 1 - average_drop(scores, maps).item())
    theirs = 3 * sum(1 / part for part in parts)
    ours = adcc(scores, again, maps).item()
    assert theirs > 9
    assert ours == pytest.approx(9 / theirs, abs=1e-6)
    assert 0 < ours < 1


def test_a_map_that_comes_back_is_coherent_its_negative_is_not() -> None:
    """Coherency 1 leaves the other parts' mean; with 0 nothing is left; without variation it is one half."""
    images, maps = drawn(1, 1, 8, 8).abs(), drawn(1, 8, 8, seed=1)
    weights = drawn(1, 8, 8, seed=2).double()

    def value(map_of: MapOf) -> float:
        return adcc(Scores(smooth(weights), images), again_of(images, maps, map_of), maps).item()

    rest = 1 - unit_maps(maps).double().mean().item(), 1 - average_drop(Scores(smooth(weights), images), maps).item()
    assert value(lambda rows: 2 * maps + 1) == pytest.approx(reference.harmonic_mean(1, *rest), abs=1e-6)
    assert value(lambda rows: -maps) == pytest.approx(0, abs=1e-6)
    assert value(lambda rows: torch.zeros_like(maps)) == pytest.approx(reference.harmonic_mean(0.5, *rest), abs=1e-6)
    assert math.isnan(value(lambda rows: torch.full_like(maps, torch.nan)))


def test_the_map_is_made_again_of_the_image_times_the_map() -> None:
    images, maps, asked = drawn(2, 3, 6, 6), drawn(2, 6, 6, seed=1), []
    scores = Scores(smooth(drawn(3, 6, 6, seed=2).double()), images)
    again = again_of(images, maps, brightness, asked)
    arcc(scores, again, maps)
    adcc(scores, again, maps)
    assert len(asked) == 1  # once for both
    exact = images.double().numpy() * np.stack([reference.scaled(each) for each in maps.double().numpy()])[:, None]
    np.testing.assert_allclose(asked[0].numpy(), exact, atol=1e-6)


def test_what_metrics_share_is_scored_once() -> None:
    scores, maps = Scores(smooth(drawn(1, 8, 8, seed=1).double()), drawn(2, 1, 8, 8)), drawn(2, 8, 8, seed=2)
    for name in MASKED:
        METRICS[name].function(scores, maps)
        METRICS[name].function(scores, maps.clone())
    assert scores.rows == 2 + 2
    average_drop(scores, -maps)
    assert scores.rows == 2 + 4
    road(scores, maps)
    known = scores.rows
    arcc(scores, again_of(scores.images, maps, brightness), maps)
    assert scores.rows == known  # its four shares are among ROAD's nine


@pytest.mark.parametrize("name", [*MASKED, *AGAIN])
@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 5)])
def test_an_image_alone_scores_as_in_a_batch(name: str, shape: tuple[int, ...]) -> None:
    images, maps, seeds = drawn(3, 2, *shape), drawn(3, *shape, seed=1), torch.tensor([4, 5, 6])
    weights = drawn(2, *shape, seed=2).double()

    def value(part: slice) -> Tensor:
        given: list[object] = [Scores(smooth(weights), images[part], seeds[part])]
        given += [again_of(images[part], maps[part], brightness)] if name in AGAIN else []
        values: Tensor = METRICS[name].function(*given, maps[part])
        return values

    together = value(slice(0, 3))
    assert together.shape == (3,)
    for row in range(3):
        torch.testing.assert_close(value(slice(row, row + 1))[0], together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*MASKED, *AGAIN])
def test_values_keep_their_range_and_direction_over_many_maps(name: str) -> None:
    """A bright patch counts for the class, what lies around it against; the faithful map shows the patch alone."""
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    patch = torch.zeros(8, 8)
    patch[2:5, 3:6] = 1
    images = images / 4 + patch
    weights = (2 * patch - 0.3).double().unsqueeze(0)
    scores = Scores(smooth(weights), images)
    entry = METRICS[name]
    assert entry.range is not None

    def value(maps: Tensor) -> Tensor:
        given = [scores, again_of(images, maps, brightness)] if name in AGAIN else [scores]
        values: Tensor = entry.function(*given, maps)
        assert ((values >= entry.range[0]) & (values <= entry.range[1])).all()
        return values.mean() if entry.higher_is_better else -values.mean()

    random = torch.stack([value(drawn(6, 8, 8, seed=seed)) for seed in range(2, 32)])
    faithful = patch.expand(6, 8, 8)
    assert value(faithful) > random.mean()
    assert value(faithful) > value(-faithful)


@pytest.mark.parametrize("name", [*MASKED, *AGAIN])
def test_maps_that_do_not_fit_are_refused(name: str) -> None:
    images = drawn(1, 1, 8, 8)
    for maps, message in ((torch.zeros(1, 7, 7), "shape"), (torch.full((1, 8, 8), torch.nan), "finite")):
        given: list[object] = [Scores(smooth(torch.ones(1, 8, 8)), images)]
        given += [again_of(images, maps, brightness)] if name in AGAIN else []
        with pytest.raises(InputError, match=f"maps: expected .*{message}"):
            METRICS[name].function(*given, maps)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_pytorch_grad_cam_gives_the_drop_in_points_and_ours_the_share() -> None:
    """The paper divides by the score: a drop from 0.02 to 0.01 is one of half, not of a hundredth."""
    pytest.importorskip("pytorch_grad_cam")
    module = importlib.import_module("pytorch_grad_cam.metrics.cam_mult_image")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 3)).eval()
    images, maps, classes = drawn(6, 3, 12, 12), drawn(6, 12, 12, seed=1), [0, 1, 2, 0, 1, 2]
    wanted = [targets.ClassifierOutputSoftmaxTarget(each) for each in classes]

    @torch.no_grad()
    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        probabilities: Tensor = model(rows).softmax(dim=1)
        return probabilities[torch.arange(len(rows)), torch.tensor(classes)[sample]]

    scores, unit = Scores(score_of, images), unit_maps(maps).numpy()
    whole = scores.unperturbed().numpy()
    points = module.DropInConfidence()(images, unit, wanted, model)
    np.testing.assert_allclose(average_drop(scores, maps).numpy(), points / whole, atol=1e-5)
    assert np.abs(average_drop(scores, maps).numpy() - points).max() > 0.05
    rises = module.IncreaseInConfidence()(images, unit, wanted, model)
    assert increase_in_confidence(scores, maps).tolist() == rises.tolist()
    assert 0 < rises.sum() < 6
    change = module.CamMultImageConfidenceChange()(images, unit, wanted, model)
    np.testing.assert_allclose(average_gain(scores, maps).numpy(), np.maximum(change, 0) / (1 - whole), atol=1e-5)
