"""Volumes against SimpleITK's series reader; where the two differ, both are shown against the files' own positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from pellucid.data.dicom.series import scan
from pellucid.data.images import MedicalImage, read_image
from pellucid.errors import UnreadableFileError
from references.slices import AXIAL, CORONAL, oblique, stored, write_series

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


def by_simpleitk(folder: Path, uid: str = "") -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return reader.Execute()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def places(image: MedicalImage | sitk.Image, shape: tuple[int, ...]) -> np.ndarray:
    """Where the corners and the middle of a volume (D, H, W) are, mm to the left, back and head."""
    corners = np.stack(np.meshgrid(*((0, length // 2, length - 1) for length in shape), indexing="ij"), -1).reshape(
        -1, 3
    )
    if isinstance(image, MedicalImage):
        assert image.affine is not None
        return (corners @ image.affine[:3, :3].T + image.affine[:3, 3]) * (-1, -1, 1)
    return np.array([image.TransformIndexToPhysicalPoint(corner[::-1].tolist()) for corner in corners])


def assert_alike(image: MedicalImage, reference: sitk.Image) -> None:
    values = sitk.GetArrayFromImage(reference)
    assert image.pixels.shape == (1, *values.shape)
    np.testing.assert_array_equal(image.pixels[0], values)
    np.testing.assert_allclose(places(image, values.shape), places(reference, values.shape), atol=1e-4)
    np.testing.assert_allclose(image.spacing, reference.GetSpacing()[::-1], rtol=1e-5)
    assert image.affine is not None
    origin = image.affine[:3, 3] * (-1, -1, 1)
    np.testing.assert_allclose(origin, reference.GetOrigin(), atol=1e-5)
    directions = (image.affine[:3, :3] / image.spacing)[:, ::-1] * [[-1], [-1], [1]]
    np.testing.assert_allclose(directions, np.reshape(reference.GetDirection(), (3, 3)), atol=1e-5)


def test_a_real_ct_series(shared_data: Path) -> None:
    folder = shared_data / "dicom_nifti" / "dicom" / "series_ct_torchio"
    image = read_image(folder)
    assert image.pixels.shape == (1, 17, 128, 88)
    assert_alike(image, by_simpleitk(folder))


def test_the_series_that_pydicom_ships() -> None:
    found = scan([PYDICOM])
    volumes = [each for each in found.series if each.volume]
    assert [(each.folder.name, len(each.files)) for each in volumes] == [("CT5N", 5)]
    assert_alike(read_image(volumes[0].path), by_simpleitk(volumes[0].folder, volumes[0].uid))
    files = [file for each in found.series for file in each.files]
    assert len(files) == len(set(files)) == 31
    assert {Path(path).name for path, reason in found.skipped if reason == "not a DICOM file"} == {
        "README.txt",
        "README",
    }
    for series in found.series:
        if len(series.files) == 1:  # a picture, which its own file is as well
            np.testing.assert_array_equal(read_image(series.path).pixels, read_image(series.files[0]).pixels)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, oblique(), tuple(-each for each in oblique())])
@pytest.mark.parametrize("places_", [(0, 2, 4, 6, 8, 10), (10, 8, 6, 4, 2, 0), (0, 0.7, 1.4, 2.1)])
def test_synthetic_series(tmp_path: Path, orientation: tuple[float, ...], places_: tuple[float, ...]) -> None:
    write_series(tmp_path, places_, orientation=orientation)
    assert_alike(read_image(tmp_path), by_simpleitk(tmp_path))


def true_places(files: tuple[Path, ...]) -> np.ndarray:
    return np.array([pydicom.dcmread(path).ImagePositionPatient for path in files], float)


def first_voxels(reference: sitk.Image) -> np.ndarray:
    return np.array([reference.TransformIndexToPhysicalPoint((0, 0, d)) for d in range(reference.GetSize()[2])])


def off(reference: sitk.Image, files: tuple[Path, ...]) -> float:
    """By how many mm SimpleITK misplaces a slice at most, if its slices are the files in their order."""
    return float(np.linalg.norm(first_voxels(reference) - true_places(files), axis=1).max())


def test_a_tilted_gantry_is_sheared_away_by_simpleitk(tmp_path: Path) -> None:
    write_series(tmp_path, direction=np.array([0, np.tan(np.radians(20)), 1]))
    image, reference = read_image(tmp_path), by_simpleitk(tmp_path)
    starts = np.array([(image.affine @ (d, 0, 0, 1))[:3] * (-1, -1, 1) for d in range(6)])
    np.testing.assert_allclose(starts, true_places(image.files), atol=1e-6)
    np.testing.assert_allclose(starts[-1], (-12.5, 23.890, -290), atol=1e-3)
    np.testing.assert_allclose(first_voxels(reference)[-1], (-12.5, 20.25, -289.358), atol=1e-3)
    assert off(reference, image.files) == pytest.approx(3.70, abs=0.01)


def test_unequal_steps_are_made_equal_by_simpleitk(tmp_path: Path) -> None:
    files = tuple(write_series(tmp_path, [0, 2, 4, 9, 11]))
    with pytest.raises(UnreadableFileError, match="at unequal steps, from 2 to 5 mm"):
        read_image(tmp_path)
    assert off(by_simpleitk(tmp_path), files) == pytest.approx(1.5)


def test_a_missing_slice_is_passed_over_by_simpleitk(tmp_path: Path) -> None:
    files = tuple(write_series(tmp_path, [0, 2, 4, 8, 10]))
    (series,) = scan([tmp_path]).series
    image = read_image(f"{series.path}+filled")
    starts = np.array([(image.affine @ (d, 0, 0, 1))[:3] * (-1, -1, 1) for d in (0, 1, 2, 4, 5)])
    np.testing.assert_allclose(starts, true_places(files), atol=1e-6)
    assert off(by_simpleitk(tmp_path), files) == pytest.approx(1.0)


def test_names_say_nothing_of_places(tmp_path: Path) -> None:
    write_series(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(each) for each in sorted(tmp_path.iterdir())])
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        by_name = reader.Execute()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.pixels[0], stored(image.files))
    assert off(by_name, tuple(sorted(tmp_path.iterdir()))) > 2
