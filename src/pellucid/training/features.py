"""What frozen networks pool of the images of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from pellucid.models.ensemble import Member
from pellucid.models.features import pooled
from pellucid.progress import progress
from pellucid.training.classifier import Item


def features_of(
    members: Sequence[Member], loader: DataLoader[Item], *, device: torch.device, show_progress: bool = False
) -> npt.NDArray[np.float32]:
    """Features (N, F), those of all members side by side, in the loader's order; `members` are in evaluation mode."""
    rows = []
    with torch.inference_mode(), progress("taking features", len(loader), show=show_progress) as advance:
        for images, _, _ in loader:
            images = images.to(device)
            rows.append(torch.cat([pooled(member, images).float() for member in members], dim=1).cpu().numpy())
            advance(1)
    return np.concatenate(rows)
