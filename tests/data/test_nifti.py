"""NIfTI volumes: the voxels that nibabel reads, where they lie, and one clear error for what can't be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pellucid.data.images import MedicalImage, decode_file, read_image
from pellucid.data.nifti import MAX_VOXELS, encode_nifti, geometry_of
from pellucid.data.whole import DecodeError
from pellucid.errors import UnreadableFileError

# turned about two axes, steps of three sizes, and left-handed
OBLIQUE = np.array([[-1.6, 0.5, -0.3, 40.0], [0.7, 1.4, -0.9, -25.0], [-0.2, 0.8, 2.7, 12.0], [0, 0, 0, 1]])
SHAPE = (4, 5, 6)


def values(kind: str | type = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(kind)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = OBLIQUE, **header: object) -> Path:
    """Write a volume, and set fields of its header behind nibabel's back."""
    kind = nibabel.Nifti2Image if header.pop("second", False) else nibabel.Nifti1Image
    image = kind(voxels, affine, dtype=voxels.dtype)
    data = bytearray(image.to_bytes())
    fields = type(image.header)(bytes(data[: 540 if kind is nibabel.Nifti2Image else 348]), check=False)
    for name, value in header.items():
        fields[name] = value
    data[: len(fields.binaryblock)] = fields.binaryblock
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))
    return path


def refusal(path: Path, index: int | None = None) -> str:
    with pytest.raises(UnreadableFileError, match="can't read") as caught:
        read_image(path, index)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "without-ending", "wrong.png"])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "int16", ">i2", "int32", "uint16", "int64", "float32", ">f8"])
def test_voxels_keep_their_axes_and_type(tmp_path: Path, name: str, second: bool, kind: str) -> None:
    voxels = values(kind)
    path = save(tmp_path / name, voxels, second=second)
    image = read_image(path)
    assert image.pixels.shape == (1, *SHAPE)
    assert image.pixels.dtype == voxels.dtype.newbyteorder("=")
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels[0], voxels)
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    np.testing.assert_allclose(image.spacing, np.linalg.norm(OBLIQUE[:3, :3], axis=0), rtol=1e-6)
    assert (image.orientation, image.modality, image.source) == (None, None, path)


def test_a_slope_and_an_intercept_are_applied(tmp_path: Path) -> None:
    voxels = values("uint16")
    image = read_image(save(tmp_path / "a.nii", voxels, scl_slope=0.5, scl_inter=-1024))
    assert image.pixels.dtype == np.float32
    np.testing.assert_allclose(image.pixels[0], voxels * 0.5 - 1024)
    assert read_image(save(tmp_path / "b.nii", values("int32"), scl_slope=2, scl_inter=0)).pixels.dtype == np.float64
    for slope, intercept in ((0, 7), (np.nan, np.nan), (1, 0)):  # which mean that nothing is scaled
        image = read_image(save(tmp_path / "c.nii", voxels, scl_slope=slope, scl_inter=intercept))
        assert image.pixels.dtype == np.uint16
        np.testing.assert_array_equal(image.pixels[0], voxels)


def test_one_of_several_volumes_is_picked(tmp_path: Path) -> None:
    voxels = values("int16", (4, 5, 6, 2, 3))
    for name in ("a.nii", "a.nii.gz"):
        path = save(tmp_path / name, voxels)
        assert "holds 6 volumes; pick one with index= (--index), from 0 to 5" in refusal(path)
        np.testing.assert_array_equal(read_image(path, 3).pixels[0], voxels[..., 1, 1])
        assert "none with index 6" in refusal(path, 6)
        assert "none with index -1" in refusal(path, -1)
    single = save(tmp_path / "b.nii", voxels[..., :1, 0])
    np.testing.assert_array_equal(read_image(single).pixels, read_image(single, 0).pixels)
    slab = read_image(save(tmp_path / "c.nii", voxels[:, :, 0, 0, 0]))
    assert slab.pixels.shape == (1, 4, 5, 1)


