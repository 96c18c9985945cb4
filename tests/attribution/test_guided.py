"""Guided backpropagation and deconvolution against slow versions from their papers, Captum and zennit."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.errors import InputError
from references import cam as reference
from references.rewriting_networks import RECTIFIED, Small, explained, layers, pictures, small, state

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")

GUIDED = ("guided-backprop", "deconvolution")
EVERY = (*GUIDED, "guided-grad-cam")


def slow(model: Small, image: Tensor, target: int, method: str) -> Tensor:
    """The paper's backward pass, layer by layer: figure 1 of Springenberg et al. 2015."""
    inputs = [image.unsqueeze(0)]
    for layer in layers(model):
        inputs.append(layer(inputs[-1].clone()).detach())
    flow = nn.functional.one_hot(torch.tensor([target]), 3).float()
    for layer, x in zip(layers(model)[::-1], inputs[-2::-1], strict=True):
        if isinstance(layer, nn.ReLU):
            flow = flow * (flow > 0)
            flow = flow * (x > 0) if method == "guided-backprop" else flow
        else:
            flow = torch.autograd.functional.vjp(layer, x, flow)[1]
    return flow[0]


@pytest.mark.parametrize("relu", RECTIFIED)
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", GUIDED)
def test_each_way_of_writing_a_relu_gives_the_papers_map(name: str, axes: int, relu: str) -> None:
    model, images = small(axes, relu), pictures(axes=axes)
    maps = explained(model, images, pellucid.method(name, channels="keep"), name, target=1)
    kept, largest = maps.values()
    for i, image in enumerate(images):
        wanted = slow(small(axes), image, 1, name)
        torch.testing.assert_close(kept[i], wanted)
        torch.testing.assert_close(largest[i], wanted.abs().amax(dim=0))


def test_one_unit_shows_each_rule() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[2].weight[1] = torch.tensor([2.0, 3.0, -4.0, -5.0])  # type: ignore[index]
    image = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    maps = explained(model, image, "saliency", *GUIDED, target=1)
    assert maps["saliency"].flatten().tolist() == [2, 0, 4, 0]
    assert maps["guided-backprop"].flatten().tolist() == [2, 0, 0, 0]
    assert maps["deconvolution"].flatten().tolist() == [2, 3, 0, 0]


@pytest.mark.parametrize("relu", ["module", "in place", "reused", "functional"])
@pytest.mark.parametrize("axes", [2, 3])
def test_guided_grad_cam_is_guided_backpropagation_times_the_enlarged_grad_cam(axes: int, relu: str) -> None:
    model, images = small(axes, relu), pictures(axes=axes)
    choice = pellucid.method("guided-grad-cam", channels="keep")
    kept, largest = explained(model, images, choice, "guided-grad-cam", target=2, layer="pool").values()
    assert kept.abs().max() > 0
    for i, image in enumerate(images):
        activations, slopes, _ = reference.activations_and_gradients(small(axes), "pool", image[None], 2)
        cam = torch.from_numpy(reference.grad_cam(activations.double().numpy(), slopes.double().numpy())).float()
        mode = {2: "bilinear", 3: "trilinear"}[axes]
        enlarged = nn.functional.interpolate(cam[None], size=image.shape[1:], mode=mode, align_corners=False)[0]
        wanted = slow(small(axes), image, 2, "guided-backprop") * enlarged
        torch.testing.assert_close(kept[i], wanted)
        torch.testing.assert_close(largest[i], wanted.abs().amax(dim=0))


def test_guided_grad_cam_of_one_channel_is_known() -> None:
    model = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([[2.0], [-2.0]]))
    image = torch.tensor([[[[1.0, -1.0], [3.0, 2.0]]]])
    maps = explained(model, image, "guided-grad-cam", target="all", layer="0")["guided-grad-cam"]
    assert maps[0, 0].flatten().tolist() == [0.25, 0, 0.75, 0.5]  # gradient 2 / 4 and weight 2 / 4
    assert not maps[0, 1].any()  # nothing speaks for the other class


def test_guided_grad_cam_belongs_to_its_layer() -> None:
    model, images = small(), pictures()
    names = ["guided-backprop", "guided-grad-cam", "grad-cam"]
    found = pellucid.explain(model, images, names, target=1, layer=("first", "pool"))
    assert tuple(found.maps) == (
        *("guided-backprop", "guided-grad-cam@first", "grad-cam@first"),
        *("guided-grad-cam@pool", "grad-cam@pool"),
    )
    assert tuple(found.layer_maps) == ("grad-cam@first", "grad-cam@pool")
    assert (found["guided-grad-cam@first"] - found["guided-grad-cam@pool"]).abs().max() > 0
    for layer in ("first", "pool"):  # one factor is the same for all channels, and isn't negative
        product = found["guided-backprop"] * found[f"grad-cam@{layer}"]
        torch.testing.assert_close(found[f"guided-grad-cam@{layer}"], product)


