"""NRRD and MetaImage: the voxels that SimpleITK reads, where they lie, and one clear error for what can't be read."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from pellucid.data import itk
from pellucid.data.images import decode_file, read_image
from pellucid.data.itk import is_itk
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError

SHAPE = (4, 5, 6)
# turned about two axes, and left-handed
TURN = np.linalg.qr(np.array([[0.9, -0.3, 0.2], [0.4, 0.8, -0.3], [-0.1, 0.4, -0.9]]))[0]
STEPS, ORIGIN = (1.5, 0.75, 3.0), (-40.0, 25.0, 12.5)


def values(kind: str = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(kind)


def save(path: Path, voxels: np.ndarray, direction: np.ndarray = TURN, packed: bool = False) -> Path:
    """Write voxels (i, j, k) by SimpleITK."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(STEPS)
    image.SetOrigin(ORIGIN)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path), packed)
    return path


def refusal(path: Path, index: int | None = None) -> str:
    with pytest.raises(UnreadableFileError, match="can't read") as caught:
        read_image(path, index)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", itk.ITK_ENDINGS)
@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64"])
def test_voxels_keep_their_axes_and_type(tmp_path: Path, ending: str, packed: bool, kind: str) -> None:
    voxels = values(kind)
    path = save(tmp_path / f"v{ending}", voxels, packed=packed)
    image = read_image(path)
    assert image.pixels.shape == (1, *SHAPE)
    assert image.pixels.dtype == voxels.dtype
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels[0], voxels)
    np.testing.assert_allclose(image.spacing, STEPS, rtol=1e-12)
    assert (image.orientation, image.modality, image.source, image.notes) == (None, None, path, ())


@pytest.mark.parametrize("ending", itk.ITK_ENDINGS)
def test_a_voxel_lies_where_simpleitk_says_and_where_nibabel_does(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"v{ending}", values())
    affine = read_image(path).affine
    reference = sitk.ReadImage(str(path))
    for voxel in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (3, 4, 5)):
        left, back, up = reference.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(affine @ (*voxel, 1), (-left, -back, up, 1), atol=1e-9)
    sitk.WriteImage(reference, str(tmp_path / "same.nii"))
    np.testing.assert_allclose(affine, nibabel.load(tmp_path / "same.nii").affine, atol=1e-4)  # NIfTI keeps float32


