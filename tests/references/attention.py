"""Attention methods as their papers write them, on a plain ViT computed by hand, one image and one class at a time.

The ViT is timm's, or MONAI's, whose parts have other names.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def attention_by_hand(block: nn.Module, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Attention (N, N) and values (N, d) of each head, from tokens (N, K)."""
    attn = block.attn
    rows = torch.nn.functional.linear(block.norm1(tokens), attn.qkv.weight, attn.qkv.bias)
    query, key, value = rows.chunk(3, dim=1)
    width = query.shape[1] // attn.num_heads
    maps, values = [], []
    for head in range(attn.num_heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[:, part] @ key[:, part].T / width**0.5
        maps.append(logits.exp() / logits.exp().sum(dim=1, keepdim=True))
        values.append(value[:, part])
    return maps, values


def block_by_hand(block: nn.Module, tokens: Tensor, maps: list[Tensor], values: list[Tensor]) -> Tensor:
    mixed = torch.cat([weights @ value for weights, value in zip(maps, values, strict=True)], dim=1)
    last = block.attn.out_proj if hasattr(block.attn, "out_proj") else block.attn.proj
    tokens = tokens + torch.nn.functional.linear(mixed, last.weight, last.bias)
    return tokens + block.mlp(block.norm2(tokens))


def embedded(model: nn.Module, image: Tensor) -> Tensor:
    if hasattr(model, "patch_embedding"):
        embedding = model.patch_embedding
        patches = embedding.patch_embeddings(image.unsqueeze(0))[0].flatten(1).T + embedding.position_embeddings[0]
        return torch.cat([model.cls_token[0], patches])
    patches = model.patch_embed(image.unsqueeze(0))[0]
    if model.cls_token is None:
        return patches + model.pos_embed[0]
    return torch.cat([model.cls_token[0], patches]) + model.pos_embed[0]


def attention_rollout(model: nn.Module, image: Tensor, from_class: bool) -> np.ndarray:
    """What flows into each patch (P,): equation 1, layer by layer from the first."""
    tokens = embedded(model, image)
    flow = np.eye(len(tokens))
    with torch.no_grad():
        for block in model.blocks:
            maps, values = attention_by_hand(block, tokens)
            mean = sum(each.double().numpy() for each in maps) / len(maps)
            flow = (0.5 * mean + 0.5 * np.eye(len(tokens))) @ flow
            tokens = block_by_hand(block, tokens, maps, values)
    return flow[0, 1:] if from_class else flow.mean(axis=0)


def le_grad(model: nn.Module, image: Tensor, wanted: int) -> np.ndarray:
    """Sensitivity of each patch (P,): the mean over blocks of the positive gradients, heads and queries averaged."""
    tokens = embedded(model, image).detach()
    prefix = 0 if model.cls_token is None else 1
    total = np.zeros(len(tokens))
    for block in model.blocks:
        maps, values = attention_by_hand(block, tokens)
        leaves = [each.detach().requires_grad_() for each in maps]
        output = block_by_hand(block, tokens, leaves, [value.detach() for value in values])
        pooled = model.norm(output)[0] if prefix else model.fc_norm(model.norm(output).mean(dim=0))
        score = (model.classification_head if hasattr(model, "patch_embedding") else model.head)(pooled)[wanted]
        for slope in torch.autograd.grad(score, leaves):
            for query in range(len(tokens)):
                total += np.maximum(slope[query].double().numpy(), 0) / (len(leaves) * len(tokens))
        tokens = output.detach()
    return total[prefix:] / len(model.blocks)
