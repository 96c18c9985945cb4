from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.attribution.borrow import borrowed
from pellucid.attribution.capture import capture
from pellucid.attribution.head import Head, Upstream, beside
from pellucid.attribution.targets import Objective
from references.cam_networks import GatedHead, MixingHead, Reviewing, Shuffling, affine_net, deep_head_net, seeded


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (affine_net, "2"),
        (deep_head_net, "1"),
        (MixingHead, "layer"),
        (GatedHead, "layer"),
        (Shuffling, "layer.1"),
        (Reviewing, "layer"),
    ],
)
def test_gives_the_outputs_of_other_images_from_their_activations(build: type[nn.Module], layer: str) -> None:
    model = seeded(build())
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with borrowed(model):
        upstream = Upstream()
        captured = capture(model, layer, images[:3], upstream)
        head = Head(model, layer, upstream)
        aim = Objective(torch.tensor([[0, 1, 2]] * 3))
        head.use(images[:3], captured.activations.detach(), aim, captured.outputs.detach(), torch.tensor(1.0))
        others = capture(model, layer, images[3:])
        sample = torch.tensor([0, 1, 2])
        assert head.runs_alone
        torch.testing.assert_close(head(others.activations.detach().clone(), sample), others.outputs.detach())


def test_beside_lists_the_largest_modules_around_a_layer() -> None:
    model = nn.ModuleDict(
        {
            "stem": nn.ReLU(),
            "blocks": nn.ModuleList([nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.Tanh(), nn.ReLU())]),
            "heads": nn.ModuleList([nn.ReLU(), nn.Sequential(nn.ReLU())]),
        }
    )
    blocks, heads = model["blocks"], model["heads"]
    around = [model["stem"], heads[0], heads[1], blocks[0], blocks[1][0], blocks[1][2]]
    assert list(beside(model, "blocks.1.1")) == around


def test_a_module_used_before_and_after_the_layer_answers_only_its_first_calls() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Tanh()
            self.stem = nn.Conv2d(1, 3, 3)
            self.layer = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(self.act(self.layer(self.act(self.stem(images)))).mean(dim=(2, 3)))

    model = seeded(Shared())
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with borrowed(model):
        upstream = Upstream()
        captured = capture(model, "layer", images, upstream)
        head = Head(model, "layer", upstream)
        aim, scores = Objective(torch.tensor([[0]] * 2)), captured.outputs[:, :1].detach()
        head.use(images, captured.activations.detach(), aim, scores, torch.tensor(1.0))
        assert head.runs_alone
        assert set(upstream.standins) == {model.act, model.stem}
        torch.testing.assert_close(
            head(captured.activations.detach().flip(0), torch.tensor([1, 0])), captured.outputs.detach().flip(0)
        )
