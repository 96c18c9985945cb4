"""Attention rollout and LeGrad against slow versions from their papers, and where the answer is known."""

from __future__ import annotations

import pytest
import timm
import torch
from monai.networks import nets
from torch import Tensor, nn

from pellucid.attribution import explain, resize_maps
from pellucid.errors import InputError
from references import attention as reference

NAMES = ("attention-rollout", "le-grad")
SMALL = {"img_size": (32, 48), "depth": 3, "embed_dim": 12, "num_heads": 2, "num_classes": 3}


def vit(name: str = "vit_tiny_patch16_224", **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **(SMALL | options)).eval()
    with torch.no_grad():
        for weight in model.parameters():  # large enough that attention isn't even
            weight += 0.4 * torch.randn_like(weight)
    return model


def pictures(count: int = 3, size: tuple[int, int] = (32, 48)) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooled", [False, True])
def test_they_are_their_papers(pooled: bool) -> None:
    model = vit(class_token=False, global_pool="avg") if pooled else vit()
    images = pictures()
    found = explain(model, images, NAMES, target="all", batch_size=2).maps
    for b, image in enumerate(images):
        rolled = torch.from_numpy(reference.attention_rollout(model, image, not pooled)).float().reshape(2, 3)
        assert rolled.max() > 1.2 * rolled.min()
        for wanted in range(3):
            torch.testing.assert_close(found["attention-rollout"][b, wanted], resize_maps(rolled, (32, 48)))
            slow = torch.from_numpy(reference.le_grad(model, image, wanted)).float().reshape(2, 3)
            assert slow.max() > 1.2 * slow.min()
            torch.testing.assert_close(found["le-grad"][b, wanted], resize_maps(slow, (32, 48)), rtol=1e-4, atol=1e-6)


def test_even_attention_rolls_out_evenly() -> None:
    model = vit()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[:24] = 0  # queries and keys
            block.attn.qkv.bias[:24] = 0
    found = explain(model, pictures(), "attention-rollout").maps["attention-rollout"]
    torch.testing.assert_close(found, torch.full_like(found, (1 - 0.5**3) / 7))  # 6 patches and the class token


def test_where_the_class_token_is_read_linearly_le_grad_is_what_each_value_adds() -> None:
    model = vit(depth=1)
    model.norm = nn.Identity()
    block = model.blocks[0]
    with torch.no_grad():
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.zero_()
        image = pictures(1)
        _, values = reference.attention_by_hand(block, reference.embedded(model, image[0]))
        reading = (model.head.weight[2] @ block.attn.proj.weight).chunk(2)  # of each head's values
        adds = sum((value @ weight).relu() for value, weight in zip(values, reading, strict=True)) / (2 * 7)
    found = explain(model, image, "le-grad", target=2).maps["le-grad"]
    assert adds.max() > 0
    torch.testing.assert_close(found[0], resize_maps(adds[1:].reshape(2, 3), (32, 48)), rtol=1e-4, atol=1e-6)


def monai_vit(axes: int, **options: object) -> tuple[nn.Module, tuple[int, ...]]:
    size = (16, 24, 8)[:axes]
    torch.manual_seed(0)
    given = {"hidden_size": 12, "mlp_dim": 24, "num_layers": 3, "num_heads": 2, "num_classes": 3} | options
    model = nets.ViT(2, size, (8,) * axes, classification=True, spatial_dims=axes, **given).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.4 * torch.randn_like(weight)
    return model, size


