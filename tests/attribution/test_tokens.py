"""CAMs on networks whose layers give tokens, or channels last, against the whole graph image by image."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pellucid.attribution import GridWarning, Tokens, explain
from pellucid.attribution.tokens import split
from pellucid.errors import InputError
from references import cam as reference
from references.cam_networks import seeded

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")

VIT = {"img_size": 32, "depth": 2, "embed_dim": 12, "num_heads": 2}
SWIN = {"img_size": 64, "depths": (1,) * 4, "embed_dim": 8, "num_heads": (1,) * 4, "window_size": 2}
# network, options, layer, grid, prefix tokens, whether channels come last
CASES = {
    "vit": ("vit_tiny_patch16_224", VIT, "auto", (2, 2), 1, True),
    "vit, patch embedding": ("vit_tiny_patch16_224", VIT, "patch_embed", (2, 2), 0, True),
    "wide vit": ("vit_tiny_patch16_224", VIT | {"img_size": (32, 64)}, "auto", (2, 4), 1, True),
    "deit": ("deit_tiny_distilled_patch16_224", VIT, "auto", (2, 2), 2, True),
    "dinov2": ("vit_small_patch14_reg4_dinov2", VIT | {"img_size": 28, "init_values": 1.0}, "auto", (2, 2), 5, True),
    "eva": ("eva02_tiny_patch14_224", VIT | {"img_size": 28, "num_heads": 3}, "auto", (2, 2), 1, True),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, "auto", (2, 2), 0, True),
    "swin, a stage": ("swin_tiny_patch4_window7_224", SWIN, "layers.1", (8, 8), 0, True),
    "swinv2": ("swinv2_tiny_window8_256", SWIN, "auto", (2, 2), 0, True),
    "convnext": ("convnext_atto", {"dims": (4, 6, 8, 10), "depths": (1,) * 4}, "auto", (2, 2), 0, False),
    "convnext, a norm of channels first": ("convnext_atto", {"dims": (4, 4, 4, 4), "depths": (1,) * 4},
                                           "stages.2.blocks.0.norm", (4, 4), 0, False),
    "convnext, inside": ("convnext_tiny", {"dims": (4, 6, 8, 10), "depths": (1,) * 4}, "stages.2.blocks.0.norm",
                         (4, 4), 0, True),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, str, Tensor]:
    architecture, options, layer, *_ = CASES[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=3, **options).eval()
    for weight in model.parameters():  # large enough that the score isn't flat
        with torch.no_grad():
            weight += 0.2 * torch.randn_like(weight)
    size = options.get("img_size", 64)
    height, width = size if isinstance(size, tuple) else (size, size)
    return model, layer, torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


def slow_parts(
    model: nn.Module, layer: str, image: Tensor, wanted: int, prefix: int, last: bool
) -> tuple[Tensor, Tensor]:
    """Activations and gradients (1, K, positions) of one image, from the graph of the whole network."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    score = model(image)[0, wanted]
    handle.remove()
    (slope,) = torch.autograd.grad(score, kept)
    rows = [values.flatten(1, -2)[:, prefix:].mT if last else values.flatten(2) for values in (kept[0], slope)]
    return rows[0].detach(), rows[1].detach()


@pytest.mark.parametrize("name", CASES)
def test_maps_are_those_of_the_whole_graph(name: str) -> None:
    model, layer, images = built(name)
    *_, grid, prefix, last = CASES[name]
    found = explain(model, images, ["grad-cam", "layer-cam"], target="all", layer=layer, batch_size=2)
    assert found.grid == grid
    for b in range(3):
        for wanted in range(3):
            activations, slopes = slow_parts(model, found.layer, images[b : b + 1], wanted, prefix, last)
            shaped = [values.unflatten(2, grid).double().numpy() for values in (activations, slopes)]
            assert np.abs(shaped[1]).max() > 1e-6
            for method in ("grad-cam", "layer-cam"):
                slow = getattr(reference, method.replace("-", "_"))(*shaped)[0]
                ours = found.layer_maps[method][b, wanted].numpy()
                np.testing.assert_allclose(ours, slow, atol=1e-4 * max(float(np.abs(slow).max()), 1e-4))


@pytest.mark.parametrize("name", ["vit", "dinov2", "swin", "convnext, inside"])
def test_a_channel_is_ablated_on_the_grid_and_the_prefix_kept(name: str) -> None:
    model, layer, images = built(name)
    *_, grid, prefix, _ = CASES[name]
    found = explain(model, images[:2], "ablation-cam", target=1, layer=layer, batch_size=3)
    kept: list[Tensor] = []
    ablated = [-1]

    def drop(_m: object, _i: object, output: Tensor) -> Tensor:
        kept[:] = [output]
        tokens = output.flatten(1, -2).clone()
        if ablated[0] >= 0:
            tokens[:, prefix:, ablated[0]] = 0
        return tokens.reshape(output.shape)

    model.get_submodule(found.layer).register_forward_hook(drop)
    for b in range(2):
        falls = []
        with torch.no_grad():
            for k in range(-1, found_channels(model, found.layer)):
                ablated[0] = k
                falls.append(float(model(images[b : b + 1])[0, 1]))
        weights = (falls[0] - torch.tensor(falls[1:])) / abs(falls[0])
        slow = (kept[0].flatten(1, -2)[0, prefix:] @ weights).relu().reshape(grid)
        assert slow.max() > 0
        torch.testing.assert_close(found.layer_maps["ablation-cam"][b], slow, rtol=1e-3, atol=1e-5)


