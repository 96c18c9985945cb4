"""RefineCAM against its layers taken one by one, and the pass that keeps several layers at once."""

from __future__ import annotations

import contextlib
import copy
import warnings

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pellucid.attribution import Tokens, explain, method, resize_maps
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.refine import refine_cam
from pellucid.attribution.stages import capture_stages
from pellucid.errors import InputError, UnknownNameError
from references import cam as reference
from references.cam_networks import affine_net, seeded
from references.rewriting_networks import state

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")

LAYERS = ["1", "4", "7"]


def pyramid(axes: int = 2, classes: int = 3) -> nn.Sequential:
    """Three scales, with ReLUs in place; the last feature map is '7'."""
    conv, pool = (nn.Conv2d, nn.MaxPool2d) if axes == 2 else (nn.Conv3d, nn.MaxPool3d)
    mean = nn.AdaptiveAvgPool2d(1) if axes == 2 else nn.AdaptiveAvgPool3d(1)
    network = nn.Sequential(
        *(conv(2, 4, 3, padding=1), nn.ReLU(inplace=True), pool(2)),
        *(conv(4, 6, 3, padding=1), nn.ReLU(inplace=True), pool(2)),
        *(conv(6, 5, 3, padding=1), nn.ReLU(inplace=True), mean, nn.Flatten(), nn.Linear(5, classes)),
    )
    return seeded(network)  # type: ignore[return-value]


def pictures(count: int = 3, axes: int = 2) -> Tensor:
    return torch.randn(count, 2, *(16, 20, 12)[:axes], generator=torch.Generator().manual_seed(3))


def maps_of(model: nn.Module, images: Tensor, *choices: object, **options: object) -> list[Tensor]:
    return list(explain(model, images, list(choices), **options).maps.values())  # type: ignore[arg-type]


@pytest.mark.parametrize("axes", [2, 3])
def test_is_the_product_of_its_layers(axes: int) -> None:
    model, images = pyramid(axes), pictures(axes=axes)
    choices = ["refine-cam", method("refine-cam", layers=2), method("refine-cam", layers=("1",))]
    found = maps_of(model, images, *choices, target="all")
    assert sum(float(each.sum()) for each in found) > 0
    for layers, maps in zip((LAYERS, LAYERS[1:], ["1", "7"]), found, strict=True):
        assert maps.shape == (3, 3, *images.shape[2:])
        assert 0 <= maps.min() <= maps.max() <= 1
        for b in range(3):
            for wanted in range(3):
                slow = reference.refine_cam(pyramid(axes), layers, images[b : b + 1], wanted)
                np.testing.assert_allclose(maps[b, wanted].numpy(), slow, atol=1e-5)


def test_is_fine_where_the_early_layer_is_and_zero_where_the_last_sees_nothing() -> None:
    fine, coarse = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2, 2)
    fine[0, 0, 1, 2] = fine[0, 0, 6, 6] = 1
    coarse[0, 0, 0, 0] = 1
    maps = refine_cam([fine, coarse], [torch.ones_like(fine), torch.ones_like(coarse)], (8, 8))
    assert maps.nonzero().tolist() == [[0, 1, 2]]
    assert float(maps[0, 1, 2]) == 0.875  # the coarse map, enlarged, has 1 at row 1 and 7/8 at column 2
    flat = torch.full_like(coarse, 0.3)
    assert not refine_cam([fine, flat], [torch.ones_like(fine), torch.ones_like(coarse)], (8, 8)).any()


@pytest.mark.parametrize("axes", [2, 3])
def test_neither_the_batch_nor_the_other_classes_matter(axes: int) -> None:
    model, images = pyramid(axes), pictures(7, axes)
    (whole,) = maps_of(model, images, "refine-cam", target="all")
    (parts,) = maps_of(model, images, "refine-cam", target="all", batch_size=3)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    (alone,) = maps_of(model, images[4:5], "refine-cam", target=1)
    torch.testing.assert_close(alone[0], whole[4, 1], rtol=1e-4, atol=1e-6)
    (of_function,) = maps_of(model, images, "refine-cam", target=lambda outputs: outputs[:, 1])
    torch.testing.assert_close(of_function, whole[:, 1])


@pytest.mark.parity
def test_torchcam_multiplies_the_same_maps() -> None:
    with warnings.catch_warnings(action="ignore"):
        torchcam = pytest.importorskip("torchcam.methods", reason="needs torchcam, of the extra parity")
    for axes in (2, 3):
        model, images = pyramid(axes), pictures(axes=axes)
        (ours,) = maps_of(model, images, "refine-cam", target=2)
        layers = list(explain(model, images, "grad-cam-plus-plus", target=2, layer=LAYERS).layer_maps.values())
        theirs = torchcam.RefineCAM.fuse_cams(layers, tuple(images.shape[2:]), normalized=False)
        assert theirs.max() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_belongs_to_its_layer_and_is_made_at_the_images_size() -> None:
    model, images = pyramid(), pictures()
    several = explain(model, images, ["refine-cam", "grad-cam", "sobel"], layer=("4", "7"))
    assert tuple(several.maps) == ("refine-cam@4", "grad-cam@4", "sobel", "refine-cam@7", "grad-cam@7")
    assert tuple(several.layer_maps) == ("grad-cam@4", "grad-cam@7")
    named, auto = maps_of(model, images, method("refine-cam", layers=("4", "1")), "refine-cam", layer="7")
    torch.testing.assert_close(named, auto)
    torch.testing.assert_close(several["refine-cam@7"], auto)


