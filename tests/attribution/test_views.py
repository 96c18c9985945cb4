"""Views: mirrored, zoomed, noisy and cropped images, whose maps come back to the image and are averaged."""

from __future__ import annotations

from collections.abc import Callable

import monai.inferers
import pytest
import torch
from torch import Tensor, nn

from pellucid.attribution import Flips, Noise, Scales, Window, at, explain, method
from pellucid.attribution.asking import generator_of
from pellucid.attribution.views import (
    Both,
    Cropped,
    Mirrored,
    Noisy,
    Plain,
    View,
    Views,
    Zoomed,
    blending_weights,
    combined,
    smoothing_views,
)
from pellucid.errors import InputError, UnknownNameError
from references.cam_networks import affine_net, deep_head_net, seeded

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")  # of networks this small

SHAPES = [(12, 10), (8, 6, 10)]
NONE = torch.zeros(0)


def smooth_images(count: int, shape: tuple[int, ...]) -> Tensor:
    """Images that change little from pixel to pixel, each channel another way."""
    axes = [torch.linspace(0, 1.5 + 0.3 * axis, length) for axis, length in enumerate(shape)]
    field = sum(grid.sin() for grid in torch.meshgrid(*axes, indexing="ij"))
    scale = torch.arange(1.0, 2 * count + 1).reshape(count, 2, *(1,) * len(shape))
    return scale * field


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("build", [lambda s: Plain(s), lambda s: Mirrored(s, (0, 1)), lambda s: Noisy(s, 0.0, 3)])
def test_maps_come_back_to_where_they_were(shape: tuple[int, ...], build: Callable[[tuple[int, ...]], View]) -> None:
    images = torch.rand(3, 2, *shape)
    view = build(shape)
    maps, weight = view.back(view.of(images, torch.arange(3)))
    torch.testing.assert_close(maps, images)
    assert torch.equal(weight, torch.ones(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_zoomed_map_comes_back_to_within_the_resampling(shape: tuple[int, ...], factor: float) -> None:
    images = smooth_images(2, shape)
    view = Zoomed(shape, factor)
    maps, weight = view.back(view.of(images, NONE))
    assert weight.shape == shape
    if factor < 1:
        assert weight.all()  # all of the image is in the frame
    else:
        assert 0 < weight.mean() < 1
        reached = 1
        for length in shape:
            places = ((torch.arange(length) + 0.5) / length - 0.5).abs()
            reached = reached * int((places < 0.5 / factor - 1e-6).sum())
        assert int((weight > 0).sum()) == reached
        middle = weight[tuple(length // 2 for length in shape)]
        assert middle == weight.max() == 1
        assert (weight.diff(dim=0).abs() < 0.9).all()  # no edge
    inner = tuple(slice(2, -2) for _ in shape)
    inside = weight[inner].bool()
    difference = (maps - images)[:, :, *inner][..., inside].abs().max()
    assert difference < 0.05 * images.abs().max()
    assert Zoomed(shape, 1.25).of(images, NONE).std() != images.std()


def test_zooming_moves_the_content_away_from_the_centre() -> None:
    image = torch.zeros(1, 1, 1, 9)
    image[..., 6] = 1  # two pixels right of the centre
    seen = Zoomed((1, 9), 1.5).of(image, NONE)
    assert int(seen.argmax()) == 7  # three pixels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
def test_windows_hold_every_place_and_their_maps_blend_to_the_whole(shape: tuple[int, ...], blending: str) -> None:
    images = torch.rand(2, 3, *shape)
    total, weights = torch.zeros_like(images), torch.zeros(shape)
    views = Window(5, overlap=0.4, blending=blending).views(shape)
    for view in views:
        part = view.of(images, NONE)
        assert part.shape[2:] == (5,) * len(shape)
        maps, weight = view.back(part)
        total, weights = total + maps * weight, weights + weight
    assert weights.min() > 0
    torch.testing.assert_close(total / weights, images)
    assert len(Window(shape).views(shape)) == 1


def test_weights_fall_from_a_windows_middle_to_its_border() -> None:
    weights = blending_weights([8, 16], "gaussian")
    assert weights.argmax() in (3 * 16 + 7, 3 * 16 + 8, 4 * 16 + 7, 4 * 16 + 8)
    torch.testing.assert_close(weights, weights.flip(0, 1))
    torch.testing.assert_close(weights[4, 8], torch.tensor(-0.5 * (0.5**2 + 0.25**2)).exp())  # half a pixel off
    assert weights.min() == pytest.approx(1e-3)
    assert torch.equal(blending_weights([3], "constant"), torch.ones(3))


def test_a_view_of_a_view_goes_both_ways() -> None:
    images = torch.rand(1, 1, 6, 6)
    outer, inner = Cropped((6, 6), (2, 1), (4, 4), "constant"), Mirrored((4, 4), (1,))
    both = Both(outer, inner)
    assert torch.equal(both.of(images, NONE), images[..., 2:6, 1:5].flip(-1))
    maps, weight = both.back(both.of(images, NONE))
    assert torch.equal(maps * weight, images * weight)
    assert (int(weight.sum()), weight[0, 0]) == (16, 0)
    assert combined([Plain((4, 4))], [inner]) == [inner]
    assert combined([outer], [Plain((4, 4))]) == [outer]


@pytest.mark.parametrize("axes", [2, 3])
def test_smoothing_by_flips_is_the_mean_over_them_for_every_family(axes: int) -> None:
    model = seeded(affine_net(axes=axes))
    images = torch.randn(3, 1, *(14, 16, 12)[:axes], generator=torch.Generator().manual_seed(1))
    smooth = Flips(axes=(0, -1))
    chosen = ["grad-cam", "ablation-cam", "saliency", method("occlusion", window=4)]
    labels = [method(c, smooth=smooth) if isinstance(c, str) else method("occlusion", window=4, smooth=smooth)
              for c in chosen]  # fmt: skip
    whole = explain(model, images, labels, layer="2", batch_size=2)
    plain = explain(model, images, chosen, layer="2")
    assert torch.equal(whole.target, plain.target)
    torch.testing.assert_close(whole.score, plain.score)
    torch.testing.assert_close(whole.probability, plain.probability)
    flips = [(), (0,), (axes - 1,), (0, axes - 1)]
    for label, name in zip(whole.maps, plain.maps, strict=True):
        expected = torch.zeros_like(images[:, 0])
        for each in flips:
            turn = [axis - axes for axis in each]
            other = explain(model, images.flip(turn), chosen, layer="2", target=plain.target)
            expected += other.maps[name].flip(turn) / 4
        torch.testing.assert_close(whole.maps[label], expected, rtol=1e-4, atol=1e-5)
    assert not whole.layer_maps
    assert whole.grid == plain.grid


def test_plain_and_smoothed_methods_go_together_in_the_order_asked() -> None:
    model, images = seeded(affine_net()), torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    chosen = [method("grad-cam", smooth="flips"), "sobel", "grad-cam", method("saliency", smooth="noise")]
    together = explain(model, images, chosen, layer=["0", "2"], target="all")
    assert tuple(together.maps) == (
        "grad-cam[smooth=flips]@0", "sobel", "grad-cam@0", "saliency[smooth=noise]", "grad-cam[smooth=flips]@2",
        "grad-cam@2",
    )  # fmt: skip
    assert tuple(together.layer_maps) == ("grad-cam@0", "grad-cam@2")
    assert set(together.seconds) == {"forward", *together.maps}
    alone = explain(model, images, "grad-cam", layer="2", target="all")
    assert torch.equal(together.maps["grad-cam@2"], alone.maps["grad-cam"])
    assert together.maps["grad-cam[smooth=flips]@2"].shape == (4, 3, 16, 16)


def test_smoothing_by_noise_is_the_mean_over_drawn_copies() -> None:
    model, images = seeded(deep_head_net()), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    smooth = Noise(samples=3, deviation=0.2)
    whole = explain(model, images, method("layer-cam", smooth=smooth), layer="1", target=1)
    again = explain(model, images, method("layer-cam", smooth=smooth), layer="1", target=1, batch_size=1)
    (maps,) = whole.maps.values()
    torch.testing.assert_close(again[f"layer-cam[smooth={smooth}]"], maps, rtol=1e-5, atol=1e-6)
    fields = [torch.randn(1, 8, 8, generator=generator_of(7 ^ 0x51ED2701, number)) for number in range(3)]
    spread = 0.2 * (images[0].max() - images[0].min())
    for number, view in enumerate(smooth.views((8, 8))):
        torch.testing.assert_close(view.of(images[:1], torch.tensor([7])), images[:1] + spread * fields[number])
    still = explain(model, images, method("layer-cam", smooth=Noise(2, 0.0)), layer="1", target=1)
    torch.testing.assert_close(
        next(iter(still.maps.values())), explain(model, images, "layer-cam", layer="1", target=1).maps["layer-cam"]
    )


def test_scales_are_found_again_in_the_map() -> None:
    """A network that looks at one pixel's value: its saliency stays where that pixel is, blurred by the resampling."""

    class Bright(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            flat = images.flatten(1)
            return torch.stack([(8 * flat).softmax(dim=1).mul(flat).sum(dim=1), flat.mean(dim=1)], dim=1)

    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 4, 9] = 3.0
    for smooth in ("scales", Scales((0.7, 1.3)), "flips+scales"):
        (maps,) = explain(Bright(), image, method("input-x-gradient", smooth=smooth), target=0).maps.values()
        assert divmod(int(maps[0].argmax()), 15) == (4, 9)
    assert len(smoothing_views("flips+scales", (8, 8))) == 6


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
def test_windows_blend_as_monais_sliding_window_does(axes: int, blending: str) -> None:
    model = seeded(affine_net(axes=axes))
    images = torch.randn(2, 1, *(20, 26, 16)[:axes], generator=torch.Generator().manual_seed(1))
    size = (8, 12, 8)[:axes]
    ours = explain(model, images, ["saliency", "layer-cam"], target=1, layer="2", window=Window(size, 0.5, blending))

    for name in ("saliency", "layer-cam"):

        def predict(part: Tensor, name: str = name) -> Tensor:
            return explain(model, part, name, target=1, layer="2").maps[name].unsqueeze(1)

        theirs = monai.inferers.sliding_window_inference(images, size, 3, predict, overlap=0.5, mode=blending)
        torch.testing.assert_close(ours.maps[name], theirs[:, 0], rtol=1e-4, atol=1e-6)


def test_all_windows_explain_the_class_of_their_mean() -> None:
    model = seeded(affine_net())
    images = torch.randn(3, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    found = explain(model, images, "saliency", window=(16, 16), batch_size=2)
    with torch.no_grad():
        logits = (model(images[..., :16]) + model(images[..., 8:])) / 2
    assert torch.equal(found.target, logits.argmax(dim=1))
    torch.testing.assert_close(found.score, logits.amax(dim=1))
    torch.testing.assert_close(found.probability, logits.softmax(dim=1).amax(dim=1))
    named = explain(model, images, "saliency", window=(16, 16), target=found.target)
    torch.testing.assert_close(named.maps["saliency"], found.maps["saliency"])
    read = explain(model, images, "saliency", window=(16, 16), target=lambda out: out[:, 1])
    by_index = explain(model, images, "saliency", window=(16, 16), target=1)
    torch.testing.assert_close(read.maps["saliency"], by_index.maps["saliency"])
    torch.testing.assert_close(read.score, by_index.score)
    assert (read.target == -1).all()
    both = explain(model, images, method("saliency", smooth="flips"), window=(16, 16), target=1)
    hand = explain(model, images.flip(-1), "saliency", window=(16, 16), target=1).maps["saliency"].flip(-1)
    torch.testing.assert_close(both["saliency[smooth=flips]"], (by_index.maps["saliency"] + hand) / 2)


def test_windows_of_a_network_that_gives_more_than_logits() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = seeded(affine_net())

        def forward(self, images: Tensor) -> dict[str, object]:
            return {"logits": self.inner(images), "hidden": (images.mean(), None)}

    model = Several()
    images = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    found = explain(model, images, "saliency", window=(16, 16), target=at("logits"))
    plain = explain(model.inner, images, "saliency", window=(16, 16))
    torch.testing.assert_close(found.maps["saliency"], plain.maps["saliency"])
    torch.testing.assert_close(found.score, plain.score)
    assert torch.equal(found.target, plain.target)


def test_a_window_serves_a_network_of_a_fixed_size() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))  # 8 × 8 alone
    images = torch.rand(2, 1, 20, 14)
    maps = explain(model, images, ["saliency", "random"], window=8).maps
    assert maps["saliency"].shape == maps["random"].shape == (2, 20, 14)
    assert maps["saliency"].min() > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 40}, r"window: expected 1 to \(16, 16\) pixels along the axes, got 40"),
        ({"window": (8, 8, 8)}, "window: expected 1 to"),
        ({"window": Window(8, overlap=1.0)}, r"window: expected an overlap of at least 0, below 1, got 1\.0"),
        ({"window": Window(8, blending="linear")}, "window: expected 'gaussian' or 'constant' blending, got 'linear'"),
        ({"methods": method("grad-cam", smooth=3)}, "smooth: expected 'flips', 'scales', 'noise' or .*, got 3"),
        ({"methods": method("grad-cam", smooth=Flips((2,)))}, r"smooth: expected different axes from -2 to 1"),
        ({"methods": method("grad-cam", smooth=Flips((0, 0)))}, r"smooth: expected different axes"),
        ({"methods": method("grad-cam", smooth=Scales(()))}, "smooth: expected factors from"),
        ({"methods": method("grad-cam", smooth=Scales((1.5, 2.0)))}, "one of them at most 1"),
        ({"methods": method("grad-cam", smooth=Noise(0))}, "smooth: expected at least 1 sample"),
    ],
)
def test_views_that_cant_be_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(seeded(affine_net()), torch.rand(1, 1, 16, 16), **({"methods": "grad-cam", "layer": "2"} | given))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown smooth 'flip'. Did you mean 'flips'"):
        explain(seeded(affine_net()), torch.rand(1, 1, 16, 16), method("grad-cam", smooth="flip"))
    with pytest.raises(UnknownNameError, match="unknown option of method 'grad-cam' 'smoth'. Did you mean 'smooth'"):
        method("grad-cam", smoth="flips")


def test_the_first_window_is_the_sample_that_layers_are_found_on() -> None:
    views = Views.over((10, 12), 8)
    assert views.sample(torch.rand(2, 1, 10, 12)).shape == (2, 1, 8, 8)
    assert Views.over((10, 12), None).sample(torch.rand(2, 1, 10, 12)).shape == (2, 1, 10, 12)
