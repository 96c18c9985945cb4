"""Where DICOM pixels lie: from the position and orientation of slices to an affine (PS3.3, C.7.6.2.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# DICOM counts millimetres to the patient's left and back, an affine of MedicalImage to the right and front
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def normal_of(orientation: Sequence[float]) -> np.ndarray:
    """The unit normal (3,) of slices, from ImageOrientationPatient: along rows first, then down columns."""
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def affine_of(
    position: Sequence[float], orientation: Sequence[float], pixel_spacing: Sequence[float], step: Sequence[float]
) -> np.ndarray:
    """The affine (4, 4) from (d, h, w) to mm right, front and up.

    Arguments:
        position: ImagePositionPatient of the first slice, mm.
        orientation: ImageOrientationPatient, six direction cosines.
        pixel_spacing: between rows, then between columns, mm.
        step: from one slice to the next (3,), mm, in the patient's coordinates.
    """
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column * pixel_spacing[0]  # one row further down runs along the column's direction
    affine[:3, 2] = row * pixel_spacing[1]
    affine[:3, 3] = position
    return _LPS_TO_RAS @ affine
