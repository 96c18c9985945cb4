"""How a file's pixels are laid out (PS3.3, C.7.6.3), checked before any memory is spent on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pellucid.data.dicom.elements import named, text, whole
from pellucid.data.dicom.headers import BIG, DEFLATED, EXPLICIT, GE_PRIVATE, IMPLICIT, DicomFile
from pellucid.data.nifti import MAX_VOXELS
from pellucid.data.whole import MAX_PIXELS, DecodeError

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_422", "YBR_PARTIAL_420")
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # whose fragments hold native pixels
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
NATIVE = (IMPLICIT, EXPLICIT, BIG, DEFLATED, GE_PRIVATE)

_HONEST = 512  # times that pixels may be as large as the file they come from, once they are larger than _FREE
_FREE = 2**28


@dataclass(frozen=True)
class Layout:
    """Of one frame: rows, columns, samples of a pixel, bits of a sample; and how many frames there are."""

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    planar: bool
    real: bool  # float pixels
    subsampled: bool  # in native pixels, two share their colour

    @property
    def dtype(self) -> np.dtype:
        """The type of samples once decoded, in this machine's order of bytes."""
        if self.real:
            return np.dtype(f"f{self.allocated // 8}")
        return np.dtype(f"{'ui'[self.signed]}{max(8, self.allocated) // 8}")

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest value that the stored bits can take."""
        if self.signed:
            return -(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1
        return 0, 2**self.stored - 1

    @property
    def frame_bits(self) -> int:
        """Bits that a native frame takes."""
        samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * samples * self.allocated


def layout_of(file: DicomFile) -> Layout:
    """The layout of a file's pixels.

    Raises DecodeError for what is missing or can't be, and where there are more pixels than MAX_PIXELS in a frame,
    than MAX_VOXELS in all, or far more than the file can hold.
    """
    header = file.header
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    frames = whole(header, "NumberOfFrames", 1) or 1
    samples = whole(header, "SamplesPerPixel", 1)
    allocated = whole(header, "BitsAllocated")
    photometric = text(header, "PhotometricInterpretation") or ("MONOCHROME2" if samples == 1 else "RGB")
    real = file.keyword in ("FloatPixelData", "DoubleFloatPixelData")
    stored = allocated if real else whole(header, "BitsStored", allocated)
    high = stored - 1 if real else whole(header, "HighBit", stored - 1)
    if rows < 1 or columns < 1:
        raise DecodeError(f"{named('Rows')} and Columns are {rows} and {columns}")
    if frames < 1:
        raise DecodeError(f"{named('NumberOfFrames')} is {frames}")
    _check_samples(samples, photometric)
    _check_bits(allocated, stored, high, real, file.keyword)
    _check_size(rows, columns, samples, frames, allocated, file.size)
    native = file.syntax in (*NATIVE, DEFLATED_FRAMES, ENCAPSULATED_NATIVE)
    return Layout(
        rows,
        columns,
        samples,
        frames,
        allocated,
        stored,
        high,
        not real and whole(header, "PixelRepresentation", 0) == 1,
        photometric,
        samples > 1 and whole(header, "PlanarConfiguration", 0) == 1,
        real,
        native and photometric in ("YBR_FULL_422", "YBR_PARTIAL_422"),
    )


def _check_samples(samples: int, photometric: str) -> None:
    wanted = {**dict.fromkeys((*GREY, PALETTE), 1), **dict.fromkeys(COLOUR, 3)}.get(photometric)
    if wanted is None:
        known = ", ".join((*GREY, PALETTE, *COLOUR))
        raise DecodeError(f"{named('PhotometricInterpretation')} is none of {known}")
    if samples != wanted:
        raise DecodeError(f"{named('SamplesPerPixel')} is {samples}, but {wanted} in a picture that is {photometric}")


def _check_bits(allocated: int, stored: int, high: int, real: bool, keyword: str | None) -> None:
    allowed = {"FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}.get(keyword or "", (1, 8, 16, 32, 64))
    if allocated not in allowed:
        listed = " or ".join(map(str, allowed))
        raise DecodeError(f"{named('BitsAllocated')} is {allocated}; {listed} are read")
    if not 1 <= stored <= allocated:
        raise DecodeError(f"{named('BitsStored')} is {stored}, of {allocated} allocated")
    if not stored - 1 <= high < allocated:
        raise DecodeError(f"{named('HighBit')} is {high}, with {stored} bits stored of {allocated}")


def _check_size(rows: int, columns: int, samples: int, frames: int, allocated: int, size: int) -> None:
    if rows * columns * samples > MAX_PIXELS:
        raise DecodeError(f"the picture is {columns} × {rows} × {samples}; at most {MAX_PIXELS:,} samples are read")
    samples_in_all = rows * columns * samples * frames
    if samples_in_all > MAX_VOXELS:
        shape = f"{frames} frames of {columns} × {rows} × {samples}"
        raise DecodeError(f"it holds {shape}; at most {MAX_VOXELS:,} samples are read")
    needed = samples_in_all * max(8, allocated) // 8
    if needed > _FREE and needed > _HONEST * size:
        raise DecodeError(f"its header is damaged: {needed:,} bytes of pixels in a file of {size:,} bytes")
