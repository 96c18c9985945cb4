"""Volumes in the report: planes through the greatest evidence of each map, and all slices to scroll through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pellucid.attribution import resize_maps
from pellucid.data.planes import middle
from pellucid.drawing import Picture
from pellucid.report.figures import Drawn, drawn
from pellucid.report.scroll import Scroll, Scroller
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

    `maps` are taken one at a time, and once. `field` is what the network sees, as `Grid.seen` gives it; None for all.
    """

    grey: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    maps: Iterable[SeenMap]
    mask: npt.NDArray[np.bool_] | None = None
    field: Sequence[Sequence[int]] | None = None


def draw(seen: Seen, of: str, name: str, share: int) -> tuple[list[Drawn], Scroll]:
    """The bare volume and every map laid over it, each in three planes, and all of it to scroll through.

    Arguments:
        seen: the volume.
        of: what it is a picture of.
        name: tells the page's volumes apart.
        share: bytes that the scroll should take at most.
    """
    look = Look.of(seen.grey, seen.affine, seen.mask, seen.field)
    scroller = Scroller(seen.grey, seen.affine, seen.mask)
    marked = look.mask is not None and bool(look.mask.any())
    place = middle(look.mask if look.mask is not None else np.zeros(look.upright.shape, bool))
    pictures: list[Drawn] = []
    for found in seen.maps:
        values = np.asarray(resize_maps(torch.from_numpy(found.values), seen.grey.shape).numpy())
        scroller.add(found.title, values)
        turned = look.upright.turn(values)
        if not marked and not pictures:
            place = greatest(turned)
        picture = look.three(greatest(turned), SIDE, turned, found.signed)
        pictures.append(drawn(picture, f"{found.title} map over the volume in three planes, {of}", found.caption))
    caption = "Image, through the middle of the outlined lesion" if marked else "Image"
    bare = drawn(look.three(place, SIDE), f"Test volume in three planes, {of}", caption)
    return [bare, *pictures], scroller.finish(name, share)


def example(grey: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64]) -> Picture:
    """A volume (D, H, W) in its three middle planes, small."""
    look = Look.of(grey, affine)
    return look.three([length // 2 for length in look.upright.shape], SMALL, bar=False)
