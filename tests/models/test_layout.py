from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pellucid.models.checkpoints import ModelCard, load_weights, save_weights
from pellucid.models.layout import channels_last, lay_out


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_channels_lie_last(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    laid = channels_last(images)
    assert torch.equal(laid, images)
    assert laid.stride(1) == 1


def test_convolutions_alone_are_laid_out() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv3d(2, 4, 3), nn.Conv1d(2, 4, 3), nn.Linear(3, 2))
    values = [parameter.clone() for parameter in network.parameters()]
    lay_out(network)
    assert [network[place].weight.stride(1) == 1 for place in range(4)] == [True, True, False, True]
    assert network[2].weight.is_contiguous()
    assert all(map(torch.equal, network.parameters(), values))


@pytest.mark.parametrize(
    ("architecture", "size"), [("resnet10t", 64), ("vgg_bn_light", 64), ("resnet10-slim-3d", (16, 24, 32))]
)
def test_networks_of_a_file_are_laid_out_and_give_the_same(
    architecture: str, size: int | tuple[int, int, int], tmp_path: Path
) -> None:
    card = ModelCard(architecture, size, 1, ("a", "b"), (0.5,), (0.25,), "data-set")
    torch.manual_seed(0)
    network = card.build().eval()
    save_weights(tmp_path / "weights.safetensors", network, card)
    loaded, _ = load_weights(tmp_path / "weights.safetensors")
    convolutions = [each.weight for each in loaded.modules() if isinstance(each, nn.Conv2d | nn.Conv3d)]
    assert convolutions
    assert all(weight.stride(1) == 1 for weight in convolutions if weight.shape[1] > 1)
    images = torch.rand(2, 1, *((size, size) if isinstance(size, int) else size))
    with torch.no_grad():
        assert (loaded(images) - network(images)).abs().max() < 1e-5
    save_weights(tmp_path / "again.safetensors", loaded, card)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "weights.safetensors").read_bytes()
