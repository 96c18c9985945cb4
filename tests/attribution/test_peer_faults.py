"""Where other libraries are wrong: their number beside ours and the right one, so that a fault here would show too."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attribution import METHODS, explain, method, resize_maps
from references import cam as reference
from references.cam_networks import affine_net, deep_head_net, seeded
from references.peers import grad_cam_maps, largest_relative_error, output_of, torchcam_maps

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning"),
]

CAMS = METHODS.names("cam") + METHODS.names("rescoring-cam")


@pytest.fixture(scope="module")
def peer() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam, of the extra parity")


@pytest.fixture(scope="module")
def torchcam() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("torchcam", reason="needs torchcam, of the extra parity")


def signed_map(name: str, model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> np.ndarray:
    found = explain(model, images, method(name, positive=False), target=classes, layer=layer)
    return next(iter(found.layer_maps.values())).numpy()


def ablated(model: nn.Module, layer: str, images: Tensor, classes: Tensor, over: str) -> np.ndarray:
    """Signed Ablation-CAM from a run of the whole network for every channel set to zero, divided by y or |y|."""
    maps = []
    for image, wanted in zip(images.split(1), classes.tolist(), strict=True):
        drops = reference.channel_drops(model, layer, image, wanted)
        with torch.no_grad():
            score = model(image)[0, wanted]
        weights = drops / (score.abs() if over == "|y|" else score)
        maps.append((weights[:, None, None] * output_of(model, layer, image)[0]).sum(dim=0).numpy())
    return np.stack(maps)


def negative_scores(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        scores, classes = model(images).min(dim=1)
    assert (scores < 0).all()
    return classes


def test_ablation_sets_channels_to_zero_and_the_peer_to_minus_ten_million(peer: Any) -> None:
    """The peer sets a channel to its batch's least activation less 1e7 where that is negative, else to zero."""
    model = seeded(deep_head_net(classes=4))
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        classes = model(images).argmax(dim=1)
    for layer, least in (("0", "negative"), ("1", "zero")):  # before the ReLU, and behind it
        ours = signed_map("ablation-cam", model, layer, images, classes)
        theirs = grad_cam_maps(peer, "AblationCAM", model, layer, images, classes)
        paper = ablated(model, layer, images, classes, over="|y|")
        assert largest_relative_error(ours, paper) <= 1e-4
        error = largest_relative_error(theirs, paper)
        assert error > 0.1 if least == "negative" else error <= 1e-4


def test_ablation_keeps_its_signs_under_a_negative_score_and_the_peer_turns_them(peer: Any) -> None:
    """Dividing by y < 0 makes a channel that holds the score up speak against the class."""
    model = seeded(deep_head_net(classes=4))
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    classes = negative_scores(model, images)
    ours = signed_map("ablation-cam", model, "1", images, classes)
    theirs = grad_cam_maps(peer, "AblationCAM", model, "1", images, classes)
    assert largest_relative_error(ours, ablated(model, "1", images, classes, over="|y|")) <= 1e-4
    assert largest_relative_error(theirs, ablated(model, "1", images, classes, over="y")) <= 1e-4
    assert largest_relative_error(ours, -theirs) <= 1e-4
    drops = [
        reference.channel_drops(model, "1", image, int(k)) for image, k in zip(images.split(1), classes, strict=True)
    ]
    strongest = [int(each.argmax()) for each in drops]  # without it the score falls most: it speaks for the class
    activations = output_of(model, "1", images)
    for b, channel in enumerate(strongest):
        alone = torch.zeros_like(activations[b : b + 1])
        alone[:, channel] = activations[b, channel]
        weigh = METHODS["ablation-cam"].function
        with torch.no_grad():
            score = model(images[b : b + 1])[:, classes[b]]
        assert weigh(alone, score, drops[b][None]).sum() > 0


def test_enlarged_volumes_stay_between_their_extremes_and_the_peers_overshoot(peer: Any) -> None:
    """The peer enlarges volumes by cubic splines: its maps of [0, 1] reach 1.9 and fall below zero."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    block = np.zeros((1, 4, 4, 4), dtype=np.float32)
    block[0, 1:3, 1:3, 1:3] = 1
    noise = np.random.default_rng(0).random((1, 5, 4, 3), dtype=np.float32)
    for maps, size in ((block, (16, 16, 16)), (noise, (20, 16, 12))):
        maps = (maps - maps.min()) / (maps.max() - maps.min())
        theirs = scale_cam_image(maps, size[::-1])
        ours = resize_maps(torch.from_numpy(maps), size)
        assert theirs.shape == ours.shape
        assert 0 <= ours.min() <= ours.max() <= 1
        assert theirs.max() > 1.01
    assert theirs.min() < -0.01
    assert scale_cam_image(block, (16, 16, 16)).max() > 1.9


class WritesInPlace(nn.Module):
    """Ends as DenseNet does: the feature map's ReLU is a function, which may write over the layer's output."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, 3)
        self.inplace = inplace

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.features(images), inplace=self.inplace)
        return self.fc(features.mean(dim=(2, 3)))


