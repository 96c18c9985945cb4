"""Dermoscopy-like pictures of pigmented and vascular skin lesions.

Colour comes from two pigments that absorb light, as in real skin, so that a lesion fits every skin tone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.data.phantoms.sample import Drawing, Streams
from pellucid.data.phantoms.texture import (
    Field,
    blob,
    bump,
    canvas,
    layered_noise,
    outline,
    seams,
    smooth_noise,
    step,
    stroke,
    to_bytes,
    turned,
)

CLASSES = ("melanoma", "nevus", "pigmented_benign_keratosis", "vascular_lesion")

Colour = NDArray[np.float64]  # (H, W, 3), red, green, blue

BARE = np.array([0.96, 0.88, 0.84])  # skin without pigment or blood
MELANIN = np.array([0.55, 0.86, 1.06])  # absorption per unit of pigment
BLOOD = np.array([0.16, 0.95, 0.66])
VEIL = np.array([0.36, 0.42, 0.55])
HORN = np.array([0.93, 0.88, 0.80])


@dataclass
class Skin:
    """What lies in the skin at each pixel; light passes through all of it."""

    melanin: Field
    blood: Field
    veil: Field  # share of bluish light scattered back from pigment that lies deep
    pale: Field  # share of white: horn, milia, scars

    def lit(self) -> Colour:
        """Its picture."""
        picture = BARE * np.exp(-(self.melanin[..., None] * MELANIN + self.blood[..., None] * BLOOD))
        picture += (VEIL - picture) * self.veil[..., None]
        return np.asarray(picture + (HORN - picture) * self.pale[..., None])


@dataclass(frozen=True)
class Lesion:
    """A patient's lesion, in coordinates of its own."""

    centre: tuple[float, float]
    radius: float
    aspect: float
    angle: float
    waves: Field
    strength: float
    seed: int


def draw(label: int, size: int, streams: Streams) -> Drawing:
    """Draw one picture of a patient's lesion of kind `CLASSES[label]`."""
    lesion = _lesion(label, streams.lesion)
    view = streams.view
    x, y = canvas(size)
    u, v = turned(x - view.normal(0, 0.05), y - view.normal(0, 0.05), float(view.normal(0, 0.15)))
    zoom = float(view.uniform(0.94, 1.06))
    u, v = turned(u / zoom - lesion.centre[0], v / zoom - lesion.centre[1], lesion.angle)
    skin = _healthy(streams.anatomy, size)
    grow = (_melanoma, _nevus, _keratosis, _vascular)[label]
    inside = grow(skin, u / lesion.aspect, v, lesion, np.random.default_rng(lesion.seed))
    picture = _bystanders(skin.lit(), x, y, view)
    return Drawing(to_bytes(_photographed(picture, x, y, streams)), np.asarray(inside > 0))


def _lesion(label: int, generator: np.random.Generator) -> Lesion:
    roughness = (0.17, 0.035, 0.10, 0.05)[label]
    return Lesion(
        centre=(float(generator.uniform(-0.36, 0.36)), float(generator.uniform(-0.36, 0.36))),
        radius=float(generator.uniform(0.27, 0.33)),
        aspect=float(generator.uniform(0.8, 1.0)),
        angle=float(generator.uniform(0, 2 * np.pi)),
        waves=outline(generator, roughness),
        strength=float(generator.uniform(0.85, 1.15)),
        seed=int(generator.integers(2**62)),
    )


def _healthy(generator: np.random.Generator, size: int) -> Skin:
    """Skin of one tone, blotched, freckled and lined."""
    melanin, blood = generator.uniform(0.05, 0.55), generator.uniform(0.04, 0.30)
    freckles = generator.uniform(0.02, 0.10) * step(smooth_noise(generator, 16, size) - 1.5, 0.9)
    lines = seams(smooth_noise(generator, 36, size), 35.0)
    pigment = melanin * (1 + 0.16 * layered_noise(generator, 4, size)) + freckles + 0.045 * step(0.008 - lines, 0.02)
    flush = blood * (1 + 0.35 * layered_noise(generator, 3, size))
    fine = layered_noise(generator, 24, size, 2)
    nothing = np.zeros((size, size))
    return Skin(np.maximum(pigment + 0.02 * fine, 0), np.maximum(flush - 0.015 * fine, 0), nothing, nothing)