def nrrd(path: Path, voxels: np.ndarray, *fields: str) -> Path:
    """Write a NRRD by hand."""
    sizes = " ".join(map(str, voxels.shape))
    head = [
        *("NRRD0004", "type: int16", f"dimension: {voxels.ndim}", f"sizes: {sizes}", "endian: little"),
        *("encoding: raw", *fields, "", ""),
    ]
    path.write_bytes("\n".join(head).encode() + voxels.astype("<i2").tobytes(order="F"))
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("left-posterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_the_space_of_a_nrrd_is_kept(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    directions = "space directions: (2,0,0) (0,3,0) (0,0,4)"
    path = nrrd(tmp_path / "a.nrrd", values(), f"space: {space}", directions, "space origin: (5,6,7)")
    image = read_image(path)
    wanted = np.diag([*(sign * step for sign, step in zip(signs, (2, 3, 4), strict=True)), 1.0])
    wanted[:3, 3] = np.array(signs) * (5, 6, 7)
    np.testing.assert_allclose(image.affine, wanted)
    assert image.notes == ()


def test_a_nrrd_without_a_space_says_so(tmp_path: Path) -> None:
    image = read_image(nrrd(tmp_path / "a.nrrd", values(), "spacings: 2 3 4"))
    np.testing.assert_allclose(image.affine, np.diag([-2.0, -3.0, 4.0, 1.0]))
    assert "doesn't say where it lies" in image.notes[0]


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_one_of_several_volumes_is_picked(tmp_path: Path, ending: str) -> None:
    voxels = values("int16", (4, 5, 6, 3))
    volumes = [sitk.GetImageFromArray(np.ascontiguousarray(voxels[..., each].T)) for each in range(3)]
    path = tmp_path / f"v{ending}"
    sitk.WriteImage(sitk.JoinSeries(volumes), str(path))
    assert "holds 3 volumes; pick one with index= (--index), from 0 to 2" in refusal(path)
    for place in range(3):
        np.testing.assert_array_equal(read_image(path, place).pixels[0], voxels[..., place])
    assert "none with index 3" in refusal(path, 3)
    assert "none with index -1" in refusal(path, -1)


def test_components_count_as_volumes_and_colour_is_refused(tmp_path: Path) -> None:
    parts = values("float32", (6, 5, 4, 2))
    sitk.WriteImage(sitk.GetImageFromArray(parts, isVector=True), str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.nrrd", 1).pixels[0], parts[..., 1].T)
    assert "holds 2 volumes" in refusal(tmp_path / "a.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(values("uint8", (6, 5, 4, 3)), isVector=True), str(tmp_path / "b.mha"))
    assert "its voxels are colour" in refusal(tmp_path / "b.mha")
    sitk.WriteImage(sitk.GetImageFromArray(values("complex64", (6, 5, 4))), str(tmp_path / "c.nrrd"))
    assert "complex" in refusal(tmp_path / "c.nrrd")


def test_two_axes_are_a_picture(tmp_path: Path) -> None:
    grey, colour = values("uint8", (5, 7)), values("uint8", (5, 7, 3))
    sitk.WriteImage(sitk.GetImageFromArray(grey), str(tmp_path / "a.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "b.nrrd"))
    for name, pixels in (("a.mha", grey[None]), ("b.nrrd", np.moveaxis(colour, -1, 0))):
        for image in (read_image(tmp_path / name), decode_file(tmp_path / name)):
            np.testing.assert_array_equal(image.pixels, pixels)
            assert image.affine is None


def test_volumes_are_read_only_where_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nrrd", values())
    with pytest.raises(DecodeError, match="a volume of 4 × 5 × 6 voxels"):
        decode_file(path)


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    for ending in (".nrrd", ".mha"):
        path = save(tmp_path / f"a{ending}", values()).rename(tmp_path / "wrong.png")
        assert is_itk(path)
        np.testing.assert_array_equal(read_image(path).pixels[0], values())
    (tmp_path / "text.mha").write_text("not an image")
    assert "not a NRRD or MetaImage file" in refusal(tmp_path / "text.mha")
    (tmp_path / "empty.nrrd").write_bytes(b"")
    assert "the file is empty" in refusal(tmp_path / "empty.nrrd")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, ending: str, packed: bool) -> None:
    path = save(tmp_path / f"a{ending}", values(), packed=packed)
    data = path.read_bytes()
    for length in range(0, len(data) - 8 * packed, 7):  # the last eight are a checksum, which SimpleITK can do without
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("DimSize = 4 5 6", "DimSize = 4 5 7", "truncated"),
        ("DimSize = 4 5 6", "DimSize = 4 0 6", "the lengths of its axes"),
        ("DimSize = 4 5 6", "DimSize = 4 x 6", "the lengths of its axes"),
        ("DimSize = 4 5 6", "DimSize = 40000 50000 60000", "at most 536,870,912 are read"),
        ("NDims = 3", "NDims = 2", "damaged|where|truncated"),
        ("ElementDataFile = LOCAL", "ElementDataFile = ../b.raw", "in another folder"),
        ("ElementDataFile = LOCAL", "ElementDataFile = /etc/hostname", "in another folder"),
        ("ElementDataFile = LOCAL", "ElementDataFile = none.raw", "none.raw, can't be read: No such file"),
        ("ElementDataFile = LOCAL", "ElementDataFile = LIST", "several files"),
        ("ElementDataFile = LOCAL", "ElementDataFile = a%02d.raw 1 2 1", "several files"),
        ("ElementDataFile", "ElementOtherFile", "ElementDataFile"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 0 0 0 0 1 0 0 0 1", "where the voxels lie"),
        ("Offset = -40 25 12.5", "Offset = nan 25 12.5", "where the voxels lie"),
    ],
)
def test_a_header_that_cannot_be_right_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = save(tmp_path / "a.mha", values(), np.eye(3))
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode()))
    with pytest.raises(UnreadableFileError, match=told):
        read_image(path)


def test_a_nrrd_keeps_to_its_folder_and_to_plain_encodings(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", values(), "data file: ../b.raw")
    assert "in another folder" in refusal(path)
    path = nrrd(tmp_path / "a.nrrd", values())
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", b"encoding: bz2"))
    assert "raw, ascii, hex and gzip are" in refusal(path)
    path = nrrd(tmp_path / "b.nrrd", values(), "space: left-posterior-superior")
    path.write_bytes(path.read_bytes().replace(b"sizes: 4 5 6", b"sizes: 512 512 512").replace(b" raw", b" gzip"))
    assert "the file is truncated" in refusal(path)  # before 256 MB are taken for it


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    voxels = values("float32")
    voxels[0, 1, 2], voxels[3, 3, 3] = np.nan, -np.inf
    assert "2 values are NaN or infinite" in refusal(save(tmp_path / "a.mha", voxels))
