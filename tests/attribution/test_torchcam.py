"""The same maps as TorchCAM for every method that both have; and where it differs, why."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vgg import VGG
from torch import Tensor, nn

from pellucid.attribution import explain, method
from references import cam as reference
from references.cam_networks import affine_net, seeded
from references.peers import (
    DEEP,
    deep_network,
    largest_relative_error,
    output_of,
    score_cam_by_masks,
    torchcam_maps,
)

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning"),
]

PEERS = {"grad-cam": "GradCAM", "xgrad-cam": "XGradCAM", "layer-cam": "LayerCAM", "finer-cam": "FinerCAM"}
Case = tuple[nn.Module, str, Tensor, Tensor]


@pytest.fixture(scope="module", autouse=True)
def methods() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("torchcam.methods", reason="needs torchcam, of the extra parity")


@pytest.fixture(scope="module", params=["small", "small 3-D", *DEEP])
def case(request: pytest.FixtureRequest) -> Case:
    draw = torch.Generator().manual_seed(0)
    if request.param in DEEP:
        model, layer, shape = deep_network(request.param), DEEP[request.param], (2, 3, 64, 64)
    elif request.param == "small":
        model = seeded(VGG([16, "M", 32, "M", 32, "M", 64, "M", 64, "M"], num_classes=5))
        layer, shape = "features.13", (2, 3, 64, 64)
    else:
        model, layer, shape = seeded(affine_net(axes=3, classes=5, channels=3)), "2", (2, 3, 8, 10, 12)
    return model, layer, torch.randn(shape, generator=draw), torch.tensor([1, 3])


@pytest.mark.parametrize("name", PEERS)
def test_signed_maps_are_the_peers(name: str, case: Case) -> None:
    model, layer, images, classes = case
    explanation = explain(model, images, method(name, positive=False), target=classes, layer=layer)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = torchcam_maps(PEERS[name], model, layer, images, classes)
    assert largest_relative_error(ours, theirs) <= 1e-4


def test_where_a_linear_layer_follows_pooling_grad_cam_is_the_peers_cam() -> None:
    """Zhou 2016 weighs activations by the linear layer's weights; the gradient has them over the number of places."""
    from torchcam.methods import CAM

    model, classes = seeded(affine_net(classes=5, channels=3)), torch.tensor([1, 3])
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = explain(model, images, "grad-cam", target=classes, layer="2").layer_maps["grad-cam"]
    with CAM(model, "2", fc_layer="5") as extractor, torch.no_grad():
        model(images)
        (theirs,) = extractor(classes.tolist(), normalized=False)
    assert ours.amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(ours * 16 * 16, theirs.relu(), rtol=1e-4, atol=1e-5)


def test_grad_cam_plus_plus_is_the_papers_and_the_peer_forgets_to_divide(case: Case) -> None:
    """The peer divides a copy of G² by the denominator of equation 19, so that its weights are the sums of relu(G)³."""
    model, layer, images, classes = case
    name = "grad-cam-plus-plus"
    ours = explain(model, images, name, target=classes, layer=layer).layer_maps[name].double().numpy()
    theirs = torchcam_maps("GradCAMpp", model, layer, images, classes)
    paper, undivided = [], []
    for b, wanted in enumerate(classes.tolist()):
        found = reference.activations_and_gradients(model, layer, images[b : b + 1], wanted)
        activations, slopes = (each[0].double() for each in found[:2])
        total = activations.flatten(1).sum(dim=1).reshape(-1, *(1,) * (slopes.ndim - 1))
        alpha = torch.where(slopes > 0, slopes**2 / (2 * slopes**2 + total * slopes**3), 0)
        for maps, each in ((paper, alpha), (undivided, slopes**2)):
            weights = (each * slopes.relu()).flatten(1).sum(dim=1)
            maps.append(torch.einsum("k,k...->...", weights, activations).relu().numpy())
    assert largest_relative_error(ours, np.stack(paper)) <= 1e-4
    assert largest_relative_error(theirs, np.stack(undivided)) <= 1e-3  # in float32 cubes of small slopes vanish
    assert largest_relative_error(to_one(theirs), to_one(ours)) > 0.03


def to_one(maps: np.ndarray) -> np.ndarray:
    return maps / np.abs(maps).reshape(len(maps), -1).max(axis=1).reshape(-1, *(1,) * (maps.ndim - 1))


def test_score_cam_is_the_peers_but_for_scaling_before_the_resize() -> None:
    """Equations 5 and 6 of the paper enlarge a channel and then scale it to [0, 1]; the peer scales it first."""
    model, classes = seeded(affine_net(classes=5, channels=3)), torch.tensor([1, 3])
    images, layer = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "2"
    ours = explain(model, images, "score-cam", target=classes, layer=layer).layer_maps["score-cam"].numpy()
    theirs = np.maximum(torchcam_maps("ScoreCAM", model, layer, images, classes), 0)
    activations = output_of(model, layer, images)
    for first, wanted in ((False, ours), (True, theirs)):
        maps = [
            score_cam_by_masks(model, image, channels, int(k), first=first)
            for image, channels, k in zip(images, activations, classes, strict=True)
        ]
        assert largest_relative_error(np.maximum(np.stack(maps), 0), wanted) <= 1e-4
    assert largest_relative_error(theirs, ours) > 0.001
