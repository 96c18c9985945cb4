"""Networks made random: every weight, in the order of execution, and each given back bit for bit."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.metrics.randomised import owners, randomised
from references.explaining import drawn, network


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors(model).items()}


def same(before: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Names of weights and buffers that are as they were."""
    return [name for name, tensor in tensors(model).items() if torch.equal(tensor, before[name])]


def trained(model: nn.Module) -> nn.Module:
    """As if it had been trained: no weight or running statistic is what a network begins with."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            if tensor.is_floating_point():
                noise = 0.05 * torch.rand(tensor.shape, generator=generator) + 0.01
                tensor.copy_(tensor + noise)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(7)
    return model.eval()


class Backwards(nn.Module):
    """Defined from the output to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.body = nn.Conv2d(4, 4, 3)
        self.stem = nn.Conv2d(1, 4, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """A transformer of torch's own attention, with a class token, positions, a temperature and a gate of constants."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(0.1 * drawn(1, 5, 8))
        self.scale = nn.Parameter(torch.full((8,), 1e-3))
        self.embed = nn.Conv2d(1, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Parameter(drawn(8, 3))
        self.register_buffer("mean", torch.tensor([0.4, 0.5]))
        self.register_buffer("index", torch.tensor([3, 1, 2]))
        self.register_buffer("grid", torch.arange(4.0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        attended, _ = self.attention(tokens, tokens, tokens)
        return (self.norm(tokens + self.scale * attended)[:, 0] - self.mean.mean()) @ self.out


def resnet() -> tuple[nn.Module, Tensor]:
    import timm

    return timm.create_model("resnet10t", num_classes=3), drawn(1, 3, 32, 32)


def densenet() -> tuple[nn.Module, Tensor]:
    from torchvision.models import DenseNet

    return DenseNet(8, (2, 2), 8, num_classes=3), drawn(1, 3, 32, 32)


def vit() -> tuple[nn.Module, Tensor]:
    import timm

    options = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1e-5, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", **options), drawn(1, 3, 32, 32)


def swin() -> tuple[nn.Module, Tensor]:
    import timm

    options = {"img_size": 56, "embed_dim": 24, "depths": (2,), "num_heads": (2,), "num_classes": 3}
    return timm.create_model("swin_tiny_patch4_window7_224", **options), drawn(1, 3, 56, 56)


def volumes() -> tuple[nn.Module, Tensor]:
    from monai.networks.nets import DenseNet

    return DenseNet(3, 1, 2, init_features=4, growth_rate=4, block_config=(1, 1)), drawn(1, 1, 16, 16, 16)


def torchvision_vit() -> tuple[nn.Module, Tensor]:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 16, 2, 2, 24, 48, num_classes=3), drawn(1, 3, 32, 32)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "small": lambda: (network(), drawn(1, 1, 10, 10)),
    "small in 3-D": lambda: (network(axes=3), drawn(1, 1, 6, 6, 6)),
    "tokens": lambda: (Tokens(), drawn(1, 1, 8, 8)),
    "resnet": resnet,
    "densenet": densenet,
    "vit": vit,
    "swin": swin,
    "volumes": volumes,
    "torchvision's vit": torchvision_vit,
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_weight_and_buffer_changes_and_is_given_back(name: str) -> None:
    model, images = NETWORKS[name]()
    trained(model)
    before, order, state = copied(model), owners(model, images), torch.get_rng_state()
    constants = {name for name, tensor in model.named_buffers() if name.rpartition(".")[2] in _CONSTANTS}
    with torch.no_grad():
        plain = model(images)
        with randomised(model, order) as changed:
            assert changed is model
            assert set(same(before, model)) == constants
            assert not torch.allclose(model(images), plain)
            assert model(images).isfinite().all()
        assert torch.equal(model(images), plain)
    assert len(same(before, model)) == len(before)
    assert torch.equal(torch.get_rng_state(), state)


_CONSTANTS = {"index", "grid", "relative_position_index", "attn_mask"}  # of integers, or not saved with the network


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_head_comes_first_and_what_meets_the_image_last(name: str) -> None:
    model, images = NETWORKS[name]()
    model.eval()
    order = owners(model, images)
    assert sorted(order) == sorted({key.rpartition(".")[0] for key in tensors(model)})
    ends = {
        "small": ("7", "0"),
        "small in 3-D": ("7", "0"),
        "tokens": ("", "embed"),
        "resnet": ("fc", "conv1.0"),
        "densenet": ("classifier", "features.conv0"),
        "vit": ("head", "patch_embed.proj"),
        "swin": ("head.fc", "patch_embed.proj"),
        "volumes": ("class_layers.out", "features.conv0"),
        "torchvision's vit": ("heads.head", "conv_proj"),
    }
    assert (order[0], order[-1]) == ends[name]


def test_bare_tokens_come_where_they_are_used_and_not_where_they_are_defined() -> None:
    model, images = vit()
    order = owners(model.eval(), images)
    assert order[-2:] == ("", "patch_embed.proj")  # the class token and the positions join the patches
    assert next(iter(dict(model.named_modules()))) == ""


def test_the_order_is_that_of_execution_with_what_is_unused_last() -> None:
    assert owners(Backwards(), drawn(1, 1, 8, 8)) == ("head", "body", "stem", "unused")


def test_a_module_that_runs_twice_counts_when_it_runs_last() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.between = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, rows: Tensor) -> Tensor:
            return self.again(self.between(self.again(rows)))

    assert owners(Twice(), drawn(1, 3)) == ("again", "between")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_parts_are_found_reset_and_given_back() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())))
    model.append(nn.Flatten()).append(nn.LazyLinear(2))
    images = drawn(1, 1, 8, 8)
    model(images)
    before = copied(model)
    order = owners(model, images)
    assert order[0] == "3"
    assert set(order) == {"3", "1.0", "0"}
    with randomised(model, order):
        assert same(before, model) == []
    assert len(same(before, model)) == len(before)


def test_all_is_given_back_after_an_exception_and_only_what_was_named_changes() -> None:
    model = trained(network())
    before = copied(model)
    modes = [module.training for module in model.modules()]

    def fail() -> None:
        with randomised(model, ["7", "3"]):
            assert set(before) - set(same(before, model)) == {"7.weight", "7.bias", "3.weight", "3.bias"}
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert len(same(before, model)) == len(before)
    assert [module.training for module in model.modules()] == modes


def test_all_is_given_back_where_resetting_itself_fails_or_binds_new_parameters() -> None:
    class Rebinding(nn.Module):
        def __init__(self, fails: bool) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.fails = fails

        def reset_parameters(self) -> None:
            self.weight = nn.Parameter(torch.rand(3))
            if self.fails:
                raise RuntimeError("half way")

    whole, failing = Rebinding(False), Rebinding(True)
    model = nn.Sequential(whole, failing)
    kept = [whole.weight, failing.weight]
    with randomised(model, ["0"]):
        assert whole.weight is not kept[0]

    def fail() -> None:
        with randomised(model, ["0", "1"]):
            raise AssertionError("not reached")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    for module, weight in zip((whole, failing), kept, strict=True):
        assert module.weight is weight
        assert weight.tolist() == [1, 1, 1]


def test_a_modules_random_weights_are_the_same_in_every_stage_and_follow_the_seed() -> None:
    model = trained(network())
    found = []
    for names, seed in ((["7"], 0), (["7", "3"], 0), (["7"], 1)):
        with randomised(model, names, seed):
            found.append(model[7].weight.clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_two_layers_of_one_shape_get_different_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with randomised(model, ["0", "1"]):
        assert not torch.equal(model[0].weight, model[1].weight)


def test_a_module_resets_itself_with_its_running_statistics() -> None:
    model = trained(network())
    with randomised(model, ["1"]):
        assert model[1].weight.tolist() == [1] * 4
        assert model[1].bias.tolist() == [0] * 4
        assert model[1].running_mean.tolist() == [0] * 4
        assert model[1].running_var.tolist() == [1] * 4
        assert model[1].num_batches_tracked.item() == 0
    assert model[1].num_batches_tracked.item() == 7


def test_what_cannot_reset_itself_gets_values_of_its_own_spread_and_range() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Parameter(3 + 2 * drawn(1000))
            self.positive = nn.Parameter(torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.1)
            self.constant = nn.Parameter(torch.full((100,), -4.0))
            self.nought = nn.Parameter(torch.zeros(100))
            self.small = nn.Parameter(drawn(100).half())
            self.register_buffer("hidden", torch.tensor([0.0, float("-inf")]))

    model = Bare()
    with randomised(model, [""]):
        assert model.wide.mean().item() == pytest.approx(3, abs=0.3)
        assert model.wide.std().item() == pytest.approx(2, abs=0.3)
        assert model.positive.min() >= 0.1
        assert -6 <= model.constant.min() < model.constant.max() <= -2
        assert model.nought.std().item() == pytest.approx(0.02, abs=0.005)
        assert model.small.dtype == torch.float16
        assert model.hidden.tolist() == [0, float("-inf")]


def test_a_container_does_not_reset_the_modules_inside_it() -> None:
    class Container(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bare = nn.Parameter(drawn(3))
            self.inner = nn.Linear(3, 3)

        def reset_parameters(self) -> None:
            self.inner.reset_parameters()

    model = Container()
    before = copied(model)
    with randomised(model, [""]):
        assert same(before, model) == ["inner.weight", "inner.bias"]


def test_frozen_norms_and_reparametrised_weights_change_too() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 3, 3)), FrozenBatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2)
    )
    trained(model)
    before, images = copied(model), drawn(1, 1, 8, 8)
    with randomised(model, owners(model, images)):
        assert same(before, model) == []
        assert model(images).isfinite().all()
    assert len(same(before, model)) == len(before)


def test_a_weight_that_two_modules_share_changes_and_is_given_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    before = copied(model)
    with randomised(model, ["1", "0"]):
        assert same(before, model) == []
        assert model[1].weight is model[0].weight
    assert len(same(before, model)) == len(before)


def test_an_unknown_module_is_refused() -> None:
    with (
        pytest.raises(InputError, match="names: expected names of modules in the model, got 'layer9'"),
        randomised(network(), ["layer9"]),
    ):
        pass


# ---- the peer ----


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "untouched"),
    [
        ("vit", {"cls_token", "pos_embed"}),
        ("torchvision's vit", {"class_token", "encoder.pos_embedding"}),
        (
            "tokens",
            {"token", "positions", "scale", "out", "mean", "attention.in_proj_weight", "attention.in_proj_bias"},
        ),
    ],
)
def test_quantus_leaves_weights_as_they_were(name: str, untouched: set[str]) -> None:
    """Its cascade resets modules with a `reset_parameters`, and so no bare parameter and no buffer of another kind."""
    model, images = NETWORKS[name]()
    trained(model)
    before = copied(model)
    *_, (_, last) = _quantus_cascade(model)
    left = {key for key in same(before, last) if key.rpartition(".")[2] not in _CONSTANTS}
    assert untouched <= left
    with randomised(model, owners(model, images)):
        assert not left & set(same(before, model))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_quantus_gives_layers_of_one_shape_the_same_weights_in_the_order_of_definition() -> None:
    """It seeds anew with the same number before each layer, and goes by definition: backwards here from the stem."""
    model = Backwards()
    model.body2 = nn.Conv2d(4, 4, 3)
    stages = [(name, copy.deepcopy(each)) for name, each in _quantus_cascade(model)]
    assert [name for name, _ in stages] == ["body2", "unused", "stem", "body", "head"]
    last: Any = stages[-1][1]
    assert (last.body.weight - last.body2.weight).abs().max() == 0
    assert owners(model, drawn(1, 1, 8, 8))[:3] == ("head", "body", "stem")
    with randomised(model, ["body", "body2"]):
        assert (model.body.weight - model.body2.weight).abs().max() > 0.1


def _quantus_cascade(model: nn.Module) -> Any:
    pytest.importorskip("quantus")
    from quantus.helpers.model.pytorch_model import PyTorchModel

    with torch.random.fork_rng():
        yield from PyTorchModel(model, channel_first=True).get_random_layer_generator("top_down", 42)
