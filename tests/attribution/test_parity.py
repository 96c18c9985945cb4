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
from torch.nn.functional import interpolate

from pellucid.attribution import explain, method
from pellucid.attribution.cam import grad_cam_plus_plus
from references import cam as reference
from references.cam_networks import seeded

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


def peers_maps(peer: Any, name: str, model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> np.ndarray:
    """The peer's maps at the layer's resolution, before it cuts negatives and scales to [0, 1]."""
    kept: list[np.ndarray] = []

    class Raw(getattr(peer, name)):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **options: Any) -> np.ndarray:
            kept.append(super().get_cam_image(*args, **options))
            return kept[-1]

    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(k)) for k in classes]
    with Raw(model=model, target_layers=[model.get_submodule(layer)]) as engine:
        engine(images, targets)
    return kept[0]


def largest_relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    size = np.abs(theirs).max(axis=(1, 2))
    assert (size > 0).all()
    return float((np.abs(ours - theirs).max(axis=(1, 2)) / size).max())


@pytest.mark.parametrize("name", PEERS)
def test_signed_maps_are_the_peers(peer: Any, name: str, case: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, classes = case
    explanation = explain(model, images, method(name, positive=False), target=classes)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = peers_maps(peer, PEERS[name], model, explanation.layer, images, classes)
    if name in ("eigen-cam", "eigen-grad-cam"):  # the sign of its component is what its decomposition happens to give
        theirs = theirs * np.sign((ours * theirs).sum(axis=(1, 2), keepdims=True))
    if name == "ablation-cam":  # it divides by y, not by |y|
        theirs = theirs * np.sign(explanation.score.numpy()).reshape(-1, 1, 1)
    if name == "ablation-cam" and lowest_activation(model, explanation.layer, images) < 0:
        # there it sets a channel to minus ten million, which is no ablation of the paper's
        assert largest_relative_error(ours, theirs) > 0.1
    else:
        assert largest_relative_error(ours, theirs) <= 1e-4


def test_score_cam_is_the_peers_but_for_its_resize(peer: Any, case: tuple[nn.Module, Tensor, Tensor]) -> None:
    """The peer enlarges channels with their corners aligned, which moves what lies near a border inwards."""
    model, images, classes = case
    explanation = explain(model, images, method("score-cam", positive=False), target=classes)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = peers_maps(peer, "ScoreCAM", model, explanation.layer, images, classes)
    assert largest_relative_error(ours, theirs) > 0.01
    kept: list[Tensor] = []
    handle = model.get_submodule(explanation.layer).register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    for align_corners, wanted in ((False, ours), (True, theirs)):
        maps = [
            by_masks(model, image, activations, int(k), align_corners)
            for image, activations, k in zip(images, kept[0], classes, strict=True)
        ]
        assert largest_relative_error(np.stack(maps), wanted) <= 1e-4


def by_masks(model: nn.Module, image: Tensor, activations: Tensor, wanted: int, align_corners: bool) -> np.ndarray:
    """Score-CAM's signed map of one image, a channel at a time."""
    scores = []
    for channel in activations:
        size = image.shape[1:]
        mask = interpolate(channel[None, None], size=size, mode="bilinear", align_corners=align_corners)[0]
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread > 0 else torch.zeros_like(mask)
        with torch.no_grad():
            scores.append(model((image * mask)[None])[0, wanted])
    weights = torch.stack(scores).softmax(dim=0)
    return (weights[:, None, None] * activations).sum(dim=0).numpy()


def lowest_activation(model: nn.Module, layer: str, images: Tensor) -> float:
    kept: list[float] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(float(output.min())))
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0]


def test_grad_cam_plus_plus_is_the_papers_and_the_peers_with_its_epsilon(
    peer: Any, case: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, images, classes = case
    explanation = explain(model, images, method("grad-cam-plus-plus", positive=False), target=classes)
    (ours,) = (values.numpy() for values in explanation.layer_maps.values())
    theirs = peers_maps(peer, "GradCAMPlusPlus", model, explanation.layer, images, classes)
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
