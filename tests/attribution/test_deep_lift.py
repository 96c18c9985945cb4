"""DeepLIFT against a slow version from its paper, analytic cases and Captum."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.errors import InputError
from references.rewriting_networks import RECTIFIED, Small, explained, layers, pictures, small, state


def lifted(model: nn.Module, images: Tensor, target: object = 1, batch_size: int = 32, **options: object) -> Tensor:
    choice = pellucid.method("deep-lift", **({"channels": "keep"} | options))
    (found,) = explained(model, images, choice, target=target, batch_size=batch_size).values()
    return found


def rise(model: nn.Module, images: Tensor, baseline: float) -> Tensor:
    with torch.no_grad():
        return model(images) - model(torch.full_like(images, baseline))


def slow(model: Small, image: Tensor, baseline: float, target: int) -> Tensor:
    """The paper's chain rule for multipliers (eq. 3), value by value, one layer after another, in float64."""
    steps = [layer.double() for layer in layers(model)]
    at, start = [image.double().unsqueeze(0)], [torch.full_like(image, baseline).double().unsqueeze(0)]
    for layer in steps:
        at.append(layer(at[-1]).detach())
        start.append(layer(start[-1]).detach())
    multiplier = nn.functional.one_hot(torch.tensor([target]), 3).double()
    for layer, x, x0, y, y0 in zip(steps[::-1], at[-2::-1], start[-2::-1], at[:0:-1], start[:0:-1], strict=True):
        if isinstance(layer, nn.ReLU):
            for place in range(x.numel()):
                change = x.flatten()[place] - x0.flatten()[place]
                out = y.flatten()[place] - y0.flatten()[place]
                multiplier.view(-1)[place] *= out / change if change != 0 else float(x.flatten()[place] > 0)
        elif isinstance(layer, nn.MaxPool2d | nn.MaxPool3d):
            multiplier = _pooled(x, x0, multiplier)
        else:
            multiplier = torch.autograd.functional.vjp(layer, x, multiplier)[1].contiguous()
    return (multiplier * (at[0] - start[0]))[0].float()


def _pooled(x: Tensor, x0: Tensor, multiplier: Tensor) -> Tensor:
    """Windows of 2 without overlap: the image's largest value and the reference's explain the rise."""
    found = torch.zeros_like(x)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in multiplier.shape)):
        here = (int(place[0]), int(place[1]), *(slice(2 * int(p), 2 * int(p) + 2) for p in place[2:]))
        a, b = x[here].flatten(), x0[here].flatten()
        i, j = int(a.argmax()), int(b.argmax())
        share = torch.zeros_like(a)
        if a[i] > b[j]:
            share[i] = (a[i] - b[j]) / (a[i] - b[i])
        elif a[i] < b[j]:
            share[j] = (a[i] - b[j]) / (a[j] - b[j])
        found[here] = (share * multiplier[tuple(place)]).reshape(x[here].shape)
    return found


@pytest.mark.parametrize("relu", RECTIFIED)
@pytest.mark.parametrize("axes", [2, 3])
def test_each_way_of_writing_a_relu_gives_the_papers_map(axes: int, relu: str) -> None:
    images = pictures(2, axes)
    found = lifted(small(axes, relu), images, baseline=0.2)
    for i, image in enumerate(images):
        torch.testing.assert_close(found[i], slow(small(axes), image, 0.2, 1), rtol=1e-3, atol=1e-6)


