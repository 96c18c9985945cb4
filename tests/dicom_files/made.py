"""DICOM files made for a test: small, valid, and wrong in one thing at most."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

NAME = "Nobody^Anna"  # which no error may tell


def items(*each: dict[str, Any]) -> Items:
    """A sequence of items, given by keyword."""
    made = []
    for elements in each:
        dataset = Dataset()
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        made.append(dataset)
    return Items(made)


def header(
    rows: int, columns: int, dtype: np.dtype | str = "u2", *, samples: int = 1, syntax: str = ExplicitVRLittleEndian,
    **elements: Any,
) -> Dataset:  # fmt: skip
    """A data set without pixels; `elements` by keyword, those given as None left out."""
    kind = np.dtype(dtype)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    modality = elements.get("Modality", "OT")
    sop = CTImageStorage if modality == "CT" else SecondaryCaptureImageStorage
    bits = 8 * kind.itemsize
    for keyword, value in {
        "SOPClassUID": sop,
        "SOPInstanceUID": generate_uid(entropy_srcs=["instance"]),
        "Modality": modality,
        "PatientName": NAME,
        "PatientID": "12345",
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": "MONOCHROME2" if samples == 1 else "RGB",
        **({} if samples == 1 else {"PlanarConfiguration": 0}),
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(kind.kind == "i"),
    }.items():
        setattr(dataset, keyword, value)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if "BitsStored" in elements and "HighBit" not in elements:
        dataset.HighBit = dataset.BitsStored - 1
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", sop)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def plain(stored: np.ndarray, **elements: Any) -> Dataset:
    """A data set of stored values (F, H, W, C), (F, H, W) or (H, W), as they are, in one of the plain syntaxes."""
    channels = stored.shape[-1] if stored.ndim == 4 else 1
    frames = len(stored) if stored.ndim > 2 else 1
    rows, columns = stored.shape[1:3] if stored.ndim > 2 else stored.shape
    elements.setdefault("syntax", ExplicitVRLittleEndian)
    if frames > 1:
        elements.setdefault("NumberOfFrames", frames)
    dataset = header(rows, columns, stored.dtype, samples=channels, **elements)
    values = np.moveaxis(stored, -1, 1) if channels > 1 and dataset.PlanarConfiguration else stored
    order = ">" if elements["syntax"] == pydicom.uid.ExplicitVRBigEndian else "<"
    return with_pixels(dataset, values.astype(stored.dtype.newbyteorder(order)).tobytes())


def with_pixels(dataset: Dataset, data: bytes, vr: str = "") -> Dataset:
    """A data set with the bytes of its native pixels."""
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = vr or ("OB" if dataset.BitsAllocated <= 8 else "OW")
    return dataset


def packed(dataset: Dataset, frames: Sequence[bytes], *, fragments: int = 1, table: bool = True) -> Dataset:
    """A data set with encoded frames as its pixels."""
    dataset.PixelData = encapsulate(list(frames), fragments_per_frame=fragments, has_bot=table)
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return dataset


def data_of(dataset: Dataset) -> bytes:
    """The bytes of the file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def with_syntax(data: bytes, syntax: bytes) -> bytes:
    """A file that says it is of another transfer syntax, be it none at all."""
    begin = data.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack_from("<H", data, begin + 6)[0]
    said = syntax + b"\0" * (len(syntax) % 2)
    return data[: begin + 6] + struct.pack("<H", len(said)) + said + data[begin + 8 + length :]


def save(path: Path, dataset: Dataset) -> Path:
    path.write_bytes(data_of(dataset))
    return path


def enhanced(
    stored: np.ndarray,
    positions: Sequence[Sequence[float]],
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    *,
    spacing: Sequence[float] = (1, 1),
    modality: str = "MR",
    shared: dict[str, Items] | None = None,
    per_frame: Sequence[dict[str, Items]] = (),
    **elements: Any,
) -> Dataset:
    """An enhanced multi-frame object of frames (F, H, W) in the order that they are given."""
    sop = {"MR": "1.2.840.10008.5.1.4.1.1.4.1", "CT": "1.2.840.10008.5.1.4.1.1.2.1"}.get(modality)
    dataset = plain(stored, Modality=modality, SOPClassUID=sop, **elements)
    dataset.NumberOfFrames = len(stored)
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    dataset.SharedFunctionalGroupsSequence = items(
        {
            "PixelMeasuresSequence": items({"PixelSpacing": list(spacing), "SliceThickness": 1}),
            "PlaneOrientationSequence": items({"ImageOrientationPatient": list(orientation)}),
            **(shared or {}),
        }
    )
    groups = [
        {"PlanePositionSequence": items({"ImagePositionPatient": [float(each) for each in position]}), **extra}
        for position, extra in zip(positions, per_frame or [{}] * len(stored), strict=True)
    ]
    dataset.PerFrameFunctionalGroupsSequence = items(*groups)
    return dataset
