"""The registry of attribution methods, and the line that declares a method of each family."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pellucid.registry import Registry

Method = Callable[..., Tensor]

METHODS: Registry[Method] = Registry("method")


def cam(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a gradient-weighted CAM: `f(activations (B, K, *s), gradients (B, K, *s)) -> map (B, *s)`."""
    return METHODS.register(name, family="cam", source=source, needs=("activations", "gradients"))


def rescoring_cam(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a CAM that rescores: `f(activations (B, K, *s), scores (B,), drops (B, K)) -> map (B, *s)`.

    `drops` holds how much the score falls when a channel is set to zero.
    """
    return METHODS.register(name, family="rescoring-cam", source=source, needs=("activations", "scores", "drops"))


def control(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a control, which never sees the model: `f(images (B, C, *S), seeds (B,)) -> map (B, *S)`."""
    return METHODS.register(name, family="control", source=source, needs=("images",))
