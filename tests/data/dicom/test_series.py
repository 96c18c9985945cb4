"""Folders of DICOM files as series and volumes: by position, whatever files are called, and never wrong in silence."""

from __future__ import annotations

import contextlib
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
from references.slices import AXIAL, CORONAL, ROOT, Change, a_slice, oblique, pixels_of, save, stored, write_series


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


def test_missing_slices_are_counted_and_filled_where_asked_for(tmp_path: Path) -> None:
    paths = write_series(tmp_path, [0, 2, 4, 8, 10, 16])
    series = only(tmp_path)
    assert not series.volume
    assert (
        "3 slices are missing along its normal: 1 between -296 and -292 mm, 2 between -290 and -284 mm"
        in series.refusal
    )
    told = refusal(tmp_path)
    assert f"{series.path}+filled" in told
    image = read_image(tmp_path / f"#{series.name}+filled")
    values = stored(paths)
    assert image.pixels.shape == (1, 9, 5, 7)
    np.testing.assert_array_equal(image.pixels[0][[0, 1, 2, 4, 5, 8]], values)
    np.testing.assert_allclose(image.pixels[0, 3], (values[2] + values[3]) / 2, atol=0.5)
    np.testing.assert_allclose(image.pixels[0, 6], values[4] * 2 / 3 + values[5] / 3, atol=0.5)
    assert image.spacing == pytest.approx((2, 0.8, 0.6))
    assert "3 missing slices filled in" in image.notes[-1]
    assert len(image.files) == 6
    np.testing.assert_array_equal(read_series(series, gaps="fill").pixels, image.pixels)


def test_two_slabs_far_apart_are_not_filled(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 2, 4, 100, 102, 104])
    series = only(tmp_path)
    assert "47 slices are missing" in series.refusal
    assert "+filled" not in refusal(tmp_path)
    assert "47 slices are missing" in refusal(tmp_path / f"#{series.name}+filled")


@pytest.mark.parametrize("orientation", [AXIAL, oblique()])
def test_unequal_steps_are_refused(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    write_series(tmp_path, [0, 2, 4, 7.1, 9.3], orientation=orientation)
    series = only(tmp_path)
    assert not series.volume
    assert "at unequal steps, from 2 to 3.1 mm" in refusal(tmp_path)
    assert "+filled" not in refusal(tmp_path)


@pytest.mark.parametrize(("jitter", "even"), [(0.009, True), (0.06, False)])
def test_steps_may_differ_by_little(tmp_path: Path, jitter: float, even: bool) -> None:
    write_series(tmp_path, [0, 2 + jitter, 4, 6 - jitter, 8])
    assert only(tmp_path).volume is even


def test_slices_beside_each_other_are_refused(tmp_path: Path) -> None:
    def aside(dataset: Dataset, index: int) -> None:
        if index == 3:
            dataset.ImagePositionPatient = [
                float(dataset.ImagePositionPatient[0]) + 5,
                *dataset.ImagePositionPatient[1:],
            ]

    write_series(tmp_path, change=aside)
    assert "off the line from first to last" in only(tmp_path).refusal


def test_a_tilted_gantry_shears_the_affine(tmp_path: Path) -> None:
    step = np.array([0, np.tan(np.radians(15)), 1])
    paths = write_series(tmp_path, direction=step)
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.pixels[0], stored(paths))
    for index, path in enumerate(paths):
        position = np.array(pydicom.dcmread(path).ImagePositionPatient, float)
        np.testing.assert_allclose(place_of(image, (index, 0, 0)), position, atol=1e-6)
    assert "stacked at 15° to their normal" in image.notes[0]
    assert image.spacing == pytest.approx((2 / np.cos(np.radians(15)), 0.8, 0.6))


