"""Real files in every format that is read, and manifests that exist in memory only."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from pellucid.data.manifest import Manifest


def _pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(file, pixels, **{"photometric": photometric, **options})
    return file.getvalue()


@pytest.fixture(scope="session")
def colours() -> np.ndarray:
    """A picture (30, 41, 3), 8 bits, that no flip or rotation leaves as it is."""
    noise = np.random.default_rng(5).integers(0, 20, (30, 41, 3))
    slope = np.add.outer(np.arange(30), np.arange(41))[..., None] * np.array([1, 2, 3])
    return (slope + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def encoded(colours: np.ndarray) -> Mapping[str, tuple[bytes, np.ndarray | None]]:
    """Files by name, with the pixels (C, H, W) that must come back; None where the format loses some."""
    colour, first = Image.fromarray(colours), lambda pixels: np.moveaxis(np.atleast_3d(pixels), -1, 0)
    grey, deep = colours[..., 0], colours.astype(np.uint16) * 257 - 100
    bilevel = np.where(grey > 60, 255, 0).astype(np.uint8)
    alpha = np.dstack([colours, grey])
    few = colour.quantize(16)
    real = (colours / 255).astype(np.float32)
    unassociated = {"extrasamples": ["unassalpha"]}
    return {
        "grey.png": (_pillow(Image.fromarray(grey), "PNG"), first(grey)),
        "colour.png": (_pillow(colour, "PNG"), first(colours)),
        "bilevel.png": (_pillow(Image.fromarray(bilevel).convert("1"), "PNG"), first(bilevel)),
        "palette.png": (_pillow(few, "PNG"), first(np.asarray(few.convert("RGB")))),
        "alpha.png": (_pillow(Image.fromarray(alpha), "PNG"), first(colours)),
        "grey-alpha.png": (_pillow(Image.fromarray(np.ascontiguousarray(alpha[..., 2:])), "PNG"), first(alpha[..., 2])),
        "grey16.png": (_pillow(Image.fromarray(deep[..., 0]), "PNG"), first(deep[..., 0])),
        "colour16.png": (imagecodecs.png_encode(deep), first(deep)),
        "alpha16.png": (imagecodecs.png_encode(np.dstack([deep, deep[..., 0]])), first(deep)),
        "grey-alpha16.png": (imagecodecs.png_encode(np.ascontiguousarray(deep[..., :2])), first(deep[..., 0])),
        "colour.jpg": (_pillow(colour, "JPEG", quality=95), None),
        "grey.jpg": (_pillow(Image.fromarray(grey), "JPEG", quality=95), None),
        "progressive.jpg": (_pillow(colour, "JPEG", progressive=True), None),
        "cmyk.jpg": (_pillow(colour.convert("CMYK"), "JPEG"), None),
        "colour.bmp": (_pillow(colour, "BMP"), first(colours)),
        "grey.bmp": (_pillow(Image.fromarray(grey), "BMP"), first(grey)),
        "palette.bmp": (_pillow(few, "BMP"), first(np.asarray(few.convert("RGB")))),
        "bilevel.bmp": (_pillow(Image.fromarray(bilevel).convert("1"), "BMP"), first(bilevel)),
        "colour.tif": (_tiff(colours), first(colours)),
        "colour16.tif": (_tiff(deep), first(deep)),
        "big-endian.tif": (_tiff(deep, byteorder=">"), first(deep)),
        "bigtiff.tif": (_tiff(deep, bigtiff=True), first(deep)),
        "planes.tif": (_tiff(np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate"), first(deep)),
        "tiles.tif": (_tiff(deep, tile=(16, 16), compression="zlib", predictor=True), first(deep)),
        "lzw.tif": (_pillow(colour, "TIFF", compression="tiff_lzw"), first(colours)),
        "packbits.tif": (_pillow(colour, "TIFF", compression="packbits"), first(colours)),
        "lzma.tif": (_tiff(colours, compression="lzma"), first(colours)),
        "jpeg.tif": (_pillow(colour, "TIFF", compression="jpeg"), None),
        "fax.tif": (_pillow(Image.fromarray(bilevel).convert("1"), "TIFF", compression="group4"), first(bilevel)),
        "palette.tif": (_pillow(few, "TIFF"), first(np.asarray(few.convert("RGB")))),
        "alpha16.tif": (_tiff(np.dstack([deep, deep[..., 0]]), photometric="rgb", **unassociated), first(deep)),
        "grey-alpha16.tif": (_tiff(deep[..., :2], photometric="minisblack", **unassociated), first(deep[..., 0])),
        "white-is-zero.tif": (_tiff(255 - grey, photometric="miniswhite"), first(grey)),
        "float.tif": (_tiff(real), first(real)),
        "double.tif": (_tiff(real[..., 0].astype(float)), first(real[..., 0].astype(float))),
        "half.tif": (_tiff(real[..., 0].astype(np.float16)), first(real[..., 0].astype(np.float16).astype(np.float32))),
        "signed.tif": (_tiff(grey.astype(np.int16) - 128), first(grey.astype(np.int16) - 128)),
        "deep.tif": (_tiff(grey.astype(np.uint32) << 20), first(grey.astype(np.uint32) << 20)),
    }


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real packs beside the project; the test is skipped where they aren't."""
    folder = Path(__file__).parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real images aren't beside this checkout")
    return folder


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., Manifest]:
    """Build a manifest from columns; samples and hashes are made up where they aren't given."""

    def build(labels: Sequence[str], **columns: Sequence[object]) -> Manifest:
        count = len(labels)
        table = pd.DataFrame(
            {
                "sample": [f"{index:04d}.png" for index in range(count)],
                "label": list(labels),
                "split": "",
                "patient_id": "",
                "age": np.nan,
                "sex": "",
                "site": "",
                "mask": "",
                "pixel_hash": [f"hash {index}" for index in range(count)],
            }
        ).assign(**{name: list(values) for name, values in columns.items()})
        return Manifest("made up", Path(), table, tuple(sorted(set(labels))))

    return build
