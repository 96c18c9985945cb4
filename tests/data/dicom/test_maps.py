"""Parametric Maps and Segmentations: values, places, codes and thresholds, as highdicom reads them."""

from __future__ import annotations

import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from pellucid.data.dicom.objects import About, Code, Finding, Map, code_of, cut, quantity_of, write
from pellucid.data.dicom.parametric_map import parametric_map
from pellucid.data.dicom.segmentation import Threshold, parse_threshold, segmentation
from pellucid.data.dicom.source import Source, source_of
from pellucid.data.images import MedicalImage
from pellucid.errors import InputError
from references import dicom_sources as sources
from references.ct_series import write_ct_series

ABOUT = About("resnet50", "0123456789abcdef", datetime.datetime(2024, 5, 6, 7, 8, 9, 123456))
FINDING = Finding("pneumonia", 1.25, 0.875)


def noise(image: MedicalImage, label: str = "grad-cam-plus-plus") -> Map:
    values = np.random.default_rng(0).normal(size=image.pixels.shape[1:]).astype(np.float32)
    return Map(label, values, FINDING)


def built(paths: list[Path]) -> tuple[MedicalImage, Source]:
    image = sources.volume_of(paths)
    return image, source_of(image)


@pytest.mark.parametrize("tilt", [0.0, 20.0])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_map_s_voxels_lie_where_the_source_s_do(tmp_path: Path, tilt: float, backwards: bool) -> None:
    image, source = built(write_ct_series(tmp_path / "ct", tilt=tilt, backwards=backwards))
    one = noise(image)
    path = write(tmp_path / "a.dcm", parametric_map(source, one, ABOUT))
    made = highdicom.imread(path)
    stored = np.frombuffer(made.FloatPixelData, "<f4").reshape(one.values.shape)
    assert sorted(map(float, stored.reshape(-1))) == sorted(map(float, one.values.reshape(-1)))
    of = {pydicom.dcmread(each).SOPInstanceUID: number for number, each in enumerate(image.files)}
    for frame, group in zip(stored, made.PerFrameFunctionalGroupsSequence, strict=True):
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = of[reference.ReferencedSOPInstanceUID]
        file = pydicom.dcmread(image.files[number])
        np.testing.assert_array_equal(frame, one.values[number])
        np.testing.assert_allclose(
            group.PlanePositionSequence[0].ImagePositionPatient, file.ImagePositionPatient, atol=1e-6
        )
    shared = made.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, file.ImageOrientationPatient, atol=1e-8
    )
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, file.PixelSpacing)
    assert made.FrameOfReferenceUID == file.FrameOfReferenceUID
    if not tilt:  # highdicom makes no volume of slices that lie askew
        volume = made.get_volume()
        ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
        assert image.affine is not None
        where = np.linalg.inv(ras) @ image.affine @ [3, 5, 7, 1]
        index = np.rint(where[:3]).astype(int)
        np.testing.assert_allclose(where[:3], index, atol=1e-3)
        assert volume.array[tuple(index)] == one.values[3, 5, 7]


def test_frames_of_a_shuffled_file_find_their_places(tmp_path: Path) -> None:
    path = sources.enhanced_mr(tmp_path / "a.dcm")
    image, source = built([path])
    of = pydicom.dcmread(path)
    assert [each.frame for each in source.references.values()] != list(range(1, 7))
    one = noise(image)
    made = parametric_map(source, one, ABOUT)
    stored = np.frombuffer(made.FloatPixelData, "<f4").reshape(one.values.shape)
    for frame, group in zip(stored, made.PerFrameFunctionalGroupsSequence, strict=True):
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == of.SOPInstanceUID
        number = reference.ReferencedFrameNumber - 1
        place = of.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, place)
        # the volume's slice that holds this frame's pixels
        at = next(each for each in range(6) if np.array_equal(image.pixels[0, each], of.pixel_array[number]))
        np.testing.assert_array_equal(frame, one.values[at])
    assert len(made.SourceImageSequence) == 1
    assert "ReferencedFrameNumber" not in made.SourceImageSequence[0]  # all of them


def test_units_quantity_and_method_are_coded(tmp_path: Path) -> None:
    image, source = built(write_ct_series(tmp_path / "ct"))
    one = noise(image)
    made = parametric_map(source, one, ABOUT)
    mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
    quantity, method = (item.ConceptCodeSequence[0] for item in mapping.QuantityDefinitionSequence)
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("130403", "DCM")
    assert quantity.CodeMeaning == "Gradient-weighted class activation"
    assert (method.CodingSchemeDesignator, method.CodeMeaning) == ("99PELLUCID", "grad-cam-plus-plus")
    assert mapping.LUTExplanation == "grad-cam-plus-plus for pneumonia"
    assert len(mapping.LUTLabel) <= 16
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == one.values.min()
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == one.values.max()
    scheme = made.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == "99PELLUCID"


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("grad-cam", "130403"),
        ("layer-cam", "130403"),
        ("eigen-grad-cam", "130403"),
        ("eigen-cam", "130402"),
        ("ablation-cam", "130402"),
        ("score-cam", "130402"),
        ("guided-grad-cam", "130404"),
        ("integrated-gradients", "130404"),
        ("rise", "130404"),
    ],
)
def test_methods_are_of_the_standard_s_kinds(method: str, code: str) -> None:
    assert quantity_of(method).value == code


def test_every_method_and_metric_has_a_code_of_its_own() -> None:
    import pellucid

    names = [*pellucid.methods()["name"], *pellucid.metrics()["name"]]
    found = {code_of(name).value for name in names}
    assert len(found) == len(set(names))
    assert all(0 < len(each) <= 16 for each in found)
    assert code_of("Lungenentzündung der linken Seite").value.isascii()


