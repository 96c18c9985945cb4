"""Robustness: against slow references, on networks whose maps are known, and beside peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.metrics import METRICS
from pellucid.metrics.again import Again
from pellucid.metrics.robustness import (
    LEAST,
    attack,
    avg_sensitivity,
    consistency,
    consistent_share,
    continuity,
    lipschitz_ratio,
    local_lipschitz,
    max_sensitivity,
    moved,
    neighbours,
    relative_change,
    relative_distance,
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
    relative_stability,
    top_overlap,
)
from references import robustness as slow
from references.explaining import Asked, drawn, edges, gradient, gradient_times_input, linear_network, network

NEAR = {
    "max-sensitivity": max_sensitivity,
    "avg-sensitivity": avg_sensitivity,
    "local-lipschitz": local_lipschitz,
    "relative-input-stability": relative_input_stability,
    "relative-output-stability": relative_output_stability,
    "relative-representation-stability": relative_representation_stability,
}
ALL: dict[str, Callable[..., Tensor]] = {**NEAR, "attack": attack, "continuity": continuity}


def asked(count: int = 3, axes: int = 2, dtype: torch.dtype = torch.float32, **by: Any) -> Asked:
    size = 10 if axes == 2 else 6
    images = drawn(count, 1, *(size,) * axes).to(dtype)
    model = network(axes=axes).eval().to(dtype)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(dim=0)  # so that noise turns some predictions
    return Asked(model, images, **(by or {"map": gradient_times_input}))


# ---- against the slow references ----


@pytest.mark.parametrize("axes", [2, 3])
def test_every_metric_of_neighbours_equals_its_slow_reference(axes: int) -> None:
    case = asked(axes=axes)
    again, maps = case()
    near = neighbours(again, 2.0, 7)
    with torch.no_grad():
        plain = case.model(case.images)
        inner = case.model[:-1](case.images)
        inner_near = case.model[:-1](near.images.flatten(0, 1)).unflatten(0, (3, 7))
    stay = []
    for i in range(3):
        own, image = maps[i].double().numpy(), case.images[i].double().numpy()
        others, images = list(near.maps[i].double().numpy()), list(near.images[i].double().numpy())
        same = [bool(logits.argmax() == plain[i].argmax()) for logits in near.logits[i]]
        stay += same
        changes = slow.relative_changes(own, others)
        inputs = [slow.relative(image, each, LEAST) for each in images]
        outputs = [slow.norm((logits - plain[i]).double().numpy()) for logits in near.logits[i]]
        features = [slow.relative(inner[i].double().numpy(), each.double().numpy(), LEAST) for each in inner_near[i]]
        wanted = {
            "max-sensitivity": max(changes),
            "avg-sensitivity": sum(changes) / 7,
            "local-lipschitz": slow.lipschitz(own, others, image, images),
            "relative-input-stability": slow.stability(own, others, inputs, same, LEAST),
            "relative-output-stability": slow.stability(own, others, outputs, same, LEAST),
            "relative-representation-stability": slow.stability(own, others, features, same, LEAST),
        }
        for name, value in wanted.items():
            assert NEAR[name](again, maps, radius=2.0, draws=7)[i].item() == pytest.approx(value, rel=1e-5), name
    assert any(stay)
    assert not all(stay)  # so that leaving neighbours out is seen


@pytest.mark.parametrize("axes", [2, 3])
def test_continuity_equals_its_slow_reference(axes: int) -> None:
    case = asked(axes=axes)
    again, maps = case()
    near = moved(again, 2, 5)
    for i in range(3):
        own, others = maps[i].double().numpy(), list(near.maps[i].double().numpy())
        wanted = slow.continuity(own, others, case.images[i].double().numpy(), list(near.images[i].double().numpy()))
        assert continuity(again, maps, reach=2, draws=5, relative=False)[i].item() == pytest.approx(wanted, rel=1e-5)
        relative = wanted / sum(abs(float(value)) for value in own.ravel())
        assert continuity(again, maps, reach=2, draws=5)[i].item() == pytest.approx(relative, rel=1e-5)


def test_images_are_moved_by_whole_pixels_and_never_left_where_they_are() -> None:
    images = drawn(2, 1, 7, 9)
    again, _ = Asked(network(), images, map=edges)()
    near = moved(again, 1, 40)
    wide = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    every = {(y, x): wide[:, :, y : y + 7, x : x + 9] for y in range(3) for x in range(3)}
    for i in range(2):
        seen = {move for each in near.images[i] for move, image in every.items() if torch.equal(each, image[i])}
        assert seen == set(every) - {(1, 1)}


def test_an_image_that_no_move_changes_has_no_continuity() -> None:
    images = torch.stack([torch.ones(1, 8, 8), drawn(1, 8, 8)])
    again, maps = Asked(network(), images, map=lambda model, x, target: x[:, 0].abs())()
    assert continuity(again, maps).isnan().tolist() == [True, False]


@pytest.mark.parametrize(("name", "option"), [("reach", {"reach": 0}), ("draws", {"draws": 0})])
def test_a_move_by_nothing_is_refused(name: str, option: dict[str, int]) -> None:
    again, maps = asked()()
    with pytest.raises(InputError, match=f"{name}: expected at least 1, got 0"):
        continuity(again, maps, **option)


def test_the_representation_is_the_penultimate_features_or_a_layers_output() -> None:
    case = asked()
    again, maps = case()
    with torch.no_grad():
        assert torch.equal(again.features_of(case.images, "", "own"), case.model[:-1](case.images))
        assert torch.equal(again.features_of(case.images, "3", "own"), case.model[:4](case.images).flatten(1))
    one, other = (relative_representation_stability(again, maps, layer=layer) for layer in ("", "3"))
    assert not torch.allclose(one, other)


def test_a_network_without_weights_has_no_representation_to_follow() -> None:
    again, maps = Asked(nn.Flatten(), drawn(2, 1, 6, 6), map=edges)()
    assert relative_representation_stability(again, maps).isnan().all()
    assert relative_input_stability(again, maps).isfinite().any()


def test_attack_equals_its_slow_reference() -> None:
    case = asked(count=6)
    again, maps = case()
    changes, draws, top = (0.1, 0.3, 0.6, 1.0), 3, 0.1
    found = attack(again, maps, changes=changes, draws=draws, top=top)
    for i in range(6):
        image = case.images[i]
        wanted = math.inf
        for step in sorted(changes, reverse=True):
            for draw in range(draws):
                signs = torch.randint(0, 2, image.shape, generator=_generator(int(again.draws[i]), draw)) * 2 - 1
                moved = image + step * image.norm() / math.sqrt(image.numel()) * signs
                assert (moved - image).norm() / image.norm() == pytest.approx(step, rel=1e-5)
                other = gradient_times_input(case.model, moved[None], again.target[i : i + 1])[0]
                stays = case.model(moved[None]).argmax() == case.model(image[None]).argmax()
                if stays and slow.overlap(maps[i].numpy(), other.numpy(), 10) < 0.5:
                    wanted = step
        assert found[i].item() == wanted
    assert len(set(found.tolist())) > 1


def _generator(seed: int, draw: int) -> torch.Generator:
    from pellucid.attribution.asking import generator_of

    return generator_of(seed, draw)


def test_consistency_equals_its_slow_reference() -> None:
    maps, classes = drawn(40, 8, 8), torch.randint(0, 2, (40,), generator=torch.Generator().manual_seed(1))
    cells = maps.view(40, 2, 4, 2, 4).mean(dim=(2, 4)).flatten(1)
    codes = [tuple(sorted(each.topk(2).indices.tolist())) for each in cells]
    found = consistency(maps, classes, grid=2, top=2)
    assert found.numpy() == pytest.approx(np.array(slow.consistency(codes, classes.tolist())), nan_ok=True)
    assert 0 < found.nanmean() < 1


# ---- where the answer is known ----


@pytest.mark.parametrize("name", list(NEAR))
def test_the_gradient_of_a_linear_network_never_changes(name: str) -> None:
    weights = drawn(3, 1, 6, 6, seed=4)
    again, maps = Asked(linear_network(weights), drawn(4, 1, 6, 6), map=gradient)()
    assert NEAR[name](again, maps).tolist() == [0] * 4


def test_the_gradient_of_a_linear_network_withstands_every_attack() -> None:
    again, maps = Asked(linear_network(drawn(3, 1, 6, 6, seed=4)), drawn(4, 1, 6, 6), map=gradient)()
    assert attack(again, maps).tolist() == [math.inf] * 4
    assert continuity(again, maps).tolist() == [0] * 4


def test_a_map_that_is_the_image_changes_as_the_image_does() -> None:
    case = Asked(linear_network(drawn(3, 1, 6, 6, seed=4)), drawn(4, 1, 6, 6), map=lambda model, x, target: x[:, 0])
    again, maps = case()
    near = neighbours(again, 0.2, 10)
    assert local_lipschitz(again, maps) == pytest.approx(1, rel=1e-6)
    kept = (near.logits.argmax(2) == again.logits.argmax(1, keepdim=True)).any(1)
    assert relative_input_stability(again, maps)[kept] == pytest.approx(1, rel=1e-6)
    change = (near.images - case.images[:, None]).flatten(2).norm(dim=2) / case.images.flatten(1).norm(dim=1)[:, None]
    assert max_sensitivity(again, maps) == pytest.approx(change.amax(dim=1).double(), rel=1e-5)
    steps = moved(again, 4, 10).images - case.images[:, None]
    ratio = (steps.abs().flatten(2).sum(2) / steps.flatten(2).norm(dim=2)).amax(dim=1).double()
    assert continuity(again, maps, relative=False) == pytest.approx(ratio, rel=1e-5)
    assert avg_sensitivity(again, maps) == pytest.approx(change.mean(dim=1).double(), rel=1e-5)


def test_noise_stays_within_the_radius_and_fills_it() -> None:
    again, _ = asked()()
    noise = neighbours(again, 0.3, 10).images - again.images[:, None]
    assert 0.29 < noise.abs().max() <= 0.3 + 1e-6
    assert noise.mean().abs() < 0.02
    assert not torch.equal(noise[0, 0], noise[0, 1])
    assert not torch.equal(noise[0], noise[1])


def test_an_all_zero_map_has_no_value_and_a_constant_one_no_attack() -> None:
    again, maps = Asked(network(), drawn(2, 1, 10, 10), map=lambda model, x, target: 0 * x[:, 0])()
    for name, metric in ALL.items():
        values = metric(again, maps)
        assert values.isnan().all() or name == "local-lipschitz", name
    assert local_lipschitz(again, maps).tolist() == [0, 0]


def test_without_a_neighbour_of_the_same_prediction_relative_stability_has_no_value() -> None:
    weights = torch.zeros(2, 1, 4, 4)
    weights[0], weights[1] = 1, -1
    images = torch.full((1, 1, 4, 4), 1e-3)
    images[0, 0, 0, 0] = -15e-3 + 1e-6  # the logits are all but equal, so that noise turns about half of them
    case = Asked(linear_network(weights), images, map=gradient_times_input)
    again, maps = case()
    near = neighbours(again, 0.2, 10)
    stays = near.logits.argmax(2)[0] == again.logits.argmax(1)
    assert 0 < stays.sum() < 10
    assert relative_output_stability(again, maps).isfinite().all()
    lost = torch.where(again.logits.argmax(1) == 0, -1.0, 1.0) * torch.tensor([1, -1]) + 0 * near.logits
    again._explained._tensors["logits", near.name] = lost.flatten(0, 1)
    for metric in (relative_input_stability, relative_output_stability, relative_representation_stability):
        assert metric(again, maps).isnan().all()
    assert max_sensitivity(again, maps).isfinite().all()


def test_relative_change_keeps_the_sign_and_least_size_of_divisors() -> None:
    own = torch.tensor([[1e-9, -1e-9, 0.0, -2.0]])
    other = torch.tensor([[[2e-6, 0.0, 1e-6, -1.0]]])
    wanted = math.sqrt(((1e-9 - 2e-6) / 1e-6) ** 2 + (1e-9 / 1e-6) ** 2 + 1 + 0.25)
    assert relative_distance(own, other).item() == pytest.approx(wanted, rel=1e-6)


def test_ties_at_the_top_are_broken_alike_in_both_maps() -> None:
    flat = torch.zeros(3, 5, 5)
    seeds = torch.tensor([3, 4, 5])
    assert top_overlap(flat, flat[:, None].repeat(1, 2, 1, 1), seeds, 4).tolist() == [[1, 1]] * 3


def test_consistency_of_one_of_a_kind_or_a_constant_map_has_no_value() -> None:
    maps = torch.zeros(4, 8, 8)
    maps[0, 0, 0] = maps[1, 0, 1] = maps[2, 7, 7] = 1
    classes = torch.tensor([0, 1, 1, 1])
    assert consistency(maps, classes).tolist() == pytest.approx([0, 0, math.nan, math.nan], nan_ok=True)
    volumes = maps.unsqueeze(1).repeat(1, 8, 1, 1)
    assert consistency(volumes, classes).tolist() == pytest.approx([0, 0, math.nan, math.nan], nan_ok=True)


# ---- what every metric owes ----


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("axes", [2, 3])
def test_one_image_equals_the_same_image_in_a_batch(name: str, axes: int) -> None:
    case = asked(count=3, axes=axes, dtype=torch.float64)  # relative stability divides by what is next to nothing
    again, maps = case()
    alone = Asked(case.model, case.images[1:2], draws=again.draws[1:2], map=gradient_times_input)
    values, one = ALL[name](again, maps), ALL[name](*alone())
    assert values.shape == (3,)
    assert values.dtype == torch.float64
    assert one.item() == pytest.approx(values[1].item(), rel=1e-6)


@pytest.mark.parametrize("name", list(ALL))
def test_values_lie_in_the_declared_range(name: str) -> None:
    entry = METRICS[name]
    assert entry.range is not None
    for seed in range(4):
        images = drawn(8, 1, 10, 10, seed=seed)
        values = ALL[name](*Asked(network(), images, map=edges)())
        values = torch.cat([values, ALL[name](*Asked(network(), images, map=gradient)())])
        values = values[~values.isnan()]
        assert len(values)
        assert bool(((values >= entry.range[0]) & (values <= entry.range[1])).all())


def test_neighbours_are_made_scored_and_explained_once_for_all_methods_and_metrics() -> None:
    case = asked(count=3, map=gradient, other=edges)
    for label in ("map", "other"):
        again, maps = case(label)
        for metric in NEAR.values():
            metric(again, maps, draws=5)
    assert case.explainer.rows == [15]
    assert sorted(case.forward) == [3, 3, 15, 15]  # logits of both, and the representation of both
    neighbours(case()[0], 0.1, 5)
    assert case.explainer.rows == [15, 15]


def test_an_attack_runs_each_step_once_for_all_methods_and_stops_when_every_map_has_moved() -> None:
    case = asked(count=3, map=gradient, other=edges)
    found = {label: attack(*case(label), changes=(0.5, 50.0), draws=3) for label in ("map", "other")}
    assert len(case.explainer.rows) <= 2
    assert set(case.explainer.rows) == {9}
    alone = asked(count=3, map=edges)
    assert torch.equal(attack(*alone(), changes=(0.5, 50.0), draws=3), found["other"])


@pytest.mark.parametrize(
    ("metric", "options", "wanted"),
    [
        (max_sensitivity, {"radius": 0.0}, "radius: expected more than 0"),
        (avg_sensitivity, {"draws": 0}, "draws: expected at least 1"),
        (relative_representation_stability, {"layer": "layer9"}, "unknown layer 'layer9'"),
        (attack, {"changes": (0.0, 1.0)}, "changes: expected one or more, all above 0"),
        (attack, {"changes": ()}, "changes: expected one or more"),
        (attack, {"top": 0.001}, "top: expected a share of 100 positions"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(metric: Callable[..., Tensor], options: Any, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        metric(*asked()(), **options)


def test_a_grid_without_as_many_cells_is_refused() -> None:
    with pytest.raises(InputError, match="top: expected from 1 to the 4 cells of the grid, got 5"):
        consistency(drawn(2, 8, 8), torch.tensor([0, 1]), grid=2, top=5)


# ---- peers ----


class Fixed:
    """Hands a peer the neighbours that pellucid drew, one draw at a time, and Quantus's explanations with channels."""

    def __init__(self, again: Again, radius: float, draws: int, explain: Any) -> None:
        self.near = neighbours(again, radius, draws)
        self.draw = 0
        self.explain_func = explain

    def perturb(self, arr: np.ndarray, indices: np.ndarray, **unused: Any) -> np.ndarray:
        rows = self.near.images[:, self.draw].flatten(1).numpy()
        self.draw += 1
        return rows.copy()

    def explain(self, model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **unused: Any) -> np.ndarray:
        rows = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
        maps = self.explain_func(model, rows, torch.as_tensor(np.asarray(targets)).long())
        return maps.unsqueeze(1).detach().numpy()


