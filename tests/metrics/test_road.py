"""ROAD's curves and scores against plain loops, cases with a known answer and the peer."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.draws import tie_order
from pellucid.metrics.families import Metric
from pellucid.metrics.ranking import removal_count
from pellucid.metrics.road import FRACTIONS, RoadCurves, road, road_curves, road_lerf, road_morf
from pellucid.metrics.scores import ScoreOf, Scores
from references import road as reference

SHAPES = [(12, 10), (4, 5, 6)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(weights: Tensor) -> ScoreOf:
    """A score that is linear in the pixels: what each pixel adds is known."""
    return lambda images, sample: (images.double() * weights).flatten(1).sum(dim=1)


class Recorder:
    """A score that keeps what it was shown."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.samples: list[int] = []

    def __call__(self, images: Tensor, sample: Tensor) -> Tensor:
        self.rows += list(images)
        self.samples += sample.tolist()
        return images.flatten(1).mean(dim=1)


def score(curves: RoadCurves) -> Tensor:
    return ((curves.lerf - curves.morf) / 2).mean(dim=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_paper(shape: tuple[int, ...], channels: int) -> None:
    images, weights = drawn(2, channels, *shape), drawn(channels, *shape, seed=1).double()
    maps = drawn(2, *shape, seed=2).relu()  # half zeros, so ties matter
    seeds = torch.tensor([8, 9])
    score_of = linear(weights)
    curves = road_curves(Scores(score_of, images, seeds), maps, noise=0.0)
    positions = maps[0].numel()
    for image, saliency, seed, morf, lerf in zip(images, maps, seeds.tolist(), curves.morf, curves.lerf, strict=True):
        ties = tie_order(seed, positions).tolist()
        for first, curve in ((True, morf), (False, lerf)):
            order = reference.order(saliency.double().numpy(), ties, most_relevant_first=first)
            for fraction, value in zip(FRACTIONS, curve.tolist(), strict=True):
                removed = reference.mask(order, round(fraction * positions), shape)
                filled = torch.from_numpy(reference.imputed(image.double().numpy(), removed))
                exact = score_of(filled[None], torch.tensor([0])).item()
                assert value == pytest.approx(exact, abs=1e-3)
    assert torch.equal(curves.unperturbed, score_of(images, torch.arange(2)))
    expected = sum((lerf - morf) / 2 for lerf, morf in zip(curves.lerf.T, curves.morf.T, strict=True)) / len(FRACTIONS)
    torch.testing.assert_close(score(curves), expected)


def patch_case(size: int = 32) -> tuple[Tensor, Tensor, ScoreOf]:
    """A bright patch on black, a model that looks at it alone, and the map that says so."""
    image = torch.zeros(1, 1, size, size)
    image[..., 12:20, 12:20] = 1
    return image, image[:, 0], lambda images, sample: images[..., 12:20, 12:20].mean(dim=(1, 2, 3))


def test_a_model_that_looks_at_one_patch_gives_the_perfect_map_one_half() -> None:
    """Most relevant first, the patch is black from the first step on; least relevant first, it is always whole."""
    image, perfect, score_of = patch_case()
    curves = road_curves(Scores(score_of, image), perfect, noise=0.0)
    assert curves.morf.abs().max() < 1e-6
    assert (curves.lerf - 1).abs().max() < 1e-6
    assert score(curves).item() == pytest.approx(0.5)
    assert score(road_curves(Scores(score_of, image), 1 - perfect, noise=0.0)).item() == pytest.approx(-0.5)


def test_a_constant_map_and_an_empty_one_score_exactly_nothing() -> None:
    image, _, score_of = patch_case()
    for value in (0.0, 7.0):
        curves = road_curves(Scores(score_of, image), torch.full((1, 32, 32), value))
        assert torch.equal(curves.morf, curves.lerf)
        assert score(curves).item() == 0.0


def test_a_faithful_map_beats_a_random_one_and_its_inverse_loses() -> None:
    """Of a linear model of white noise, weight times pixel is what a pixel adds, and imputation puts about 0 there."""
    images, weights = drawn(8, 1, 24, 24), drawn(1, 24, 24, seed=1).double()
    faithful = (images * weights)[:, 0].float()
    random = drawn(8, 24, 24, seed=2)
    best, blind, worst = (
        score(road_curves(Scores(linear(weights), images), maps, noise=0.0)) for maps in (faithful, random, -faithful)
    )
    scale = faithful.abs().flatten(1).sum(dim=1)
    assert (best > blind + 0.1 * scale).all()
    assert (blind > worst + 0.1 * scale).all()
    torch.testing.assert_close(worst, -best)  # without ties, removing in one order is keeping in the other
    assert blind.abs().max() < 0.1 * scale.max()


def test_a_map_with_ties_loses_exactly_the_share_that_is_stated() -> None:
    recorder = Recorder()
    image = drawn(1, 2, 20, 20)
    saliency = drawn(1, 20, 20, seed=1).abs()
    saliency.view(-1)[:240] = 0  # 60 % zeros
    curves = road_curves(Scores(recorder, image), saliency)
    counts = {int((row != image[0]).any(dim=0).sum()) for row in recorder.rows}
    assert counts == {0, *(40 * step for step in range(1, 10))}
    assert curves.fractions.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_fractions_are_stored_as_realised() -> None:
    curves = road_curves(Scores(Recorder(), drawn(1, 1, 3, 3)), drawn(1, 3, 3), fractions=[0.0, 0.3, 0.5, 1.0])
    assert curves.fractions.tolist() == [0, 3 / 9, 4 / 9, 1]
    assert curves.morf[0, 0] == curves.lerf[0, 0] == curves.unperturbed[0]
    assert curves.morf[0, 3] == curves.lerf[0, 3]


def test_all_channels_of_a_pixel_go_together() -> None:
    recorder = Recorder()
    image = drawn(1, 3, 16, 16)
    road_curves(Scores(recorder, image), drawn(1, 16, 16, seed=1))
    for row in recorder.rows:
        changed = row != image[0]
        assert torch.equal(changed.any(dim=0), changed.all(dim=0))


def test_noise_has_the_standard_deviation_asked_for_on_removed_pixels_alone() -> None:
    image, saliency = torch.zeros(1, 3, 80, 80), drawn(1, 80, 80)
    recorder = Recorder()
    road_curves(Scores(recorder, image), saliency, fractions=[0.5], noise=0.01)
    perturbed = [row for row in recorder.rows if row.any()]
    assert len(perturbed) == 2
    for row in perturbed:
        noise = row[row != 0]
        assert len(noise) == 3 * 3200
        assert abs(float(noise.std()) - 0.01) < 3e-4
        assert abs(float(noise.mean())) < 4e-4
    recorder = Recorder()
    road_curves(Scores(recorder, image), saliency, fractions=[0.5], noise=0.0)
    assert not any(row.any() for row in recorder.rows)


def test_a_pixel_gets_the_same_noise_at_every_fraction_and_for_every_map() -> None:
    recorder = Recorder()
    scores = Scores(recorder, torch.zeros(1, 2, 10, 10))
    for seed in range(3):
        road_curves(scores, drawn(1, 10, 10, seed=seed), noise=1.0)
    rows = torch.stack(recorder.rows)
    largest, smallest = rows.amax(dim=0), rows.amin(dim=0)
    assert ((rows == 0) | (rows == largest) | (rows == smallest)).all()
    assert (largest * smallest == 0).all()  # each value is either nothing or the pixel's one draw


def test_seeds_repeat_and_belong_to_the_image() -> None:
    images, maps = drawn(3, 1, 16, 16), drawn(3, 16, 16, seed=1).relu()
    seeds = torch.tensor([4, 5, 6])
    together = road_curves(Scores(Recorder(), images, seeds), maps)
    again = road_curves(Scores(Recorder(), images, seeds), maps)
    assert torch.equal(together.morf, again.morf)
    for row in range(3):
        part = slice(row, row + 1)
        alone = road_curves(Scores(Recorder(), images[part], seeds[part]), maps[part])
        torch.testing.assert_close(alone.morf[0], together.morf[row], rtol=0, atol=1e-5)
    others = road_curves(Scores(Recorder(), images, seeds + 10), maps)
    assert not torch.equal(together.morf, others.morf)
    default = road_curves(Scores(Recorder(), images), maps)
    assert torch.equal(default.morf, road_curves(Scores(Recorder(), images), maps).morf)


def test_a_score_does_not_depend_on_the_other_fractions() -> None:
    images, maps = drawn(1, 1, 16, 16), drawn(1, 16, 16, seed=1).relu()
    whole = road_curves(Scores(Recorder(), images), maps)
    part = road_curves(Scores(Recorder(), images), maps, fractions=[0.5])
    torch.testing.assert_close(part.lerf[:, 0], whole.lerf[:, 4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_works_with_any_number_of_channels(channels: int) -> None:
    images = drawn(2, channels, 12, 12)
    curves = road_curves(Scores(Recorder(), images), drawn(2, 12, 12, seed=1))
    assert curves.morf.shape == curves.lerf.shape == (2, 9)
    assert curves.morf.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_that_share_what_is_known_score_as_each_alone(shape: tuple[int, ...]) -> None:
    images, maps = drawn(2, 1, *shape), drawn(3, 2, *shape, seed=1)
    scores = Scores(Recorder(), images)
    for each in maps:
        alone, shared = road_curves(Scores(Recorder(), images), each), road_curves(scores, each)
        torch.testing.assert_close(alone.morf, shared.morf, rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.lerf, shared.lerf, rtol=0, atol=1e-5)


def test_what_coincides_is_scored_once() -> None:
    image, saliency = drawn(1, 1, 16, 16), drawn(1, 16, 16, seed=1)

    def rows(*maps: Tensor) -> int:
        recorder = Recorder()
        scores = Scores(recorder, image)
        for each in maps:
            road_curves(scores, each)
        assert scores.rows == len(recorder.rows)
        return len(recorder.rows)

    assert rows(saliency) == 1 + 18
    assert rows(saliency, 3 * saliency, saliency.exp()) == 1 + 18  # one order, one set of images
    assert rows(torch.zeros_like(saliency)) == 1 + 9
    assert rows(saliency, -saliency) == 1 + 18  # either is the other backwards
    assert rows(saliency, drawn(1, 16, 16, seed=2)) == 1 + 36


def test_rows_come_in_blocks_and_in_the_order_of_the_images() -> None:
    images, maps = drawn(3, 1, 16, 16), drawn(3, 16, 16, seed=1)
    sizes: list[int] = []
    recorder = Recorder()

    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        sizes.append(len(rows))
        return recorder(rows, sample)

    small = road_curves(Scores(score_of, images, block_bytes=7 * 16 * 16 * 4), maps)
    assert max(sizes) == 7
    assert sum(sizes) == 3 * 19
    assert recorder.samples[3:] == sorted(recorder.samples[3:])  # the images themselves come first
    torch.testing.assert_close(small.morf, road_curves(Scores(Recorder(), images), maps).morf, rtol=0, atol=1e-5)


def test_the_three_scores_are_means_over_fractions() -> None:
    images, maps = drawn(2, 1, 12, 12), drawn(2, 12, 12, seed=1)
    scores = Scores(linear(drawn(1, 12, 12, seed=2)), images)
    for options in ({}, {"fractions": (0.5,), "noise": 0.0}):
        curves = road_curves(scores, maps, **options)
        torch.testing.assert_close(road_morf(scores, maps, **options), curves.morf.mean(dim=1))
        torch.testing.assert_close(road_lerf(scores, maps, **options), curves.lerf.mean(dim=1))
        torch.testing.assert_close(road(scores, maps, **options), score(curves))
        assert (curves.lerf != curves.morf).all()


@pytest.mark.parametrize(("metric", "name"), [(road_morf, "morf"), (road_lerf, "lerf")])
def test_one_order_scores_no_row_of_the_other(metric: Metric, name: str) -> None:
    images, maps = drawn(2, 1, 12, 12), drawn(2, 12, 12, seed=1)
    score_of = linear(drawn(1, 12, 12, seed=2))
    alone, both = Scores(score_of, images), Scores(score_of, images)
    values = metric(alone, maps)
    assert alone.rows == 2 * (1 + len(FRACTIONS))
    torch.testing.assert_close(values, getattr(road_curves(both, maps), name).mean(dim=1))
    assert both.rows == 2 * (1 + 2 * len(FRACTIONS))
    assert torch.equal(metric(both, maps), metric(both, maps))
    assert both.rows == 2 * (1 + 2 * len(FRACTIONS))  # what "road" has asked is shared


def test_directions_are_declared() -> None:
    assert [METRICS[name].higher_is_better for name in ("road", "road-morf", "road-lerf")] == [True, False, True]
    assert METRICS["road"].options == {"fractions": FRACTIONS, "noise": 0.01}
    assert METRICS["road"].needs == ("scores", "maps")
    assert METRICS["road"].range == (-0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractions": [0.5, 1.5]}, r"fractions: expected shares of removed pixels in \[0, 1\], got 1.5"),
        ({"fractions": []}, "fractions: expected at least one"),
        ({"noise": -1.0}, "noise: expected a standard deviation of 0 or more, got -1.0"),
        ({"noise": float("nan")}, "noise: expected a standard deviation"),
        ({"maps": torch.zeros(2, 7, 7)}, r"maps: expected shape \(2, 8, 8\), a value per pixel, got \(2, 7, 7\)"),
        ({"maps": torch.zeros(1, 8, 8)}, "maps: expected shape"),
        ({"maps": torch.full((2, 8, 8), torch.inf)}, "maps: expected finite values"),
        ({"images": torch.full((2, 1, 8, 8), torch.nan)}, "images: expected finite values"),
        ({"images": torch.zeros(2, 1, 8, 8, dtype=torch.long)}, r"images: expected a float tensor"),
        ({"images": torch.zeros(2, 8)}, r"images: expected a float tensor \(B, C, \*S\)"),
        ({"score_of": lambda rows, sample: rows}, "score_of: expected one score for each of 2 rows"),
        ({"score_of": lambda rows, sample: 0.5}, "score_of: expected one score for each of 2 rows, got float"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"score_of": Recorder(), "images": drawn(2, 1, 8, 8), "maps": torch.zeros(2, 8, 8)}
    given |= arguments
    with pytest.raises(InputError, match=message):
        options = {name: value for name, value in given.items() if name in ("fractions", "noise")}
        road_curves(Scores(given["score_of"], given["images"]), given["maps"], **options)


def small_network() -> nn.Module:
    """A network whose probabilities move widely as pixels go."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(32, 3)
        model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), head)
    head.weight.data *= 20
    return model.eval()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # its way of calling NumPy and SciPy warns
def test_equals_pytorch_grad_cam_where_its_threshold_removes_as_many() -> None:
    """It removes a pixel or two more or less at some fractions; where it removes as many, scores are equal."""
    pytest.importorskip("pytorch_grad_cam")
    module = importlib.import_module("pytorch_grad_cam.metrics.road")
    perturbation = importlib.import_module("pytorch_grad_cam.metrics.perturbation_confidence")
    model, image = small_network(), drawn(1, 3, 48, 48)
    saliency = interpolate(drawn(1, 1, 7, 7, seed=3), size=(48, 48), mode="bilinear")[:, 0].sigmoid()
    imputer = module.NoisyLinearImputer(noise=0.0)
    targets = [lambda output: output.softmax(dim=0)[1]]
    with torch.no_grad():
        curves = road_curves(Scores(lambda rows, sample: model(rows).softmax(dim=1)[:, 1], image), saliency, noise=0.0)
    equal = 0
    for step, fraction in enumerate(FRACTIONS):
        percentile = 100 * (1 - fraction)
        for ours, shown, removal in (
            (curves.morf, saliency, perturbation.RemoveMostRelevantFirst),
            (curves.lerf, 1 - saliency, perturbation.RemoveLeastRelevantFirst),
        ):
            removed = int((shown.numpy() >= np.percentile(shown.numpy(), percentile)).sum())
            assert abs(removed - removal_count(fraction, 48 * 48)) <= 2
            if removed == removal_count(fraction, 48 * 48):
                metric = perturbation.PerturbationConfidenceMetric(removal(percentile, imputer))
                theirs = metric(image, saliency.numpy(), targets, model, return_diff=False)
                assert ours[0, step].item() == pytest.approx(float(theirs[0]), abs=1e-3)
                equal += 1
    assert equal >= 9
    assert curves.morf.std() > 0.01


@pytest.mark.parity
def test_pytorch_grad_cam_removes_all_of_a_map_with_ties_and_ours_the_share_asked_for() -> None:
    """A map that is 60 % zeros, a share of one half: all 1024 pixels go there, 512 here."""
    saliency = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) + 0.1
    saliency.view(-1)[:614] = 0
    theirs = int((saliency.numpy() >= np.percentile(saliency.numpy(), 50)).sum())
    recorder = Recorder()
    image = drawn(1, 1, 32, 32)
    road_curves(Scores(recorder, image), saliency[None], fractions=[0.5])
    ours = {int((row != image[0]).sum()) for row in recorder.rows} - {0}
    assert theirs == 1024
    assert ours == {removal_count(0.5, 1024)} == {512}
