"""CAMs written from their papers with plain loops, and the whole network run for every gradient and ablation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def grad_cam(activations: Array, gradients: Array) -> Array:
    """Selvaraju 2017: the mean over positions of a channel's gradients weighs its activations."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for k in range(channels):
            weight = 0.0
            for s in np.ndindex(*grid):
                weight += gradients[(b, k, *s)]
            weight /= np.prod(grid)
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def grad_cam_plus_plus(activations: Array, gradients: Array, epsilon: float = 0.0) -> Array:
    """Chattopadhay 2018: alpha by equation 19, G² / (2 G² + Σ A · G³), where the gradient isn't zero."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for k in range(channels):
            total = sum(activations[(b, k, *s)] for s in np.ndindex(*grid))
            weight = 0.0
            for s in np.ndindex(*grid):
                g = gradients[(b, k, *s)]
                if g > 0:  # relu(G) is a factor
                    weight += g**2 / (2 * g**2 + total * g**3 + epsilon) * g
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def xgrad_cam(activations: Array, gradients: Array) -> Array:
    """Fu 2020: gradients averaged with the activations as weights."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for k in range(channels):
            total = sum(activations[(b, k, *s)] for s in np.ndindex(*grid))
            if total == 0:
                continue
            weight = sum(activations[(b, k, *s)] / total * gradients[(b, k, *s)] for s in np.ndindex(*grid))
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def layer_cam(activations: Array, gradients: Array) -> Array:
    """Jiang 2021: every position weighed by its own positive gradient."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for s in np.ndindex(*grid):
            for k in range(channels):
                saliency[(b, *s)] += max(gradients[(b, k, *s)], 0.0) * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def hires_cam(activations: Array, gradients: Array) -> Array:
    """Draelos & Carin 2020: every activation times its own gradient."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for s in np.ndindex(*grid):
            for k in range(channels):
                saliency[(b, *s)] += gradients[(b, k, *s)] * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def shapley_cam(activations: Array, gradients: Array, curvature: Array) -> Array:
    """Cai 2025: a channel's mean of G - H·A / 2."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for k in range(channels):
            weight = 0.0
            for s in np.ndindex(*grid):
                weight += (gradients[(b, k, *s)] - 0.5 * curvature[(b, k, *s)]) / np.prod(grid)
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def finer_cam(
    activations: Array, gradients: Array, rival_gradients: Array, strength: float = 0.6, rivals: int = 3
) -> Array:
    """Zhang 2025: the mean over rivals d of Grad-CAM's weights of y^c - γ y^d, cut at zero after the mean."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    count = min(rivals, rival_gradients.shape[1])
    for b in range(images):
        for k in range(channels):
            weight = 0.0
            for d in range(count):
                for s in np.ndindex(*grid):
                    weight += gradients[(b, k, *s)] - strength * rival_gradients[(b, d, k, *s)]
            weight /= count * np.prod(grid)
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def score_cam(activations: Array, masked_scores: Array) -> Array:
    """Wang 2020, algorithm 1: the softmax over channels of what each lets through scores."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        total = sum(np.exp(masked_scores[b, k] - masked_scores[b].max()) for k in range(channels))
        for k in range(channels):
            for s in np.ndindex(*grid):
                weight = np.exp(masked_scores[b, k] - masked_scores[b].max()) / total
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def eigen_grad_cam(activations: Array, gradients: Array, centred: bool = True) -> Array:
    """Muhammad & Yeasin 2020 on G·A instead of A."""
    return eigen_cam(activations * gradients, centred)


def eigen_cam(activations: Array, centred: bool = True) -> Array:
    """Projection of positions on the first right singular vector of A, by the full decomposition."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        table = np.array([[activations[(b, k, *s)] for k in range(channels)] for s in np.ndindex(*grid)])
        energy = (table**2).sum(axis=1)
        if centred:
            table = table - table.mean(axis=0)
        projection = table @ np.linalg.svd(table, full_matrices=False)[2][0]
        if ((projection - projection.mean()) * (energy - energy.mean())).sum() < 0:
            projection = -projection
        saliency[b] = projection.reshape(grid)
    return np.maximum(saliency, 0)


