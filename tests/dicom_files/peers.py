"""What GDCM and dcmtk make of a file, to hold this reader's values against."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut

from references.checkers import run

WORKER = Path(__file__).with_name("gdcm_worker.py")
CRASH = "ends its process"
REFUSAL = "refuses"
DECODERS = (("dcmconv", "+te"), ("dcmdjpeg",), ("dcmdjpls",), ("dcmdrle",))


@dataclass(frozen=True, eq=False)
class Peer:
    """Stored values (F, C, H, W), palettes and other colours as RGB; or why there are none."""

    values: np.ndarray | None
    reason: str = ""


def by_gdcm(files: Sequence[Path], folder: Path) -> list[Peer]:
    """Each file by GDCM, which starts again behind one that ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(WORKER), str(folder), *map(str, files)]
    while subprocess.run(command, check=False, capture_output=True).returncode:
        pass  # the file that it stopped at has begun, and is passed over
    found = []
    for number in range(len(files)):
        if (folder / f"{number}.npz").exists():
            with np.load(folder / f"{number}.npz") as stored:
                found.append(Peer(stored["values"]))
        else:
            found.append(Peer(None, REFUSAL if (folder / f"{number}.txt").exists() else CRASH))
    return found


def by_dcmtk(path: Path, folder: Path) -> Peer:
    """A file made plain by dcmtk, whose pixels pydicom then takes as they lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "plain.dcm"
    for name, *options in DECODERS:
        out.unlink(missing_ok=True)
        if run(name, *options, str(path), str(out)).returncode or not out.exists():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(out)
            if data.file_meta.TransferSyntaxUID.is_compressed or "Rows" not in data:
                continue
            try:
                return Peer(_plain_values(data))
            except (AttributeError, ValueError):  # no pixels, or too few
                continue
    return Peer(None, REFUSAL)


def _plain_values(data: pydicom.Dataset) -> np.ndarray:
    """Uncompressed pixels (F, C, H, W)."""
    frames = int(data.get("NumberOfFrames") or 1)
    values = data.pixel_array
    if data.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, data)
    return np.moveaxis(values.reshape(frames, data.Rows, data.Columns, -1), -1, 1)


def after_modality(stored: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """Stored values of a peer in the units that the file states, through pydicom and in double precision."""
    if stored.shape[1] != 1:
        return stored
    if header.get("Modality") == "RTDOSE":
        return stored * float(header.DoseGridScaling)
    return apply_modality_lut(stored, header)


def greys_by_dcmtk(path: Path, folder: Path, *options: str) -> np.ndarray | None:
    """A picture as dcmtk draws it with 8 bits; None where it doesn't."""
    out = folder / "drawn.pnm"
    out.unlink(missing_ok=True)
    done = run("dcm2pnm", *options, str(path), str(out))
    return None if done.returncode or not out.exists() else np.asarray(Image.open(out))
