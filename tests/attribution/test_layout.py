from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.layout import Casts, relaid, weights_laid_out
from references.cam_networks import seeded


class Viewing(nn.Module):
    """Views its feature maps as rows, which can't be done where channels lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 10 * 10, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images).relu()
        rows: Tensor = self.linear(maps.view(len(maps), -1))
        return rows


class Noting(nn.Module):
    """Notes how its weights lie whenever it runs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.last: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.last.append(channels_last(self.inner.get_submodule("2").weight))
        rows: Tensor = self.inner(images)
        return rows


def channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def network() -> nn.Module:
    parts = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return seeded(nn.Sequential(*parts))


@pytest.mark.parametrize("fails", [False, True])
def test_weights_lie_as_channels_do_inside_and_are_given_back(fails: bool) -> None:
    model = network()
    own = [parameter.data_ptr() for parameter in model.parameters()]
    values = [parameter.clone() for parameter in model.parameters()]
    outcome = pytest.raises(ValueError, match="in between") if fails else contextlib.nullcontext()
    with outcome, borrowed(model), weights_laid_out(model, torch.rand(2, 1, 12, 12)):
        assert channels_last(model[2].weight)
        assert all(map(torch.equal, model.parameters(), values))
        if fails:
            raise ValueError("in between")
    assert [parameter.data_ptr() for parameter in model.parameters()] == own
    assert all(map(torch.equal, model.parameters(), values))


def test_a_network_that_views_its_maps_keeps_the_usual_layout() -> None:
    model = seeded(Viewing())
    with borrowed(model), weights_laid_out(model, images := torch.rand(2, 1, 12, 12)):
        assert not channels_last(model.convolution.weight)
        assert model(images).shape == (2, 3)  # with weights laid out it would fail


def test_volumes_and_scripted_networks_are_left_alone() -> None:
    volumes = nn.Sequential(nn.Conv3d(1, 2, 3))
    with borrowed(volumes), weights_laid_out(volumes, torch.rand(1, 1, 4, 4, 4)):
        assert volumes[0].weight.is_contiguous()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        scripted = torch.jit.script(network())
    with borrowed(scripted), weights_laid_out(scripted, torch.rand(1, 1, 12, 12)):
        assert all(parameter.is_contiguous() for parameter in scripted.parameters())


def test_a_weight_that_is_computed_is_left_alone() -> None:
    model = network()
    torch.nn.utils.parametrizations.weight_norm(model[2])
    images = torch.rand(1, 1, 12, 12)
    with borrowed(model), weights_laid_out(model, images):
        assert torch.isfinite(model(images)).all()


@pytest.mark.parametrize(
    ("method", "laid"), [("rise", True), ("score-cam", True), ("layer-cam", False), ("ablation-cam", False)]
)
def test_methods_that_score_many_images_run_on_such_weights(method: str, laid: bool) -> None:
    model = Noting(network())
    explanation = pellucid.explain(model, torch.rand(2, 1, 12, 12), [method], layer="inner.2")
    assert any(model.last) == laid
    assert explanation.maps[method].isfinite().all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [network, lambda: seeded(Viewing())])
def test_values_don_t_depend_on_the_layout(precision: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make(), torch.rand(3, 1, 12, 12)
    explanation = pellucid.explain(model, images, ["rise", "random"])
    metrics = ["road", "deletion", "selectivity", "monotonicity"]
    found = pellucid.evaluate(model, images, explanation, metrics, precision=precision)
    monkeypatch.setattr("pellucid.metrics.block.weights_laid_out", lambda *given: contextlib.nullcontext())
    plain = pellucid.evaluate(model, images, explanation, metrics, precision=precision)
    within = 1e-5 if precision == "float32" else 2e-2
    assert (found["value"] - plain["value"]).abs().max() < within


def test_relaid_tensors_have_their_own_memory_again() -> None:
    tensor = torch.rand(2, 3, 4, 5)
    values, own = tensor.clone(), tensor.data_ptr()
    with relaid([tensor], torch.channels_last):
        assert channels_last(tensor)
        assert torch.equal(tensor, values)
    assert tensor.data_ptr() == own
    assert tensor.is_contiguous()
    assert torch.equal(tensor, values)


def test_a_convolution_that_sees_its_whole_input_is_left_alone() -> None:
    whole = nn.Conv2d(4, 6, 10)  # as a VGG's first linear layer, in which a copy takes more time than it saves
    model = seeded(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), whole, nn.Flatten()))
    with borrowed(model), weights_laid_out(model, torch.rand(2, 2, 12, 12)):
        assert whole.weight.is_contiguous()
        assert channels_last(model[0].weight)


def test_copies_that_take_too_much_are_not_made() -> None:
    model, images = network(), torch.rand(1, 1, 12, 12)
    taken = sum(model[place].weight.nbytes for place in (0, 2))
    for spare, laid in ((taken, True), (taken - 1, False)):
        with borrowed(model), weights_laid_out(model, images, spare):
            assert channels_last(model[2].weight) == laid


def test_casts_stand_in_for_weights_and_give_them_back() -> None:
    model, images = network(), torch.rand(2, 1, 12, 12)
    own = {name: (each.data_ptr(), each.clone()) for name, each in model.named_parameters()}
    with borrowed(model), torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        usual = model(images)
        casts = Casts(model, images)
        with pytest.raises(ValueError, match="in between"), casts.held():
            assert all(each.dtype == torch.bfloat16 for each in model.parameters())
            assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
            assert (model(images) - usual).abs().max() < 2e-2
            raise ValueError("in between")
    for name, each in model.named_parameters():
        assert each.data_ptr() == own[name][0]
        assert torch.equal(each, own[name][1])


def test_a_weight_that_was_written_to_is_not_taken_for_its_cast() -> None:
    model, images = network(), torch.rand(2, 1, 12, 12)
    with borrowed(model), torch.no_grad():
        casts = Casts(model, images)
        model[0].weight.mul_(2)
        with relaid([model[2].weight], torch.channels_last), casts.held():
            assert [each.dtype for each in (model[0].weight, model[0].bias)] == [torch.float32, torch.bfloat16]
            assert model[2].weight.dtype == torch.float32


class Reading(nn.Module):
    """Multiplies by a linear layer's weight outside mixed precision, which casts of it don't serve."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(144, 3)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            rows: Tensor = images.flatten(1) @ self.linear.weight.T
            return rows


def test_a_network_that_takes_its_own_weights_alone_gets_them() -> None:
    model, images = seeded(Reading()), torch.rand(2, 1, 12, 12)
    explanation = pellucid.explain(model, images, ["random"])
    tables = [pellucid.evaluate(model, images, explanation, "road", precision=each) for each in ("float32", "bfloat16")]
    assert (tables[0]["value"] - tables[1]["value"]).abs().max() < 1e-6
