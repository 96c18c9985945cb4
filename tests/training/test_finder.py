"""The range test that finds a learning rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.training.finder import BOUNDS, find_learning_rate, steepest
from pellucid.training.settings import TrainingSettings


def loader(noise: float = 0.0) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 4, 4, generator=generator)
    labels = (images.mean(dim=(1, 2, 3)) > 0).long()
    if noise:
        labels = torch.randint(2, (64,), generator=generator)
    return DataLoader(TensorDataset(images, labels, torch.arange(64)), batch_size=16)


def linear() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(network[1].weight)
    return network


def settings(**own: object) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {"optimiser": "sgd", "weight_decay": 0.0, "layer_decay": 1.0, "learning_rate": "find", **own}
    )


def test_the_rate_learns_within_bounds_and_the_network_is_left_alone() -> None:
    network = linear().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = find_learning_rate(network, loader(), settings(), fallback=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    low, high = BOUNDS["sgd"]
    assert found.rates[0] == low
    assert low < found.rate < high
    assert found.reason == "steepest fall of the loss in a range test"
    trained = torch.optim.SGD(network.parameters(), lr=found.rate, momentum=0.9, nesterov=True)
    for _ in range(20):
        for images, labels, _ in loader():
            trained.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            trained.step()
    assert float(loss.detach()) < 0.4 < found.losses[0]


def test_it_repeats_itself() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    one, two = (find_learning_rate(network, loader(), settings(), fallback=1e-3, seed=4) for _ in range(2))
    assert one == two
    assert find_learning_rate(network, loader(), settings(), fallback=1e-3, seed=5).losses != one.losses


def test_rates_by_layer_are_kept_in_proportion() -> None:
    """With no rate for the first layer the test is that of the last alone."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))
    tiny = find_learning_rate(network, loader(), settings(layer_decay=1e-12), fallback=1e-3)
    network[1].requires_grad_(False)
    alone = find_learning_rate(network, loader(), settings(), fallback=1e-3)
    np.testing.assert_allclose(tiny.losses, alone.losses, rtol=1e-5)


class Deaf(nn.Module):
    """Says the same whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 0 * self.fc(images.flatten(1)[:, :1])


def test_a_loss_that_does_not_fall_leaves_the_familys_rate() -> None:
    found = find_learning_rate(Deaf(), loader(), settings(), fallback=0.123)
    assert found.rate == 0.123
    assert found.reason == "the family's default: the loss didn't fall in a range test"


def test_a_loss_that_explodes_at_once_leaves_the_familys_rate() -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.runs = nn.Linear(16, 2), 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return self.fc(images.flatten(1)) * (float("nan") if self.runs > 4 else 1.0)

    found = find_learning_rate(Exploding(), loader(), settings(), fallback=0.123)
    assert found.rate == 0.123
    assert found.reason == "the family's default: the range test ended after 4 steps"
    assert len(found.losses) == len(found.rates) == 4


@pytest.mark.parametrize("turn", [1e-4, 1e-3, 1e-2])
def test_the_steepest_place_of_a_noisy_curve(turn: float) -> None:
    rates = np.geomspace(1e-6, 1.0, 100)
    noise = np.random.default_rng(0).normal(0, 0.01, 100)
    losses = 0.2 + 1 / (1 + rates / turn) + np.maximum(0, np.log10(rates / turn) - 1.5) * 3 + noise
    rate, _ = steepest(rates.tolist(), losses.tolist(), fallback=1.0)
    assert turn / 3 < rate < turn * 3  # of the logistic curve the steepest place is its turn
