"""LRP against matrices written from its papers, analytic cases, zennit and Captum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution.relevance import COMPOSITES, RULES
from pellucid.errors import InputError
from references import relevance as reference
from references.rewriting_networks import RECTIFIED, Small, explained, layers, pictures, small, state

LOW, HIGH = -4.0, 4.0
EVERY = (*RULES, *COMPOSITES)


def lrp(name: str, **options: Any) -> Any:
    options = ({"rule": name} if name in RULES else {"composite": name, "bounds": (LOW, HIGH)}) | options
    return pellucid.method("lrp", **({"channels": "keep"} | options))


def relevance(model: nn.Module, images: Tensor, name: str, target: Any = 1, **options: Any) -> Tensor:
    (found,) = explained(model, images, lrp(name, **options), target=target).values()
    return found


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", EVERY)
def test_each_rule_is_its_paper(name: str, axes: int) -> None:
    model, images = small(axes), pictures(2, axes)
    first, relu, second, norm, *rest = layers(small(axes).double())
    joined = [first, relu, nn.Sequential(second, norm), *rest]
    found = relevance(model, images, name)
    for i, image in enumerate(images):
        wanted = torch.from_numpy(reference.lrp(joined, image, 1, name, LOW, HIGH)).float()
        assert float(wanted.abs().max()) > 1e-6
        torch.testing.assert_close(found[i], wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("relu", RECTIFIED)
def test_each_way_of_writing_a_relu_gives_the_same_map(relu: str) -> None:
    images = pictures()
    torch.testing.assert_close(relevance(small(relu=relu), images, "gamma"), relevance(small(), images, "gamma"))


@pytest.mark.parametrize("name", ["zero", "epsilon", "gamma", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box"])
def test_nothing_is_lost_without_biases(name: str) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 6, 2, bias=False),
                          nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3, bias=False))  # fmt: skip
    images = pictures().abs()
    found = relevance(model, images, name, target="all")
    torch.testing.assert_close(found.sum(dim=(2, 3, 4)), model(images).detach(), rtol=1e-3, atol=1e-5)
    if name == "zero":  # as long as every activation is piecewise linear: Ancona et al. 2018, proposition 1
        (wanted,) = explained(
            model, images, pellucid.method("input-x-gradient", channels="keep"), target="all"
        ).values()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_one_layer_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[1] = torch.tensor([1.0, 2.0, -1.0, 3.0])  # type: ignore[index]
        model[1].bias[1] = 1.0  # type: ignore[index]
    image = torch.tensor([[[[2.0, 1.0], [1.0, -1.0]]]])  # parts 2, 2, -1, -3 and the bias 1: the score is 1
    wanted = {
        "zero": [2, 2, -1, -3],
        "epsilon": [2, 2, -1, -3],
        "z-plus": [0.4, 0.4, 0, 0],
        "alpha-beta": [0.8, 0.8, -0.25, -0.75],
        "gamma": [2.5 / 2.25, 2.5 / 2.25, -1 / 2.25, -3 / 2.25],
        "epsilon-plus-flat": [0.25, 0.25, 0.25, 0.25],
    }
    for name, values in wanted.items():
        found = relevance(model, image, name).flatten().tolist()
        assert found == pytest.approx(values, rel=1e-5, abs=1e-5), name


class Sums(nn.Module):
    """a + 3 b - c of three channels, in place or not; the mean over space goes last."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x.unbind(dim=1)
        out = 3 * b
        if self.in_place:
            out += a
            out.sub_(c)
        else:
            out = out + a - c
        score = out.mean(dim=(1, 2))
        return torch.stack([score, -score], dim=1)


