"""What is said of a network is what is known of it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attribution import METHODS, explain
from pellucid.attribution.doctor import HEADS, Examination, FeatureMap, Reused, examine
from pellucid.errors import InputError
from references.cam_networks import affine_net, deep_head_net, seeded
from references.rewriting_networks import state

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning"),
]
SCORES = {"occlusion", "feature-ablation", "rise", "lime", "kernel-shap", "sobol", "hsic"}
CONTROLS = set(METHODS.names("control"))


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def working(found: Examination) -> set[str]:
    return {each.name for each in found.methods if each.works}


class Shared(nn.Module):
    """One ReLU for all layers, a sum in place, a functional ReLU in place, and a head that isn't affine."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 6, 3)
        self.act, self.last = nn.ReLU(inplace=True), nn.ELU()
        self.fc, self.out = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.act(self.first(rows))
        more = self.second(rows)
        more += rows
        rows = self.last(self.third(self.act(more)))
        return self.out(functional.relu(self.fc(rows.mean(dim=(2, 3))), inplace=True))


def test_a_network_is_looked_over_and_given_back() -> None:
    model = seeded(Shared()).train()
    before = state(model)
    found = examine(model, images(2, 1, 16, 20))
    assert state(model) == before
    assert (found.network, found.image, found.reason) == ("Shared", (1, 16, 20), "")
    assert found.auto == FeatureMap("last", "ELU", 6, (6, 8), "channels first", 0)
    assert found.coarse
    assert [(each.name, each.channels, each.grid) for each in found.layers] == [
        ("first", 4, (8, 10)), ("second", 4, (8, 10)), ("third", 6, (6, 8)), ("last", 6, (6, 8)),
    ]  # fmt: skip
    assert found.in_place == ("act (ReLU)", "add in Shared", "relu in Shared")
    assert found.reused == (Reused("act", "ReLU", 2),)
    assert found.head == "mixed"
    assert len(found.methods) == len(METHODS)
    assert working(found) == {e.name for e in METHODS} - {"attention-rollout", "le-grad", "refine-cam"}
    assert all(each.reason for each in found.methods if not each.works)
    assert [each.name for each in found.methods if not each.tried] == ["score-cam"]


@pytest.mark.parametrize("axes", [2, 3])
def test_affine_heads_and_methods_that_coincide_there(axes: int) -> None:
    shape = (2, 1, *(16,) * axes)
    found = examine(seeded(affine_net(axes)), images(*shape))
    assert found.auto is not None
    assert (found.auto.name, found.auto.grid, found.head) == ("2", (8,) * axes, "affine")
    assert not found.coarse
    group = next(group for group in found.coinciding if "grad-cam" in group)
    assert {"xgrad-cam", "hires-cam", "shapley-cam"} <= set(group)
    assert explain(seeded(affine_net(axes)), images(*shape), ["grad-cam", "hires-cam"]).coinciding
    other = examine(seeded(deep_head_net(axes)), images(2, 1, *(8,) * axes))
    assert other.head == "mixed"
    assert not any("hires-cam" in group for group in other.coinciding)
    assert set(HEADS) >= {found.head, other.head}


@pytest.mark.parametrize("axes", [2, 3])
def test_few_draws_are_enough_for_every_method(axes: int) -> None:
    found = examine(seeded(deep_head_net(axes=axes)), images(2, 1, *(8,) * axes))
    refused = {each.name: each.reason for each in found.methods if not each.works}
    assert refused.keys() == {*METHODS.names("attention"), "refine-cam"}, refused
    assert "finer scale" in refused["refine-cam"]  # the network has a single one


def test_tokens_and_what_has_no_rule_on_them() -> None:
    torch.manual_seed(0)
    options = {"img_size": 28, "depth": 2, "embed_dim": 12, "num_heads": 2}
    model = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=3, **options).eval()
    found = examine(model, images(1, 3, 28, 28))
    assert found.auto == FeatureMap("blocks.1.norm1", "LayerNorm", 12, (2, 2), "tokens", 5)
    assert {"attention-rollout", "le-grad", "grad-cam", "shapley-cam", "score-cam"} <= working(found)
    reasons = {each.name: each.reason for each in found.methods if not each.works}
    assert "a network without any" in reasons["guided-backprop"]
    assert all(reason.startswith("model: expected ") for reason in reasons.values())


def test_what_hides_its_insides_serves_methods_that_ask_for_scores() -> None:
    dynamic = torch.ao.quantization.quantize_dynamic(seeded(affine_net()), {nn.Linear}, dtype=torch.qint8)
    found = examine(dynamic, images(1, 1, 16, 16))
    assert working(found) == SCORES | {"eigen-cam", "score-cam"} | CONTROLS
    assert found.head == ""
    scripted = torch.jit.script(seeded(affine_net()))
    found = examine(scripted, images(1, 1, 16, 16))
    assert working(found) == SCORES | CONTROLS
    assert (found.auto, found.layers, found.head, found.coinciding) == (None, (), "", ())
    assert "methods that ask for scores alone" in next(e.reason for e in found.methods if e.name == "score-cam")


def test_without_a_feature_map_it_says_why() -> None:
    found = examine(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), images(1, 1, 8, 8))
    assert found.auto is None
    assert found.reason.startswith("layer: expected a module whose output is a feature map")
    assert working(found) >= SCORES | {"saliency", "integrated-gradients"}
    assert "grad-cam" not in working(found)


def test_an_activation_that_is_a_function_is_named() -> None:
    class Functional(nn.Sequential):
        def forward(self, rows: Tensor) -> Tensor:
            return self[1](functional.relu(self[0](rows), inplace=True).mean(dim=(2, 3)))

    found = examine(seeded(Functional(nn.Conv2d(1, 4, 3), nn.Linear(4, 3))), images(1, 1, 10, 12))
    assert found.auto == FeatureMap("0:relu", "Conv2d", 4, (8, 10), "channels first", 0)
    assert (found.in_place, found.head) == (("relu in Functional",), "affine")
    assert {"grad-cam", "ablation-cam"} <= working(found)


def test_a_parallel_network_is_looked_over_as_what_it_wraps() -> None:
    wrapped, plain = (examine(net, images(1, 1, 16, 16)) for net in (nn.DataParallel(affine_net()), affine_net()))
    assert (wrapped.auto, wrapped.head, wrapped.layers) == (plain.auto, "affine", plain.layers)


def test_images_that_the_network_does_not_run_on_are_refused() -> None:
    with pytest.raises(InputError, match=r"images: expected 3 channels, as the model's first convolution has, got 1"):
        examine(timm.create_model("test_resnet"), images(1, 1, 32, 32))
    with pytest.raises(InputError, match=r"images: expected images that Sequential runs on, got shape \(1, 1, 8, 9\)"):
        examine(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), images(1, 1, 8, 9))