def test_text_is_cut_to_what_an_element_holds() -> None:
    assert cut("a\\b\n c") == "a/b c"
    assert len(cut("ü" * 100).encode()) <= 64
    assert cut("ü" * 100, 5) == "üü"


def test_a_radiograph_s_map_has_no_place_but_its_source_s_pixels(tmp_path: Path) -> None:
    image = sources.picture_of(sources.radiograph(tmp_path / "a.dcm", "MG"))
    one = noise(image)
    made = parametric_map(source_of(image), one, ABOUT)
    assert made.NumberOfFrames == 1
    assert np.array_equal(np.frombuffer(made.FloatPixelData, "<f4").reshape(40, 30), one.values)
    assert "PlanePositionSequence" not in made.PerFrameFunctionalGroupsSequence[0]
    assert "PlaneOrientationSequence" not in made.SharedFunctionalGroupsSequence[0]
    assert list(made.PatientOrientation) == ["L", "F"]
    assert made.Laterality == "L"
    reference = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.SpatialLocationsPreserved == "YES"
    again = sources.picture_of(sources.radiograph(tmp_path / "b.dcm", "MG"))
    assert parametric_map(source_of(again), one, ABOUT).FrameOfReferenceUID == made.FrameOfReferenceUID


def test_a_slice_without_a_frame_of_reference_shares_one_with_its_series(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "ct")
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    uids = set()
    for path in paths[:2]:
        image = sources.picture_of(path)
        made = parametric_map(source_of(image), noise(image), ABOUT)
        np.testing.assert_allclose(
            made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient,
            pydicom.dcmread(path).ImagePositionPatient,
        )
        uids.add(made.FrameOfReferenceUID)
    assert len(uids) == 1


@pytest.mark.parametrize(
    ("threshold", "count", "text"),
    [
        (Threshold(), 5, "0.5 of the largest value"),
        (Threshold(0.85), 2, "0.85 of the largest value"),
        (Threshold(1.0), 1, "1 of the largest value"),
        (Threshold(7.0, "value"), 3, "value 7"),
        (Threshold(0.2, "top"), 4, "top 20 % of pixels"),
        (Threshold(0.999, "top"), 9, "top 99.9 % of pixels"),  # zero is never evidence
        (Threshold(99.0, "value"), 0, "value 99"),
    ],
)
def test_thresholds_take_what_they_say(threshold: Threshold, count: int, text: str) -> None:
    values = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, *[-5.0] * 9, 0], np.float32)
    inside = threshold.region(values)
    assert inside.sum() == count
    assert set(values[inside]) == set(range(10 - count, 10))
    assert threshold.text == text


def test_ties_at_the_top_are_all_taken() -> None:
    assert Threshold(0.25, "top").region(np.array([1, 1, 1, 0], np.float32)).sum() == 3


@pytest.mark.parametrize("text", ["", "half", "0", "-1", "1.5", "top:2", "value:0", "value:nan", "lowest:0.5", "top:"])
def test_thresholds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="threshold: expected"):
        parse_threshold(text)
    assert parse_threshold("maximum:0.25") == parse_threshold("0.25") == Threshold(0.25)


def test_a_segmentation_says_its_threshold_and_lies_where_the_map_does(tmp_path: Path) -> None:
    image, source = built(write_ct_series(tmp_path / "ct"))
    values = np.zeros(image.pixels.shape[1:], np.float32)
    values[3, 5:8, 9], values[6, 20, 30] = 2, 1.2
    one = Map("grad-cam", values, FINDING)
    dataset = segmentation(source, one, ABOUT, Threshold(0.5))
    assert dataset is not None
    made = highdicom.seg.segread(write(tmp_path / "a.dcm", dataset))
    segment = made.SegmentSequence[0]
    assert segment.SegmentLabel == "grad-cam for pneumonia"
    assert segment.SegmentDescription == "grad-cam for pneumonia, from 0.5 of the largest value"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert "threshold=0.5 of the largest value" in algorithm.AlgorithmParameters
    assert "weights=0123456789abcdef" in algorithm.AlgorithmParameters
    assert made.SegmentationType == "BINARY"
    assert made.NumberOfFrames == 2  # those that hold a part of the region
    volume = made.get_volume(combine_segments=True)
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    assert image.affine is not None
    for voxel in np.argwhere(values > 0):
        where = np.linalg.inv(ras) @ image.affine @ [*voxel, 1]
        assert volume.array[tuple(np.rint(where[:3]).astype(int))] == 1
    assert volume.array.sum() == 4


def test_there_is_no_segmentation_of_nothing(tmp_path: Path) -> None:
    image, source = built(write_ct_series(tmp_path / "ct"))
    values = np.full(image.pixels.shape[1:], -1, np.float32)
    assert segmentation(source, Map("grad-cam", values, FINDING), ABOUT) is None
    assert segmentation(source, Map("grad-cam", -values, FINDING), ABOUT, Threshold(2.0, "value")) is None


def test_a_class_may_have_a_code(tmp_path: Path) -> None:
    from pellucid.data.dicom.structured_report import Shown, structured_report

    image, source = built(write_ct_series(tmp_path / "ct", shape=(3, 8, 8)))
    finding = Finding("pneumonia", 1.25, 0.875, code=Code("233604007", "SCT", "Pneumonia"))
    report = structured_report(source, [Shown(Map("grad-cam", noise(image).values, finding))], ABOUT)
    assert "233604007" in str(report)