def test_copies_are_left_out(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    shutil.copy(paths[1], tmp_path / "zz-copy")
    (tmp_path / "again").mkdir()
    shutil.copy(paths[4], tmp_path / "again" / "copy")
    sent_again = pydicom.dcmread(paths[3])
    sent_again.SOPInstanceUID = sent_again.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.7.7"
    save(sent_again, tmp_path / "zz-again")
    series = only(tmp_path)
    assert series.volume
    assert len(series.files) == 6
    assert "2 copies of its files left out" in series.notes
    assert "1 slice left out that repeat another's place and pixels" in " ".join(series.notes)
    np.testing.assert_array_equal(read_image(tmp_path).pixels[0], stored(paths))


def test_slices_at_one_place_with_other_pixels_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    other = pydicom.dcmread(paths[3])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.7.7"
    other.PixelData = pixels_of(99).tobytes()
    save(other, tmp_path / "zz-other")
    series = only(tmp_path)
    assert not series.volume
    assert "at 1 place it has several slices of different pixels" in refusal(tmp_path)
    assert len(series.files) == 7


def test_an_object_of_other_pixels_under_the_same_uid_is_no_copy(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    other = pydicom.dcmread(paths[3])
    other.PixelData = pixels_of(99).tobytes()
    save(other, tmp_path / "zz-other")
    assert "several slices of different pixels" in only(tmp_path).refusal


def echoes(folder: Path, **telling: tuple[object, object]) -> None:
    for turn in (0, 1):

        def told(dataset: Dataset, index: int, turn: int = turn) -> None:
            dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{turn}"
            dataset.InstanceNumber += 6 * turn
            dataset.PixelData = pixels_of(int(dataset.InstanceNumber)).tobytes()
            for name, values in telling.items():
                setattr(dataset, name, values[turn])

        write_series(folder, change=told, seed=turn, modality="MR")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("EchoTime", (10, 80), "echo time"),
        ("EchoNumbers", (1, 2), "echo numbers"),
        ("TemporalPositionIdentifier", (1, 2), "temporal position identifier"),
        ("DiffusionBValue", (0.0, 1000.0), "diffusion b value"),
        ("TriggerTime", (10, 400), "trigger time"),
        ("AcquisitionNumber", (1, 2), "acquisition number"),
        ("AcquisitionTime", ("101010", "101030"), "acquisition time"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), "image type"),
        ("ConvolutionKernel", ("B30", "B70"), "convolution kernel"),
    ],
)
def test_volumes_at_one_place_are_told_apart(
    tmp_path: Path, name: str, values: tuple[object, object], words: str
) -> None:
    echoes(tmp_path, **{name: values})
    found = scan([tmp_path]).series
    assert [each.name.partition("-")[2] for each in found] in (["", "2"], ["2", ""])
    for series in found:
        assert series.volume
        assert len(series.files) == 6
        assert f"by {words}" in series.notes[0]
        assert "one of 2 volumes of its series" in series.notes
        headers = [pydicom.dcmread(path) for path in series.files]
        assert len({str(each[name].value) for each in headers}) == 1
        np.testing.assert_array_equal(read_image(series.path).pixels[0], stored(series.files))
    first = next(each for each in found if "-" not in each.name)
    assert pydicom.dcmread(first.files[0])[name].value == values[0]  # which was numbered first
    assert "holds 2 series" in refusal(tmp_path)


def test_volumes_that_only_their_numbers_tell_apart(tmp_path: Path) -> None:
    echoes(tmp_path)
    found = scan([tmp_path]).series
    assert [len(each.files) for each in found] == [6, 6]
    assert all("by instance number" in each.notes[0] for each in found)
    numbers = [{int(pydicom.dcmread(path).InstanceNumber) for path in each.files} for each in found]
    assert {1, 2, 3, 4, 5, 6} in numbers


