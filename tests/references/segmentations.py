"""DICOM segmentations as highdicom writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes


def write_segmentation(
    files: Sequence[Path],
    labels: np.ndarray,
    path: Path,
    kind: str = "BINARY",
    uid: str = "1.2.826.0.1.3680043.10.4",
    **options: Any,
) -> Path:
    """Write the segments (D, H, W) or (D, H, W, segments) of a series, its files given in another order."""
    order = np.random.default_rng(1).permutation(len(files))
    numbers = sorted(set(np.unique(labels).tolist()) - {0}) if labels.ndim == 3 else range(1, labels.shape[-1] + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Segmentation(
        [pydicom.dcmread(files[place]) for place in order], labels[order], SegmentationTypeValues[kind],
        [_described(int(each)) for each in numbers], uid, 1, f"{uid}.1", 1, "made up", "made up", "1", "1", **options,
    ).save_as(path)  # fmt: skip
    return path


def _described(number: int) -> SegmentDescription:
    return SegmentDescription(
        number, f"segment {number}", codes.SCT.Organ, codes.SCT.Liver, SegmentAlgorithmTypeValues.AUTOMATIC,
        AlgorithmIdentificationSequence("made up", codes.DCM.ArtificialIntelligence, "1"),
    )  # fmt: skip
