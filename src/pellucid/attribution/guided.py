"""Gradients that pass rectifiers by other rules: guided backpropagation and the deconvolutional network.

`gradient_of` and the shapes are those of `gradient.py`. Rectifiers are ReLU, ReLU6 and clamping at zero, as modules or
functions, used once or often.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import Gradients
from pellucid.attribution.cam import grad_cam
from pellucid.attribution.channels import Channels, over_channels
from pellucid.attribution.families import guided_cam, rewriting
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.rules import Answer, Call, Rewritten, Rule, pulled_back
from pellucid.errors import expected


@rewriting("guided-backprop", family="gradient", source="Springenberg et al. 2015, section 3.4")
def guided_backprop(
    model: nn.Module, gradient_of: Gradients, images: Tensor, seeds: Tensor, *, channels: Channels = "largest"
) -> Tensor:
    """Gradient that passes a rectifier only where both its input and what flows back are positive."""
    return over_channels(_through(model, gradient_of, images, "guided-backprop", masked=True), channels)


@rewriting("deconvolution", family="gradient", source="Zeiler & Fergus 2014, section 2.1")
def deconvolution(
    model: nn.Module, gradient_of: Gradients, images: Tensor, seeds: Tensor, *, channels: Channels = "largest"
) -> Tensor:
    """Gradient that passes a rectifier where what flows back is positive, whatever its input was."""
    return over_channels(_through(model, gradient_of, images, "deconvolution", masked=False), channels)


@guided_cam("guided-grad-cam", source="Selvaraju et al. 2017, section 3.2, Guided Grad-CAM")
def guided_grad_cam(
    model: nn.Module,
    gradient_of: Gradients,
    images: Tensor,
    activations: Tensor,
    gradients: Tensor,
    *,
    channels: Channels = "largest",
) -> Tensor:
    """Guided backpropagation times the layer's Grad-CAM, cut at zero and enlarged to the image."""
    cams = torch.stack([grad_cam(activations, each) for each in gradients], dim=1)
    slopes = _through(model, gradient_of, images, "guided-grad-cam", masked=True)
    return over_channels(slopes * resize_maps(cams, images.shape[2:]).unsqueeze(2), channels)


def is_rectifier(call: Call) -> bool:
    """Whether a call cuts its input off at zero."""
    if call.name in ("relu", "relu6"):
        return True
    if call.name in ("clamp", "clip", "clamp_min"):
        return bool(call.given(1, "min") == 0)
    return call.name == "hardtanh" and bool(call.given(1, "min_val", -1.0) == 0)


def _through(model: nn.Module, gradient_of: Gradients, images: Tensor, method: str, masked: bool) -> Tensor:
    """The gradient with rectifiers replaced, (B, T, C, *S); raises InputError where the network has none."""
    met: list[str] = []

    def answer(call: Call) -> Tensor | None:
        if not is_rectifier(call):
            return None
        met.append(call.name)
        return call.ruled(_masked(call) if masked else _open)

    def begin() -> Answer:
        return answer

    rewritten = Rewritten(model, begin, lambda step: step.startswith("Relu"), method)
    slopes = gradient_of.through(rewritten)(images, torch.arange(len(images), device=images.device))
    if not met:
        raise expected(
            "model",
            f"at least one ReLU, whose rule {method!r} changes",
            "a network without any",
            do="Without one the method is the plain gradient: use 'saliency'.",
        )
    return slopes


def _masked(call: Call) -> Rule:
    return lambda flow, x: pulled_back(call, [x], flow.clamp(min=0))


def _open(flow: Tensor, x: Tensor) -> tuple[Tensor]:
    return (flow.clamp(min=0),)