def found_channels(model: nn.Module, layer: str) -> int:
    weight = model.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return len(weight)


@pytest.mark.parametrize("name", ["vit", "dinov2", "swin"])
def test_a_map_depends_on_neither_batch_nor_batch_size(name: str) -> None:
    model, layer, images = built(name)
    methods = ["grad-cam", "layer-cam", "ablation-cam"]
    whole = explain(model, images, methods, layer=layer).maps
    small = explain(model, images, methods, layer=layer, batch_size=2).maps
    alone = explain(model, images[:1], methods, layer=layer).maps
    for method in methods:
        torch.testing.assert_close(small[method], whole[method], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(alone[method][0], whole[method][0], rtol=1e-3, atol=1e-5)


class Volumes(nn.Module):
    """A small 3-D transformer; its patches are cut by a convolution, or reshaped without one."""

    def __init__(self, convolved: bool, prefix: int) -> None:
        super().__init__()
        self.cut = nn.Conv3d(1, 6, 2, 2) if convolved else None
        self.embed = nn.Linear(6 if convolved else 8, 6)
        if prefix:
            self.cls_token = nn.Parameter(torch.randn(1, prefix, 6))
        self.mask_token = nn.Parameter(torch.randn(1, 3, 6))
        self.norm = nn.LayerNorm(6)
        self.mix = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        if self.cut is not None:
            cut = self.cut(images).flatten(2).mT
        else:
            cut = images.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2)[:, 0].flatten(1, 3).flatten(2)
        tokens = self.embed(cut)
        if hasattr(self, "cls_token"):
            tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], dim=1)
        normed = self.norm(tokens)
        mixed = tokens + self.mix(normed, normed, normed, need_weights=False)[0]
        return self.head(mixed[:, 0])