def test_millimetres_whatever_the_unit(tmp_path: Path) -> None:
    for unit, scale in ((0, 1), (1, 1000), (2, 1), (3, 0.001)):
        image = read_image(save(tmp_path / "a.nii", values(), xyzt_units=unit))
        np.testing.assert_allclose(image.affine[:3], OBLIQUE[:3] * scale, rtol=1e-6)
        np.testing.assert_allclose(image.spacing, np.linalg.norm(OBLIQUE[:3, :3], axis=0) * scale, rtol=1e-6)


def test_the_place_is_that_which_nibabel_takes(tmp_path: Path) -> None:
    plain = np.diag([2.0, 3.0, 4.0, 1.0])
    for header in ({}, {"sform_code": 0, "qform_code": 1}, {"sform_code": 0, "qform_code": 0}):
        path = save(tmp_path / "a.nii", values(), plain, **header)
        np.testing.assert_allclose(read_image(path).affine, nibabel.load(path).affine)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"magic": b"nix\0"}, "wrong magic"),
        ({"magic": b"ni1\0"}, "one of a pair of files"),
        ({"sizeof_hdr": 349}, "not a NIfTI file, or its header is damaged"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "30000 × 30000 × 30000 voxels; at most 536,870,912"),
        ({"dim": [3, 4, 5, 7, 1, 1, 1, 1]}, "the file is truncated"),
        ({"dim": [4, 4, 5, 6, 99, 1, 1, 1]}, "the file is truncated"),
        ({"dim": [3, 4, -5, 6, 1, 1, 1, 1]}, "3 axes of lengths 4, -5, 6"),
        ({"dim": [0, 4, 5, 6, 1, 1, 1, 1]}, "0 axes"),
        ({"dim": [9, 4, 5, 6, 1, 1, 1, 1]}, "9 axes"),
        ({"datatype": 128}, "its voxels are colour"),
        ({"datatype": 32}, "its voxels are complex64"),
        ({"datatype": 1536}, "integers and real numbers up to 64 bits|unknown type"),
        ({"datatype": 77}, r"unknown type \(77\)"),
        ({"vox_offset": 10}, "voxels from byte 10 on"),
        ({"vox_offset": np.nan}, "voxels from byte nan on"),
        ({"vox_offset": 1e12}, "voxels from byte 1e.12 on"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "values are scaled by 2 and inf"),
        ({"scl_slope": 3e38, "scl_inter": 0}, "values are NaN or infinite"),
        ({"srow_x": [0, 0, 0, 0]}, "where the voxels lie can't be told"),
        ({"srow_y": [np.nan, 0, 0, 0]}, "where the voxels lie can't be told"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 5}, "where the voxels lie can't be told"),
        ({"sform_code": 0, "qform_code": 0, "pixdim": [1, 0, 2, 2, 1, 1, 1, 1]}, "where the voxels lie can't be told"),
    ],
)
def test_a_header_that_cannot_be_right_is_told(tmp_path: Path, header: dict[str, object], told: str) -> None:
    for name in ("a.nii", "a.nii.gz"):
        path = save(tmp_path / name, values(), **header)
        with pytest.raises(UnreadableFileError, match=told):
            read_image(path)
    assert MAX_VOXELS < 30000**3


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    voxels = values("float32")
    voxels[0, 1, 2], voxels[3, 3, 3] = np.nan, -np.inf
    assert "2 values are NaN or infinite" in refusal(save(tmp_path / "a.nii.gz", voxels))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, values())
    data = path.read_bytes()
    for length in range(0, len(data), 1 if name == "a.nii.gz" else 7):
        path.write_bytes(data[:length])
        refusal(path)
    path.write_bytes(data[:-1])
    assert "truncated" in refusal(path)


