"""LRP through attention, gates and norms, and Relevance-CAM: the papers written slowly, and networks in use."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from monai.networks import nets
from torch import Tensor, nn

import pellucid
from pellucid.errors import InputError
from references import relevance as reference
from references.cam_networks import GatedHead, MixingHead, Reviewing, Shuffling, seeded
from references.rewriting_networks import Attending, attending, explained, pictures, small, state

pytestmark = pytest.mark.filterwarnings("ignore:.*so that maps are coarse")
WAYS = ("@", "bmm", "einsum", "fused", "named", "module")


def relevance(model: nn.Module, images: Tensor, target: Any = 1, **options: Any) -> Tensor:
    (found,) = explained(model, images, pellucid.method("lrp", channels="keep", **options), target=target).values()
    return found


def close(found: Tensor, wanted: Tensor, share: float = 1e-4) -> None:
    size = float(wanted.abs().max())
    assert size > 1e-6
    assert float((found - wanted).abs().max()) < share * size


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("rule", [None, "epsilon", "gamma"])
def test_a_transformer_block_is_its_paper(rule: str | None, axes: int) -> None:
    model, images = attending(axes).double(), pictures(2, axes).double()
    convolution, linear = (rule, rule) if rule else ("gamma", "weak gamma")
    found = relevance(model, images, rule=rule)
    for i, image in enumerate(images):
        wanted = reference.attending(model, image, 1, convolution, linear)
        close(found[i], torch.from_numpy(wanted).float())


@pytest.mark.parametrize("written", WAYS[1:])
def test_each_way_of_writing_attention_gives_the_same_map(written: str) -> None:
    model, other = attending().double(), attending(written=written).double()
    before = state(other)
    close(relevance(other, pictures().double()), relevance(model, pictures().double()), 1e-3)
    assert state(other) == before


@pytest.mark.parametrize("masked", ["causal", "bool", "added", "groups"])
def test_masked_attention_is_attention_to_the_rest(masked: str) -> None:
    class Masked(Attending):
        def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            kept = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
            if masked == "groups":  # one head of keys and values for both of the queries'
                if by_hand:
                    k, v = (each[:, :1].expand(-1, 2, -1, -1) for each in (k, v))
                    return (0.5 * (q @ k.mT)).softmax(dim=-1) @ v
                return nn.functional.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)
            if by_hand:
                return (0.5 * (q @ k.mT)).masked_fill(~kept, -torch.inf).softmax(dim=-1) @ v
            added = torch.zeros(kept.shape, dtype=q.dtype).masked_fill(~kept, -torch.inf)
            options: dict[str, Any] = {"causal": {"is_causal": True}, "bool": {"attn_mask": kept},
                                       "added": {"attn_mask": added}}[masked]  # fmt: skip
            return nn.functional.scaled_dot_product_attention(q, k, v, **options)

    model = attending().double()
    model.__class__ = Masked
    by_hand = True
    wanted = relevance(model, pictures().double())
    by_hand = False
    close(relevance(model, pictures().double()), wanted, 1e-3)


def test_even_attention_passes_half_and_its_softmax_the_rest_to_its_bias() -> None:
    """Where queries are 0, so are the logits: proposition 3.1 gives them nothing."""

    class Mean(Attending):
        def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return v.mean(dim=2, keepdim=True).expand_as(v)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.embed(images).flatten(2).transpose(1, 2)
            q, k, v = self.qkv(tokens).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return self.head(self.mixed(q, k, v).transpose(1, 2).flatten(2).mean(dim=1))

    class Even(Mean):
        mixed = Attending.mixed

    model = attending().double()
    with torch.no_grad():
        model.qkv.weight[:8] = 0
        model.qkv.bias[:8] = 0  # type: ignore[index]
    plain = copy.deepcopy(model)
    plain.__class__, model.__class__ = Mean, Even
    images = pictures().double()
    torch.testing.assert_close(model(images), plain(images))
    close(relevance(model, images, rule="epsilon"), relevance(plain, images, rule="epsilon") / 2)


def test_a_last_softmax_by_hand() -> None:
    """x_i (R_i - s_i R) with R only at the target: s x_0 (1 - s) and -s x_1 (1 - s)."""
    model = nn.Sequential(nn.Flatten(), nn.Softmax(dim=1))
    image = torch.tensor([[[[2.0, 1.0]]]])
    s = float(model(image)[0, 0])
    found = relevance(model, image, target=lambda out: out[:, 0])
    assert found.flatten().tolist() == pytest.approx([2 * s * (1 - s), -s * (1 - s)], rel=1e-5)


NORMS = {
    "group": (lambda axes: nn.GroupNorm(2, 4), 2),
    "instance": (lambda axes: (nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 2](4, affine=True), 4),
    "layer": (lambda axes: nn.LayerNorm([4, *(3, 2, 2)[:axes]]), 1),
    "plain instance": (lambda axes: (nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 2](4), 4),
}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kind", NORMS)
def test_norms_are_their_matrices_with_the_deviation_held(kind: str, axes: int) -> None:
    torch.manual_seed(0)
    make, groups = NORMS[kind]
    size = (4, *(3, 2, 2)[:axes])
    norm = make(axes).double()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    last = nn.Linear(int(np.prod(size)), 3).double()
    image = torch.randn(1, *size).double()
    found = relevance(nn.Sequential(norm, nn.Flatten(), last), image, rule="epsilon")[0].flatten()
    normed = norm(image).detach().flatten().numpy()
    weight, bias = last.weight.detach().numpy(), last.bias.detach().numpy()
    score = weight[1] @ normed + bias[1]
    of_normed = weight[1] * normed / (score + 1e-6 * np.sign(score)) * score
    count, each = normed.size, normed.size // groups
    whole = kind == "layer"
    gain, shift = (np.broadcast_to(v.detach().numpy().reshape(size if whole else (4, *(1,) * axes)), size).flatten()
                   if v is not None else np.full(count, d)
                   for v, d in ((norm.weight, 1.0), (norm.bias, 0.0)))  # fmt: skip
    x = image.flatten().numpy()
    parts = [slice(i, i + each) for i in range(0, count, each)]
    wanted = np.concatenate([reference.norm_of(x[p], gain[p], shift[p], 1e-5, of_normed[p]) for p in parts])
    close(found, torch.from_numpy(wanted).float())


class Gated(nn.Module):
    """Squeeze and excitation, linear attention and norms, without a bias or a softmax anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = nn.Conv2d(2, 8, 3, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.norm, self.group = nn.LayerNorm(8), nn.GroupNorm(2, 8)
        self.q, self.k, self.head = (nn.Linear(8, n, bias=False) for n in (4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.group(self.first(x)))
        x = x * self.gate(x.mean(dim=(2, 3), keepdim=True)).sigmoid()
        tokens = self.norm(x.flatten(2).mT)
        tokens = tokens + (self.q(tokens) @ self.k(tokens).mT) @ nn.functional.normalize(tokens, dim=2) / 20
        tokens = tokens * tokens.norm(dim=-1, keepdim=True) / tokens.norm(dim=-1, keepdim=True)
        return self.head(tokens.mean(dim=1))


@pytest.mark.parametrize("rule", ["zero", "epsilon", "gamma"])
def test_nothing_is_lost_in_gates_norms_and_products(rule: str) -> None:
    torch.manual_seed(1)
    model, images = Gated().double(), pictures().double()
    found = relevance(model, images, target="all", rule=rule, epsilon=1e-9)
    torch.testing.assert_close(found.sum(dim=(2, 3, 4)), model(images).detach().float(), rtol=1e-3, atol=5e-5)


GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "after": lambda a, gate: a * gate,
    "before": lambda a, gate: torch.mul(gate, a),
    "in place": lambda a, gate: a.clone().mul_(gate),
    "named": lambda a, gate: torch.mul(input=a, other=gate),
}


@pytest.mark.parametrize("written", GATES)
def test_a_gate_gets_half(written: str) -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x.flatten(2).unbind(dim=1)
            return GATES[written](a, b.sigmoid())

    image = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    score = float(image[0, 0, 0, 1] * image[0, 1, 0, 1].sigmoid())
    assert relevance(Product(), image).flatten().tolist() == pytest.approx([0, score / 2, 0, score / 2])


def test_what_flows_to_a_named_argument_is_not_lost_in_silence() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return nn.functional.linear(x, torch.ones(3, 112), bias=x.mean(dim=0)[:3])

    with pytest.raises(InputError, match="has rules for, got Addmm"):
        relevance(Shifted(), pictures(1))


class Several(nn.Module):
    """A network whose output holds its logits in some way."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = attending()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.inner(x))


def test_outputs_of_several_parts_start_with_what_the_target_reads() -> None:
    plain = relevance(attending(), pictures())
    ways: list[tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = [
        (lambda out: (out, [out * 2, None]), lambda out: out[0][:, 1]),
        (lambda out: {"logits": out, "ones": torch.ones(3)}, lambda out: out["logits"][:, 1]),
    ]
    for wrap, read in ways:
        close(relevance(Several(wrap), pictures(), target=read), plain)
    with pytest.raises(InputError, match="model: expected tensors, or tuples, lists and dicts of them"):
        relevance(Several(iter), pictures(), target=lambda out: next(out))


def test_the_default_is_by_whether_the_network_attends() -> None:
    model, images = attending(), pictures()
    torch.testing.assert_close(relevance(model, images), relevance(model, images, composite="attn-lrp"))
    assert not torch.allclose(relevance(model, images), relevance(model, images, composite="epsilon-plus-flat"))
    plain = small()
    torch.testing.assert_close(relevance(plain, images), relevance(plain, images, composite="epsilon-plus-flat"))


def test_neither_the_batch_nor_other_classes_matter() -> None:
    model, images = attending(written="fused").double(), pictures(5).double()
    whole = relevance(model, images, target="all")
    close(relevance(model, images[1:2], target="all"), whole[1:2])
    for k in range(3):
        close(relevance(model, images, target=k), whole[:, k])


NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 2}, 32),
    "deit_tiny_distilled_patch16_224": ({"img_size": 32, "depth": 2}, 32),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 28, "depth": 2, "init_values": 1.0}, 28),
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "depths": (1, 2, 1, 1), "embed_dim": 24}, 56),
    "swinv2_tiny_window8_256": ({"img_size": 64, "depths": (1, 2, 1, 1), "embed_dim": 24}, 64),
    "convnext_atto": ({"depths": (1, 1, 1, 1)}, 64),
    "convnextv2_atto": ({"depths": (1, 1, 1, 1)}, 64),
    "seresnet18": ({}, 32),
    "efficientnet_b0": ({}, 32),
    "mobilenetv3_small_050": ({}, 32),
}


def awake(model: nn.Module) -> nn.Module:
    """Weights and statistics of a trained network's scale, so that no branch is silent."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_timm(name: str) -> None:
    options, size = NETWORKS[name]
    model = awake(timm.create_model(name, num_classes=3, **options))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(model.state_dict())
    found = explained(model, images, "lrp", "relevance-cam", target="all")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())
    for maps in found.values():
        assert maps.shape == (2, 3, size, size)
        assert maps.isfinite().all()
        assert maps.abs().amax(dim=(2, 3)).max() > 0
    alone = explained(model, images[1:], "lrp", target="all")["lrp"]
    close(alone, found["lrp"][1:], 1e-2)
    attentions = [module for module in model.modules() if hasattr(module, "fused_attn")]
    assert bool(attentions) == name.startswith(("vit", "deit", "swin_"))
    for module in attentions:
        module.fused_attn = not module.fused_attn  # type: ignore[assignment, operator]
    if attentions:
        close(explained(model, images, "lrp", target="all")["lrp"], found["lrp"], 1e-2)


