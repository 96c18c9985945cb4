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


def gradient(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a gradient method: `f(gradient_of, images (B, C, *S), seeds (B,)) -> map (B, T, *S)`.

    `gradient_of` is `asking.Gradients`: rows and the image each derives from in, gradients (M, T, C, *S) out, T being
    the scores explained of each image.
    """
    return METHODS.register(name, family="gradient", source=source, needs=("image gradients",))


def perturbation(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a perturbation method: `f(score_of, images (B, C, *S), seeds (B,)) -> map (B, T, *S)`.

    `score_of` is `asking.Scores`: rows and the image each derives from in, scores (M, T) out. The network may be any
    function.
    """
    return METHODS.register(name, family="perturbation", source=source, needs=("scores",))


def rewriting(name: str, *, family: str, source: str) -> Callable[[Method], Method]:
    """Declare a method that changes the network's rules: `f(model, gradient_of, images, seeds) -> map (B, T, *S)`.

    It rewrites the module inside a context that gives it back.
    """
    return METHODS.register(name, family=family, source=source, needs=("model", "image gradients"))


def control(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a control, which never sees the model: `f(images (B, C, *S), seeds (B,)) -> map (B, *S)`."""
    return METHODS.register(name, family="control", source=source, needs=("images",))
