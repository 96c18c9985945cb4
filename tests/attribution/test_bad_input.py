"""What can't be explained is refused in whole sentences that say what to do, and the network comes back as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pellucid.attribution import METHODS, explain, method
from pellucid.attribution.families import Method
from pellucid.attribution.run import channels_checked
from pellucid.errors import InputError, UnknownNameError
from pellucid.registry import Choice
from references.cam_networks import affine_net, seeded
from references.rewriting_networks import state

pytestmark = [
    pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*reduce_range:UserWarning"),
]

SHAPE = (2, 1, 16, 16)
OTHER_LAYER = "Pass layer= with the dotted name of another layer; model.named_modules() lists them."
PASS_TARGET = "Pass target= a function from the output to one score per image"
OR_AIMS = ", or one of pellucid.attribution.aims."
FEW: dict[str, dict[str, object]] = {
    "lime": {"samples": 12, "regions": 2},
    "kernel-shap": {"regions": 2},
    "sobol": {"designs": 4, "regions": 2},
    "hsic": {"samples": 20, "regions": 2},
    "rise": {"samples": 4},
    "extremal-masks": {"areas": (0.1,), "steps": 2, "cells": 3},
    "refine-cam": {"layers": ("conv",)},
}


def images() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def quick(name: str) -> Choice[Method]:
    few = {option: 2 for option in ("samples", "steps") if option in METHODS[name].options}
    return method(name, **FEW.get(name, few))


class Unused(nn.Module):
    """A layer that never runs, one that runs twice, and flat ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.act = nn.ReLU()
        self.never = nn.Conv2d(4, 4, 3)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.ELU()
        self.fc = nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.act(self.first(rows))
        return self.fc(self.pool(self.last(self.act(self.again(rows)))))


@dataclass
class Output:
    hidden: tuple[Tensor, ...]
    logits: Tensor


