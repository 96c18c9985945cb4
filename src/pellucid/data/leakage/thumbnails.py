"""A small grey picture of each image, read once and in parallel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pellucid.data.images import decode_file, quiet_decoders
from pellucid.data.whole import DecodeError
from pellucid.progress import progress

SIDE = 64
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_AT_ONCE = 256  # images in flight, so that neither futures nor pictures pile up


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Small pictures of N images, whatever their proportions.

    `pixels` (N, 64, 64) uint8, each stretched from its own darkest to its own brightest value; `low` and `high` (N,)
    are those values, as shares of what the stored type holds (of 1 for float). `problems` (N,) says why an image
    couldn't be read, "" where it could; its pixels are zero.
    """

    pixels: np.ndarray
    low: np.ndarray
    high: np.ndarray
    problems: tuple[str, ...]

    @property
    def readable(self) -> np.ndarray:
        return np.array([not problem for problem in self.problems], bool)

    def levels(self, index: int) -> tuple[float, float]:
        """Mean and standard deviation of a picture, as shares of what the stored type holds."""
        scale = (self.high[index] - self.low[index]) / 255
        pixels = self.pixels[index].astype(float)
        return float(self.low[index] + pixels.mean() * scale), float(pixels.std() * scale)


def read_thumbnails(paths: Sequence[Path], *, show_progress: bool = False) -> Thumbnails:
    """Read each image and shrink it to 64 × 64 grey pixels by averaging areas.

    An image that can't be read is told of in `problems` and the rest goes on. Memory grows by 4 KiB an image.
    """
    pixels = np.zeros((len(paths), SIDE, SIDE), np.uint8)
    low, high = np.zeros(len(paths)), np.zeros(len(paths))
    problems = [""] * len(paths)
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    with quiet_decoders(), progress("comparing images", len(paths), show=show_progress) as advance:
        try:
            for start in range(0, len(paths), _AT_ONCE):
                for index, made in enumerate(pool.map(_thumbnail, paths[start : start + _AT_ONCE]), start):
                    if isinstance(made, str):
                        problems[index] = made
                    else:
                        pixels[index], low[index], high[index] = made
                    advance(1)
        finally:  # an error or Ctrl-C doesn't wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)
    return Thumbnails(pixels, low, high, tuple(problems))


def _thumbnail(path: Path) -> tuple[np.ndarray, float, float] | str:
    try:
        stored = decode_file(path).pixels
    except DecodeError as error:
        return str(error)
    grey = Image.fromarray(_grey(stored))
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    low, high = float(small.min()), float(small.max())
    unit = float(np.iinfo(stored.dtype).max) if stored.dtype.kind in "iu" else 1.0
    stretched = np.zeros((SIDE, SIDE)) if high <= low else (small - low) * (255 / (high - low))
    return stretched.round().astype(np.uint8), low / unit, high / unit


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Pixels (1 or 3, H, W) as (H, W) float32."""
    if len(pixels) == 1:
        return np.asarray(pixels[0], dtype=np.float32)
    grey = np.zeros(pixels.shape[1:], np.float32)
    for channel, share in zip(pixels, _LUMA, strict=True):
        grey += np.float32(share) * channel
    return grey
