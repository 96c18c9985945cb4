"""Batch norms that keep nothing of the image: torch's values and slopes, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pellucid
from pellucid.attribution.lean import Lean


def network(axes: int = 2, affine: bool = True, tracked: bool = True) -> nn.Module:
    torch.manual_seed(1)
    conv, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[axes - 2]
    norms = [norm(width, affine=affine, track_running_stats=tracked) for width in (5, 6)]
    model = nn.Sequential(conv(2, 5, 3), norms[0], nn.Tanh(), conv(5, 6, 3), norms[1], nn.Softplus(),
                          nn.Flatten(), nn.LazyLinear(3)).double()  # fmt: skip
    model.train()(pictures(axes, 6))  # running moments
    for norm_ in norms if affine else []:
        nn.init.normal_(norm_.weight)
        nn.init.normal_(norm_.bias)
    return model.eval().requires_grad_(False)


def pictures(axes: int = 2, count: int = 3) -> Tensor:
    return torch.randn(count, 2, *(8, 7, 6)[:axes], generator=torch.Generator().manual_seed(2)).double()


def slopes(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_()
    scores = model(leaf)
    return scores.detach(), torch.autograd.grad(scores[:, 1].sum(), leaf)[0]


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("axes", [2, 3])
def test_values_and_slopes_are_torchs(axes: int, affine: bool, tracked: bool) -> None:
    model, images = network(axes, affine, tracked), pictures(axes)
    plain = slopes(model, images)
    with Lean():
        lean = slopes(model, images)
    for mine, theirs in zip(lean, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_norm_by_its_batchs_moments_stays_torchs_own_and_moves_its_running_ones() -> None:
    features, mean, variance = pictures(), torch.zeros(2).double(), torch.ones(2).double()
    expected_mean, expected_variance = mean.clone(), variance.clone()
    expected = functional.batch_norm(features, expected_mean, expected_variance, training=True)
    with Lean():
        found = functional.batch_norm(features, mean, variance, training=True)
    assert torch.equal(found, expected)
    assert torch.equal(mean, expected_mean)
    assert torch.equal(variance, expected_variance)


def test_less_is_kept_for_the_backward_pass() -> None:
    model, images = network(), pictures()

    def kept() -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(images.clone().requires_grad_())
        return sum(sizes.values())

    plain = kept()
    with Lean():
        lean = kept()
    inputs_of_norms = 3 * (5 * 6 * 5 + 6 * 4 * 3)
    assert plain - lean >= inputs_of_norms - 64  # the factors and shifts are few


@pytest.mark.parametrize("name", ["saliency", "integrated-gradients"])
def test_explanations_are_the_same_as_by_hand(name: str) -> None:
    model, images = network(), pictures()
    (found,) = pellucid.explain(model, images, name, target=1).maps.values()
    if name == "saliency":
        expected = slopes(model, images)[1].abs().amax(dim=1)
    else:
        places, weights = np.polynomial.legendre.leggauss(50)
        total = sum(w / 2 * slopes(model, (p + 1) / 2 * images)[1] for p, w in zip(places, weights, strict=True))
        expected = (images * total).sum(dim=1)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
