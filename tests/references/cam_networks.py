"""Small networks for tests of attribution, each with a trait that a careless engine gets wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode with weights, biases and running statistics of a trained network's scale."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, 0, 0.2, generator=draw)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=draw) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=draw) + 0.5)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            inputs = module.weight[0].numel()
            nn.init.normal_(module.weight, 0, (2 / inputs) ** 0.5, generator=draw)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1, generator=draw)
    return network.eval()


def affine_net(axes: int = 2, classes: int = 3, channels: int = 1) -> nn.Sequential:
    """Convolution, norm, ReLU ('2'), global pooling and a linear layer: affine after the ReLU."""
    convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
    pool = nn.AdaptiveAvgPool2d(1) if axes == 2 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(
        convolution(channels, 6, 3, stride=2, padding=1),
        norm(6),
        nn.ReLU(),
        pool,
        nn.Flatten(),
        nn.Linear(6, classes),
    )


def deep_head_net(axes: int = 2, classes: int = 3) -> nn.Sequential:
    """After the ReLU ('1') max pooling, two linear layers and a ReLU between them: what VGG does."""
    convolution, pool = (nn.Conv2d, nn.MaxPool2d(2)) if axes == 2 else (nn.Conv3d, nn.MaxPool3d(2))
    return nn.Sequential(
        convolution(1, 5, 3, padding=1),
        nn.ReLU(inplace=True),
        pool,
        nn.Flatten(),
        nn.Linear(5 * 4**axes, 16),
        nn.ReLU(inplace=True),
        nn.Linear(16, classes),
    )


class MixingHead(nn.Module):
    """A convolution after the layer, so that channels meet before they are flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(1, 5, 3, padding=1)
        self.layer = nn.ReLU()
        self.after = nn.Conv2d(5, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu_(self.layer(self.before(images)))
        return self.fc(functional.relu(self.after(features), inplace=True).amax(dim=(2, 3)))


class GatedHead(nn.Module):
    """A linear layer after the layer that only gates its features, as squeeze-and-excitation does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU())
        self.gate = nn.Linear(5, 5)
        self.fc = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer(images)
        gate = self.gate(features.mean(dim=(2, 3))).sigmoid()
        return self.fc((features * gate[:, :, None, None]).amax(dim=(2, 3)))


class Shuffling(nn.Module):
    """Channels change places before they meet, and what lies before the layer is written to in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(6, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer(functional.relu_(self.stem(images)))
        return self.last(self.fc(features.flip(1).mean(dim=(2, 3))).tanh())


class Skipping(nn.Module):
    """What lies before the layer reaches the score past it as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        both = torch.cat([stem, self.layer(stem)], dim=1)
        return self.fc((both**2).mean(dim=(2, 3)))


class Reviewing(nn.Module):
    """Views that the channels-last layout can't give, before the layer and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer = nn.ReLU()
        self.fc = nn.Linear(4 * 64, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        features = self.layer(stem.view(len(images), -1).view(stem.shape))
        return self.fc(features.view(len(images), -1)).tanh()
