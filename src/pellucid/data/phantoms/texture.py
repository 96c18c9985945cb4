"""Shapes and textures that phantoms are drawn from, in coordinates that don't know the image's size.

A picture spans [-1, 1] in x (to the right) and in y (down); pixel centres sample it. Textures come from coarse
random lattices, so that one seed gives one composition at every size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Field = NDArray[np.float64]
Mask = NDArray[np.bool_]


def canvas(size: int) -> tuple[Field, Field]:
    """Coordinates x and y of the pixel centres, each (size, size)."""
    line = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(line, line)
    return x, y


def turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates in a frame turned by `angle` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * x + sine * y, cosine * y - sine * x


@lru_cache(maxsize=64)
def _spline_rows(cells: int, size: int) -> sparse.csr_array:
    """Values (size, cells + 3) of the cubic B-splines over `cells` intervals at the pixel centres, four in a row."""
    at = (np.arange(size) + 0.5) * cells / size
    first = np.minimum(at.astype(int), cells - 1)
    t = at - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    columns = first[:, None] + np.arange(4)
    return sparse.csr_array((weights.ravel(), columns.ravel(), 4 * np.arange(size + 1)), shape=(size, cells + 3))


def smooth_noise(generator: np.random.Generator, cells: int, size: int) -> Field:
    """Smooth noise (size, size) of mean 0 and standard deviation about 1, with `cells` bumps along a side."""
    lattice = 2.09 * generator.standard_normal((cells + 3, cells + 3))  # splines average: 2.09 restores the deviation
    rows = _spline_rows(cells, size)  # sparse, so that no threads of a BLAS change time or rounding
    return np.asarray(rows @ np.ascontiguousarray((rows @ lattice).T))


def layered_noise(generator: np.random.Generator, cells: int, size: int, octaves: int = 3) -> Field:
    """Noise of mean 0 and deviation about 1 that is rough at several scales, each half as wide and half as high."""
    total: Field = np.zeros((size, size))
    for octave in range(octaves):
        total += 0.5**octave * smooth_noise(generator, cells * 2**octave, size)
    return np.asarray(total / np.sqrt(sum(0.25**octave for octave in range(octaves))))


def warped_noise(lattice: Field, u: Field, v: Field) -> Field:
    """A random lattice read off at u (columns) and v (rows), in lattice cells, repeating at its edges."""
    read: Field = ndimage.map_coordinates(lattice, [v, u], order=3, mode="grid-wrap", prefilter=False)
    return 2.09 * read


def seams(noise: Field, steepest: float) -> Field:
    """Distance to the zero lines of a noise, which wander like furrows and meet in meshes.

    Where the noise is flatter than `steepest` (per unit of length), lines are thinned out.
    """
    down, across = np.gradient(noise, 2.0 / len(noise))
    return np.asarray(np.abs(noise) / np.maximum(np.hypot(down, across), steepest))


def step(distance: Field, width: float) -> Field:
    """0 where `distance` is far below zero, 1 far above, changing over about `width`."""
    t = np.clip(distance / width + 0.5, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def bump(distance: Field, width: float) -> Field:
    """1 at distance 0, falling as a Gaussian of standard deviation `width`."""
    scaled = distance / width
    return np.exp(-0.5 * scaled * scaled)


def ellipse(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Field:
    """How far inside an ellipse a point lies: positive within, zero on its outline, negative outside."""
    u, v = turned(x - centre[0], y - centre[1], angle)
    a, b = radii
    scaled = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    return (1 - scaled) * min(a, b)


def outline(generator: np.random.Generator, roughness: float, lowest: int = 2, highest: int = 7) -> Field:
    """Random harmonics (2, highest + 1) of an outline's radius; deviation of the relative radius about `roughness`."""
    order = np.arange(highest + 1)
    height = np.where(order >= lowest, 1.0 / np.maximum(order, 1), 0.0)
    height *= roughness / np.sqrt(np.sum(height**2))
    waves: Field = generator.standard_normal((2, highest + 1)) * height
    return waves


def blob(x: Field, y: Field, centre: tuple[float, float], radius: float, waves: Field) -> Field:
    """How far inside a rounded, irregular shape a point lies; `waves` from `outline`."""
    u, v = x - centre[0], y - centre[1]
    distance = np.hypot(u, v)
    turn = (u + 1j * v) / np.maximum(distance, 1e-9)
    reach = np.zeros(turn.shape, dtype=np.complex128)
    for cosine, sine in waves.T[:0:-1]:  # Horner: Σ (c cos nφ + s sin nφ) is the real part of Σ (c − is) e^{inφ}
        reach = (reach + complex(cosine, -sine)) * turn
    return radius * np.maximum(1 + reach.real, 0.3) - distance


def stroke(
    x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0, sway: float = 0.0
) -> Field:
    """Distance to a curved line from `start` to `end`.

    `bend` is how far its middle lies off the straight line, `sway` the height of an S-curve on top.
    """
    along = np.array(end) - np.array(start)
    length = float(np.hypot(*along))
    u, v = turned(x - start[0], y - start[1], float(np.arctan2(along[1], along[0])))
    t = u / length
    beyond = np.maximum(np.maximum(-t, t - 1), 0) * length
    t = np.clip(t, 0, 1)
    off = v - bend * 4 * t * (1 - t) - sway * np.sin(2 * np.pi * t)
    slope = (bend * 4 * (1 - 2 * t) + sway * 2 * np.pi * np.cos(2 * np.pi * t)) / length
    return np.hypot(off / np.sqrt(1 + slope * slope), beyond)


def to_bytes(picture: Field) -> NDArray[np.uint8]:
    """A picture with values in [0, 1] as 8-bit values."""
    return np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)
