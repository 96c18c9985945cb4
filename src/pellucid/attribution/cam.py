"""Class activation maps as pure functions of a layer's activations and what the score says about them.

Throughout, `activations` is the layer's output (B, K, *s) with K channels and any number of spatial axes,
`gradients` the score's gradient with respect to it, of the same shape, and the map (B, *s) is at the layer's
resolution. `positive=False` gives the signed map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.attribution.families import cam, rescoring_cam
from pellucid.errors import expected

_FLAT = 3e-4  # squares that vary less over positions, relative to their size, vary by rounding and a norm's ε


@cam("grad-cam", source="Selvaraju et al. 2017, eqs. 1 and 2")
def grad_cam(activations: Tensor, gradients: Tensor, *, positive: bool = True) -> Tensor:
    """Activations weighted by the spatial mean of their gradients.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])
    >>> gradients = torch.tensor([[[[1.0, 1.0]], [[-1.0, 0.0]]]])
    >>> grad_cam(activations, gradients)
    tensor([[[1.0000, 0.5000]]])
    """
    return _finish(_weighted(gradients.flatten(2).mean(dim=2), activations), positive)


@cam("grad-cam-plus-plus", source="Chattopadhay et al. 2018, eq. 19")
def grad_cam_plus_plus(activations: Tensor, gradients: Tensor, *, positive: bool = True) -> Tensor:
    """Activations weighted by their positive gradients, each scaled by how many positions share the evidence.

    The weight of a channel is the sum over positions of α · relu(G) with α = 1 / (2 + G Σ A): equation 19 divided
    through by G², without an ε. Where the denominator is exactly zero, which needs negative activations, α is 0.

    >>> activations = torch.tensor([[[[1.0, 3.0]]]])
    >>> grad_cam_plus_plus(activations, torch.tensor([[[[1.0, -1.0]]]]))  # weight 1 / (2 + 4)
    tensor([[[0.1667, 0.5000]]])
    """
    rising = gradients.flatten(2).relu()
    denominator = 2 + activations.flatten(2).sum(dim=2, keepdim=True) * rising
    shares = torch.where(denominator == 0, 0, rising / torch.where(denominator == 0, 1, denominator))
    return _finish(_weighted(shares.sum(dim=2), activations), positive)


@cam("xgrad-cam", source="Fu et al. 2020, the weights that meet sensitivity and conservation")
def xgrad_cam(activations: Tensor, gradients: Tensor, *, positive: bool = True) -> Tensor:
    """Activations weighted by the mean gradient over positions, each position counting by its activation.

    A channel whose activations sum to zero, to rounding, gets weight 0.

    >>> activations = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    >>> xgrad_cam(activations, torch.tensor([[[[2.0, -0.5]], [[1.0, 1.0]]]]))  # weight (2 - 1.5) / 4
    tensor([[[0.1250, 0.3750]]])
    """
    flat = activations.flatten(2)
    total = flat.sum(dim=2)
    vanishing = total.abs() <= 16 * torch.finfo(flat.dtype).eps * flat.abs().sum(dim=2)
    evidence = (gradients.flatten(2) * flat).sum(dim=2)
    weights = torch.where(vanishing, 0, evidence / torch.where(vanishing, 1, total))
    return _finish(_weighted(weights, activations), positive)


@cam("layer-cam", source="Jiang et al. 2021, element-wise weights relu(G)")
def layer_cam(activations: Tensor, gradients: Tensor, *, positive: bool = True) -> Tensor:
    """Activations times their positive gradients, position by position, summed over channels.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[4.0, 3.0]]]])
    >>> layer_cam(activations, torch.tensor([[[[1.0, -1.0]], [[0.0, 2.0]]]]))
    tensor([[[1., 6.]]])
    """
    return _finish((gradients.relu() * activations).sum(dim=1), positive)


@cam("hires-cam", source="Draelos & Carin 2020, eq. 5")
def hires_cam(activations: Tensor, gradients: Tensor, *, positive: bool = True) -> Tensor:
    """Activations times their gradients, position by position, summed over channels.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[4.0, 3.0]]]])
    >>> hires_cam(activations, torch.tensor([[[[1.0, -1.0]], [[0.0, 2.0]]]]))
    tensor([[[1., 4.]]])
    """
    return _finish((gradients * activations).sum(dim=1), positive)


@cam("eigen-cam", source="Muhammad & Yeasin 2020; centred as in pytorch-grad-cam", needs=("activations",))
def eigen_cam(activations: Tensor, *, positive: bool = True, centred: bool = True) -> Tensor:
    """First principal component of the activations, over positions; the same for every class.

    The component's sign, which is arbitrary, is the one that correlates positively with Σ_k A². `centred=False` leaves
    out the subtraction of each channel's mean, as the paper does.

    >>> eigen_cam(torch.tensor([[[[1.0, 2.0, 6.0]]]]))  # one channel: itself, centred
    tensor([[[0., 0., 3.]]])
    """
    return _finish(_principal_map(activations, centred), positive)


@cam("eigen-grad-cam", source="pytorch-grad-cam, EigenGradCAM; after Muhammad & Yeasin 2020")
def eigen_grad_cam(activations: Tensor, gradients: Tensor, *, positive: bool = True, centred: bool = True) -> Tensor:
    """First principal component of activations times gradients, over positions.

    The component's sign, which is arbitrary, is the one that correlates positively with Σ_k (G A)²; where that
    tells nothing, as in a flat layer, the largest entry is positive.
    `centred=False` leaves out the subtraction of each channel's mean, as Eigen-CAM's paper does.

    >>> activations = torch.tensor([[[[1.0, 2.0, 6.0]]]])
    >>> eigen_grad_cam(activations, torch.ones_like(activations))  # one channel: itself, centred
    tensor([[[0., 0., 3.]]])
    """
    return _finish(_principal_map(activations * gradients, centred), positive)


@cam(
    "shapley-cam",
    source="Cai 2025, the Shapley value of a channel to second order",
    needs=("activations", "gradients", "curvature"),
)
def shapley_cam(activations: Tensor, gradients: Tensor, curvature: Tensor, *, positive: bool = True) -> Tensor:
    """Activations weighted by the spatial mean of their gradients less half of what the Hessian adds to them.

    Where the score is linear in the activations, as under global pooling and a linear layer, it is Grad-CAM.

    >>> activations, gradients = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    >>> shapley_cam(activations, gradients, torch.tensor([[[[1.0, 0.0]]]]))  # weight 1 - 0.25
    tensor([[[0.7500, 1.5000]]])
    """
    return _finish(_weighted((gradients - curvature / 2).flatten(2).mean(dim=2), activations), positive)


@cam(
    "relevance-cam",
    source="Lee et al. 2021, its relevance contrastive and by the z⁺ rule",
    needs=("activations", "relevance"),
)
def relevance_cam(activations: Tensor, relevance: Tensor, *, positive: bool = True) -> Tensor:
    """Activations weighted by the relevance of their channel, which is propagated back from the scores.

    `relevance` (B, K, *s) starts with 1 at the explained class and -1 / (n - 1) at each of n - 1 others, without the
    score, as in the authors' code (where it is -1 / n): times a negative score every sign would turn.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[4.0, 0.0]]]])
    >>> relevance_cam(activations, torch.tensor([[[[0.5, 0.5]], [[-0.5, 0.0]]]]))  # weights 1 and -0.5
    tensor([[[0., 2.]]])
    """
    return _finish(_weighted(relevance.flatten(2).sum(dim=2), activations), positive)


@cam(
    "finer-cam",
    source="Zhang et al. 2025, Grad-CAM of y^c less the mean of γ y^d over similar classes d",
    needs=("activations", "gradients", "rival gradients"),
)
def finer_cam(
    activations: Tensor,
    gradients: Tensor,
    rival_gradients: Tensor,
    *,
    strength: float = 0.6,
    rivals: int = 3,
    positive: bool = True,
) -> Tensor:
    """Grad-CAM of what sets the class apart: its score less `strength` (γ) times the mean score of similar classes.

    The `rivals` are the classes whose logits lie nearest to the explained one's, all others where there are fewer;
    `rival_gradients` (B, R, K, *s) holds at least so many, the nearest first. A single logit z is its rival's -z, so
    that the map is Grad-CAM's times 1 + γ.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])
    >>> gradients = torch.tensor([[[[1.0, 1.0]], [[2.0, 2.0]]]])
    >>> finer_cam(activations, gradients, gradients.unsqueeze(1), strength=1.0)  # nothing sets it apart
    tensor([[[0., 0.]]])
    """
    if rivals < 1:
        raise expected("rivals", "at least 1", rivals)
    apart = gradients - strength * rival_gradients[:, :rivals].mean(dim=1)
    return _finish(_weighted(apart.flatten(2).mean(dim=2), activations), positive)


@rescoring_cam(
    "ablation-cam",
    source="Desai & Ramaswamy 2020, weights (y - y_k) / y, here divided by |y|",
    needs=("activations", "scores", "drops"),
)
def ablation_cam(
    activations: Tensor, scores: Tensor, drops: Tensor, *, positive: bool = True, relative: bool = True
) -> Tensor:
    """Activations weighted by how much the score falls when their channel is set to zero, relative to its size.

    Arguments:
        activations: (B, K, *s).
        scores: (B,), the score y of each image.
        drops: (B, K), y - y_k, where y_k is the score with channel k set to zero.
        relative: divide by |y|, so that a negative score doesn't turn every sign; a score of exactly 0 divides by
            nothing. False weighs by the plain drop.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])
    >>> ablation_cam(activations, torch.tensor([-2.0]), torch.tensor([[1.0, -0.1]]))
    tensor([[[0.5000, 0.8500]]])
    """
    size = scores.abs().unsqueeze(1)
    weights = drops / torch.where(size == 0, 1, size) if relative else drops
    return _finish(_weighted(weights, activations), positive)


@rescoring_cam("score-cam", source="Wang et al. 2020, algorithm 1", needs=("activations", "masked scores"))
def score_cam(activations: Tensor, masked_scores: Tensor, *, positive: bool = True) -> Tensor:
    """Activations weighted by the softmax, over channels, of the score of the image seen through each channel.

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[4.0, 0.0]]]])
    >>> score_cam(activations, torch.tensor([[0.0, 0.0]]))  # half the sum
    tensor([[[2.5000, 1.0000]]])
    """
    return _finish(_weighted(masked_scores.softmax(dim=1), activations), positive)


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """Σ_k weights (B, K) · activations (B, K, *s)."""
    combined = torch.bmm(weights.unsqueeze(1), activations.flatten(2))
    return combined.reshape(-1, *activations.shape[2:])


def _finish(saliency: Tensor, positive: bool) -> Tensor:
    return saliency.relu() if positive else saliency


def _principal_map(features: Tensor, centred: bool) -> Tensor:
    """First principal component (B, *s) of features (B, K, *s) over positions, its sign that of Σ_k of their squares.

    Where that tells nothing, as in a flat layer or behind a layer norm, the largest entry is positive.
    """
    table = features.flatten(2).mT
    component = _first_component(table, centred)
    energy = table.square().sum(dim=2)
    correlation = (component * (energy - energy.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True)
    size = (component.abs() * energy).sum(dim=1, keepdim=True)
    peak = component.gather(1, component.abs().argmax(dim=1, keepdim=True))
    sign = torch.where(correlation.abs() <= _FLAT * size, peak, correlation)
    return torch.where(sign < 0, -component, component).reshape(-1, *features.shape[2:])


def _first_component(table: Tensor, centred: bool) -> Tensor:
    """Projection of each table (B, P, K) on its first right singular vector, (B, P), zero where only rounding is left.

    Taken from the eigenvectors of the smaller Gram matrix, in float64 where the device has it, since squaring
    halves the digits.
    """
    work = table if table.device.type == "mps" else table.double()
    if centred:
        work = work - work.mean(dim=1, keepdim=True)
    if work.shape[1] <= work.shape[2]:
        values, vectors = torch.linalg.eigh(work @ work.mT)
        component = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(work.mT @ work)
        component = (work @ vectors[:, :, -1:]).squeeze(2)
    rounding = torch.finfo(table.dtype).eps * torch.linalg.vector_norm(table, dim=(1, 2)).unsqueeze(1)
    size = torch.linalg.vector_norm(component, dim=1, keepdim=True)
    return torch.where(size <= rounding, 0, component).to(table.dtype)
