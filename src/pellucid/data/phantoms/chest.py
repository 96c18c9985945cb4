"""Chest-like frontal radiographs: what lies in the beam adds up, and the film turns the sum into brightness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pellucid.data.phantoms.sample import Drawing, Streams
from pellucid.data.phantoms.texture import (
    Field,
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

CLASSES = ("covid19", "normal", "pneumonia")


@dataclass(frozen=True)
class Thorax:
    """What the films of one patient share; lengths in half-widths of the film."""

    cage: float  # half-width of the rib cage at its widest
    apex: float  # height of the lungs' top
    domes: tuple[float, float]  # heights of the right and left diaphragm
    heart: float  # size of the heart
    lie: float  # its angle
    middle: float  # half-width of what lies between the lungs
    ribs: float  # distance between ribs
    first_rib: float
    slope: float  # of the ribs
    stout: float  # thickness of the soft tissue
    breasts: float
    stomach: float  # brightness that its air takes away
    seed: int  # of the vessels and of all that is uneven


@dataclass(frozen=True)
class Patch:
    """One infiltrate: where, how large, its outline; `fissure` cuts it off straight below (1) or above (-1)."""

    centre: tuple[float, float]
    radius: float
    waves: Field
    fissure: int = 0


def draw(label: int, size: int, streams: Streams) -> Drawing:
    """Draw one film of a patient with the findings of `CLASSES[label]`."""
    thorax = _thorax(streams)
    patches = _patches(label, thorax, streams.lesion)
    view = streams.view
    x, y = canvas(size)
    u, v = turned(x - view.normal(0, 0.04), y - view.normal(0, 0.03), float(view.normal(0, 0.03)))
    zoom = view.normal(1, 0.025)
    u, v = u / zoom, v / zoom
    breath, grown = view.normal(0, 0.015), float(view.uniform(0.93, 1.05))

    lung = _lungs(u, v, thorax, breath)
    beam = _soft_tissue(u, v, lung, thorax) + _bones(u, v, thorax) + _vessels(u, v, lung, thorax)
    inside = np.full_like(u, -1.0)
    if patches:
        generator = np.random.default_rng(int(streams.lesion.integers(2**62)))
        for patch in patches:
            inside = np.maximum(inside, _extent(u, v, patch, grown))
        inside = np.minimum(inside + 0.035 * layered_noise(generator, 8, size), lung)
        beam += (_consolidation if CLASSES[label] == "pneumonia" else _ground_glass)(u, v, inside, generator)
    picture = _bystanders(_exposed(beam, streams, size), x, y, view)
    return Drawing(to_bytes(picture), np.asarray(inside > 0))


def _thorax(streams: Streams) -> Thorax:
    generator = streams.anatomy
    dome = generator.uniform(0.40, 0.56)
    return Thorax(
        cage=generator.uniform(0.68, 0.80),
        apex=generator.uniform(-0.82, -0.72),
        domes=(dome, dome + generator.uniform(0.02, 0.09)),
        heart=generator.uniform(0.88, 1.12) * (0.95 + 0.0012 * streams.age),
        lie=generator.uniform(0.45, 0.85),
        middle=generator.uniform(0.07, 0.10),
        ribs=generator.uniform(0.145, 0.175),
        first_rib=generator.uniform(0, 1),
        slope=generator.uniform(0.7, 1.25),
        stout=generator.uniform(0.88, 1.15),
        breasts=generator.uniform(0.10, 0.22) if streams.sex == "F" else 0.0,
        stomach=generator.choice((0.0, 0.35)),
        seed=int(generator.integers(2**62)),
    )


def _patches(label: int, thorax: Thorax, generator: np.random.Generator) -> list[Patch]:
    """Pneumonia: one lobe of one lung. COVID-19: several patches along the outer border of both."""
    patches = []
    if CLASSES[label] == "pneumonia":
        side, fissure = int(generator.choice((-1, 1))), int(generator.choice((-1, 0, 1)))
        height = generator.uniform(-0.32, -0.12) if fissure == 1 else generator.uniform(-0.15, 0.22)
        across = generator.uniform(0.50, 0.60) * float(_cage(np.array(height), thorax))
        radius = float(generator.uniform(0.27, 0.33))
        patches.append(Patch((side * across, float(height)), radius, outline(generator, 0.11), fissure))
    elif CLASSES[label] == "covid19":
        for side in (-1, 1):
            heights = np.array([-0.22, 0.08, 0.34]) + generator.uniform(-0.07, 0.07, 3)
            for height in heights[generator.permutation(3)[: generator.integers(2, 4)]]:
                across = float(_cage(np.array(height), thorax)) - generator.uniform(0.06, 0.12)
                radius = float(generator.uniform(0.145, 0.185))
                patches.append(Patch((side * across, float(height)), radius, outline(generator, 0.13)))
    return patches


def _extent(u: Field, v: Field, patch: Patch, grown: float) -> Field:
    """How far inside an infiltrate a point lies."""
    inside = blob(u, v, patch.centre, grown * patch.radius, patch.waves)
    if patch.fissure:
        off = patch.fissure * (v - patch.centre[1] - 0.12 * (np.abs(u) - abs(patch.centre[0])))
        inside = np.minimum(inside, 0.55 * patch.radius - off)
    return inside


def _cage(v: Field, thorax: Thorax) -> Field:
    """Half-width of the rib cage at height v."""
    from_widest = np.clip((v - 0.25) / (thorax.apex - 0.25), 0, 1)
    return np.asarray(thorax.cage * np.sqrt(1 - from_widest**2.4))


def _lungs(u: Field, v: Field, thorax: Thorax, breath: float) -> Field:
    """How far inside a lung a point lies."""
    side = np.abs(u)
    dome = np.where(u < 0, *thorax.domes) + breath
    off = (side - 0.36) / 0.40
    floor = dome + 0.12 * off**2 + 0.20 * np.maximum(off, 0) ** 3
    inner = side - thorax.middle + 0.02 * np.sin(5 * v)
    return np.minimum(np.minimum(_cage(v, thorax) - 0.015 - side, inner), floor - v)


def _soft_tissue(u: Field, v: Field, lung: Field, thorax: Thorax) -> Field:
    """Body wall, lungs, heart, great vessels, airway, belly."""
    generator = np.random.default_rng(thorax.seed)
    size = len(u)
    uneven = smooth_noise(generator, 4, size)
    side = np.abs(u)
    shoulder = -0.86 - 0.12 * step(0.30 - side, 0.5) + 0.45 * np.maximum(side - 0.50, 0) ** 1.5
    trunk = np.minimum(v - shoulder, 1.06 - side + 0.25 * np.maximum(-0.1 - v, 0))
    body = np.maximum(trunk, 0.20 - side + 0.02 * uneven)
    beam = thorax.stout * (1.20 + 0.08 * uneven) * step(body, 0.10) * (0.72 + 0.28 * step(body, 0.5))
    beam -= 0.92 * step(lung, 0.045) * (0.80 + 0.20 * step(lung, 0.30))
    beam += 0.55 * step(v - 0.45, 0.35) * step(-lung, 0.06) * step(thorax.cage + 0.05 - side, 0.2)  # belly
    beam -= thorax.stomach * step(ellipse(u, v, (0.40, 0.74), (0.14, 0.09)) + 0.02 * uneven, 0.06)
    heart = ellipse(u, v, (0.12, 0.28), (0.33 * thorax.heart, 0.23 * thorax.heart), thorax.lie)
    heart = np.maximum(heart, ellipse(u, v, (-0.03, 0.22), (0.15 * thorax.heart, 0.26)))
    great = np.maximum(ellipse(u, v, (0.02, -0.15), (0.13, 0.42)), 0.075 - np.hypot(u - 0.11, v + 0.36))
    shadow = np.maximum(0.78 * step(heart + 0.008 * uneven, 0.09), 0.55 * step(great + 0.01 * uneven, 0.08))
    beam += shadow * step(lung + 0.12, 0.1)
    beam -= 0.22 * step(0.035 - np.abs(u - 0.01), 0.03) * step(-0.30 - v, 0.06)
    breast = ellipse(side, v, (0.43, 0.36), (0.30, 0.26))
    return beam + thorax.breasts * step(breast, 0.20) * (0.6 + 0.4 * step(v - 0.30, 0.4))


def _bones(u: Field, v: Field, thorax: Thorax) -> Field:
    """Spine, ribs behind and in front, collarbones, shoulder blades, upper arms."""
    side = np.abs(u)
    wide = side / thorax.cage
    edge = _cage(v, thorax) + 0.02 - side
    within = step(edge, 0.03)
    disc = np.cos(2 * np.pi * (v / 0.15 + thorax.first_rib))
    beam = (0.28 + 0.06 * disc) * step(0.085 - side, 0.05)
    behind = v + thorax.slope * (0.12 * wide - 0.48 * wide**3)
    beam += 0.15 * _rib(behind / thorax.ribs + thorax.first_rib, 0.20) * within * step(side - 0.05, 0.05)
    front = v - thorax.slope * 0.50 * (1 - wide) - 0.30 * wide**2
    fading = step(side - 0.34, 0.3) * step(v + 0.55, 0.2)
    beam += 0.10 * _rib(front / (1.2 * thorax.ribs) + 1.7 * thorax.first_rib, 0.22) * within * fading
    beam += 0.10 * bump(edge - 0.02, 0.02) * step(v - thorax.apex, 0.1) * step(0.5 - v, 0.2)  # ribs seen from the side
    collar = stroke(side, v, (0.06, thorax.apex + 0.17), (0.70, thorax.apex - 0.02), bend=0.03, sway=0.03)
    beam += 0.24 * step(0.030 - collar, 0.03) * (1 - 0.35 * step(0.012 - collar, 0.02))
    blade = stroke(side, v, (0.62, -0.62), (0.80, 0.02), bend=0.06)
    beam += 0.12 * step(0.020 - blade, 0.04) + 0.10 * step(ellipse(side, v, (0.84, -0.40), (0.20, 0.36), -0.15), 0.15)
    return beam + 0.28 * step(0.16 - np.hypot(side - 0.96, v + 0.62), 0.08)


def _rib(phase: Field, half: float) -> Field:
    """Profile of ribs at whole numbers of `phase`: a band that is denser at its two edges."""
    off = np.abs(phase - np.rint(phase)) / half
    return step(1 - off, 0.5) * (0.6 + 0.6 * np.minimum(off, 1) ** 2)


def _vessels(u: Field, v: Field, lung: Field, thorax: Thorax) -> Field:
    """Hila and the vessels that spread from them, branch and thin out."""
    generator = np.random.default_rng([thorax.seed, 1])
    size = len(u)
    across, down = np.abs(u) - 0.11, v + 0.02
    away = np.hypot(across, down)
    turn = np.arctan2(down, across) / (2 * np.pi) + 0.5 * (u < 0) + 0.028 * smooth_noise(generator, 7, size)
    noise = warped_noise(generator.standard_normal((14, 36)), 36 * turn, 8 * np.sqrt(away))
    vessels = (
        step(0.010 * np.exp(-away / 0.4) - seams(noise, 7.0), 0.022) * np.exp(-away / 0.5) * step(away - 0.08, 0.1)
    )
    hilum = bump(np.hypot(across - 0.03, 0.6 * down), 0.075) * (1 + 0.3 * layered_noise(generator, 10, size))
    return (0.27 * vessels + 0.36 * hilum + 0.025 * layered_noise(generator, 12, size)) * step(lung, 0.05)


def _consolidation(u: Field, v: Field, inside: Field, generator: np.random.Generator) -> Field:
    """A dense lobe: air is gone but for the larger airways, which stand out dark."""
    across = np.abs(u) - 0.11
    turn, away = np.arctan2(v, across) / (2 * np.pi), np.hypot(across, v)
    airways = seams(warped_noise(generator.standard_normal((8, 24)), 24 * turn, 5 * away), 5.0)
    density = 0.80 + 0.10 * layered_noise(generator, 7, len(u)) - 0.20 * step(0.006 - airways, 0.025)
    return np.asarray(density * step(inside - 0.02, 0.12))


def _ground_glass(u: Field, v: Field, inside: Field, generator: np.random.Generator) -> Field:
    """Hazy patches through which vessels and ribs are still seen."""
    density = 0.48 + 0.12 * layered_noise(generator, 11, len(u))
    return np.asarray(density * step(inside - 0.01, 0.11))


def _exposed(beam: Field, streams: Streams, size: int) -> Field:
    """Film or detector: exposure, blur, quantum noise."""
    view, grain = streams.view, streams.grain
    beam = ndimage.gaussian_filter(np.maximum(beam, 0), 0.008 * size / 2, truncate=3.0)
    slant = 1 + 0.03 * smooth_noise(view, 1, size)
    picture = 1 - np.exp(-beam * slant * view.uniform(0.92, 1.08) * (0.95, 1.0, 1.06)[streams.site])
    picture = (0.02 + 0.98 * picture) ** float(view.uniform(0.95, 1.15))
    noise = (0.008, 0.011, 0.014)[streams.site] * (0.6 + 0.8 * picture)
    return np.asarray(picture + noise * grain.standard_normal((size, size)))


def _bystanders(picture: Field, x: Field, y: Field, view: np.random.Generator) -> Field:
    """Side marker, leads and collimation, which come with every class alike."""
    side = int(view.choice((-1, 1)))
    at, tall = (side * view.uniform(0.78, 0.90), view.uniform(-0.92, -0.80)), view.uniform(0.035, 0.05)
    u, v = turned(x - at[0], y - at[1], float(view.normal(0, 0.12)))
    letter = (_letter_l if side > 0 else _letter_r)(u, v, float(tall))
    picture = np.asarray(picture + (0.97 - picture) * step(0.010 - letter, 0.012))
    for _ in range(int(view.choice((0, 0, 0, 2, 3)))):
        start, end = view.uniform(-0.5, 0.5, 2), (view.choice((-1, 1)) * 1.1, view.uniform(-0.6, 0.9))
        lead = stroke(x, y, (start[0], start[1]), (float(end[0]), float(end[1])), view.normal(0, 0.12), 0.03)
        picture = picture + 0.30 * (0.95 - picture) * step(0.008 - lead, 0.012)
        picture = picture + 0.5 * (0.95 - picture) * step(0.028 - np.hypot(x - start[0], y - start[1]), 0.015)
    if view.uniform() < 0.3:
        margin = view.uniform(0.90, 0.97, 2)
        picture = picture * step(np.minimum(margin[0] - np.abs(x), margin[1] - np.abs(y)), 0.01)
    return picture


def _letter_l(u: Field, v: Field, tall: float) -> Field:
    """Distance to a letter L, the marker of the patient's left side."""
    foot = stroke(u, v, (-0.5 * tall, tall), (0.7 * tall, tall))
    return np.minimum(stroke(u, v, (-0.5 * tall, -tall), (-0.5 * tall, tall)), foot)


def _letter_r(u: Field, v: Field, tall: float) -> Field:
    """Distance to a letter R, the marker of the patient's right side."""
    stem = stroke(u, v, (-0.5 * tall, -tall), (-0.5 * tall, tall))
    bow = np.abs(np.hypot(np.maximum(u, 0), v + 0.5 * tall) - 0.5 * tall) + np.maximum(-0.5 * tall - u, 0)
    leg = stroke(u, v, (0.0, 0.0), (0.6 * tall, tall))
    letter: Field = np.minimum(np.minimum(stem, bow), leg)
    return letter
