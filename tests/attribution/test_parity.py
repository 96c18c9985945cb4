"""The same maps as pytorch-grad-cam, before it cuts and scales them; and where it differs, why."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.densenet import DenseNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from pellucid.attribution import explain, method, resize_maps
from pellucid.attribution.cam import grad_cam_plus_plus
from references import cam as reference
from references.cam_networks import seeded
from references.peers import (
    DEEP,
    deep_network,
    grad_cam_maps,
    keeping,
    largest_relative_error,
    output_of,
    score_cam_by_masks,
)

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning"),
]

NETS = ["resnet18", "small vgg", "small densenet", "mobilenetv3_small_100"]
PEERS = {
    "grad-cam": "GradCAM",
    "hires-cam": "HiResCAM",
    "eigen-cam": "EigenCAM",
    "shapley-cam": "ShapleyCAM",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "eigen-grad-cam": "EigenGradCAM",
    "ablation-cam": "AblationCAM",
}


@pytest.fixture(scope="module")
def peer() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam, of the extra parity")


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    if request.param == "small vgg":
        model = VGG([16, "M", 32, "M", 32, "M", 64, "M", 64, "M"], num_classes=4)
    elif request.param == "small densenet":
        model = DenseNet(growth_rate=8, block_config=(2, 2, 2), num_classes=4)
    else:
        model = timm.create_model(request.param, num_classes=4)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return seeded(model), images, torch.tensor([1, 3])


@pytest.mark.parametrize("name", PEERS)
def test_signed_maps_are_the_peers(peer: Any, name: str, case: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, classes = case
    explanation = explain(model, images, method(name, positive=False), target=classes)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = grad_cam_maps(peer, PEERS[name], model, explanation.layer, images, classes)
    if name in ("eigen-cam", "eigen-grad-cam"):  # the sign of its component is what its decomposition happens to give
        theirs = theirs * np.sign((ours * theirs).sum(axis=(1, 2), keepdims=True))
    if name == "ablation-cam":  # it divides by y, not by |y|
        theirs = theirs * np.sign(explanation.score.numpy()).reshape(-1, 1, 1)
    if name == "ablation-cam" and output_of(model, explanation.layer, images).min() < 0:
        # there it sets a channel to minus ten million, which is no ablation of the paper's
        assert largest_relative_error(ours, theirs) > 0.1
    else:
        assert largest_relative_error(ours, theirs) <= 1e-4


@pytest.fixture(scope="module", params=DEEP)
def deep(request: pytest.FixtureRequest) -> tuple[nn.Module, str, Tensor, Tensor]:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return deep_network(request.param), DEEP[request.param], images, torch.tensor([1, 3])


@pytest.mark.parametrize("name", [name for name in PEERS if name != "ablation-cam"])  # the peer runs it for minutes
def test_signed_maps_are_the_peers_where_the_methods_differ(
    peer: Any, name: str, deep: tuple[nn.Module, str, Tensor, Tensor]
) -> None:
    model, layer, images, classes = deep
    explanation = explain(model, images, method(name, positive=False), target=classes, layer=layer)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = grad_cam_maps(peer, PEERS[name], model, layer, images, classes)
    if name in ("eigen-cam", "eigen-grad-cam"):
        theirs = theirs * np.sign((ours * theirs).sum(axis=(1, 2), keepdims=True))
    assert largest_relative_error(ours, theirs) <= 1e-4


def test_the_methods_do_differ_there(deep: tuple[nn.Module, str, Tensor, Tensor]) -> None:
    model, layer, images, classes = deep
    names = ["grad-cam", "grad-cam-plus-plus", *(name for name in PEERS if name not in ("grad-cam", "ablation-cam"))]
    found = explain(model, images, [method(name, positive=False) for name in names], target=classes, layer=layer)
    # both scores are linear piece by piece
    assert found.coinciding == (("grad-cam[positive=False]", "shapley-cam[positive=False]"),)


def test_finer_cam_is_the_papers_and_the_peer_weighs_rivals_by_a_probability_that_it_differentiates(
    peer: Any, deep: tuple[nn.Module, str, Tensor, Tensor]
) -> None:
    """The paper takes the plain mean over the three nearest classes, and so do we.

    The peer weighs them by their probabilities and lets the gradient run through the weights, so that it explains how
    those weights could be changed too. Both are Grad-CAM of a function of the logits, which `target` takes.
    """
    model, layer, images, _ = deep

    def papers(logits: Tensor) -> Tensor:
        return logits[:, 1] - 0.6 * logits.gather(1, rivals).mean(dim=1)

    def weighted(logits: Tensor, held: bool = False) -> Tensor:
        shares = logits.softmax(dim=1).gather(1, rivals)
        shares = shares.detach() if held else shares
        apart = logits[:, 1:2] - 0.6 * logits.gather(1, rivals)
        return (shares * apart).sum(dim=1) / (shares.sum(dim=1) + 1e-9)

    with torch.no_grad():
        logits = model(images)
        model = nn.Sequential(model, Shrink(logits)).eval()  # else one class has all the probability
        logits = model(images)
    layer = f"0.{layer}"
    rivals = torch.tensor([reference.nearest_classes(each, 1, 3) for each in logits])
    finer = explain(model, images, method("finer-cam", positive=False), target=1, layer=layer)
    (ours,) = (values.numpy() for values in finer.layer_maps.values())
    raw, kept = keeping(peer.GradCAM)
    engine = peer.FinerCAM(model, [model.get_submodule(layer)], base_method=raw)
    engine(images, target_idx=1, alpha=0.6)
    engine.base_cam.activations_and_grads.release()
    maps = [
        explain(model, images, method("grad-cam", positive=False), target=goal, layer=layer).layer_maps
        for goal in (papers, weighted, lambda outputs: weighted(outputs, held=True))
    ]
    by_paper, by_peer, by_held = (next(iter(each.values())).numpy() for each in maps)
    assert largest_relative_error(ours, by_paper) <= 1e-4
    assert largest_relative_error(kept[0], by_peer) <= 1e-4
    assert largest_relative_error(by_peer, by_paper) > 0.01
    assert largest_relative_error(by_peer, by_held) > 0.01, "the weights' own gradient is part of it"


@pytest.mark.parametrize("layer", ["features.15", "features.29"])
def test_guided_grad_cam_is_the_product_of_the_peers_two_maps(peer: Any, layer: str) -> None:
    """The peer's users multiply its guided backpropagation, of one image, by its map; here before it is scaled."""
    from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel

    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (ours,) = explain(
        deep_network("vgg16"), images, method("guided-grad-cam", channels="keep"), target=1, layer=layer
    ).maps.values()
    cams = grad_cam_maps(peer, "GradCAM", deep_network("vgg16"), layer, images, torch.tensor([1]))
    guided = GuidedBackpropReLUModel(deep_network("vgg16"), "cpu")(images.clone(), target_category=1)
    enlarged = resize_maps(torch.from_numpy(cams.clip(min=0)), (64, 64))
    theirs = torch.from_numpy(guided).permute(2, 0, 1)[None] * enlarged[:, None]
    assert largest_relative_error(ours.numpy(), theirs.numpy()) <= 1e-4


