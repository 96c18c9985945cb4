"""From a file's pixel element to stored values: native and encoded, any order of bytes and samples, colour as RGB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from pellucid.data.dicom.codecs import Frame, decoder_of, inflated
from pellucid.data.dicom.colour import to_rgb
from pellucid.data.dicom.fragments import frames_of, joined
from pellucid.data.dicom.headers import BIG, DicomFile
from pellucid.data.dicom.layout import DEFLATED_FRAMES, ENCAPSULATED_NATIVE, NATIVE, Layout
from pellucid.data.whole import DecodeError


def stored_values(file: DicomFile, layout: Layout, places: Sequence[int]) -> np.ndarray:
    """Stored values (F, C, H, W) of the frames at `places`; grey and palette (C 1) as stored, colour as RGB (C 3).

    Bits outside of those stored, such as overlays, are left out, and signs are extended. A view of the file where
    nothing had to be changed. Raises DecodeError.
    """
    if file.syntax in NATIVE:
        if file.encapsulated:
            raise DecodeError("(0002,0010) TransferSyntaxUID says that its pixels are plain, but they are encapsulated")
        return _native(file.pixels, file, layout, places, layout.frames)
    if file.syntax in (DEFLATED_FRAMES, ENCAPSULATED_NATIVE):
        groups = frames_of(file, layout.frames)
        length = -(-layout.frame_bits // 8)
        parts = [joined(file.pixels, groups[place]) for place in places]
        if file.syntax == DEFLATED_FRAMES:
            parts = [inflated(part, length) for part in parts]
        return np.concatenate([_native(memoryview(part), file, layout, [0], 1) for part in parts])
    decoder = decoder_of(file.syntax)
    if not file.encapsulated:
        raise DecodeError("(0002,0010) TransferSyntaxUID says that its pixels are encapsulated, but they aren't")
    groups = frames_of(file, layout.frames)
    out: np.ndarray | None = None
    for number, place in enumerate(places):
        with _damage_told(place, layout.frames):
            frame = _fitting(decoder(joined(file.pixels, groups[place]), layout), layout)
        if out is None:
            out = np.empty((len(places), *frame.shape), frame.dtype)
        elif out.dtype != frame.dtype:  # streams of several precisions
            out = out.astype(np.promote_types(out.dtype, frame.dtype))
        out[number] = frame
    assert out is not None
    return out


@contextlib.contextmanager
def _damage_told(place: int, frames: int) -> Iterator[None]:
    """Make one kind of error of all that decoders raise."""
    where = f" of frame {place}" if frames > 1 else ""
    try:
        yield
    except DecodeError:
        raise
    except ImportError as error:
        module = (error.name or "").strip("_").split(".")[0]
        name = {"openjpeg": "pylibjpeg-openjpeg"}.get(module, module)
        raise DecodeError(f"its pixels need the package {name}: pip install {name}") from error
    except MemoryError as error:
        raise DecodeError("it doesn't fit into memory") from error
    except Exception as error:  # each decoder has errors of its own
        raise DecodeError(f"the compressed pixels{where} are damaged") from error


def _native(
    pixels: memoryview, file: DicomFile, layout: Layout, places: Sequence[int], frames: int
) -> np.ndarray:  # fmt: skip
    """Those at `places` of uncompressed `frames` (PS3.5, section 8)."""
    need = -(-layout.frame_bits * frames // 8)
    if len(pixels) < need:
        raise DecodeError(f"the file is truncated: {len(pixels):,} bytes of pixels, of {need:,}")
    swapped = file.syntax == BIG and file.vr == "OW" and layout.allocated <= 8
    if swapped:  # bytes in words of 16 bits
        even = len(pixels) // 2 * 2
        words = np.frombuffer(pixels[:even], ">u2").astype("<u2").view(np.uint8)
        pixels = memoryview(words.tobytes() + bytes(pixels[even:]))
    if layout.allocated == 1:
        return np.stack([_unpacked(pixels, layout, place) for place in places])
    dtype = layout.dtype.newbyteorder(">" if file.big_endian else "<")
    size = layout.frame_bits // layout.allocated
    flat = np.frombuffer(pixels, dtype, size * frames).reshape(frames, size)
    first, behind = min(places), max(places) + 1
    flat = flat[first:behind] if list(places) == list(range(first, behind)) else flat[list(places)]
    flat = _stored_bits(flat.astype(layout.dtype, copy=False), layout)
    if layout.samples == 1:
        return flat.reshape(len(places), 1, layout.rows, layout.columns)
    if layout.subsampled:
        flat = _doubled(flat, layout)
    if layout.planar and not layout.subsampled:
        planes = flat.reshape(len(places), layout.samples, layout.rows, layout.columns)
    else:
        planes = np.moveaxis(flat.reshape(len(places), layout.rows, layout.columns, layout.samples), -1, 1)
    return to_rgb(planes, layout.photometric, layout.stored)


def _stored_bits(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """Samples without what lies above or below their bits, with the sign extended (PS3.5, 8.1.1)."""
    if layout.real or layout.stored == layout.allocated:
        return samples
    above = layout.allocated - 1 - layout.high
    shifted = samples << above if above else samples  # what lies above falls out
    return shifted >> (layout.allocated - layout.stored)


def _doubled(flat: np.ndarray, layout: Layout) -> np.ndarray:
    """Y Y Cb Cr of two pixels as Y Cb Cr of each (PS3.3, C.7.6.3.1.2)."""
    pairs = flat.reshape(len(flat), -1, 4)
    return np.stack([pairs[..., [0, 2, 3]], pairs[..., [1, 2, 3]]], axis=2).reshape(len(flat), -1)


def _unpacked(pixels: memoryview, layout: Layout, place: int) -> np.ndarray:
    """Pixels of one bit each, the lowest bit of a byte first; frames follow without a gap (PS3.5, 8.1.1, annex D)."""
    size = layout.rows * layout.columns
    start, end = place * size, (place + 1) * size
    packed = np.frombuffer(pixels[start // 8 : -(-end // 8)], np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + size]
    return bits.reshape(1, layout.rows, layout.columns)


def _fitting(frame: Frame, layout: Layout) -> np.ndarray:
    """A decoded frame (C, H, W) with the signs that the header states, colour as RGB."""
    samples, bits = frame.samples, 8 * frame.samples.dtype.itemsize
    if layout.signed and not frame.signed:
        samples = samples.view(f"i{samples.dtype.itemsize}")
    elif frame.signed and not layout.signed:
        samples = samples.view(f"u{samples.dtype.itemsize}")
    if frame.signed != layout.signed and frame.precision < bits:
        samples = np.asarray(samples << (bits - frame.precision) >> (bits - frame.precision))
    if layout.samples == 1:
        return samples[None]
    planes = np.moveaxis(samples, -1, 0)[None]
    rgb = to_rgb(planes, frame.colours or layout.photometric, min(frame.precision, layout.stored))
    return np.asarray(rgb[0])
