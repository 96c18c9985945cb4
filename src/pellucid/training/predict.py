"""Class probabilities of a trained network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pellucid.progress import progress
from pellucid.training.classifier import Batch


def predict(network: nn.Module, loader: DataLoader[Batch], *, show_progress: bool = False) -> Tensor:
    """Probabilities (N, K) in [0, 1], float32, on the CPU, in the loader's order.

    A single logit counts as two classes by the sigmoid. The network runs where its parameters are; it comes
    back in the mode it was in.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    probabilities = []
    try:
        with torch.inference_mode(), progress("predicting", len(loader), show=show_progress) as advance:
            for images, _, _ in loader:
                probabilities.append(_probabilities(network(images.to(device))).cpu())
                advance(1)
    finally:
        network.train(was_training)
    return torch.cat(probabilities)


def _probabilities(logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        positive = logits.float().sigmoid()
        return torch.cat([1 - positive, positive], dim=1)
    return logits.float().softmax(dim=1)
