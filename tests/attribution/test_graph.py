"""Networks read as graphs: what they give, for any number of images, from weights that aren't the model's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution.graph import CONVOLUTIONS, given, graph_of
from references.cam_networks import seeded

_NORM = torch.ops.aten.batch_norm.default
_KINDS: list[tuple[Any, Any]] = [
    (nn.Conv1d, nn.BatchNorm1d),
    (nn.Conv2d, nn.BatchNorm2d),
    (nn.Conv3d, nn.BatchNorm3d),
]


class TakenTwice(nn.Module):
    """A convolution of which a norm isn't all that takes it, and a norm with nothing before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.convolution, self.norm = nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(self.first(images))
        scaled: Tensor = maps + self.norm(maps)
        return scaled.mean(dim=(2, 3))


def moved(model: nn.Module) -> nn.Module:
    """With statistics as training leaves them."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(torch.linspace(-0.5, 0.5, module.num_features))
            assert module.running_var is not None
            module.running_var.copy_(torch.linspace(0.5, 2.0, module.num_features))
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias)
    return model.eval()


def norms(graph: torch.fx.GraphModule) -> int:
    return sum(node.target is _NORM for node in graph.graph.nodes)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_norms_are_folded_into_the_convolutions_before_them(axes: int, bias: bool, affine: bool) -> None:
    convolution, norm = _KINDS[axes - 1]
    first = convolution(2, 4, 3, stride=2, groups=2, bias=bias)
    model = moved(nn.Sequential(first, norm(4, affine=affine), nn.ReLU(), convolution(4, 3, 1)))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        images = torch.randn(5, 2, *(9, 8, 7)[:axes])
        graph = graph_of(model, images[:1], channels_last=axes == 2)
        assert norms(graph) == 0
        for rows in (1, 2, 5):
            torch.testing.assert_close(graph(images[:rows]), model(images[:rows]), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())


def test_a_norm_whose_input_others_take_stays() -> None:
    model = moved(seeded(TakenTwice()))
    with torch.no_grad():
        images = torch.randn(3, 2, 6, 6)
        graph = graph_of(model, images[:1], channels_last=True)
        assert norms(graph) == 2
        torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


def test_a_norm_that_takes_its_images_own_statistics_stays() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    with torch.no_grad():
        images = torch.randn(3, 2, 6, 6)
        graph = graph_of(model, images[:1], channels_last=True)
        assert norms(graph) == 1
        torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


def test_weights_are_cast_and_laid_out_once() -> None:
    model = moved(seeded(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))))
    images = torch.randn(3, 2, 6, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        graph = graph_of(model, images[:1], channels_last=True)
        found, own = graph(images), model(images)
    assert found.dtype == torch.bfloat16
    assert (found - own).abs().max() < 0.03 * own.abs().max()
    calls = [node for node in graph.graph.nodes if node.target in (*CONVOLUTIONS, torch.ops.aten.linear.default)]
    weights = [graph.get_buffer(given(node)["weight"].target) for node in calls]
    assert [weight.dtype for weight in weights] == [torch.bfloat16] * 2
    assert weights[0].is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_does_other_things_for_other_numbers_of_images_isn_t_read() -> None:
    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) * (1.0 if len(images) > 2 else 2.0)

    with pytest.raises(Exception, match="size"):
        graph_of(Fixed(), torch.randn(1, 2, 4, 4), channels_last=False)
