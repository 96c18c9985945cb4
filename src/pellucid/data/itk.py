"""NRRD and MetaImage files: SimpleITK reads them, this module checks their headers first.

Axes of volumes stay as they are stored, as those of NIfTI do: voxel (i, j, k) of the file is `pixels[0, i, j, k]`.
SimpleITK counts millimetres to the patient's left and back whatever the file's own space, the affine to the right and
front. A NRRD that names no space is taken to run to the left, back and up, and the image says so.
"""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.medical_image import MedicalImage
from pellucid.data.nifti import MAX_VOXELS
from pellucid.data.whole import DecodeError

ITK_ENDINGS = (".nrrd", ".mha", ".mhd")

_NRRD = b"NRRD000"
_HEADER = 2**20  # bytes within which a header ends
_SLACK = 2**24
_DEFLATE = 1032  # times that deflated data may grow at most
_META_START = re.compile(rb"\A\s*(ObjectType|NDims|Comment|ObjectSubType|ID|Name)\s*=")
_META_FIELD = re.compile(r"(?m)^\s*(\w+)\s*=\s*(.*?)\s*$")
_NRRD_FIELD = re.compile(r"(?m)^([^#:=\n][^:\n]*): (.*?)\s*$")
_PACKED = ("gz", "gzip")
_PLAIN = ("raw", "ascii", "text", "txt", "hex")
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


# bytes of a voxel; a long is 4 or 8
_META_TYPES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}

_META_PLACE = (
    "TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin", "ElementSpacing", "ElementSize",
)  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    name: str
    reader: str
    fields: dict[str, str]
    length: int  # of the header

    def field(self, *names: str) -> str:
        return next((self.fields[name] for name in names if name in self.fields), "")


def is_itk(path: Path) -> bool:
    """Whether a file is a NRRD or MetaImage by its content, or at least by its name."""
    if path.name.lower().endswith(ITK_ENDINGS):
        return path.is_file()
    try:
        with path.open("rb") as handle:
            head = handle.read(64)
    except (OSError, ValueError):
        return False
    return head.startswith(_NRRD) or _META_START.match(head) is not None


