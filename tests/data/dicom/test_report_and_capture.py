"""Structured Reports say what was found, and where; Secondary Captures show it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pellucid.data.dicom.capture import capture, overlay_picture
from pellucid.data.dicom.objects import About, Finding, Map, Metric, write
from pellucid.data.dicom.parametric_map import parametric_map
from pellucid.data.dicom.segmentation import Threshold, segmentation
from pellucid.data.dicom.source import source_of
from pellucid.data.dicom.structured_report import Shown, structured_report
from pellucid.data.images import MedicalImage
from references import dicom_sources as sources
from references.ct_series import FRAME, write_ct_series

ABOUT = About("resnet50", "0123456789abcdef", datetime.datetime(2024, 5, 6, 7, 8, 9))
FINDING = Finding("pneumonia", 1.25, 0.875, predicted=True)


def items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def named(dataset: Dataset, meaning: str) -> list[Dataset]:
    return [item for item in items(dataset) if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def numbers(dataset: Dataset, meaning: str) -> list[tuple[float, str]]:
    found = [item.MeasuredValueSequence[0] for item in named(dataset, meaning)]
    return [(float(each.NumericValue), each.MeasurementUnitsCodeSequence[0].CodeValue) for each in found]


def peaked(image: MedicalImage, place: tuple[int, ...]) -> Map:
    values = np.full(image.pixels.shape[1:], 0.25, np.float32)
    values[place] = 4
    return Map("layer-cam", values, FINDING, (Metric("road", 0.125, source="Rong et al. 2022"),))


def reported(image: MedicalImage, one: Map, index: int | None = None) -> Dataset:
    source = source_of(image, index)
    threshold = Threshold(0.5)
    shown = Shown(one, parametric_map(source, one, ABOUT), segmentation(source, one, ABOUT, threshold))
    return structured_report(source, [shown], ABOUT, threshold)


def test_a_volume_s_report_gives_its_place_in_millimetres(tmp_path: Path) -> None:
    image = sources.volume_of(write_ct_series(tmp_path / "ct"))
    report = reported(image, peaked(image, (6, 10, 20)))
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    (region,) = named(report, "Image Region")
    assert (region.ValueType, region.GraphicType) == ("SCOORD3D", "POINT")
    assert region.ReferencedFrameOfReferenceUID == FRAME
    assert image.affine is not None
    np.testing.assert_allclose(
        np.array(region.GraphicData) * (-1, -1, 1), (image.affine @ [6, 10, 20, 1])[:3], atol=1e-4
    )
    assert numbers(report, "Probability") == [(0.875, "1")]
    assert numbers(report, "Score of the class (logit)") == [(1.25, "1")]
    assert numbers(report, "Value of largest magnitude") == [(4.0, "1")]
    assert numbers(report, "road") == [(0.125, "1")]
    assert numbers(report, "Volume") == [(pytest.approx(3 * 1.5 * 1.25), "mm3")]
    texts = {item.TextValue for item in items(report) if item.ValueType == "TEXT"}
    assert {"resnet50", "0123456789abcdef", "layer-cam", "threshold: 0.5 of the largest value"} <= texts
    assert "source: Rong et al. 2022" in texts
    (segment,) = named(report, "Referenced Segment")
    assert segment.ReferencedSOPSequence[0].ReferencedSegmentNumber == 1
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_a_tilted_series_has_the_volume_of_its_voxels(tmp_path: Path) -> None:
    image = sources.volume_of(write_ct_series(tmp_path / "ct", tilt=25.0))
    report = reported(image, peaked(image, (6, 10, 20)))
    # the step along the normal counts, not that from corner to corner
    assert numbers(report, "Volume")[0][0] == pytest.approx(3 * 1.5 * 1.25, rel=1e-6)


def test_a_radiograph_s_report_gives_its_place_in_pixels(tmp_path: Path) -> None:
    image = sources.picture_of(sources.radiograph(tmp_path / "a.dcm"))
    report = reported(image, peaked(image, (12, 7)))
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    (region,) = named(report, "Image Region")
    assert (region.ValueType, region.GraphicType) == ("SCOORD", "POINT")
    assert list(region.GraphicData) == [7.5, 12.5]  # column, row, of the pixel's centre (PS3.3, C.18.6.1)
    of = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert of.ReferencedSOPInstanceUID == pydicom.dcmread(image.files[0]).SOPInstanceUID
    (frame,) = named(report, "Referenced Segmentation Frame")
    assert frame.ReferencedSOPSequence[0].ReferencedFrameNumber == 1
    assert "ReferencedSegmentNumber" not in frame.ReferencedSOPSequence[0]
    assert not numbers(report, "Area")  # since no length is known in the patient
    assert numbers(report, "Share of all pixels") == [(pytest.approx(1 / 1200), "1")]


def test_a_frame_s_report_refers_to_the_frame(tmp_path: Path) -> None:
    image = sources.picture_of(sources.ultrasound(tmp_path / "a.dcm"), 2)
    report = reported(image, peaked(image, (12, 7)), 2)
    references = [item.ReferencedSOPSequence[0] for item in items(report) if "ReferencedSOPSequence" in item]
    of_source = [
        each for each in references if each.ReferencedSOPClassUID.name == "Ultrasound Multi-frame Image Storage"
    ]
    assert of_source
    assert {each.ReferencedFrameNumber for each in of_source} == {3}
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert not any("ReferencedFrameNumber" in item for each in evidence for item in each.ReferencedSOPSequence)


def test_frames_of_one_file_are_evidence_once(tmp_path: Path) -> None:
    image = sources.volume_of([sources.enhanced_mr(tmp_path / "a.dcm")])
    report = reported(image, peaked(image, (2, 3, 4)))
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    uids = [item.ReferencedSOPInstanceUID for each in evidence for item in each.ReferencedSOPSequence]
    assert len(uids) == len(set(uids)) == 3
    (image_item,) = named(report, "Source of Measurement")[:1]
    assert "ReferencedFrameNumber" not in image_item.ReferencedSOPSequence[0]


def test_a_map_without_evidence_says_so(tmp_path: Path) -> None:
    image = sources.volume_of(write_ct_series(tmp_path / "ct"))
    one = dataclasses.replace(peaked(image, (0, 0, 0)), values=np.zeros(image.pixels.shape[1:], np.float32))
    report = reported(image, one)
    assert not named(report, "Image Region")
    (said,) = named(report, "Evidence shown by the map")
    assert said.ConceptCodeSequence[0].CodeMeaning == "None: the map is zero everywhere"


def test_highdicom_reads_the_report_by_its_template(tmp_path: Path) -> None:
    image = sources.volume_of(write_ct_series(tmp_path / "ct"))
    path = write(tmp_path / "a.dcm", reported(image, peaked(image, (6, 10, 20))))
    content = highdicom.sr.srread(path).content
    assert isinstance(content, highdicom.sr.MeasurementReport)
    (planar,) = content.get_planar_roi_measurement_groups()
    assert planar.roi.graphic_type.value == "POINT"
    (volumetric,) = content.get_volumetric_roi_measurement_groups()
    assert volumetric.tracking_identifier == "layer-cam for pneumonia: region"
    (plain,) = content.get_image_measurement_groups()
    assert plain.get_measurements()[0].value == 0.875
    assert len(plain.source_images) == 10


def test_a_capture_holds_the_picture_and_says_what_it_shows(tmp_path: Path) -> None:
    image = sources.picture_of(sources.radiograph(tmp_path / "a.dcm", "MG"))
    one, source = peaked(image, (12, 7)), source_of(image)
    picture = overlay_picture(image, source, one)
    made = pydicom.dcmread(write(tmp_path / "b.dcm", capture(source, picture, one, ABOUT)))
    np.testing.assert_array_equal(made.pixel_array, picture)
    assert (made.PhotometricInterpretation, made.SOPClassUID.name) == ("RGB", "Secondary Capture Image Storage")
    assert made.BurnedInAnnotation == "NO"  # as the source says; what is drawn names no one
    assert made.Laterality == "L"
    assert made.DerivationDescription == "Overlay of layer-cam for pneumonia, resnet50 0123456789abcdef"
    assert made.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


@pytest.mark.parametrize(("stated", "expected"), [("YES", "YES"), ("NO", "NO"), (None, None)])
def test_burned_in_annotation_is_what_the_source_says(tmp_path: Path, stated: str | None, expected: str | None) -> None:
    path = sources.ultrasound(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    if stated:
        dataset.BurnedInAnnotation = stated
    dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", 12
    dataset.save_as(path)
    image = sources.picture_of(path)
    one, source = peaked(image, (12, 7)), source_of(image, 0)
    made = capture(source, overlay_picture(image, source, one), one, ABOUT)
    assert made.get("BurnedInAnnotation") == expected
    assert (made.LossyImageCompression, made.LossyImageCompressionRatio) == ("01", 12)