class Giving(nn.Module):
    """A network whose output is made into something else than logits."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.change = seeded(affine_net()), change

    def forward(self, rows: Tensor) -> Any:
        return self.change(self.net(rows))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = affine_net()

    def forward(self, rows: Tensor, age: Tensor, *, sex: int = 0) -> Tensor:
        return self.net(rows) + age


def with_nan() -> Tensor:
    spoiled = images()
    spoiled[1, 0, 3, 3] = torch.nan
    return spoiled


def with_meta_buffer() -> nn.Module:
    model = affine_net()
    model[1].running_mean = model[1].running_mean.to("meta")
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


Bad = tuple[Callable[[], nn.Module], dict[str, object], str]
SPATIAL = "layer: expected an output (B, K, *s) with 2 spatial axes for 2 images, got {} with output shape {}, "
AS_TOKENS = (
    "Pass layer=pellucid.attribution.Tokens({}, grid=(height, width), prefix=...) for tokens (B, N, K) or channels "
    "last, or another layer's dotted name; model.named_modules() lists them."
)
CALLS: dict[str, Bad] = {
    "no such layer": (
        Unused, {"layer": "agian"},
        "unknown layer 'agian'. Did you mean 'again'? 'auto' takes 'last'. model.named_modules() lists all.",
    ),
    "nothing like it": (
        Unused, {"layer": "layer4"}, "unknown layer 'layer4'. 'auto' takes 'last'. model.named_modules() lists all.",
    ),
    "no such layer, and none for auto": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), {"layer": "features"},
        "unknown layer 'features'. model.named_modules() lists all.",
    ),
    "a layer that isn't reached": (
        Unused, {"layer": "never"},
        f"layer: expected a layer that runs on these images, got 'never', which doesn't. {OTHER_LAYER}",
    ),
    "a layer that is reached twice": (
        Unused, {"layer": "act"},
        f"layer: expected a layer that runs once per image, got 'act', which runs again. {OTHER_LAYER}",
    ),
    "a layer without spatial extent": (
        Unused, {"layer": "pool"}, SPATIAL.format("'pool'", "(2, 4)") + "torch.float32. " + AS_TOKENS.format("'pool'"),
    ),
    "a class too many": (Unused, {"target": 3}, "target: expected classes from 0 to 2, got 3."),
    "a class below zero": (Unused, {"target": -1}, "target: expected classes from 0 to 2, got -1."),
    "one image alone": (
        Unused, {"images": images()[0]},
        "images: expected (B, C, H, W) or (B, C, D, H, W), got shape (1, 16, 16). Pass one image as images[None].",
    ),
    "NaN": (
        Unused, {"images": with_nan()},
        "images: expected finite values, got infinite or missing ones for the images at 1.",
    ),
    "inf": (
        Unused, {"images": images() * torch.inf},
        "images: expected finite values, got infinite or missing ones for the images at 0, 1.",
    ),
    "whole numbers": (
        Unused, {"images": images().to(torch.uint8)},
        "images: expected the weights' dtype torch.float32, got torch.uint8. Convert with images.to(...), or the model "
        "with model.to(...).",
    ),
    "a dict": (
        lambda: Giving(lambda logits: {"logits": logits}), {},
        "model: expected one row of logits per image as its output, got dict. "
        f"{PASS_TARGET}, such as lambda output: output['logits'][:, 0]{OR_AIMS}",
    ),
    "a tuple": (
        lambda: Giving(lambda logits: (None, logits)), {},
        "model: expected one row of logits per image as its output, got tuple. "
        f"{PASS_TARGET}, such as lambda output: output[1][:, 0]{OR_AIMS}",
    ),
    "a dataclass": (
        lambda: Giving(lambda logits: Output((logits,), logits)), {},
        "model: expected one row of logits per image as its output, got Output. "
        f"{PASS_TARGET}, such as lambda output: output.logits[:, 0]{OR_AIMS}",
    ),
    "text": (
        lambda: Giving(lambda logits: "cat"), {"methods": "occlusion"},
        f"model: expected one row of logits per image as its output, got str. {PASS_TARGET}{OR_AIMS}",
    ),
    "more than one argument": (
        Pair, {},
        "model: expected a network that is called with the images alone, got Pair.forward(rows: 'Tensor', "
        "age: 'Tensor', *, sex: 'int' = 0) -> 'Tensor'. Wrap it in a module whose forward(images) gives the other "
        "arguments.",
    ),
    "lazy": (
        lazy, {},
        "model: expected weights that have a shape, got '3.weight' of a lazy module. Run the network once on a batch "
        "before it is explained.",
    ),
    "meta": (
        with_meta_buffer, {},
        "model: expected weights that have values, got '1.running_mean' on the meta device. Load weights after "
        "model.to_empty(device=...).",
    ),
}  # fmt: skip


def seen(model: nn.Module) -> object:
    """All that a call could leave behind, where weights have values."""
    if any(torch.nn.parameter.is_lazy(each) or each.is_meta for each in model.state_dict(keep_vars=True).values()):
        return [(name, module.training, list(module._forward_hooks)) for name, module in model.named_modules()]
    return [state(model), [parameter.grad for parameter in model.parameters()]]


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_refused_and_the_network_comes_back(name: str) -> None:
    build, given, message = CALLS[name]
    torch.manual_seed(0)
    model = build().train()
    before = seen(model)
    with pytest.raises(InputError) as raised:
        explain(model, **{"images": images(), "methods": ["grad-cam", "ablation-cam"]} | given)  # type: ignore[arg-type]
    assert str(raised.value) == message
    assert isinstance(raised.value, UnknownNameError) == message.startswith("unknown")
    assert seen(model) == before


@pytest.mark.parametrize("name", ["a dict", "a tuple", "a dataclass"])
def test_the_target_that_the_error_shows_works(name: str) -> None:
    build, _, message = CALLS[name]
    model = build()
    target = eval(message.partition("such as ")[2].removesuffix(OR_AIMS))
    found = explain(model, images(), ["grad-cam", "ablation-cam", "saliency", "occlusion"], target=target)
    plain = explain(model.net, images(), ["grad-cam", "ablation-cam", "saliency", "occlusion"], target=0)  # type: ignore[arg-type]
    for label, maps in plain.maps.items():
        torch.testing.assert_close(found.maps[label], maps)


def test_a_known_networks_layer_is_named_beside_the_nearest() -> None:
    model = timm.create_model("resnet18", num_classes=3)
    with pytest.raises(UnknownNameError) as raised:
        explain(model, torch.rand(1, 3, 32, 32), "grad-cam", layer="layer5")
    assert "Did you mean 'layer4' or " in str(raised.value)
    assert "'auto' takes 'layer4'." in str(raised.value)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.fc(self.act(self.conv(rows)).mean(dim=(2, 3)))


class Stubbed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.quantise, self.inner = torch.ao.quantization.QuantStub(), inner
        self.back = torch.ao.quantization.DeQuantStub()

    def forward(self, rows: Tensor) -> Tensor:
        return self.back(self.inner(self.quantise(rows)))


def dynamic() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(seeded(Plain()), {nn.Linear}, dtype=torch.qint8)


def static() -> nn.Module:
    model = Stubbed(seeded(Plain())).eval()
    engines = torch.backends.quantized.supported_engines
    engine = next(each for each in ("x86", "fbgemm", "onednn", "qnnpack") if each in engines)
    model.qconfig = torch.ao.quantization.get_default_qconfig(engine)
    torch.ao.quantization.prepare(model, inplace=True)
    model(images())
    return torch.ao.quantization.convert(model)


def scripted() -> nn.Module:
    return torch.jit.script(seeded(Plain()))


def traced() -> nn.Module:
    return torch.jit.trace(seeded(Plain()), images())


def frozen() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(seeded(Plain())))


ALONE = "lime, kernel-shap, random, center-gaussian, sobel, occlusion, feature-ablation, rise, sobol, hsic"
KINDS = {
    dynamic: "methods without gradients, since the model is quantised ('fc' is a Linear of "
             "torch.ao.nn.quantized.dynamic.modules.linear)",
    static: "methods that ask for scores alone, since the model is quantised ('quantise' is a Quantize of "
            "torch.ao.nn.quantized.modules)",
    scripted: "methods that ask for scores alone, since the model is scripted or traced by torch.jit",
    traced: "methods that ask for scores alone, since the model is scripted or traced by torch.jit",
    frozen: "methods that ask for scores alone, since the model is scripted or traced by torch.jit",
}  # fmt: skip


def working(message: str) -> list[str]:
    return message.partition("These do: ")[2].removesuffix(".").split(", ")


@pytest.mark.parametrize("build", KINDS)
def test_what_hides_its_insides_says_which_methods_work_and_they_do(build: Callable[[], nn.Module]) -> None:
    model = build()
    with pytest.raises(InputError) as raised:
        explain(model, images(), ["occlusion", "grad-cam", method("saliency", channels="sum")])
    names = working(str(raised.value))
    assert str(raised.value) == (
        f"methods: expected {KINDS[build]}, got grad-cam, saliency[channels=sum]. These do: {', '.join(names)}."
    )
    assert {"occlusion", "rise", "lime", "random"} <= set(names)
    assert ("score-cam" in names) == ("eigen-cam" in names) == (build is dynamic)
    found = explain(model, images(), [quick(name) for name in names])
    torch.testing.assert_close(found.score, model(images()).amax(dim=1).detach())
    for label, maps in found.maps.items():
        assert maps.isfinite().all()
        assert label in ("eigen-cam",) or maps.amax() > maps.amin()
    for name in sorted({entry.name for entry in METHODS} - set(names)):
        with pytest.raises(InputError, match="These do: "):
            explain(model, images(), quick(name))


def test_a_scripted_networks_maps_are_the_eager_ones_and_it_comes_back() -> None:
    methods = ["occlusion", quick("rise")]
    plain = explain(seeded(Plain()), images(), methods, target=1)
    for build in (scripted, traced, frozen):
        model = build()
        if build is scripted:
            model.train()
        found = explain(model, images(), methods, target=1)
        for label, maps in plain.maps.items():
            torch.testing.assert_close(found.maps[label], maps, rtol=1e-4, atol=1e-6)
        assert getattr(model, "training", False) == (build is scripted)
        assert all(parameter.requires_grad for parameter in model.parameters())


class Counter(nn.Module):
    """Counts its calls in a buffer, by writing to it or by putting another in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, rows: Tensor) -> Tensor:
        self.calls += 1
        self.last = rows.mean()
        return rows


