"""Folders of DICOM files as series and volumes: by position, whatever files are called, and never wrong in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from pellucid.data.dicom.series import Series, read_series, scan, series_name
from pellucid.data.images import MedicalImage, read_image
from pellucid.errors import InputError, UnreadableFileError
from references.slices import AXIAL, CORONAL, ROOT, a_slice, oblique, save, stored, write_series


def only(folder: Path) -> Series:
    (series,) = scan([folder]).series
    return series


def place_of(image: MedicalImage, voxel: tuple[int, int, int]) -> np.ndarray:
    """Of a voxel's centre, mm to the left, back and head, as DICOM counts."""
    assert image.affine is not None
    return np.array([-1, -1, 1]) * (image.affine @ (*voxel, 1))[:3]


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError, match="can't read") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert "made-up" not in str(caught.value)
    assert "Made" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, oblique(), tuple(-each for each in AXIAL)])
@pytest.mark.parametrize("backwards", [False, True])
def test_slices_are_ordered_along_their_normal(tmp_path: Path, orientation: tuple[float, ...], backwards: bool) -> None:
    places = [0.0, 2.5, 5.0, 7.5, 10.0, 12.5]
    paths = write_series(tmp_path, places[::-1] if backwards else places, orientation=orientation)
    ordered = paths[::-1] if backwards else paths
    series = only(tmp_path)
    assert series.volume
    assert series.files == tuple(ordered)
    assert (series.notes, series.refusal, series.modality) == ((), "", "CT")
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.pixels[0], stored(ordered))
    np.testing.assert_allclose(image.spacing, (2.5, 0.8, 0.6))
    np.testing.assert_allclose(image.orientation, orientation, atol=1e-9)
    assert (image.files, image.units, image.source) == (tuple(ordered), "HU", tmp_path)
    assert image.affine is not None
    assert np.linalg.det(image.affine) < 0  # whatever the orientation
    row, column = np.reshape(orientation, (2, 3))
    for d, h, w in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 6), (5, 4, 6)):
        position = np.array(pydicom.dcmread(ordered[d]).ImagePositionPatient, float)
        # PS3.3, equation C.7.6.2.1-1: PixelSpacing is between rows first
        np.testing.assert_allclose(place_of(image, (d, h, w)), position + column * 0.8 * h + row * 0.6 * w, atol=1e-6)


def test_a_series_is_addressed_by_a_name_that_tells_nobody(tmp_path: Path) -> None:
    write_series(tmp_path / "a", series=f"{ROOT}.1")
    write_series(tmp_path / "a", series=f"{ROOT}.2", seed=1, modality="MR")
    write_series(tmp_path / "b" / "deep", series=f"{ROOT}.3", seed=2)
    found = {each.uid: each for each in scan([tmp_path]).series}
    assert [each.folder for each in found.values()] == [tmp_path / "a", tmp_path / "a", tmp_path / "b" / "deep"]
    for uid, series in found.items():
        assert series.name == series_name(uid)
        assert series.path == series.folder / f"#{series.name}"
        image, again = read_image(series.path), read_series(series)
        assert image.source == series.path
        assert image.files == series.files
        np.testing.assert_array_equal(image.pixels, again.pixels)
        assert "made-up" not in repr(series)
    assert found[f"{ROOT}.2"].modality == read_image(found[f"{ROOT}.2"].path).modality == "MR"
    told = refusal(tmp_path / "a")
    assert "holds 2 series; name one" in told
    assert all(str(found[f"{ROOT}.{number}"].path) in told for number in (1, 2))
    assert "(MR, 6 files, volume)" in told
    assert "no series of that name" in refusal(tmp_path / "a" / "#00000000")
    assert len(scan([tmp_path / "a", tmp_path / "b"]).series) == 3
    with pytest.raises(InputError, match="isn't there"):
        scan([tmp_path / "none"])


def test_other_files_of_a_folder_are_told_and_do_no_harm(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image, but text that is long enough to hold a preamble" * 4)
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(paths[0].read_bytes()[:200])
    (tmp_path / "zeros.dcm").write_bytes(bytes(3000))
    (tmp_path / ".hidden").write_bytes(b"x")
    report = Dataset()
    report.file_meta = pydicom.dcmread(paths[0]).file_meta
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", f"{ROOT}.5", "SR"
    save(report, tmp_path / "report.dcm")
    found = scan([tmp_path])
    reasons = {Path(path).name: reason for path, reason in found.skipped}
    assert reasons == {
        "notes.txt": "not a DICOM file",
        "empty.dcm": "the file is empty",
        "zeros.dcm": "not a DICOM file",
        "cut.dcm": "its DICOM header is damaged",
        "report.dcm": "it holds no picture (SR)",
    }
    (series,) = found.series
    assert series.files == tuple(paths)
    assert "3 damaged files beside its slices" in series.notes[0]
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.pixels[0], stored(paths))
    assert "3 damaged files" in image.notes[0]


def test_a_directory_file_is_passed_over(tmp_path: Path) -> None:
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "DICOMDIR"
    shutil.copy(source, tmp_path / "DICOMDIR")
    paths = write_series(tmp_path / "a")
    found = scan([tmp_path])
    assert found.skipped == ()
    assert found.series[0].files == tuple(paths)


