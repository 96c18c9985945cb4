"""A volume as a series of CT images, a DICOM file for each slice (PS3.3, A.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from pellucid.files import written_whole

_LPS = np.diag([-1.0, -1.0, 1.0])  # DICOM counts to the left and to the back
_INTERCEPT = -1024


@dataclass(frozen=True)
class Scanned:
    """Whose series it is; UIDs follow from `key` alone."""

    key: str
    patient_id: str
    sex: str = "O"
    age: int = 50
    site: str = "north"
    description: str = "CHEST 5.0 phantom"


def write_series(
    folder: Path,
    values: NDArray[np.int16],
    affine: NDArray[np.floating],
    who: Scanned,
    window: tuple[float, float] = (-600.0, 1500.0),
) -> list[Path]:
    """Write a volume as CT images, a file per slice; the paths in the order of the slices.

    Arguments:
        folder: which is made.
        values: (D, H, W) in HU, at least -1024; slices first.
        affine: (4, 4) from (d, h, w) to mm to the right, the front and the head.
        who: patient and site, all made up.
        window: centre and width that the files state.
    """
    study, series, frame = (_uid(who.key, part) for part in ("study", "series", "frame"))
    paths = []
    for number in range(len(values)):
        path = folder / f"IM{number + 1:05d}.dcm"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = _uid(who.key, f"image {number}")
        dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        _describe(dataset, who, number, window)
        _place(dataset, np.asarray(affine, float), number, values.shape)
        dataset.PixelData = (values[number].astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        with written_whole(path) as aside:
            dataset.save_as(aside, enforce_file_format=True)
        paths.append(path)
    return paths


def _uid(key: str, part: str) -> UID:
    """Always the same for one key, below 2.25 (PS3.5, B.2)."""
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(f'{key} {part}'.encode()).digest()[:16], 'big')}")


def _describe(dataset: FileDataset, who: Scanned, number: int, window: tuple[float, float]) -> None:
    """Patient, study, series, equipment, acquisition and pixels."""
    fields: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "StudyDate": "20200102", "SeriesDate": "20200102", "AcquisitionDate": "20200102", "ContentDate": "20200102",
        "StudyTime": "101500", "SeriesTime": "101600", "AcquisitionTime": "101700", "ContentTime": "101700",
        "AccessionNumber": "", "Modality": "CT", "Manufacturer": "pellucid", "InstitutionName": who.site,
        "ReferringPhysicianName": "", "StudyDescription": "Chest", "SeriesDescription": who.description,
        "ManufacturerModelName": "phantom", "DeviceSerialNumber": "0", "SoftwareVersions": "1",
        "PatientName": f"Phantom^{who.patient_id}", "PatientID": who.patient_id, "PatientBirthDate": "",
        "PatientSex": who.sex, "PatientAge": f"{who.age:03d}Y", "BodyPartExamined": "CHEST", "KVP": "120",
        "ConvolutionKernel": "soft", "PatientPosition": "HFS", "StudyID": "1", "SeriesNumber": 2,
        "AcquisitionNumber": 1, "InstanceNumber": number + 1, "PositionReferenceIndicator": "",
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 0, "RescaleIntercept": _INTERCEPT, "RescaleSlope": 1,
        "RescaleType": "HU", "WindowCenter": window[0], "WindowWidth": window[1],
    }  # fmt: skip
    for name, value in fields.items():
        setattr(dataset, name, value)


def _place(dataset: FileDataset, affine: NDArray[np.float64], number: int, shape: Sequence[int]) -> None:
    """Where the slice lies (PS3.3, C.7.6.2)."""
    ways = _LPS @ affine[:3, :3]
    thick, down, across = np.sqrt((ways**2).sum(axis=0))
    position = _LPS @ affine[:3, 3] + ways[:, 0] * number
    cosines = np.concatenate([ways[:, 2] / across, ways[:, 1] / down])
    dataset.ImagePositionPatient = [f"{each:.10g}"[:16] for each in position]
    dataset.ImageOrientationPatient = [f"{each:.10f}"[:16] for each in cosines]
    dataset.PixelSpacing = [f"{down:.8g}", f"{across:.8g}"]
    dataset.SliceThickness = f"{thick:.8g}"
    dataset.SliceLocation = f"{float(np.cross(cosines[:3], cosines[3:]) @ position):.8g}"
    dataset.Rows, dataset.Columns = shape[1], shape[2]
