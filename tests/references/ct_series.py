"""Series of CT files as a scanner would write them, made voxel by voxel from places in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

# turned about all three axes: rows run to the patient's left, back and up
OBLIQUE = (0.936, 0.331, 0.116, -0.283, 0.900, -0.331)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STUDY, SERIES, FRAME = "1.2.826.0.1.3680043.10.999.1", "1.2.826.0.1.3680043.10.999.1.1", "1.2.826.0.1.3680043.10.999.2"


def straight(orientation: Sequence[float]) -> np.ndarray:
    """Two directions (2, 3) made exactly orthonormal, the first kept."""
    row = np.array(orientation[:3], float)
    row /= np.linalg.norm(row)
    column = np.array(orientation[3:], float)
    column -= row * (row @ column)
    return np.array([row, column / np.linalg.norm(column)])


def places(
    shape: tuple[int, int, int],
    orientation: Sequence[float] = OBLIQUE,
    spacing: tuple[float, float, float] = (3.0, 1.5, 1.25),
    origin: Sequence[float] = (-40.0, 25.0, -310.0),
    tilt: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The centre of each voxel (D, H, W, 3), LPS mm, and the position of each slice (D, 3).

    `spacing` between slices, rows and columns. `tilt`, in degrees, moves each slice along the columns, as slices of a
    tilted gantry lie.
    """
    row, column = straight(orientation)
    step = np.cross(row, column) * spacing[0] + column * (spacing[0] * np.tan(np.radians(tilt)))
    slices = np.asarray(origin, float) + np.arange(shape[0])[:, None] * step
    down = np.arange(shape[1])[:, None] * column * spacing[1]
    along = np.arange(shape[2])[:, None] * row * spacing[2]
    return slices[:, None, None] + down[None, :, None] + along[None, None, :], slices


def blob(at: np.ndarray, place: Sequence[float], size: float = 4.0) -> np.ndarray:
    """A bright round marker around a place in mm, 1 at its centre."""
    bright: np.ndarray = np.exp(-((at - np.asarray(place)) ** 2).sum(axis=-1) / (2 * size**2))
    return bright


def write_ct_series(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (10, 24, 32),
    orientation: Sequence[float] = OBLIQUE,
    spacing: tuple[float, float, float] = (3.0, 1.5, 1.25),
    origin: Sequence[float] = (-40.0, 25.0, -310.0),
    tilt: float = 0.0,
    markers: Sequence[tuple[Sequence[float], float]] = (),
    backwards: bool = False,
    modality: str = "CT",
    uid: str = SERIES,
) -> list[Path]:
    """Write a series: -1000 HU, and each marker (place in LPS mm, brightness in HU above) as a blob of 4 mm.

    Files are named and numbered in the order of acquisition, which runs against the slices' normal if `backwards`.
    Returns their paths in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    at, slices = places(shape, orientation, spacing, origin, tilt)
    values = np.full(shape, -1000.0)
    for place, bright in markers:
        values += bright * blob(at, place)
    row, column = straight(orientation)
    order = range(shape[0] - 1, -1, -1) if backwards else range(shape[0])
    paths = []
    for number, place in enumerate(order, 1):
        dataset = header(modality, f"{uid}.{number}", uid)
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [round(float(each), 8) for each in slices[place]]
        dataset.ImageOrientationPatient = [round(float(each), 10) for each in (*row, *column)]
        dataset.PixelSpacing = [spacing[1], spacing[2]]
        dataset.SliceThickness = spacing[0]
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        if tilt:
            dataset.GantryDetectorTilt = tilt
        set_pixels(dataset, np.rint(values[place] + 1024).astype(np.uint16))
        paths.append(folder / f"{number:04}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def set_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    """Grey pixels (H, W) of 8 or 16 bits, unsigned."""
    bits = 8 * pixels.dtype.itemsize
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def header(modality: str, instance: str, series: str = SERIES, sop_class: str = CTImageStorage) -> Dataset:
    """What every image says: a made-up patient, study, series and scanner."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, series
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = FRAME, ""
    dataset.PatientName, dataset.PatientID = "Mäkelä^Märta", "made-up-1"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19500102", "F", "073Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20230405", "101112", "1"
    dataset.SeriesDate, dataset.SeriesTime, dataset.SeriesNumber = "20230405", "101112", 3
    dataset.AcquisitionDate, dataset.AcquisitionTime, dataset.AcquisitionNumber = "20230405", "101112", 1
    dataset.ContentDate, dataset.ContentTime = "20230405", "101112"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "acc-1", ""
    dataset.StudyDescription, dataset.Modality = "made up", modality
    dataset.Manufacturer, dataset.ManufacturerModelName = "Nobody", "None"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientPosition = "HFS"
    dataset.Laterality = ""
    if modality == "CT":
        dataset.KVP = 120
    return dataset
