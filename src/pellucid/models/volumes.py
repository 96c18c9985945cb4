"""Networks for volumes by name, from MONAI; it is loaded when the first of them is built, which takes seconds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pellucid import torchvision_schemas as torchvision_schemas  # before MONAI, which imports torchvision
from pellucid.errors import MissingWeightsError, expected

Lengths = tuple[int, int, int]
Builder = Callable[[Any, int, int, Lengths], nn.Module]

PATCH = 16  # voxels along each side of a token of "vit-3d"
LEAST = {"densenet121-3d": 29, "densenet169-3d": 29, "efficientnet-b0-3d": 32, "seresnet50-3d": 3, "vit-3d": PATCH}
"""Voxels along each axis below which nothing is left for the network's last layers, where that is more than one."""


def create(
    name: str, classes: int, channels: int, size: Lengths, pretrained: bool | Path, output_stride: int | None
) -> nn.Module:
    """One of `NETWORKS` with random weights, for volumes of `channels` × D × H × W; its output is logits (B, classes).

    Raises:
        InputError: a size that the network can't have, or an output stride.
        MissingWeightsError: pretrained weights are asked for; there are none.
    """
    if pretrained is not False:
        raise MissingWeightsError(f"pretrained: there are no weights for {name!r}. Set pretrained = false.")
    if output_stride is not None:
        raise expected("output_stride", f"none for {name!r}", output_stride, do="Leave it out.")
    check_volume_size(name, size)
    return NETWORKS[name](importlib.import_module("monai.networks.nets"), classes, channels, size)


def check_volume_size(name: str, size: Lengths) -> None:
    """Raise InputError for a size that a network can't take.

    >>> check_volume_size("densenet121-3d", (64, 64, 29))
    """
    least = LEAST.get(name, 1)
    if min(size) < least:
        wanted = "three lengths above 0" if least == 1 else f"at least {least} voxels along each axis for {name!r}"
        raise expected("size", wanted, " × ".join(map(str, size)))
    if name == "vit-3d" and any(length % PATCH for length in size):
        raise expected("size", f"multiples of {PATCH} for 'vit-3d'", " × ".join(map(str, size)))


def _densenet(kind: str) -> Builder:
    def build(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
        return _module(getattr(nets, kind)(spatial_dims=3, in_channels=channels, out_channels=classes))

    return build


def _resnet(kind: str) -> Builder:
    def build(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
        return _module(getattr(nets, kind)(spatial_dims=3, n_input_channels=channels, num_classes=classes))

    return build


def _slim(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    """MONAI's ResNet with a quarter of the usual channels: a sixteenth of the work, for small data and two cores."""
    widths = [16, 32, 64, 128]
    network = nets.ResNet(
        "basic", [1, 1, 1, 1], widths, spatial_dims=3, n_input_channels=channels, conv1_t_size=5, num_classes=classes
    )
    return _module(network)


def _squeeze(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    return _module(nets.SEResNet50(spatial_dims=3, in_channels=channels, num_classes=classes))


def _efficientnet(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    return _module(
        nets.EfficientNetBN(
            "efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=channels, num_classes=classes
        )
    )


def _vit(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    network = nets.ViT(
        in_channels=channels,
        img_size=size,
        patch_size=PATCH,
        classification=True,
        num_classes=classes,
        spatial_dims=3,
        post_activation="",  # MONAI's default, a tanh behind the logits, calls their weights `classification_head.0`
    )
    network.register_forward_hook(_logits)  # rather than a wrapper, so that the weights keep MONAI's names
    return _module(network)


def _logits(network: nn.Module, inputs: object, output: tuple[Tensor, Any]) -> Tensor:
    """MONAI's ViT gives its hidden states as well."""
    return output[0]


def _module(network: object) -> nn.Module:
    assert isinstance(network, nn.Module)
    return network


NETWORKS: Mapping[str, Builder] = {
    "densenet121-3d": _densenet("DenseNet121"),
    "densenet169-3d": _densenet("DenseNet169"),
    "efficientnet-b0-3d": _efficientnet,
    "resnet10-3d": _resnet("resnet10"),
    "resnet10-slim-3d": _slim,
    "resnet18-3d": _resnet("resnet18"),
    "resnet34-3d": _resnet("resnet34"),
    "resnet50-3d": _resnet("resnet50"),
    "seresnet50-3d": _squeeze,
    "vit-3d": _vit,
}
