"""DICOM files of several kinds as scanners write them, and a MedicalImage of them made with pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from pellucid.data.dicom.geometry import affine_of
from pellucid.data.images import MedicalImage
from references.ct_series import AXIAL, OBLIQUE, SERIES, header, places, set_pixels, straight, write_ct_series

NOISE = np.random.default_rng(5)


def radiograph(path: Path, modality: str = "CR") -> Path:
    """A projection, whose place in the patient no one knows; rows run to the patient's left, columns to the feet."""
    kinds = {"CR": ComputedRadiographyImageStorage, "MG": DigitalMammographyXRayImageStorageForPresentation}
    dataset = header(modality, f"{SERIES}.1", sop_class=kinds[modality])
    del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.InstanceNumber, dataset.PatientOrientation, dataset.BurnedInAnnotation = 1, ["L", "F"], "NO"
    dataset.BodyPartExamined, dataset.ViewPosition, dataset.ImagerPixelSpacing = "CHEST", "PA", [0.5, 0.5]
    if modality == "MG":
        dataset.ImageLaterality, dataset.BodyPartExamined = "L", "BREAST"
    set_pixels(dataset, NOISE.integers(0, 4000, (40, 30)).astype(np.uint16))
    return saved(dataset, path)


def ultrasound(path: Path, frames: int = 3) -> Path:
    """A cine loop in grey, with neither places nor a frame of reference."""
    dataset = header("US", f"{SERIES}.1", sop_class=UltrasoundMultiFrameImageStorage)
    del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
    dataset.ImageType, dataset.InstanceNumber, dataset.PatientOrientation = ["ORIGINAL", "PRIMARY"], 1, ""
    set_pixels(dataset, np.zeros((24, 32), np.uint8))
    dataset.NumberOfFrames, dataset.FrameTime, dataset.FrameIncrementPointer = frames, 40, 0x00181063
    dataset.PixelData = NOISE.integers(0, 255, (frames, 24, 32)).astype(np.uint8).tobytes()
    return saved(dataset, path)


def series_of(folder: Path, modality: str) -> list[Path]:
    """An axial series of MR or PT."""
    kind = {"MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}[modality]
    paths = write_ct_series(folder, modality=modality, orientation=AXIAL)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
        dataset.save_as(path)
    return paths


def enhanced_mr(path: Path, *, frames: int = 6, shuffled: bool = True, orientation: Sequence[float] = OBLIQUE) -> Path:
    """A multi-frame file whose frames aren't in the order of their places."""
    dataset = header("MR", f"{SERIES}.1", sop_class=EnhancedMRImageStorage)
    dataset.ImageType, dataset.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    shape = (frames, 20, 16)
    _, slices = places(shape, orientation)
    order = [(5 * each + 2) % frames if shuffled else each for each in range(frames)]
    set_pixels(dataset, np.zeros(shape[1:], np.uint16))
    dataset.PixelData = NOISE.integers(0, 4000, shape).astype(np.uint16).tobytes()
    dataset.NumberOfFrames = frames
    shared, row_column = Dataset(), straight(orientation)
    plane, measures = Dataset(), Dataset()
    plane.ImageOrientationPatient = [round(float(each), 10) for each in row_column.reshape(-1)]
    measures.PixelSpacing, measures.SliceThickness = [1.5, 1.25], 3.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place in order:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(each), 8) for each in slices[place]]
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return saved(dataset, path)


def saved(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def volume_of(paths: Sequence[Path]) -> MedicalImage:
    """A series of single frames, or the frames of one file, in the order of their places along the normal."""
    headers = [pydicom.dcmread(path) for path in paths]
    first = headers[0]
    if "PerFrameFunctionalGroupsSequence" in first:
        shared = first.SharedFunctionalGroupsSequence[0]
        orientation = [float(each) for each in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
        spacing = [float(each) for each in shared.PixelMeasuresSequence[0].PixelSpacing]
        groups = first.PerFrameFunctionalGroupsSequence
        where = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
        pixels = first.pixel_array
    else:
        orientation = [float(each) for each in first.ImageOrientationPatient]
        spacing = [float(each) for each in first.PixelSpacing]
        where = np.array([each.ImagePositionPatient for each in headers], float)
        pixels = np.stack([each.pixel_array for each in headers]).astype(np.int32) - 1024
    along = where @ np.cross(orientation[:3], orientation[3:])
    order = np.argsort(along)
    step = (where[order[-1]] - where[order[0]]) / (len(order) - 1)
    affine = affine_of(where[order[0]], orientation, spacing, step)
    files = tuple(paths[each] for each in order) if len(paths) > 1 else tuple(paths)
    steps = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    return MedicalImage(pixels[order][None], steps, tuple(orientation), first.Modality, paths[0], affine, files=files)


def picture_of(path: Path, frame: int = 0) -> MedicalImage:
    """One file, or one frame of it, as a picture; colour as RGB."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        pixels = pixels[frame]
    pixels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    orientation, spacing = (dataset.get(name) for name in ("ImageOrientationPatient", "PixelSpacing"))
    return MedicalImage(
        np.ascontiguousarray(pixels),
        tuple(map(float, spacing)) if spacing else None,
        tuple(map(float, orientation)) if orientation else None,
        dataset.get("Modality"),
        path,
        files=(path,),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
    )