@pytest.mark.parametrize("axes", [2, 3])
def test_they_are_their_papers_on_monais_transformer(axes: int) -> None:
    model, size = monai_vit(axes)
    images = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(1))
    for wanted in range(3):
        found = explain(model, images, NAMES, target=lambda out, k=wanted: out[0][:, k], batch_size=2).maps
        for b, image in enumerate(images):
            grid = (2, 3, 1)[:axes]
            rolled = torch.from_numpy(reference.attention_rollout(model, image, True)).float().reshape(grid)
            assert rolled.max() > 1.2 * rolled.min()
            torch.testing.assert_close(found["attention-rollout"][b], resize_maps(rolled, size))
            slow = torch.from_numpy(reference.le_grad(model, image, wanted)).float().reshape(grid)
            assert slow.max() > 1.2 * slow.min()
            torch.testing.assert_close(found["le-grad"][b], resize_maps(slow, size), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("embedding", ["conv", "perceptron"])
def test_monais_flash_attention_is_put_off_and_comes_back(embedding: str) -> None:
    model, size = monai_vit(3, proj_type=embedding)
    images = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))
    plain = explain(model, images, NAMES, target=lambda out: out[0][:, 0]).maps
    for block in model.blocks:
        block.attn.use_flash_attention = True
    fused = explain(model, images, NAMES, target=lambda out: out[0][:, 0]).maps
    for name in NAMES:
        torch.testing.assert_close(fused[name], plain[name], rtol=1e-4, atol=1e-6)
        assert fused[name].shape == (2, *size)
    assert all(block.attn.use_flash_attention for block in model.blocks)


OTHERS = [
    ("deit_tiny_distilled_patch16_224", {}, (32, 48)),
    ("vit_small_patch14_reg4_dinov2", {"img_size": (28, 42), "init_values": 1.0}, (28, 42)),
    ("eva02_tiny_patch14_224", {"img_size": (28, 42), "num_heads": 3}, (28, 42)),
    ("beit_base_patch16_224", {}, (32, 48)),
]


@pytest.mark.parametrize(("name", "options", "size"), OTHERS)
def test_other_transformers_of_timm(name: str, options: dict[str, object], size: tuple[int, int]) -> None:
    model, images = vit(name, **options), pictures(2, size)
    found = explain(model, images, NAMES, target="all").maps
    for method in NAMES:
        assert found[method].shape == (2, 3, *size)
        assert found[method].amax() > 1.01 * found[method].amin() >= 0
    assert found["attention-rollout"].sum(dim=(2, 3)).max() < size[0] * size[1]
    assert not torch.allclose(found["le-grad"][:, 0], found["le-grad"][:, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_map_depends_on_neither_batch_nor_batch_size_nor_other_classes(name: str) -> None:
    model, images = vit(), pictures(5)
    together = explain(model, images, name, target="all").maps[name]
    small = explain(model, images, name, target="all", batch_size=2).maps[name]
    torch.testing.assert_close(small, together, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(explain(model, images[:1], name, target="all").maps[name][0], together[0],
                               rtol=1e-4, atol=1e-7)  # fmt: skip
    for k in range(3):
        one = explain(model, images, name, target=k).maps[name]
        torch.testing.assert_close(one, together[:, k], rtol=1e-4, atol=1e-7)
    by_function = explain(model, images, name, target=lambda outputs: outputs[:, 1]).maps[name]
    torch.testing.assert_close(by_function, together[:, 1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fails", [False, True])
def test_the_network_comes_back_as_it_was(name: str, fails: bool) -> None:
    model = vit().train()
    model.blocks[0].attn.fused_attn = False
    model.blocks[1].attn.fused_attn = True
    before = [vars(module.attn)["fused_attn"] for module in model.blocks]
    values = {key: value.clone() for key, value in model.state_dict().items()}
    calls = [0]

    def score(outputs: Tensor) -> Tensor:
        calls[0] += 1
        if fails and calls[0] == 2:  # inside the method
            raise RuntimeError("inside")
        return outputs[:, 0]

    try:
        explain(model, pictures(), name, target=score)
        assert not fails
    except RuntimeError:
        assert fails
    assert calls[0] >= 2
    assert [vars(module.attn)["fused_attn"] for module in model.blocks] == before
    assert all(m.training and not m._forward_hooks and "forward" not in m.__dict__ for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_networks_that_do_not_attend_over_all_tokens_are_refused(name: str) -> None:
    cait = timm.create_model("cait_xxs24_224", img_size=32, depth=1, embed_dim=12, num_heads=2, num_classes=2)
    for model in (nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), cait):
        with pytest.raises(InputError, match="model: expected a transformer of timm or MONAI, each of whose blocks"):
            explain(model, pictures(1, (32, 32)), name)
