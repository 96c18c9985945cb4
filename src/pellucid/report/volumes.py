"""Volumes in the report: planes through the greatest evidence of each map, and all slices to scroll through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pellucid.attribution import resize_maps
from pellucid.data.planes import middle
from pellucid.drawing import Picture
from pellucid.report.figures import Drawn, drawn
from pellucid.report.scroll import Scroll, scroll
from pellucid.study.explain_volumes import greatest
from pellucid.study.planes import Look

SIDE = 160  # pixels of each of three planes
SMALL = 100

PLANES_NOTE = (
    " Of each volume the axial, coronal and sagittal planes, or those nearest to them, through each map’s greatest"
    " value; the bare image through the middle of its lesion or, without one, of the first map’s greatest value. R and"
    " L, A and P, H and F stand at the patient’s right and left, front and back, head and foot."
)


@dataclass(frozen=True, eq=False)
class SeenMap:
    """A map: its title, raw values on any grid that covers its image, its caption, and which scale it takes."""

    title: str
    values: npt.NDArray[np.float32]
    caption: str
    signed: bool


@dataclass(frozen=True, eq=False)
class Seen:
    """A volume (D, H, W) as it is shown, its affine, maps and, where it has one, the mask of its lesion.

    `field` is what the network sees of it, as `Grid.seen` gives it; None for all.
    """

    grey: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    maps: Sequence[SeenMap]
    mask: npt.NDArray[np.bool_] | None = None
    field: Sequence[Sequence[int]] | None = None

    def at_voxels(self, found: SeenMap) -> npt.NDArray[np.float32]:
        """The values of a map at the volume's own voxels."""
        return np.asarray(resize_maps(torch.from_numpy(found.values), self.grey.shape).numpy())


def planes(seen: Seen, of: str) -> list[Drawn]:
    """The bare volume and every map laid over it, each in three planes; `of` says what it is a picture of."""
    look = Look.of(seen.grey, seen.affine, seen.mask, seen.field)
    turned = [look.upright.turn(seen.at_voxels(each)) for each in seen.maps]
    marked = look.mask is not None and bool(look.mask.any())
    if marked or not turned:
        place = middle(look.mask if look.mask is not None else np.zeros(look.upright.shape, bool))
    else:
        place = greatest(turned[0])
    caption = "Image, through the middle of the outlined lesion" if marked else "Image"
    pictures = [drawn(look.three(place, SIDE), f"Test volume in three planes, {of}", caption)]
    for found, values in zip(seen.maps, turned, strict=True):
        picture = look.three(greatest(values), SIDE, values, found.signed)
        pictures.append(drawn(picture, f"{found.title} map over the volume in three planes, {of}", found.caption))
    return pictures


def scrolled(seen: Seen, name: str, share: int) -> Scroll:
    """The volume to scroll through, in about so many bytes."""
    maps = ((each.title, seen.at_voxels(each)) for each in seen.maps)
    return scroll(seen.grey, seen.affine, maps, mask=seen.mask, name=name, share=share)


def example(grey: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64]) -> Picture:
    """A volume (D, H, W) in its three middle planes, small."""
    look = Look.of(grey, affine)
    return look.three([length // 2 for length in look.upright.shape], SMALL, bar=False)
