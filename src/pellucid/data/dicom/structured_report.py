"""What was found, by which network and method, as a Structured Report (PS3.16, TID 1500)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from pellucid.data.dicom.capture import greatest
from pellucid.data.dicom.objects import (
    AI,
    MANUFACTURER,
    NO_UNITS,
    About,
    Finding,
    Map,
    check_map,
    code_of,
    common,
    concept_of,
    finish,
    uid_of,
)
from pellucid.data.dicom.segmentation import HALF, Threshold
from pellucid.data.dicom.source import Source
from pellucid.data.dicom.uids import derived_uid

KIND = "structured-report"

_PROBABILITY = CodedConcept("122157", "DCM", "Probability")
_AREA, _VOLUME = CodedConcept("42798000", "SCT", "Area"), CodedConcept("118565006", "SCT", "Volume")
_MM2, _MM3 = CodedConcept("mm2", "UCUM", "square millimeter"), CodedConcept("mm3", "UCUM", "cubic millimeter")
_DEVICE = CodedConcept("121007", "DCM", "Device")
_IMAGING = CodedConcept("363679005", "SCT", "Imaging procedure")
_YES, _NO = CodedConcept("373066001", "SCT", "Yes"), CodedConcept("373067005", "SCT", "No")
_SCORE = code_of("score", "Score of the class (logit)")
_PREDICTED = code_of("predicted", "Is the predicted class")
_LARGEST = code_of("largest-value", "Value of largest magnitude")
_PIXELS = code_of("pixels", "Share of all pixels")
_EVIDENCE = code_of("evidence", "Evidence shown by the map")
_NONE = code_of("no-evidence", "None: the map is zero everywhere")
_BELOW = code_of("below-threshold", "No pixel reaches the threshold of the region")

_Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, eq=False)
class Shown:
    """A map and the objects that hold it; None where one wasn't written."""

    map: Map
    parametric_map: Dataset | None = None
    segmentation: Dataset | None = None
    capture: Dataset | None = None


def structured_report(
    source: Source, shown: Sequence[Shown], about: About, threshold: Threshold = HALF, number: int = 1
) -> Dataset:
    """A measurement report about one image: its classes, and each map.

    A class has its probability and score, the network (architecture, digest of the weights) and the source images. A
    map has the place of its largest value, as a point in mm of the frame of reference, or in pixels of the source where
    none is known; that value, and the metrics, each with where it was described; then the region, as a segment, with
    its volume or area. The values refer to the Parametric Map and the region to the Segmentation, where there are.

    Comprehensive 3D SR where places are known, else Comprehensive SR.

    Arguments:
        source: of the image that was explained.
        shown: at least one map, with the objects already made of it.
        about: network, version and time.
        threshold: by which the regions were cut.
        number: of the object in its series, from 1.
    """
    findings = {each.map.finding.name: each.map.finding for each in shown}
    groups: list[_Group] = [_class_group(source, finding, about) for finding in findings.values()]
    for each in shown:
        groups.extend(_map_groups(source, each, about, threshold))
    observer = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", about.architecture, about.weights, about.version),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=about.architecture,
        serial_number=about.weights,
    )
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(observer_type=_DEVICE, observer_identifying_attributes=observer)
        ),
        procedure_reported=_IMAGING,
        imaging_measurements=groups,
    )
    settings = common(KIND, source, about, number, *(each.SOPInstanceUID for each in _objects(shown)), str(report[0]))
    kind = Comprehensive3DSR if source.planes else ComprehensiveSR
    made = kind(
        evidence=[*source.slices, *_files(source), *_objects(shown)],
        content=report[0],
        is_complete=True,
        **settings,
    )
    _segments(made)
    return finish(made, source, about)


def _segments(item: Dataset) -> None:
    """Name no segment beside a frame, which has but one (PS3.3, C.18.4)."""
    for inner in item.get("ContentSequence", ()):
        _segments(inner)
        for reference in inner.get("ReferencedSOPSequence", ()):
            if "ReferencedFrameNumber" in reference and "ReferencedSegmentNumber" in reference:
                del reference.ReferencedSegmentNumber


def _objects(shown: Sequence[Shown]) -> Iterator[Dataset]:
    for each in shown:
        yield from (made for made in (each.parametric_map, each.segmentation, each.capture) if made is not None)


def _files(source: Source) -> list[Dataset]:
    """The file of which all slices are frames, as evidence."""
    if len(source.headers) == len(source.slices):
        return []
    file = Dataset()
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        setattr(file, name, source.header.get(name))
    return [file]


def _images(source: Source) -> list[SourceImageForMeasurementGroup]:
    """Each source image once."""
    return [
        SourceImageForMeasurementGroup(each.SOPClassUID, each.SOPInstanceUID)
        for each in _files(source) or source.slices
    ]


