"""Falls of the scores against a forward pass of the whole network for every channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution.ablation import Ablation
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.capture import capture, gradients
from pellucid.attribution.head import Head, Upstream
from pellucid.attribution.targets import Objective
from pellucid.errors import PellucidError
from references.cam import channel_drops
from references.cam_networks import (
    GatedHead,
    MixingHead,
    Reviewing,
    Shuffling,
    Skipping,
    affine_net,
    deep_head_net,
    seeded,
)


def sigmoid_net() -> nn.Sequential:
    net = deep_head_net()
    net[1] = nn.Sigmoid()
    return net


Way = Literal["affine", "mixed", "rescored", "whole"]

CASES: list[tuple[Callable[[], nn.Module], str, tuple[int, ...], Way]] = [
    (affine_net, "2", (5, 1, 8, 8), "affine"),
    (lambda: affine_net(axes=3), "2", (5, 1, 8, 6, 8), "affine"),
    (deep_head_net, "1", (5, 1, 8, 8), "mixed"),
    (deep_head_net, "0", (5, 1, 8, 8), "mixed"),  # the ReLU lies between, and leaves a channel of zeros as it is
    (sigmoid_net, "0", (5, 1, 8, 8), "rescored"),  # the sigmoid doesn't
    (lambda: deep_head_net(axes=3), "1", (5, 1, 8, 8, 8), "mixed"),
    (Reviewing, "layer", (5, 1, 8, 8), "mixed"),
    (MixingHead, "layer", (5, 1, 8, 8), "rescored"),
    (GatedHead, "layer", (5, 1, 8, 8), "rescored"),
    (GatedHead, "layer", (1, 1, 8, 8), "rescored"),
    (Shuffling, "layer", (5, 1, 8, 8), "rescored"),
    (Skipping, "layer", (5, 1, 8, 8), "whole"),
]


def drops_of(model: nn.Module, layer: str, images: Tensor, classes: Tensor, rows: int) -> tuple[Tensor, Ablation, Head]:
    """Drops (T, B, K) in two batches, so that what the first found out serves the second."""
    parts, ablation, head = [], None, None
    with borrowed(model):
        for start in (0, 2):
            batch, aim = (
                images[start:][: 2 if start == 0 else None],
                Objective(classes[start:][: 2 if start == 0 else None]),
            )
            if not len(batch):
                continue
            upstream = Upstream() if head is None else None
            captured = capture(model, layer, batch, upstream)
            if upstream is not None:
                head = Head(model, layer, upstream)
                ablation = Ablation(head, rows)
            scores = aim.scores(captured.outputs, torch.arange(len(batch)))
            slopes = gradients(scores, captured.activations)
            parts.append(ablation.drops(batch, captured.activations.detach(), slopes, scores.detach(), aim))
    return torch.cat(parts, dim=1), ablation, head


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize(("build", "layer", "shape", "way"), CASES)
def test_equals_a_forward_pass_for_each_channel(
    build: Callable[[], nn.Module], layer: str, shape: tuple[int, ...], way: Way, rows: int
) -> None:
    model = seeded(build())
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([[0, 2], [1, 0], [2, 1], [0, 1], [1, 2]])[: len(images)]
    drops, ablation, head = drops_of(model, layer, images, classes, rows)
    assert head.runs_alone == (way != "whole")
    assert ablation.way == way
    for b in range(len(images)):
        for t in range(2):
            slow = channel_drops(model, layer, images[b : b + 1], int(classes[b, t]))
            assert slow.abs().max() > 0
            torch.testing.assert_close(drops[t, b], slow, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks or "forward" in module.__dict__ for module in model.modules())


def test_what_lies_before_the_layer_is_not_run_again() -> None:
    model = seeded(deep_head_net())
    runs = [0]

    def count(*_: object) -> None:
        runs[0] += 1

    own = model[0].forward
    model[0].forward = lambda features: (count(), own(features))[1]  # type: ignore[method-assign]
    drops_of(model, "1", torch.randn(2, 1, 8, 8), torch.zeros(2, 1, dtype=torch.long), rows=4)
    assert runs == [1]


def test_a_network_that_is_random_in_evaluation_is_refused() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 3, 3)

        def forward(self, images: Tensor) -> Tensor:
            features = self.layer(images).mean(dim=(2, 3))
            return features + torch.rand_like(features)

    with pytest.raises(PellucidError, match="model: gives other scores when it runs again"):
        drops_of(Noisy(), "layer", torch.rand(2, 1, 8, 8), torch.zeros(2, 1, dtype=torch.long), rows=4)


@pytest.mark.parametrize("build", [affine_net, deep_head_net])
def test_a_score_that_cancels_to_rounding_is_not_taken_for_a_random_one(build: Callable[[], nn.Sequential]) -> None:
    model, layer = seeded(build()), "2" if build is affine_net else "1"
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model[-1].bias -= model(image)[0] * (1 + 1e-6)
    drops, ablation, _ = drops_of(model, layer, image, torch.tensor([[0, 1]]), rows=4)
    assert ablation.way == ("affine" if build is affine_net else "mixed")
    torch.testing.assert_close(drops[1, 0], channel_drops(model, layer, image, 1), rtol=1e-4, atol=1e-5)


def test_a_users_hook_on_the_layer_counts_once() -> None:
    model = seeded(deep_head_net())
    model[1].register_forward_hook(lambda _module, _inputs, output: output * 0.5)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    drops, *_ = drops_of(model, "1", images, torch.zeros(2, 1, dtype=torch.long), rows=4)
    torch.testing.assert_close(drops[0, 1], channel_drops(model, "1", images[1:], 0), rtol=1e-4, atol=1e-5)
