"""Axioms against plain loops, maps that keep or break them by construction, and the peer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution import explain
from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.again import Again, Explained
from pellucid.metrics.axioms import completeness, input_invariance, non_sensitivity
from pellucid.metrics.evaluate import MissingValuesWarning, evaluate
from pellucid.metrics.explainer import explainer_of
from pellucid.metrics.scores import Scores
from references import subsets as reference
from references.scored import (
    AS_GIVEN,
    Readings,
    Shown,
    curved,
    drawn,
    linear,
    linear_network,
    network_scores,
    small_network,
    theirs,
)

SHAPES = [(12, 10), (4, 5, 6)]
SEEDS = torch.tensor([5, 9])
peers_warn = pytest.mark.filterwarnings("ignore")


coarse = pytest.mark.filterwarnings("ignore::pellucid.attribution.engine.GridWarning")

# Completeness


@pytest.mark.parametrize("shape", SHAPES)
def test_completeness_equals_the_paper(shape: tuple[int, ...]) -> None:
    images, maps = drawn(2, 2, *shape), drawn(2, *shape, seed=1)
    readings = Readings(curved(shape, 2))
    found = completeness(Scores(readings, images), maps)
    errors = completeness(Scores(readings, images), maps, relative=False)
    score = readings.of_one(shape, "logit")
    for row in range(2):
        image, saliency = images[row].double().flatten(1).numpy(), maps[row].double().flatten().numpy()
        slow = reference.completeness(score, image, saliency)
        assert float(found[row]) == pytest.approx(slow, rel=1e-9)
        fallen = score(image) - score(0 * image)
        assert float(errors[row]) == pytest.approx(slow * abs(fallen), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_linear_model_the_exact_map_is_complete_and_its_error_is_its_scales(shape: tuple[int, ...]) -> None:
    images, weights = drawn(2, 2, *shape), drawn(2, *shape, seed=1)
    adds = (images * weights).sum(dim=1)
    scores = Scores(Readings(linear(weights, bias=3)), images)
    for scale, error in ((1, 0), (0.5, 0.5), (0, 1), (-1, 2), (3, 2)):
        assert completeness(scores, adds * scale).tolist() == pytest.approx([error] * 2, abs=1e-5)


def test_an_image_like_its_baseline_has_nothing_to_add_up_to() -> None:
    scores = Scores(Readings(linear(torch.ones(1, 3, 3))), torch.zeros(1, 1, 3, 3))
    assert completeness(scores, torch.ones(1, 3, 3)).isnan().all()
    assert completeness(scores, torch.ones(1, 3, 3), relative=False).tolist() == [9]


@coarse
def test_integrated_gradients_come_closer_to_complete_than_saliency_and_a_cam() -> None:
    model, images = small_network(), drawn(3, 1, 6, 6)
    methods = ["integrated-gradients", "saliency", "grad-cam"]
    explanation = explain(model, images, methods, target=torch.ones(3, dtype=torch.long), layer="1")
    table = evaluate(model, images, explanation, "completeness")
    values = table.groupby("method")["value"]
    assert values.max()["integrated-gradients"] < 0.01
    assert values.mean()[["saliency", "grad-cam"]].min() > 0.3


# Non-sensitivity; its plain loops stand in test_monotonicity, with which it shares what is replaced


@pytest.mark.parametrize("shape", [(12, 12), (4, 4, 4)])
def test_of_a_model_that_looks_at_one_patch_wrong_blocks_are_counted(shape: tuple[int, ...]) -> None:
    images, patch = drawn(2, 2, *shape), torch.zeros(shape)
    patch[:2] = 1
    scores = Scores(Readings(linear(patch.expand(2, *shape))), images)
    cells, share = patch.numel(), float(patch.mean())
    for saliency, wrong in (
        (patch, 0.0),
        (1 - patch, 1.0),
        (torch.zeros(shape), share),
        (torch.ones(shape), 1 - share),
        (-1e6 * patch, 0.0),  # what speaks against the class is marked too
        (patch + 1e-7, 0.0),  # next to nothing
    ):
        found = non_sensitivity(scores, saliency.expand(2, *shape), cells=cells)
        assert found.tolist() == pytest.approx([wrong] * 2)


def test_a_pixel_at_the_baseline_can_count_all_the_same() -> None:
    """Removing a zero pixel by zero changes nothing; replacing it shows that the score depends on it."""
    image = drawn(1, 1, 4, 4)
    image[..., :2, :] = 0
    readings = Readings(linear(torch.ones(1, 4, 4)))
    assert non_sensitivity(Scores(readings, image), torch.ones(1, 4, 4), cells=16, draws=20).tolist() == [0]


# Input invariance


class PaddedNetwork(nn.Module):
    """Two convolutions that pad with zeros, the first without bias."""

    def __init__(self, axes: int = 2, channels: int = 2) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first = convolution(channels, 5, 3, padding=1, bias=False)
            self.second = convolution(5, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.second(self.first(images).relu()).relu()
        logits: Tensor = self.head(features.flatten(2).mean(dim=2))
        return logits


def again_for(model: nn.Module, images: Tensor, methods: list[str]) -> dict[str, tuple[Again, Tensor]]:
    """For each method, what makes its maps again, and its maps."""
    target = torch.ones(len(images), dtype=torch.long)
    explanation = explain(model, images, methods, target=target, layer="second" if hasattr(model, "second") else "1")
    seeds = torch.arange(len(images))
    explained = Explained(model, explainer_of(explanation, 8), model, images, target, seeds, seeds, explanation.maps)
    return {method: (Again(explained, method), explanation.maps[method]) for method in methods}


@coarse
@pytest.mark.parametrize("shape", [(9, 8), (5, 6, 4)])
def test_maps_that_never_see_the_image_itself_are_invariant_and_products_with_it_are_not(
    shape: tuple[int, ...],
) -> None:
    model, images = PaddedNetwork(len(shape)).eval(), drawn(3, 2, *shape)
    found = again_for(model, images, ["saliency", "grad-cam", "input-x-gradient", "integrated-gradients"])
    values = {method: input_invariance(again, maps) for method, (again, maps) in found.items()}
    assert values["saliency"].max() < 1e-4
    assert values["grad-cam"].max() < 1e-4
    assert values["input-x-gradient"].min() > 0.05
    assert values["integrated-gradients"].min() > 0.05
    assert all((value <= 2).all() and value.dtype == torch.float64 for value in values.values())


def test_invariance_equals_its_definition() -> None:
    """The gradient at x of a network that takes the shift off is the plain one, so the product grows by shift · it."""
    model, images = PaddedNetwork().eval(), drawn(2, 2, 9, 8)
    again, maps = again_for(model, images, ["input-x-gradient"])["input-x-gradient"]
    rows = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(rows)[:, 1].sum(), rows)
    for shift in (-1.0, 0.5):
        moved = (gradient * (images + shift)).sum(dim=1)
        lengths = torch.stack([maps, moved]).flatten(2).norm(dim=2).amax(dim=0)
        expected = (maps - moved).flatten(1).norm(dim=1) / lengths
        torch.testing.assert_close(input_invariance(again, maps, shift=shift).float(), expected, atol=1e-5, rtol=1e-4)


def test_the_network_is_given_back_and_asked_once_for_all_methods() -> None:
    model, images = Shown(PaddedNetwork()), drawn(2, 2, 9, 8)
    explanation = explain(model, images, ["saliency", "input-x-gradient"])
    before = len(model.rows)
    evaluate(model, images, explanation, "input-invariance")
    assert len(model._forward_pre_hooks) == 0
    asked = len(model.rows) - before
    before = len(model.rows)
    evaluate(model, images, explain(model, images, ["saliency"]), "input-invariance")
    assert len(model.rows) - before <= asked + 2 * len(images)

    class Fails(Exception):
        pass

    def failing(*_: object) -> dict[str, Tensor]:
        raise Fails

    with pytest.raises(Fails):
        evaluate(model, images, explanation, "input-invariance", explainer=failing)
    assert len(model._forward_pre_hooks) == 0


def test_one_image_has_the_invariance_it_has_in_a_batch() -> None:
    model, images = PaddedNetwork().eval(), drawn(3, 2, 9, 8)
    together = input_invariance(*again_for(model, images, ["input-x-gradient"])["input-x-gradient"])
    alone = [
        input_invariance(*again_for(model, images[i : i + 1], ["input-x-gradient"])["input-x-gradient"])
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_a_map_of_zeros_that_stays_has_no_value_and_a_shift_of_nothing_is_refused() -> None:
    model, images = PaddedNetwork().eval(), drawn(2, 2, 9, 8)
    zeros = torch.zeros(2, 9, 8)
    explanation = explain(model, images, ["saliency"])
    explanation.maps["zeros"] = explanation.maps.pop("saliency") * 0
    with pytest.warns(MissingValuesWarning, match="both maps are zero"):
        table = evaluate(model, images, explanation, "input-invariance", explainer=lambda *_: {"zeros": zeros})
    assert table["value"].isna().all()
    with pytest.raises(InputError, match="shift: expected a number other than 0"):
        input_invariance(*again_for(model, images, ["saliency"])["saliency"], shift=0.0)


def test_a_scripted_network_is_refused_and_a_bare_function_served() -> None:
    model, images = PaddedNetwork().eval(), drawn(1, 2, 9, 8)
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.trace(model, images)
    with pytest.raises(InputError, match="model: expected a network whose input can be shifted, got a scripted one"):
        evaluate(scripted, images, explain(scripted, images, ["random"]), "input-invariance")
    explanation = explain(lambda rows: model(rows), images, ["rise", "random"])
    values = evaluate(lambda rows: model(rows), images, explanation, "input-invariance")["value"]
    assert values.iloc[1] == 0
    assert 0 < values.iloc[0] < 1


def test_what_is_declared() -> None:
    for name in ("completeness", "non-sensitivity", "input-invariance"):
        assert METRICS[name].family == "axioms"
        assert METRICS[name].higher_is_better is False
    assert METRICS["input-invariance"].needs == ("again", "maps")


# The peer


@pytest.mark.parity
@peers_warn
def test_quantus_asks_for_a_sum_equal_to_the_last_bit_and_ours_says_how_far_it_is() -> None:
    """Whole numbers add up exactly; of the exact map in float32, rounding of 1e-7 makes it say no."""
    quantus = pytest.importorskip("quantus")
    whole = (drawn(3, 1, 6, 6) * 3).round(), (drawn(6, 6, seed=1) * 3).round()
    exact = drawn(3, 1, 6, 6), drawn(6, 6, seed=1)
    for (images, weights), answer in ((whole, [1, 1, 1]), (exact, [0, 0, 0])):
        model, maps = linear_network(weights), (images * weights)[:, 0]
        if answer == [0, 0, 0]:
            maps = maps * (1 + 3e-7)
        found = theirs(quantus.Completeness(**AS_GIVEN), model, images, maps, softmax=False)
        assert found.tolist() == answer
        ours = completeness(network_scores(model, images), maps)
        assert ours.max() < 1e-5
        half = theirs(quantus.Completeness(**AS_GIVEN), model, images, maps / 2, softmax=False)
        assert half.tolist() == [0, 0, 0]
        assert completeness(network_scores(model, images), maps / 2).tolist() == pytest.approx([0.5] * 3, abs=1e-5)


@pytest.mark.parity
@peers_warn
def test_quantus_by_default_scales_the_map_which_makes_a_complete_one_incomplete() -> None:
    quantus = pytest.importorskip("quantus")
    images, weights = (drawn(3, 1, 6, 6) * 3).round(), (drawn(6, 6, seed=1) * 3).round()
    model, maps = linear_network(weights), (images * weights)[:, 0]
    scaled = quantus.Completeness(perturb_baseline=0.0, disable_warnings=True)
    assert theirs(scaled, model, images, maps, softmax=False).tolist() == [0, 0, 0]
    assert completeness(network_scores(model, images), maps).tolist() == [0, 0, 0]


@pytest.mark.parity
@peers_warn
def test_non_sensitivity_equals_quantus_with_the_same_replacements() -> None:
    quantus = pytest.importorskip("quantus")
    from pellucid.metrics.random_fills import resampled

    weights = drawn(6, 6, seed=1)
    weights[2:4] = 0
    model, images, maps = linear_network(weights), drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=2)
    maps[:, 1:3] = 0
    other = resampled(images, torch.ones(2, 6, 6, dtype=torch.bool), SEEDS).flatten(1).numpy()

    def replaced(arr: Any, indices: Any, **_: Any) -> Any:
        changed = arr.copy()
        for row, pixels in enumerate(indices):
            changed[row, pixels] = other[row, pixels]
        return changed

    metric = quantus.NonSensitivity(**{**AS_GIVEN, "abs": True, "perturb_func": replaced})
    found = theirs(metric, model, images, maps, softmax=False)
    ours = non_sensitivity(network_scores(model, images, SEEDS), maps, cells=36, draws=1)
    np.testing.assert_allclose(ours.numpy() * 36, found)
    assert (found >= 12).all()


@pytest.mark.parity
@peers_warn
def test_quantus_non_sensitivity_takes_negative_values_and_baseline_pixels_for_nothing_and_fails_in_steps() -> None:
    quantus = pytest.importorskip("quantus")
    images = drawn(1, 1, 6, 6)
    images[..., 0, :] = 0
    derivative = drawn(1, 6, 6, seed=1)
    model = linear_network(derivative[0])
    sizes = {**AS_GIVEN, "abs": True}
    blind = theirs(quantus.NonSensitivity(**sizes), model, images, derivative, softmax=False)
    assert blind.tolist() == [6]  # zero put in the place of zero
    signed = theirs(quantus.NonSensitivity(**AS_GIVEN), model, images, derivative, softmax=False)
    negative = int((derivative[:, 1:] < 0).sum()) + int((derivative[:, 0] > 0).sum())
    assert signed.tolist() == [negative]
    assert negative > 12
    with pytest.raises(ValueError, match="broadcast"):
        theirs(quantus.NonSensitivity(features_in_step=2, **AS_GIVEN), model, images, derivative, softmax=False)
    scores = network_scores(model, images)
    for maps in (derivative, -derivative):
        assert non_sensitivity(scores, maps, cells=36, draws=20).tolist() == [0]
        assert non_sensitivity(scores, maps, cells=9, draws=20).tolist() == [0]


def gradient_maps(model: nn.Module, inputs: Any, targets: Any, *, multiplied: bool = False, **_: Any) -> Any:
    """What Quantus is given as explanation method."""
    rows = torch.as_tensor(np.asarray(inputs), dtype=torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(model(rows)[:, 1].sum(), rows)
    found = gradient * rows if multiplied else gradient
    return found.detach().sum(dim=1, keepdim=True).numpy()


class Valid(nn.Module):
    """One convolution, padded or not, whose features are squared so that the gradient depends on the image.

    Without padding and with `corner=False` it is blind to the first pixel.
    """

    def __init__(self, padding: int = 0, bias: bool = True, corner: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(1, 3, 3, padding=padding, bias=bias)
            self.head = nn.Linear(3, 3)
        if not corner:
            with torch.no_grad():
                self.first.weight[..., 0, 0] = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head((self.first(images) ** 2).flatten(2).mean(dim=2))
        return logits


def both(model: nn.Module, images: Tensor, *, multiplied: bool) -> tuple[list[float], list[float]]:
    """Quantus's answer, 1 for invariant, and our distances, for the gradient or its product with the image."""
    quantus = pytest.importorskip("quantus")

    def explainer(model: nn.Module, images: Tensor, target: Tensor, seeds: Tensor) -> dict[str, Tensor]:
        return {"one": torch.from_numpy(gradient_maps(model, images.detach(), target, multiplied=multiplied))[:, 0]}

    maps = torch.from_numpy(gradient_maps(model, images, None, multiplied=multiplied))
    found = quantus.InputInvariance(disable_warnings=True, return_aggregate=False)(
        model=model,
        x_batch=images.numpy(),
        y_batch=np.ones(len(images), int),
        a_batch=maps.numpy(),
        explain_func=gradient_maps,
        explain_func_kwargs={"multiplied": multiplied},
        device="cpu",
    )
    ones = torch.ones(len(images), dtype=torch.long)
    explained = Explained(model, explainer, model, images, ones, ones, ones, {"one": maps[:, 0]})
    ours = input_invariance(Again(explained, "one"), maps[:, 0])
    return [float(each) for each in found], ours.tolist()


