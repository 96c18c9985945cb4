"""Maps as NIfTI and NRRD: each voxel lies where the image's does, whoever reads the file."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from pellucid.data.images import MedicalImage, read_image
from pellucid.data.maps_out import write_map
from pellucid.errors import InputError

# turned about two axes, steps of three sizes
TURN = np.linalg.qr(np.array([[0.9, -0.3, 0.2], [0.35, 0.88, -0.1], [-0.1, 0.25, 0.95]]))[0]
STEPS = np.array([2.7, 1.5, 0.8])
SHAPE = (4, 5, 6)


def oblique(shear: float = 0.0) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = TURN * STEPS
    affine[:3, 0] += shear * affine[:3, 1]
    affine[:3, 3] = (40.0, -25.0, 12.0)
    return affine


def volume(affine: np.ndarray, path: Path = Path("series/#0123")) -> MedicalImage:
    return MedicalImage(np.zeros((1, *SHAPE), np.int16), tuple(STEPS), None, "CT", path, affine, files=(path,))


def values(*before: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*before, *SHAPE)).astype(np.float32)


def itk_place(image: sitk.Image, index: tuple[int, ...]) -> np.ndarray:
    """A voxel's place as SimpleITK gives it, which counts to the left and back."""
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(each) for each in index])) * (-1, -1, 1)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_every_voxel_lies_where_the_image_has_it(tmp_path: Path, ending: str) -> None:
    affine, given = oblique(), values()
    write_map(tmp_path / f"a{ending}", given, volume(affine), "grad-cam")
    read = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    assert read.GetSize() == SHAPE[::-1]
    assert read.GetPixelID() == sitk.sitkFloat32
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), given)
    for voxel in ((0, 0, 0), (3, 4, 5), (2, 0, 5), (0, 4, 1)):
        np.testing.assert_allclose(itk_place(read, voxel[::-1]), (affine @ [*voxel, 1])[:3], atol=1e-4)


def test_nibabel_finds_the_same_places_by_both_forms(tmp_path: Path) -> None:
    affine, given = oblique(), values()
    write_map(tmp_path / "a.nii.gz", given, volume(affine))
    read = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read.get_fdata(dtype=np.float32), given.transpose())
    for form in (read.get_sform(), read.get_qform()):
        np.testing.assert_allclose(form, affine[:, [2, 1, 0, 3]], atol=1e-5)
    assert (read.header["sform_code"], read.header["qform_code"]) == (1, 1)
    assert read.header.get_xyzt_units()[0] == "mm"


def test_slices_that_lie_askew_have_a_sform_alone(tmp_path: Path) -> None:
    affine, given = oblique(shear=0.4), values()
    write_map(tmp_path / "a.nii.gz", given, volume(affine))
    read = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read.affine, affine[:, [2, 1, 0, 3]], atol=1e-5)
    assert (read.header["sform_code"], read.header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(read.header.get_zooms(), np.linalg.norm(affine[:3, [2, 1, 0]], axis=0), rtol=1e-6)


def test_a_nrrd_tells_slices_that_lie_askew(tmp_path: Path) -> None:
    affine, given = oblique(shear=0.4), values()
    write_map(tmp_path / "a.nrrd", given, volume(affine))
    read = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    for voxel in ((0, 0, 0), (3, 4, 5), (2, 0, 5)):
        np.testing.assert_allclose(itk_place(read, voxel[::-1]), (affine @ [*voxel, 1])[:3], atol=1e-9)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_map_of_a_nifti_has_its_axes(tmp_path: Path, ending: str) -> None:
    affine = oblique(shear=0.4 if ending == ".nii.gz" else 0.0)
    source = tmp_path / "image.nii"
    header = nibabel.Nifti1Header()
    header["descrip"], header["cal_max"] = b"someone's name", 7
    header.set_sform(affine, 4)
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.int16), None, header), source)
    given = values()
    write_map(tmp_path / f"a{ending}", given, read_image(source), "grad-cam")
    if ending == ".nrrd":
        read = sitk.ReadImage(str(tmp_path / "a.nrrd"))
        same = sitk.ReadImage(str(source))
        assert read.GetSize() == same.GetSize() == SHAPE
        np.testing.assert_allclose(itk_place(read, (3, 1, 4)), itk_place(same, (3, 1, 4)), atol=1e-4)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read), given.transpose())
        return
    written = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), given)
    np.testing.assert_allclose(written.affine, affine, rtol=1e-6)
    assert written.header["sform_code"] == 4
    assert written.header["descrip"].item() == b"grad-cam"
    assert written.header["cal_max"] == 0


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("kind", [".nrrd", ".mha"])
def test_a_map_of_a_nrrd_or_metaimage_has_its_axes(tmp_path: Path, kind: str, ending: str) -> None:
    source = sitk.GetImageFromArray(np.ones(SHAPE, np.int16))
    source.SetDirection(TURN.reshape(-1).tolist())
    source.SetSpacing((0.8, 1.5, 2.7))
    source.SetOrigin((40.0, -25.0, 12.0))
    sitk.WriteImage(source, str(tmp_path / f"image{kind}"))
    image = read_image(tmp_path / f"image{kind}")
    given = np.random.default_rng(0).normal(size=image.pixels.shape[1:]).astype(np.float32)
    write_map(tmp_path / f"a{ending}", given, image, "grad-cam")
    read = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    assert read.GetSize() == source.GetSize() == given.shape
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), given.transpose())
    for voxel in ((0, 0, 0), (3, 1, 2), (5, 4, 3)):
        np.testing.assert_allclose(itk_place(read, voxel), itk_place(source, voxel), atol=1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_classes_are_kept_one_after_another(tmp_path: Path, ending: str) -> None:
    given = values(2)
    write_map(tmp_path / f"a{ending}", given, volume(oblique()))
    if ending == ".nii.gz":
        read = nibabel.load(tmp_path / "a.nii.gz").get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(read, given.transpose(3, 2, 1, 0))
    else:
        read = sitk.ReadImage(str(tmp_path / "a.nrrd"))
        assert read.GetNumberOfComponentsPerPixel() == 2
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read), np.moveaxis(given, 0, -1))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("spacing", [None, (0.5, 0.25)])
def test_a_picture_has_a_size_of_pixels_at_most(tmp_path: Path, ending: str, spacing: tuple[float, ...] | None) -> None:
    given = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    image = MedicalImage(np.zeros((1, 3, 4), np.uint8), spacing, None, "CR", Path("a.dcm"))
    write_map(tmp_path / f"a{ending}", given, image)
    read = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(np.squeeze(sitk.GetArrayFromImage(read)), given)
    np.testing.assert_allclose(read.GetSpacing()[:2], (0.25, 0.5) if spacing else (1, 1))
    if ending == ".nii.gz":
        header = nibabel.load(tmp_path / "a.nii.gz").header
        assert (header["sform_code"], header["qform_code"]) == (0, 0)


def test_equal_maps_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz", "a.nrrd", "b.nrrd"):
        write_map(tmp_path / name, values(), volume(oblique()), "grad-cam")
    for ending in (".nii.gz", ".nrrd"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a name that ends in .nii.gz or .nrrd, got a.mha"):
        write_map(tmp_path / "a.mha", values(), volume(oblique()))
    with pytest.raises(InputError, match=r"the image's shape \(4, 5, 6\)"):
        write_map(tmp_path / "a.nrrd", values()[:2], volume(oblique()))
