"""TIFF pixels, exactly as stored: tifffile decodes, this module checks and interprets.

Pillow reads 16-bit colour with 8 bits and refuses several depths, so that no TIFF goes through it.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import tifffile

from pellucid.data.whole import DecodeError, check_pixels, check_tiff

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its remarks have no file name

# photometric interpretation (TIFF 6.0, tag 262) -> samples that carry colour
_COLOUR_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
_WHITE_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 2, 3, 5, 6
_JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
_ALPHA = (1, 2)
_ORIENTATION_TAG = 274


def decode_tiff(data: bytes) -> tuple[np.ndarray, int]:
    """Pixels (C, H, W) in the stored type, C 1 or 3, and the orientation tag.

    Of several pages, thumbnails and transparency masks don't count; more than one picture is refused. One bit
    becomes 0 and 255, two and four bits are spread over 0 to 255, white-is-zero is turned round, a palette becomes
    8-bit RGB, CMYK becomes RGB, alpha is dropped. Raises DecodeError and whatever tifffile raises on damaged files.
    """
    check_tiff(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _only_page(file)
        check_pixels(page.imagewidth, page.imagelength)
        _check_segments(page, len(data))
        stored = page.asarray(squeeze=False, maxworkers=1)  # (separate samples, depth, H, W, samples)
        pixels = np.moveaxis(stored[:, 0], -1, 1).reshape(-1, page.imagelength, page.imagewidth)
        orientation = page.tags.valueof(_ORIENTATION_TAG, 1)
        return _interpreted(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), page), int(orientation)


def _only_page(file: tifffile.TiffFile) -> Any:
    every: Iterable[Any] = file.pages
    pages = [page for page in every if not (page.is_reduced or page.is_mask)]
    if len(pages) != 1:
        raise DecodeError(f"the file holds {len(pages)} pages; save the one you mean as a file of its own")
    page = pages[0]
    # ImageJ and others put a stack behind a single page
    if page.imagedepth > 1 or file.series[0].size > page.size:
        raise DecodeError("the file holds a stack of pictures; save the one you mean as a file of its own")
    return page


def _check_segments(page: Any, size: int) -> None:
    """See that each strip or tile lies within the file; tifffile fills a missing one with a constant."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if page.is_contiguous:
        complete = len(offsets) >= 1 and offsets[0] + page.nbytes <= size
    else:
        complete = len(offsets) == len(counts) >= math.prod(page.chunked)
    segments = zip(offsets, counts, strict=False)  # more offsets than counts make it incomplete
    inside = all(count > 0 and offset >= 8 and offset + count <= size for offset, count in segments)
    if not (complete and inside):
        raise DecodeError("the file is truncated")


def _interpreted(pixels: np.ndarray, page: Any) -> np.ndarray:
    photometric, bits = int(page.photometric), page.bitspersample
    if photometric not in _COLOUR_SAMPLES or (photometric == _YCBCR and page.compression not in _JPEG_COMPRESSIONS):
        raise DecodeError(f"colours stored as {getattr(page.photometric, 'name', photometric)} aren't read")
    if pixels.dtype.kind not in "buif" or not isinstance(bits, int):
        raise DecodeError(f"pixels of type {pixels.dtype} with {bits} bits aren't read")
    pixels = _colour_samples(pixels, _COLOUR_SAMPLES[photometric], tuple(page.extrasamples))
    if photometric == _PALETTE:
        return _through_palette(pixels[0], page.colormap)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    elif bits < 8:
        pixels = (pixels.astype(np.uint8) * (255 // (2**bits - 1))).astype(np.uint8)
    if photometric in (_WHITE_IS_ZERO, _SEPARATED):
        if pixels.dtype.kind != "u":
            raise DecodeError(f"{page.photometric.name} pixels of type {pixels.dtype} aren't read")
        highest = 2**bits - 1 if bits > 8 else 255
        inverted = highest - pixels
        return inverted if photometric == _WHITE_IS_ZERO else _light(inverted, highest)
    return pixels.astype(np.float32) if pixels.dtype == np.float16 else pixels


def _colour_samples(pixels: np.ndarray, wanted: int, extra: tuple[int, ...]) -> np.ndarray:
    """Drop alpha; refuse channels whose meaning is unknown."""
    beyond = len(pixels) - wanted
    known = all(kind in _ALPHA for kind in extra) or (wanted == 3 and beyond == 1)
    if beyond < 0 or (beyond and not known):
        raise DecodeError(f"the picture has {len(pixels)} channels; grey and RGB are read")
    return pixels[:wanted]


def _through_palette(indices: np.ndarray, palette: np.ndarray | None) -> np.ndarray:
    if palette is None or indices.dtype.kind not in "bu" or int(indices.max()) >= palette.shape[1]:
        raise DecodeError("the palette is missing or too short")
    eight_bits = (np.asarray(palette) >> 8).astype(np.uint8)
    return np.ascontiguousarray(eight_bits[:, indices.astype(np.intp)])


def _light(uncovered: np.ndarray, highest: int) -> np.ndarray:
    """RGB from the share of paper that each ink leaves free: what cyan and black both let through, and so on."""
    colours, black = uncovered[:3].astype(np.float64), uncovered[3].astype(np.float64)
    light: np.ndarray = np.rint(colours * black / highest).astype(uncovered.dtype)
    return light
