"""From a CT series to objects and back: what was seen at a place in millimetres is at that place, in every file.

Two markers of unequal brightness lie at known places, neither at a voxel's centre, on different sides of the patient.
A network whose map is the image itself explains the series; highdicom, SimpleITK and nibabel read what was written.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

import pellucid
from pellucid.data.dicom.objects import About, Finding, Map
from pellucid.data.dicom.outputs import Wanted, write_objects
from pellucid.data.images import MedicalImage, read_image
from pellucid.data.maps_out import write_map
from pellucid.data.transforms import prepare
from references.ct_series import AXIAL, OBLIQUE, places, write_ct_series

# LPS mm; the brighter one further left, further back and lower
MIDDLE = np.array([-26.2, 36.1, -296.4])
APART = np.array([6.3, 5.2, -6.9])
BRIGHT, DIM = MIDDLE + APART, MIDDLE - APART
LEFT = np.array([1.0, 0.0, 0.0])
SHAPE, SPACING = (10, 24, 32), (3.0, 1.5, 1.25)
SAGITTAL = (0.1, 0.99, 0.05, 0.02, -0.06, -0.998)

# orientation, tilt of the gantry, and whether the files run against the normal
SERIES = {
    "oblique": (OBLIQUE, 0.0, False),
    "oblique, backwards": (OBLIQUE, 0.0, True),
    "axial": (AXIAL, 0.0, False),
    "face down": ((-1, 0, 0, 0, -1, 0), 0.0, False),
    "from the head": ((-1, 0, 0, 0, 1, 0), 0.0, False),
    "sagittal": (SAGITTAL, 0.0, True),
    "tilted": (AXIAL, 18.0, False),
    "tilted, backwards": (AXIAL, -18.0, True),
}
Written = tuple[str, dict[str, Path]]
STRAIGHT = [name for name in SERIES if "tilted" not in name]


def series(folder: Path, name: str) -> MedicalImage:
    orientation, tilt, backwards = SERIES[name]
    around, _ = places(SHAPE, orientation, SPACING, (0, 0, 0), tilt)
    paths = write_ct_series(
        folder,
        shape=SHAPE,
        orientation=orientation,
        spacing=SPACING,
        origin=MIDDLE - around.reshape(-1, 3).mean(axis=0),
        tilt=tilt,
        backwards=backwards,
        markers=[(BRIGHT, 1000.0), (DIM, 450.0)],
    )
    assert len(paths) == SHAPE[0]
    return read_image(folder)


def explained(image: MedicalImage) -> np.ndarray:
    """The layer-cam of a network whose last layer is its image."""
    first, last = nn.Conv3d(1, 1, 1, bias=False), nn.Linear(1, 2)
    nn.init.ones_(first.weight)
    last.weight.data, last.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    network = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), last)
    prepared = prepare(image, channels=1, size=SHAPE, intensity="image")
    found = pellucid.explain(network, prepared[None], methods=["layer-cam"], target=0, layer="1")
    values: np.ndarray = found["layer-cam"][0].numpy()
    return values


@pytest.fixture(scope="module", params=SERIES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The files of one series' map, once for all tests."""
    name, at = request.param, tmp_path_factory.mktemp("round-trip")
    image = series(at / "series", name)
    values = explained(image)
    about = About("toy", "0123456789abcdef", datetime.datetime(2024, 5, 6, 7, 8, 9))
    one = Map("layer-cam", values, Finding("bright", 1.0))
    kinds = ("parametric-map", "segmentation")
    files = write_objects(image, [one], about, at, "a", Wanted(kinds)).files
    for ending in (".nii.gz", ".nrrd"):
        write_map(at / f"a{ending}", values, image, "layer-cam")
    return name, dict(zip(kinds, files, strict=True)) | {"nifti": at / "a.nii.gz", "nrrd": at / "a.nrrd"}


def check(values: np.ndarray, affine: np.ndarray) -> None:
    """Both markers are in the voxels nearest to where they were, by an affine from the indices of `values` to LPS mm.

    Where axes are at right angles, a marker is half a voxel at most from the centre of the nearest one.
    """
    index = np.indices(values.shape).reshape(3, -1)
    at = (affine @ np.vstack([index, np.ones(index.shape[1])]))[:3].T
    flat = values.astype(float).reshape(-1)
    found = []
    for marker in (BRIGHT, DIM):
        peak = int(flat.argmax())
        distances = np.linalg.norm(at - marker, axis=1)
        assert distances[peak] <= distances.min() + 1e-3
        found.append(at[peak])
        flat[distances < 10] = -np.inf
    assert (found[0] - found[1]) @ LEFT > 10


def of_itk(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with axes (x, y, z), and the affine from them to LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(), affine


def test_a_parametric_map_s_frames_put_the_markers_where_they_are(written: Written) -> None:
    name, files = written
    made = highdicom.imread(files["parametric-map"])
    values = np.frombuffer(made.FloatPixelData, "<f4").reshape(SHAPE)
    shared, frames = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence
    where = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], float)
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, along = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.stack([where[1] - where[0], column * down, row * along, where[0]], axis=1)
    check(values, affine)
    if name in STRAIGHT:
        volume = made.get_volume()
        check(volume.array, volume.affine)


def test_a_segmentation_lies_about_the_bright_marker(written: Written) -> None:
    name, files = written
    path = files["segmentation"]
    made = highdicom.seg.segread(path)
    shared, frames = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, along = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    inside = []
    for frame, pixels in zip(frames, np.atleast_3d(made.pixel_array).reshape(-1, *SHAPE[1:]), strict=True):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        inside += [position + y * down * column + x * along * row for y, x in np.argwhere(pixels)]
    assert np.abs(np.mean(inside, axis=0) - BRIGHT).max() < 0.75  # of voxels of 3 mm by 1.5 mm by 1.25 mm
    reach = np.linalg.norm(np.array(inside) - BRIGHT, axis=1).max()
    assert 4.0 < reach < 6.5  # a blob of 4 mm falls to one half, of what lies over -1000 HU, at 4.7 mm
    if name in STRAIGHT:
        values, affine = of_itk(sitk.ReadImage(str(path)))
        centre = affine @ [*np.argwhere(values).mean(axis=0), 1]
        assert np.abs(centre[:3] - BRIGHT).max() < 0.75
        volume = made.get_volume(combine_segments=True)
        centre = volume.affine @ [*np.argwhere(volume.array).mean(axis=0), 1]
        assert np.abs(centre[:3] - BRIGHT).max() < 0.75


def test_a_nifti_puts_the_markers_where_they_are(written: Written) -> None:
    name, files = written
    path = files["nifti"]
    read = nibabel.load(path)
    check(read.get_fdata(), np.diag([-1.0, -1.0, 1.0, 1.0]) @ read.affine)
    if name in STRAIGHT:
        check(*of_itk(sitk.ReadImage(str(path))))


def test_a_nrrd_puts_the_markers_where_they_are(written: Written) -> None:
    _, files = written
    check(*of_itk(sitk.ReadImage(str(files["nrrd"]))))


@pytest.mark.parametrize("name", STRAIGHT)
def test_the_source_has_the_markers_there_by_another_reader(tmp_path: Path, name: str) -> None:
    series(tmp_path / "series", name)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    check(*of_itk(reader.Execute()))