def _melanoma(skin: Skin, u: Field, v: Field, lesion: Lesion, generator: np.random.Generator) -> Field:
    """Asymmetric and ragged, of several colours, with a blue-white veil."""
    size = len(u)
    inside = blob(u, v, (0.0, 0.0), 0.98 * lesion.radius, lesion.waves) + 0.030 * layered_noise(generator, 12, size)
    body = step(inside, 0.05)
    patches = layered_noise(generator, 5, size)
    dark = step(0.6 * u / lesion.radius + 0.6 * patches - 0.1, 0.9)
    red = step(smooth_noise(generator, 6, size) - 0.5 * u / lesion.radius - 0.6, 0.7)
    scar = step(smooth_noise(generator, 6, size) - 1.2, 0.5)
    skin.melanin = skin.melanin + lesion.strength * body * (
        1.0 + 1.5 * dark + 0.22 * layered_noise(generator, 22, size)
    )
    skin.blood = skin.blood + 0.55 * body * red
    deep = step(smooth_noise(generator, 4, size) + 0.7 * dark - 0.5, 0.8) * step(inside - 0.05, 0.08)
    skin.veil = deep * np.clip(0.50 + 0.12 * patches, 0.2, 0.7)
    skin.pale = 0.45 * scar * step(inside - 0.03, 0.05) * (1 - deep)
    return inside


def _nevus(skin: Skin, u: Field, v: Field, lesion: Lesion, generator: np.random.Generator) -> Field:
    """Symmetric, one even brown with a fine network that fades at the rim."""
    size = len(u)
    inside = blob(u, v, (0.0, 0.0), lesion.radius, lesion.waves) + 0.008 * smooth_noise(generator, 12, size)
    network = step(0.010 - seams(smooth_noise(generator, 46, size), 45.0), 0.022)
    middle = step(inside - 0.05, 0.16)
    brown = 0.72 + 0.22 * middle + (0.50 - 0.20 * middle) * network + 0.06 * layered_noise(generator, 9, size)
    skin.melanin = skin.melanin + lesion.strength * brown * step(inside, 0.09)
    return inside


def _keratosis(skin: Skin, u: Field, v: Field, lesion: Lesion, generator: np.random.Generator) -> Field:
    """Warty and stuck on, with a sharp moth-eaten border, pale milia-like cysts and dark plugs."""
    size = len(u)
    bites = 0.04 * np.clip(smooth_noise(generator, 10, size), 0, 1.6) ** 2
    inside = blob(u, v, (0.0, 0.0), 1.08 * lesion.radius, lesion.waves) - bites
    body = step(inside, 0.022)
    ridges = step(0.012 - seams(smooth_noise(generator, 20, size), 18.0), 0.025)
    plugs = _dots(u, v, lesion.radius, generator, int(generator.integers(4, 9)))
    cysts = _dots(u, v, lesion.radius, generator, int(generator.integers(8, 15)))
    waxy = 0.58 + 0.14 * layered_noise(generator, 9, size) + 0.35 * ridges + 1.4 * plugs
    skin.melanin = skin.melanin * (1 - 0.4 * body) + lesion.strength * body * waxy
    skin.blood = skin.blood * (1 - 0.6 * body)
    skin.pale = body * np.maximum(0.85 * cysts * (1 - plugs), 0.08)
    return inside


def _dots(u: Field, v: Field, radius: float, generator: np.random.Generator, count: int) -> Field:
    """Small discs strewn evenly over the lesion."""
    shown = np.zeros_like(u)
    near = np.hypot(u, v) < 1.2 * radius
    at_u, at_v = u[near], v[near]
    discs = np.zeros_like(at_u)
    far, turn = 0.9 * radius * np.sqrt(generator.uniform(0, 1, count)), generator.uniform(0, 2 * np.pi, count)
    for du, dv, wide in zip(
        far * np.cos(turn), far * np.sin(turn), generator.uniform(0.014, 0.030, count), strict=True
    ):
        np.maximum(discs, step(wide - np.hypot(at_u - du, at_v - dv), 0.02), out=discs)
    shown[near] = discs
    return shown


