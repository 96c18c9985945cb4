"""ROAD written from Rong et al. 2022 in plain loops, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def neighbours(position: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Positions around one that lie inside the image, with weights by inverse squared distance."""
    for step in itertools.product((-1, 0, 1), repeat=len(shape)):
        squared = sum(abs(each) for each in step)
        place = tuple(at + by for at, by in zip(position, step, strict=True))
        if squared and all(0 <= at < length for at, length in zip(place, shape, strict=True)):
            yield place, 1.0 / squared


def system(image: Floats, removed: Mask) -> tuple[list[tuple[int, int, float]], Floats]:
    """The linear system's entries (row, column, value) and right-hand sides (n, C), for an image (C, *S)."""
    unknown = [tuple(int(at) for at in position) for position in np.argwhere(removed)]
    number = {position: row for row, position in enumerate(unknown)}
    entries: list[tuple[int, int, float]] = []
    right = np.zeros((len(unknown), image.shape[0]))
    for position, row in number.items():
        around = list(neighbours(position, removed.shape))
        total = sum(weight for _, weight in around)  # at the border fewer neighbours share a weight of 1
        entries.append((row, row, 1.0))
        for place, weight in around:
            if place in number:
                entries.append((row, number[place], -weight / total))
            else:
                right[row] += weight / total * image[(slice(None), *place)]
    return entries, right


def imputed(image: Floats, removed: Mask) -> Floats:
    """The image (C, *S) with removed pixels (*S) solved by a dense solver."""
    entries, right = system(image, removed)
    matrix = np.zeros((len(right), len(right)))
    for row, column, value in entries:
        matrix[row, column] += value
    return _with(image, removed, np.linalg.solve(matrix, right))


def imputed_sparse(image: Floats, removed: Mask) -> Floats:
    """The same by SciPy's direct solver, for sizes at which a dense matrix is too large."""
    entries, right = system(image, removed)
    rows, columns, values = zip(*entries, strict=True)
    matrix = scipy.sparse.csc_array((values, (rows, columns)), shape=(len(right), len(right)))
    return _with(image, removed, scipy.sparse.linalg.spsolve(matrix, right).reshape(right.shape))


def _with(image: Floats, removed: Mask, solution: Floats) -> Floats:
    filled = image.astype(np.float64)
    for row, position in enumerate(np.argwhere(removed)):
        filled[(slice(None), *position)] = solution[row]
    return filled


def order(saliency: Floats, ties: list[int], *, most_relevant_first: bool) -> list[int]:
    """Flat positions from first removed to last; equal values come in the order of `ties`."""
    values = saliency.ravel().tolist()
    sign = -1 if most_relevant_first else 1
    return sorted(range(len(values)), key=lambda position: (sign * values[position], ties.index(position)))


def mask(positions: list[int], count: int, shape: tuple[int, ...]) -> Mask:
    """The first `count` positions, marked."""
    removed = np.zeros(int(np.prod(shape)), bool)
    for position in positions[:count]:
        removed[position] = True
    return removed.reshape(shape)
