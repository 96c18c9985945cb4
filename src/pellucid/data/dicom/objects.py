"""What all objects share that pellucid writes: who made them, what they show, their names, codes and UIDs."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from pellucid.data.dicom.source import Source, put_right
from pellucid.data.dicom.uids import derived_uid
from pellucid.errors import expected
from pellucid.files import written_whole

Values = npt.NDArray[np.float32]

SCHEME = "99PELLUCID"
"""The private coding scheme (PS3.16, section 8): names of methods, metrics and classes, as their meanings say."""
CHARACTERS = "ISO_IR 192"  # UTF-8, since names of classes may be in any script
MANUFACTURER = "pellucid"
CREATOR = "pellucid^"  # a family name alone, as PS3.5, 6.2.1 writes it

AI = CodedConcept("123110", "DCM", "Artificial Intelligence")
NO_UNITS = CodedConcept("1", "UCUM", "no units")
METHOD = CodedConcept("370129005", "SCT", "Measurement Method")

_CLASS_ACTIVATION = CodedConcept("130402", "DCM", "Class activation")
_GRADIENT_WEIGHTED = CodedConcept("130403", "DCM", "Gradient-weighted class activation")
_SALIENCY = CodedConcept("130404", "DCM", "Saliency")
_WITHOUT_GRADIENTS = ("eigen-cam", "ablation-cam", "score-cam", "relevance-cam")


@dataclass(frozen=True)
class About:
    """Who made the objects, and when.

    `weights` is the digest of the network's weights. `when` is the time that the objects carry, as local time, such as
    `datetime.datetime.now()`: with equal `when` and equal content the objects are equal to the last byte, and with
    another time they are other objects, under other UIDs.
    """

    architecture: str
    weights: str
    when: datetime.datetime
    version: str = version("pellucid")


@dataclass(frozen=True)
class Code:
    """A concept by a code of some scheme, such as `Code("233604007", "SCT", "Pneumonia")`."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Finding:
    """A class of the network: its name, the score (logit) and probability that it was given.

    `predicted` says whether it is the class of highest score, None where that isn't known. `code`
    where the class is a concept of a coding scheme; else it is coded by its name in the private one.
    """

    name: str
    score: float
    probability: float | None = None
    predicted: bool | None = None
    code: Code | None = None


@dataclass(frozen=True)
class Metric:
    """A number that says how good a map is; `unit` in UCUM, `source` where the metric was described."""

    name: str
    value: float
    unit: str = "1"
    source: str = ""


@dataclass(frozen=True, eq=False)
class Map:
    """A method's raw values (H, W) or (D, H, W), at the pixels of the image, for one class.

    `label` is the method's name with its options in brackets, as in an `Explanation`.
    """

    label: str
    values: Values
    finding: Finding
    metrics: tuple[Metric, ...] = field(default=())

    @property
    def method(self) -> str:
        return self.label.split("[")[0]


def check_map(one: Map, source: Source) -> Values:
    """The values at the files' slices, (slices, H, W) float32.

    Raises InputError where they don't fit the source or aren't finite.
    """
    values = np.ascontiguousarray(one.values, np.float32)
    values = values[None] if values.ndim == 2 else values
    size = source.header.Rows, source.header.Columns
    if values.shape != (source.depth, *size):
        wanted = (source.depth, *size)
        raise expected("values", f"one for each pixel of the image, {wanted}", f"{values.shape} of {one.label}")
    values = values[list(source.kept)] if len(source.kept) < source.depth else values
    if not np.isfinite(values).all():
        raise expected("values", "finite numbers", f"NaN or infinity in {one.label}")
    return values


def code_of(name: str, meaning: str = "") -> CodedConcept:
    """A name in the private scheme; a code has 16 characters at most (PS3.5, 6.2), so that a long one is cut short.

    >>> code_of("grad-cam").value, code_of("grad-cam-plus-plus").value
    ('grad-cam', 'grad-cam--0fdcf5')
    """
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.+") else "-" for letter in name)
    if plain != name or len(plain) > 16:
        plain = f"{plain[:9]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return CodedConcept(plain, SCHEME, cut(meaning or name))


def concept_of(finding: Finding) -> CodedConcept:
    """A class as a coded concept."""
    if finding.code is not None:
        return CodedConcept(finding.code.value, finding.code.scheme, cut(finding.code.meaning))
    return code_of(finding.name)


