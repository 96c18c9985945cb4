"""Planes of a volume as pictures, with maps and masks laid over, sides named and a bar in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pellucid.attribution import resize_maps
from pellucid.data.planes import PLANES, Upright
from pellucid.drawing import Picture, bar_length, enlarge, marked, outline, overlay, to_picture

FIELD = (150, 150, 150)  # the outline of what a network sees, where that isn't the whole plane

Greys = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Look:
    """A volume as it is looked at: greys, and the masks to outline, all turned as `Upright.turn` gives them (Z, Y, X).

    `field` is True on what the network sees; None where that is all.
    """

    upright: Upright
    grey: Greys
    mask: Mask | None = None
    field: Mask | None = None

    @classmethod
    def of(
        cls,
        grey: Greys,
        affine: npt.NDArray[np.floating],
        mask: Mask | None = None,
        seen: Sequence[Sequence[int]] | None = None,
    ) -> Look:
        """A volume (D, H, W) with its affine; `seen` as `Grid.seen` gives it."""
        upright = Upright.of(grey.shape, affine)
        field = None
        if seen is not None and any(bounds != [0, length] for bounds, length in zip(seen, grey.shape, strict=True)):
            within = np.zeros(grey.shape, bool)
            within[tuple(slice(*bounds) for bounds in seen)] = True
            field = upright.turn(within)
        return cls(upright, upright.turn(grey), None if mask is None else upright.turn(mask), field)

    def plane(
        self,
        axis: int,
        place: int,
        side: int,
        saliency: Values | None = None,
        signed: bool | None = None,
        *,
        marks: bool = True,
        bar: bool = True,
    ) -> Picture:
        """The plane at a `place` across an axis, to the scale at which the volume's longest side has `side` pixels.

        `saliency` (Z, Y, X) is laid over, and `marks` are the letters of the sides, and a `bar` in mm with them.
        """
        down, across = (each for each in range(3) if each != axis)
        extents = [step * length for step, length in zip(self.upright.steps, self.upright.shape, strict=True)]
        scale = side / max(extents)
        height, width = (max(1, round(scale * extents[each])) for each in (down, across))
        picture = enlarge(to_picture(self.grey.take(place, axis)), width, height)
        if saliency is not None:
            laid = torch.from_numpy(np.ascontiguousarray(saliency.take(place, axis), dtype=np.float32))
            picture = overlay(picture, resize_maps(laid, (height, width)).numpy(), signed=signed)
        for mask, colour in ((self.field, FIELD), (self.mask, None)):
            plane = None if mask is None else _nearest(np.asarray(mask.take(place, axis)), height, width)
            if plane is not None and plane.any() and not plane.all():
                picture = outline(picture, plane) if colour is None else outline(picture, plane, colour=colour)
        if not marks:
            return picture
        length = bar_length(extents[across], 0.25)
        return marked(picture, self.upright.edges(axis), (scale * length, f"{length:g} mm") if bar else None)

    def three(
        self,
        voxel: Sequence[int],
        side: int,
        saliency: Values | None = None,
        signed: bool | None = None,
        *,
        bar: bool = True,
    ) -> Picture:
        """The planes through a voxel (z, y, x) side by side, each in a black square (side, 3 · side + 2 · gap, 3)."""
        gap = max(2, side // 40)
        canvas = np.full((side, 3 * side + 2 * gap, 3), 255, np.uint8)
        for axis in range(len(PLANES)):
            left = axis * (side + gap)
            canvas[:, left : left + side] = 0
            plane = self.plane(axis, int(voxel[axis]), side, saliency, signed, bar=bar)
            top, begin = (side - plane.shape[0]) // 2, left + (side - plane.shape[1]) // 2
            canvas[top : top + plane.shape[0], begin : begin + plane.shape[1]] = plane
        return canvas


def _nearest(mask: Mask, height: int, width: int) -> Mask:
    rows = (np.arange(height) * mask.shape[0] // height).clip(0, mask.shape[0] - 1)
    columns = (np.arange(width) * mask.shape[1] // width).clip(0, mask.shape[1] - 1)
    return np.asarray(mask[np.ix_(rows, columns)], bool)
