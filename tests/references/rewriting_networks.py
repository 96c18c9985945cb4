"""Networks that the tests of rewriting methods share, and what they ask of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import pellucid

RECTIFIED = ("module", "in place", "reused", "functional", "method in place", "clamp")


class Small(nn.Module):
    """Two convolutions, a pool and two linear layers, with each way of writing a ReLU."""

    def __init__(self, axes: int = 2, relu: str = "module") -> None:
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[axes - 2]
        self.first, self.second = conv(2, 5, 3, padding=1), conv(5, 6, 3)
        self.norm = (nn.BatchNorm2d, nn.BatchNorm3d)[axes - 2](6)
        self.pool = (nn.MaxPool2d, nn.MaxPool3d)[axes - 2](2)
        self.third, self.fourth = nn.LazyLinear(7), nn.Linear(7, 3)
        self.relu = relu
        self.act1 = nn.ReLU(inplace=relu == "in place")
        self.act2 = self.act1 if relu == "reused" else copy.deepcopy(self.act1)
        self.act3 = self.act1 if relu == "reused" else copy.deepcopy(self.act1)

    def rectified(self, x: Tensor, act: nn.Module) -> Tensor:
        if self.relu == "functional":
            return functional.relu(x)
        if self.relu == "method in place":
            x.relu_()
            return x
        return x.clamp(min=0) if self.relu == "clamp" else act(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectified(self.first(x), self.act1)
        x = self.pool(self.rectified(self.norm(self.second(x)), self.act2))
        return self.fourth(self.rectified(self.third(x.flatten(1)), self.act3))


def small(axes: int = 2, relu: str = "module") -> Small:
    torch.manual_seed(1)
    model = Small(axes, relu)
    model(pictures(axes=axes))
    with torch.no_grad():
        for values in (model.norm.running_mean, model.norm.weight, model.norm.bias):
            values.uniform_(-0.5, 1)  # type: ignore[union-attr]
        model.norm.running_var.uniform_(0.2, 1.5)  # type: ignore[union-attr]
    return model.eval()


def layers(model: Small) -> list[nn.Module]:
    """The small network's steps one after another."""
    return [model.first, nn.ReLU(), model.second, model.norm, nn.ReLU(), model.pool, nn.Flatten(), model.third,
            nn.ReLU(), model.fourth]  # fmt: skip


def pictures(count: int = 3, axes: int = 2) -> Tensor:
    return torch.randn(count, 2, *(8, 7, 6)[:axes], generator=torch.Generator().manual_seed(2))


def explained(model: nn.Module, images: Tensor, *choices: object, **options: object) -> dict[str, Tensor]:
    return dict(pellucid.explain(model, images, list(choices), **options).maps)  # type: ignore[arg-type]


def state(model: nn.Module) -> list[Any]:
    """All that a method could leave behind in a network."""
    tensors = [(name, value.tolist(), value.requires_grad) for name, value in model.state_dict(keep_vars=True).items()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    return [tensors, hooks, [(name, m.training, sorted(vars(m))) for name, m in model.named_modules()]]


class Attending(nn.Module):
    """A patch embedding and one transformer block of two heads, its attention written in each way."""

    def __init__(self, axes: int = 2, written: str = "@") -> None:
        super().__init__()
        self.embed = (nn.Conv2d, nn.Conv3d)[axes - 2](2, 8, 3, stride=3)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)
        self.written = written
        if written == "module":
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.attention.in_proj_weight, self.attention.in_proj_bias = self.qkv.weight, self.qkv.bias
            self.attention.out_proj.weight, self.attention.out_proj.bias = self.proj.weight, self.proj.bias

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each token takes of all values, (B, h, N, d)."""
        if self.written == "fused":
            return functional.scaled_dot_product_attention(q, k, v)
        if self.written == "named":
            return functional.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=None, scale=0.5)
        if self.written == "einsum":
            weights = (torch.einsum("bhid,bhjd->bhij", q, k) * 0.5).softmax(dim=-1)
            return torch.einsum("bhij,bhjd->bhid", weights, v)
        if self.written == "bmm":
            weights = functional.softmax(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).div(2), dim=2)
            return torch.bmm(functional.dropout(weights, 0.5, self.training), v.flatten(0, 1)).unflatten(0, (-1, 2))
        return torch.matmul(torch.softmax(0.5 * (q @ k.transpose(2, 3)), -1), v)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        normed = self.norm1(tokens)
        if self.written == "module":
            tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        else:
            q, k, v = self.qkv(normed).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            tokens = tokens + self.proj(self.mixed(q, k, v).transpose(1, 2).flatten(2))
        tokens = tokens + self.fc2(functional.gelu(self.fc1(self.norm2(tokens))))
        return self.head(tokens.mean(dim=1))


def attending(axes: int = 2, written: str = "@") -> Attending:
    torch.manual_seed(3)
    model = Attending(axes, written)
    torch.manual_seed(4)  # the module has drawn as well
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
        model.qkv.weight.mul_(2)  # large enough that attention isn't even
    return model.eval()
