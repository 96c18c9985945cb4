"""A map cut at a threshold as a Segmentation (PS3.3, A.51), which says at what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

from pellucid.data.dicom.objects import (
    CREATOR,
    About,
    Map,
    Values,
    algorithm_of,
    check_map,
    code_of,
    common,
    cut,
    finish,
    orient,
    uid_of,
)
from pellucid.data.dicom.source import Source
from pellucid.errors import expected

KIND = "segmentation"
CATEGORY = CodedConcept("309825002", "SCT", "Spatial and Relational Concept")
PROPERTY = code_of("high-attribution", "Region of high attribution")

_COLOUR = (49512, 38656, 52736)  # CIELab of orange, as PS3.3, C.10.7.1.1 scales it


@dataclass(frozen=True)
class Threshold:
    """From which value on a pixel belongs to the region; zero and what speaks against the class never do.

    `kind` "maximum": `amount` times the map's largest value. "value": `amount` itself. "top": the `amount`-th share of
    all pixels, those of largest value, and those that equal the least of them.
    """

    amount: float = 0.5
    kind: Literal["maximum", "value", "top"] = "maximum"

    def __post_init__(self) -> None:
        if not (self.amount > 0 and np.isfinite(self.amount)) or (self.kind != "value" and self.amount > 1):
            wanted = "a number above 0" if self.kind == "value" else "a share above 0, at most 1"
            raise expected("threshold", wanted, self.amount)

    @property
    def text(self) -> str:
        """What the objects say, such as "0.5 of the largest value"."""
        if self.kind == "value":
            return f"value {self.amount:g}"
        if self.kind == "top":
            return f"top {100 * self.amount:g} % of pixels"
        return f"{self.amount:g} of the largest value"

    def region(self, values: Values) -> npt.NDArray[np.bool_]:
        """Which of the values, of any shape, belong to the region."""
        if self.kind == "value":
            least = self.amount
        elif self.kind == "maximum":
            least = self.amount * float(values.max())
        else:
            count = max(1, round(self.amount * values.size))
            least = float(np.partition(values, values.size - count, axis=None)[values.size - count])
        inside: npt.NDArray[np.bool_] = (values >= least) & (values > 0)
        return inside


HALF = Threshold()


def parse_threshold(text: str) -> Threshold:
    """A threshold as the command line takes it: "0.5" of the largest value, "value:0.2", "top:0.05" of all pixels.

    >>> parse_threshold("0.25").text, parse_threshold("top:0.05").text
    ('0.25 of the largest value', 'top 5 % of pixels')
    """
    kind, _, amount = text.rpartition(":")
    try:
        number = float(amount)
    except ValueError:
        kind = "?"
    if kind == "value":
        return Threshold(number, "value")
    if kind == "top":
        return Threshold(number, "top")
    if kind in ("", "maximum"):
        return Threshold(number)
    raise expected("threshold", "a share of the largest value such as 0.5, value:NUMBER or top:SHARE", repr(text))


def segmentation(
    source: Source, one: Map, about: About, threshold: Threshold = HALF, number: int = 1
) -> Dataset | None:
    """The region of a map above a threshold as a Segmentation object; None where no pixel reaches it.

    One binary segment, made by an automatic algorithm: its label names the method and the class, its description and
    the algorithm's parameters the threshold. Frames without a pixel of the region are left out. Places as in
    `parametric_map`.

    Arguments:
        source: of the image that was explained.
        one: values at the image's own pixels.
        about: network, version and time.
        threshold: which pixels belong to the region.
        number: of the object in its series, from 1.

    Raises:
        InputError: values of another shape, or that aren't finite.
    """
    values = check_map(one, source)
    region = threshold.region(values)
    if not region.any():
        return None
    what = cut(f"{one.label} for {one.finding.name}")
    algorithm = algorithm_of(about, one, threshold=threshold.text)
    segment = SegmentDescription(
        segment_number=1,
        segment_label=what,
        segmented_property_category=CATEGORY,
        segmented_property_type=PROPERTY,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_id=what,
        tracking_uid=uid_of("segment", source, about, one.label, one.finding.name, threshold.text),
    )
    segment.SegmentDescription = f"{one.label} for {one.finding.name}, from {threshold.text}"
    segment.RecommendedDisplayCIELabValue = list(_COLOUR)
    made = Segmentation(
        source_images=list(source.slices),
        pixel_array=region,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        content_label="ATTRIBUTION",
        content_description=cut(f"from {threshold.text}"),
        content_creator_name=CREATOR,
        **common(KIND, source, about, number, one.label, one.finding.name, threshold.text, region.tobytes()),
    )
    orient(made, source)
    return finish(made, source, about)
