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
from pellucid.data.resample import Grid, grid_of
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
    """A volume to scroll through, from the slice of greatest evidence of its first map.

    Arguments:
        grey: (D, H, W), as it is shown.
        affine: (4, 4) from its voxels to mm to the right, the front and the head.
        maps: what each is called, and its values: at the volume's voxels, or a coarser grid that covers it.
        mask: (D, H, W), whose outline is drawn.
        name: tells the page's volumes apart.
        share: bytes that it should take at most; where it doesn't fit, slices are fewer and coarser.
    """
    drawn = list(maps)
    for number, level in enumerate(_LEVELS):
        data = _data(grey, affine, drawn, mask, name, level)
        if len(data) <= share or number == len(_LEVELS) - 1:
            break
    return Scroll(data)


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


def _data(
    grey: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.floating],
    maps: Sequence[tuple[str, Values]],
    mask: npt.NDArray[np.bool_] | None,
    name: str,
    level: tuple[int, int, int],
) -> str:
    side, slices, quality = level
    upright = Upright.of(grey.shape, affine)
    size = _fitted(upright.shape, side, slices)
    grid = grid_of(grey.shape, affine, size, LOOKED_AT)
    coarse = grid_of(grey.shape, affine, _fitted(size, min(side, _MAP_SIDE), slices), LOOKED_AT)
    steps = [step * full / kept for step, full, kept in zip(upright.steps, upright.shape, size, strict=True)]
    told = [_map(*each, coarse, size, quality) for each in maps]
    extents = [step * length for step, length in zip(steps, size, strict=True)]
    across = [max(axis for axis in range(3) if axis != plane) for plane in range(len(PLANES))]
    seen = None if mask is None or not mask.any() else grid.bring(mask.astype(np.float32)) >= 0.5
    data: dict[str, Any] = {
        "id": name,
        "shape": size,
        "steps": [round(step, 4) for step in steps],
        "slices": upright.shape,
        "affine": [] if grid.affine is None else grid.affine[:3].round(3).tolist(),
        "sides": upright.sides,
        "bars": [bar_length(extents[axis], 0.25) for axis in across],
        "image": _sprite(np.rint(grid.bring(grey.astype(np.float32))).astype(np.uint8), quality),
        "mask": None if seen is None else _sprite(seen.astype(np.uint8) * np.uint8(255), 60),
        "maps": told,
        "start": told[0]["start"] if told else [length // 2 for length in size],
    }
    return _json(data)


def _map(title: str, values: Values, grid: Grid, size: Sequence[int], quality: int) -> dict[str, Any]:
    """A map in bytes: the root of its share of the largest, as overlays are as opaque; signed ones around 128."""
    values = np.nan_to_num(values)
    signed = bool((values < 0).any())
    largest = float(np.abs(values).max())
    place = np.unravel_index(int(np.abs(values).argmax()), values.shape) if largest else [n // 2 for n in values.shape]
    peak = grid.turned([int(each) for each in place])
    full = [grid.shape[axis] for axis in grid.axes]
    share = grid.bring(values) / (largest or 1.0)
    root = np.sign(share) * np.sqrt(np.abs(share))
    bytes_ = np.rint(128 + 127 * root) if signed else np.rint(255 * root)
    return {
        "title": title if largest else f"{title} (no evidence)",
        "uri": _sprite(bytes_.clip(0, 255).astype(np.uint8), quality),
        "shape": grid.size,
        "signed": signed,
        "start": [int((each + 0.5) * kept / own) for each, kept, own in zip(peak, size, full, strict=True)],
    }


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