class Shrink(nn.Module):
    """Logits brought to a size of about one, by the same factor for all images and classes."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.size = float(logits.abs().max())

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.size


def test_score_cam_is_the_peers_but_for_its_resize(peer: Any, case: tuple[nn.Module, Tensor, Tensor]) -> None:
    """The peer enlarges channels with their corners aligned, which moves what lies near a border inwards."""
    model, images, classes = case
    explanation = explain(model, images, method("score-cam", positive=False), target=classes)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = grad_cam_maps(peer, "ScoreCAM", model, explanation.layer, images, classes)
    assert largest_relative_error(ours, theirs) > 0.01
    activations = output_of(model, explanation.layer, images)
    for align_corners, wanted in ((False, ours), (True, theirs)):
        maps = [
            score_cam_by_masks(model, image, channels, int(k), align_corners)
            for image, channels, k in zip(images, activations, classes, strict=True)
        ]
        assert largest_relative_error(np.stack(maps), wanted) <= 1e-4


def test_grad_cam_plus_plus_is_the_papers_and_the_peers_with_its_epsilon(
    peer: Any, case: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, images, classes = case
    explanation = explain(model, images, method("grad-cam-plus-plus", positive=False), target=classes)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = grad_cam_maps(peer, "GradCAMPlusPlus", model, explanation.layer, images, classes)
    maps: dict[float, list[np.ndarray]] = {0.0: [], 1e-6: []}
    for b, wanted in enumerate(classes.tolist()):
        activations, slopes, _ = reference.activations_and_gradients(
            model, explanation.layer, images[b : b + 1], wanted
        )
        for epsilon, found in maps.items():
            found.append(with_epsilon(activations, slopes, epsilon))
    paper, shifted = (np.stack(found) for found in maps.values())
    assert largest_relative_error(ours, paper) <= 1e-4
    assert largest_relative_error(theirs, shifted) <= 1e-4


def test_the_peers_epsilon_bends_the_map_at_the_scale_of_trained_gradients() -> None:
    draw = torch.Generator().manual_seed(0)
    activations = torch.randn(1, 8, 7, 7, generator=draw).relu()
    slopes = torch.randn(1, 8, 7, 7, generator=draw) * 3e-4
    paper, shifted = (with_epsilon(activations, slopes, epsilon)[None] for epsilon in (0.0, 1e-6))
    assert largest_relative_error(grad_cam_plus_plus(activations, slopes).numpy(), paper) < 1e-5
    assert largest_relative_error(shifted, paper) > 0.5


def with_epsilon(activations: Tensor, slopes: Tensor, epsilon: float) -> np.ndarray:
    """Signed map by equation 19 in float64, with the peer's ε in the denominator if given."""
    a, g = activations[0].double().numpy(), slopes[0].double().numpy()
    total = a.sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(g**2, 2 * g**2 + total * g**3 + epsilon, where=g > 0, out=np.zeros_like(g))
    return np.einsum("k,khw->hw", (alpha * np.maximum(g, 0)).sum(axis=(1, 2)), a)


def test_the_fast_form_of_equation_19_is_the_slow_one() -> None:
    draw = torch.Generator().manual_seed(0)
    activations = torch.randn(1, 8, 5, 5, generator=draw, dtype=torch.float64).relu()
    slopes = torch.randn(1, 8, 5, 5, generator=draw, dtype=torch.float64)
    slow = reference.grad_cam_plus_plus(activations.numpy(), slopes.numpy())
    np.testing.assert_allclose(with_epsilon(activations, slopes, 0.0)[None], slow, rtol=1e-9)