def _class_group(source: Source, finding: Finding, about: About) -> MeasurementsAndQualitativeEvaluations:
    measurements = [_number(_SCORE, finding.score)]
    if finding.probability is not None and math.isfinite(finding.probability):
        measurements.insert(0, _number(_PROBABILITY, finding.probability))
    evaluations = []
    if finding.predicted is not None:
        evaluations.append(QualitativeEvaluation(_PREDICTED, _YES if finding.predicted else _NO))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(source, about, f"class {finding.name}"),
        finding_type=concept_of(finding),
        algorithm_id=AlgorithmIdentification(
            name=about.architecture, version=about.weights, family=AI, parameters=[f"pellucid {about.version}"]
        ),
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=_images(source),
    )


def _map_groups(source: Source, each: Shown, about: About, threshold: Threshold) -> Iterator[_Group]:
    """The group of the largest value and, where there is a segment, that of the region."""
    one = each.map
    values = check_map(one, source)
    place = greatest(values)
    measured = _number(_LARGEST, float(values[place]), each.parametric_map)
    metrics = [
        Measurement(
            name=code_of(metric.name),
            value=metric.value,
            unit=NO_UNITS if metric.unit == "1" else CodedConcept(metric.unit, "UCUM", metric.unit),
            algorithm_id=AlgorithmIdentification(
                name=metric.name,
                version=about.version,
                parameters=[f"source: {metric.source}"] if metric.source else None,
            ),
        )
        for metric in one.metrics
        if math.isfinite(metric.value)
    ]
    named = f"{one.label} for {one.finding.name}"
    if not values.any():
        yield MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(source, about, named),
            finding_type=concept_of(one.finding),
            method=code_of(one.method),
            algorithm_id=_algorithm(one, about),
            measurements=[measured, *metrics],
            qualitative_evaluations=[QualitativeEvaluation(_EVIDENCE, _NONE)],
            source_images=_images(source),
        )
        return
    inside = threshold.region(values)
    yield PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(source, about, f"{named}: largest value"),
        referenced_region=_point(source, place),
        finding_type=concept_of(one.finding),
        method=code_of(one.method),
        algorithm_id=_algorithm(one, about),
        measurements=[measured, *metrics],
        qualitative_evaluations=[] if inside.any() else [QualitativeEvaluation(_EVIDENCE, _BELOW)],
    )
    if each.segmentation is None:
        return
    shared: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(
            uid=each.segmentation.SegmentSequence[0].TrackingUID, identifier=f"{named}: region"
        ),
        "finding_type": concept_of(one.finding),
        "method": code_of(one.method),
        "algorithm_id": _algorithm(one, about, f"threshold: {threshold.text}"),
        "measurements": [*_sizes(source, inside), _number(_PIXELS, float(inside.mean()))],
    }
    segment = each.segmentation.SOPClassUID, each.segmentation.SOPInstanceUID
    if len(values) == 1:
        first = source.slices[0]
        frame = ReferencedSegmentationFrame(
            *segment, 1, 1, SourceImageForSegmentation(first.SOPClassUID, first.SOPInstanceUID)
        )
        yield PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=frame, **shared)
        return
    series = SourceSeriesForSegmentation(source.header.SeriesInstanceUID)
    yield VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(*segment, 1, source_series=series), **shared
    )


def _algorithm(one: Map, about: About, *more: str) -> AlgorithmIdentification:
    """The attribution method, with the network that it explains."""
    return AlgorithmIdentification(
        name=one.label,
        version=about.version,
        manufacturer=MANUFACTURER,
        family=AI,
        parameters=[
            *(f"network: {about.architecture}", f"weights: {about.weights}", f"class: {one.finding.name}"),
            *more,
        ],
    )


def _point(source: Source, place: Sequence[int]) -> ImageRegion | ImageRegion3D:
    """The centre of a pixel: in mm, or from the upper left corner of the picture, whose own centre is (0.5, 0.5)."""
    if source.planes:
        where = source.planes[place[0]].place(place[1], place[2])
        return ImageRegion3D("POINT", np.array([where]), source.frame_of_reference)
    slice_ = source.slices[place[0]]
    return ImageRegion(
        "POINT",
        np.array([[place[2] + 0.5, place[1] + 0.5]]),
        SourceImageForRegion(slice_.SOPClassUID, slice_.SOPInstanceUID),
    )


def _sizes(source: Source, inside: np.ndarray) -> list[Measurement]:
    """The region's volume, or the area where there is one slice, where lengths are known in the patient."""
    if not source.planes:
        return []
    area = source.planes[0].spacing[0] * source.planes[0].spacing[1]
    count = int(np.count_nonzero(inside))
    if len(inside) == 1:
        return [_number(_AREA, count * area, unit=_MM2)]
    steps = np.diff([plane.position for plane in source.planes], axis=0)
    step = float(np.abs(steps @ source.planes[0].normal).mean())  # across slices that lie askew as well
    return [_number(_VOLUME, count * area * step, unit=_MM3)]


def _number(name: CodedConcept, value: float, of: Dataset | None = None, unit: CodedConcept = NO_UNITS) -> Measurement:
    images = [] if of is None else [SourceImageForMeasurement(of.SOPClassUID, of.SOPInstanceUID)]
    return Measurement(name=name, value=value, unit=unit, referenced_images=images or None)


def _tracking(source: Source, about: About, what: str) -> TrackingIdentifier:
    return TrackingIdentifier(uid=uid_of("tracking", source, about, what), identifier=what)