def _vascular(skin: Skin, u: Field, v: Field, lesion: Lesion, generator: np.random.Generator) -> Field:
    """Red to purple lakes of blood with pale walls between."""
    size = len(u)
    inside = blob(u, v, (0.0, 0.0), 0.95 * lesion.radius, lesion.waves) + 0.008 * smooth_noise(generator, 14, size)
    near = inside > -0.05
    wall, lake, count = _lakes(u[near] / lesion.radius, v[near] / lesion.radius, generator)
    body = step(inside[near], 0.04) * (0.35 + 0.65 * step(lesion.radius * wall - 0.012, 0.035))
    depth = generator.uniform(0.9, 1.8, count)[lake] + 0.12 * layered_noise(generator, 12, size)[near]
    purple = np.clip(generator.normal(0.15, 0.4, count), 0, 1)[lake] * body
    skin.blood = skin.blood + 0.35 * step(inside + 0.02, 0.10)
    skin.blood[near] += lesion.strength * depth * body
    skin.melanin[near] += 0.6 * purple
    skin.veil = np.zeros_like(u)
    skin.veil[near] = 0.25 * purple
    return inside


def _lakes(u: Field, v: Field, generator: np.random.Generator) -> tuple[Field, NDArray[np.intp], int]:
    """Cells around points strewn evenly over a disc: distance to the nearest wall, number of the cell, how many."""
    count = int(generator.integers(14, 22))
    turn, far = 2.39996 * np.arange(count), 1.05 * np.sqrt((np.arange(count) + 0.5) / count)  # a sunflower's spread
    shaken = generator.normal(0, 0.10, (2, count))
    away = np.hypot(u[..., None] - far * np.cos(turn) - shaken[0], v[..., None] - far * np.sin(turn) - shaken[1])
    first, second = np.moveaxis(np.partition(away, 1, axis=-1)[..., :2], -1, 0)
    return second - first, away.argmin(axis=-1), count


def _bystanders(picture: Colour, x: Field, y: Field, view: np.random.Generator) -> Colour:
    """Hairs, bubbles of gel and a ruler, which come with every kind of lesion alike."""
    tint = np.array([0.16, 0.11, 0.08]) * view.uniform(0.6, 2.2)
    for _ in range(int(view.choice((0, 0, 1, 2, 4, 7)))):
        start, heading, length = view.uniform(-1, 1, 2), view.uniform(0, 2 * np.pi), view.uniform(0.4, 1.4)
        end = start + length * np.array([np.cos(heading), np.sin(heading)])
        bend, sway = view.normal(0, 0.12) * length, view.normal(0, 0.02)
        hair = stroke(x, y, (start[0], start[1]), (end[0], end[1]), bend, sway)
        cover = 0.85 * step(view.uniform(0.005, 0.011) - hair, 0.016)
        picture = picture + (tint - picture) * cover[..., None]
    for _ in range(int(view.choice((0, 0, 0, 1, 3)))):
        at, radius = view.uniform(-1, 1, 2), view.uniform(0.03, 0.09)
        away = np.hypot(x - at[0], y - at[1])
        gleam = bump(np.hypot(x - at[0] + 0.4 * radius, y - at[1] + 0.4 * radius), 0.25 * radius)
        picture = picture * (1 - 0.18 * bump(away - radius, 0.010))[..., None] + 0.35 * gleam[..., None]
    if view.uniform() < 0.25:
        picture = picture * (1 - 0.8 * _ruler(x, y, view))[..., None]
    return picture


def _ruler(x: Field, y: Field, view: np.random.Generator) -> Field:
    """Millimetre ticks along one edge."""
    u, v = turned(x, y, float(view.choice((0, 1, 2, 3)) * np.pi / 2))
    edge, spacing = view.uniform(0.78, 0.92), 0.16
    phase = np.abs((u / spacing + 0.5) % 1 - 0.5) * spacing
    tall = 0.08 + 0.06 * (np.abs(np.rint(u / spacing)) % 5 == 0)
    return np.asarray(step(0.007 - phase, 0.012) * step(v - edge, 0.01) * step(edge + tall - v, 0.01))


def _photographed(picture: Colour, x: Field, y: Field, streams: Streams) -> Colour:
    """Light, lens and sensor: white balance, vignette, now and then the tube's black rim, noise."""
    view, size = streams.view, len(x)
    balance = np.array([(1.02, 1.0, 0.97), (1.0, 1.0, 1.0), (0.97, 1.0, 1.04)][streams.site])
    light = view.uniform(0.88, 1.02) * (1 + 0.05 * smooth_noise(view, 2, size))
    away = np.hypot(x, y)
    light = light * (1 - view.uniform(0.05, 0.22) * away**2 / 2)
    if view.uniform() < 0.25:
        light = light * (0.04 + 0.96 * step(view.uniform(1.05, 1.2) - away, 0.08))
    noise = 0.012 * streams.grain.standard_normal((size, size, 3))
    return np.asarray(picture * light[..., None] * balance + noise)
