"""One DICOM file as a MedicalImage: decoded pixels in the file's units, and what it says of them."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from pellucid.data.whole import DecodeError
from pellucid.data.windows import Window

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")


def is_dicom(data: bytes, name: str) -> bool:
    """Whether a file is DICOM by its content, or at least by its name."""
    return data[128:132] == b"DICM" or name.lower().endswith(DICOM_ENDINGS)


def open_dataset(data: bytes) -> Dataset:
    """The data set of a file's bytes; raises DecodeError."""
    try:
        return pydicom.dcmread(io.BytesIO(data))
    except Exception as error:
        raise DecodeError(str(error)) from error


def values_of(dataset: Dataset) -> np.ndarray:
    """Pixels (F, C, H, W) of all frames: decoded, then through the modality LUT; colour as RGB."""
    pixels = apply_modality_lut(dataset.pixel_array, dataset)
    frames = int(getattr(dataset, "NumberOfFrames", 1) or 1)
    if int(dataset.SamplesPerPixel) == 1:
        return np.asarray(pixels).reshape(frames, 1, dataset.Rows, dataset.Columns)
    return np.moveaxis(np.asarray(pixels).reshape(frames, dataset.Rows, dataset.Columns, 3), -1, 1)


def window_of(dataset: Dataset, pixels: np.ndarray) -> Window:
    """The first window that a data set states, or the range of its values."""
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        centre, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        return Window(centre, width, "file's")
    low, high = float(pixels.min()), float(pixels.max())
    return Window((low + high) / 2, max(high - low, 1.0), "whole range", "linear-exact")