def test_captums_guided_grad_cam_is_ours_where_each_relu_is_a_module() -> None:
    attr = pytest.importorskip("captum.attr")
    images = pictures()
    choice = pellucid.method("guided-grad-cam", channels="keep")
    apart = {}
    for relu in ("module", "functional"):
        model = small(relu=relu)
        (ours,) = explained(model, images, choice, target=2, layer="pool").values()
        with warnings.catch_warnings(action="ignore"):
            theirs = attr.GuidedGradCam(model, model.pool).attribute(
                images.clone(), target=2, interpolate_mode="bilinear"
            )
        apart[relu] = float((ours - theirs.detach()).abs().max() / ours.abs().max())
    assert apart["module"] < 1e-6
    assert apart["functional"] > 0.1, "Captum multiplies by the plain gradient and says nothing"


@pytest.mark.parametrize("name", EVERY)
def test_neither_the_batch_nor_the_other_classes_matter(name: str) -> None:
    model, images = small(), pictures(5)
    whole = explained(model, images, name, target="all")[name]
    small_batches = explained(model, images, name, target="all", batch_size=2)[name]
    assert whole.shape == (5, 3, 8, 7)
    torch.testing.assert_close(small_batches, whole)
    for k in range(3):
        torch.testing.assert_close(explained(model, images[1:2], name, target=k)[name][0], whole[1, k])


def test_captum_agrees_where_each_relu_is_a_module_and_is_wrong_where_it_is_a_function() -> None:
    attr = pytest.importorskip("captum.attr")
    images = pictures()
    choices = [pellucid.method(name, channels="keep") for name in GUIDED]
    apart = {}
    for relu in ("module", "functional"):
        model = small(relu=relu)
        ours = explained(model, images, *choices, target=2).values()
        with warnings.catch_warnings(action="ignore"):
            peers = [peer(model) for peer in (attr.GuidedBackprop, attr.Deconvolution)]
            theirs = [peer.attribute(images.clone(), target=2) for peer in peers]
        both = zip(ours, theirs, strict=True)
        apart[relu] = [float((mine - peer).abs().max() / mine.abs().max()) for mine, peer in both]
    assert max(apart["module"]) < 1e-6
    assert min(apart["functional"]) > 0.1, "Captum gives the plain gradient and says nothing"


@pytest.mark.parametrize("name", GUIDED)
def test_zennit_agrees_on_a_residual_network(name: str) -> None:
    import timm

    composites = pytest.importorskip("zennit.composites")
    torch.manual_seed(4)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    (ours,) = explained(model, images, pellucid.method(name, channels="keep"), target=1).values()
    composite = {"guided-backprop": composites.GuidedBackprop, "deconvolution": composites.DeconvNet}[name]()
    leaf = images.clone().requires_grad_()
    with composite.context(model) as changed:
        (theirs,) = torch.autograd.grad(changed(leaf)[:, 1].sum(), leaf)
    assert float(ours.abs().max()) > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", EVERY)
def test_the_model_is_given_back_after_success_and_after_an_error(name: str) -> None:
    class Failing(Small):
        fail = False

        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x)
            if self.fail:
                raise ValueError("on purpose")
            return x

    model, images = small(), pictures()
    model.__class__ = Failing
    model.fail = False  # type: ignore[assignment]
    before = state(model)
    explained(model, images, name)
    assert state(model) == before
    plain = explained(model, images, "saliency")["saliency"]
    model.fail = True  # type: ignore[assignment]
    with pytest.raises(ValueError, match="on purpose"):
        explained(model, images, name)
    model.fail = False  # type: ignore[assignment]
    assert state(model) == before
    torch.testing.assert_close(explained(model, images, "saliency")["saliency"], plain)


def test_what_cannot_be_rewritten_is_named() -> None:
    smooth = nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(), nn.Flatten(), nn.LazyLinear(2)).eval()
    smooth(pictures())
    with pytest.raises(InputError, match="at least one ReLU"):
        explained(smooth, pictures(), "guided-backprop")
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(torch.relu, pictures())

    class Hidden(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(traced(x))

    hidden = small()
    hidden.__class__ = Hidden
    with pytest.raises(InputError, match="steps that 'guided-backprop' has rules for, got"):
        explained(hidden, pictures(), "guided-backprop")
