from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from monai.networks import nets
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.models.layers import find_layer

NAMED = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "densenet121": "features.norm5",
    "vgg16": "features.29",
    "efficientnet_b0": "bn2",
    "mobilenetv3_small_100": "blocks.5",
}


def outputs_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[object, object, Tensor], None]:
        return lambda _module, _inputs, output: kept.__setitem__(name, output.clone())

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return kept


@pytest.mark.parametrize("name", NAMED)
def test_is_the_last_activated_feature_map_before_pooling(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    layer = find_layer(model)
    assert layer == NAMED[name]
    outputs = outputs_of(model, torch.randn(1, 3, 64, 64))
    features = outputs[layer]
    assert features.ndim == 4
    assert features.shape[-1] > 1
    if name not in ("efficientnet_b0", "mobilenetv3_small_100"):  # ReLU; the others' activations dip below zero
        assert features.min() == 0
    assert features.min() > -0.5
    pools = [output for key, output in outputs.items() if key.endswith(("global_pool.pool", "features.30"))]
    pooled = {tuple(pool.shape[:2]) for pool in pools}
    assert tuple(features.shape[:2]) in pooled
    if name != "vgg16":
        torch.testing.assert_close(pools[-1].flatten(1), features.mean(dim=(2, 3)))
    else:
        torch.testing.assert_close(outputs["features.30"], functional.max_pool2d(features, 2))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0", "mobilenetv3_small_100"])
def test_running_the_network_finds_the_same_feature_map(name: str) -> None:
    class Wrapped(nn.Module):  # a class that isn't known
        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model(name, num_classes=3)

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images)

    model, images = Wrapped(), torch.randn(2, 3, 64, 64)
    outputs = outputs_of(model, images)
    found = find_layer(model, images)
    torch.testing.assert_close(outputs[found], outputs[f"network.{NAMED[name]}"])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("vgg11", "features.19"),
        ("efficientnet_b0", "features.8"),
        ("mobilenet_v3_small", "features.12"),
    ],
)
def test_torchvisions_networks_are_known_too(name: str, layer: str) -> None:
    import torchvision

    model = torchvision.models.get_model(name, weights=None, num_classes=3)
    assert find_layer(model) == layer
    assert outputs_of(model, torch.randn(1, 3, 64, 64))[layer].shape[-1] > 1


def test_an_activation_that_is_a_function_is_named_behind_its_module() -> None:
    import torchvision

    model = torchvision.models.densenet121(weights=None, num_classes=3).train()
    assert find_layer(model, torch.randn(1, 3, 64, 64)) == "features:relu"
    assert all(module.training and not module._forward_hooks for module in model.modules())


SMALL_VIT = {"img_size": 32, "depth": 2, "embed_dim": 12, "num_heads": 2}
TRANSFORMERS = [
    ("vit_tiny_patch16_224", SMALL_VIT, "blocks.1.norm1"),
    ("vit_small_patch14_reg4_dinov2", SMALL_VIT | {"img_size": 28}, "blocks.1.norm1"),
    ("vit_base_patch16_gap_224", SMALL_VIT, "blocks.1.norm1"),
    ("deit_tiny_distilled_patch16_224", SMALL_VIT, "blocks.1.norm1"),
    ("beit_base_patch16_224", SMALL_VIT, "blocks.1.norm1"),
    ("eva02_tiny_patch14_224", SMALL_VIT | {"img_size": 28, "num_heads": 3}, "blocks.1.norm1"),
    ("eva_giant_patch14_224", SMALL_VIT | {"img_size": 28, "use_post_norm": True}, "blocks.0"),
    ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": (1,) * 4, "embed_dim": 24, "window_size": 2}, "norm"),
    ("swinv2_tiny_window8_256", {"img_size": 64, "depths": (1,) * 4, "embed_dim": 24, "window_size": 2}, "norm"),
    ("cait_xxs24_224", {"img_size": 64, "depth": 1, "embed_dim": 12, "num_heads": 2}, "blocks_token_only.1.norm1"),
    ("convnext_atto", {}, "stages.3"),
    ("regnetx_002", {}, "final_conv"),
    ("maxvit_rmlp_pico_rw_256", {"img_size": 64}, "norm"),
]


