"""`explain` as a whole: every registered method on small networks, and everything that a caller may do to it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch._dynamo
from torch import Tensor, nn

import pellucid
from pellucid.attribution import METHODS, GridWarning, concatenate, explain, method, resize_maps
from pellucid.attribution.engine import PAPER_METHODS
from pellucid.errors import InputError, PellucidError, UnknownNameError
from references import cam as reference
from references import relevance as relevance_reference
from references.cam_networks import affine_net, deep_head_net, seeded
from references.few_draws import quick

NETS = {
    "affine": (affine_net, "2", (7, 1, 16, 18)),
    "affine 3-D": (lambda: affine_net(axes=3), "2", (7, 1, 14, 16, 14)),
    "deep head": (deep_head_net, "1", (7, 1, 8, 8)),
    "deep head 3-D": (lambda: deep_head_net(axes=3), "1", (7, 1, 8, 8, 8)),
}
# convolutions have no attention, and these networks a single scale
ELSEWHERE = METHODS.names("attention") + METHODS.names("layered-cam")
CHOICES = [quick(entry.name) for entry in METHODS if entry.name not in ELSEWHERE]
EVERY = tuple(choice.label for choice in CHOICES)
CAMS = METHODS.names("cam") + METHODS.names("rescoring-cam")
RIVALLED = ("finer-cam",)  # which compares classes, so that a function can't be its target


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, str, Tensor]:
    build, layer, shape = NETS[request.param]
    return seeded(build()), layer, torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def small() -> tuple[nn.Module, Tensor]:
    return seeded(affine_net()), torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def slow_layer_map(name: str, model: nn.Module, layer: str, image: Tensor, wanted: int) -> np.ndarray:
    activations, gradient, logit = reference.activations_and_gradients(model, layer, image, wanted)
    given = {
        "activations": activations.double().numpy(),
        "gradients": gradient.double().numpy(),
        "scores": np.array([logit]),
    }
    needs = METHODS[name].needs
    if "drops" in needs:
        given["drops"] = reference.channel_drops(model, layer, image, wanted)[None].double().numpy()
    if "curvature" in needs:
        given["curvature"] = reference.hessian_times_activations(model, layer, image, wanted).double().numpy()
    if "relevance" in needs:
        assert isinstance(model, nn.Sequential)
        after = copy.deepcopy(model[int(layer) + 1 :]).double()
        given["relevance"] = relevance_reference.contrastive_relevance(list(after), activations, wanted)[None]
    if "rival gradients" in needs:
        with torch.no_grad():
            rivals = reference.nearest_classes(model(image)[0], wanted, 3)
        each = [reference.activations_and_gradients(model, layer, image, k)[1] for k in rivals]
        given["rival gradients"] = torch.stack(each, dim=1).double().numpy()
    if "masked scores" in needs:
        seen = reference.scores_through_channels(model, activations, image, wanted)
        given["masked scores"] = seen[None].double().numpy()
    return getattr(reference, name.replace("-", "_"))(*(given[need] for need in needs))[0]


@pytest.mark.parametrize("name", CAMS)
def test_every_cam_is_its_papers_on_the_whole_network(name: str, case: tuple[nn.Module, str, Tensor]) -> None:
    model, layer, images = case
    images = images[:3]
    explanation = explain(model, images, name, target="all", layer=layer, batch_size=2)
    with torch.no_grad():
        torch.testing.assert_close(explanation.score, model(images), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(explanation.probability, model(images).softmax(dim=1), rtol=1e-5, atol=1e-6)
    for b in range(3):
        for wanted in range(3):
            slow = slow_layer_map(name, model, layer, images[b : b + 1], wanted)
            ours = explanation.layer_maps[name][b, wanted].numpy()
            np.testing.assert_allclose(ours, slow, atol=1e-4 * max(slow.max(), 1e-3))
    assert explanation.layer_maps[name].max() > 0
    enlarged = resize_maps(explanation.layer_maps[name], images.shape[2:])
    torch.testing.assert_close(explanation.maps[name], enlarged)
    assert explanation.grid == explanation.layer_maps[name].shape[2:]


def test_shapes_types_and_keys(case: tuple[nn.Module, str, Tensor]) -> None:
    model, layer, images = case
    explanation = explain(model, images, CHOICES, layer=layer, batch_size=3)
    assert tuple(explanation.maps) == EVERY
    assert tuple(explanation.layer_maps) == CAMS
    for maps in explanation.maps.values():
        assert (maps.shape, maps.dtype) == ((7, *images.shape[2:]), torch.float32)
        assert not maps.requires_grad
    assert (explanation.target.shape, explanation.target.dtype) == ((7,), torch.int64)
    with torch.no_grad():
        outputs = model(images)
    assert torch.equal(explanation.target, outputs.argmax(dim=1))
    torch.testing.assert_close(explanation.score, outputs.amax(dim=1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(explanation.probability, outputs.softmax(dim=1).amax(dim=1), rtol=1e-5, atol=1e-6)
    assert explanation.layer == layer
    assert set(explanation.seconds) == {"forward", *EVERY}
    assert all(value > 0 for value in explanation.seconds.values())
    everything = explain(model, images, CHOICES, target="all", layer=layer)
    for name, maps in everything.maps.items():
        assert maps.shape == (7, 3, *images.shape[2:])
        own = maps[torch.arange(7), explanation.target]
        torch.testing.assert_close(own, explanation.maps[name], rtol=1e-4, atol=1e-5)


def test_the_same_call_gives_the_same_bytes_and_says_its_seed(small: tuple[nn.Module, Tensor]) -> None:
    first, again = (explain(*small, CHOICES, layer="2") for _ in range(2))
    assert all(torch.equal(first.maps[name], again.maps[name]) for name in EVERY)
    assert first.seed == 0
    other = explain(*small, "random", generator=torch.Generator().manual_seed(5))
    assert other.seed == 5
    assert not torch.equal(other.maps["random"], first.maps["random"])
    assert not torch.equal(first.maps["random"][0], first.maps["random"][1])
    model, images = small
    assert torch.equal(concatenate([other[:3], other[3:]]).seeds, other.seeds)  # type: ignore[arg-type]
    alone = explain(model, images[3:], "random", generator=other[3:].seeds)
    assert torch.equal(alone.maps["random"], other.maps["random"][3:])


def test_methods_that_coincide_on_this_network_are_named(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    explanation = explain(model, images, ["grad-cam", *PAPER_METHODS], layer="2")
    assert ("grad-cam", "xgrad-cam") in explanation.coinciding
    assert explain(seeded(deep_head_net()), images[:, :, :8, :8], PAPER_METHODS, layer="1").coinciding == ()


def test_shapley_cam_is_grad_cam_where_the_score_is_linear_piece_by_piece(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    both = ["grad-cam", "shapley-cam"]
    assert explain(model, images, both, layer="2").coinciding == (tuple(both),)
    assert explain(seeded(deep_head_net()), images[:, :, :8, :8], both, layer="1").coinciding == (tuple(both),)
    bent = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    bent(images)
    assert explain(seeded(bent), images, both, layer="1").coinciding == ()


@pytest.mark.parametrize("target", [1, torch.tensor([2, 0, 1, 1, 0])])
def test_a_class_may_be_named_for_all_or_for_each(small: tuple[nn.Module, Tensor], target: int | Tensor) -> None:
    model, images = small
    explanation = explain(model, images, "grad-cam", target=target, layer="2", batch_size=2)
    every = explain(model, images, "grad-cam", target="all", layer="2")
    classes = target if isinstance(target, Tensor) else torch.full((5,), target)
    assert torch.equal(explanation.target, classes)
    torch.testing.assert_close(explanation.maps["grad-cam"], every.maps["grad-cam"][torch.arange(5), classes])


def test_a_function_of_the_output_is_explained(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    names = [name for name in CAMS if name not in RIVALLED]
    explanation = explain(model, images, names, target=lambda outputs: outputs[:, 2], layer="2")
    by_index = explain(model, images, names, target=2, layer="2")
    against = explain(model, images, "relevance-cam", target=lambda x: x[:, 2] - (x[:, 0] + x[:, 1]) / 2, layer="2")
    for name in names:  # relevance-cam sets a class against the others, where it knows them
        found = against if name == "relevance-cam" else explanation
        torch.testing.assert_close(found.maps[name], by_index.maps[name])
    assert (explanation.target == -1).all()
    assert explanation.probability.isnan().all()
    torch.testing.assert_close(explanation.score, by_index.score)


@pytest.mark.parametrize("squeezed", [True, False])
def test_a_single_logit_is_explained_as_two_classes(squeezed: bool) -> None:
    model = seeded(affine_net(classes=1))
    if squeezed:
        model.append(nn.Flatten(0))
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logit = model(images).flatten()
    assert (logit > 0).any()
    assert (logit < 0).any()
    explanation = explain(model, images, CAMS, layer="2")
    assert torch.equal(explanation.target, (logit > 0).long())
    torch.testing.assert_close(explanation.score, logit.abs())
    torch.testing.assert_close(explanation.probability, logit.abs().sigmoid())
    signed = [explain(model, images, method("grad-cam", positive=False), target=k, layer="2") for k in (0, 1)]
    name = "grad-cam[positive=False]"
    torch.testing.assert_close(signed[0].maps[name], -signed[1].maps[name])


def test_rivals_are_the_classes_with_the_nearest_logits_or_all_there_are() -> None:
    model = seeded(affine_net(classes=6))
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(images)
    counts = [1, 2, 5, 50]
    choices = [method("finer-cam", rivals=count, strength=0.7) for count in counts]
    maps = explain(model, images, choices, target="all", layer="2").layer_maps.values()
    for count, values in zip(counts, maps, strict=True):
        for b, wanted in [(0, 0), (1, 4), (3, 5)]:
            classes = [wanted, *reference.nearest_classes(logits[b], wanted, count)]
            assert len(classes) == min(count, 5) + 1
            found = [reference.activations_and_gradients(model, "2", images[b : b + 1], k)[:2] for k in classes]
            activations, own = (each.double().numpy() for each in found[0])
            others = torch.stack([slopes for _, slopes in found[1:]], dim=1).double().numpy()
            slow = reference.finer_cam(activations, own, others, 0.7, count)[0]
            np.testing.assert_allclose(values[b, wanted].numpy(), slow, atol=1e-5 * max(slow.max(), 1e-2))


@pytest.mark.parametrize("classes", [1, 2])
def test_finer_cam_of_one_logit_or_two_classes_sets_each_apart_from_the_other(classes: int) -> None:
    model = seeded(affine_net(classes=classes))
    images = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    both = [method(name, positive=False) for name in ("finer-cam", "grad-cam")]
    finer, plain = explain(model, images, both, target="all", layer="2").layer_maps.values()
    torch.testing.assert_close(finer, plain - 0.6 * plain.flip(1))
    assert finer.abs().max() > 0
    if classes == 1:  # its two classes are z and -z
        torch.testing.assert_close(finer, 1.6 * plain)


def test_finer_cam_refuses_a_function_which_has_no_rivals(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    with pytest.raises(InputError, match=r"target: expected classes, .*, got a function\. Methods with rivals"):
        explain(model, images, ["grad-cam", "finer-cam"], target=lambda outputs: outputs[:, 0], layer="2")


def snapshot(model: nn.Module) -> list[object]:
    return [
        [module.training for module in model.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in m.__dict__) for m in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist(), p._version) for p in model.parameters()],
        {name: value.tolist() for name, value in model.state_dict().items()},
    ]


def test_images_are_left_alone_and_may_lie_in_any_layout(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    images = torch.cat([images, images], dim=3)[:, :, :, ::2]
    kept = images.clone()
    plain = explain(model, kept, CAMS, layer="2")
    strided = explain(model, images, CAMS, layer="2")
    assert torch.equal(images, kept)
    for name in CAMS:
        torch.testing.assert_close(strided.maps[name], plain.maps[name])


def test_the_layer_may_be_named_given_found_or_several(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    named = explain(model, images, ["grad-cam", "sobel"], layer="2")
    for layer in (model[2], "auto"):
        again = explain(model, images, ["grad-cam", "sobel"], layer=layer)
        assert again.layer == "2"
        assert torch.equal(again.maps["grad-cam"], named.maps["grad-cam"])
    several = explain(model, images, ["grad-cam", "xgrad-cam", "sobel"], layer=("0", model[2]))
    assert tuple(several.maps) == ("grad-cam@0", "xgrad-cam@0", "sobel", "grad-cam@2", "xgrad-cam@2")
    assert tuple(several.layer_maps) == ("grad-cam@0", "xgrad-cam@0", "grad-cam@2", "xgrad-cam@2")
    assert torch.equal(several.maps["grad-cam@2"], named.maps["grad-cam"])
    assert several.layer == "0, 2"
    assert ("grad-cam@2", "xgrad-cam@2") in several.coinciding
    assert set(several.seconds) == {"forward", *several.maps}


def test_controls_alone_need_no_layer() -> None:
    tokens = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    explanation = explain(tokens, torch.rand(2, 1, 8, 8), METHODS.names("control"))
    assert (explanation.layer, explanation.grid, dict(explanation.layer_maps)) == ("", (), {})
    assert explanation.score.shape == (2,)


def test_options_are_part_of_the_label(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    signed = method("layer-cam", positive=False)
    explanation = explain(model, images, ["layer-cam", signed, method("ablation-cam", relative=False)], layer="0")
    assert tuple(explanation.maps) == ("layer-cam", "layer-cam[positive=False]", "ablation-cam[relative=False]")
    assert explanation.layer_maps["layer-cam[positive=False]"].min() < 0
    torch.testing.assert_close(
        explanation.layer_maps["layer-cam[positive=False]"].relu(), explanation.layer_maps["layer-cam"]
    )


def test_negatives_are_cut_before_the_resize(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    signed = explain(model, images, method("grad-cam", positive=False), layer="0").layer_maps[
        "grad-cam[positive=False]"
    ]
    assert signed.min() < 0 < signed.max()
    maps = explain(model, images, "grad-cam", layer="0").maps["grad-cam"]
    torch.testing.assert_close(maps, resize_maps(signed.relu(), (16, 16)))


def test_a_coarse_grid_is_warned_of_by_a_category_of_its_own() -> None:
    model, images = seeded(affine_net()), torch.rand(1, 1, 12, 16)
    with pytest.warns(GridWarning, match=r"'2' has a grid of 6 × 8, so that maps are coarse\."):
        explain(model, images, "grad-cam", layer="2")
    with warnings.catch_warnings(action="ignore", category=GridWarning):
        assert explain(model, images, "grad-cam", layer="2").grid == (6, 8)


def test_progress_goes_to_standard_error(small: tuple[nn.Module, Tensor], capsys: pytest.CaptureFixture[str]) -> None:
    explain(*small, "grad-cam", layer="2", progress=True)
    assert capsys.readouterr().out == ""


def test_progress_names_the_method_and_how_many_rows_it_has_asked_for(
    small: tuple[nn.Module, Tensor], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid.progress.PLAIN_LINE_EVERY_SECONDS", 0.0)
    explain(*small, ["grad-cam", method("rise", samples=9)], layer="2", batch_size=5, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Explaining: 0/5, ")
    assert lines[0].endswith("grad-cam")
    told = [line.rpartition(", ")[2] for line in lines if "rise[samples=9]" in line and "rows" in line]
    assert told == ["5 rows", *(f"{rows} of 50 rows" for rows in range(10, 50, 5))]  # the whole images first
    done = [line.partition("/")[0] for line in lines if "of 50 rows" in line]
    assert done == [f"Explaining: {images}" for images in (3, 3, 3, 3, 4, 4, 4, 4)]  # the CAM is half of it


@pytest.mark.parametrize(
    "asked",
    [
        {"methods": ["grad-cam", "occlusion", "smooth-grad", "score-cam", "lime", "deep-lift"]},
        {"methods": ["grad-cam", method("rise", samples=7)], "layer": ["0", "2"], "batch_size": 2},
        {"methods": [method("grad-cam", smooth="flips"), "feature-ablation"], "target": "all"},
        {"methods": [method("rise", samples=7), "saliency"], "window": 12},
        {"methods": [method("rise", samples=7), "random"], "compile": True},
    ],
)
def test_a_listener_hears_of_each_image_once_in_all(small: tuple[nn.Module, Tensor], asked: dict[str, Any]) -> None:
    heard: list[float] = []
    with warnings.catch_warnings(action="ignore"):  # of coarse grids, and torch's own while it compiles
        explain(*small, **({"layer": "2"} | asked), progress=lambda steps=1, note="": heard.append(steps))
    assert sum(heard) == pytest.approx(len(small[1]))
    assert min(heard) >= 0
    assert max(heard) < len(small[1])


@pytest.mark.parametrize("axes", [2, 3])
def test_methods_add_no_runs_of_the_network_to_those_they_ask_for(axes: int) -> None:
    model = seeded(affine_net(axes=axes))
    images = torch.randn(4, 1, *(16,) * axes, generator=torch.Generator().manual_seed(1))
    rows: list[int] = []
    with_hook = model.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    explain(model, images, ["saliency", "input-x-gradient", "random"], target=0, batch_size=2)
    assert rows == [2] * 6  # of each batch its scores, and the gradients that each of two methods asks for
    with_hook.remove()


def test_wrong_channels_are_told_of_where_views_come_first(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    with pytest.raises(InputError, match="images: expected 1 channels, as .* got 3, shape"):
        explain(model, images.expand(5, 3, 16, 16), method("saliency", smooth="flips"))


def bad_calls() -> Iterator[tuple[str, dict[str, object], str]]:
    images = torch.rand(2, 1, 16, 16)
    nan = images.clone()
    nan[1, 0, 3, 3] = torch.nan
    yield "no tensor", {"images": [[1.0]]}, r"images: expected a tensor \(B, C, \*S\), got list"
    yield "one image", {"images": images[0]}, r"images: expected \(B, C, H, W\) or .*, got shape \(1, 16, 16\)"
    yield "none", {"images": images[:0]}, "images: expected at least one image and pixel"
    yield (
        "whole numbers",
        {"images": images.long()},
        "images: expected the weights' dtype torch.float32, got torch.int64",
    )
    yield "double", {"images": images.double()}, "images: expected the weights' dtype torch.float32, got torch.float64"
    yield "volume", {"images": images[:, :, None]}, r"images: expected 2 spatial axes.*got shape \(2, 1, 1, 16, 16\)"
    yield "colour", {"images": images.expand(2, 3, 16, 16)}, "images: expected 1 channels, as .* got 3, shape"
    yield "missing", {"images": nan}, "images: expected finite values, got infinite or missing ones for the images at 1"
    yield "class", {"target": 3}, "target: expected classes from 0 to 2, got 3"
    yield "target", {"target": "best"}, "target: expected 'predicted'"
    yield "no method", {"methods": []}, "methods: expected at least one, each once, got none"
    yield "twice", {"methods": ["sobel", "sobel"]}, "methods: expected at least one, each once, got sobel, sobel"
    yield "batch", {"batch_size": 0}, "batch_size: expected at least 1, got 0"
    yield "no layer", {"layer": []}, "layer: expected at least one, each once, got none"
    yield "layer twice", {"layer": ["2", "auto"]}, "layer: expected at least one, each once, got 2, 2"
    yield "stranger", {"layer": nn.ReLU()}, "layer: expected a module inside the model, got ReLU"
    yield "flat", {"layer": "4"}, "got '4' with output shape"


@pytest.mark.parametrize(("given", "message"), [pytest.param(*call[1:], id=call[0]) for call in bad_calls()])
def test_bad_input_is_refused_in_words(given: dict[str, object], message: str) -> None:
    model = seeded(affine_net())
    call = {"images": torch.rand(2, 1, 16, 16), "methods": ["grad-cam", "ablation-cam"], "layer": "2"} | given
    before = snapshot(model)
    with pytest.raises(InputError, match=message):
        explain(model, **call)
    assert snapshot(model) == before


def test_unknown_names_suggest_the_nearest(small: tuple[nn.Module, Tensor]) -> None:
    with pytest.raises(UnknownNameError, match="unknown method 'gradcam'. Did you mean 'grad-cam'"):
        explain(*small, "gradcam")
    with pytest.raises(UnknownNameError, match="unknown layer 'features.3'"):
        explain(*small, "grad-cam", layer="features.3")
    with pytest.raises(
        UnknownNameError, match="unknown option of method 'grad-cam' 'positiv'. Did you mean 'positive'"
    ):
        method("grad-cam", positiv=True)


def test_weights_that_overflow_are_noticed(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    nn.init.constant_(model[5].bias, torch.inf)
    with pytest.raises(InputError, match="model: expected finite scores"):
        explain(model, images, "grad-cam", layer="2")


def test_weights_made_in_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        model = affine_net()
    with pytest.raises(InputError, match="made in inference mode"):
        explain(model, torch.rand(1, 1, 16, 16), "grad-cam", layer="2")


def test_a_view_that_wants_the_usual_layout_is_obeyed() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3, padding=1)
            self.layer = nn.ReLU()
            self.fc = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            stem = self.stem(images)
            flat = stem.view(len(images), -1)  # fails where channels lie last
            return self.fc(self.layer(flat.view(stem.shape)).mean(dim=(2, 3)))

    model = seeded(Viewing())
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    explanation = explain(model, images, CAMS, layer="layer", target=0, batch_size=2)
    slow = slow_layer_map("ablation-cam", model, "layer", images[3:4], 0)
    np.testing.assert_allclose(explanation.layer_maps["ablation-cam"][3].numpy(), slow, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("view_before", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_every_method_serves_networks_whose_views_want_the_usual_layout(name: str, view_before: bool) -> None:
    class Viewing(nn.Module):
        def __init__(self, views: bool) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.layer = nn.ReLU()
            self.fc = nn.Linear(4 * 64, 3)
            self.flat = Tensor.view if views else Tensor.reshape

        def forward(self, images: Tensor) -> Tensor:
            features = self.stem(images)
            if view_before:
                features = self.flat(self.flat(features, (len(images), -1)), features.shape)
            return self.fc(self.flat(self.layer(features), (len(images), -1)))

    model, reshaping = (seeded(Viewing(views)) for views in (True, False))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        model(images.contiguous(memory_format=torch.channels_last))
    choice = next(choice for choice in CHOICES if choice.label == name)
    if choice.entry.name == "refine-cam":
        choice = method("refine-cam", layers=("stem", "layer"))
    maps, same = (
        explain(each, images, choice, layer="layer", target=0).maps[choice.label] for each in (model, reshaping)
    )
    assert maps.any()
    torch.testing.assert_close(maps, same, rtol=1e-4, atol=1e-4 * float(same.abs().max()))


@pytest.mark.parametrize("name", CAMS)
def test_lower_precision_gives_the_map_to_its_rounding(small: tuple[nn.Module, Tensor], name: str) -> None:
    model, images = small
    full = explain(model, images, name, target=1, layer="2").maps[name]
    half = explain(copy.deepcopy(model).bfloat16(), images.bfloat16(), name, target=1, layer="2").maps[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = explain(model, images, name, target=1, layer="2").maps[name]
    for lower in (half, cast):
        assert lower.dtype == torch.float32
        assert (lower - full).abs().max() < 0.1 * full.max()


def test_bfloat16_is_mixed_precision_for_every_method(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    full = explain(model, images, CHOICES, target=1, layer="2")
    mixed = explain(model, images, CHOICES, target=1, layer="2", precision="bfloat16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = explain(model, images, CAMS, target=1, layer="2")
    for name in EVERY:
        assert mixed.maps[name].dtype == torch.float32
        assert mixed.maps[name].isfinite().all()
        if name in CAMS:
            assert torch.equal(mixed.maps[name], cast.maps[name])
    for name in ("grad-cam", "saliency", "integrated-gradients[steps=4]", "occlusion[stride=4,window=4]", "lrp"):
        pairs = zip(mixed.maps[name].flatten(1), full.maps[name].flatten(1), strict=True)
        assert all(scipy.stats.spearmanr(one, other).statistic > 0.9 for one, other in pairs), name
    assert not torch.equal(mixed.maps["saliency"], full.maps["saliency"])
    with pytest.raises(InputError, match="precision: expected 'float32' or 'bfloat16', got 'float16'"):
        explain(model, images, precision="float16")


@pytest.mark.slow
def test_compiling_changes_maps_by_rounding_alone(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    chosen = ["grad-cam", "saliency", method("integrated-gradients", steps=8), method("occlusion", window=4), "lrp"]
    plain = explain(model, images, chosen, layer="2", batch_size=5)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with warnings.catch_warnings(action="ignore"):  # of the compiler's
        compiled = explain(model, images, chosen, layer="2", batch_size=5, compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= before + 1  # the one of gradients
    for name, maps in plain.maps.items():
        torch.testing.assert_close(compiled.maps[name], maps, rtol=1e-3, atol=1e-3 * float(maps.abs().max()))


def test_a_compiler_that_fails_is_told_of(small: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: nn.Module) -> nn.Module:
        class Failing(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                raise torch._dynamo.exc.TorchDynamoException("\nno C++ compiler")

        return Failing()

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(PellucidError, match=r"compile: this model can't .* \(no C\+\+ compiler\)\. Leave"):
        explain(*small, "saliency", compile=True)


def test_a_compiled_model_is_explained_by_the_one_it_wraps(small: tuple[nn.Module, Tensor]) -> None:
    model, images = small
    with warnings.catch_warnings(action="ignore"):  # of the compiler's import
        compiled = torch.compile(model)
    assert torch.equal(explain(compiled, images, layer="2").score, explain(model, images, layer="2").score)


def test_the_public_names_are_the_packages() -> None:
    assert pellucid.explain is explain
    assert pellucid.method("random").label == "random"
    named = {choice.entry.name for choice in CHOICES}
    assert set(pellucid.methods()["name"]) == {*named, *ELSEWHERE}
    assert set(PAPER_METHODS) <= set(EVERY)
