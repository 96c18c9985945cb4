"""Light members of two families whose smallest network in timm is large, registered with timm under their own names.

Their last maps are a sixteenth of the image, not a thirty-second, so that images of 64 to 96 pixels still get maps.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.densenet import DenseNet
from timm.models.vgg import VGG
from torch import nn

__all__ = ["densenet_light", "vgg_bn_light"]

_WIDTHS = (32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256)  # of each convolution; M halves the size

default_cfgs = generate_default_cfgs(  # timm reads this name: nobody has published weights
    {
        "vgg_bn_light": {"first_conv": "features.0", "classifier": "head.fc"},
        "densenet_light": {"first_conv": "features.conv0", "classifier": "classifier"},
    }
)


@register_model
def vgg_bn_light(pretrained: bool = False, **options: Any) -> VGG:
    """VGG-11 with batch norm, half as wide, without the last pooling, its hidden layers of 256 and 4096 units."""
    return build_model_with_cfg(
        VGG,
        "vgg_bn_light",
        pretrained,
        model_cfg=None,
        cfg=_WIDTHS,
        norm_layer=nn.BatchNorm2d,
        mlp_ratio=1 / 16,
        **options,
    )


@register_model
def densenet_light(pretrained: bool = False, **options: Any) -> DenseNet:
    """Dense blocks of 4, 8 and 12 layers in place of DenseNet-121's four, each layer three quarters as wide."""
    return build_model_with_cfg(
        DenseNet, "densenet_light", pretrained, growth_rate=24, block_config=(4, 8, 12), **options
    )