def decode_itk(path: Path, index: int | None = None) -> MedicalImage:
    """The volume (1, D, H, W) of a file in its stored type, or its picture (C, H, W) where it has two axes.

    Of several volumes, along a fourth axis or as components of voxels, the one at `index`. Raises DecodeError with the
    reason alone for damaged and truncated files, for colour and complex voxels, for data that lie in another folder,
    and for more than MAX_VOXELS voxels.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(_HEADER)
        stored = path.stat().st_size
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    if not head:
        raise DecodeError("the file is empty")
    kind = _kind(head)
    data = _data_file(kind, path)
    try:
        stored = data.stat().st_size if data != path else stored - kind.length
    except OSError as error:
        raise DecodeError(f"the file of its data, {data.name}, can't be read: {error.strerror}") from error
    _check_size(kind, stored)
    return _read(path, kind, index)


def _kind(head: bytes) -> _Kind:
    if head.startswith(_NRRD):
        start = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]
        found = _NRRD_FIELD.findall(start.decode("latin-1").replace("\r", ""))
        return _Kind("NRRD", "NrrdImageIO", {name.lower(): value for name, value in found}, len(start))
    if not _META_START.match(head):
        raise DecodeError("not a NRRD or MetaImage file, or its header is damaged")
    end = re.search(rb"(?m)^\s*ElementDataFile\s*=.*$", head)
    if end is None:
        raise DecodeError("its header is damaged or cut: it doesn't say where its data are (ElementDataFile)")
    fields = dict(_META_FIELD.findall(head[: end.end()].decode("latin-1")))
    for name in _META_PLACE:
        try:
            known = all(math.isfinite(float(each)) for each in fields.get(name, "").split())
        except ValueError:
            known = False
        if not known:  # MetaImage's own reader takes it for zero
            raise DecodeError(f"its header is damaged: where the voxels lie can't be told ({name})")
    return _Kind("MetaImage", "MetaImageIO", fields, end.end())


def _data_file(kind: _Kind, path: Path) -> Path:
    """Where the voxels are: the file itself or one beside it."""
    name = kind.field("data file", "datafile", "ElementDataFile")
    if not name or name.upper() == "LOCAL":
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise DecodeError("its data are in several files; save it as one")
    beside = path.parent / name
    if beside.resolve().parent != path.parent.resolve():
        raise DecodeError("its data are in another folder, which isn't followed; put them beside it")
    return beside


def _check_size(kind: _Kind, stored: int) -> None:
    """Refuse headers that claim more voxels than so many bytes can hold, before memory is spent on them."""
    try:
        sizes = [int(each) for each in kind.field("sizes", "DimSize").split()]
        components = int(kind.field("ElementNumberOfChannels") or 1)
        told = int(kind.field("CompressedDataSize") or 0)
    except ValueError:
        sizes, components, told = [], 1, 0
    if not sizes or len(sizes) > 8 or min(*sizes, components) < 1:
        raise DecodeError("its header is damaged: the lengths of its axes can't be told")
    voxels = math.prod(sizes) * components
    if voxels > MAX_VOXELS:
        raise DecodeError(f"the volume is {' × '.join(map(str, sizes))} voxels; at most {MAX_VOXELS:,} are read")
    encoding = kind.field("encoding").lower()
    if encoding and encoding not in (*_PACKED, *_PLAIN):
        raise DecodeError("its data are encoded in a way that isn't read; raw, ascii, hex and gzip are")
    if encoding in _PACKED or kind.field("CompressedData").lower() == "true":
        least = max(told, (voxels - _SLACK) // _DEFLATE)
    else:
        least = voxels * _META_TYPES.get(kind.field("ElementType").removeprefix("MET_"), 1)
    if stored < least:
        raise DecodeError("the file is truncated")


def _read(path: Path, kind: _Kind, index: int | None) -> MedicalImage:
    sitk: Any = importlib.import_module("SimpleITK")  # which takes a while, and few need it
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind.reader)
    reader.SetFileName(str(path))
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
        axes, components = reader.GetDimension(), reader.GetNumberOfComponents()
        size = reader.GetSize()
        _check_voxels(sitk, reader, axes)
        place = _place(math.prod(size[3:]) * components if axes > 2 else 1, index)
        if axes > 3:
            start, rest = [0] * axes, place // components
            for axis in range(3, axes):
                rest, start[axis] = divmod(rest, size[axis])
            reader.SetExtractIndex(start)
            reader.SetExtractSize([*size[:3], *(0,) * (axes - 3)])
        values = sitk.GetArrayViewFromImage(image := reader.Execute())
        pixels = np.array(values[..., place % components] if axes > 2 and components > 1 else values)
        del values, image
    except RuntimeError as error:
        raise DecodeError(_reason(str(error))) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    steps = [abs(float(step)) for step in reader.GetSpacing()]
    if axes == 2:
        picture = pixels[None] if components == 1 else np.moveaxis(pixels, -1, 0)
        return MedicalImage(np.ascontiguousarray(picture), (steps[1], steps[0]), None, None, path)
    affine = _affine(reader, axes)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    notes: tuple[str, ...] = ()
    if kind.name == "NRRD" and not kind.field("space", "space dimension"):
        notes = ("it doesn't say where it lies; its axes are taken to run to the left, the back and up",)
    voxels = np.ascontiguousarray(pixels.transpose(2, 1, 0))[None]
    return MedicalImage(voxels, tuple(spacing.tolist()), None, None, path, affine, notes=notes)


def _check_voxels(sitk: Any, reader: Any, axes: int) -> None:
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    components = reader.GetNumberOfComponents()
    if "complex" in kind or not re.search(r"integer|float", kind):
        raise DecodeError(f"its voxels are of the type {kind}; integers and real numbers are read")
    colour = components in (3, 4) and "8-bit unsigned" in kind
    if axes == 2:
        if components not in (1, 3):
            raise DecodeError(f"its pixels have {components} components; grey and RGB are read")
    elif axes not in (3, 4):
        raise DecodeError(f"it has {axes} axes; two, three and four are read")
    elif colour:
        raise DecodeError("its voxels are colour; integers and real numbers are read")


def _place(count: int, index: int | None) -> int:
    if index is None and count > 1:
        raise DecodeError(f"the file holds {count} volumes; pick one with index= (--index), from 0 to {count - 1}")
    if index is not None and not 0 <= index < count:
        raise DecodeError(f"the file holds {count} volumes, none with index {index}")
    return index or 0


def _affine(reader: Any, axes: int) -> np.ndarray:
    direction = np.array(reader.GetDirection(), float).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3], float)
    affine[:3, 3] = reader.GetOrigin()[:3]
    affine[:3] *= _LPS_TO_RAS[:, None]
    steps = affine[:3, :3]
    with np.errstate(all="ignore"):
        volume = abs(np.linalg.det(steps / np.sqrt((steps**2).sum(axis=0)))) if np.isfinite(affine).all() else 0.0
    if not volume > 1e-6:  # of a voxel with sides of one
        raise DecodeError("its header is damaged: where the voxels lie can't be told")
    return affine


def _reason(told: str) -> str:
    """One line from many of SimpleITK's, which name the file."""
    if re.search(r"fread got only|bytes but received|data not read|hit end", told) or "cannot be read" in told:
        return "the file is truncated or damaged"
    if "direction" in told.lower():
        return "its header is damaged: where the voxels lie can't be told"
    return "its header or data are damaged"