@pytest.mark.parametrize("convolved", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_volumes_have_a_grid_of_three_axes(convolved: bool, prefix: int) -> None:
    torch.manual_seed(0)
    model, images = Volumes(convolved, prefix).eval(), torch.randn(2, 1, 4, 6, 8)
    found = explain(model, images, "grad-cam", target=0)
    assert (found.layer, found.grid) == ("norm", (2, 3, 4))
    for b in range(2):
        activations, slopes = slow_parts(model, "norm", images[b : b + 1], 0, prefix, True)
        slow = (slopes.mean(dim=2, keepdim=True) * activations).sum(dim=1).relu().reshape(2, 3, 4)
        torch.testing.assert_close(found.layer_maps["grad-cam"][b], slow, rtol=1e-4, atol=1e-6)


def test_split_and_output_undo_each_other() -> None:
    output = torch.randn(2, 3 + 2 * 4, 5)
    maps, layout = split(output, (2, 4), 3)
    assert maps[1, 2, 1, 3] == output[1, 3 + 4 + 3, 2]
    torch.testing.assert_close(layout.output(maps, torch.tensor([0, 1])), output)
    torch.testing.assert_close(layout.output(maps[[1, 0, 1]], torch.tensor([1, 0, 1])), output[[1, 0, 1]])


class Odd(nn.Module):
    """Tokens of patches that overlap, which nothing tells the grid of."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(9, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.unfold(2, 3, 2).unfold(3, 3, 2)[:, 0].flatten(1, 2).flatten(2))
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        return self.head((self.norm(tokens) ** 2).mean(dim=1))


def test_where_no_grid_can_be_found_the_error_says_what_was_seen_and_a_grid_can_be_passed() -> None:
    torch.manual_seed(0)
    model, images = Odd().eval(), torch.randn(2, 1, 7, 9)
    with pytest.raises(InputError, match=r"'norm' with output shape \(1, 13, 4\).*; 0 prefix tokens, conv.*grids none.*"
                                         r"Tokens\('norm', grid=\(height, width\), prefix=...\)"):  # fmt: skip
        explain(model, images[:1], "grad-cam")
    for layer in ("norm", model.norm, "auto"):
        found = explain(model, images, "grad-cam", layer=Tokens(layer, grid=(3, 4), prefix=1), target=1)
        assert (found.layer, found.grid) == ("norm", (3, 4))
        activations, slopes = slow_parts(model, "norm", images[1:], 1, 1, True)
        slow = (slopes.mean(dim=2, keepdim=True) * activations).sum(dim=1).relu().reshape(3, 4)
        torch.testing.assert_close(found.layer_maps["grad-cam"][1], slow)
    with pytest.raises(InputError, match="layer: expected a grid and prefix of 13 tokens, as 'norm' gives, got 3 × 4"):
        explain(model, images, "grad-cam", layer=Tokens("norm", grid=(3, 4)))
    with pytest.raises(InputError, match="layer: expected a grid of 2 axes"):
        explain(model, images, "grad-cam", layer=Tokens("norm", grid=(12,), prefix=1))


class Squarish(nn.Module):
    """Channels, height and width are as many, so that a shape alone tells nothing."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 1)
        self.mix = nn.Linear(6, 6) if last else nn.Conv2d(6, 6, 1)
        self.act = nn.Softplus()
        self.last = last
        self.head = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        features = self.act(self.mix(features.permute(0, 2, 3, 1) if self.last else features))
        return self.head(features.mean(dim=(1, 2) if self.last else (2, 3)))


def test_where_the_shape_tells_nothing_the_modules_do_or_it_is_asked() -> None:
    images = torch.randn(2, 1, 6, 6)
    for last in (False, True):
        torch.manual_seed(0)
        model = Squarish(last).eval()
        found = explain(model, images, "grad-cam", layer="mix", target=0).layer_maps["grad-cam"]
        activations, slopes = slow_parts(model, "mix", images[:1], 0, 0, last)
        slow = (slopes.mean(dim=2, keepdim=True) * activations).sum(dim=1).relu().reshape(6, 6)
        torch.testing.assert_close(found[0], slow, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="channels may come first or last.*Tokens"):
        explain(model, images, "grad-cam", layer="act")
    given = explain(model, images, "grad-cam", layer=Tokens("act", grid=(6, 6)), target=0).layer_maps["grad-cam"]
    assert given.shape == (2, 6, 6)
    model.output_fmt = "NHWC"
    torch.testing.assert_close(explain(model, images, "grad-cam", layer="act", target=0).layer_maps["grad-cam"], given)


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_comes_back_as_it_was(fails: bool) -> None:
    model, _, images = built("vit")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def score(outputs: Tensor) -> Tensor:
        if fails:
            raise RuntimeError("inside")
        return outputs[:, 0]

    try:
        explain(model, images, ["grad-cam", "ablation-cam"], target=score)
        assert not fails
    except RuntimeError:
        assert fails
    assert all(m.training and not m._forward_hooks and "forward" not in m.__dict__ for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_pytorch_grad_cam_agrees_on_a_vit() -> None:
    peer = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, _, images = built("wide vit")

    def grid(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].reshape(len(tokens), 2, 4, -1).permute(0, 3, 1, 2)

    ours = explain(model, images, ["grad-cam", "layer-cam"], target=1)
    for name, kind in (("grad-cam", peer.GradCAM), ("layer-cam", peer.LayerCAM)):
        with warnings.catch_warnings(action="ignore"), kind(model, [model.blocks[-1].norm1], grid) as cam:
            theirs = cam(images.clone(), [targets.ClassifierOutputTarget(1)] * 3)
        for mine, other in zip(ours.maps[name].numpy(), theirs, strict=True):
            assert mine.max() > 0
            scaled = [(each - each.min()) / np.ptp(each) for each in (mine, other)]  # the peer's maps come scaled
            np.testing.assert_allclose(*scaled, atol=1e-5)


def test_parallel_and_compiled_networks_and_plain_sequences() -> None:
    model, _, images = built("vit")
    plain = explain(model, images, "grad-cam").maps["grad-cam"]
    wrapped: list[nn.Module] = [nn.DataParallel(model), torch.compile(model, backend="eager")]
    wrapped.append(torch.compile(nn.DataParallel(model), backend="eager"))
    in_part, _, _ = built("vit")
    in_part.blocks[1] = torch.compile(in_part.blocks[1], backend="eager")  # type: ignore[index, operator]
    with torch.no_grad():
        in_part(images)
    wrapped.append(in_part)
    for each in wrapped:
        torch.testing.assert_close(explain(each, images, "grad-cam").maps["grad-cam"], plain)
    sequence = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                             nn.Flatten(), nn.Linear(5, 2))  # fmt: skip
    found = explain(sequence, images, "grad-cam")
    assert (found.layer, found.grid) == ("3", (28, 28))


def test_a_coarse_grid_of_tokens_is_warned_of() -> None:
    model, _, images = built("vit")
    assert math.prod(images.shape[2:]) == 32 * 32
    with pytest.warns(GridWarning, match="'blocks.1.norm1' has a grid of 2 × 2"):
        explain(model, images, "grad-cam")


def test_patches_turned_round_behind_their_convolution_have_channels_last() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Conv2d(1, 6, 4, stride=4)
            self.turn = Turn()
            self.fc = nn.Linear(6, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.turn(self.proj(images)).mean(dim=(1, 2)))

    class Turn(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features.permute(0, 2, 3, 1)

    model, images = seeded(Turned()), torch.randn(2, 1, 28, 32)
    found = explain(model, images, "layer-cam", layer="turn", target=0)
    assert found.grid == (7, 8)
    torch.testing.assert_close(
        found.maps["layer-cam"], explain(model, images, "layer-cam", layer="proj", target=0).maps["layer-cam"]
    )
