"""Sanity: against slow cascades, on networks whose maps are known, and beside Quantus."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from pellucid.attribution.asking import generator_of, noisy
from pellucid.errors import InputError
from pellucid.metrics import METRICS, metric
from pellucid.metrics.randomised import owners, randomised
from pellucid.metrics.sanity import (
    cascade,
    data_randomisation,
    other_classes,
    parameter_randomisation,
    parameter_randomisation_efficient,
    parameter_randomisation_smooth,
    random_logit,
    rise,
)
from pellucid.metrics.similarity import by_ranks, by_structure
from references import robustness as slow
from references.explaining import Asked, drawn, edges, gradient, gradient_times_input, linear_network, network

ALL: dict[str, Callable[..., Tensor]] = {
    "parameter-randomisation": parameter_randomisation,
    "parameter-randomisation-efficient": parameter_randomisation_efficient,
    "parameter-randomisation-smooth": parameter_randomisation_smooth,
    "random-logit": random_logit,
    "data-randomisation": data_randomisation,
}


def asked(count: int = 3, axes: int = 2, **by: Any) -> Asked:
    size = 12 if axes == 2 else 7
    return Asked(network(axes=axes), drawn(count, 1, *(size,) * axes), **(by or {"map": gradient_times_input}))


def options_of(name: str, axes: int = 2) -> dict[str, Any]:
    return {"network": other_network(axes)} if name == "data-randomisation" else {}


def other_network(axes: int = 2) -> nn.Module:
    model = network(axes=axes).eval()
    with torch.random.fork_rng():
        torch.manual_seed(8)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                module.reset_parameters()
    return model


def correlation(one: Tensor, two: Tensor) -> float:
    return float(spearmanr(one.double().ravel(), two.double().ravel()).statistic)


# ---- against the slow cascades ----


@pytest.mark.parametrize("axes", [2, 3])
def test_parameter_randomisation_is_the_mean_over_stages(axes: int) -> None:
    case = asked(axes=axes)
    again, maps = case()
    order = owners(case.model, case.images)
    assert order == ("7", "3", "1", "0")
    wanted = np.zeros(3)
    for stage in range(1, 5):
        copied = copy.deepcopy(case.model)
        with randomised(copied, order[:stage], seed=6):
            others = gradient_times_input(copied, case.images, again.target)
        wanted += [correlation(one, two) for one, two in zip(maps, others, strict=True)]
    assert parameter_randomisation(again, maps, stages=None, seed=6).numpy() == pytest.approx(wanted / 4)
    assert again.owners == order


def test_half_as_many_stages_go_twice_as_fast_to_the_same_end() -> None:
    case = asked()
    again, maps = case()
    each = [parameter_randomisation(again, maps, stages=stages) for stages in (1, 2)]
    with randomised(case.model, again.owners):
        last = by_ranks(maps, gradient_times_input(case.model, case.images, again.target))
    with randomised(case.model, again.owners[:2]):
        first = by_ranks(maps, gradient_times_input(case.model, case.images, again.target))
    assert torch.allclose(each[0], last)
    assert torch.allclose(each[1], (first + last) / 2)


def test_the_structural_similarity_is_an_option() -> None:
    case = asked()
    again, maps = case()
    with randomised(case.model, again.owners):
        others = gradient_times_input(case.model, case.images, again.target)
    found = parameter_randomisation(again, maps, stages=1, similarity="ssim")
    assert torch.allclose(found, by_structure(maps, others))


def test_the_efficient_one_is_the_rise_of_entropy() -> None:
    case = asked()
    again, maps = case()
    with randomised(case.model, again.owners, seed=2):
        others = gradient_times_input(case.model, case.images, again.target)
    before = np.array([slow.entropy(each.double().numpy(), 100) for each in maps])
    after = np.array([slow.entropy(each.double().numpy(), 100) for each in others])
    assert parameter_randomisation_efficient(again, maps, seed=2).numpy() == pytest.approx((after - before) / before)


def test_the_smooth_one_averages_over_the_same_noisy_images_at_every_stage() -> None:
    case = asked()
    again, maps = case()
    versions = [
        torch.stack([noisy(image[None], 0.2, [generator_of(int(seed), draw)])[0] for draw in range(3)])
        for image, seed in zip(case.images, again.draws, strict=True)
    ]

    def averaged(model: nn.Module) -> list[Tensor]:
        return [
            gradient_times_input(model, rows, again.target[i].repeat(3)).mean(dim=0) for i, rows in enumerate(versions)
        ]

    own, wanted = averaged(case.model), np.zeros(3)
    for stage in (2, 4):
        with randomised(case.model, again.owners[:stage]):
            wanted += [correlation(one, two) for one, two in zip(own, averaged(case.model), strict=True)]
    found = parameter_randomisation_smooth(again, maps, stages=2, draws=3, noise=0.2)
    assert found.numpy() == pytest.approx(wanted / 2, abs=1e-4)  # ranks may swap by rounding


def test_random_logit_compares_with_another_class_that_the_images_seed_draws() -> None:
    case = asked()
    again, maps = case()
    classes = other_classes(again.target, again.draws, 3)
    assert bool((classes != again.target).all())
    others = gradient_times_input(case.model, case.images, classes)
    assert torch.allclose(random_logit(again, maps), by_structure(maps, others))
    assert torch.allclose(random_logit(again, maps, similarity="spearman"), by_ranks(maps, others))


def test_every_other_class_is_as_likely_and_never_the_images_own() -> None:
    target = torch.full((3000,), 2)
    counts = other_classes(target, torch.arange(3000), 5).bincount(minlength=5)
    assert counts[2] == 0
    assert bool(((counts[[0, 1, 3, 4]] - 750).abs() < 100).all())


def test_data_randomisation_compares_with_the_given_networks_maps() -> None:
    case, other = asked(), other_network()
    again, maps = case()
    others = gradient_times_input(other, case.images, again.target)
    assert torch.allclose(data_randomisation(again, maps, network=other), by_ranks(maps, others))
    assert data_randomisation(again, maps).isnan().all()


# ---- where the answer is known ----


@pytest.mark.parametrize("name", list(ALL))
def test_a_map_that_knows_nothing_of_the_network_stays_as_it_is(name: str) -> None:
    case = asked(map=edges)
    again, maps = case()
    wanted = 0 if name == "parameter-randomisation-efficient" else 1
    assert ALL[name](again, maps, **options_of(name)).tolist() == pytest.approx([wanted] * 3)


def test_the_gradient_for_the_opposite_class_is_the_opposite() -> None:
    weights = drawn(1, 1, 12, 12, seed=4)
    again, maps = Asked(linear_network(torch.cat([-weights, weights])), drawn(4, 1, 12, 12), map=gradient)()
    assert random_logit(again, maps, similarity="spearman").tolist() == pytest.approx([-1] * 4)
    assert bool((random_logit(again, maps) < -0.9).all())


def test_the_gradient_of_a_linear_network_forgets_its_weights_at_once() -> None:
    weights = drawn(3, 1, 30, 30, seed=4)
    again, maps = Asked(linear_network(weights), drawn(4, 1, 30, 30), map=gradient)()
    assert bool((parameter_randomisation(again, maps).abs() < 0.15).all())  # 3 standard errors of 900 pixels are 0.1


def test_the_same_network_given_as_the_randomised_one_is_found_out() -> None:
    case = asked()
    again, maps = case()
    assert data_randomisation(again, maps, network=copy.deepcopy(case.model)).tolist() == pytest.approx([1] * 3)


def test_a_single_class_has_no_other() -> None:
    again, maps = Asked(linear_network(drawn(1, 1, 12, 12)), drawn(2, 1, 12, 12), map=gradient_times_input)()
    assert random_logit(again, maps).isnan().all()


@pytest.mark.parametrize("name", list(ALL))
def test_a_constant_map_has_no_value(name: str) -> None:
    again, maps = asked(map=lambda model, images, target: 0 * images[:, 0] + 2)()
    assert ALL[name](again, maps, **options_of(name)).isnan().all()


def test_a_stage_whose_map_is_all_zero_counts_as_no_correlation() -> None:
    def dead(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        return edges(model, images, target) * float(torch.equal(model[7].weight, kept))

    model = network()
    kept = model[7].weight.detach().clone()
    again, maps = Asked(model, drawn(2, 1, 12, 12), map=dead)()
    assert parameter_randomisation(again, maps).tolist() == [0, 0]
    assert parameter_randomisation_efficient(again, maps).tolist() == [-1, -1]


def test_a_rise_from_nothing_is_missing() -> None:
    assert rise(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 1.0])).tolist() == pytest.approx(
        [math.nan, -0.75], nan_ok=True
    )


# ---- what every metric owes ----


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("axes", [2, 3])
def test_one_image_equals_the_same_image_in_a_batch(name: str, axes: int) -> None:
    case = asked(axes=axes)
    again, maps = case()
    alone = Asked(case.model, case.images[1:2], draws=again.draws[1:2], map=gradient_times_input)
    values, one = (ALL[name](*each, **options_of(name, axes)) for each in ((again, maps), alone()))
    assert values.shape == (3,)
    assert values.dtype == torch.float64
    assert one.item() == pytest.approx(values[1].item(), abs=1e-3)  # ranks may swap by rounding


@pytest.mark.parametrize("name", list(ALL))
def test_values_lie_in_the_declared_range(name: str) -> None:
    entry = METRICS[name]
    assert entry.range is not None
    for seed in range(3):
        for explain in (edges, gradient, gradient_times_input):
            values = ALL[name](*Asked(network(), drawn(6, 1, 12, 12, seed=seed), map=explain)(), **options_of(name))
            assert bool(((values >= entry.range[0] - 1e-12) & (values <= entry.range[1] + 1e-12)).all())


def test_each_network_is_explained_once_for_all_methods_and_metrics_and_no_map_is_kept() -> None:
    case = asked(map=gradient, other=edges)
    for label in ("map", "other"):
        again, maps = case(label)
        parameter_randomisation(again, maps)
        parameter_randomisation(again, maps, similarity="ssim")
        parameter_randomisation_efficient(again, maps)
    assert case.explainer.rows == [3] * 4
    assert all(values.numel() == 9 for known in case.explained._known.values() for values in known.values())
    for label in ("map", "other"):
        parameter_randomisation_smooth(*case(label), stages=2, draws=5)
        random_logit(*case(label))
    assert case.explainer.rows == [3] * 4 + [15] * 3 + [3]


@pytest.mark.parametrize("name", ["parameter-randomisation", "parameter-randomisation-smooth"])
def test_the_network_is_given_back_after_an_exception_of_the_explainer(name: str) -> None:
    def fail(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        if not torch.equal(model[7].weight, before["7.weight"]):
            raise RuntimeError("the explainer fails")
        return gradient(model, images, target)

    model = network().eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    again, maps = Asked(model, drawn(2, 1, 12, 12), map=fail)()
    with pytest.raises(RuntimeError, match="the explainer fails"):
        ALL[name](again, maps)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("parameter-randomisation", {"stages": 0}, "stages: expected at least 1"),
        ("parameter-randomisation", {"similarity": "mse"}, "similarity: expected 'spearman' or 'ssim'"),
        ("parameter-randomisation-smooth", {"draws": 0}, "draws: expected at least 1"),
        ("parameter-randomisation-smooth", {"noise": -1.0}, "noise: expected 0 or more"),
        ("random-logit", {"similarity": "mse"}, "similarity: expected"),
        ("data-randomisation", {"similarity": "mse"}, "similarity: expected"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(name: str, options: Any, wanted: str) -> None:
    case = asked()
    with pytest.raises(InputError, match=wanted):
        ALL[name](*case(), **options)
    assert not case.explainer.rows


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("parameter")])
def test_a_network_without_weights_has_no_random_ones(name: str) -> None:
    again, maps = Asked(nn.Flatten(), drawn(2, 1, 12, 12), map=edges)()
    assert ALL[name](again, maps).isnan().all()


def test_the_number_of_stages_is_that_of_modules_at_most() -> None:
    assert cascade(41, 8) == [5, 10, 15, 20, 26, 31, 36, 41]
    assert cascade(3, 8) == [1, 2, 3]
    assert cascade(3, 1) == [3]


def test_the_network_trained_on_permuted_labels_is_borrowed_too() -> None:
    other, case = other_network().train(), asked()
    before = {key: tensor.clone() for key, tensor in other.state_dict().items()}
    again, maps = case()
    found = data_randomisation(again, maps, network=nn.DataParallel(other))
    assert all(module.training for module in other.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())
    assert torch.allclose(found, data_randomisation(*asked()(), network=other.eval()))


def test_what_is_no_network_is_refused() -> None:
    network_of: Any = gradient
    with pytest.raises(InputError, match="network: expected a network"):
        data_randomisation(*asked()(), network=network_of)


def test_a_network_in_a_label_is_named_by_its_class() -> None:
    assert metric("data-randomisation", network=network()).label == "data-randomisation[network=Sequential]"


# ---- Quantus ----


def in_quantus(explain: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Callable[..., np.ndarray]:
    def explained(model: nn.Module, inputs: Any, targets: Any, **unused: Any) -> np.ndarray:
        rows, classes = torch.as_tensor(np.asarray(inputs)).float(), torch.as_tensor(np.asarray(targets)).long()
        return explain(model, rows, classes).unsqueeze(1).detach().numpy()

    return explained


def quantus_scores(name: str, case: Asked, **options: Any) -> Any:
    quantus = pytest.importorskip("quantus")
    again, maps = case()
    peer = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True, **options)
    with torch.random.fork_rng():
        return peer(
            model=case.model,
            x_batch=case.images.numpy(),
            y_batch=again.target.numpy(),
            a_batch=maps.unsqueeze(1).numpy(),
            explain_func=in_quantus(gradient_times_input),
            channel_first=True,
            device="cpu",
        )


def quantus_networks(model: nn.Module) -> dict[str, nn.Module]:
    from quantus.helpers.model.pytorch_model import PyTorchModel

    with torch.random.fork_rng():
        stages = PyTorchModel(model, channel_first=True).get_random_layer_generator("top_down", 42)
        return {name: copy.deepcopy(each) for name, each in stages}


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_gives_the_same_of_the_same_random_networks_but_counts_the_network_itself_among_them() -> None:
    """Its mean over layers leaves out a stage called "orig", which it calls "original": the 1 of the map with itself is
    among what it averages. Of four stages with mean m it says (4 m + 1) / 5."""
    pytest.importorskip("quantus")
    case = asked()
    again, maps = case()
    networks = quantus_networks(case.model)
    assert list(networks) == list(again.owners)  # defined in the order of execution, each with a reset of its own
    each = [by_ranks(maps, gradient_times_input(other, case.images, again.target)) for other in networks.values()]
    scores = quantus_scores("MPRT", case, return_average_correlation=False)
    assert list(scores) == ["original", *networks]
    for found, layer in zip(each, networks, strict=True):
        assert found.numpy() == pytest.approx(np.array(scores[layer]), abs=1e-9)
    assert scores["original"] == pytest.approx([1] * 3)
    ours = torch.stack(each).mean(dim=0)
    averaged = quantus_scores("MPRT", case, return_average_correlation=True)
    assert averaged == pytest.approx(((4 * ours + 1) / 5).tolist())
    assert bool(((torch.tensor(averaged) - ours) > 0.05).all())


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_gives_the_same_rise_of_entropy_of_the_same_random_network() -> None:
    pytest.importorskip("quantus")
    from pellucid.metrics.similarity import histogram_entropy

    case = asked()
    again, maps = case()
    *_, last = quantus_networks(case.model).values()
    after = histogram_entropy(gradient_times_input(last, case.images, again.target))
    peer = quantus_scores("EfficientMPRT", case)
    assert rise(histogram_entropy(maps), after).numpy() == pytest.approx(np.array(peer), abs=1e-9)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_smooths_each_network_with_other_noise_and_another_each_time() -> None:
    """It draws from NumPy's global state, so that a map by the same network differs from itself, as one that knows
    nothing of the network does from itself at every stage; ours are 1 and the same each time."""
    quantus = pytest.importorskip("quantus")
    case = asked(map=edges)
    again, _ = case()

    def peer() -> list[float]:
        metric = quantus.SmoothMPRT(
            nr_samples=4, noise_magnitude=0.3, abs=False, normalise=False, disable_warnings=True,
            return_average_correlation=False, return_last_correlation=True,
        )  # fmt: skip
        with torch.random.fork_rng():
            scores: list[float] = metric(
                model=case.model,
                x_batch=case.images.numpy(),
                y_batch=again.target.numpy(),
                a_batch=None,
                explain_func=in_quantus(edges),
                channel_first=True,
                device="cpu",
            )
        return scores

    one, two = peer(), peer()
    assert max(one) < 0.95
    assert one != two
    ours = [parameter_randomisation_smooth(*asked(map=edges)(), stages=1, draws=4, noise=0.3) for _ in range(2)]
    assert ours[0].tolist() == ours[1].tolist() == pytest.approx([1] * 3)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_gives_the_same_of_the_same_other_class_but_draws_it_by_the_place_in_the_batch() -> None:
    """Its draws begin anew in each batch, so that an image's other class depends on who stands before it."""
    quantus = pytest.importorskip("quantus")
    from quantus.functions.similarity_func import correlation_spearman

    model = Asked(network(classes=9), drawn(6, 1, 12, 12), map=gradient_times_input)
    again, maps = model()

    def peer(order: list[int]) -> np.ndarray:
        metric = quantus.RandomLogit(
            similarity_func=correlation_spearman, num_classes=9, abs=False, normalise=False, disable_warnings=True
        )
        return np.array(
            metric(
                model=model.model,
                x_batch=model.images[order].numpy(),
                y_batch=again.target[order].numpy(),
                a_batch=maps[order].unsqueeze(1).numpy(),
                explain_func=in_quantus(gradient_times_input),
                channel_first=True,
                device="cpu",
            )
        )

    state = np.random.RandomState(42)
    drawn_places = torch.from_numpy(state.randint(0, 8, 6))
    classes = drawn_places + (drawn_places >= again.target)
    same = by_ranks(maps, again.toward(classes))
    assert same.numpy() == pytest.approx(peer(list(range(6))), abs=1e-9)
    backwards = [5, 4, 3, 2, 1, 0]
    assert np.abs(peer(backwards)[::-1] - same.numpy()).max() > 0.05
    turned = Asked(model.model, model.images[backwards], draws=again.draws[backwards], map=gradient_times_input)
    ours = random_logit(again, maps, similarity="spearman")
    assert torch.allclose(random_logit(*turned(), similarity="spearman").flip(0), ours, atol=1e-6)
