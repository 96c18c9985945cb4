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
    if min(size) < 1:
        raise expected("size", "three lengths above 0", size)
    return NETWORKS[name](importlib.import_module("monai.networks.nets"), classes, channels, size)


def _densenet(kind: str) -> Builder:
    def build(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
        return _module(getattr(nets, kind)(spatial_dims=3, in_channels=channels, out_channels=classes))

    return build


def _resnet(kind: str) -> Builder:
    def build(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
        return _module(getattr(nets, kind)(spatial_dims=3, n_input_channels=channels, num_classes=classes))

    return build


def _squeeze(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    return _module(nets.SEResNet50(spatial_dims=3, in_channels=channels, num_classes=classes))


def _efficientnet(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    return _module(
        nets.EfficientNetBN(
            "efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=channels, num_classes=classes
        )
    )


def _vit(nets: Any, classes: int, channels: int, size: Lengths) -> nn.Module:
    if any(length % PATCH for length in size):
        raise expected("size", f"multiples of {PATCH} for 'vit-3d'", size)
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
    "resnet18-3d": _resnet("resnet18"),
    "resnet34-3d": _resnet("resnet34"),
    "resnet50-3d": _resnet("resnet50"),
    "seresnet50-3d": _squeeze,
    "vit-3d": _vit,
}