def test_compressed_data_is_checked_to_its_end(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", values())
    data = bytearray(path.read_bytes())
    whole = read_image(path).pixels
    path.write_bytes(gzip.compress(gzip.decompress(data)[:400]) + gzip.compress(gzip.decompress(data)[400:]))
    np.testing.assert_array_equal(read_image(path).pixels, whole)  # in two parts, as parallel packers write
    path.write_bytes(data + b"\0" * 50)
    np.testing.assert_array_equal(read_image(path).pixels, whole)
    data[-6] ^= 1  # of the checksum
    path.write_bytes(data)
    assert "compressed data is damaged" in refusal(path)
    path.write_bytes(gzip.compress(b""))
    assert "not a NIfTI file" in refusal(path)


def test_a_bomb_stops_early(tmp_path: Path) -> None:
    data = gzip.decompress(save(tmp_path / "a.nii.gz", values()).read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data + bytes(2**26)))
    assert "holds far more than its header says" in refusal(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("second", [False, True])
def test_damaged_files_give_a_volume_or_one_error(tmp_path: Path, second: bool) -> None:
    data = save(tmp_path / "a.nii", values(), second=second).read_bytes()
    generator = np.random.default_rng(3)
    read = 0
    for number in range(600):
        broken = bytearray(data)
        for _ in range(generator.integers(1, 5)):
            broken[generator.integers(0, min(560, len(broken)))] = generator.integers(0, 256)
        path = tmp_path / ("b.nii" if number % 2 else "b.nii.gz")
        path.write_bytes(bytes(broken) if number % 2 else gzip.compress(bytes(broken)))
        try:
            image = read_image(path)
        except UnreadableFileError:
            continue
        read += 1
        assert image.pixels.ndim == 4
        assert np.isfinite(image.affine).all()
    assert 100 < read < 600


def test_a_picture_has_no_volume_and_data_sets_take_none(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values())
    with pytest.raises(DecodeError, match="a NIfTI file; PNG, JPEG, TIFF, BMP and DICOM pictures are taken"):
        decode_file(path)
    (tmp_path / "b.bmp").write_bytes(b"BM")
    assert "none with index 2" in refusal(tmp_path / "b.bmp", 2)


def test_what_is_written_lies_where_the_source_lies(tmp_path: Path) -> None:
    written = values("float32")
    for number, (second, header) in enumerate(
        [
            (False, {}),
            (True, {}),
            (False, {"sform_code": 0, "qform_code": 1}),
            (False, {"sform_code": 4, "qform_code": 2, "xyzt_units": 3}),
            (False, {"sform_code": 0, "qform_code": 0, "descrip": b"somebody's name", "scl_slope": 3, "scl_inter": 1}),
        ]
    ):
        source = save(tmp_path / f"{number}.nii", values(), second=second, **header)
        data = encode_nifti(written, geometry_of(source), "layer-cam of odd µ")
        assert data == encode_nifti(written, geometry_of(source), "layer-cam of odd µ")
        assert b"somebody" not in gzip.decompress(data)
        (tmp_path / "out.nii.gz").write_bytes(data)
        one, other = nibabel.load(source), nibabel.load(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(other.affine, one.affine)
        for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "srow_x", "quatern_b", "qoffset_z"):
            np.testing.assert_array_equal(other.header[field], one.header[field], err_msg=field)
        assert other.get_data_dtype() == np.float32
        np.testing.assert_array_equal(other.dataobj, written)
        assert other.header["descrip"].item().startswith(b"layer-cam of odd")
        image = read_image(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(image.affine, read_image(source).affine)
        np.testing.assert_array_equal(image.pixels[0], written)


def nifti_files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "dicom_nifti" / "nifti").glob("*.nii*"))


def test_real_volumes_are_as_nibabel_reads_them(shared_data: Path) -> None:
    shapes = []
    for path in nifti_files(shared_data):
        wanted = nibabel.load(path)
        several = wanted.ndim == 4
        image: MedicalImage = read_image(path, 1 if several else None)
        voxels = np.asanyarray(wanted.dataobj)
        voxels = voxels[..., 1] if several else voxels
        np.testing.assert_allclose(image.pixels[0], voxels, rtol=1e-6)
        np.testing.assert_allclose(image.affine, wanted.affine)
        np.testing.assert_allclose(image.spacing, wanted.header.get_zooms()[:3], rtol=1e-5)
        shapes.append(image.pixels.shape[1:])
    assert shapes == [(33, 41, 25), (128, 96, 24), (32, 20, 12), (17, 21, 3)]
