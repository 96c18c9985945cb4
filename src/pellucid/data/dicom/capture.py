"""An overlay as a Secondary Capture (PS3.3, A.8): a picture that every viewer shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from pellucid.data.dicom.objects import (
    MANUFACTURER,
    About,
    Map,
    check_map,
    common,
    cut,
    finish,
    laterality_of,
)
from pellucid.data.dicom.source import Source
from pellucid.data.images import MedicalImage
from pellucid.data.views import PLANE_SIDE, Shown, drawn, picture_view, volume_views
from pellucid.drawing import Picture

KIND = "secondary-capture"
PURPOSE = CodedConcept("121322", "DCM", "Source of Image Processing Operation")

_RESEARCH = "made by a computer, for research; not for diagnosis"


def overlay_picture(image: MedicalImage, source: Source, one: Map, shown: Shown | None = None) -> Picture:
    """The drawn overlay of a map (H, W, 3) uint8: of a picture itself, of a volume three planes.

    The planes run through the map's largest value. Sides are named and lengths given where the files say them; the
    method, the class and its probability, the window and the place stand beside it.
    """
    check_map(one, source)
    shown = shown or Shown.of(image)
    finding = one.finding
    said = finding.name if finding.probability is None else f"{finding.name}, probability {finding.probability:.3f}"
    title = f"{one.label}: {said}" + ("" if one.values.any() else " (no evidence)")
    lines = [shown.words, *(note for note in image.notes if note.startswith("spacing is"))]
    if one.values.ndim == 2:
        view = picture_view(image, one.values, shown, _sides(source))
        return drawn([view], title, [*lines, _RESEARCH])
    chosen = greatest(one.values)
    assert image.affine is not None
    lines.append(f"slice {chosen[0] + 1} of {len(one.values)}, planes through {_place(image.affine, chosen)}")
    return drawn(volume_views(image, one.values, shown, chosen), title, [*lines, _RESEARCH], side=PLANE_SIDE)


def capture(source: Source, picture: Picture, one: Map, about: About, number: int = 1) -> Dataset:
    """A drawn overlay as a Secondary Capture object, in RGB.

    It refers to the images that it shows. What is written on it names no one; whether the source has burned-in
    annotation that does, and recognisable features, is said as the source says it, and left open where the source
    leaves it open.

    Arguments:
        source: of the image that was explained.
        picture: (H, W, 3) uint8, as `overlay_picture` draws it.
        one: the map that was drawn.
        about: network, version and time.
        number: of the object in its series, from 1.
    """
    made = SCImage.from_ref_dataset(
        ref_dataset=source.slices[0],
        pixel_array=np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # put right below
        **common(KIND, source, about, number, one.label, one.finding.name, picture.tobytes()),
    )
    made.copy_patient_and_study_information(source.slices[0])
    made.ImageType = ["DERIVED", "SECONDARY", "ATTRIBUTION"]
    made["PatientOrientation"].value = ""  # not the same all over: margins, and of a volume three planes
    made.Laterality = laterality_of(source)
    made.ConversionType = "WSD"
    made.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    made.SecondaryCaptureDeviceManufacturerModelName = MANUFACTURER
    made.SecondaryCaptureDeviceSoftwareVersions = cut(about.version)
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = DA(about.when.date()), TM(about.when.time())
    made.DerivationDescription = f"Overlay of {one.label} for {one.finding.name}, {about.architecture} {about.weights}"
    made.ImageComments = _RESEARCH
    for name in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if source.header.get(name) in ("YES", "NO"):
            setattr(made, name, source.header.get(name))
    if source.header.get("LossyImageCompression") == "01":
        made.LossyImageCompression = "01"
        for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if name in source.header:
                setattr(made, name, source.header.get(name))
    _refer(made, source)
    return finish(made, source, about)


def greatest(values: np.ndarray) -> tuple[int, ...]:
    """The place of largest magnitude; the middle where all are zero."""
    if not values.any():
        return tuple(length // 2 for length in values.shape)
    return tuple(int(place) for place in np.unravel_index(int(np.abs(values).argmax()), values.shape))


def _refer(made: Dataset, source: Source) -> None:
    """Name the images shown, and what they were taken for (PS3.3, C.12.4 and C.12.2)."""
    plain: list[Dataset] = []
    purposed: list[Dataset] = []
    for slice_ in source.slices:
        for references in (plain, purposed):
            reference = Dataset()
            reference.ReferencedSOPClassUID = slice_.SOPClassUID
            reference.ReferencedSOPInstanceUID = slice_.SOPInstanceUID
            references.append(reference)
        purposed[-1].PurposeOfReferenceCodeSequence = [PURPOSE]
    made.SourceImageSequence = purposed
    series = Dataset()
    series.SeriesInstanceUID = source.header.SeriesInstanceUID
    series.ReferencedInstanceSequence = plain
    made.ReferencedSeriesSequence = [series]


def _sides(source: Source) -> list[str]:
    """Where rows and columns lead, of a picture whose place isn't known but whose sides are."""
    stated = source.header.get("PatientOrientation")
    sides = [str(each) for each in stated] if stated and not isinstance(stated, str) else []
    known = len(sides) == 2 and all(each and set(each) <= set("LRAPHF") for each in sides)
    return sides if known else []


def _place(affine: np.ndarray, voxel: Sequence[int]) -> str:
    """A voxel's centre as viewers give it, such as "L 12.5, P 3.0, H 40.2 mm"."""
    right, front, head = (float(each) for each in (affine @ [*voxel, 1])[:3])
    parts = (("R" if right > 0 else "L", right), ("A" if front > 0 else "P", front), ("H" if head > 0 else "F", head))
    return ", ".join(f"{letter} {abs(value):.1f}" for letter, value in parts) + " mm"
