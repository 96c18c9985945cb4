"""The files of one series as stacks of slices: one orientation, one grid, one slice at each place, equal steps.

Nothing is guessed: what can't be a volume is refused with the reason, and its files can still be read one by one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pellucid.data.dicom.geometry import normal_of
from pellucid.data.dicom.scan import PROJECTIONS, TELLING, Header

NEAR = 0.01  # mm within which places are one place, where pixels aren't far smaller than a millimetre
OFF_GRID = 0.01  # of a step, by which a slice may lie off the grid
TURNED = 1e-3  # of a direction cosine, by which slices of one stack may differ
B_VALUE = "b-value"
MOST_FILLED = 0.5  # slices filled in for each that is there

MADE = {  # classes of objects that are made from images
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation, which is a mask",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation, which is a mask",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose",
}
_WHOLE = (  # classes whose multi-frame files are volumes
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.4",  # legacy converted enhanced MR
    "1.2.840.10008.5.1.4.1.1.130",  # enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # legacy converted enhanced PET
    "1.2.840.10008.5.1.4.1.1.13.1.1",  # X-ray 3D angiographic
    "1.2.840.10008.5.1.4.1.1.13.1.2",  # X-ray 3D craniofacial
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # breast tomosynthesis
    "1.2.840.10008.5.1.4.1.1.6.2",  # enhanced ultrasound volume
)
_LOCALIZERS = {"LOCALIZER", "SCOUT", "SURVEY", "TOPOGRAM"}

Digest = Callable[[Header], Hashable]


@dataclass(frozen=True, eq=False, repr=False)
class Stack:
    """Headers in the order of their places. `refusal` says why slices that should be a volume are none.

    `missing` counts the slices that lack behind each one, in all places where equal steps would have some.
    """

    headers: tuple[Header, ...]
    volume: bool = False
    refusal: str = ""
    notes: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()

    @property
    def fillable(self) -> bool:
        """Whether slices are missing, and few enough to be filled in from their neighbours."""
        return 0 < sum(self.missing) <= MOST_FILLED * len(self.headers)


def stacks_of(headers: Sequence[Header], digest: Digest) -> list[Stack]:
    """The stacks of one series, volumes first.

    Arguments:
        headers: of all its files.
        digest: equal of files that hold the same pixels; asked of those alone that may be copies.
    """
    patients = {each.patient_id or each.patient_name for each in headers}
    if len(patients) > 1:
        told = f"its files are of {len(patients)} patients; part them into folders, or mend their PatientID"
        return [Stack(tuple(headers), refusal=told)]
    kept, notes = _without_copies(headers, digest)
    found = [
        replace(stack, notes=(*notes, *stack.notes))
        for part in _parted(kept, _kind).values()
        for stack in _of(part, digest)
    ]
    found.sort(key=lambda each: (not each.volume, -len(each.headers) if each.volume else 0, _first(each.headers)))
    volumes = sum(stack.volume for stack in found)
    if volumes > 1:
        told = f"one of {volumes} volumes of its series"
        found = [replace(each, notes=(*each.notes, told)) if each.volume else each for each in found]
    return found


def along_normal(headers: Sequence[Header]) -> np.ndarray:
    """How far each slice lies along the normal of the first, mm."""
    assert headers[0].orientation is not None
    along: np.ndarray = places(headers) @ normal_of(headers[0].orientation)
    return along


def places(headers: Sequence[Header]) -> np.ndarray:
    """ImagePositionPatient (N, 3) of slices, mm."""
    return np.array([each.position for each in headers], float).reshape(-1, 3)


def _first(headers: Iterable[Header]) -> tuple[int, str]:
    """By which stacks are counted, and slices without places ordered."""
    return min((each.number, str(each.path)) for each in headers)


def _parted(headers: Iterable[Header], key: Callable[[Header], Hashable]) -> dict[Hashable, list[Header]]:
    parts: dict[Hashable, list[Header]] = defaultdict(list)
    for each in headers:
        parts[key(each)].append(each)
    return dict(parts)


def _without_copies(headers: Sequence[Header], digest: Digest) -> tuple[list[Header], list[str]]:
    """The headers without further copies of an object."""
    kept: list[Header] = []
    for part in _parted(headers, lambda each: (each.sop, each.position) if each.sop else each.path).values():
        kept += part if len(part) == 1 else _unlike(part, digest)
    copies = len(headers) - len(kept)
    return kept, [f"{_count(copies, 'copy', 'copies')} of its files left out"] if copies else []


def _unlike(headers: Iterable[Header], digest: Digest) -> list[Header]:
    """The first file of each that hold the same pixels."""
    return [part[0] for part in _parted(headers, lambda each: (each.rows, each.columns, digest(each))).values()]


def _kind(header: Header) -> Hashable:
    """What files of one stack have in common whatever their places."""
    apart = "localizer" if _LOCALIZERS & set(header.image_type) else header.image_type[0]
    alone = header.path if header.frames > 1 else None
    return (
        *(header.study, header.frame_of_reference, header.sop_class, header.modality, header.rows, header.columns),
        *(header.samples, header.photometric, apart, alone),
    )


def _of(headers: list[Header], digest: Digest) -> list[Stack]:
    """The stacks of files of one kind."""
    first = headers[0]
    headers = sorted(headers, key=lambda each: (each.number, str(each.path)))
    if first.sop_class in MADE:
        return [Stack((each,), notes=(MADE[first.sop_class],)) for each in headers]
    if first.frames > 1:
        return [Stack((first,), volume=first.sop_class in _WHOLE)]
    if _LOCALIZERS & set(first.image_type):
        return [Stack(tuple(headers), notes=("a localizer",))]
    pictures = first.modality in PROJECTIONS or not first.photometric.startswith("MONOCHROME")
    lacking = [each for each in headers if not _placed(each)]
    if pictures or len(headers) == 1 or (len(lacking) == len(headers) and first.modality not in ("CT", "MR", "PT")):
        return [Stack(tuple(headers))]
    if lacking:
        return [Stack(tuple(headers), refusal=_lacking(lacking, len(headers)))]
    parts = _clusters(headers)
    found = [stack for part in parts for stack in _stacked(part, digest)]
    if len(parts) > 1:
        told = f"its series holds slices of {len(parts)} orientations or spacings, each a stack of its own"
        found = [replace(stack, notes=(*stack.notes, told)) for stack in found]
    return found


def _placed(header: Header) -> bool:
    if header.position is None or header.orientation is None or header.pixel_spacing is None:
        return False
    row, column = np.array(header.orientation).reshape(2, 3)
    lengths = np.array([row @ row, column @ column, min(header.pixel_spacing)])
    return bool(np.allclose(lengths[:2], 1, atol=0.01) and abs(row @ column) < 0.01 and lengths[2] > 0)


def _lacking(lacking: Sequence[Header], count: int) -> str:
    for name, tag, value in (
        ("position", "ImagePositionPatient (0020,0032)", lacking[0].position),
        ("orientation", "ImageOrientationPatient (0020,0037)", lacking[0].orientation),
        ("spacing", "PixelSpacing (0028,0030)", lacking[0].pixel_spacing),
    ):
        if value is None:
            return f"{len(lacking)} of its {count} slices state no {name}, {tag}"
    return f"{len(lacking)} of its {count} slices state an orientation or spacing that can't be right"


def _clusters(headers: Iterable[Header]) -> list[list[Header]]:
    """Slices of one orientation and one spacing of pixels."""
    found: list[tuple[np.ndarray, list[Header]]] = []
    for each in headers:
        assert each.orientation is not None
        assert each.pixel_spacing is not None
        own = np.array([*each.orientation, *(np.log(each.pixel_spacing))])
        for middle, part in found:
            if np.abs(own - middle).max() <= TURNED:
                part.append(each)
                break
        else:
            found.append((own, [each]))
    return [part for _, part in found]


def _stacked(headers: list[Header], digest: Digest, notes: tuple[str, ...] = ()) -> list[Stack]:
    """The stacks of slices of one grid."""
    if len(headers) == 1:
        return [Stack(tuple(headers), notes=notes)]
    headers = _ordered(headers)
    here = _at_places(headers)
    if max(map(len, here)) > 1:
        parts, told = _told_apart(headers, here)
        if parts:
            return [stack for part in parts for stack in _stacked(part, digest, (*notes, told))]
        here = [each if len(each) == 1 else _unlike(each, digest) for each in here]
        left = sum(map(len, here))
        if left < len(headers):
            told = f"{_count(len(headers) - left, 'slice', 'slices')} left out that repeat another's place and pixels"
            notes = (*notes, told)
        if max(map(len, here)) > 1:
            several = sum(len(each) > 1 for each in here)
            told = (
                f"at {_count(several, 'place', 'places')} it has several slices of different pixels, and nothing in "
                "their headers tells which belong together"
            )
            return [Stack(tuple(headers), refusal=told, notes=notes)]
        headers = [each for part in here for each in part]
    if len(headers) == 1:
        return [Stack(tuple(headers), notes=notes)]
    stack = _on_grid(headers, notes)
    if stack.volume:
        return [stack]
    parts = _regular_parts(headers)
    return [_on_grid(part, (*notes, "its series holds several acquisitions")) for part in parts] or [stack]


def _ordered(headers: Iterable[Header]) -> list[Header]:
    listed = list(headers)
    order = np.lexsort((np.arange(len(listed)), along_normal(listed).round(6)))
    return [listed[place] for place in order]


def _at_places(headers: Sequence[Header]) -> list[list[Header]]:
    """Slices in their order, those at one place together."""
    steps = np.diff(along_normal(headers)) > _near(headers)
    starts = [0, *(np.flatnonzero(steps) + 1).tolist(), len(headers)]
    return [list(headers[start:end]) for start, end in itertools.pairwise(starts)]


def _told_apart(headers: Sequence[Header], here: Sequence[Sequence[Header]]) -> tuple[list[list[Header]], str]:
    """Slices that share their places in as many parts as there are at one place, and by what they are told apart.

    No parts where nothing tells them apart.
    """
    wanted = max(map(len, here))
    place = np.concatenate([[number] * len(part) for number, part in enumerate(here)])
    values = {"place across": _across(headers), **{name: _told(headers, name) for name in (*TELLING, B_VALUE)}}
    coded = {name: _codes(each) for name, each in (values | _runs(headers, here)).items()}
    varying = [name for name, each in coded.items() if 0 < each.max() <= len(headers) // 2]
    for size in (1, 2, 3):
        for names in itertools.combinations(varying, size):
            joint = _codes(list(zip(*(coded[name].tolist() for name in names), strict=True)))
            if joint.max() + 1 == wanted and len(np.unique(joint * len(here) + place)) == len(headers):
                told = f"told apart from others at its place by {' and '.join(map(_in_words, names))}"
                return sorted(_split(headers, joint.tolist()), key=_first), told
    return [], ""


def _told(headers: Sequence[Header], name: str) -> list[Hashable]:
    position = (*TELLING, B_VALUE).index(name)
    return [each.telling[position] for each in headers]


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """Each value's number, by the order in which they come."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in values])