@pytest.mark.parametrize(("name", "options", "layer"), TRANSFORMERS)
def test_transformers_and_other_networks_of_timm(name: str, options: dict[str, object], layer: str) -> None:
    model = timm.create_model(name, num_classes=3, **options)
    size = int(options.get("img_size", 64))  # type: ignore[call-overload]
    assert find_layer(model, torch.randn(1, 3, size, size)) == layer


class Encoder(nn.Module):
    """A transformer of no known class; the class token alone is read, or the mean of all."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.before = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.after = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)
        self.mean = mean

    def forward(self, images: Tensor) -> Tensor:
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), self.patches(images).flatten(2).mT], dim=1)
        normed = self.before(tokens)
        tokens = self.after(tokens + self.attention(normed, normed, normed)[0])
        return self.head(tokens.mean(dim=1) if self.mean else tokens[:, 0]).softmax(dim=1)


@pytest.mark.parametrize(("mean", "layer"), [(False, "before"), (True, "after")])
def test_of_an_unknown_transformer_it_is_the_last_norm_whose_patches_matter(mean: bool, layer: str) -> None:
    torch.manual_seed(0)
    model = Encoder(mean).train()
    with torch.inference_mode():
        assert find_layer(model, torch.randn(1, 1, 12, 8)) == layer
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


class Plain(nn.Module):
    def __init__(self, axes: int) -> None:
        super().__init__()
        convolution, pool = (nn.Conv2d, nn.MaxPool2d) if axes == 2 else (nn.Conv3d, nn.MaxPool3d)
        self.trunk = nn.Sequential(convolution(1, 2, 3), nn.ReLU(inplace=True), convolution(2, 4, 3), nn.ELU(), pool(2))
        self.head = nn.LazyLinear(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images).flatten(1))


@pytest.mark.parametrize("axes", [2, 3])
def test_any_network_is_run_to_see(axes: int) -> None:
    model = Plain(axes).train()
    images = torch.randn(3, 1, *(12,) * axes)
    model(images)  # lazy weights
    model.trunk[0].eval()
    modes = [module.training for module in model.modules()]
    assert find_layer(model, images) == "trunk.3"
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_networks_without_a_feature_map_say_what_was_seen() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(
        InputError, match=r"to take in Sequential for 'auto', got last outputs 0 \(1, 16\), 1 \(1, 2\)\. Pass"
    ):
        find_layer(flat, torch.randn(2, 1, 4, 4))
    tokens = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.Flatten(2), nn.Linear(4, 5), nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(InputError, match=r"a norm of tokens from which most have a gradient.*1 \(1, 4, 4\)"):
        find_layer(tokens, torch.randn(1, 1, 4, 4))
    with pytest.raises(InputError, match="images: expected images to run Sequential on"):
        find_layer(flat)


SMALL_MONAI_VIT = {"hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 2, "classification": True}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    ("name", "layer"),
    [("DenseNet", "class_layers.relu"), ("ResNet", "layer4"), ("EfficientNetBN", "_bn1"), ("ViT", "blocks.1.norm1")],
)
def test_monais_networks(name: str, layer: str, axes: int) -> None:
    if name == "DenseNet":
        model = nets.DenseNet(axes, 1, 3, init_features=8, growth_rate=4, block_config=(1, 1, 1))
    elif name == "ResNet":
        model = nets.ResNet("basic", [1] * 4, [4] * 4, spatial_dims=axes, n_input_channels=1, num_classes=3)
    elif name == "EfficientNetBN":
        model = nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=axes, in_channels=1)
    else:
        model = nets.ViT(1, (64,) * axes, (32,) * axes, spatial_dims=axes, **SMALL_MONAI_VIT)
    assert find_layer(model, torch.randn(1, 1, *(64,) * axes)) == layer
    if name != "ViT":
        assert find_layer(model) == layer  # by its structure, without a run
