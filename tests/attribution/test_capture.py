from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attribution.borrow import borrowed
from pellucid.attribution.capture import capture, gradients
from pellucid.errors import InputError
from references.cam import activations_and_gradients
from references.cam_networks import MixingHead, Reviewing, affine_net, deep_head_net, seeded

CASES = [
    (affine_net, "2", (3, 1, 8, 8)),
    (lambda: affine_net(axes=3), "2", (3, 1, 8, 6, 8)),
    (deep_head_net, "1", (3, 1, 8, 8)),
    (lambda: deep_head_net(axes=3), "1", (3, 1, 8, 8, 8)),
    (MixingHead, "layer", (3, 1, 8, 8)),
    (Reviewing, "layer", (3, 1, 8, 8)),
]


@pytest.mark.parametrize(("build", "layer", "shape"), CASES)
def test_equals_the_whole_graph_image_by_image(build: type[nn.Module], layer: str, shape: tuple[int, ...]) -> None:
    model = seeded(build())
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with borrowed(model):
        captured = capture(model, layer, images)
        slopes = gradients(captured.outputs, captured.activations)
    for b in range(len(images)):
        for wanted in range(3):
            activations, gradient, logit = activations_and_gradients(model, layer, images[b : b + 1], wanted)
            torch.testing.assert_close(captured.activations[b].detach(), activations[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(slopes[wanted, b], gradient[0], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(float(captured.outputs[b, wanted].detach()), logit, rtol=1e-5, atol=1e-6)


def test_nothing_before_the_layer_builds_a_graph_and_hooks_are_removed() -> None:
    model = seeded(affine_net())
    seen: list[bool] = []
    handle = model[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output.requires_grad))
    with borrowed(model):
        capture(model, "2", torch.rand(2, 1, 8, 8))
    assert seen == [False]
    handle.remove()
    assert not any(module._forward_hooks or "forward" in module.__dict__ for module in model.modules())


def test_an_activation_in_place_after_the_layer_leaves_what_was_captured() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(1, 4, 3)
            self.fc = nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(functional.relu(self.features(images), inplace=True).mean(dim=(2, 3)))

    model = seeded(InPlace())
    with borrowed(model):
        captured = capture(model, "features", torch.randn(2, 1, 8, 8))
        slopes = gradients(captured.outputs, captured.activations)
    assert captured.activations.min() < 0
    assert not slopes[:, captured.activations <= 0].any()


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 3, padding=1)
        self.unused = nn.ReLU()
        self.pair = nn.Identity()
        self.tokens = nn.Flatten(2)
        self.fails = nn.Linear(7, 2)
        self.aside = nn.Conv2d(1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.twice(self.twice(images))
        self.pair((features, features))
        self.aside(features)
        return self.tokens(features).mean(dim=2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "a layer that runs once per image, got 'twice', which runs again"),
        ("unused", "a layer that runs on these images, got 'unused', which doesn't"),
        ("pair", "with output tuple"),
        (
            "tokens",
            r"an output \(B, K, \*s\) with 2 spatial axes for 2 images, got 'tokens' with output shape \(2, 1, 64\)",
        ),
    ],
)
def test_a_layer_that_cannot_be_explained_is_refused(layer: str, message: str) -> None:
    model = Broken()
    with borrowed(model), pytest.raises(InputError, match=message):
        capture(model, layer, torch.rand(2, 1, 8, 8))
    assert not any(module._forward_hooks or "forward" in module.__dict__ for module in model.modules())


def test_a_score_that_does_not_depend_on_the_layer_is_refused() -> None:
    model = Broken()
    with borrowed(model):
        captured = capture(model, "aside", torch.rand(2, 1, 8, 8))
        with pytest.raises(InputError, match="the score doesn't depend on its output"):
            gradients(captured.outputs, captured.activations)
