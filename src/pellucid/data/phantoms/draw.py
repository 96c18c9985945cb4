"""Draw one image of a built-in task: which patient and class an index stands for, and from which random streams."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pellucid.data.phantoms import brain, chest, skin
from pellucid.data.phantoms.sample import Phantom, PhantomSample, Streams, Task
from pellucid.errors import expected, unknown_name

SIZES = (64, 512)
SITES = ("north", "harbour", "south")

# patients are numbered in strides modulo a prime: no two alike, and the number tells nothing of the class
_STRIDE, _PRIME = 618_033_989, 999_999_937

TASKS: Mapping[str, Phantom] = MappingProxyType(
    {
        "brain": Phantom(
            "brain",
            brain.CLASSES,
            ("notumor",),
            1,
            brain.draw,
            "axial brain MR slices with one of three tumours or none",
        ),
        "skin": Phantom("skin", skin.CLASSES, (), 3, skin.draw, "dermoscopic images of four kinds of skin lesion"),
        "chest": Phantom(
            "chest",
            chest.CLASSES,
            ("normal",),
            1,
            chest.draw,
            "frontal chest radiographs with one of two pneumonias or none",
        ),
    }
)


def task_named(name: str) -> Phantom:
    """The built-in task `name`; raises UnknownNameError with the nearest names."""
    if name not in TASKS:
        raise unknown_name("phantom task", name, TASKS)
    return TASKS[name]


def draw_phantom(task: str, index: int, *, size: int = 128, seed: int = 0) -> PhantomSample:
    """Draw image `index` of a built-in task.

    The picture depends on the arguments alone, so that equal arguments give equal bytes. Classes take turns, and one
    to three images in a row of a class are of one patient. At another size it is the same picture, finer or coarser,
    except for the noise of its pixels.

    Arguments:
        task: "brain", "skin" or "chest".
        index: 0 or more.
        size: height and width in pixels, 64 to 512.
        seed: 0 or more; another seed gives other patients.

    Raises:
        UnknownNameError: no such task.
        InputError: another argument outside of its range.

    >>> sample = draw_phantom("brain", 1, size=64)
    >>> sample.label, sample.image.shape, bool(sample.mask.any())
    ('meningioma', (64, 64), True)
    """
    phantom = task_named(task)
    check_size(size)
    who = patient_of(phantom, index, seed)
    drawing = phantom.draw(who.label, size, streams_of(phantom, index, who, seed))
    return PhantomSample(
        drawing.image, drawing.mask, phantom.classes[who.label], who.patient_id, who.age, who.sex, SITES[who.site]
    )


def streams_of(phantom: Task, index: int, who: Patient, seed: int) -> Streams:
    """Where the drawing of an index takes its randomness from."""
    view, grain = (np.random.default_rng(s) for s in _source(phantom, seed, 1, index).spawn(2))
    return Streams(*_shared(phantom, seed, who.number), view, grain, who.age, who.sex, who.site)


def check_size(size: int) -> None:
    """Raise InputError for a size that phantoms aren't drawn in."""
    low, high = SIZES
    if not low <= size <= high:
        raise expected("size", f"{low} to {high} pixels", size)


@dataclass(frozen=True)
class Patient:
    """Whom an index stands for; `label` and `site` are positions in the task's classes and in SITES."""

    number: int
    patient_id: str
    label: int
    age: int
    sex: str
    site: int


def patient_of(phantom: Task, index: int, seed: int) -> Patient:
    """Who is seen on image `index`: of each class, six images in a row are of three patients, in shuffled shares."""
    if index < 0:
        raise expected("index", "0 or more", index)
    if seed < 0:
        raise expected("seed", "0 or more", seed)
    turn, label = divmod(index, len(phantom.classes))
    block, place = divmod(turn, 6)
    shares = np.random.default_rng(_source(phantom, seed, 2, block, label)).permutation((1, 2, 3))
    within = int(np.searchsorted(np.cumsum(shares), place, side="right"))
    number = (3 * block + within) * len(phantom.classes) + label
    facts = np.random.default_rng(_source(phantom, seed, 3, number))
    return Patient(
        number=number,
        patient_id=f"{phantom.name}-{number * _STRIDE % _PRIME:09d}",
        label=label,
        age=int(facts.integers(20, 90)),
        sex=str(facts.choice(("F", "M"))),
        site=int(facts.integers(len(SITES))),
    )


def _shared(phantom: Task, seed: int, number: int) -> tuple[np.random.Generator, np.random.Generator]:
    anatomy, lesion = _source(phantom, seed, 0, number).spawn(2)
    return np.random.default_rng(anatomy), np.random.default_rng(lesion)


def _source(phantom: Task, seed: int, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(phantom.name.encode()), *key])
