"""What an image carries: its pixels, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.data.windows import Window


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """One image as stored.

    `pixels` (C, *S) in the file's own type, C 1 (grey) or 3 (RGB); of DICOM and of volumes in the units that the file
    states. `spacing` in mm per axis of S, `orientation` and `modality` where the file states them, else None. PNG,
    JPEG, TIFF and BMP state none of the three: their dots per inch speak of print. `orientation` of a DICOM picture or
    slice is its ImageOrientationPatient: six direction cosines, along rows first and then down columns.

    `affine` (4, 4) of a volume takes the indices (d, h, w) of a voxel, with a 1 behind them, to the place of its
    centre in mm, along axes that run to the patient's right, front and head; None for pictures.

    `units` are "HU", "SUVbw" or what else the file states; `laterality` "L", "R" or "B"; `window` is what the file
    wants to be shown by; `inverted` says that low values are bright (MONOCHROME1), which `pixels` leave as it is.
    `files` are the DICOM files that the image was made of, those of a volume in the order of its slices.
    """

    pixels: np.ndarray
    spacing: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    modality: str | None
    source: Path
    affine: np.ndarray | None = None
    units: str | None = None
    laterality: str | None = None
    window: Window | None = None
    inverted: bool = False
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    """What was mended or left out in reading, in plain words and without names."""
    windows: tuple[Window, ...] = ()
    """All windows that a DICOM file states, in its order; `window` is the first of them."""