class Holding(nn.Module):
    """A network with a scripted or traced part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.conv, self.part, self.act, self.fc = nn.Conv2d(1, 4, 3), part, nn.ELU(), nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.fc(self.act(self.part(self.conv(rows))).mean(dim=(2, 3)))


def parts() -> Iterator[tuple[str, nn.Module, nn.Module]]:
    inner = seeded(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()), 3)
    yield "scripted", torch.jit.script(copy.deepcopy(inner)), inner
    yield "traced", torch.jit.trace(copy.deepcopy(inner), torch.rand(2, 4, 14, 14)), inner
    yield "frozen", torch.jit.freeze(torch.jit.script(copy.deepcopy(inner))), inner
    yield "counting", torch.jit.script(Counter()), nn.Identity()


REFUSED = (
    "deep-lift", "fullgrad", "guided-backprop", "deconvolution", "lrp", "attention-rollout", "le-grad",
    "guided-grad-cam",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen", "counting"])
@pytest.mark.parametrize("layer", ["auto", "conv"])
def test_a_network_that_holds_a_scripted_part_is_explained_as_without(kind: str, layer: str) -> None:
    part, inner = next((part, inner) for name, part, inner in parts() if name == kind)
    torch.manual_seed(5)
    model = Holding(nn.Identity())
    plain = Holding(inner)
    plain.load_state_dict(model.state_dict(), strict=False)
    model.part = part
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [getattr(module, "training", None) for module in model.modules()]
    refused = [*REFUSED]
    if layer == "conv":  # no layer comes before it; relevance has to come through the part
        refused += ["refine-cam"] if kind == "counting" else ["refine-cam", "relevance-cam"]
    names = [entry.name for entry in METHODS if entry.name not in refused]
    found = explain(model, images(), [quick(name) for name in names], target=1, layer=layer)
    expected = explain(plain.eval(), images(), [quick(name) for name in names], target=1, layer=layer)
    assert found.layer == expected.layer == ("act" if layer == "auto" else "conv")
    for label, maps in expected.maps.items():
        torch.testing.assert_close(found.maps[label], maps, rtol=1e-3, atol=1e-5, msg=label)
    assert [getattr(module, "training", None) for module in model.modules()] == modes
    assert not any(getattr(module, "_forward_hooks", None) for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
def test_methods_that_would_have_to_see_into_a_scripted_part_say_so(kind: str) -> None:
    part = next(part for name, part, _ in parts() if name == kind)
    model = Holding(part).eval()
    for name in REFUSED:
        with pytest.raises(InputError, match="model: expected"):
            explain(model, images(), quick(name))
    with pytest.raises(InputError) as raised:
        explain(model, images(), "fullgrad")
    assert str(raised.value) == (
        "model: expected modules whose biases can be seen, for 'fullgrad', got 'part', which is scripted."
    )


def test_a_run_that_fails_between_devices_names_them() -> None:
    model = with_meta_buffer()
    with pytest.raises(InputError) as raised, channels_checked(model, images()):
        model(images())
    assert str(raised.value) == (
        "model: expected parameters and buffers on one device, got '0.weight' on cpu and '1.running_mean' on meta. "
        "Move it whole with model.to(device)."
    )
    with pytest.raises(RuntimeError, match="device of another kind"), channels_checked(affine_net(), images()):
        raise RuntimeError("device of another kind")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_on_two_devices_says_which() -> None:
    model = affine_net().cuda()
    model[1].running_mean = model[1].running_mean.cpu()
    with pytest.raises(InputError) as raised:
        explain(model, images(), "grad-cam")
    assert str(raised.value) == (
        "model: expected parameters and buffers on one device, got '0.weight' on cuda:0 and '1.running_mean' on cpu. "
        "Move it whole with model.to(device)."
    )