@pytest.mark.parametrize("axes", [2, 3])
def test_networks_of_monai(axes: int) -> None:
    size = (16, 16, 16)[:axes]
    vit = nets.ViT(1, size, (8,) * axes, hidden_size=24, mlp_dim=48, num_layers=2, num_heads=2, classification=True,
                   num_classes=3, spatial_dims=axes, post_activation="none")  # fmt: skip
    senet = nets.SENet(spatial_dims=axes, in_channels=1, block="se_resnet_bottleneck", layers=(1, 1, 1, 1), groups=1,
                       reduction=16, num_classes=3)  # fmt: skip
    images = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    for model, target in ((awake(vit), lambda out: out[0][:, 1]), (awake(senet), 1)):
        found = relevance(model, images, target=target)
        assert found.shape == images.shape
        assert found.isfinite().all()
        close(relevance(model, images[1:], target=target), found[1:], 1e-2)


def test_calls_leave_nothing_behind() -> None:
    model, images = nn.Sequential(small(), nn.ReLU()), pictures()

    def held() -> int:
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    explained(model, images, "lrp")
    before = held()
    for _ in range(5):
        explained(model, images, "lrp")
    assert held() <= before


@pytest.mark.parametrize("axes", [2, 3])
def test_relevance_cam_at_any_layer_is_its_paper(axes: int) -> None:
    model, images = small(axes), pictures(2, axes)
    exact = small(axes).double()
    steps = [nn.ReLU(), nn.Sequential(exact.second, exact.norm), nn.ReLU(), exact.pool, nn.Flatten(), exact.third,
             nn.ReLU(), exact.fourth]  # fmt: skip
    for layer, after in (("first", steps), ("pool", steps[4:])):
        found = pellucid.explain(model, images, "relevance-cam", layer=layer, target="all")
        before = nn.Sequential(exact.first, *steps[: len(steps) - len(after)])
        for b, image in enumerate(images):
            activations = before(image.double().unsqueeze(0)).detach()
            for wanted in range(3):
                of = reference.contrastive_relevance(after, activations, wanted)
                weights = torch.from_numpy(of).flatten(1).sum(dim=1)
                slow = torch.einsum("k,k...->...", weights, activations[0]).relu().float()
                ours = found.layer_maps["relevance-cam"][b, wanted]
                assert (ours - slow).abs().max() < 1e-4 * max(float(slow.max()), 1e-3)


@pytest.mark.parametrize("make", [MixingHead, GatedHead, Shuffling, Reviewing])
def test_relevance_cam_of_the_head_alone_is_that_of_the_whole_network(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = seeded(make()), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    alone = pellucid.explain(model, images, "relevance-cam", layer="layer", target="all").maps["relevance-cam"]
    monkeypatch.setattr("pellucid.attribution.head._WAYS", {})  # the whole network, then
    whole = pellucid.explain(model, images, "relevance-cam", layer="layer", target="all").maps["relevance-cam"]
    close(alone, whole)


def test_relevance_cam_does_not_turn_with_the_sign_of_the_score() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[4].bias.zero_()  # type: ignore[operator, union-attr]
    found = explained(model, pictures(), "relevance-cam", target=0)["relevance-cam"]
    with torch.no_grad():
        model[4].bias -= 10  # type: ignore[operator]  # which the z⁺ rule leaves out
    assert (model(pictures())[:, 0] < 0).all()
    assert found.max() > 0
    close(explained(model, pictures(), "relevance-cam", target=0)["relevance-cam"], found)