def _split(headers: Sequence[Header], values: Sequence[Hashable]) -> list[list[Header]]:
    parts: dict[Hashable, list[Header]] = defaultdict(list)
    for each, value in zip(headers, values, strict=True):
        parts[value].append(each)
    return list(parts.values())


def _across(headers: Sequence[Header]) -> list[Hashable]:
    """Where slices lie within their plane, to a tenth of a millimetre."""
    assert headers[0].orientation is not None
    plane = np.array(headers[0].orientation).reshape(2, 3)
    return [tuple(own) for own in (places(headers) @ plane.T).round(1).tolist()]


def _runs(headers: Sequence[Header], here: Sequence[Sequence[Header]]) -> dict[str, list[Hashable]]:
    """Volumes that follow each other by InstanceNumber, all places of one before those of the next; or the reverse."""
    numbers = [each.number for each in headers]
    if len({len(part) for part in here}) > 1 or len(set(numbers)) < len(numbers):
        return {}
    rank = np.argsort(np.argsort(numbers))
    return {
        "InstanceNumber": (rank // len(here)).tolist(),
        "InstanceNumber at each place": (rank % len(here[0])).tolist(),
    }


def _near(headers: Sequence[Header]) -> float:
    assert headers[0].pixel_spacing is not None
    return min(NEAR, 0.1 * min(headers[0].pixel_spacing))


def _in_words(name: str) -> str:
    return "".join(
        f" {letter.lower()}" if letter.isupper() and not name.isupper() else letter for letter in name
    ).strip()


def _on_grid(headers: Sequence[Header], notes: tuple[str, ...]) -> Stack:
    """The slices as a volume where they lie at equal steps along a line, or else refused."""
    headers = tuple(headers)
    own = places(headers)
    along = along_normal(headers)
    steps = np.diff(along)
    least = float(np.median(steps[steps <= steps.min() * 1.05]))
    counts = np.rint(steps / least)
    index = np.concatenate([[0], np.cumsum(counts)])
    step = (own[-1] - own[0]) / index[-1]
    off = np.abs(own - own[0] - index[:, None] * step).max()
    bound = max(_near(headers), OFF_GRID * least)
    if off > bound:
        straight = np.abs(own - own[0] - np.outer(along - along[0], step / (along[-1] - along[0]) * index[-1])).max()
        if straight > bound:
            told = (
                f"its slices don't lie behind each other, but up to {straight:.3g} mm off the line from first to last"
            )
        else:
            told = f"its slices lie at unequal steps, from {steps.min():.4g} to {steps.max():.4g} mm"
        return Stack(headers, refusal=told, notes=notes)
    missing = tuple(int(count) - 1 for count in counts)
    if any(missing):
        holes = [place for place, count in enumerate(missing) if count]
        between = ", ".join(f"{missing[at]} between {along[at]:.5g} and {along[at + 1]:.5g} mm" for at in holes[:3])
        more = f" and at {len(holes) - 3} places more" if len(holes) > 3 else ""
        told = f"{_count(sum(missing), 'slice is', 'slices are')} missing along its normal: {between}{more}"
        return Stack(headers, refusal=told, notes=notes, missing=missing)
    assert headers[0].orientation is not None
    upright = abs(float(step @ normal_of(headers[0].orientation))) / float(np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(min(1.0, upright))))
    if tilt > 0.1:
        notes = (*notes, f"its slices are stacked at {tilt:.3g}° to their normal (a tilted gantry), as the affine says")
    return Stack(headers, volume=True, notes=notes)


def _regular_parts(headers: Sequence[Header]) -> list[list[Header]]:
    """The parts that one acquisition each makes of slices at unequal steps, if each is a volume."""
    for name in ("AcquisitionNumber", "SliceThickness", "ConvolutionKernel", "ImageType"):
        parts = _split(headers, _told(headers, name))
        if len(parts) > 1 and all(len(part) > 2 and _on_grid(part, ()).volume for part in parts):
            return sorted(parts, key=_first)
    return []


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
