"""Brain-like axial MR slices after contrast, at the level of the suprasellar cistern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pellucid.data.phantoms.sample import Drawing, Streams
from pellucid.data.phantoms.texture import (
    Field,
    Mask,
    blob,
    bump,
    canvas,
    ellipse,
    layered_noise,
    outline,
    seams,
    smooth_noise,
    step,
    stroke,
    to_bytes,
    turned,
    warped_noise,
)

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")

# brightness of tissues in a T1-weighted image after contrast, of 1
FLUID, GREY, WHITE, SCALP, MARROW, BONE = 0.13, 0.36, 0.47, 0.80, 0.26, 0.05
SELLA = (0.0, -0.09)


@dataclass(frozen=True)
class Head:
    """What the slices of one patient share."""

    half_width: float
    half_length: float
    egg: float
    scalp: float
    bone: float
    fluid: float  # width of the fluid around and between the folds
    contrast: float
    seed: int  # of the folds and vessels


@dataclass(frozen=True)
class Lesion:
    """Where a patient's tumour lies and how it is built, in the head's own coordinates."""

    centre: tuple[float, float]
    radius: float
    aspect: float
    angle: float
    waves: Field
    seed: int
    brightness: float


def draw(label: int, size: int, streams: Streams) -> Drawing:
    """Draw one slice of a patient with the tumour of `CLASSES[label]`."""
    head = _head(streams.anatomy, streams.age)
    lesion = _lesion(label, head, streams.lesion)
    view = streams.view
    x, y = canvas(size)
    u, v = turned(x - view.normal(0, 0.025), y - view.normal(0, 0.02), float(view.normal(0, 0.06)))
    zoom = view.normal(1, 0.015)
    u, v = u / zoom, v / zoom
    growth = view.uniform(0.9, 1.05)
    tilt = view.uniform(0, 1)

    pushed = _pushed(u, v, lesion, growth) if lesion else (u, v)
    depth = _depth(u, v, head)
    picture = _anatomy(*pushed, _depth(*pushed, head), head, tilt, size)
    mask = np.zeros((size, size), dtype=bool)
    if lesion is not None:
        grow = (_glioma, _meningioma, None, _pituitary)[label]
        assert grow is not None
        picture, mask = grow(picture, u, v, depth, head, lesion, growth, size)
    picture = _skull(picture, u, v, depth, head)
    picture = _scanned(picture, streams, size)
    return Drawing(to_bytes(picture), mask)


def _head(generator: np.random.Generator, age: int) -> Head:
    half_width = generator.uniform(0.68, 0.75)
    return Head(
        half_width=half_width,
        half_length=half_width * generator.uniform(1.15, 1.24),
        egg=generator.uniform(0.06, 0.14),
        scalp=generator.uniform(0.035, 0.06),
        bone=generator.uniform(0.055, 0.075),
        fluid=generator.uniform(0.8, 1.2) * (0.7 + 0.006 * age),  # brains shrink with age
        contrast=generator.uniform(0.85, 1.15),
        seed=int(generator.integers(2**62)),
    )


def _lesion(label: int, head: Head, generator: np.random.Generator) -> Lesion | None:
    kind = CLASSES[label]
    if kind == "notumor":
        return None
    inner = (head.half_width - head.scalp - head.bone - 0.02, head.half_length - head.scalp - head.bone - 0.02)
    side = generator.choice((-1, 1))
    radius, aspect, rough, at = generator.uniform(0.21, 0.27), generator.uniform(0.8, 1.0), 0.12, SELLA
    brightness = generator.uniform(0.66, 0.80)
    if kind == "glioma":
        at = (side * generator.uniform(0.42, 0.55) * inner[0], generator.choice((-1, 1)) * generator.uniform(0.25, 0.5))
    elif kind == "meningioma":
        around = generator.uniform(-1.25, 1.25)  # 0 is straight to the side; front and back ends are left free
        at = (side * 0.86 * inner[0] * np.cos(around), 0.86 * inner[1] * np.sin(around))
        radius, rough = generator.uniform(0.20, 0.25), 0.03
    else:
        radius, aspect, rough = generator.uniform(0.15, 0.19), generator.uniform(0.85, 1.0), 0.03
    return Lesion(
        centre=(float(at[0]), float(at[1])),
        radius=float(radius),
        aspect=float(aspect),
        angle=float(generator.uniform(0, np.pi)),
        waves=outline(generator, rough),
        seed=int(generator.integers(2**62)),
        brightness=float(brightness),
    )


def _depth(u: Field, v: Field, head: Head) -> Field:
    """Distance beneath the skin, negative outside the head."""
    a = head.half_width * (1 + head.egg * v)  # wider at the back
    scaled = np.sqrt((u / a) ** 2 + (v / head.half_length) ** 2)
    return (1 - scaled) * 0.5 * (head.half_width + head.half_length)


def _pushed(u: Field, v: Field, lesion: Lesion, growth: float) -> tuple[Field, Field]:
    """Coordinates of the tissue that a tumour has pushed aside."""
    du, dv = u - lesion.centre[0], v - lesion.centre[1]
    squeeze = 1 - 0.45 * np.exp(-0.5 * (du * du + dv * dv) / (1.1 * growth * lesion.radius) ** 2)
    return lesion.centre[0] + du * squeeze, lesion.centre[1] + dv * squeeze


def _anatomy(u: Field, v: Field, depth: Field, head: Head, tilt: float, size: int) -> Field:
    """Brain, fluid and vessels of a healthy slice."""
    generator = np.random.default_rng(head.seed)
    within = depth - head.scalp - head.bone  # depth beneath the inner table of the skull
    wander = 0.03 * smooth_noise(generator, 5, size), 0.03 * smooth_noise(generator, 5, size)
    furrow = _furrows(generator, u + wander[0], v + wander[1], within + wander[0])
    cortex = np.maximum(step(0.065 - within, 0.05), step(0.046 - furrow, 0.035) * step(0.38 - within, 0.14))
    patchy = layered_noise(generator, 8, size)
    picture = WHITE + (GREY - WHITE) * cortex + 0.012 * patchy
    nuclei = ellipse(np.abs(u), v, (0.21, -0.22), (0.065, 0.12), 0.5)  # deep grey matter
    picture += 0.8 * (GREY - picture) * step(nuclei + 0.01 * patchy, 0.05)
    water = step(0.009 * head.fluid + 0.004 * patchy - furrow, 0.02) * step(0.32 - within, 0.18)
    water = np.maximum(water, step(0.022 * head.fluid + 0.006 * patchy - within, 0.02))
    moved = 0.25 * wander[0], 0.25 * wander[1]
    water = np.maximum(water, _cisterns(u + moved[0], v + moved[1], within, head.fluid, tilt))
    picture += (FLUID - picture) * water
    picture = _brainstem(picture, u + 0.3 * wander[0], v + 0.3 * wander[1], wander[0], head.fluid)
    return _vessels(picture, u, v, within)


def _furrows(generator: np.random.Generator, u: Field, v: Field, within: Field) -> Field:
    """Distance to the nearest furrow of the cortex: the zero lines of a noise that runs inwards from the surface."""
    turn = np.arctan2(v, u) / (2 * np.pi)
    noise = warped_noise(generator.standard_normal((8, 48)), 48 * turn, 5 + within / 0.14)
    return seams(noise, 5.0)


def _cisterns(u: Field, v: Field, within: Field, fluid: float, tilt: float) -> Field:
    """Fluid around the sella, in the fissures and in the ventricles."""
    star = blob(u, v, SELLA, 0.095 * fluid, _FIVE_POINTS)
    water = step(star, 0.03)
    between = step(0.008 * fluid + 0.02 * np.maximum(0.1 - within, 0) - np.abs(u), 0.015) * step(SELLA[1] - v, 0.03)
    water = np.maximum(water, between)  # the two frontal lobes
    side = np.abs(u)
    sylvian = stroke(side, v, (0.08, -0.12), (0.50, -0.16), bend=-0.09, sway=0.03)
    horn = stroke(side, v, (0.32, 0.06), (0.35, 0.20), bend=0.03)
    frontal = stroke(side, v, (0.05, -0.29), (0.13, -0.40), bend=-0.02)
    water = np.maximum(water, step(0.004 + 0.022 * fluid * side - sylvian, 0.025))
    water = np.maximum(water, step(0.014 * fluid - horn, 0.02))
    return np.maximum(water, step((0.02 + 0.02 * tilt) * fluid - frontal, 0.025))


_FIVE_POINTS = np.array([[0.0] * 6, [0.0] * 5 + [0.28]])  # with y down, one point towards the front
_VERMIS = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.10]])


def _brainstem(picture: Field, u: Field, v: Field, wander: Field, fluid: float) -> Field:
    """Midbrain with its peduncles, the fluid around it and the upper end of the cerebellum."""
    peduncles = ellipse(np.abs(u), v, (0.07, 0.06), (0.06, 0.09), 0.5)
    midbrain = np.maximum(ellipse(u, v, (0.0, 0.13), (0.125, 0.095)), peduncles)
    vermis = blob(u, v, (0.0, 0.40), 0.17, _VERMIS)
    around = np.maximum(step(midbrain + 0.014 * fluid, 0.03), 0.7 * step(vermis + 0.010 * fluid, 0.03))
    picture = picture + (FLUID - picture) * around
    leaves = np.cos(2 * np.pi * (np.hypot(0.8 * u, v - 0.1) / 0.062 + 6 * wander))
    picture += (0.40 + 0.04 * leaves - picture) * step(vermis, 0.03)
    picture += (0.43 - picture) * step(midbrain, 0.03)
    picture += 0.8 * (FLUID - picture) * step(0.016 - np.hypot(u, v - 0.185), 0.02)  # aqueduct
    return picture


def _vessels(picture: Field, u: Field, v: Field, within: Field) -> Field:
    """What takes up contrast in everyone: arteries and the pituitary stalk in the cistern, dura, falx, sinus."""
    for at, light in ((0.07, 0.62), (0.0, 0.5)):
        picture = picture + (light - picture) * step(0.016 - np.hypot(np.abs(u) - at, v - SELLA[1] - 0.01), 0.025)
    falx = step(0.003 - np.abs(u), 0.012) * np.maximum(step(SELLA[1] - 0.12 - v, 0.1), step(v - 0.60, 0.1))
    picture = picture + 0.45 * (0.6 - picture) * falx
    picture = picture + 0.5 * (0.55 - picture) * step(0.005 - np.abs(within - 0.004), 0.012)
    sinus = step(0.045 - np.abs(u) - 0.8 * np.maximum(within - 0.005, 0), 0.03) * step(v, 0.2) * step(within, 0.01)
    return picture + 0.8 * (0.68 - picture) * sinus


def _glioma(
    picture: Field, u: Field, v: Field, depth: Field, head: Head, lesion: Lesion, growth: float, size: int
) -> tuple[Field, Mask]:
    """Irregular mass in the white matter: ring that takes up contrast, dead core, swelling around."""
    generator = np.random.default_rng(lesion.seed)
    rough = smooth_noise(generator, 7, size)
    inside = blob(u, v, lesion.centre, growth * lesion.radius, lesion.waves) + 0.022 * rough
    inside = np.minimum(inside, depth - head.scalp - head.bone - 0.03)
    fingers = inside + 0.10 + 0.05 * smooth_noise(generator, 6, size)
    within = step(depth - head.scalp - head.bone - 0.06, 0.04)
    picture = picture + 0.75 * (0.24 - picture) * step(fingers, 0.07) * within
    thickness = np.clip(0.050 + 0.024 * smooth_noise(generator, 6, size), 0.015, 0.12)
    core = 0.17 + 0.05 * layered_noise(generator, 12, size)
    picture += (core - picture) * step(inside, 0.02)
    ring = step(inside, 0.02) * step(thickness - inside, 0.03)
    light = lesion.brightness + 0.02 + 0.09 * layered_noise(generator, 8, size)
    picture += (light - picture) * ring
    return picture, np.asarray(inside > 0)


def _meningioma(
    picture: Field, u: Field, v: Field, depth: Field, head: Head, lesion: Lesion, growth: float, size: int
) -> tuple[Field, Mask]:
    """Smooth, even, bright mass with a broad base on the dura, a fluid cleft and a tail on either side."""
    generator = np.random.default_rng(lesion.seed)
    beneath = depth - head.scalp - head.bone
    mass = np.minimum(blob(u, v, lesion.centre, growth * lesion.radius, lesion.waves), beneath)
    cleft = np.minimum(mass + 0.018, beneath)
    picture = picture + 0.8 * (FLUID - picture) * step(cleft, 0.015)
    tail = blob(u, v, lesion.centre, 1.5 * growth * lesion.radius, lesion.waves)
    dura = step(0.022 * np.clip(tail / 0.1, 0, 1) - np.abs(beneath - 0.008), 0.012)
    picture += (lesion.brightness - picture) * dura * step(tail, 0.05)
    light = lesion.brightness + 0.02 * layered_noise(generator, 10, size)
    picture += (light - picture) * step(mass, 0.02)
    return picture, np.asarray(mass > 0)


def _pituitary(
    picture: Field, u: Field, v: Field, depth: Field, head: Head, lesion: Lesion, growth: float, size: int
) -> tuple[Field, Mask]:
    """Round or oval bright mass that rises from the sella on the midline."""
    generator = np.random.default_rng(lesion.seed)
    wide, long = turned(u - lesion.centre[0], v - lesion.centre[1], 0.0)
    inside = blob(wide, long / lesion.aspect, (0.0, 0.0), growth * lesion.radius, lesion.waves)
    picture = picture + 0.7 * (FLUID - picture) * step(inside + 0.015, 0.015)
    light = lesion.brightness - 0.06 + 0.03 * layered_noise(generator, 10, size)
    picture += (light - picture) * step(inside, 0.02)
    return picture, np.asarray(inside > 0)


def _skull(picture: Field, u: Field, v: Field, depth: Field, head: Head) -> Field:
    """Put scalp, bone with its marrow and the air outside over the brain."""
    generator = np.random.default_rng([head.seed, 1])
    size = len(u)
    uneven = smooth_noise(generator, 7, size)
    temples = step(np.abs(u) - 1.6 * np.abs(v + 0.2), 0.5)  # the muscle that closes the jaw lies there
    beneath = depth - head.scalp
    marrow = (MARROW + 0.10 * uneven) * bump(beneath - 0.5 * head.bone, 0.15 * head.bone)
    bone = np.maximum(BONE, marrow)
    picture = bone + (picture - bone) * step(beneath - head.bone, 0.015)
    fat = SCALP + 0.07 * smooth_noise(generator, 11, size)
    skin = fat - 0.35 * bump(depth, 0.010) - 0.40 * temples * step(depth - 0.45 * head.scalp, 0.03)
    picture = skin + (picture - skin) * step(beneath + 0.006 * uneven, 0.016)
    return np.asarray(picture * step(depth + 0.003 * uneven, 0.018))


def _scanned(picture: Field, streams: Streams, size: int) -> Field:
    """What the scanner adds: its point spread, an uneven coil, gain, and the noise of a magnitude image."""
    view, grain = streams.view, streams.grain
    picture = ndimage.gaussian_filter(picture, 0.009 * size / 2, truncate=3.0)
    coil = 1 + 0.06 * smooth_noise(view, 2, size)
    picture = picture * coil * (0.92, 1.0, 1.08)[streams.site] * view.uniform(0.92, 1.08)
    noise = (0.016, 0.020, 0.024)[streams.site]
    return np.hypot(picture + noise * grain.standard_normal((size, size)), noise * grain.standard_normal((size, size)))
