"""NIfTI-1 and NIfTI-2 volumes in one file, plain or compressed: nibabel knows the header, this module checks it.

Axes stay as they are stored: voxel (i, j, k) of the file is `pixels[0, i, j, k]`, so that D, H and W are i, j and k,
and the file's affine takes their indices to millimetres. Where a file says nothing else, i runs to the right or left,
j to the front or back, and k up or down.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError

VOLUME_ENDINGS = (".nii", ".nii.gz")
MAX_VOXELS = 2**29  # of all volumes of a file: 1 GiB in 16 bits

Header = nibabel.Nifti1Header  # of which that of NIfTI-2 is a kind

_GZIP = b"\x1f\x8b"
_SLACK = 2**24  # bytes before and after the voxels
_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # per unit: not said, metre, millimetre, micrometre
_GEOMETRY: tuple[str, ...] = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"),
    *("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """Pixels (1, D, H, W), the step along each axis in mm, and the affine from (d, h, w) to mm."""

    pixels: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray  # (4, 4), to the right, the front and up


def is_nifti(data: bytes, name: str) -> bool:
    """Whether a file is a NIfTI by its content, or at least by its name."""
    if name.lower().endswith(VOLUME_ENDINGS):
        return True
    if data.startswith(_GZIP):
        try:
            data = zlib.decompressobj(31).decompress(data, 540)
        except zlib.error:
            return False
    return (_kind(data) is not None and data[344:347] in (b"n+1", b"ni1")) or data[4:7] in (b"n+2", b"ni2")


def decode_nifti(data: bytes, index: int | None = None) -> Volume:
    """The volume of a file, in the stored type; where the header scales it, in float32 (float64 from 32 bits on).

    Of several volumes the one at `index`, counted over all axes after the third. Raises DecodeError for damaged and
    truncated files, for several volumes without an index, for colour and complex voxels, and more than MAX_VOXELS.
    """
    packed = data.startswith(_GZIP)
    header = _header(_inflated(data, 540, whole=False) if packed else data[:540])
    shape, count = _shape(header)
    stored = _stored_type(header)
    offset = _offset(header)
    if packed:
        data = _inflated(data, offset + math.prod(shape) * count * stored.itemsize + _SLACK, whole=True)
    if len(data) < offset + math.prod(shape) * count * stored.itemsize:
        raise DecodeError("the file is truncated")
    place = _place(count, index)
    voxels = np.frombuffer(data, stored, math.prod(shape), offset + place * math.prod(shape) * stored.itemsize)
    pixels = _scaled(voxels.reshape(shape, order="F"), header)
    affine = _affine(header)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return Volume(np.ascontiguousarray(pixels)[None], tuple(spacing.tolist()), affine)


def geometry_of(path: Path) -> Header:
    """A header that says where the voxels of a NIfTI file lie, in its own units, and nothing else of it.

    Raises UnreadableFileError.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(2**16)
        header = _header(_inflated(data, 540, whole=False) if data.startswith(_GZIP) else data[:540])
    except (OSError, DecodeError) as error:
        raise UnreadableFileError(f"can't read {path}: {error}.") from error
    bare: Header = type(header)()
    for field in _GEOMETRY:
        bare[field] = header[field]
    return bare


def geometry_from(affine: np.ndarray | None, spacing: Sequence[float] = ()) -> Header:
    """A header that puts voxels where an affine does.

    Arguments:
        affine: (4, 4), from the indices of a voxel to mm right, front and up. It becomes the sform, and the qform as
            well where its axes are at right angles; else there is no qform. None where places aren't known.
        spacing: in mm along each axis, where there is no affine but that is known.
    """
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm")
    if affine is None:
        header["pixdim"][1 : 1 + len(spacing)] = spacing
        return header
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    header["pixdim"][1:4] = steps
    header.set_sform(affine, code=1)
    directions = affine[:3, :3] / steps
    if np.allclose(directions.T @ directions, np.eye(3), atol=1e-5):
        header.set_qform(affine, code=1)
    return header


def encode_nifti(values: np.ndarray, geometry: Header, about: str = "") -> bytes:
    """Values (D, H, W), or (D, H, W, N) for N volumes, as a compressed file of float32; equal input, equal bytes.

    `geometry` says where voxels lie, as `geometry_of` gives it; `about` (80 ASCII characters) what they are.
    """
    kind: Any = nibabel.Nifti2Image if isinstance(geometry, nibabel.Nifti2Header) else nibabel.Nifti1Image
    header = geometry.copy()
    header.set_data_dtype(np.float32)
    header["descrip"] = about.encode("ascii", "replace")[:79]
    image = kind(np.asarray(values, np.float32), None, header)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _inflated(data: bytes, most: int, *, whole: bool) -> bytes:
    """Up to `most` bytes of compressed data; `whole` sees that there are no more and that the checksum is right."""
    parts, length = [], 0
    try:
        while data:
            inflate = zlib.decompressobj(31)
            parts.append(inflate.decompress(data, most - length + 1))
            length += len(parts[-1])
            if length > most or not inflate.eof:
                break
            data = inflate.unused_data if inflate.unused_data.startswith(_GZIP) else b""
    except zlib.error as error:
        raise DecodeError("its compressed data is damaged") from error
    if whole and length > most:
        raise DecodeError("it holds far more than its header says")
    if whole and not inflate.eof:
        raise DecodeError("the file is truncated")
    return b"".join(parts)[:most]


