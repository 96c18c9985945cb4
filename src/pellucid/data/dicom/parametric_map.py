"""A map as a Parametric Map (PS3.3, A.75): its raw values in float32, where the source's pixels lie."""

from __future__ import annotations

from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr.value_types import CodeContentItem
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from pellucid.data.dicom.objects import (
    CREATOR,
    METHOD,
    NO_UNITS,
    About,
    Map,
    check_map,
    code_of,
    common,
    cut,
    finish,
    laterality_of,
    orient,
    quantity_of,
    shows_features,
)
from pellucid.data.dicom.source import Source

KIND = "parametric-map"


def parametric_map(source: Source, one: Map, about: About, number: int = 1) -> Dataset:
    """A map as a Parametric Map object.

    One frame for each slice. The quantity is the standard's kind of map (class activation, gradient-weighted class
    activation or saliency; CID 7180), its measurement method the attribution method in the scheme 99PELLUCID; the
    values have no unit. A window from the least to the greatest value lets viewers show it.

    Where the source's files don't say where their pixels lie, as radiographs and ultrasound don't, the object has
    neither plane positions nor orientation: it is in register with its source, pixel by pixel, and nothing else is
    claimed. Its frame of reference, which the IOD wants, is the source's, or else one that stands for that file alone.

    Arguments:
        source: of the image that was explained.
        one: values at the image's own pixels.
        about: network, version and time.
        number: of the object in its series, from 1.

    Raises:
        InputError: values of another shape, or that aren't finite.
    """
    values = check_map(one, source)
    low, high = float(values.min()), float(values.max())
    what = cut(f"{one.label} for {one.finding.name}")
    mapping = RealWorldValueMapping(
        lut_label=cut(one.method, 16),
        lut_explanation=what,
        unit=NO_UNITS,
        value_range=(low, high),
        quantity_definition=quantity_of(one.method),
    )
    mapping.QuantityDefinitionSequence.append(CodeContentItem(name=METHOD, value=code_of(one.method)))
    window = VOILUTTransformation(
        window_center=(low + high) / 2,
        window_width=high - low if high > low else 1.0,
        window_explanation="least to greatest",
        voi_lut_function="LINEAR_EXACT",  # the plain one wants a width of 1 or more
    )
    made = ParametricMap(
        source_images=list(source.slices) if source.planes else [_placed(source.slices[0])],
        pixel_array=values,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        contains_recognizable_visual_features=shows_features(source, one),
        content_label="ATTRIBUTION_MAP",
        content_description=what,
        content_creator_name=CREATOR,
        image_flavor="VOLUME" if len(values) > 1 else "STATIC",
        **common(KIND, source, about, number, one.label, one.finding.name, values.tobytes()),
    )
    if not source.planes:
        _unplace(made, source)
        orient(made, source)
    # type 2C: empty where it isn't known whether the body part is one of a pair (PS3.3, C.7.3.1)
    made.Laterality = laterality_of(source)
    return finish(made, source, about)


def _placed(slice_: Dataset) -> Dataset:
    """A stand-in with a place, which highdicom can't do without; `_unplace` takes it away again."""
    placed = Dataset()
    placed.update(slice_)
    placed.ImagePositionPatient, placed.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    placed.PixelSpacing, placed.SliceThickness = [1, 1], 0
    return placed


def _unplace(made: Dataset, source: Source) -> None:
    """Leave out where the one frame lies, which isn't known, and index it by its place in a stack of its own."""
    shared, frame = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence[0]
    del shared.PlaneOrientationSequence
    del frame.PlanePositionSequence
    measures = shared.PixelMeasuresSequence[0]
    for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
        if name in measures:
            del measures[name]
    spacing = source.header.get("PixelSpacing") or source.header.get("ImagerPixelSpacing")
    if spacing:
        measures.PixelSpacing = spacing
    content = frame.FrameContentSequence[0]
    content.StackID, content.InStackPositionNumber = "1", 1
    index = made.DimensionIndexSequence[0]
    index.DimensionIndexPointer = tag_for_keyword("InStackPositionNumber")
    index.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    index.DimensionDescriptionLabel = "In-Stack Position Number"
