"""What objects take over from the files that an image was read from: whose it is, and where each slice lies.

highdicom builds objects upon source images, and refuses many that are only a little out of the standard. It is
given stand-ins, one for each slice, that hold what it reads and nothing else; `put_right` afterwards names the files
and frames that they stand for.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import DA, TM, DSfloat

from pellucid.data.dicom.elements import number
from pellucid.data.dicom.frames import functional, orientation_of, pixel_spacing, position_of, stack_of
from pellucid.data.dicom.geometry import normal_of
from pellucid.data.dicom.headers import open_header
from pellucid.data.dicom.uids import derived_uid
from pellucid.data.images import MedicalImage
from pellucid.data.whole import DecodeError
from pellucid.errors import InputError, UnreadableFileError, expected

# an object can't say what it was made from without them
_REFERENCE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_DATES, _TIMES = ("PatientBirthDate", "StudyDate"), ("PatientBirthTime", "StudyTime")
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
# which highdicom would check and quote in warnings; `put_right` fills them in
_NAMES = ("PatientName", "ReferringPhysicianName")
# what belongs to the pixels and frames of a file, not to whom and what it shows
_OWN = (
    *("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType"),
    *("TotalPixelMatrixColumns", "TotalPixelMatrixRows", "TotalPixelMatrixOriginSequence", "ImageOrientationSlide"),
    *("ImageCenterPointCoordinatesSequence", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices", "GridFrameOffsetVector", "ReferencedImageSequence"),
    *("SourceImageSequence", "ReferencedSeriesSequence", "ContributingEquipmentSequence", "IconImageSequence"),
)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NEAR = 0.5  # of a slice's step: farther off, a file is none of the volume's slices


@dataclass(frozen=True)
class Reference:
    """A file by its UIDs, and the frame meant, from 1; 0 for all of it."""

    sop_class: str
    instance: str
    frame: int = 0


@dataclass(frozen=True, eq=False)
class Plane:
    """Where a slice lies: its first pixel's centre and the directions along rows and down columns, LPS mm."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    thickness: float | None

    @property
    def normal(self) -> np.ndarray:
        return normal_of(self.orientation)

    def place(self, row: float, column: float) -> tuple[float, ...]:
        """The centre of a pixel, LPS mm (PS3.3, C.7.6.2.1.1)."""
        along, down = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        where = np.array(self.position) + row * self.spacing[0] * down + column * self.spacing[1] * along
        return tuple(map(float, where))


@dataclass(frozen=True, eq=False)
class Source:
    """The files of an image as objects need them.

    `headers` one for each file, without pixels; `slices` the stand-in of each slice of the image, and `planes` where
    they lie, empty where the files don't say (radiographs, ultrasound). `references` the file and frame for which the
    UID of a stand-in stands. `kept` are the slices of the image that they are, in its order: all `depth` of it but
    those that were filled in where files are missing.
    """

    headers: tuple[Dataset, ...]
    slices: tuple[Dataset, ...]
    planes: tuple[Plane, ...]
    references: dict[str, Reference]
    kept: tuple[int, ...]
    depth: int

    @property
    def header(self) -> Dataset:
        return self.headers[0]

    @property
    def frame_of_reference(self) -> str:
        return str(self.slices[0].FrameOfReferenceUID)


def source_of(image: MedicalImage, index: int | None = None) -> Source:
    """Read the headers of the DICOM files that an image was made of.

    Arguments:
        image: a picture of one file or frame, or a volume of files or of one file's frames, as `read_image` gives it.
        index: the frame, from 0, where the image is one of several of its file.

    Raises:
        InputError: the image has no DICOM files, they lack the UIDs by which objects refer to them, don't have the
            image's shape, or lie elsewhere than its affine says.
        UnreadableFileError: a file that can't be read any more.
    """
    if not image.files:
        raise expected(
            "image", "one that was read from DICOM files", image.source.name, do="Write its maps as NIfTI or NRRD."
        )
    headers = tuple(_read(path) for path in image.files)
    for path, header in zip(image.files, headers, strict=True):
        _check_reference(path, header)
    frames = int(headers[0].get("NumberOfFrames") or 1)
    found = (
        _frames_of(headers[0], image, index)
        if len(headers) == 1 and frames > 1
        else [(each, 0, _plane(each)) for each in headers]
    )
    depth = image.pixels.shape[1] if image.pixels.ndim == 4 else 1
    for path, header in zip(image.files, headers, strict=True):
        if (header.Rows, header.Columns) != image.pixels.shape[-2:]:
            size = " × ".join(map(str, image.pixels.shape[-2:]))
            raise expected("image", f"the rows and columns of {path}, {header.Rows} × {header.Columns}", size)
    planes = [plane for _, _, plane in found if plane is not None]
    whole = len(planes) == len(found)
    kept = tuple(range(len(found)))
    if whole and image.affine is not None:
        kept = _places_of(planes, image.affine, depth)
    elif len(found) != depth:
        raise expected("image", f"a slice for each of its {len(found)} files or frames", f"{depth} slices")
    references: dict[str, Reference] = {}
    slices = tuple(_stand_in(header, frame, plane if whole else None, references) for header, frame, plane in found)
    return Source(headers, slices, tuple(planes) if whole else (), references, kept, depth)


