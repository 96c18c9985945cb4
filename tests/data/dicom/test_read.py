"""One DICOM file: its values, what it says of them, and one clear error where it can't be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from pellucid.data.images import read_image


def test_a_slice_has_its_values_units_and_place() -> None:
    path = Path(str(get_testdata_file("CT_small.dcm")))
    stored = pydicom.dcmread(path).pixel_array
    image = read_image(path)
    assert image.pixels.dtype == np.int16
    np.testing.assert_array_equal(image.pixels[0], stored.astype(int) - 1024)
    assert (image.units, image.modality, image.affine, image.files) == ("HU", "CT", None, (path,))
    assert image.spacing == (0.661468, 0.661468)
    assert image.orientation == (1, 0, 0, 0, 1, 0)
