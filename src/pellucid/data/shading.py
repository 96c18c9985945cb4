"""The smooth shading of an image, found from its histogram alone, as N3 and N4 do."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

FloatArray: TypeAlias = NDArray[np.float64]

ROUNDS = 50  # per level, as N4's default
CHANGE = 1e-4  # of the field, as a coefficient of variation, below which a level is done; N4's 1e-3 stops too early

_BINS = 200
_SIDES = {2: 64, 3: 32}  # points per axis that the field is fitted to: it is smooth
_DEGREE = 3
_STIFFNESS = 1e-3  # of the penalty on bending, beside the mean weight of a control point


def log_bias_field(
    image: FloatArray, foreground: NDArray[np.bool_], levels: int, fwhm: float, noise: float
) -> FloatArray:
    """The logarithm of the shading (*S) by which an image was multiplied, its mean over the foreground 0.

    Arguments:
        image: (H, W) or (D, H, W), above 0 in the foreground.
        foreground: (*S) the pixels that count.
        levels: of 1, 2, 4, … spans of B-splines per axis, one after another.
        fwhm: of the Gaussian by which shading blurs the histogram of log intensities, in log units.
        noise: of the Wiener filter that takes the Gaussian out.

    Each round sharpens the histogram of the log image as corrected so far, and takes a smooth fit of what sharpening
    moved as shading (Tustison et al. 2010, eq. 4 to 7). Outside of the foreground the field is kept within the range
    that it has inside. It is 0 where the foreground is too small to fit to, or constant.
    """
    steps = tuple(slice(None, None, -(-length // _SIDES[image.ndim])) for length in image.shape)
    inside = foreground[steps]
    nothing = np.zeros(image.shape)
    if inside.sum() < (1 + _DEGREE) ** image.ndim:
        return nothing
    places = [np.linspace(-1, 1, length) for length in image.shape]
    coarse = [place[step] for place, step in zip(places, steps, strict=True)]
    logs = np.log(image[steps][inside])
    if np.ptp(logs) < np.finfo(np.float32).eps:
        return nothing
    field, found = nothing, np.zeros(len(logs))
    for level in range(levels):
        spans = 2**level
        rows = _rows([_basis(place, spans) for place in coarse], inside)
        solver = _solver(rows, spans + _DEGREE, image.ndim)
        weights = np.zeros(rows.shape[1])
        for _ in range(ROUNDS):
            corrected = logs - found
            step = solver @ (corrected - sharpened(corrected, fwhm, noise))
            weights += step
            moved = rows @ step
            found = found + moved
            ratio = np.exp(moved)
            if ratio.std() / ratio.mean() < CHANGE:
                break
        field = field + _grid(weights, [_basis(place, spans) for place in places])
    field = np.clip(field, field[foreground].min(), field[foreground].max())
    centred: FloatArray = field - field[foreground].mean()
    return centred


def sharpened(values: FloatArray, fwhm: float, noise: float) -> FloatArray:
    """What each log intensity (N,) was before a Gaussian blurred their histogram, on average.

    Source: Sled et al. 1998, eq. 9 to 12: the histogram is deconvolved by a Wiener filter, and the expectation of the
    true value, given the seen one, taken from the result.
    """
    low, high = float(values.min()), float(values.max())
    if high - low < np.finfo(np.float32).eps:
        return values.copy()
    slope = (high - low) / (_BINS - 1)
    place = (values - low) / slope
    left = np.minimum(place.astype(np.int64), _BINS - 2)
    right = place - left
    length = 4 * _BINS  # room for what the Gaussian moves beyond the ends
    start = (length - _BINS) // 2
    seen = np.bincount(left + start, 1 - right, length) + np.bincount(left + start + 1, right, length)
    away = np.minimum(np.arange(length), length - np.arange(length)) * slope
    blur = np.exp(-4 * np.log(2) * (away / fwhm) ** 2)
    response = np.fft.fft(blur / blur.sum()).real
    true = np.maximum(np.fft.ifft(np.fft.fft(seen) * response / (response**2 + noise)).real, 0)
    centres = low + (np.arange(length) - start) * slope
    weight = np.fft.ifft(np.fft.fft(true) * response).real
    total = np.fft.ifft(np.fft.fft(true * centres) * response).real
    known = weight > 1e-9 * weight.max()  # below it is rounding
    means = np.divide(total, weight, out=centres.copy(), where=known)
    moved: FloatArray = np.interp(values, centres, means)
    return moved


def _basis(place: FloatArray, spans: int) -> FloatArray:
    """Cubic B-splines (N, spans + 3) over [-1, 1], of equal spans, at each place."""
    knots = np.linspace(-1 - 2 * _DEGREE / spans, 1 + 2 * _DEGREE / spans, spans + 2 * _DEGREE + 1)
    inner = np.clip(place, knots[_DEGREE], knots[-_DEGREE - 1])  # the end knots are -1 and 1 but for rounding
    basis: FloatArray = BSpline.design_matrix(inner, knots, _DEGREE).toarray()
    return basis


def _rows(bases: list[FloatArray], inside: NDArray[np.bool_]) -> FloatArray:
    """All products of the axes' splines (N, control points) at the points of the grid that are inside."""
    product = np.ones((int(inside.sum()), 1))
    for basis, index in zip(bases, np.nonzero(inside), strict=True):
        product = (product[:, :, None] * basis[index][:, None, :]).reshape(len(product), -1)
    return product


def _solver(rows: FloatArray, points: int, axes: int) -> FloatArray:
    """The matrix (control points, N) of the least-squares fit with a penalty on bending (Eilers & Marx 1996)."""
    squares: FloatArray = rows.T @ rows
    bend: FloatArray = np.diff(np.eye(points), n=2, axis=0)
    penalty = np.zeros_like(squares)
    for axis in range(axes):
        product: NDArray[np.floating[Any]] = np.ones((1, 1))
        for other in range(axes):
            product = np.kron(product, bend.T @ bend if other == axis else np.eye(points))
        penalty += product
    squares += _STIFFNESS * np.trace(squares) / len(squares) * penalty
    solver: FloatArray = np.linalg.pinv(squares, hermitian=True) @ rows.T
    return solver


def _grid(weights: FloatArray, bases: list[FloatArray]) -> FloatArray:
    """The splines' sum (*S) on the whole grid."""
    field = weights.reshape([basis.shape[1] for basis in bases])
    for basis in bases:  # the first axis is summed and comes back as the last, so that all come round
        field = np.moveaxis(np.tensordot(basis, field, axes=(1, 0)), 0, -1)
    return field