def ablation_cam(activations: Array, scores: Array, drops: Array) -> Array:
    """Desai 2020, divided by the score's size."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for k in range(channels):
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += drops[b, k] / abs(scores[b]) * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def relevance_cam(activations: Array, relevance: Array) -> Array:
    """Lee 2021: a channel's relevance, summed over positions, weighs its activations."""
    images, channels, *grid = activations.shape
    saliency = np.zeros((images, *grid))
    for b in range(images):
        for k in range(channels):
            weight = sum(relevance[(b, k, *s)] for s in np.ndindex(*grid))
            for s in np.ndindex(*grid):
                saliency[(b, *s)] += weight * activations[(b, k, *s)]
    return np.maximum(saliency, 0)


def activations_and_gradients(model: nn.Module, layer: str, image: Tensor, wanted: int) -> tuple[Tensor, Tensor, float]:
    """Layer output, the logit's gradient there, and the logit, for one image (1, C, *S), by the whole graph."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output * 1.0  # what follows may work in place

    handle = model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        logit = model(image.clone().requires_grad_())[0, wanted]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    return kept[0].detach(), gradient, float(logit.detach())


def channel_drops(model: nn.Module, layer: str, image: Tensor, wanted: int) -> Tensor:
    """Fall of the logit for each channel set to zero, by a forward pass of the whole network each, (K,)."""
    module = model.get_submodule(layer)
    channels: list[int] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: channels.append(output.shape[1]))
    with torch.no_grad():
        whole = model(image)[0, wanted]
        handle.remove()
        drops = []
        for channel in range(channels[0]):

            def without(_module: nn.Module, _inputs: object, output: Tensor, channel: int = channel) -> Tensor:
                output = output.clone()
                output[:, channel] = 0
                return output

            handle = module.register_forward_hook(without)
            drops.append(whole - model(image)[0, wanted])
            handle.remove()
    return torch.stack(drops)


def hessian_times_activations(model: nn.Module, layer: str, image: Tensor, wanted: int) -> Tensor:
    """How the logit's gradient at the layer changes along the activations, by differentiating it, (1, K, *s)."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output * 1.0

    handle = model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        logit = model(image.clone().requires_grad_())[0, wanted]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0], create_graph=True)
    bent = None
    if gradient.requires_grad:
        (bent,) = torch.autograd.grad((gradient * kept[0].detach()).sum(), kept[0], allow_unused=True)
    return torch.zeros_like(kept[0]) if bent is None else bent.detach()


def refine_cam(model: nn.Module, layers: list[str], image: Tensor, wanted: int) -> Array:
    """Domeniconi 2026: Grad-CAM++ of each layer, from its least to its largest to [0, 1], enlarged and multiplied."""
    mode = {2: "bilinear", 3: "trilinear"}[image.ndim - 2]
    product = np.ones(tuple(image.shape[2:]))
    for layer in layers:
        activations, slopes, _ = activations_and_gradients(model, layer, image, wanted)
        saliency = grad_cam_plus_plus(activations.double().numpy(), slopes.double().numpy())
        if saliency.max() == saliency.min():
            return np.zeros_like(product)
        saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
        enlarged = torch.nn.functional.interpolate(torch.from_numpy(saliency)[None], size=image.shape[2:], mode=mode)
        product *= enlarged[0, 0].numpy()
    return product


def nearest_classes(logits: Tensor, wanted: int, count: int) -> list[int]:
    """The classes whose logits (n,) lie nearest to the wanted one's, nearest first."""
    others = [k for k in range(len(logits)) if k != wanted]
    return sorted(others, key=lambda k: abs(float(logits[k] - logits[wanted])))[:count]


def scores_through_channels(model: nn.Module, activations: Tensor, image: Tensor, wanted: int) -> Tensor:
    """The logit of the image times each enlarged channel, scaled to [0, 1], by a forward pass each, (K,)."""
    mode = {2: "bilinear", 3: "trilinear"}[activations.ndim - 2]
    scores = []
    for channel in activations[0]:
        enlarged = torch.nn.functional.interpolate(channel[None, None], size=image.shape[2:], mode=mode)
        spread = enlarged.max() - enlarged.min()
        mask = (enlarged - enlarged.min()) / spread if spread > 0 else torch.zeros_like(enlarged)
        with torch.no_grad():
            scores.append(model(image * mask)[0, wanted])
    return torch.stack(scores)
