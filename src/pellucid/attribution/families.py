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
    change along the activations (the score's Hessian times them); `relevance` (B, K, *s), which is propagated back to
    the layer by LRP's z⁺ rule, other classes counting against the explained one; `rival gradients` (B, R, K, *s), those
    of the R classes with the nearest logits, as many as the option `rivals` names, the nearest first.
    """
    return METHODS.register(name, family="cam", source=source, needs=needs)


def layered_cam(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a CAM of several layers, whose map is as large as the image.

    `f(activations, gradients, size) -> map (B, *size)`, the first two sequences of (B, K, *s), a layer each, the
    explained one last. Its option `layers` says which: how many of those that `find_stages` names, or their names.
    """
    return METHODS.register(name, family="layered-cam", source=source, needs=("stages",))


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


def guided_cam(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a method that changes the network's rules and looks at a layer too, whose map is as large as the image.

    `f(model, gradient_of, images, activations (B, K, *s), gradients (T, B, K, *s)) -> map (B, T, *S)`
    """
    needs = ("model", "image gradients", "activations", "gradients")
    return METHODS.register(name, family="gradient", source=source, needs=needs)


def control(name: str, *, source: str) -> Callable[[Method], Method]:
    """Declare a control, which never sees the model: `f(images (B, C, *S), seeds (B,)) -> map (B, *S)`."""
    return METHODS.register(name, family="control", source=source, needs=("images",))


def is_control(label: str) -> bool:
    """Whether a label is that of a control, whatever its options; a user's own map is none.

    >>> is_control("random"), is_control("layer-cam"), is_control("mine")
    (True, False, False)
    """
    name = label.partition("[")[0]
    return name in METHODS and METHODS[name].family == "control"
