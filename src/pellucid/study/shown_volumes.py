"""Volumes that the page of an evaluation shows: the first right and the first wrong one of each class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pellucid.attribution import Explanation
from pellucid.data.resample import Geometry, grid_of
from pellucid.data.transforms import Normalisation
from pellucid.files import written_whole
from pellucid.models.checkpoints import ModelCard
from pellucid.training.predict import frame_of

NAME = "shown-{}.npz"


@dataclass(frozen=True, eq=False)
class ShownVolume:
    """A volume (D, H, W) as its network saw it, its affine, in words by which window, its maps and its mask.

    `sample` is its number among those evaluated; maps are on any grid that covers the volume.
    """

    sample: int
    grey: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    window: str
    maps: Mapping[str, npt.NDArray[np.float32]]
    mask: npt.NDArray[np.bool_] | None


def keep_shown(
    path: Path, image: Tensor, lies: Geometry, one: Explanation, mask: Tensor | None, card: ModelCard
) -> None:
    """Write what is shown of a volume (C, D, H, W) that was prepared for the network of a card, and its explanation."""
    seen = Normalisation(card.mean, card.std, card.normalisation).denormalise(image, 3)[0]
    affine = grid_of(lies.shape, lies.affine, seen.shape, frame_of(card)).affine
    maps = {label: one.layer_maps.get(label, values)[0] for label, values in one.maps.items()}
    told = json.dumps({"window": lies.scaling, "labels": list(maps)})
    arrays: dict[str, Any] = {f"map-{number}": values.numpy() for number, values in enumerate(maps.values())}
    if mask is not None:
        arrays["mask"] = mask.numpy()
    grey = (seen.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    with written_whole(path) as aside, aside.open("wb") as handle:
        np.savez_compressed(
            handle, grey=grey, affine=np.eye(4) if affine is None else affine, told=np.array(told), **arrays
        )


def read_shown(path: Path, sample: int) -> ShownVolume:
    """What `keep_shown` wrote of a volume."""
    with np.load(path, allow_pickle=False) as stored:
        told = json.loads(str(stored["told"]))
        return ShownVolume(
            sample,
            stored["grey"],
            stored["affine"],
            told["window"],
            {label: stored[f"map-{number}"] for number, label in enumerate(told["labels"])},
            stored.get("mask"),
        )
