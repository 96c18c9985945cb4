"""Slices of CT and MR series as scanners write them, voxel by voxel from places in millimetres, under random names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
ROOT = "1.2.826.0.1.3680043.10.777"
CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": "1.2.840.10008.5.1.4.1.1.128"}

Change = Callable[[Dataset, int], object]


def oblique() -> tuple[float, ...]:
    """Rows and columns turned about all three axes, at right angles."""
    turned = np.linalg.qr(np.array([[0.93, 0.3, 0.2], [-0.28, 0.9, -0.35], [0.1, 0.2, 0.9]]).T)[0].T
    return (*turned[0].tolist(), *turned[1].tolist())


def pixels_of(number: int, shape: tuple[int, int] = (5, 7)) -> np.ndarray:
    """Unsigned values (H, W) that differ from slice to slice, and that no flip leaves as they are."""
    return np.random.default_rng(number).integers(0, 4000, shape).astype(np.uint16)


def a_slice(
    number: int,
    position: Sequence[float] | None,
    pixels: np.ndarray | None = None,
    *,
    orientation: Sequence[float] | None = AXIAL,
    spacing: tuple[float, float] = (0.8, 0.6),
    series: str = f"{ROOT}.1",
    modality: str = "CT",
) -> Dataset:
    """A slice of values minus 1024, in HU where it is of a CT."""
    pixels = pixels_of(number) if pixels is None else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        CLASSES.get(modality, "1.2.840.10008.5.1.4.1.1.7"),
        f"{series}.{number}",
    )
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT}.9", series
    dataset.FrameOfReferenceUID = f"{ROOT}.8"
    dataset.PatientName, dataset.PatientID = "Made^Up", "made-up-1"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.AccessionNumber, dataset.StudyID = "", "", "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20230405", "101112", ""
    dataset.PositionReferenceIndicator, dataset.SeriesNumber, dataset.Manufacturer = "", 1, "Nobody"
    dataset.Modality, dataset.SeriesDescription = modality, "made up"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber, dataset.InstanceNumber = 1, number
    if position is not None:
        dataset.ImagePositionPatient = [f"{float(each):.9g}" for each in position]
    if orientation is not None:
        dataset.ImageOrientationPatient = [f"{float(each):.12g}" for each in orientation]
    dataset.PixelSpacing, dataset.SliceThickness = list(spacing), 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    places: Sequence[float] = (0, 2, 4, 6, 8, 10),
    *,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-12.5, 20.25, -300.0),
    direction: Sequence[float] | None = None,
    change: Change | None = None,
    seed: int = 0,
    **options: object,
) -> list[Path]:
    """Write a slice at each of `places` (mm along the normal, or along `direction`), numbered by a shuffle.

    `change(dataset, i)` changes the slice of `places[i]` before it is written. Returns the files in the order of
    `places`, whose names say nothing of it.
    """
    row, column = np.reshape(orientation, (2, 3))
    along = np.cross(row, column) if direction is None else np.asarray(direction, float)
    generator = np.random.default_rng(seed)
    numbers = (generator.permutation(len(places)) + 1).tolist()
    names = generator.permutation(10**6)[: len(places)].tolist()
    paths = []
    for index, (place, number, name) in enumerate(zip(places, numbers, names, strict=True)):
        dataset = a_slice(number, np.asarray(origin) + place * along, orientation=orientation, **options)  # type: ignore[arg-type]
        if change is not None:
            change(dataset, index)
        paths.append(save(dataset, folder / f"{name:06}"))
    return paths


def stored(paths: Sequence[Path]) -> np.ndarray:
    """The values (D, H, W) of files in their order, in HU: pydicom's, slice by slice."""
    import pydicom

    slices = [pydicom.dcmread(path) for path in paths]
    return np.stack([each.pixel_array.astype(float) * each.RescaleSlope + each.RescaleIntercept for each in slices])
