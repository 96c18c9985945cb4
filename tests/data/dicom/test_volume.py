"""A volume's values are those of its files, whatever way they took, and damaged headers do no harm."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pellucid.data.dicom.series import Series, read_series, scan
from pellucid.data.images import read_image
from pellucid.errors import UnreadableFileError
from references.slices import AXIAL, ROOT, Change, a_slice, pixels_of, save, stored, write_series


def only(folder: Path) -> Series:
    (series,) = scan([folder]).series
    return series


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError, match="can't read") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert "made-up" not in str(caught.value)
    assert "Made" not in str(caught.value)
    return str(caught.value)


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
