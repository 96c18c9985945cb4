"""Several layers: side by side, or fused into one map."""

from __future__ import annotations

import pytest
import torch

from pellucid.attribution import explain, method
from pellucid.attribution.merging import fused_maps
from pellucid.errors import InputError
from references.cam_networks import affine_net, seeded

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")


@pytest.mark.parametrize("axes", [2, 3])
def test_fused_maps_are_the_layers_own_after_scaling(axes: int) -> None:
    model = seeded(affine_net(axes=axes))
    images = torch.randn(3, 1, *(16, 18, 14)[:axes], generator=torch.Generator().manual_seed(1))
    chosen = ["layer-cam", "sobel", method("grad-cam", positive=False), "saliency"]
    apart = explain(model, images, chosen, layer=["0", "2"], target="all")
    scaled = {}
    for name in ("layer-cam", "grad-cam[positive=False]"):
        for layer in ("0", "2"):
            maps = apart.maps[f"{name}@{layer}"]
            largest = maps.abs().flatten(2).amax(dim=2).reshape(3, 3, *(1,) * axes)
            scaled[name, layer] = maps / largest.clamp(min=1e-30)
    for how in ("mean", "max"):
        together = explain(model, images, chosen, layer=["0", "2"], fuse=how, target="all", batch_size=2)
        assert tuple(together.maps) == ("layer-cam", "sobel", "grad-cam[positive=False]", "saliency")
        assert (together.layer, together.grid, together.coinciding) == ("0, 2", (8, 9, 7)[:axes], ())
        assert not together.layer_maps
        torch.testing.assert_close(together.maps["saliency"], apart.maps["saliency"])
        for name in ("layer-cam", "grad-cam[positive=False]"):
            first, second = scaled[name, "0"], scaled[name, "2"]
            larger = torch.where(first.abs() >= second.abs(), first, second)
            expected = (first + second) / 2 if how == "mean" else larger
            torch.testing.assert_close(together.maps[name], expected, rtol=1e-4, atol=1e-5)
    assert together.maps["grad-cam[positive=False]"].min() < 0


def test_an_empty_map_stays_empty_and_takes_no_part_in_the_largest() -> None:
    empty, other = torch.zeros(1, 2, 2), torch.tensor([[[0.0, -4.0], [2.0, 0.0]]])
    assert torch.equal(fused_maps([empty, empty], "mean", 2), empty)
    assert torch.equal(fused_maps([empty, other], "max", 2), other / 4)
    assert torch.equal(fused_maps([empty, other], "mean", 2), other / 8)


def test_fusing_and_smoothing_go_together() -> None:
    model, images = seeded(affine_net()), torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    smooth = method("grad-cam", smooth="flips")
    both = explain(model, images, smooth, layer=["0", "2"], fuse="mean", target=0)
    apart = explain(model, images, smooth, layer=["0", "2"], target=0)
    torch.testing.assert_close(both.maps[smooth.label], fused_maps(list(apart.maps.values()), "mean", 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fuse": "sum", "layer": ["0", "2"]}, "fuse: expected 'mean', 'max' or None, got 'sum'"),
        ({"fuse": "mean", "layer": "2"}, "fuse: expected several layers to fuse, got one. Pass layer= a list"),
        ({"fuse": "mean", "layer": ["2"]}, "fuse: expected several layers to fuse"),
        ({"fuse": "mean", "layer": ["0", "2"], "methods": "sobel"}, "fuse: expected a method whose map is made at a"),
    ],
)
def test_what_cant_be_fused_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(seeded(affine_net()), torch.rand(1, 1, 16, 16), **({"methods": "grad-cam"} | given))
