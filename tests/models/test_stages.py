"""Which layers stand for a network's scales: as its authors name them where they do."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from pellucid.models.layers import find_layer
from pellucid.models.stages import find_stages

KNOWN = {
    "resnet18": ["act1", "layer1", "layer2", "layer3"],
    "densenet121": ["features.norm0", *(f"features.denseblock{k}" for k in (1, 2, 3))],
    "vgg11": ["features.1", "features.4", "features.9", "features.14"],
    "efficientnet_b0": ["bn1", "blocks.1", "blocks.2", "blocks.4"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2"],
    "vit_tiny_patch16_224": [f"blocks.{place}.norm1" for place in range(11)],  # a single scale
    "swin_tiny_patch4_window7_224": [],  # channels come last
}


@pytest.mark.parametrize("name", KNOWN)
def test_scales_of_known_networks(name: str) -> None:
    sized = {"img_size": 64} if name.startswith(("vit", "swin")) else {}
    model = timm.create_model(name, num_classes=2, **sized)
    model.train()
    images = torch.zeros(2, 3, 64, 64)
    assert find_stages(model, images, find_layer(model, images)) == KNOWN[name]
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_scales_before_an_earlier_layer() -> None:
    model = timm.create_model("resnet18", num_classes=2)
    assert find_stages(model, torch.zeros(1, 3, 64, 64), "layer2") == ["act1", "layer1"]
    assert find_stages(model, torch.zeros(1, 3, 64, 64), "act1") == []


def test_a_border_lost_or_padded_is_no_scale_of_its_own() -> None:
    model = nn.Sequential(
        *(nn.ConstantPad2d(1, 0.0), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, stride=2, padding=1)),
    )
    assert find_stages(model, torch.zeros(1, 1, 32, 32), "8") == ["4", "7"]


def test_volumes_may_keep_an_axis() -> None:
    model = nn.Sequential(
        nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 2, 2, stride=(1, 2, 2)), nn.Conv3d(2, 2, 2, stride=2)
    )
    assert find_stages(model, torch.zeros(1, 1, 8, 16, 16), "2") == ["0", "1"]


def test_what_runs_twice_stands_for_nothing() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(2, 2, 3, 2, 1), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            return self.act(self.second(self.act(self.first(images))))

    model = Shared()
    assert find_stages(model, torch.zeros(1, 1, 16, 16), "second") == []
    model.act.inplace = True  # the convolution's output is then the same tensor
    assert find_stages(model, torch.zeros(1, 1, 16, 16), "second") == ["first"]
