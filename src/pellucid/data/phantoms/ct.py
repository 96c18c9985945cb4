"""Chests as CT sees them, in HU and in millimetres, half of them with one nodule in a lung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.data.phantoms.draw import SITES, patient_of, streams_of
from pellucid.data.phantoms.sample import Streams
from pellucid.data.phantoms.texture import step
from pellucid.errors import expected

NAME = "ct-lesion"
CLASSES = ("lesion", "normal")
HEALTHY = ("normal",)
SHAPE = (36, 84, 120)
SPACING = (5.0, 3.0, 3.0)
"""mm between slices, between rows and between columns."""

AIR, LUNG, FAT, SOFT, BLOOD, NODULE, SPONGY, COMPACT = -1000.0, -860.0, -95.0, 45.0, 55.0, 40.0, 190.0, 620.0

Points = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VolumeSample:
    """One drawn volume and what is known about it.

    `values` int16 (D, H, W) in HU; `affine` takes (d, h, w) to mm to the right, the front and the head; `mask` is bool
    (D, H, W), empty where there is no lesion. Volumes with the same `patient_id` show the same anatomy and lesion.
    """

    values: NDArray[np.int16]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    label: str
    patient_id: str
    age: int
    sex: str
    site: str


@dataclass(frozen=True)
class _Task:
    name: str = NAME
    classes: tuple[str, ...] = CLASSES


TASK = _Task()


@dataclass(frozen=True)
class Chest:
    """What the volumes of one patient share, in mm from the middle of the chest."""

    wide: float
    deep: float
    apex: float
    domes: tuple[float, float]
    heart: float
    first_rib: float
    seed: int


def draw_volume(
    index: int, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = SPACING,
    tilt: float = 0.0,
) -> VolumeSample:  # fmt: skip
    """Draw volume `index` of "ct-lesion": a chest with a nodule of 18 to 32 mm in one lung, or without.

    The volume depends on the arguments alone. Classes take turns, and one to three volumes of a class are of one
    patient. Slices run from the feet to the head, rows to the back and columns to the patient's left, as those of a
    CT that lies supine.

    Arguments:
        index: 0 or more.
        seed: 0 or more; another one gives other patients.
        shape: slices, rows and columns, at least 8 each.
        spacing: mm between them.
        tilt: degrees by which the slices are turned about the axis from right to left, as of a tilted table, and half
            as much about that from foot to head.

    Raises InputError for another argument out of its range.
    """
    if min(shape) < 8:
        raise expected("shape", "at least 8 slices, rows and columns", shape)
    if not min(spacing) > 0:
        raise expected("spacing", "three steps above 0, in mm", spacing)
    who = patient_of(TASK, index, seed)
    streams = streams_of(TASK, index, who, seed)
    affine = _affine(shape, spacing, tilt)
    right, front, up = _places(shape, affine)
    values, mask = _drawn(CLASSES[who.label], right, front, up, streams)
    noise = (14.0, 18.0, 22.0)[streams.site] * streams.grain.standard_normal(shape, np.float32)
    stored = np.rint(np.clip(values + noise, -1024, 3071)).astype(np.int16)
    return VolumeSample(stored, affine, mask, CLASSES[who.label], who.patient_id, who.age, who.sex, SITES[who.site])


def _affine(shape: tuple[int, int, int], spacing: tuple[float, float, float], tilt: float) -> NDArray[np.float64]:
    """The middle of the volume is the middle of the chest."""
    about_right, about_up = np.deg2rad(tilt), np.deg2rad(tilt / 2)
    sine, cosine = np.sin(about_right), np.cos(about_right)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    sine, cosine = np.sin(about_up), np.cos(about_up)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ turn
    ways = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])  # up, to the back, to the left
    affine = np.eye(4)
    affine[:3, :3] = turn @ ways * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _places(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> tuple[Points, Points, Points]:
    """Where voxels lie, each (D, H, W) in mm."""
    steps = [np.arange(length, dtype=np.float32) for length in shape]
    grids = np.meshgrid(*steps, indexing="ij", sparse=True)
    matrix = affine.astype(np.float32)
    right, front, up = (sum(matrix[row, axis] * grids[axis] for axis in range(3)) + matrix[row, 3] for row in range(3))
    return np.asarray(right), np.asarray(front), np.asarray(up)


def _drawn(
    label: str, right: Points, front: Points, up: Points, streams: Streams
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """HU and the lesion, at places in mm."""
    chest, view = _chest(streams), streams.view
    grown = float(view.uniform(0.97, 1.03))
    x, y, z = (
        ((place - view.normal(0, 4)) / grown).astype(np.float32) for place in (right, front, up)
    )  # where the patient lies differs from one scan to the next
    body = (1 - (np.abs(x / chest.wide) ** 2.5 + np.abs(y / chest.deep) ** 2.5) ** 0.4) * chest.deep
    lung = _lungs(x, y, z, chest)
    values = AIR + (FAT - AIR) * _inside(body) + (SOFT - FAT) * _inside(body - 13 - 3 * np.cos(z / 40))
    values += _inside(lung) * (LUNG - SOFT)
    values = _lay(values, _inside(_vessels(x, y, z, lung, chest)), BLOOD)
    values = _bones(values, x, y, z, body, lung, chest)
    mask = np.zeros(x.shape, bool)
    if label not in HEALTHY:
        inside = _nodule(x, y, z, chest, streams.lesion)
        values = _lay(values, _inside(inside), NODULE + float(streams.lesion.uniform(-20, 20)))
        mask = inside > 0
    table = np.maximum(np.abs(y + chest.deep + 26 - x * x / 2600) - 4, np.abs(x) - 210)
    return _lay(values, _inside(-table), 60.0), mask


def _chest(streams: Streams) -> Chest:
    generator = streams.anatomy
    dome = float(generator.uniform(-62, -48))
    return Chest(
        wide=float(generator.uniform(152, 170)),
        deep=float(generator.uniform(100, 114)),
        apex=float(generator.uniform(96, 112)),
        domes=(dome, dome - float(generator.uniform(4, 14))),
        heart=float(generator.uniform(0.9, 1.1)) * (0.96 + 0.001 * streams.age),
        first_rib=float(generator.uniform(0, 1)),
        seed=int(generator.integers(2**62)),
    )


def _inside(distance: Points, width: float = 3.0) -> Points:
    """1 where a distance in mm is above zero, 0 below, with the partial volume of an edge between."""
    return np.asarray(step(np.asarray(distance, np.float64), width), np.float32)


def _lay(values: Points, share: Points, wanted: float) -> Points:
    return np.asarray(values + share * (wanted - values), np.float32)


def _ellipsoid(
    x: Points, y: Points, z: Points, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> Points:
    """About how many mm inside an ellipsoid a point lies."""
    scaled = sum(((each - c) / r) ** 2 for each, c, r in zip((x, y, z), centre, radii, strict=True))
    return np.asarray((1 - np.sqrt(scaled)) * min(radii), np.float32)


def _lungs(x: Points, y: Points, z: Points, chest: Chest) -> Points:
    """How many mm inside a lung a point lies."""
    wide, deep = 0.42 * chest.wide, 0.74 * chest.deep
    lungs = np.full(x.shape, -1e3, np.float32)
    for side, dome in zip((1, -1), chest.domes, strict=True):
        one = _ellipsoid(x, y, z, (side * 0.47 * chest.wide, 2.0, -10.0), (wide, deep, chest.apex + 10))
        off = ((x - side * 0.45 * chest.wide) / 60) ** 2 + (y / 90) ** 2
        lungs = np.maximum(lungs, np.minimum(one, z - (dome - 22 * off)))
    heart = _ellipsoid(x, y, z, (-22.0, 24.0, -32.0), (56 * chest.heart, 46 * chest.heart, 52.0))
    middle = _ellipsoid(x, y, z, (0.0, 4.0, 30.0), (27.0, 60.0, 160.0))
    return np.minimum(lungs, -np.maximum(heart, middle))


def _vessels(x: Points, y: Points, z: Points, lung: Points, chest: Chest) -> Points:
    """How many mm inside a vessel of the lungs a point lies: they part and thin out from the hila."""
    generator = np.random.default_rng(chest.seed)
    inside = np.full(x.shape, -1e3, np.float32)
    for side in (1, -1):
        stems = [(np.array([side * 26.0, 0.0, 0.0]), 4.6)]
        for _ in range(3):
            grown = []
            for start, thick in stems:
                for _ in range(3 if thick > 4 else 2):
                    way = generator.normal(0, 1, 3) * (0.6, 1.0, 1.2) + (side * 1.1, 0.0, 0.0)
                    end = start + way / np.linalg.norm(way) * generator.uniform(26, 44)
                    inside = np.maximum(inside, _capsule(x, y, z, start, end, thick))
                    grown.append((end, thick * generator.uniform(0.6, 0.72)))
            stems = grown
    return np.minimum(inside, lung)


def _capsule(
    x: Points, y: Points, z: Points, start: NDArray[np.float64], end: NDArray[np.float64], thick: float
) -> Points:
    """How many mm inside a rod with round ends a point lies; only points near it are looked at."""
    reach = thick + 4
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
    near = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]) & (z > low[2]) & (z < high[2])
    inside = np.full(x.shape, -1e3, np.float32)
    points = np.stack([each[near] for each in (x, y, z)], axis=-1) - start
    along = end - start
    share = np.clip(points @ along / (along @ along), 0, 1)
    inside[near] = thick * (1 - 0.3 * share) - np.linalg.norm(points - share[:, None] * along, axis=1)
    return inside


def _bones(values: Points, x: Points, y: Points, z: Points, body: Points, lung: Points, chest: Chest) -> Points:
    """Spine with its canal and discs, ribs around the lungs, breastbone."""
    back = -0.60 * chest.deep
    spine = np.maximum(
        17 - np.hypot(x, y - back), np.minimum(9 - np.abs(x), 8 - np.abs(y - back + 24))
    )  # vertebral body, spinous process
    disc = step(np.cos(2 * np.pi * (z / 24 + chest.first_rib)) - 0.72, 0.2)
    spongy = _lay(values, _inside(spine), SPONGY)
    spongy = _lay(spongy, _inside(spine) * np.asarray(disc, np.float32), 80.0)
    spongy = _lay(spongy, _inside(7.5 - np.hypot(x, y - back + 24)), 30.0)
    cage = np.minimum(-lung, body)  # between lung and skin
    slope = z + 0.35 * y + 0.1 * np.abs(x)
    phase = slope / 26 + chest.first_rib
    rib = 5.5 - np.hypot(26 * (phase - np.rint(phase)), 1.3 * (-lung - 6))
    rib = np.minimum(np.minimum(rib, cage - 1), np.maximum(np.abs(x) - 34, -y - 40))
    sternum = np.minimum(np.minimum(17 - np.abs(x), 5 - np.abs(y - 0.86 * chest.deep)), z + 55)
    return _lay(_lay(spongy, _inside(rib), COMPACT), _inside(sternum), 330.0)


def _nodule(x: Points, y: Points, z: Points, chest: Chest, generator: np.random.Generator) -> Points:
    """How many mm inside the lesion a point lies: a rounded, uneven ball well within one lung."""
    radius = float(generator.uniform(12, 20))
    for _ in range(200):
        side = float(generator.choice((-1, 1)))
        centre = generator.uniform((0.25, -0.5, -45), (0.75, 0.5, 70)) * (side * chest.wide, chest.deep, 1)
        u, v, w = (np.array([each], np.float32) for each in centre)
        if _lungs(u, v, w, chest)[0] > radius + 3:
            break
    u, v, w = (each - np.float32(c) for each, c in zip((x, y, z), centre, strict=True))
    away = np.sqrt(u * u + v * v + w * w)
    unit = [each / np.maximum(away, 1e-3) for each in (u, v, w)]
    reach = np.full(x.shape, radius, np.float32)
    for order in (2.0, 3.0, 4.0):
        way = generator.normal(0, 1, 3)
        tide = sum(np.float32(part) * each for part, each in zip(way / np.linalg.norm(way), unit, strict=True))
        reach += np.float32(0.13 * radius / order) * np.cos(np.float32(order) * np.arccos(np.clip(tide, -1, 1)))
    return np.asarray(reach - away, np.float32)
