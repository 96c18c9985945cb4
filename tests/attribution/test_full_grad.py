"""FullGrad: its terms add up to the score, and its map is the paper's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import pellucid
from pellucid.attribution.asking import Gradients
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.full_grad import bias_slopes
from pellucid.attribution.targets import Objective


def network(axes: int = 2) -> nn.Module:
    torch.manual_seed(4)
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    )[axes - 2]
    model = nn.Sequential(
        conv(2, 4, 3, padding=1), norm(4), nn.ReLU(inplace=True), conv(4, 5, 3, stride=2, bias=False), norm(5),
        nn.ReLU(inplace=True), pool(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def pictures(axes: int = 2, count: int = 3) -> Tensor:
    return torch.randn(count, 2, *(9, 8, 7)[:axes], generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("axes", [2, 3])
def test_the_terms_add_up_to_the_score(axes: int) -> None:
    model, images = network(axes), pictures(axes)
    everyone = torch.arange(3)
    with borrowed(model), bias_slopes(model) as noted:
        slopes = Gradients(model, Objective(torch.tensor([[0, 2]] * 3)), 8)(images, everyone)
    total = (images.unsqueeze(1) * slopes).flatten(2).sum(dim=2)
    assert len(noted) == 4  # a convolution, two norms, the linear layer
    for entry in noted:
        shares = torch.stack(entry.slopes, dim=1)
        total = total + (shares * entry.bias.reshape(-1, *(1,) * (shares.ndim - 3))).flatten(2).sum(dim=2)
    with torch.no_grad():
        torch.testing.assert_close(total, model(images)[:, [0, 2]])


def slow(model: nn.Module, image: Tensor, wanted: int) -> Tensor:
    """The map of one image (1, C, *S), each bias made an input of its own."""
    modules = list(model)  # type: ignore[call-overload]
    leaf = image.clone().requires_grad_()
    features, terms = leaf, [(leaf, image)]
    for module in modules:
        features = nn.ReLU()(features) if isinstance(module, nn.ReLU) else module(features)
        if isinstance(module, nn.BatchNorm2d):
            shift = module.bias - module.weight * module.running_mean / torch.sqrt(module.running_var + module.eps)
            terms.append((features, shift.detach().reshape(1, -1, 1, 1)))
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            terms.append((features, module.bias.detach().reshape(1, -1, 1, 1)))
    grads = torch.autograd.grad(features[0, wanted], [where for where, _ in terms])
    total = torch.zeros(image.shape[2:])
    for (_, factor), slope in zip(terms, grads, strict=True):
        share = (slope * factor).abs()
        share = (share - share.min()) / (share.max() - share.min())
        total += interpolate(share, size=image.shape[2:], mode="bilinear").sum(dim=(0, 1))
    return total.detach()


def test_the_map_is_the_papers() -> None:
    model, images = network(), pictures()
    found = pellucid.explain(model, images, "fullgrad", target=1, batch_size=2).maps["fullgrad"]
    for i in range(3):
        torch.testing.assert_close(found[i], slow(model, images[i : i + 1], 1))


def test_hooks_are_gone_and_no_bias_is_no_term() -> None:
    model, images = network(), pictures()
    pellucid.explain(model, images, "fullgrad")
    assert not any(module._forward_hooks for module in model.modules())
    bare = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.Flatten(), nn.LazyLinear(2, bias=False))
    bare(images)
    found = pellucid.explain(bare, images, ["fullgrad", pellucid.method("input-x-gradient", channels="keep")], target=0)
    full, product = found.maps.values()
    share = product.abs()
    least, most = share.amin(dim=(1, 2, 3), keepdim=True), share.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(full, ((share - least) / (most - least)).sum(dim=1))
