"""Feature maps behind an activation that is a function or a module that others share, against one of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attribution import METHODS, explain
from pellucid.errors import InputError, UnknownNameError
from pellucid.models.layers import find_layer
from references.cam_networks import seeded
from references.rewriting_networks import state

CAMS = [entry.name for entry in METHODS if entry.needs[0] == "activations"]


class Net(nn.Module):
    """Two convolutions whose last activation is written in one of several ways, before a mean and a linear layer."""

    def __init__(self, way: str, axes: int = 2) -> None:
        super().__init__()
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        self.first, self.norm = convolution(1, 4, 3), convolution(4, 5, 3)
        self.hidden, self.mid, self.fc, self.way = nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3), way
        kinds = {"gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU}
        kind = kinds.get(way.split()[-1], nn.ReLU)
        self.act = kind() if kind is nn.GELU or "in place" not in way else kind(inplace=True)
        if way.startswith("module"):
            self.last = kind()

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.norm(self.act(self.first(rows)))
        if self.way.startswith("module"):
            rows = self.last(rows)
        elif self.way.startswith("shared"):
            rows = self.act(rows)
        elif self.way == "method in place":
            rows.relu_()
        else:
            name = self.way.split()[-1]
            rows = getattr(functional, name)(rows, **({"inplace": True} if "in place" in self.way else {}))
        return self.fc(self.mid(self.hidden(rows.mean(dim=tuple(range(2, rows.ndim))))))


WAYS = {  # to write it, and as a module
    "function relu": "module relu",
    "function in place relu": "module relu",
    "method in place": "module relu",
    "shared relu": "module relu",
    "shared in place relu": "module relu",
    "function gelu": "module gelu",
    "function in place silu": "module silu",
    "shared elu": "module elu",
}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_maps_are_those_of_a_module_of_its_own(way: str, axes: int) -> None:
    model, plain = (seeded(Net(each, axes)) for each in (way, WAYS[way]))
    images = torch.randn(3, 1, *(14, 13, 12)[:axes], generator=torch.Generator().manual_seed(1))
    before = state(model)
    found = explain(model, images, CAMS, target="all", batch_size=2)
    expected = explain(plain, images, CAMS, target="all", batch_size=2)
    assert (found.layer, expected.layer) == (f"norm:{WAYS[way].split()[1]}", "last")
    assert found.grid == expected.grid
    for name in CAMS:
        torch.testing.assert_close(found.layer_maps[name], expected.layer_maps[name], rtol=1e-4, atol=1e-6, msg=name)
    assert found.layer_maps["layer-cam"].max() > 0
    assert state(model) == before
    named = explain(model, images, "grad-cam", target="all", layer=found.layer)
    torch.testing.assert_close(named.layer_maps["grad-cam"], found.layer_maps["grad-cam"])


def test_the_module_itself_is_still_what_comes_before_the_activation() -> None:
    model = seeded(Net("function in place relu"))
    images = torch.randn(2, 1, 14, 13, generator=torch.Generator().manual_seed(1))
    signed = explain(model, images, "eigen-cam", layer="norm").layer_maps["eigen-cam"]
    active = explain(model, images, "eigen-cam", layer="norm:relu").layer_maps["eigen-cam"]
    assert (signed - active).abs().max() > 1e-3


def test_an_activation_that_does_not_follow_is_refused() -> None:
    model = seeded(Net("function relu"))
    images = torch.randn(1, 1, 14, 13)
    with pytest.raises(InputError, match="layer: expected a layer that runs on these images, got 'norm:gelu', which"):
        explain(model, images, "grad-cam", layer="norm:gelu")
    with pytest.raises(UnknownNameError, match="unknown layer 'form:relu'. .*'auto' takes 'norm:relu'"):
        explain(model, images, "grad-cam", layer="form:relu")
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_whose_modules_all_run_twice_has_none_to_take() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Linear(1, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return self.fc(self.act(self.conv(self.act(self.conv(rows)))).mean(dim=(2, 3)))

    model, images = seeded(Twice()), torch.randn(1, 1, 8, 8)
    assert find_layer(model, images) == "act"
    with pytest.raises(InputError, match="layer: expected a layer that runs once per image, got 'act', which runs ag"):
        explain(model, images, "grad-cam")