def test_volumes_told_apart_by_two_elements(tmp_path: Path) -> None:
    for echo in (1, 2):
        for phase in (1, 2, 3):

            def told(dataset: Dataset, index: int, echo: int = echo, phase: int = phase) -> None:
                dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{echo}.{phase}"
                dataset.EchoNumbers, dataset.TemporalPositionIdentifier = echo, phase
                dataset.InstanceNumber = index + 1

            write_series(tmp_path, change=told, seed=10 * echo + phase, modality="MR")
    found = scan([tmp_path]).series
    assert [(each.volume, len(each.files)) for each in found] == [(True, 6)] * 6
    assert "by echo numbers and temporal position identifier" in found[0].notes[0]


def test_an_unfinished_last_volume_is_one_of_its_own(tmp_path: Path) -> None:
    def told(dataset: Dataset, index: int) -> None:
        dataset.TemporalPositionIdentifier = 2
        dataset.SOPInstanceUID += ".2"

    write_series(
        tmp_path, change=lambda dataset, index: setattr(dataset, "TemporalPositionIdentifier", 1), modality="MR"
    )
    write_series(tmp_path, [0, 2, 4], change=told, seed=1, modality="MR")
    assert sorted(len(each.files) for each in scan([tmp_path]).series if each.volume) == [3, 6]