def quantity_of(method: str) -> CodedConcept:
    """Which of the standard's kinds of map a method gives (PS3.16, CID 7180)."""
    if method in _WITHOUT_GRADIENTS:
        return _CLASS_ACTIVATION
    if method.endswith("-cam") or "-cam-" in method:
        return _SALIENCY if method.startswith("guided") else _GRADIENT_WEIGHTED
    return _SALIENCY


def laterality_of(source: Source) -> str:
    """ "L" or "R" where the source shows one of a pair, "B" for both, empty where it doesn't say."""
    stated = source.header.get("ImageLaterality") or source.header.get("Laterality") or ""
    return stated if stated in ("L", "R", "B") else ""


def orient(made: Dataset, source: Source) -> None:
    """Say where rows and columns lead, of an object without places; empty where it isn't known (PS3.3, C.7.6.1)."""
    if not source.planes:
        stated = source.header.get("PatientOrientation")
        made.PatientOrientation = list(stated) if stated and not isinstance(stated, str) else ""


def shows_features(source: Source, one: Map) -> bool:
    """Whether a map may show the outlines of a face, which maps at a layer's grid are too coarse for."""
    coarse = one.method.endswith("-cam") and not one.method.startswith("guided")
    return not coarse and source.header.get("RecognizableVisualFeatures") != "NO"


def cut(text: str, length: int = 64) -> str:
    """Text for an element that holds one line of so many characters, without backslashes, which would part values."""
    line = " ".join(text.replace("\\", "/").split())
    return line.encode()[:length].decode(errors="ignore").strip()  # characters count, and some readers count bytes


def algorithm_of(about: About, one: Map, **parameters: str) -> AlgorithmIdentificationSequence:
    """The method and the network that it explains (PS3.3, 10.16)."""
    sequence = AlgorithmIdentificationSequence(
        name=cut(one.label),
        family=AI,
        version=cut(about.version),
        source=MANUFACTURER,
        parameters={"network": about.architecture, "weights": about.weights, "class": one.finding.name, **parameters},
    )
    sequence[0].AlgorithmNameCodeSequence = [code_of(one.method)]
    return sequence


def uid_of(kind: str, source: Source, about: About, *parts: object) -> str:
    """The UID of an object or series: of these files, by this network and version, at this time."""
    files = [header.SOPInstanceUID for header in source.headers]
    frames = [reference.frame for reference in source.references.values()]
    when = about.when.isoformat()
    return derived_uid(kind, *files, *frames, about.architecture, about.weights, about.version, when, *parts)


def common(kind: str, source: Source, about: About, number: int, *parts: object) -> dict[str, Any]:
    """What highdicom asks of each object: series and instance, equipment, dates and names of characters."""
    return {
        "series_instance_uid": uid_of(f"series of {kind}", source, about),
        "series_number": SERIES[kind],
        "sop_instance_uid": uid_of(kind, source, about, number, *parts),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": cut(about.version),
        "device_serial_number": cut(about.weights),
        "series_description": f"{MANUFACTURER}: {DESCRIPTIONS[kind]}",
        "content_date": about.when.date(),
        "content_time": about.when.time(),
        "series_date": about.when.date(),
        "series_time": about.when.time(),
        "specific_character_set": CHARACTERS,
        "coding_schemes": [CodingSchemeIdentificationItem(SCHEME, "pellucid", responsible_organization="pellucid")],
    }


SERIES = {"parametric-map": 9601, "segmentation": 9602, "secondary-capture": 9603, "structured-report": 9604}
DESCRIPTIONS = {
    "parametric-map": "attribution maps",
    "segmentation": "regions of high attribution",
    "secondary-capture": "overlays",
    "structured-report": "report",
}


def finish(dataset: Dataset, source: Source, about: About) -> Dataset:
    """Make an object of highdicom's repeat byte for byte, and refer to the files themselves."""
    put_right(dataset, source)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = DA(about.when.date()), TM(about.when.time())
    drawn: dict[str, str] = {}
    for item in (dataset, *_items(dataset)):
        if "DimensionOrganizationUID" in item:
            old = item.DimensionOrganizationUID
            drawn.setdefault(old, derived_uid("dimensions", dataset.SOPInstanceUID, len(drawn)))
            item.DimensionOrganizationUID = drawn[old]
        if item.get("ManufacturerModelName") == "highdicom" and "ContributionDateTime" in item:
            item.ContributionDateTime = DT(about.when)
    return dataset


def write(path: Path, dataset: Dataset) -> Path:
    """Write an object as a file, whole or not at all."""
    with written_whole(path) as aside:
        dataset.save_as(aside, enforce_file_format=True)
    return path


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)