def put_right(dataset: Dataset, source: Source) -> None:
    """Let an object that was built upon stand-ins refer to the files and frames for which they stand."""
    for name in _NAMES:
        dataset.pop(name, None)  # the element is the stand-in's own
        setattr(dataset, name, source.header.get(name) or "")
    for item in _items(dataset):
        instance = item.get("ReferencedSOPInstanceUID")
        if instance not in source.references:
            continue
        reference = source.references[str(instance)]
        item.ReferencedSOPClassUID = reference.sop_class
        item.ReferencedSOPInstanceUID = reference.instance
        if reference.frame:
            item.ReferencedFrameNumber = reference.frame
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", ()):  # files, never frames (PS3.3, C.17.2.3)
        for series in study.ReferencedSeriesSequence:
            files = {item.ReferencedSOPInstanceUID: item for item in series.ReferencedSOPSequence}
            for item in files.values():
                if "ReferencedFrameNumber" in item:
                    del item.ReferencedFrameNumber
            series.ReferencedSOPSequence = list(files.values())
    if len(source.headers) < len(source.slices):  # frames of one file, which is named once where all of it is meant
        _once(dataset, "SourceImageSequence")
        for series in dataset.get("ReferencedSeriesSequence", ()):
            _once(series, "ReferencedInstanceSequence")


def _once(dataset: Dataset, name: str) -> None:
    if name in dataset and len(dataset[name].value):
        first = dataset[name].value[0]
        dataset[name].value = [first]
        if "ReferencedFrameNumber" in first:
            del first.ReferencedFrameNumber


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Every item of every sequence, at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)


def _read(path: Path) -> Dataset:
    try:
        return open_header(path)
    except DecodeError as error:
        raise UnreadableFileError(f"can't read {path}: {error}.") from error


def _check_reference(path: Path, header: Dataset) -> None:
    missing = [name for name in _REFERENCE if not header.get(name)]
    if missing:
        raise InputError(
            f"image: expected a DICOM file that objects can refer to, got {path} without {', '.join(missing)}. "
            "Write its maps as NIfTI or NRRD."
        )


def _frames_of(header: Dataset, image: MedicalImage, index: int | None) -> list[tuple[Dataset, int, Plane | None]]:
    """The frames of a file that are the slices of an image, in its order."""
    count = int(header.NumberOfFrames)
    if image.pixels.ndim == 3:
        if index is None or not 0 <= index < count:
            raise expected("index", f"which of the file's {count} frames the image is, from 0", index)
        return [(header, index + 1, _plane(header, index))]
    stack = stack_of(header, count)  # by which the image was read
    if stack is None:
        raise expected("image", "a picture, or a volume whose slices have places", f"{count} frames without")
    starts = (_LPS_TO_RAS @ stack.affine)[:3] @ np.array([[at, 0, 0, 1] for at in range(count)]).T
    spacing, orientation = (stack.spacing[1], stack.spacing[2]), stack.orientation
    return [
        (header, frame + 1, Plane(tuple(start.tolist()), orientation, spacing, _thickness(header, frame)))
        for start, frame in zip(starts.T, stack.order, strict=True)
    ]


def _plane(header: Dataset, frame: int = 0) -> Plane | None:
    """Where a file's frame lies; None where the file doesn't say."""
    position, orientation = position_of(header, frame), orientation_of(header, frame)
    spacing, note = pixel_spacing(header, frame)
    if position is None or orientation is None or spacing is None or note:  # spacing elsewhere than in the patient
        return None
    return Plane(position, orientation, spacing, _thickness(header, frame))


