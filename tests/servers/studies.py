"""Small DICOM studies with made-up patients, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "OT": SecondaryCaptureImageStorage}


def uid(*words: object) -> str:
    """The same UID for the same words."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def slice_of(
    name: str, number: int, *, series: str = "a", modality: str = "CT", patient: str = "P-17", side: int = 16
) -> FileDataset:
    """One slice of side × side pixels, 2 mm from the next."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CLASSES[modality]
    meta.MediaStorageSOPInstanceUID = uid(name, series, number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(name), uid(name, series)
    data.FrameOfReferenceUID = uid(name, "frame")
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = (
        "Nobody^Made^Up",
        patient,
        "19600102",
        "F",
    )
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20260203", "101112", "1", "ACC-4711"
    data.StudyDescription, data.SeriesDescription = "Chest", f"series {series}"
    data.Modality, data.SeriesNumber, data.InstanceNumber = modality, ord(series), number
    data.Manufacturer, data.ReferringPhysicianName = "phantom", ""
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-side / 2, -side / 2, 2.0 * number]
    data.PixelSpacing, data.SliceThickness = [1, 1], 2
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = side
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.WindowCenter, data.WindowWidth = 0, 400
    pixels = np.random.default_rng(number).integers(0, 4096, (side, side), np.uint16)
    data.PixelData = pixels.tobytes()
    return data


def write(folder: Path, *slices: Dataset, compressed: bool = False) -> list[Path]:
    """Files in a folder, RLE where `compressed`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, each in enumerate(slices):
        if compressed:
            each.compress(RLELossless, generate_instance_uid=False)
        path = folder / f"{each.SeriesInstanceUID[-6:]}-{number}.dcm"
        each.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