def test_tokens_are_taken_as_feature_maps_those_of_earlier_blocks_too() -> None:
    torch.manual_seed(0)  # of its position embedding
    model = seeded(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=4))
    images = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = ("blocks.0.norm1", "blocks.1.norm1")
    last = Tokens("blocks.2.norm1", grid=(4, 4), prefix=1)
    for choice, layer in [(method("refine-cam", layers=names), last), ("refine-cam", "auto")]:
        (ours,) = maps_of(model, images, choice, target="all", layer=layer)
        each = explain(model, images, "grad-cam-plus-plus", target="all", layer=(*names, "blocks.2.norm1"))
        product = torch.ones_like(ours)
        for maps in each.layer_maps.values():
            least, most = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
            product *= resize_maps(((maps - least) / (most - least)).nan_to_num(0), (64, 64))
        assert product.max() > 0.01
        torch.testing.assert_close(ours, product, rtol=1e-3, atol=1e-5)


def test_one_pass_keeps_every_layer() -> None:
    model, images = pyramid(), pictures()
    runs = [0]
    model[3].register_forward_pre_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    with borrowed(model):
        kept = capture_stages(model, LAYERS, images)
        slopes = kept.gradients(kept.outputs[:, 2])
    assert runs == [1]
    for name, activations, slope in zip(LAYERS, kept.activations, slopes, strict=True):
        for b in range(3):
            wanted = reference.activations_and_gradients(pyramid(), name, images[b : b + 1], 2)
            torch.testing.assert_close(activations[b : b + 1], wanted[0].detach())
            torch.testing.assert_close(slope[b : b + 1], wanted[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, contextlib.nullcontext])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_given_back_whatever_the_mode(mode: type, fails: bool) -> None:
    model, images = pyramid().train(), pictures()
    before, calls = state(model), [0]

    def score(outputs: Tensor) -> Tensor:
        calls[0] += 1
        if fails and calls[0] == 2:
            raise RuntimeError("inside")
        return outputs[:, 0]

    (plain,) = maps_of(pyramid(), images, "refine-cam", target=0)
    with mode(), pytest.raises(RuntimeError, match="inside") if fails else contextlib.nullcontext():
        (found,) = maps_of(model, images * 1, "refine-cam", target=score)
        torch.testing.assert_close(found, plain)
    assert calls == [2]
    assert state(model) == before


def test_lower_precision_gives_the_map_to_its_rounding() -> None:
    model, images = pyramid(), pictures()
    (full,) = maps_of(model, images, "refine-cam", target=1)
    (half,) = maps_of(copy.deepcopy(model).bfloat16(), images.bfloat16(), "refine-cam", target=1)
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.1


def test_what_cannot_be_combined_is_refused_in_words() -> None:
    model, images = pyramid(), pictures()
    with pytest.raises(InputError, match="layers: expected at least 2, or names of layers, got 1"):
        explain(model, images, method("refine-cam", layers=1))
    with pytest.raises(InputError, match="layers: expected how many, or a tuple of their names, got 2.5"):
        explain(model, images, method("refine-cam", layers=2.5))
    with pytest.raises(UnknownNameError, match="unknown layer '44'"):
        explain(model, images, method("refine-cam", layers=("44",)))
    with pytest.raises(InputError, match="layers: expected layers to combine with '7', got none"):
        explain(model, images, method("refine-cam", layers=("7",)))
    with pytest.raises(
        InputError, match="model: expected feature maps at a finer scale than that of '2', .*, got none. Name"
    ):
        explain(affine_net().eval(), torch.rand(1, 1, 16, 16), "refine-cam", layer="2")
    with pytest.raises(InputError, match="layer: expected an output"):
        explain(model, images, method("refine-cam", layers=("9",)))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.last, self.fc = (
                nn.Conv2d(2, 2, 3, padding=1),
                nn.Conv2d(2, 3, 3, stride=2),
                nn.Linear(3, 2),
            )
            self.beside = nn.Conv2d(2, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            self.beside(images)
            return self.fc(self.last(self.early(self.early(images))).mean(dim=(2, 3)))

    with pytest.raises(InputError, match="layer: expected a layer that runs once per image, got 'early', which runs"):
        explain(Twice(), images, method("refine-cam", layers=("early",)), layer="last")
    with pytest.raises(InputError, match="layer: the score doesn't depend on the output of 'beside'"):
        explain(Twice(), images, method("refine-cam", layers=("beside",)), layer="last")