@pytest.mark.parity
@peers_warn
def test_input_invariance_equals_quantus_where_its_network_undoes_its_shift() -> None:
    images, model = drawn(2, 1, 6, 6), Valid(corner=False).eval()
    found, ours = both(model, images, multiplied=False)
    assert found == [1, 1]
    assert max(ours) < 1e-5
    found, ours = both(model, images, multiplied=True)
    assert found == [0, 0]
    assert min(ours) > 0.05


@pytest.mark.parity
@peers_warn
@pytest.mark.parametrize("padding", [0, 1])
def test_quantus_leaves_the_first_pixel_and_a_padded_border_unshifted_and_ours_does_not(padding: int) -> None:
    """The plain gradient doesn't depend on where zero is; Quantus says it does, since its two networks differ."""
    found, ours = both(Valid(padding).eval(), drawn(2, 1, 6, 6), multiplied=False)
    assert found == [0, 0]
    assert max(ours) < 1e-5


@pytest.mark.parity
@peers_warn
def test_quantus_fails_without_a_bias_to_shift_and_ours_does_not() -> None:
    model, images = Valid(bias=False, corner=False).eval(), drawn(2, 1, 6, 6)
    with pytest.raises(TypeError, match="NoneType"):
        both(model, images, multiplied=False)
    explanation = explain(model, images, ["saliency"])
    assert evaluate(model, images, explanation, "input-invariance")["value"].max() < 1e-5