@pytest.mark.parametrize("in_place", [False, True])
def test_sums_share_by_proportion(in_place: bool) -> None:
    images = torch.rand(2, 3, 4, 5) + torch.tensor([1.0, 2.0, 0.0]).reshape(3, 1, 1)
    found = relevance(Sums(in_place), images, "epsilon", target=0)
    wanted = images * torch.tensor([1.0, 3.0, -1.0]).reshape(3, 1, 1) / 20
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_score_is_what_the_target_says() -> None:
    model, images = small(), pictures()
    each = relevance(model, images, "z-plus", target="all")
    pair = relevance(model, images, "z-plus", target=lambda logits: logits[:, 0] + 2 * logits[:, 2])
    torch.testing.assert_close(pair, each[:, 0] + 2 * each[:, 2], rtol=1e-4, atol=1e-6)
    single = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 7, 1))
    found = relevance(single, images, "zero", target="all")
    torch.testing.assert_close(found[:, 0], -found[:, 1])
    wanted = images * single[1].weight.detach().reshape(2, 8, 7)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(found[:, 1], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_neither_the_batch_nor_the_other_classes_matter(name: str) -> None:
    model, images = small(), pictures(5)
    options = {} if name in RULES else {"bounds": None}
    whole = relevance(model, images, name, target="all", **options)
    halves, *_ = explained(model, images, lrp(name, **options), target="all", batch_size=2).values()
    close: dict[str, float] = {"rtol": 1e-3, "atol": 1e-5 * float(whole.abs().max())}
    torch.testing.assert_close(halves, whole, **close)
    for k in range(3):
        torch.testing.assert_close(relevance(model, images[1:2], name, target=k, **options)[0], whole[1, k], **close)


def zennit_composite(name: str, exact: bool) -> Any:
    """zennit's own composite, with residual additions of timm's blocks made visible to it."""
    canonizers, rules = pytest.importorskip("zennit.canonizers"), pytest.importorskip("zennit.rules")
    from zennit import composites, layer, types

    class Exact(canonizers.SequentialMergeBatchNorm):  # type: ignore[misc]
        def register(self, linears: Any, batch_norm: Any) -> None:
            super().register(linears, batch_norm)
            self.eps, batch_norm.eps = batch_norm.eps, 0.0

        def remove(self) -> None:
            super().remove()
            self.batch_norm.eps = self.eps

    def block(self: Any, x: Tensor) -> Tensor:
        shortcut, act = x, None
        for i in (1, 2, 3):
            if hasattr(self, f"conv{i}"):
                x = act(x) if act is not None else x
                x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
                act = getattr(self, f"act{i}")
        shortcut = shortcut if self.downsample is None else self.downsample(shortcut)
        return act(self.added(torch.stack([shortcut, x], dim=-1)))  # type: ignore[misc]

    def attributes(name: str, module: nn.Module) -> dict[str, object] | None:
        if type(module).__name__ not in ("BasicBlock", "Bottleneck"):
            return None
        return {"forward": block.__get__(module), "added": layer.Sum()}

    merge = Exact() if exact else canonizers.SequentialMergeBatchNorm()
    seen = [merge, canonizers.AttributeCanonizer(attributes)]
    if name == "attn-lrp":
        pair = [(types.Convolution, rules.Gamma(0.25)), (types.Linear, rules.Gamma(0.05))]
        return composites.LayerMapComposite([*composites.layer_map_base(), *pair], seen)
    uniform: dict[str, Callable[[], Any]] = {"epsilon": rules.Epsilon, "gamma": rules.Gamma,
                                            "alpha-beta": rules.AlphaBeta, "z-plus": rules.ZPlus}  # fmt: skip
    if name in uniform:
        return composites.LayerMapComposite([*composites.layer_map_base(), (types.Linear, uniform[name]())], seen)
    bounds = {"low": LOW, "high": HIGH} if name == "epsilon-gamma-box" else {}
    return composites.COMPOSITES[name.replace("-", "_")](canonizers=seen, **bounds)


def zennits(model: nn.Module, images: Tensor, name: str, exact: bool = True) -> Tensor:
    leaf = images.clone().requires_grad_()
    with zennit_composite(name, exact).context(model) as changed:
        out = changed(leaf)
        return torch.autograd.grad(out, leaf, out.detach() * torch.eye(3).to(out)[1])[0].float()


def residual() -> nn.Module:
    import timm

    torch.manual_seed(4)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
    return model  # type: ignore[no-any-return]


def apart(ours: Tensor, theirs: Tensor) -> float:
    assert float(theirs.abs().max()) > 1e-3
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("network", ["plain", "residual"])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "zero"])
def test_zennit_agrees(name: str, network: str) -> None:
    """In double precision, since shares of a z near 0 magnify what float32 rounds away."""
    model = (small() if network == "plain" else residual()).double()
    images = (pictures() if network == "plain" else torch.randn(2, 3, 32, 32)).double()
    assert apart(relevance(model, images, name), zennits(model, images, name)) < 1e-6