def _thickness(header: Dataset, frame: int) -> float | None:
    group = functional(header, frame, "PixelMeasuresSequence")
    try:
        found = number(header if group is None else group, "SliceThickness")
    except DecodeError:
        return None
    return found if found is not None and found >= 0 else None


def _places_of(planes: Sequence[Plane], affine: np.ndarray, depth: int) -> tuple[int, ...]:
    """Which slices of a volume the files are, by where they lie; they must go up, so that none is misplaced."""
    places = (_LPS_TO_RAS @ affine @ np.array([[at, 0, 0, 1] for at in range(depth)]).T)[:3].T
    step = float(np.linalg.norm(affine[:3, 0]))
    kept: list[int] = []
    for at, plane in enumerate(planes, 1):
        off = np.linalg.norm(places - np.array(plane.position), axis=1)
        nearest = int(off.argmin())
        if off[nearest] > _NEAR * step or (kept and nearest <= kept[-1]):
            raise expected(
                "image", "files in the order of its slices", f"file {at} beside slice {nearest + 1}",
                do="Read the series again.",
            )  # fmt: skip
        kept.append(nearest)
    return tuple(kept)


def _stand_in(header: Dataset, frame: int, plane: Plane | None, references: dict[str, Reference]) -> Dataset:
    """A data set that highdicom takes for a single-frame image; patient and study are read of the first alone."""
    stand_in = _small(header) if references else whose(header)
    real = str(header.SOPInstanceUID)
    uid = derived_uid("frame", real, frame) if frame else real
    references[uid] = Reference(str(header.SOPClassUID), real, frame)
    stand_in.SOPInstanceUID = uid
    if not header.get("FrameOfReferenceUID"):
        # a parametric map needs one (PS3.3, A.75.3); this one is shared by nothing but what is made of these files
        of = header.SOPInstanceUID if plane is None else header.SeriesInstanceUID
        stand_in.FrameOfReferenceUID = derived_uid("frame of reference", str(of))
        stand_in.PositionReferenceIndicator = ""
    if plane is not None:
        stand_in.ImagePositionPatient = [_decimal(each) for each in plane.position]
        stand_in.ImageOrientationPatient = [_decimal(each) for each in plane.orientation]
        stand_in.PixelSpacing = [_decimal(each) for each in plane.spacing]
        stand_in.SliceThickness = _decimal(plane.thickness or 0.0)
    return stand_in


def _small(header: Dataset) -> Dataset:
    small = Dataset()
    small.SOPClassUID = SecondaryCaptureImageStorage
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "Modality", "FrameOfReferenceUID"):
        if name in header:
            setattr(small, name, header.get(name))
    return small


def whose(header: Dataset) -> Dataset:
    """A copy of what a header says of patient, study, series and equipment, such that highdicom takes it."""
    kept = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag in header.keys():  # noqa: SIM118 (items would decode all values at once, the damaged ones too)
            if tag.is_private or tag.group in (0x0002, 0x5400, 0x7FE0) or keyword_for_tag(tag) in _OWN:
                continue
            with contextlib.suppress(ValueError, TypeError, LookupError, NotImplementedError, AttributeError):
                kept.add(copy.deepcopy(header[tag]))  # what can't be decoded can't be copied
    kept.SOPClassUID = SecondaryCaptureImageStorage  # of which it knows that a frame of reference may be missing
    for name in _EMPTY:
        if kept.get(name) is None:
            setattr(kept, name, "")
    for names, kind in ((_DATES, DA), (_TIMES, TM)):
        for name in names:
            if name in kept and not _is_valid(kept.get(name), kind):
                setattr(kept, name, "")
    for name in _NAMES:
        setattr(kept, name, "")
    if kept.PatientSex not in ("", "M", "F", "O"):
        kept.PatientSex = ""
    if "PositionReferenceIndicator" not in kept:
        kept.PositionReferenceIndicator = ""
    return kept


def _is_valid(value: object, kind: type[DA] | type[TM]) -> bool:
    try:
        kind(value)
    except (ValueError, TypeError):
        return False
    return not isinstance(value, pydicom.multival.MultiValue)


def _decimal(value: float) -> DSfloat:
    return DSfloat(value, auto_format=True)