class Gated(nn.Module):
    """A convolution, a gate over its channels, overlapping pools, a residual addition and attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.gate, self.again = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 4), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.conv(x))
        x = x * self.gate(x.mean(dim=(2, 3))).sigmoid()[:, :, None, None]
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        x = x + nn.functional.silu(self.norm(self.again(x)))
        tokens = x.flatten(2)
        tokens = tokens @ (tokens.transpose(1, 2) @ tokens).tanh()
        return self.last(tokens.mean(dim=2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("baseline", [0.0, -0.7])
def test_the_map_sums_to_the_rise_of_the_score(baseline: float) -> None:
    images = pictures(4)
    for model in (small(), Gated()):
        found = lifted(model, images, "all", baseline=baseline)
        torch.testing.assert_close(found.sum(dim=(2, 3, 4)), rise(model, images, baseline), rtol=1e-4, atol=1e-5)


def test_the_map_sums_to_the_rise_on_a_residual_network() -> None:
    import timm

    torch.manual_seed(4)
    model, images = timm.create_model("test_resnet", num_classes=3).eval(), torch.randn(2, 3, 32, 32)
    found = lifted(model, images, "all")
    torch.testing.assert_close(found.sum(dim=(2, 3, 4)), rise(model, images, 0.0), rtol=1e-4, atol=1e-5)


def test_the_papers_saturated_sum() -> None:
    """Shrikumar et al. 2017, figure 1: y = 1 - relu(1 - i1 - i2), whose gradient is 0 at (1, 1)."""

    class Saturated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = 1 - (1 - x.flatten(1).sum(dim=1)).relu()
            return torch.stack([-y, y], dim=1)

    image = torch.ones(1, 1, 1, 2)
    assert explained(Saturated(), image, "saliency", target=1)["saliency"].flatten().tolist() == [0, 0]
    assert lifted(Saturated(), image).flatten().tolist() == [0.5, 0.5]


def test_an_image_equal_to_its_reference_gets_nothing() -> None:
    found = lifted(Gated(), torch.zeros(1, 2, 8, 7))
    assert found.abs().max() == 0
    nearly = lifted(Gated(), torch.full((1, 2, 8, 7), 1e-9))
    assert float(nearly.abs().max()) < 1e-8


def test_neither_the_batch_nor_the_other_classes_matter() -> None:
    images = pictures(5)
    for model in (small(), Gated()):
        whole = lifted(model, images, "all")
        close = {"rtol": 1e-4, "atol": 1e-5 * float(whole.abs().max())}
        torch.testing.assert_close(lifted(model, images, "all", batch_size=3), whole, **close)
        for k in range(3):
            torch.testing.assert_close(lifted(model, images[1:2], k)[0], whole[1, k], **close)


def averaged(relu: str = "module") -> Small:
    model = small(relu=relu)
    model.pool = nn.AvgPool2d(2)
    return model


def captum(model: nn.Module, images: Tensor, baseline: float) -> Tensor:
    attr = pytest.importorskip("captum.attr")
    with warnings.catch_warnings(action="ignore"):
        found: Tensor = attr.DeepLift(model).attribute(images.clone(), baselines=baseline, target=1)
    return found.detach()


def test_captum_agrees_where_each_relu_is_a_module() -> None:
    """Functional ReLUs pass it unseen; it refuses a module used twice, where ours is right."""
    images = pictures()
    ours, theirs = lifted(averaged(), images, baseline=0.2), captum(averaged(), images, 0.2)
    assert float((ours - theirs).abs().max() / ours.abs().max()) < 1e-5
    for relu in ("reused", "functional"):
        torch.testing.assert_close(lifted(averaged(relu), images, baseline=0.2), ours)
    with pytest.raises(RuntimeError, match="used more than once"):
        captum(averaged("reused"), images, 0.2)
    unseen = captum(averaged("functional"), images, 0.2)
    assert float((unseen - ours).abs().max() / ours.abs().max()) > 0.1


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 1)])
def test_captum_does_not_sum_to_the_rise_behind_maximum_pools(window: int, stride: int) -> None:
    torch.manual_seed(8)
    pool = nn.MaxPool2d(window, stride)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(3)).eval()
    images = pictures()
    model(images)
    wanted = rise(model, images, 0.2)[:, 1]
    ours = (lifted(model, images, baseline=0.2).sum(dim=(1, 2, 3)) - wanted).abs()
    theirs = (captum(model, images, 0.2).sum(dim=(1, 2, 3)) - wanted).abs()
    assert float(ours.max()) < 1e-6
    assert float(theirs.max()) > 1e-3


def test_the_model_is_given_back_and_what_has_no_rule_is_named() -> None:
    model, images = Gated(), pictures()
    before = state(model)
    found = lifted(model, images)
    with pytest.raises(InputError, match="baseline"):
        lifted(model, images, baseline=torch.zeros(3, 8, 7))
    assert state(model) == before
    torch.testing.assert_close(lifted(model, images), found)
    for last, said in (
        (nn.Softmax(dim=1), "'deep-lift' has rules for, got Softmax"),
        (nn.LayerNorm(3), "got NativeLayerNorm"),
        (nn.BatchNorm1d(3, track_running_stats=False), "got 'batch_norm'"),
    ):
        with pytest.raises(InputError, match=said):
            lifted(nn.Sequential(small(), last), images)
