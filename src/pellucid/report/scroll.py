"""A volume that is scrolled through on a page, its maps laid over: sprites and what the script must know of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from pellucid.data.planes import LOOKED_AT, PLANES, Upright
from pellucid.data.resample import grid_of
from pellucid.drawing import OUTLINE, POSITIVE, SIGNED, bar_length, data_uri, encode

SLICES, SIDE = 64, 160  # most slices of a sprite, and most pixels of a slice's longer side
PAGE_BYTES = 24 * 2**20  # of all volumes of a page, about
STILL = 6  # of 128: a byte of a map nearer to none than this is none, since sprites are packed with some loss

_LEVELS = ((SIDE, SLICES, 82), (128, 48, 78), (96, 40, 74), (64, 32, 70))  # side, slices, quality
_MAP_SIDE = 96

Values = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Scroll:
    """What a page holds of one volume: JSON for the script, which makes the rest."""

    data: str


def scroll(
    grey: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.floating],
    maps: Iterable[tuple[str, Values]],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    name: str = "volume",
    share: int = PAGE_BYTES,
) -> Scroll:
    """A volume to scroll through, as `Scroller` makes it of what each map is called and of its values."""
    scroller = Scroller(grey, affine, mask)
    for title, values in maps:
        scroller.add(title, values)
    return scroller.finish(name, share)


class Scroller:
    """Makes a volume to scroll through, from the slice of greatest evidence of its first map.

    One map is held at a time.

    Arguments:
        grey: (D, H, W), as it is shown.
        affine: (4, 4) from its voxels to mm to the right, the front and the head.
        mask: (D, H, W), whose outline is drawn.
    """

    def __init__(
        self,
        grey: npt.NDArray[np.uint8],
        affine: npt.NDArray[np.floating],
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        side, slices, _ = _LEVELS[0]
        self._upright = Upright.of(grey.shape, affine)
        size = _fitted(self._upright.shape, side, slices)
        self._grid = grid_of(grey.shape, affine, size, LOOKED_AT)
        self._coarse = grid_of(grey.shape, affine, _fitted(size, _MAP_SIDE, slices), LOOKED_AT)
        self._image = self._grid.bring(grey.astype(np.float32))
        self._mask = None if mask is None or not mask.any() else self._grid.bring(mask.astype(np.float32))
        self._maps: list[_Reduced] = []

    def add(self, title: str, values: Values) -> None:
        """Lay a map (D, H, W) at the volume's voxels over it."""
        values = np.nan_to_num(values)
        largest = float(np.abs(values).max())
        middle = [length // 2 for length in values.shape]
        peak = np.unravel_index(int(np.abs(values).argmax()), values.shape) if largest else middle
        self._maps.append(
            _Reduced(
                title if largest else f"{title} (no evidence)",
                self._coarse.bring(values) / (largest or 1.0),
                bool((values < 0).any()),
                self._grid.turned([int(each) for each in peak]),
            )
        )

    def finish(self, name: str, share: int = PAGE_BYTES) -> Scroll:
        """What a page holds of it; fewer and coarser slices where it would take more than `share` bytes.

        `name` tells the page's volumes apart.
        """
        for number, level in enumerate(_LEVELS):
            data = self._data(name, level)
            if len(data) <= share or number == len(_LEVELS) - 1:
                break
        return Scroll(data)

    def _data(self, name: str, level: tuple[int, int, int]) -> str:
        side, slices, quality = level
        full, size = self._upright.shape, _fitted(self._grid.size, side, slices)
        assert self._grid.affine is not None
        # from the grid's voxels to mm
        affine = grid_of(self._grid.size, self._grid.affine, size).affine
        assert affine is not None
        steps = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
        extents = [step * length for step, length in zip(steps, size, strict=True)]
        across = [max(axis for axis in range(3) if axis != plane) for plane in range(len(PLANES))]
        maps = [
            {
                "title": each.title,
                "uri": _sprite(each.bytes(_fitted(each.share.shape, side, slices)), quality),
                "shape": _fitted(each.share.shape, side, slices),
                "signed": each.signed,
                "start": [int((at + 0.5) * kept / own) for at, kept, own in zip(each.peak, size, full, strict=True)],
            }
            for each in self._maps
        ]
        inside = None if self._mask is None else _reduced(self._mask, size) >= 0.5
        data: dict[str, Any] = {
            "id": name,
            "shape": size,
            "steps": [round(step, 4) for step in steps],
            "slices": full,
            "affine": affine[:3].round(3).tolist(),
            "sides": self._upright.sides,
            "bars": [bar_length(extents[axis], 0.25) for axis in across],
            "image": _sprite(np.rint(_reduced(self._image, size)).astype(np.uint8), quality),
            "mask": None if inside is None else _sprite(inside.astype(np.uint8) * np.uint8(255), 60),
            "maps": maps,
            "start": maps[0]["start"] if maps else [length // 2 for length in size],
        }
        return _json(data)


@dataclass(frozen=True, eq=False)
class _Reduced:
    """A map on a coarse grid as shares of its largest value, and where in full that is."""

    title: str
    share: npt.NDArray[np.float32]
    signed: bool
    peak: Sequence[int]

    def bytes(self, size: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Roots of the shares, since overlays are as opaque as that; those of a signed map around 128."""
        share = _reduced(self.share, size)
        root = np.sign(share) * np.sqrt(np.abs(share))
        bytes_ = np.rint(128 + 127 * root) if self.signed else np.rint(255 * root)
        return np.asarray(bytes_.clip(0, 255), np.uint8)


def _reduced(values: npt.NDArray[np.float32], size: Sequence[int]) -> npt.NDArray[np.float32]:
    """Values (Z, Y, X) fitted into a smaller grid."""
    return values if values.shape == tuple(size) else grid_of(values.shape, None, size).bring(values)


def script() -> str:
    """The script of a page with volumes, which needs nothing else, and the colours that it paints with."""
    ramp = np.arange(256)
    share = (ramp / 255) ** 2
    towards = (ramp - 128) / 127
    colours = {
        "plain": _colours(POSITIVE, share),
        "signed": _colours(SIGNED, (np.sign(towards) * towards**2 + 1) / 2),
        "outline": list(OUTLINE),
        "still": STILL,
    }
    source = (resources.files("pellucid.report") / "templates" / "scroll.js").read_text(encoding="utf-8")
    return f'<script type="application/json" id="scroll-colours">{_json(colours)}</script>\n<script>\n{source}</script>'


def _fitted(shape: Sequence[int], side: int, slices: int) -> tuple[int, int, int]:
    """Lengths of no more than so many slices and pixels, the proportions within a slice kept."""
    depth, height, width = shape
    factor = min(1.0, side / max(height, width))
    return min(depth, slices), max(1, round(height * factor)), max(1, round(width * factor))


def _sprite(slices: npt.NDArray[np.uint8], quality: int) -> str:
    """Slices (Z, Y, X) side by side in a square of pictures, as a data URI."""
    depth, height, width = slices.shape
    columns = math.ceil(math.sqrt(depth))
    sheet = np.zeros((math.ceil(depth / columns), columns, height, width), np.uint8)
    sheet.reshape(-1, height, width)[:depth] = slices
    picture = sheet.transpose(0, 2, 1, 3).reshape(-1, columns * width)
    return data_uri(encode(np.repeat(picture[..., None], 3, axis=2), "webp", quality=quality), "image/webp")


def _colours(scale: str, shares: npt.NDArray[np.floating]) -> list[int]:
    table: list[int] = np.rint(255 * mpl.colormaps[scale](shares.clip(0, 1))[:, :3]).astype(int).ravel().tolist()
    return table


def _json(value: object) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
