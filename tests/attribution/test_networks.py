"""Networks as their libraries build them: which layer `auto` takes, its grid, and maps that say something."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import torchvision
from monai.networks import nets as monai
from torch import Tensor, nn

from pellucid.attribution import Explanation, explain, method

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")

Build = Callable[[], nn.Module]
Case = tuple[Build, tuple[int, ...], str, tuple[int, ...]]  # network, image (C, *S), layer, grid

VIT = {"img_size": 64, "depth": 2, "embed_dim": 24, "num_heads": 2}
SWIN = {"img_size": 64, "depths": (1,) * 4, "embed_dim": 24, "window_size": 2}
MONAI_VIT = {"hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 2, "classification": True}
FIRST_OF_TUPLE = ("monai 2-D vit", "monai 3-D vit")


def of_timm(name: str, layer: str, grid: int, size: int = 64, channels: int = 3, **options: object) -> Case:
    build = partial(timm.create_model, name, num_classes=3, in_chans=channels, **options)
    return build, (channels, size, size), layer, (grid, grid)


def of_torchvision(name: str, layer: str, grid: int, size: int = 64, **options: object) -> Case:
    build = partial(torchvision.models.get_model, name, weights=None, num_classes=3, **options)
    return build, (3, size, size), layer, (grid, grid)


def of_monai(axes: int, build: Build, layer: str, grid: int, channels: int = 1, size: int = 64) -> Case:
    return build, (channels, *(size,) * axes), layer, (grid,) * axes


CASES: dict[str, Case] = {
    "resnet": of_timm("resnet18", "layer4", 2),
    "resnet of bottlenecks": of_timm("resnet50", "layer4", 2),
    "resnext, squeezed": of_timm("seresnext26d_32x4d", "layer4", 2),
    "densenet": of_timm("densenet121", "features.norm5", 2),
    "vgg": of_timm("vgg11", "features.19", 4, mlp_ratio=0.02),
    "vgg with norms": of_timm("vgg11_bn", "features.27", 4, mlp_ratio=0.02),
    "efficientnet": of_timm("efficientnet_b0", "bn2", 2),
    "efficientnetv2": of_timm("efficientnetv2_rw_t", "bn2", 2),
    "mobilenetv2": of_timm("mobilenetv2_100", "bn2", 2),
    "mobilenetv3": of_timm("mobilenetv3_small_100", "blocks.5", 2),
    "convnext": of_timm("convnext_atto", "stages.3", 2),
    "convnextv2": of_timm("convnextv2_atto", "stages.3", 2),
    "regnetx": of_timm("regnetx_002", "final_conv", 2),
    "regnety": of_timm("regnety_002", "final_conv", 2),
    "vit": of_timm("vit_tiny_patch16_224", "blocks.1.norm1", 4, **VIT),
    "deit": of_timm("deit_tiny_patch16_224", "blocks.1.norm1", 4, **VIT),
    "dinov2 with registers": of_timm(
        "vit_small_patch14_reg4_dinov2", "blocks.1.norm1", 4, 56, **VIT | {"img_size": 56}),
    "swin": of_timm("swin_tiny_patch4_window7_224", "norm", 2, **SWIN),
    "swinv2": of_timm("swinv2_tiny_window8_256", "norm", 2, **SWIN),
    "maxvit": of_timm("maxvit_rmlp_pico_rw_256", "norm", 2, img_size=64),
    "maxvit of the paper": of_timm("maxvit_tiny_tf_224", "norm", 2, img_size=64),
    "crossvit": of_timm("crossvit_tiny_240", "blocks.2.fusion.1.norm1", 20, 240),
    "coat": of_timm("coat_lite_tiny", "serial_blocks4.1.norm1", 7, 224),
    "hiera": of_timm("hiera_tiny_224", "blocks.11", 2, 64, img_size=64),
    "mixer": of_timm("mixer_s32_224", "norm", 2, 64, img_size=64),
    "grey resnet": of_timm("resnet18", "layer4", 2, channels=1),
    "grey vit": of_timm("vit_tiny_patch16_224", "blocks.1.norm1", 4, channels=1, **VIT),
    "four sequences, densenet": of_timm("densenet121", "features.norm5", 2, channels=4),
    "four sequences, swin": of_timm("swin_tiny_patch4_window7_224", "norm", 2, channels=4, **SWIN),
    "torchvision resnet": of_torchvision("resnet18", "layer4", 2),
    "torchvision densenet": of_torchvision("densenet121", "features:relu", 2),
    "torchvision vgg": of_torchvision("vgg11", "features.19", 4),
    "torchvision efficientnet": of_torchvision("efficientnet_b0", "features.8", 2),
    "torchvision mobilenetv2": of_torchvision("mobilenet_v2", "features", 2),
    "torchvision mobilenetv3": of_torchvision("mobilenet_v3_small", "features.12", 2),
    "torchvision convnext": of_torchvision("convnext_tiny", "features", 2),
    "torchvision regnet": of_torchvision("regnet_y_400mf", "trunk_output", 2),
    "torchvision swin": of_torchvision("swin_t", "permute", 2),
    "torchvision swinv2": of_torchvision("swin_v2_t", "permute", 2),
    "torchvision vit": (
        partial(torchvision.models.VisionTransformer, 64, 16, 2, 2, 24, 32, num_classes=3), (3, 64, 64),
        "encoder.layers.encoder_layer_1.ln_1", (4, 4)),
    "torchvision maxvit": of_torchvision("maxvit_t", "blocks.3", 7, 224),
}  # fmt: skip
for axes in (2, 3):
    CASES |= {
        f"monai {axes}-D densenet": of_monai(axes, partial(monai.DenseNet121, axes, 1, 3), "class_layers.relu", 2),
        f"monai {axes}-D resnet": of_monai(
            axes, partial(monai.resnet18, spatial_dims=axes, n_input_channels=1, num_classes=3), "layer4", 2, size=32),
        f"monai {axes}-D resnet, four sequences": of_monai(
            axes, partial(monai.resnet10, spatial_dims=axes, n_input_channels=4, num_classes=3, widen_factor=0.25),
            "layer4", 2, 4, 32),
        f"monai {axes}-D efficientnet": of_monai(
            axes, partial(monai.EfficientNetBN, "efficientnet-b0", False, spatial_dims=axes, in_channels=1,
                          num_classes=3), "_bn1", 2),
        f"monai {axes}-D vit": of_monai(
            axes, partial(monai.ViT, 1, (64,) * axes, (16,) * axes, spatial_dims=axes, num_classes=3, **MONAI_VIT),
            "blocks.1.norm1", 4),
        f"monai {axes}-D squeezed resnet": of_monai(
            axes, partial(monai.SEResNet50, spatial_dims=axes, in_channels=1, num_classes=3), "layer4", 2),
    }  # fmt: skip
# one of each family is quick; these are the larger ones
SLOW = {
    "resnet of bottlenecks", "torchvision vgg", "torchvision convnext", "torchvision swin", "torchvision swinv2",
    "torchvision maxvit", "maxvit of the paper", "efficientnetv2", "regnety", "vgg with norms", "coat", "crossvit",
    "four sequences, densenet", "grey resnet", "monai 3-D squeezed resnet", "monai 3-D resnet", "monai 3-D densenet",
    "monai 3-D efficientnet",
}  # fmt: skip


def few_draws(size: int) -> list[object]:
    half = method("occlusion", window=size // 2, stride=size // 2)
    steps = method("integrated-gradients", steps=2)
    signed = [method(name, positive=False) for name in ("grad-cam", "layer-cam")]
    return ["grad-cam", "layer-cam", *signed, "saliency", steps, half]


def built(build: Build) -> nn.Module:
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():  # some heads are zero before training
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)
    return model


def all_maps(model: nn.Module, images: Tensor, name: str) -> Explanation:
    target = (lambda outputs: outputs[0][:, 1]) if name in FIRST_OF_TUPLE else 1
    return explain(model, images, few_draws(images.shape[-1]), target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES])
def test_the_layer_its_grid_and_maps_of_every_family(name: str) -> None:
    build, shape, layer, grid = CASES[name]
    model = built(build)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    found = all_maps(model, images, name)
    assert (found.layer, found.grid) == (layer, grid)
    alone = all_maps(model, images[1:], name)
    for label, maps in found.maps.items():
        assert maps.shape == (2, *shape[1:])
        assert maps.isfinite().all()
        size = maps.abs().amax()
        if label not in ("grad-cam", "layer-cam"):  # these may be zero, where all evidence speaks against the class
            spread = maps.flatten(1).amax(dim=1) - maps.flatten(1).amin(dim=1)
            assert (spread > 1e-3 * size).all(), label
        # rounding may flip a ReLU, which changes gradients at a few pixels
        assert (alone.maps[label][0] - maps[1]).norm() <= 1e-2 * maps[1].norm(), label
    for label in ("grad-cam", "layer-cam"):
        signed = found.layer_maps[f"{label}[positive=False]"]
        torch.testing.assert_close(found.layer_maps[label], signed.relu())


def test_hieras_last_tokens_lie_row_by_row() -> None:
    model, images = built(partial(timm.create_model, "hiera_tiny_224", num_classes=3)), torch.zeros(1, 3, 224, 224)
    moved = images.clone()
    moved[:, :, 96:128, 64:96] = 3.0  # the fourth row and third column of 7 × 7
    kept: list[Tensor] = []
    handle = model.get_submodule("blocks.11").register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        model(images), model(moved)
    handle.remove()
    change = (kept[1] - kept[0])[0].norm(dim=1)
    assert int(change.argmax()) == 3 * 7 + 2
    assert explain(model, images, "grad-cam").grid == (7, 7)


def test_wrapped_networks_are_explained_as_what_they_wrap() -> None:
    model = built(CASES["resnet"][0])
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = all_maps(model, images, "resnet")
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager"), nn.Sequential(model)):
        found = all_maps(wrapped, images, "resnet")  # type: ignore[arg-type]
        assert found.layer.removeprefix("0.") == "layer4"
        for label, maps in plain.maps.items():
            torch.testing.assert_close(found.maps[label], maps, msg=label)
