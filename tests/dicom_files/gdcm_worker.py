"""Read files by GDCM alone, in a process of its own: on some it ends the process that reads them.

Arguments: a folder, then files. FOLDER/NUMBER.npz gets the stored values (F, C, H, W) of each that GDCM reads, and
what it says of slope, intercept and colours; FOLDER/NUMBER.txt appears where it refuses.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gdcm
import numpy as np

TYPES = {
    "SINGLEBIT": "u1",
    **{f"{sign}INT{bits}": f"{sign[:1].lower() or 'i'}{bits // 8}" for sign in ("", "U") for bits in (8, 16, 32)},
    "FLOAT32": "f4",
    "FLOAT64": "f8",
}
FULL = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])  # PS3.3, C.7.6.3.1.2


def rgb_of(planes: np.ndarray, bits: int) -> np.ndarray:
    """YBR_FULL planes (F, 3, H, W) as RGB."""
    centred = planes.astype(float) - np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)])[:, None, None]
    return np.einsum("rc,fchw->frhw", FULL, centred).round().clip(0, 2**bits - 1).astype(planes.dtype)


def read(path: str) -> dict[str, object] | None:
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        return None
    image = reader.GetImage()
    if image.GetPhotometricInterpretation().GetString().strip() == "PALETTE COLOR":
        painter = gdcm.ImageApplyLookupTable()
        painter.SetInput(image)
        if not painter.Apply():
            return None
        image = painter.GetOutput()
    buffer = image.GetBuffer()
    if buffer is None:
        return None
    data = buffer.encode("utf-8", "surrogateescape")
    about, sizes = image.GetPixelFormat(), image.GetDimensions()
    columns, rows = sizes[:2]
    frames, samples = sizes[2] if len(sizes) > 2 else 1, about.GetSamplesPerPixel()
    kind, colours = about.GetScalarTypeAsString(), image.GetPhotometricInterpretation().GetString().strip()
    if kind == "SINGLEBIT":
        values = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    else:
        values = np.frombuffer(data, TYPES[kind])
    values = values[: frames * rows * columns * samples]
    if samples == 1 or image.GetPlanarConfiguration() == 1:
        values = values.reshape(frames, samples, rows, columns)
    else:
        values = np.moveaxis(values.reshape(frames, rows, columns, samples), -1, 1)
    if colours.startswith("YBR_FULL"):
        values = rgb_of(values, about.GetBitsStored())
    return {"values": values, "slope": image.GetSlope(), "intercept": image.GetIntercept()}


def main(folder: Path, files: list[str]) -> None:
    for number, path in enumerate(files):
        if any((folder / f"{number}.{ending}").exists() for ending in ("npz", "txt", "begun")):
            continue
        (folder / f"{number}.begun").touch()
        found = read(path)
        if found is None:
            (folder / f"{number}.txt").touch()
        else:
            np.savez(folder / f"{number}.npz", **found)


if __name__ == "__main__":
    for switch in ("Debug", "Warning", "Error"):
        getattr(gdcm.Trace, f"{switch}Off")()
    main(Path(sys.argv[1]), sys.argv[2:])
