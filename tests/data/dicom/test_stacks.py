"""What a series falls into: volumes at one place, copies, gaps, tilts, localisers, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pellucid.data.dicom.series import Series, read_series, scan
from pellucid.data.images import MedicalImage, read_image
from pellucid.errors import UnreadableFileError
from references.slices import AXIAL, CORONAL, ROOT, a_slice, oblique, pixels_of, save, stored, write_series


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


def test_small_animals_have_small_steps(tmp_path: Path) -> None:
    paths = write_series(tmp_path, [0, 0.005, 0.01, 0.015], spacing=(0.005, 0.005))
    assert only(tmp_path).files == tuple(paths)
    assert read_image(tmp_path).spacing == pytest.approx((0.005, 0.005, 0.005), rel=1e-3)