def _kind(data: bytes) -> tuple[type[Header], str] | None:
    """The header's version and the order of its bytes, from its length, which comes first."""
    length = data[:4]
    for order, number in (("<", int.from_bytes(length, "little")), (">", int.from_bytes(length, "big"))):
        if number in _HEADERS:
            return _HEADERS[number], order
    return None


def _header(data: bytes) -> Header:
    found = _kind(data)
    if found is None:
        raise DecodeError("not a NIfTI file, or its header is damaged")
    kind, order = found
    size = 348 if kind is nibabel.Nifti1Header else 540
    if len(data) < size:
        raise DecodeError("the file is truncated")
    header = kind(data[:size], order, check=False)
    magic = header["magic"].item()
    if magic.startswith((b"ni1", b"ni2")):
        raise DecodeError("it is one of a pair of files; save the volume as a single .nii file")
    if not magic.startswith((b"n+1", b"n+2")):
        raise DecodeError("it doesn't say that it is a NIfTI file (wrong magic)")
    return header


def _shape(header: Header) -> tuple[tuple[int, int, int], int]:
    """The shape of a volume and how many there are."""
    axes, *lengths = (int(length) for length in header["dim"])
    if not 1 <= axes <= 7 or min(lengths[:axes]) < 1:
        raise DecodeError(f"its header gives {axes} axes of lengths {', '.join(map(str, lengths))}")
    i, j, k, *rest = [*lengths[:axes], 1, 1, 1][: max(3, axes)]
    if math.prod((i, j, k, *rest)) > MAX_VOXELS:
        size = " × ".join(map(str, (i, j, k, *rest)))
        raise DecodeError(f"the volume is {size} voxels; at most {MAX_VOXELS:,} are read")
    return (i, j, k), math.prod(rest)


def _stored_type(header: Header) -> np.dtype:
    try:
        stored: np.dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise DecodeError(f"its voxels are of an unknown type ({int(header['datatype'])})") from error
    if stored.kind not in "iuf" or not 1 <= stored.itemsize <= 8:
        kind = "colour" if stored.fields else str(stored)
        raise DecodeError(f"its voxels are {kind}; integers and real numbers up to 64 bits are read")
    return stored


def _offset(header: Header) -> int:
    """Where the voxels begin."""
    offset, least = float(header["vox_offset"]), int(header["sizeof_hdr"])
    if offset == 0:
        return least + 4
    if not least <= offset <= _SLACK:
        raise DecodeError(f"its header is damaged: voxels from byte {offset:g} on")
    return int(offset)


def _place(count: int, index: int | None) -> int:
    if index is None and count > 1:
        raise DecodeError(f"the file holds {count} volumes; pick one with index= (--index), from 0 to {count - 1}")
    if index is not None and not 0 <= index < count:
        raise DecodeError(f"the file holds {count} volumes, none with index {index}")
    return index or 0


def _scaled(voxels: np.ndarray, header: Header) -> np.ndarray:
    """Stored values times the slope plus the intercept, where the header has them."""
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or (slope, intercept) == (1, 0):
        return native
    if not math.isfinite(intercept):
        raise DecodeError(f"its header is damaged: values are scaled by {slope:g} and {intercept:g}")
    wide = native.dtype.itemsize > (4 if native.dtype.kind == "f" else 2)
    with np.errstate(all="ignore"):  # what overflows isn't finite, which is found
        scaled = native * np.float64(slope) + intercept
        return scaled if wide else scaled.astype(np.float32)


def _affine(header: Header) -> np.ndarray:
    try:
        affine: np.ndarray = np.array(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise DecodeError("its header is damaged: where the voxels lie can't be told") from error
    affine[:3] *= _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    steps = affine[:3, :3]
    with np.errstate(all="ignore"):
        volume = abs(np.linalg.det(steps / np.sqrt((steps**2).sum(axis=0)))) if np.isfinite(affine).all() else 0.0
    if not volume > 1e-6:  # of a voxel with sides of one
        raise DecodeError("its header is damaged: where the voxels lie can't be told")
    return affine
