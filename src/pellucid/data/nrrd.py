"""NRRD files of maps: a few lines of text, then the voxels (https://teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import numpy as np

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def encode_nrrd(values: np.ndarray, affine: np.ndarray | None, spacing: Sequence[float] = (), about: str = "") -> bytes:
    """Values as a compressed NRRD file of float32; equal input, equal bytes.

    Arguments:
        values: (x, y, z), or (x, y, z, N) for N values of each voxel; the first axis lies fastest in the file. Without
            an affine (x, y) or (x, y, N) as well.
        affine: (4, 4), from the indices of x, y and z to mm right, front and up; it may be oblique or sheared. The file
            counts to the left and back, as most do. None where places aren't known.
        spacing: in mm for each spatial axis, where there is no affine but that is known.
        about: what the values are, on one line.
    """
    spatial = 3 if affine is not None else len(spacing) or min(values.ndim, 3)
    rest = values.ndim - spatial
    lines = ["NRRD0005", "# made by pellucid", "type: float", f"dimension: {values.ndim}"]
    if affine is not None:
        lines.append("space: left-posterior-superior")
    lines.append("sizes: " + " ".join(map(str, values.shape)))
    if affine is not None:
        towards = (_LPS @ affine)[:3]
        lines.append(
            "space directions: " + " ".join([*(_vector(towards[:, axis]) for axis in range(3)), *["none"] * rest])
        )
    elif spacing:
        lines.append("spacings: " + " ".join([*(repr(float(step)) for step in spacing), *["nan"] * rest]))
    lines.append("kinds: " + " ".join(["domain"] * spatial + ["list"] * rest))
    lines += ["endian: little", "encoding: gzip"]
    if affine is not None:
        lines.append("space origin: " + _vector((_LPS @ affine)[:3, 3]))
    if about:
        lines.append("content: " + " ".join(about.split()))
    data = np.asarray(values, "<f4").tobytes(order="F")
    return ("\n".join(lines) + "\n\n").encode() + gzip.compress(data, compresslevel=6, mtime=0)


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(each) + 0.0) for each in values) + ")"  # no "-0.0"
