"""The registry of attribution methods, and the line that declares a method of each family."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pellucid.registry import Registry

Method = Callable[..., Tensor]

METHODS: Registry[Method] = Registry("method", shared=("smooth",))  # what the engine does for any method


def cam(name: str, *, source: str, needs: tuple[str, ...] = ("activations", "gradients")) -> Callable[[Method], Method]:
    """Declare a CAM of what one pass gives: `f(activations (B, K, *s), gradients (B, K, *s)) -> map (B, *s)`.

    It is called with what `needs` names, in that order: besides these two `curvature` (B, K, *s), the gradients'
    change along the activations (the score's Hessian times them).
    """
    return METHODS.register(name, family="cam", source=source, needs=needs)


def rescoring_cam(name: str, *, source: str, needs: tuple[str, ...]) -> Callable[[Method], Method]:
    """Declare a CAM that rescores, channel by channel: `f(activations (B, K, *s), ...) -> map (B, *s)`.

    It is called with what `needs` names, in that order: besides `activations` the `scores` (B,); `drops` (B, K), how
    much the score falls when a channel is set to zero; `masked scores` (B, K), the score of the image seen through
    each channel.
    """
    return METHODS.register(name, family="rescoring-cam", source=source, needs=needs)


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
