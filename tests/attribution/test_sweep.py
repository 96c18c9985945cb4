"""Every registered method on convolutions and on transformers, in 2-D and 3-D: what all of them owe their caller.

References, analytic cases and peers are in the tests of each family; here a new method is swept without being named.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import monai.networks.nets
import pytest
import timm.models
import torch
from torch import Tensor, nn

from pellucid.attribution import METHODS, Explanation, explain
from pellucid.attribution.families import Method
from pellucid.errors import InputError
from pellucid.registry import Choice
from references.cam_networks import affine_net, deep_head_net, seeded
from references.few_draws import quick

pytestmark = pytest.mark.filterwarnings("ignore::pellucid.attribution.GridWarning")  # of networks this small


class Logits3d(monai.networks.nets.ViT):
    """MONAI's ViT gives its hidden states besides the logits."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = super().forward(images)[0]
        return logits


def vit() -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, num_classes=3, embed_dim=12, depth=2, num_heads=2
    )


def vit_3d() -> nn.Module:
    return Logits3d(
        1, (8, 12, 8), 4, hidden_size=12, mlp_dim=24, num_layers=2, num_heads=2, classification=True, num_classes=3,
        post_activation="", pos_embed_type="learnable",
    )  # fmt: skip


NETS = {
    "CNN": (deep_head_net, "1", (7, 1, 8, 8)),
    "CNN 3-D": (lambda: affine_net(axes=3), "2", (7, 1, 10, 12, 14)),
    "transformer": (vit, "auto", (7, 1, 16, 16)),
    "transformer 3-D": (vit_3d, "auto", (7, 1, 8, 12, 8)),
}
CHOICES = [quick(entry.name) for entry in METHODS]
REFUSED_BY_TRANSFORMERS = {"guided-backprop", "deconvolution", "deep-lift", "guided-grad-cam"}  # they lack rules there


def runs_on(choice: Choice[Method], net: str) -> bool:
    if "transformer" in net:
        return choice.entry.name not in REFUSED_BY_TRANSFORMERS
    return choice.entry.family not in ("attention", "layered-cam")  # both convolutions have a single scale


@functools.cache
def made(net: str) -> tuple[nn.Module, str, Tensor]:
    build, layer, shape = NETS[net]
    torch.manual_seed(0)
    return seeded(build()), layer, torch.randn(shape, generator=torch.Generator().manual_seed(1))


@functools.cache
def whole(net: str, label: str) -> Explanation:
    """All images in one batch, by one method."""
    model, layer, images = made(net)
    return explain(model, images, by_label(label), layer=layer, batch_size=7)


def by_label(label: str) -> Choice[Method]:
    return next(choice for choice in CHOICES if choice.label == label)


PAIRS = [
    pytest.param(net, choice.label, id=f"{choice.entry.name}, {net}")
    for choice in CHOICES
    for net in NETS
    if runs_on(choice, net)
]
every_method_and_net = pytest.mark.parametrize(("net", "label"), PAIRS)
every_net = pytest.mark.parametrize("net", NETS)


def same(one: Tensor, other: Tensor) -> None:
    """Equal to rounding, of the maps' own size."""
    size = max(float(other.abs().max()), 1e-6)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * size)


def choices_on(net: str) -> list[Choice[Method]]:
    return [choice for choice in CHOICES if runs_on(choice, net)]


@every_method_and_net
def test_maps_have_the_images_shape_and_say_something(net: str, label: str) -> None:
    images = made(net)[2]
    explanation = whole(net, label)
    maps = explanation.maps[label]
    assert (maps.shape, maps.dtype, maps.device.type) == ((7, *images.shape[2:]), torch.float32, "cpu")
    assert not maps.requires_grad
    assert maps.isfinite().all()
    assert maps.any()
    assert set(explanation.seconds) == {"forward", label}
    assert all(value > 0 for value in explanation.seconds.values())


@every_method_and_net
def test_an_image_is_explained_alike_alone_and_in_any_batch(net: str, label: str) -> None:
    model, layer, images = made(net)
    maps = whole(net, label).maps[label]
    same(explain(model, images[:1], by_label(label), layer=layer).maps[label], maps[:1])
    same(explain(model, images, by_label(label), layer=layer, batch_size=3).maps[label], maps)
    again = explain(model, images, by_label(label), layer=layer, batch_size=7).maps[label]
    assert torch.equal(again, maps)  # same seed, same batch size, same bytes


@every_method_and_net
def test_all_classes_at_once_are_each_class_alone(net: str, label: str) -> None:
    model, layer, images = made(net)
    explanation = whole(net, label)
    every = explain(model, images, by_label(label), target="all", layer=layer, batch_size=7)
    assert every.maps[label].shape == (7, 3, *images.shape[2:])
    own = every.maps[label][torch.arange(7), explanation.target]
    same(own, explanation.maps[label])


