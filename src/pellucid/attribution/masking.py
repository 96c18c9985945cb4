"""The image seen through each channel of a layer, and what it scores."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.attribution.asking import Scores
from pellucid.attribution.resize import resize_maps


def masked_scores(score_of: Scores, images: Tensor, activations: Tensor) -> Tensor:
    """Scores (T, B, K) of images (B, C, *S) times each channel of activations (B, K, *s), a few at a time.

    A channel is enlarged to the image and scaled from its least and largest value to [0, 1]; one that is the same
    everywhere shows nothing of the image.
    """
    images_count, channels = activations.shape[:2]
    found = []
    for sample, channel in score_of.draws([channels] * images_count):
        here = sample.to(images.device)
        maps = resize_maps(activations[sample, channel].to(images), images.shape[2:]).unsqueeze(1)
        least, most = (each.reshape(-1, *(1,) * (images.ndim - 1)) for each in maps.flatten(1).aminmax(dim=1))
        spread = most - least
        masks = maps.sub_(least).div_(torch.where(spread > 0, spread, 1))  # zero where a channel is flat
        found.append(score_of(images[here] * masks, here))
    scores: Tensor = torch.cat(found).unflatten(0, (images_count, channels))
    return scores.permute(2, 0, 1)