def test_what_a_layer_gave_is_kept_and_the_peers_see_it_rewritten(peer: Any, torchcam: Any) -> None:
    """Two keep the layer's output itself, which a ReLU in place then cuts; Captum keeps a copy.

    pytorch-grad-cam weighs what the ReLU left by the gradients before it. TorchCAM takes those behind it too, so that
    it explains another layer than it was told to.
    """
    images, classes = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    safe, writing = (seeded(WritesInPlace(inplace)) for inplace in (False, True))
    right = [
        reference.activations_and_gradients(safe, "features", image, int(k))[:2]
        for image, k in zip(images.split(1), classes, strict=True)
    ]
    activations, slopes = (torch.cat(each) for each in zip(*right, strict=True))
    wanted = METHODS["grad-cam"].function(activations, slopes, positive=False).numpy()
    left = activations.relu()
    mixed = METHODS["grad-cam"].function(left, slopes, positive=False).numpy()
    behind = safe.fc.weight.detach()[classes].reshape(2, 6, 1, 1).expand_as(slopes) / slopes[0, 0].numel()
    another = METHODS["grad-cam"].function(left, behind, positive=False).numpy()
    for makes, rewritten in (
        (lambda model: grad_cam_maps(peer, "GradCAM", model, "features", images, classes), mixed),
        (lambda model: torchcam_maps("GradCAM", model, "features", images, classes), another),
    ):
        assert largest_relative_error(makes(safe), wanted) <= 1e-5
        assert largest_relative_error(makes(writing), wanted) > 0.5
        assert largest_relative_error(makes(writing), rewritten) <= 1e-5
    attr = pytest.importorskip("captum.attr")
    for model in (safe, writing):
        ours = signed_map("grad-cam", model, "features", images, classes)
        assert largest_relative_error(ours, wanted) <= 1e-5
        captums = attr.LayerGradCam(model, model.features).attribute(images.clone(), classes)
        assert largest_relative_error(captums.detach().squeeze(1).numpy(), wanted) <= 1e-5
    for name in CAMS:
        both = [signed_map(name, model, "features", images, classes) for model in (safe, writing)]
        assert largest_relative_error(both[1], both[0]) <= 1e-4


def test_a_real_densenet_is_rewritten_for_the_peers_too(peer: Any, torchcam: Any) -> None:
    """torchvision's, whose layer `features` ends with a norm before the function."""
    from torchvision.models import DenseNet

    model = seeded(DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3))
    images, classes = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    wanted = []
    for image, k in zip(images.split(1), classes.tolist(), strict=True):
        activations, slopes, _ = reference.activations_and_gradients(model, "features", image, k)
        wanted.append(METHODS["grad-cam"].function(activations.detach(), slopes, positive=False)[0].numpy())
    paper = np.stack(wanted)
    assert largest_relative_error(signed_map("grad-cam", model, "features", images, classes), paper) <= 1e-4
    assert largest_relative_error(grad_cam_maps(peer, "GradCAM", model, "features", images, classes), paper) > 0.1
    assert largest_relative_error(torchcam_maps("GradCAM", model, "features", images, classes), paper) > 0.1


def blank(axes: int, way: str) -> tuple[nn.Module, Tensor]:
    """A network with nothing to see: no unit answers, or all answer alike everywhere."""
    model = seeded(affine_net(axes=axes))
    images = torch.randn(2, 1, *(16,) * axes, generator=torch.Generator().manual_seed(0))
    convolution, norm = model[0], model[1]
    with torch.no_grad():
        if way == "dead":
            norm.weight.zero_()  # type: ignore[union-attr, operator]
            norm.bias.fill_(-1)  # type: ignore[union-attr, operator]
        else:
            convolution.weight.zero_()  # type: ignore[union-attr, operator]
    return model, images


@pytest.mark.parametrize("axes", [2, 3])
def test_blank_maps_stay_zero(peer: Any, torchcam: Any, axes: int) -> None:
    """No missing values and nothing stretched to look like evidence; today's peers agree, in their raw maps."""
    model, images = blank(axes, "dead")
    found = explain(model, images, CAMS, target="all", layer="2")
    for name in CAMS:
        assert not found.maps[name].any()
        assert not found.layer_maps[name].any()
    classes = torch.tensor([0, 1])
    for theirs in ("GradCAM", "LayerCAM", *(("XGradCAM", "GradCAMPlusPlus") if axes == 2 else ())):
        assert not grad_cam_maps(peer, theirs, model, "2", images, classes).any()
    for theirs in ("GradCAM", "XGradCAM", "LayerCAM", "GradCAMpp", "FinerCAM"):
        assert not torchcam_maps(theirs, model, "2", images, classes).any()


@pytest.mark.parametrize("axes", [2, 3])
def test_a_flat_layer_has_no_place_that_stands_out(axes: int) -> None:
    model, images = blank(axes, "flat")
    found = explain(model, images, CAMS, target="all", layer="2")
    for name in CAMS:
        maps = found.maps[name].flatten(2)
        assert maps.isfinite().all()
        assert (maps.amax(dim=2) - maps.amin(dim=2)).max() <= 1e-6 * max(1e-3, float(maps.abs().max()))
    assert not found.maps["eigen-cam"].any()
    assert not found.maps["score-cam"].isnan().any()  # channels without a spread show nothing of the image