def quantus_value(name: str, case: Asked, fixed: Fixed, **options: Any) -> np.ndarray:
    quantus = pytest.importorskip("quantus")
    again, maps = case()
    metric = getattr(quantus, name)(
        nr_samples=fixed.near.images.shape[1],
        perturb_func=fixed.perturb,
        abs=False,
        normalise=False,
        disable_warnings=True,
        **options,
    )
    values = metric(
        model=case.model,
        x_batch=case.images.numpy(),
        y_batch=again.target.numpy(),
        a_batch=maps.unsqueeze(1).numpy(),
        explain_func=fixed.explain,
        channel_first=True,
        device="cpu",
        softmax=False,
    )
    return np.array(values, dtype=np.float64).ravel()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("peer", "name", "options", "ours"),
    [
        ("MaxSensitivity", "max-sensitivity", {}, {}),
        ("AvgSensitivity", "avg-sensitivity", {}, {}),
        ("LocalLipschitzEstimate", "local-lipschitz", {}, {}),
        ("RelativeInputStability", "relative-input-stability", {}, {}),
        ("RelativeOutputStability", "relative-output-stability", {}, {}),
        (
            "RelativeRepresentationStability",
            "relative-representation-stability",
            {"layer_names": ["3"]},
            {"layer": "3"},
        ),
    ],
)
def test_quantus_gives_the_same_of_the_same_neighbours(peer: str, name: str, options: Any, ours: Any) -> None:
    def large(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        """So that no pixel's value is below the least divisor, which the peer sets for 0 alone."""
        return 1e4 * gradient_times_input(model, images, target)

    case = asked(count=4, map=large)
    again, maps = case()
    radius = 0.02  # so that predictions stay
    fixed = Fixed(again, radius, 5, large)
    near = fixed.near
    assert (near.logits.argmax(2) == again.logits.argmax(1, keepdim=True)).all()
    found = NEAR[name](again, maps, radius=radius, draws=5, **ours)
    assert found.numpy() == pytest.approx(quantus_value(peer, case, fixed, **options), rel=1e-4)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_loses_an_image_for_one_neighbour_whose_prediction_changes() -> None:
    """The paper maximises over neighbours with the same prediction; the peer gives NaN as soon as one has another."""
    case = asked(count=6)
    again, maps = case()
    fixed = Fixed(again, 0.6, 5, gradient_times_input)
    same = fixed.near.logits.argmax(2) == again.logits.argmax(1, keepdim=True)
    mixed = same.any(1) & ~same.all(1)
    assert mixed.any()
    found = relative_input_stability(again, maps, radius=0.6, draws=5)
    peer = quantus_value("RelativeInputStability", case, fixed, return_nan_when_prediction_changes=True)
    assert np.isnan(peer[mixed.numpy()]).all()
    assert found[mixed].isfinite().all()
    assert found[same.all(1)].numpy() == pytest.approx(peer[same.all(1).numpy()], rel=1e-4)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_draws_the_neighbours_of_relative_stability_to_one_side() -> None:
    """Its bounds are 0.02 and 0.2 and not their negatives: each pixel is brightened, by 0.11 on average; ours by 0."""
    quantus = pytest.importorskip("quantus")
    metric = quantus.RelativeInputStability(disable_warnings=True)
    image = np.zeros((1, 1000))
    noise = metric.perturb_func(arr=image, indices=np.arange(1000)[None])
    assert noise.min() >= 0.02
    assert noise.mean() == pytest.approx(0.11, abs=0.01)
    again, _ = asked()()
    ours = neighbours(again, 0.2, 10).images - again.images[:, None]
    assert ours.mean().abs() < 0.02
    assert ours.min() < -0.19


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_has_no_relative_stability_of_volumes() -> None:
    quantus = pytest.importorskip("quantus")
    case = asked(axes=3)
    again, maps = case()
    near = neighbours(again, 0.1, 1)
    metric = quantus.RelativeInputStability(disable_warnings=True)
    with pytest.raises(ValueError, match="only supports 4D, 3D and 2D"):
        metric.relative_input_stability_objective(
            case.images.numpy(), near.images[:, 0].numpy(), maps[:, None].numpy(), near.maps[:, :1].numpy()
        )
    assert relative_input_stability(again, maps, radius=0.1, draws=1).isfinite().all()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_reads_consistency_from_the_first_five_pixels_and_calls_a_unique_map_inconsistent() -> None:
    """Its "top n sign" is the sign of the first n values: where evidence lies doesn't matter. Ours looks for the top.

    Two maps of class 0 and two of class 1, in opposite corners: each explanation belongs to one class, so consistency
    is 1. The peer sees one explanation, with a third of the others in one's class. Of explanations that no other
    image has nothing is known; the peer gives 0, the worst.
    """
    quantus = pytest.importorskip("quantus")
    maps = torch.full((4, 1, 8, 8), 0.1)
    maps[:2, 0, 1, 1] = maps[2:, 0, 6, 6] = 1
    classes = torch.tensor([0, 0, 1, 1])
    weights = torch.zeros(2, 1, 8, 8)
    weights[0, 0, 1, 1] = weights[1, 0, 6, 6] = 1
    model = linear_network(weights).eval()

    def call(metric: Any, batch_size: int = 64) -> list[float]:
        found: list[float] = metric(
            model=model,
            x_batch=maps.numpy(),
            y_batch=classes.numpy(),
            a_batch=maps.numpy(),
            explain_func=lambda *unused, **unused_too: maps.numpy(),
            device="cpu",
            channel_first=True,
            batch_size=batch_size,
        )
        return [float(each) for each in found]

    peer = call(quantus.Consistency(disable_warnings=True))
    assert peer == pytest.approx([1 / 3] * 4)
    assert consistency(maps[:, 0], classes).tolist() == [1, 1, 1, 1]

    def places(values: np.ndarray) -> int:
        return int(values.argmax())

    told = quantus.Consistency(discretise_func=places, disable_warnings=True)
    assert call(told) == pytest.approx([1] * 4)  # with a right code the same formula
    alone = quantus.Consistency(discretise_func=places, disable_warnings=True)
    assert call(alone, batch_size=1) == [0, 0, 0, 0]  # pairs are sought within a batch
    assert consistent_share(torch.arange(4)[:, None], classes).isnan().all()
    assert quantus.Consistency.score_direction.value == "lower"
    assert METRICS["consistency"].higher_is_better


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_captum_gives_the_same_of_the_same_neighbours_except_of_an_all_zero_map() -> None:
    """captum divides by 1 where the map's norm is 0, so that its value is no relative change; ours is missing."""
    metrics = pytest.importorskip("captum.metrics")
    case = asked(count=3)
    again, maps = case()
    near = neighbours(again, 0.3, 6)

    def explain(inputs: Any, target: Tensor) -> Any:
        several = isinstance(inputs, tuple)
        with torch.enable_grad():
            found = gradient_times_input(case.model, inputs[0] if several else inputs, target)
        return (found,) if several else found

    peer = metrics.sensitivity_max(
        explain,
        case.images,
        perturb_func=lambda rows: near.images.flatten(0, 1),
        n_perturb_samples=6,
        target=again.target,
    )
    assert max_sensitivity(again, maps, radius=0.3, draws=6).numpy() == pytest.approx(peer.numpy(), rel=1e-5)

    def from_zero(inputs: Any, target: Tensor) -> Any:
        return (torch.zeros_like(inputs[0]),) if isinstance(inputs, tuple) else torch.ones_like(inputs)

    of_zero = metrics.sensitivity_max(
        from_zero,
        case.images,
        perturb_func=lambda rows: near.images.flatten(0, 1),
        n_perturb_samples=6,
        target=again.target,
    )
    assert of_zero.tolist() == [10, 10, 10]  # the norm of 100 ones
    assert relative_change(torch.zeros(3, 10, 10), torch.ones(3, 6, 10, 10)).isnan().all()


def test_the_pure_formulas_take_volumes_and_images_with_channels() -> None:
    maps, near = drawn(2, 4, 4, 4), drawn(2, 3, 4, 4, 4, seed=1)
    images, others = drawn(2, 3, 4, 4, 4, seed=2), drawn(2, 5, 3, 4, 4, 4, seed=3)
    assert relative_change(maps, near).shape == (2, 3)
    assert lipschitz_ratio(maps, near, images, others[:, :3]).shape == (2, 3)
    assert relative_stability(maps, near, relative_distance(images, others[:, :3])).shape == (2, 3)