def test_headers_are_found_without_preamble_and_behind_much_else(tmp_path: Path) -> None:
    def burdened(dataset: Dataset, index: int) -> None:
        dataset.add_new(0x00091001, "OB", bytes(300_000))  # longer than what is read at first

    paths = write_series(tmp_path, change=burdened)
    for path in paths[:3]:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        data = path.read_bytes()
        path.write_bytes(data[data.index(b"\x08\x00\x08\x00") :])  # from ImageType on
    series = only(tmp_path)
    assert series.files == tuple(paths)
    assert series.volume


def test_a_slice_cut_in_its_pixels_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    assert only(tmp_path).volume  # by its header
    told = refusal(tmp_path)
    assert paths[2].name in told
    assert "truncated" in told
    assert read_image(paths[1]).pixels.shape[0] == 1  # the others can still be read


def test_slices_without_a_place_are_refused(tmp_path: Path) -> None:
    def lost(dataset: Dataset, index: int) -> None:
        if index == 2:
            del dataset.ImagePositionPatient

    write_series(tmp_path, change=lost)
    series = only(tmp_path)
    assert not series.volume
    assert "1 of its 6 slices state no position, ImagePositionPatient (0020,0032)" in series.refusal
    assert series.refusal in refusal(tmp_path)
    assert read_image(series.files[2]).pixels.shape == (1, 5, 7)


@pytest.mark.parametrize("value", [["1", "x", "3"], ["1", "2"], ["1", "2", "inf"], []])
def test_a_place_that_is_none_counts_as_missing(tmp_path: Path, value: list[str]) -> None:
    paths = write_series(tmp_path)
    dataset = pydicom.dcmread(paths[0])
    data = "\\".join(value).encode()
    dataset[0x00200032] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(0x00200032), "DS", len(data), data + b" " * (len(data) % 2), 0, False, True
    )
    dataset.save_as(paths[0])
    assert "state no position" in only(tmp_path).refusal


def test_an_orientation_that_is_none_is_refused(tmp_path: Path) -> None:
    write_series(
        tmp_path, change=lambda dataset, index: setattr(dataset, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0])
    )
    assert "can't be right" in only(tmp_path).refusal


def test_a_series_of_two_patients_is_refused_without_naming_them(tmp_path: Path) -> None:
    def other(dataset: Dataset, index: int) -> None:
        if index == 3:
            dataset.PatientName, dataset.PatientID = "Someone^Else", "made-up-2"

    paths = write_series(tmp_path, change=other)
    series = only(tmp_path)
    assert not series.volume
    assert "its files are of 2 patients" in refusal(tmp_path)
    assert (series.patient, series.description, len(series.files)) == ("", "", 6)
    assert read_image(paths[0]).pixels.shape == (1, 5, 7)


def test_one_patient_may_be_spelled_in_two_ways(tmp_path: Path) -> None:
    write_series(tmp_path, change=lambda dataset, index: setattr(dataset, "PatientName", f"Made^Up{'^' * index}"[:9]))
    assert only(tmp_path).volume


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "US", "XA"])
def test_series_of_pictures_are_no_volumes(tmp_path: Path, modality: str) -> None:
    paths = write_series(tmp_path, modality=modality)
    series = only(tmp_path)
    assert (series.volume, series.refusal) == (False, "")
    assert sorted(series.files) == sorted(paths)
    assert "6 pictures" in refusal(tmp_path)
    assert read_image(paths[0]).pixels.shape == (1, 5, 7)


def test_a_folder_of_one_picture_is_that_picture(tmp_path: Path) -> None:
    path = save(a_slice(1, (0, 0, 0)), tmp_path / "only")
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.pixels, read_image(path).pixels)
    assert image.source == tmp_path


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "a folder without DICOM images" in refusal(tmp_path)
    (tmp_path / "a.txt").write_text("x" * 200)
    assert "1 files are none, e.g. not a DICOM file" in refusal(tmp_path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    assert only(tmp_path).volume
    dataset = pydicom.dcmread(paths[0])
    dataset.ImagePositionPatient = [0, 0, 0, 0][:3]
    dataset.add_new(0x00091001, "LO", "x")
    dataset.save_as(paths[0])
    assert not only(tmp_path).volume


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "a", [0, 2, 4])
    write_series(
        tmp_path / "b",
        [6, 8, 10],
        seed=1,
        change=lambda each, index: setattr(each, "SOPInstanceUID", f"{ROOT}.6.{index}"),
    )
    monkeypatch.chdir(tmp_path)
    (series,) = scan([Path("a"), tmp_path / "b"]).series
    assert series.folder == tmp_path
    assert read_image(series.path).pixels.shape == (1, 6, 5, 7)
    (series,) = scan([Path()]).series
    assert series.path == Path(f"#{series.name}")
    assert read_image(series.path).pixels.shape == (1, 6, 5, 7)
    for part in (series.uid, series.patient, series.study):
        assert part not in repr(series)


def test_palette_colour_is_no_volume(tmp_path: Path) -> None:
    write_series(tmp_path, change=lambda each, index: setattr(each, "PhotometricInterpretation", "PALETTE COLOR"))
    assert (only(tmp_path).volume, only(tmp_path).refusal) == (False, "")
