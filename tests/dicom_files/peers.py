"""What GDCM and dcmtk make of a file, to hold this reader's values against."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest

WORKER = Path(__file__).with_name("gdcm_worker.py")
CRASH = "it ends its process"
REFUSAL = "it refuses"
DECODERS = (("dcmconv", "+te"), ("dcmdjpeg",), ("dcmdjpls",), ("dcmdrle",))


@dataclass(frozen=True, eq=False)
class Peer:
    """Stored values (F, C, H, W) with colour as RGB, slope and intercept; or why there are none."""

    values: np.ndarray | None
    slope: float = 1.0
    intercept: float = 0.0
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
                found.append(Peer(stored["values"], float(stored["slope"]), float(stored["intercept"])))
        else:
            refused = (folder / f"{number}.txt").exists()
            found.append(Peer(None, reason=REFUSAL if refused else CRASH))
    return found


def tool(name: str) -> str:
    """A command of dcmtk; the test is skipped where it isn't installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"dcmtk's {name} isn't installed")
    return found


def by_dcmtk(path: Path, folder: Path) -> Peer:
    """A file made plain by dcmtk, whose pixels are then taken as they lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "plain.dcm"
    for name, *options in DECODERS:
        out.unlink(missing_ok=True)
        done = subprocess.run([tool(name), *options, str(path), str(out)], check=False, capture_output=True)
        if done.returncode or not out.exists():
            continue
        data = pydicom.dcmread(out)
        if data.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in data:
            continue
        return Peer(plain_values(data))
    return Peer(None, reason=REFUSAL)


def plain_values(data: pydicom.Dataset) -> np.ndarray:
    """Uncompressed pixels (F, C, H, W), through pydicom."""
    frames, samples = int(data.get("NumberOfFrames") or 1), data.SamplesPerPixel
    values = data.pixel_array.reshape(frames, data.Rows, data.Columns, samples)
    return np.moveaxis(values, -1, 1)
