"""Slices in the order of their places as one volume, in the units of the files.

Each slice is decoded as a file of its own is. Plain ones take a shorter way to the same values, which the slice in the
middle, decoded both ways, must show.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.data.dicom.geometry import affine_of
from pellucid.data.dicom.headers import open_file
from pellucid.data.dicom.read import Decoded, check_pixels_there, decode_frames, laterality_of, windows_of
from pellucid.data.dicom.scan import Header, Native
from pellucid.data.dicom.stacks import places
from pellucid.data.dicom.values import Transformation
from pellucid.data.dicom.voi import default_window
from pellucid.data.medical_image import MedicalImage
from pellucid.data.nifti import MAX_VOXELS
from pellucid.data.whole import DecodeError
from pellucid.data.windows import Window

_THREADS = 4


def assemble(headers: Sequence[Header], missing: Sequence[int], source: Path, notes: Sequence[str]) -> MedicalImage:
    """The volume (1, D, H, W) of slices that lie at equal steps, those `missing` behind each filled in.

    Windows, units and laterality are those of the slice in the middle. Raises DecodeError that names the file when a
    slice can't be read.
    """
    first, last = headers[0], headers[-1]
    index = np.concatenate([[0], np.cumsum(1 + np.asarray(missing, int))]) if any(missing) else np.arange(len(headers))
    count = int(index[-1]) + 1
    shape = (count, first.rows, first.columns)
    if count * first.rows * first.columns > MAX_VOXELS:
        size = " × ".join(map(str, shape))
        raise DecodeError(f"the volume is {size} voxels; at most {MAX_VOXELS:,} are read")
    assert first.orientation is not None
    assert first.pixel_spacing is not None
    own = places([first, last])
    step = (own[1] - own[0]) / (count - 1)
    affine = affine_of(own[0], first.orientation, first.pixel_spacing, step.tolist())
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    middle = headers[len(headers) // 2]
    known = _known(middle)
    values_of = _plain if _same_both_ways(middle, known.values) else _decoded
    voxels = _voxels(headers, shape, index.tolist(), known, values_of)
    limits = (float(voxels.min()), float(voxels.max()))
    window = known.window or default_window(first.modality or None, voxels, limits, None)
    return MedicalImage(
        voxels[None],
        tuple(spacing.tolist()),
        first.orientation,
        first.modality or None,
        source,
        affine,
        units=known.units,
        laterality=known.laterality,
        window=window,
        inverted=first.photometric == "MONOCHROME1",
        files=tuple(each.path for each in headers),
        notes=(*notes, *known.notes),
        windows=known.windows,
    )


@dataclass(frozen=True, eq=False)
class _Known:
    """A slice's values (H, W), and what its file says of them."""

    values: np.ndarray
    units: str | None
    laterality: str | None
    window: Window | None
    windows: tuple[Window, ...]
    notes: tuple[str, ...]


def _known(header: Header) -> _Known:
    with _named(header):
        file = open_file(header.path.read_bytes())
        decoded = decode_frames(file, check_pixels_there(file), [0])
        windows, window, notes = windows_of(file, decoded, 0)
        units = decoded.transformation.units
        return _Known(
            _grey(decoded),
            units,
            laterality_of(file.header, 0),
            window if windows else None,
            windows,
            (*decoded.transformation.notes, *notes),
        )


def _voxels(
    headers: Sequence[Header],
    shape: tuple[int, int, int],
    index: Sequence[int],
    known: _Known,
    values_of: Callable[[Header, str | None], np.ndarray],
) -> np.ndarray:
    voxels = np.empty(shape, known.values.dtype)
    wider: dict[int, np.ndarray] = {}

    def put(place: int, header: Header) -> None:
        values = values_of(header, known.units)
        if values.shape != shape[1:]:
            raise DecodeError(f"its slice {header.path.name} isn't of the size that its header says")
        if values.dtype == voxels.dtype:
            voxels[place] = values
        else:
            wider[place] = values

    # decoders let others run, plain reading is done before it would help
    threads = 1 if values_of is _plain else min(_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    try:
        list(pool.map(put, index, headers))
    finally:  # an error doesn't wait for the rest
        pool.shutdown(wait=True, cancel_futures=True)
    if wider:
        voxels = voxels.astype(np.result_type(voxels, *wider.values()))
        for place, values in wider.items():
            voxels[place] = values
    for low, high in itertools.pairwise(index):
        for place in range(low + 1, high):
            share = (place - low) / (high - low)
            between = voxels[low] * (1 - share) + voxels[high] * share
            voxels[place] = np.rint(between) if voxels.dtype.kind in "iu" else between
    return voxels


def _decoded(header: Header, units: str | None) -> np.ndarray:
    """A slice (H, W) as its file is decoded."""
    with _named(header):
        file = open_file(header.path.read_bytes())
        decoded = decode_frames(file, check_pixels_there(file), [0])
        own = decoded.transformation.units
        if own != units:
            raise DecodeError(f"its values are in {own or 'no units'}, those of other slices in {units or 'none'}")
        return _grey(decoded)


def _plain(header: Header, units: str | None) -> np.ndarray:
    """A slice (H, W) of plain pixels, read without its header once more; any other as it is decoded."""
    native = header.native
    if native is None:
        return _decoded(header, units)
    with _named(header):
        with header.path.open("rb") as handle:
            handle.seek(native.offset)
            data = handle.read(native.length)
        if len(data) < native.length:
            raise DecodeError(f"the file is truncated: {len(data):,} bytes of pixels, of {native.length:,}")
        stored = np.frombuffer(data, f"<{'ui'[native.signed]}{native.bits // 8}").reshape(header.rows, header.columns)
    if native.stored < native.bits and not _within(stored, native):
        return _decoded(header, units)
    return Transformation(native.slope, native.intercept).apply(stored)


def _within(stored: np.ndarray, native: Native) -> bool:
    """Whether there is nothing in the bits that aren't stored, such as an overlay."""
    half = 2 ** (native.stored - 1)
    low, high = (-half, half - 1) if native.signed else (0, 2 * half - 1)
    return bool(stored.min() >= low and stored.max() <= high)


def _same_both_ways(header: Header, values: np.ndarray) -> bool:
    if header.native is None:
        return False
    plain = _plain(header, None)
    return plain.dtype == values.dtype and np.array_equal(plain, values)


def _grey(decoded: Decoded) -> np.ndarray:
    values = decoded.values
    if values.shape[1] != 1:
        raise DecodeError("it is in colour")
    grey: np.ndarray = values[0, 0]
    return grey


@contextlib.contextmanager
def _named(header: Header) -> Iterator[None]:
    """Name the file in whatever goes wrong with it."""
    try:
        yield
    except (DecodeError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it doesn't fit into memory"
        raise DecodeError(f"its slice {header.path.name} can't be read: {reason}") from error