def test_acquisitions_of_other_steps_are_volumes_of_their_own(tmp_path: Path) -> None:
    def second(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = 2
        dataset.SOPInstanceUID += ".2"

    write_series(tmp_path, [0, 2, 4, 6])
    write_series(tmp_path, [11, 16, 21, 26], seed=1, change=second)
    found = scan([tmp_path]).series
    assert [each.volume for each in found] == [True, True]
    assert sorted(read_image(each.path).spacing[0] for each in found) == pytest.approx([2, 5])


def test_mixed_orientations_are_stacks_of_their_own(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(
        tmp_path,
        orientation=CORONAL,
        seed=1,
        change=lambda each, index: setattr(each, "SOPInstanceUID", f"{ROOT}.6.{index}"),
    )
    found = scan([tmp_path]).series
    assert [each.volume for each in found] == [True, True]
    assert "slices of 2 orientations" in found[0].notes[0]
    orientations = {tuple(np.round(read_image(each.path).orientation, 3).tolist()) for each in found}
    assert orientations == {AXIAL, CORONAL}


def test_a_localizer_is_no_slice(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    scout = a_slice(50, (0, 0, -290), pixels_of(50), orientation=CORONAL)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(scout, tmp_path / "scout.dcm")
    volume, other = scan([tmp_path]).series if scan([tmp_path]).series[0].volume else scan([tmp_path]).series[::-1]
    assert volume.files == tuple(paths)
    assert volume.volume
    assert other.files == (tmp_path / "scout.dcm",)
    assert "a localizer" in other.notes
    assert read_image(tmp_path).files == tuple(paths)  # the only volume that there is


def test_other_sizes_and_frames_of_reference_are_apart(tmp_path: Path) -> None:
    def elsewhere(dataset: Dataset, index: int) -> None:
        dataset.SOPInstanceUID += ".1"
        dataset.FrameOfReferenceUID += ".1"

    write_series(tmp_path)
    write_series(tmp_path, seed=1, change=elsewhere)
    larger = a_slice(50, (0, 0, 0), pixels_of(50, (9, 9)))
    save(larger, tmp_path / "larger")
    found = scan([tmp_path]).series
    assert sorted((len(each.files), each.volume) for each in found) == [(1, False), (6, True), (6, True)]


def test_rescaling_is_each_slices_own(tmp_path: Path) -> None:
    def own(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.25 * (index + 1), index

    paths = write_series(tmp_path, modality="MR", change=own)
    image = read_image(tmp_path)
    assert image.pixels.dtype == np.float32
    np.testing.assert_allclose(image.pixels[0], stored(paths), rtol=1e-6)


def test_signed_and_unsigned_slices_mix(tmp_path: Path) -> None:
    def own(dataset: Dataset, index: int) -> None:
        if index % 2:
            dataset.PixelRepresentation = 1
            dataset.PixelData = (pixels_of(index).astype(np.int16) - 2000).tobytes()

    paths = write_series(tmp_path, change=own)
    np.testing.assert_array_equal(read_image(tmp_path).pixels[0], stored(paths))


def test_monochrome1_stays_as_it_is_and_is_told(tmp_path: Path) -> None:
    paths = write_series(tmp_path, change=lambda each, index: setattr(each, "PhotometricInterpretation", "MONOCHROME1"))
    image = read_image(tmp_path)
    assert image.inverted
    np.testing.assert_array_equal(image.pixels[0], stored(paths))


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


def test_small_animals_have_small_steps(tmp_path: Path) -> None:
    paths = write_series(tmp_path, [0, 0.005, 0.01, 0.015], spacing=(0.005, 0.005))
    assert only(tmp_path).files == tuple(paths)
    assert read_image(tmp_path).spacing == pytest.approx((0.005, 0.005, 0.005), rel=1e-3)


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


def test_pixels_of_threads_and_of_one_are_equal(tmp_path: Path) -> None:
    paths = write_series(tmp_path, np.arange(0, 40, 2).tolist())
    np.testing.assert_array_equal(read_image(tmp_path).pixels, read_image(tmp_path).pixels)
    assert read_image(tmp_path).files == tuple(paths)


def uptake(dataset: Dataset, index: int) -> None:
    """PET in Bq/ml, each slice with a slope of its own, and what the standardised uptake value takes."""
    dataset.RescaleSlope, dataset.RescaleIntercept = 1.5 + index, 0
    dataset.Units, dataset.DecayCorrection, dataset.CorrectedImage = "BQML", "START", ["ATTN", "DECY"]
    dataset.PatientWeight, dataset.SeriesDate, dataset.SeriesTime = 70, "20230405", "101500"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20230405", "101500"
    given = Dataset()
    given.RadionuclideTotalDose, given.RadionuclideHalfLife = 3.7e8, 6586.2
    given.RadiopharmaceuticalStartTime = "091500"
    dataset.RadiopharmaceuticalInformationSequence = [given]


def twelve_bits(dataset: Dataset, index: int) -> None:
    """Values in 12 bits, and an overlay of old in the higher ones of one slice."""
    dataset.BitsStored, dataset.HighBit = 12, 11
    if index == 2:
        dataset.PixelData = (pixels_of(index) | 0x8000).tobytes()


def packed(dataset: Dataset, index: int) -> None:
    dataset.compress(pydicom.uid.RLELossless)


def half_packed(dataset: Dataset, index: int) -> None:
    if index % 2:
        packed(dataset, index)


def mapped(dataset: Dataset, index: int) -> None:
    """A table instead of a slope, in one slice."""
    if index == 1:
        del dataset.RescaleSlope, dataset.RescaleIntercept
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [4000, 0, 16], "HU"
        table.LUTData = np.arange(4000, 0, -1).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        dataset.ModalityLUTSequence = [table]


def big_endian(dataset: Dataset, index: int) -> None:
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    dataset.PixelData = pixels_of(index).byteswap().tobytes()


def deflated(dataset: Dataset, index: int) -> None:
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian


@pytest.mark.parametrize(
    ("change", "modality"),
    [
        (uptake, "PT"), (twelve_bits, "CT"), (packed, "CT"), (half_packed, "MR"), (mapped, "CT"), (big_endian, "CT"),
        (deflated, "MR"),
    ],
)  # fmt: skip
def test_a_volume_has_the_values_of_its_files(tmp_path: Path, change: Change, modality: str) -> None:
    paths = write_series(tmp_path, change=change, modality=modality)
    image = read_image(tmp_path)
    slices = [read_image(path) for path in paths]
    np.testing.assert_array_equal(image.pixels[0], [each.pixels[0] for each in slices])
    assert image.pixels.dtype == np.result_type(*(each.pixels for each in slices))
    assert image.units == slices[3].units
    if change is uptake:
        assert image.units == "SUVbw"
        assert image.pixels.dtype == np.float32


def test_slices_in_several_units_are_refused(tmp_path: Path) -> None:
    def some(dataset: Dataset, index: int) -> None:
        uptake(dataset, index)
        if index == 4:
            del dataset.PatientWeight

    paths = write_series(tmp_path, change=some, modality="PT")
    told = refusal(tmp_path)
    assert paths[4].name in told
    assert "its values are in BQML, those of other slices in SUVbw" in told


def enhanced(path: Path, uid: str) -> Path:
    """An enhanced MR of four frames, which lie against their numbers."""
    dataset = a_slice(1, None, pixels_of(1, (4 * 5, 7)), orientation=None, series=uid, modality="MR")
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", f"{uid}.1"
    dataset.Rows, dataset.NumberOfFrames = 5, 4
    del dataset.PixelSpacing, dataset.SliceThickness
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 3
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], []
    for number in range(4):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, -3.0 * number]
        frame.PlanePositionSequence = [place]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    return save(dataset, path)


def test_enhanced_files_are_volumes_of_their_own(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "a.dcm", f"{ROOT}.1")
    series = only(tmp_path)
    assert series.volume
    assert series.files == (path,)
    frames = pixels_of(1, (4 * 5, 7)).reshape(4, 5, 7)[::-1].astype(int) - 1024
    for image in (read_series(series), read_image(series.path), read_image(tmp_path), read_image(path)):
        np.testing.assert_array_equal(image.pixels[0], frames)
    save(pydicom.dcmread(enhanced(tmp_path / "b.dcm", f"{ROOT}.1.2")), tmp_path / "b.dcm")
    other = pydicom.dcmread(tmp_path / "b.dcm")
    other.SeriesInstanceUID = f"{ROOT}.1"
    save(other, tmp_path / "b.dcm")
    found = scan([tmp_path]).series
    assert [(each.volume, len(each.files)) for each in found] == [(True, 1), (True, 1)]


def test_palette_colour_is_no_volume(tmp_path: Path) -> None:
    write_series(tmp_path, change=lambda each, index: setattr(each, "PhotometricInterpretation", "PALETTE COLOR"))
    assert (only(tmp_path).volume, only(tmp_path).refusal) == (False, "")


def mutated(path: Path, source: bytes, generator: np.random.Generator) -> None:
    """Change, take out or cut some bytes of the header."""
    data = bytearray(source)
    end = source.index(b"\xe0\x7f\x10\x00")
    for _ in range(int(generator.integers(1, 6))):
        place = int(generator.integers(128, max(129, min(end, len(data) - 1))))
        turn = generator.random()
        if turn < 0.6 and place < len(data):
            data[place] = int(generator.integers(0, 256))
        elif turn < 0.8:
            data[place : place + int(generator.integers(1, 9))] = b""
        elif turn < 0.95:
            data[place : place + 4] = generator.choice([b"\xff\xff\xff\xff", b"1e99", b"\0\0\0\0", b"-1\\\\"]).tobytes()
        else:
            del data[place:]
    path.write_bytes(data)


@pytest.mark.parametrize("count", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_damaged_headers_are_told_or_do_no_harm(tmp_path: Path, count: int) -> None:
    paths = write_series(tmp_path, [0, 2, 4, 6])
    source = paths[1].read_bytes()
    generator = np.random.default_rng(7)
    read = 0
    for _ in range(count):
        mutated(paths[1], source, generator)
        found = scan([tmp_path])
        assert sum(len(each.files) for each in found.series) + len(found.skipped) >= 3  # copies may be left out
        with contextlib.suppress(UnreadableFileError):
            image = read_image(tmp_path)
            read += 1
            assert np.isfinite(image.affine).all()
    assert 0 < read < count
