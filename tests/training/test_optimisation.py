"""Which parameters are trained, and how fast."""

from __future__ import annotations

import math

import pellucid.torchvision_schemas  # isort: skip  # before timm, which imports torchvision
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from pellucid.errors import InputError
from pellucid.training.optimisation import freeze, head_of, layer_depths, make_optimiser, parameter_groups, rate_factor
from pellucid.training.settings import TrainingSettings

assert pellucid.torchvision_schemas


def by_name(network: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vgg11", "test_resnet"])  # whose stages are timm's layers
def test_rates_and_decays_are_those_of_timm(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    ours = by_name(network, parameter_groups(network, 1e-3, 0.05, 0.75))
    unnamed = getattr(network, "no_weight_decay", set)()
    theirs = param_groups_layer_decay(network, 0.05, layer_decay=0.75, no_weight_decay_list=unnamed)
    theirs = by_name(network, [{**group, "lr": group["lr_scale"] * 1e-3} for group in theirs])
    assert ours.keys() == theirs.keys() == dict(network.named_parameters()).keys()
    for parameter, (rate, decay) in ours.items():
        assert rate == pytest.approx(theirs[parameter][0], rel=1e-12), parameter
        assert decay == theirs[parameter][1], parameter


def test_rates_fall_by_stage_towards_the_stem() -> None:
    with torch.device("meta"):
        network = timm.create_model("resnet50")
    rates = by_name(network, parameter_groups(network, 1.0, 0.0, 0.5))
    stages = ["conv1.weight", *(f"layer{stage}.0.conv1.weight" for stage in (1, 2, 3, 4)), "fc.weight"]
    assert [rates[name][0] for name in stages] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5, 1.0]
    assert rates["layer3.0.conv1.weight"] == rates["layer3.5.conv3.weight"]  # a stage, not a block


def test_one_rate_for_all_where_layers_do_not_decay_and_fixed_weights_are_left_out() -> None:
    network = timm.create_model("test_resnet")
    network.conv1.requires_grad_(False)
    groups = by_name(network, parameter_groups(network, 1e-3, 0.1, 1.0))
    assert {rate for rate, _ in groups.values()} == {1e-3}
    assert not any(name.startswith("conv1.") for name in groups)


def test_a_network_of_volumes_has_depths_by_its_outermost_modules() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
    depths = layer_depths(network)
    assert depths["conv1.weight"] == 0
    assert depths["layer1.0.conv1.weight"] < depths["layer4.0.conv1.weight"] < depths["fc.weight"]
    assert head_of(network) == [network.fc]


def test_sgd_takes_nesterovs_momentum() -> None:
    settings = TrainingSettings(optimiser="sgd", weight_decay=0.1, layer_decay=0.5)
    optimiser = make_optimiser(nn.Linear(2, 2), settings, 0.1)
    assert isinstance(optimiser, torch.optim.SGD)
    assert optimiser.defaults["nesterov"]
    assert optimiser.defaults["momentum"] == 0.9


def test_a_frozen_network_trains_its_head_alone_and_keeps_its_statistics() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    trained = list(network.parameters())
    freeze(network, trained, but_head=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0, weight_decay=0.1)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    freeze(network, trained, but_head=False)
    assert all(parameter.requires_grad for parameter in trained)
    assert all(module.training for module in network.modules())


def test_what_was_never_trained_stays_so() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    network[1].bias.requires_grad_(False)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for but_head in (True, False):
        freeze(network, trained, but_head=but_head)
        assert not network[1].bias.requires_grad
        assert network[1].weight.requires_grad


def test_a_network_without_a_head_cannot_be_frozen() -> None:
    with pytest.raises(InputError, match="freeze_epochs: expected 0 for Conv2d, which ends in no linear layer"):
        head_of(nn.Conv2d(1, 2, 3))


def test_rates_warm_up_again_when_the_network_is_let_go() -> None:
    factor = rate_factor(TrainingSettings(warmup=0.2), 30, 10)
    values = [factor(step) for step in range(30)]
    assert values[:2] == [0.5, 1.0]
    assert values[2:10] == [1.0] * 8
    assert values[10:14] == [0.25, 0.5, 0.75, 1.0]
    for step in range(14, 30):
        assert values[step] == pytest.approx((1 + math.cos(math.pi * (step - 14) / 16)) / 2)
    constant = rate_factor(TrainingSettings(warmup=0.2, schedule="constant"), 10, 0)
    assert [constant(step) for step in range(10)] == [0.5] + [1.0] * 9