@pytest.mark.parametrize("layer", ["layer1", "layer3"])
def test_zennit_agrees_on_the_relevance_that_weighs_a_layers_channels(layer: str) -> None:
    model, images = residual().double(), torch.randn(2, 3, 96, 96).double()
    kept: list[Tensor] = []
    with zennit_composite("z-plus", exact=True).context(model) as changed:
        handle = changed.get_submodule(layer).register_forward_hook(lambda _module, _inputs, out: kept.append(out))
        out = changed(images.clone().requires_grad_())
        handle.remove()
        (theirs,) = torch.autograd.grad(out, kept[0], torch.tensor([-0.5, 1.0, -0.5]).to(out).expand_as(out))
    wanted = torch.einsum("bk,bk...->b...", theirs.flatten(2).sum(dim=2), kept[0].detach()).float()
    choice = pellucid.method("relevance-cam", positive=False)
    with warnings.catch_warnings(action="ignore"):
        found = pellucid.explain(model, images, choice, target=1, layer=layer)
    assert apart(found.layer_maps[choice.label], wanted) < 1e-5


def test_zennit_folds_batch_norms_with_an_error_of_their_eps() -> None:
    """Its folded batch norm still divides by sqrt(1 + eps), so that its network isn't the one explained."""
    model, images = residual().double(), torch.randn(2, 3, 32, 32).double()
    ours = relevance(model, images, "z-plus")
    assert apart(ours, zennits(model, images, "z-plus", exact=True)) < 1e-6
    assert apart(ours, zennits(model, images, "z-plus", exact=False)) > 2e-5


def test_captum_agrees_on_a_network_without_norms() -> None:
    attr = pytest.importorskip("captum.attr")
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    torch.manual_seed(6)
    model = small().double()
    model.norm = nn.Dropout(0.0).eval()  # Captum knows no identity
    layers = (model.first, model.second, model.third, model.fourth)
    images = pictures().abs().double()

    def both(name: str, rule: Callable[[], Any], **options: Any) -> float:
        for layer in layers:
            layer.rule = rule()  # type: ignore[assignment]
        with warnings.catch_warnings(action="ignore"):
            theirs = attr.LRP(model).attribute(images.clone(), target=1).detach().float()
        return apart(relevance(model, images, name, **options), theirs)

    assert both("epsilon", lambda: EpsilonRule(1e-3), epsilon=1e-3) < 1e-5
    assert both("z-plus", Alpha1_Beta0_Rule) > 1, "Captum keeps negative biases among the positive parts"
    with torch.no_grad():
        for layer in layers:
            layer.bias.abs_()  # type: ignore[union-attr, operator]
    assert both("z-plus", Alpha1_Beta0_Rule) < 1e-5


def test_a_norm_before_its_layer_passes_relevance_on() -> None:
    torch.manual_seed(7)
    head = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)]
    nn.Sequential(*head)(pictures())
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.fill_(0.3)  # type: ignore[union-attr]
    with torch.no_grad():
        behind = norm(pictures())
    found = relevance(nn.Sequential(norm, *head), pictures(), "z-plus")
    torch.testing.assert_close(found, relevance(nn.Sequential(*head), behind, "z-plus"))


def test_the_model_is_given_back_and_what_has_no_rule_is_named() -> None:
    class Raised(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) ** 2

    model, images = small(), pictures()
    before = state(model)
    found = relevance(model, images, "epsilon")
    assert state(model) == before
    model.__class__ = Raised
    with pytest.raises(InputError, match="steps that 'lrp' has rules for, got Pow"):
        relevance(model, images, "epsilon")
    model.__class__ = Small
    assert state(model) == before
    torch.testing.assert_close(relevance(model, images, "epsilon"), found)
    for last, said in (
        (nn.LogSoftmax(dim=1), "got LogSoftmax"),
        (nn.BatchNorm1d(3, track_running_stats=False), "got NativeBatchNorm"),
    ):
        with pytest.raises(InputError, match=said):
            relevance(nn.Sequential(small(), last), images, "epsilon")
    for options, said in (
        ({"rule": "delta"}, "rule: expected 'epsilon'"),
        ({"composite": "all"}, "composite: expected 'epsilon-plus-flat'"),
        ({"epsilon": -1.0}, "epsilon: expected at least 0"),
        ({"gamma": -1.0}, "gamma: expected at least 0"),
    ):
        with pytest.raises(InputError, match=said):
            pellucid.explain(model, images, pellucid.method("lrp", **options))