@every_method_and_net
def test_double_precision_networks_are_explained_in_it(net: str, label: str) -> None:
    model, layer, images = made(net)
    double = explain(
        copy.deepcopy(model).double(), images.double(), by_label(label), target=whole(net, label).target, layer=layer
    )
    maps = whole(net, label).maps[label]
    assert double.maps[label].dtype == torch.float32
    assert (double.maps[label] - maps).abs().max() <= 2e-3 * maps.abs().max()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@every_net
def test_works_whatever_the_callers_grad_mode(net: str, mode: type) -> None:
    model, layer, images = made(net)
    chosen = choices_on(net)
    with mode():
        inside = explain(model, images * 1, chosen, layer=layer, batch_size=7)
        assert not torch.is_grad_enabled()
    for choice in chosen:
        same(inside.maps[choice.label], whole(net, choice.label).maps[choice.label])
        assert not inside.maps[choice.label].is_inference()


def snapshot(model: nn.Module) -> list[object]:
    return [
        [module.training for module in model.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        [sorted(set(m.__dict__)) for m in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist(), p._version) for p in model.parameters()],
        {name: value.tolist() for name, value in model.state_dict().items()},
    ]


@pytest.mark.parametrize("fails_at", [None, 1, 2, 3])
@every_method_and_net
def test_the_model_comes_back_as_it_was(net: str, label: str, fails_at: int | None) -> None:
    model, layer, images = made(net)
    model = copy.deepcopy(model).train()
    next(iter(model.children())).eval()
    parameters = list(model.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    parameters[-1].requires_grad_(False)
    before = snapshot(model)
    calls = [0]

    def score(outputs: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == fails_at:
            raise RuntimeError("inside")
        return outputs[:, 0]

    compares = "rival gradients" in by_label(label).entry.needs  # classes, of which a function tells nothing
    errors = (RuntimeError, InputError) if fails_at else (InputError,) if compares else ()
    with contextlib.suppress(*errors):
        explain(model, images[:2], by_label(label), target=score, layer=layer)
    assert calls[0] >= 1
    assert snapshot(model) == before


@every_net
def test_four_threads_on_one_model_agree_with_one(net: str) -> None:
    model, layer, images = made(net)
    model = copy.deepcopy(model).train()
    chosen = choices_on(net)
    results: list[dict[str, Tensor]] = []

    def run() -> None:
        results.append(dict(explain(model, images, chosen, layer=layer, batch_size=7).maps))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for choice in chosen:
        same(results[0][choice.label], whole(net, choice.label).maps[choice.label])
        assert all(torch.equal(each[choice.label], results[0][choice.label]) for each in results)
    assert all(module.training for module in model.modules())


@every_net
def test_a_hundred_calls_leave_nothing_behind(net: str) -> None:
    def held() -> tuple[int, float]:
        gc.collect()
        count = sum(issubclass(type(each), Tensor) for each in gc.get_objects())
        return count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    model, layer, images = made(net)
    chosen = choices_on(net)
    for _ in range(5):
        explain(model, images[:2], chosen, layer=layer)
    tensors, megabytes = held()
    for _ in range(100):  # in all they make several hundred MB
        explain(model, images[:2], chosen, layer=layer)
    after_tensors, after_megabytes = held()
    assert after_tensors <= tensors
    assert after_megabytes < megabytes + 15


REFUSED = [(net, c.label) for net in NETS for c in CHOICES if not runs_on(c, net)]


@pytest.mark.parametrize(("net", "label"), REFUSED)
def test_a_method_that_has_no_rule_for_a_network_says_so(net: str, label: str) -> None:
    model, layer, images = made(net)
    before = snapshot(model)
    with pytest.raises(InputError, match="model: expected .*, got .*"):
        explain(model, images, by_label(label), layer=layer)
    assert snapshot(model) == before


def other_tests() -> Iterator[str]:
    for path in Path(__file__).parent.glob("test_*.py"):
        if path.name != Path(__file__).name:
            yield path.read_text()


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_has_tests_of_its_own(name: str) -> None:
    assert any(f'"{name}"' in text or f" {name.replace('-', '_')}" in text for text in other_tests())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_method_and_net
def test_a_model_on_a_gpu_gives_the_same_maps(net: str, label: str) -> None:
    model, layer, images = made(net)
    there = explain(copy.deepcopy(model).cuda(), images, by_label(label), layer=layer, batch_size=7)
    maps = whole(net, label).maps[label]
    assert there.maps[label].device.type == "cpu"
    torch.testing.assert_close(there.maps[label], maps, rtol=1e-3, atol=1e-3 * float(maps.abs().max()))
