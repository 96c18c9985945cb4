"""Which parameters are trained, how fast each, and how the rate runs over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from pellucid.errors import expected
from pellucid.training.settings import TrainingSettings

MOMENTUM = 0.9


def make_optimiser(network: nn.Module, settings: TrainingSettings, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW or SGD with Nesterov's momentum over all parameters, by groups of `parameter_groups`."""
    groups = parameter_groups(network, learning_rate, settings.weight_decay or 0.0, settings.layer_decay or 1.0)
    # one pass over each parameter, several times as fast; Lightning doesn't clip or unscale before such a step in mixed
    # precision
    clipped = bool(settings.gradient_clip)
    fused = settings.precision == "float32" or (settings.precision == "bfloat16" and not clipped)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused)


def parameter_groups(
    network: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameters by their learning rate and weight decay, the head's last.

    Biases, norm scales and what the network names itself (`no_weight_decay`, such as positions) aren't decayed. The
    rate of a group of layers is that of the group behind it times `layer_decay`; the last group has `learning_rate`.
    """
    depths = layer_depths(network)
    undecayed = set(getattr(network, "no_weight_decay", set)() or ())
    last = max(depths.values())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depths[name] if layer_decay < 1 else last
        groups.setdefault((depth, parameter.ndim > 1 and name not in undecayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (last - depth),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (depth, decayed), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def layer_depths(network: nn.Module) -> dict[str, int]:
    """How far from the input each parameter's group of layers lies, from 0: timm's stages, else the outermost modules.

    >>> layer_depths(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    {'0.weight': 0, '0.bias': 0, '2.weight': 1, '2.bias': 1}
    """
    matcher = getattr(network, "group_matcher", None)
    if matcher is not None:
        return dict(group_parameters(network, matcher(coarse=True), reverse=True))
    names = [name for name, _ in network.named_parameters()]
    outer = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return {name: outer.index(name.partition(".")[0]) for name in names}


def head_of(network: nn.Module) -> list[nn.Module]:
    """The modules that turn features into logits: timm's classifier, else the last linear layer.

    Raises InputError for a network with neither.
    """
    classifier = getattr(network, "get_classifier", lambda: None)()
    heads = list(classifier) if isinstance(classifier, tuple) else [classifier]
    found = [head for head in heads if isinstance(head, nn.Module) and any(True for _ in head.parameters())]
    if found:
        return found
    linear: list[nn.Module] = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise expected(
            "freeze_epochs", f"0 for {type(network).__name__}, which ends in no linear layer", "more", do="Set it to 0."
        )
    return linear[-1:]


def freeze(network: nn.Module, trained: Sequence[nn.Parameter], *, but_head: bool) -> None:
    """Train `trained`, or those of the head alone, with norms and dropout of all else as in evaluation."""
    network.train(not but_head)
    for parameter in trained:
        parameter.requires_grad_(not but_head)
    if but_head:
        own = {id(parameter) for head in head_of(network) for parameter in head.train().parameters()}
        for parameter in trained:
            parameter.requires_grad_(id(parameter) in own)


def rate_factor(settings: TrainingSettings, steps: int, frozen_steps: int) -> Callable[[int], float]:
    """What each step's learning rates are multiplied by, in [0, 1].

    While the network is frozen a warm-up, then a constant; from there on a warm-up, then a cosine to 0 or a constant.

    >>> factor = rate_factor(TrainingSettings(warmup=0.25), 8, 0)
    >>> [round(factor(step), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """

    def factor(step: int) -> float:
        frozen = step < frozen_steps
        place, length = (step, frozen_steps) if frozen else (step - frozen_steps, steps - frozen_steps)
        warmup = max(1, round(settings.warmup * length))
        if place < warmup:
            return (place + 1) / warmup
        if frozen or settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (place - warmup) / max(1, length - warmup)))

    return factor
