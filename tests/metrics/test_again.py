"""`Again`: what is made again, how often, by which network, and what `evaluate` makes of all this."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution import explain
from pellucid.attribution.explanation import Explanation
from pellucid.errors import InputError, UnknownNameError
from pellucid.metrics import METRICS, metric
from pellucid.metrics.evaluate import MissingValuesWarning, evaluate
from pellucid.registry import Choice
from references.explaining import Asked, drawn, edges, gradient, linear_network, network


def brighter(image: Tensor, generator: torch.Generator) -> Tensor:
    return image + torch.rand((), generator=generator)


def asked(count: int = 3) -> Asked:
    return Asked(network(), drawn(count, 1, 10, 10), map=gradient, other=edges)


def test_neighbours_belong_to_the_images_seed_and_the_draws_number() -> None:
    case = asked()
    again, _ = case()
    near = again.near(brighter, "brighter", 4)
    assert near.images.shape == (3, 4, 1, 10, 10)
    assert near.maps.shape == (3, 4, 10, 10)
    assert near.logits.shape == (3, 4, 3)
    fewer = Asked(case.model, case.images[2:], draws=again.draws[2:], map=gradient)()[0].near(brighter, "brighter", 2)
    assert torch.equal(fewer.images[0], near.images[2, :2])
    for i in range(3):
        wanted = gradient(case.model, near.images[i], again.target[i].repeat(4))
        assert torch.allclose(near.maps[i], wanted, atol=1e-6)
        assert torch.allclose(near.logits[i], case.model(near.images[i]), atol=1e-6)


def test_logits_of_neighbours_are_asked_for_once_and_only_where_they_are_read() -> None:
    case, rows = asked(), []
    answer = case.explained.logits_of
    case.explained.logits_of = lambda images: (rows.append(len(images)), answer(images))[1]
    near = case()[0].near(brighter, "brighter", 4)
    assert not rows
    assert torch.equal(near.logits, near.logits)
    assert rows == [3 * 4]


def test_all_methods_are_explained_at_once_and_each_gets_its_own() -> None:
    case = asked()
    one, other = (case(label)[0].near(brighter, "brighter", 2) for label in ("map", "other"))
    assert case.explainer.rows == [6]
    assert torch.equal(one.images, other.images)
    assert torch.allclose(other.maps.flatten(0, 1), edges(case.model, one.images.flatten(0, 1), torch.zeros(6)))
    case("map")[0].toward(torch.tensor([0, 1, 2]))
    case("other")[0].toward(torch.tensor([0, 1, 2]))
    case("other")[0].toward(torch.tensor([2, 1, 0]))
    assert case.explainer.rows == [6, 3, 3]


def test_another_class_is_explained() -> None:
    case = asked()
    again, _ = case()
    classes = (again.target + 1) % 3
    assert torch.allclose(again.toward(classes), gradient(case.model, case.images, classes))


def test_the_maps_of_any_images_are_made_and_not_kept() -> None:
    case = asked()
    again, _ = case()
    rows, sample = drawn(4, 1, 10, 10, seed=3), torch.tensor([2, 0, 0, 1])
    found = [again.maps_of(rows, sample) for _ in range(2)]
    assert torch.allclose(found[0], gradient(case.model, rows, again.target[sample]))
    assert case.explainer.rows == [4, 4]


def test_what_is_compared_is_kept_and_the_maps_are_not() -> None:
    case = asked()
    other = linear_network(drawn(3, 1, 10, 10, seed=5))

    @contextlib.contextmanager
    def change(model: nn.Module) -> Iterator[nn.Module]:
        assert model is case.model
        yield other

    def versions() -> Tensor:
        return case.images.unsqueeze(1).repeat(1, 2, 1, 1, 1)

    def compare(maps: Tensor, again: Tensor) -> Tensor:
        return (again - maps.unsqueeze(1)).flatten(1).sum(dim=1)

    found = {label: case(label)[0].compared("x", compare, change, versions) for label in ("map", "other")}
    wanted = gradient(other, case.images, case()[0].target) - case.maps["map"]
    assert torch.allclose(found["map"], 2 * wanted.flatten(1).sum(dim=1), atol=1e-4)
    assert found["other"].abs().max() < 1e-5
    assert case.explainer.rows == [6]


def test_features_are_those_of_the_last_run_of_each_pass() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.same, self.head = nn.Flatten(), nn.Identity(), nn.Linear(100, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.same(2 * self.same(self.flat(images))))

    case = Asked(Twice(), drawn(5, 1, 10, 10), map=gradient)
    again, _ = case()
    split = case.explained.logits_of
    case.explained.logits_of = lambda rows: torch.cat([split(part) for part in rows.split(2)])
    for layer in ("", "same"):
        assert torch.equal(again.features_of(case.images, layer, "own"), 2 * case.images.flatten(1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in case.model.modules())
    with pytest.raises(UnknownNameError, match="unknown layer 'sam'. Did you mean 'same'"):
        again.features_of(case.images, "sam", "own")


def test_an_explainer_that_leaves_a_method_out_or_gives_another_shape_is_refused() -> None:
    case = asked()
    case.explainer.by = {"map": gradient}
    with pytest.raises(InputError, match="explainer: expected maps by map, other, got none by 'other'"):
        case()[0].toward(torch.tensor([0, 1, 2]))
    case.explainer.by = {"map": gradient, "other": lambda model, images, target: images}
    with pytest.raises(InputError, match=r"explainer: expected maps \(3, 10, 10\), got \(3, 1, 10, 10\) by 'other'"):
        case()[0].toward(torch.tensor([0, 1, 2]))


# ---- through evaluate ----

METHODS = ("layer-cam", "saliency", "random", "sobel")


def every_metric() -> list[str | Choice[object]]:
    names = [entry.name for entry in METRICS if entry.family in ("robustness", "sanity")]
    assert len(names) == 14
    return [metric(name, network=network().eval()) if name == "data-randomisation" else name for name in names]


def state(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in [*model.parameters(), *model.buffers()]]


@pytest.fixture(scope="module")
def evaluated() -> tuple[pd.DataFrame, bool]:
    model, images = network(), drawn(3, 1, 14, 14)
    explanation = explain(model, images, methods=METHODS)
    explanation = dataclasses.replace(explanation, maps={**explanation.maps, "mine": drawn(3, 14, 14, seed=7)})
    before, modes = state(model), [module.training for module in model.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingValuesWarning)
        table = evaluate(model, images, explanation, metrics=every_metric())
    same = all(torch.equal(one, two) for one, two in zip(before, state(model), strict=True))
    hooks = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    grads = all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    return table, same and grads and not hooks and modes == [module.training for module in model.modules()]


def test_the_model_is_given_back_bit_for_bit(evaluated: tuple[pd.DataFrame, bool]) -> None:
    assert evaluated[1]


def test_every_metric_has_a_value_for_every_method_that_can_be_run_again(
    evaluated: tuple[pd.DataFrame, bool],
) -> None:
    table = evaluated[0]
    assert len(table) == 3 * 5 * 14
    own = table[(table["method"] == "mine") & (table["metric"] != "consistency")]
    assert set(own["reason"]) == {"the method can't be run again (pass explainer=)"}
    assert own["value"].isna().all()
    others = table[(table["method"] != "mine") & (table["metric"] != "consistency")]
    assert (others["reason"] == "").all()
    assert not others["value"].isna().any()


def test_controls_that_know_nothing_of_the_network_show_it(evaluated: tuple[pd.DataFrame, bool]) -> None:
    values = evaluated[0].set_index(["metric", "method"])["value"]
    for method in ("random", "sobel"):
        for name in ("parameter-randomisation", "random-logit", "data-randomisation[network=Sequential]"):
            assert values[name, method].to_numpy() == pytest.approx(1)
    assert (values["max-sensitivity", "random"] == 0).all()
    assert (values["max-sensitivity", "sobel"] > 0).all()
    assert (values["parameter-randomisation", "layer-cam"] < 0.9).all()
    assert values["data-randomisation[network=Sequential]", "saliency"].to_numpy() == pytest.approx(1)  # the same one


def test_values_do_not_depend_on_the_batch_size_or_on_other_methods_and_metrics() -> None:
    model, images = network(), drawn(3, 1, 14, 14)
    explanation = explain(model, images, methods=["saliency", "layer-cam"])
    alone = dataclasses.replace(explanation, maps={"saliency": explanation.maps["saliency"]})
    both = evaluate(model, images, explanation, metrics=["avg-sensitivity", "attack", "random-logit"])
    one = evaluate(model, images, alone, metrics=["attack", "avg-sensitivity"], batch_size=2)
    for name in ("attack", "avg-sensitivity"):
        wanted = both[(both["metric"] == name) & (both["method"] == "saliency")]["value"].tolist()
        assert one[one["metric"] == name]["value"].tolist() == pytest.approx(wanted, rel=1e-4)


def test_the_model_is_given_back_after_an_exception_in_the_explainer() -> None:
    model, images = network(), drawn(2, 1, 14, 14)
    explanation = explain(model, images, methods=["saliency"])
    before, calls = state(model), []

    def failing(given: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        calls.append(sum(not torch.equal(one, two) for one, two in zip(before, state(given), strict=True)))
        if len(calls) == 3:
            raise RuntimeError("the explainer fails")
        return {"saliency": gradient(given, rows, target)}

    with pytest.raises(RuntimeError, match="the explainer fails"):
        evaluate(model, images, explanation, metrics=["parameter-randomisation"], explainer=failing)
    assert calls[0] > 0
    assert calls[2] > calls[0]
    assert all(torch.equal(one, two) for one, two in zip(before, state(model), strict=True))
    assert all(module.training for module in model.modules())


def test_maps_that_come_out_otherwise_have_no_value_and_say_so() -> None:
    """Else the distance between two makings would be taken for sensitivity."""
    model, images = network().eval(), drawn(3, 1, 14, 14)
    seeds = torch.tensor([5, 6, 7])
    explanation = explain(model, images, methods=["saliency", "random"], generator=seeds)
    given = dataclasses.replace(explanation, maps={**explanation.maps, "sobel": drawn(3, 14, 14)}, seeds=None)
    with pytest.warns(MissingValuesWarning, match="the map comes out otherwise when it is made again"):
        table = evaluate(model, images, given, metrics=["max-sensitivity"])
    assert table.groupby("method")["value"].count().to_dict() == {"random": 0, "saliency": 3, "sobel": 0}
    seeded = explain(model, images, methods=["random"], generator=torch.Generator().manual_seed(8))
    for known, which in ((explanation, slice(0, 3)), (explanation, slice(1, 3)), (seeded, slice(2, 3))):
        table = evaluate(model, images[which], known[which], metrics=["max-sensitivity"])
        assert (table.query("method == 'random'")["value"] == 0).all()
    older = dataclasses.replace(seeded, seeds=None)  # as one that was saved before
    assert (evaluate(model, images, older, metrics=["max-sensitivity"])["value"] == 0).all()


def test_a_users_own_maps_are_made_again_by_a_users_explainer() -> None:
    model, images = network().eval(), drawn(2, 1, 14, 14)
    explanation = explain(model, images, methods=["saliency"])
    own = gradient(model, images, explanation.target)
    explanation = dataclasses.replace(explanation, maps={"mine": own})

    def explainer(given: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        return {"mine": gradient(given, rows, target)}

    table = evaluate(model, images, explanation, metrics=["max-sensitivity", "random-logit"], explainer=explainer)
    assert not table["value"].isna().any()


def test_values_are_kept_apart_by_the_network_in_an_option(tmp_path: object) -> None:
    model, images = network().eval(), drawn(2, 1, 14, 14)
    explanation = explain(model, images, methods=["saliency"])
    other = linear_network(drawn(3, 1, 14, 14, seed=6)).eval()

    def value(given: nn.Module, explanation: Explanation = explanation) -> list[float]:
        choice = metric("data-randomisation", network=given)
        table = evaluate(model, images, explanation, metrics=[choice], keep=str(tmp_path), explainer=explainer)
        return [float(each) for each in table["value"]]

    def explainer(given: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        calls.append(given)
        return {"saliency": gradient(given, rows, target).abs()}

    calls: list[nn.Module] = []
    first = value(model)
    assert first == pytest.approx([1, 1])
    assert value(other) != pytest.approx([1, 1], abs=0.5)
    assert value(model) == first
    assert calls == [model, other]  # the third from the folder


@pytest.mark.gpu
def test_a_gpu_gives_the_same_wherever_no_network_is_made_random() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    names = [each for each in every_metric() if not str(each).startswith("parameter")]  # whose weights differ there
    found = []
    for device in ("cpu", "cuda"):
        model, images = network().eval().to(device), drawn(3, 1, 14, 14).to(device)
        explanation = explain(model, images, methods=["saliency", "sobel"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MissingValuesWarning)
            found.append(evaluate(model, images, explanation, metrics=names)["value"].to_numpy())
    assert found[1] == pytest.approx(found[0], rel=1e-2, abs=1e-3, nan_ok=True)


@pytest.mark.gpu
def test_on_a_gpu_every_metric_runs_and_the_network_and_its_random_state_are_given_back() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model, images = network().cuda(), drawn(3, 1, 14, 14).cuda()
    explanation = explain(model, images, methods=METHODS)
    before, random_state = state(model), torch.cuda.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingValuesWarning)
        table = evaluate(model, images, explanation, metrics=every_metric())
    assert not table[table["metric"] != "consistency"]["value"].isna().any()
    assert all(torch.equal(one, two) for one, two in zip(before, state(model), strict=True))
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
