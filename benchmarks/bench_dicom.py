"""DICOM series and headers, as they would be read otherwise: SimpleITK's series reader, and bare pydicom.

Reading: a CT series of 512 × 512 × 300, from folder to volume, against SimpleITK's GetGDCMSeriesFileNames and
ImageSeriesReader. Scanning: the headers of 5,000 files, from folder to series, against pydicom.dcmread(path,
stop_before_pixels=True) of each file and nothing else, both in one thread. Files have the header of a real slice, and
have been read before, so that they are in the system's cache. Run it on a machine that does nothing else:

    python benchmarks/bench_dicom.py
    python benchmarks/bench_dicom.py --quick   # few and small, to see that it works
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from measuring import (
    arguments_parser,
    finish,
    forget,
    highest,
    in_turns,
    judged,
    medians,
    peaks,
    ratio,
    surroundings,
)
from pydicom.data import get_testdata_file

from pellucid.data.dicom.scan import forget_headers
from pellucid.data.dicom.series import Scan, scan
from pellucid.data.images import MedicalImage, read_image

TARGETS = {
    "SimpleITK, over pellucid, reading": ("at least", 1.0),
    "bare pydicom, over pellucid, scanning": ("at least", 0.8),
}
RESULTS = Path(__file__).parent / "results" / "dicom.json"
UID = "1.2.826.0.1.3680043.10.888"
SERIES_LENGTH = 250  # of those that are scanned


def write(folder: Path, count: int, size: int, length: int) -> Path:
    """Write `count` CT slices of `size` × `size`, `length` to a series, with a real slice's header."""
    folder.mkdir(parents=True)
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    template.Rows = template.Columns = size
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 2500, (size, size)).astype(np.int16)
    names = generator.permutation(count)
    for number in range(count):
        dataset = copy.copy(template)
        series, place = divmod(number, length)
        dataset.SeriesInstanceUID = f"{UID}.{series}"
        dataset.SOPInstanceUID = f"{UID}.{series}.{place}"
        dataset.file_meta = copy.copy(template.file_meta)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImagePositionPatient = [-150.0, -150.0, place * 1.25]
        dataset.InstanceNumber = place + 1
        dataset.PixelData = np.roll(noise, number, axis=1).tobytes()
        dataset.save_as(folder / f"IM{names[number]:06}")
    return folder


def by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def by_pellucid(folder: Path) -> MedicalImage:
    forget_headers()
    return read_image(folder)


def scanned(folder: Path) -> Scan:
    forget_headers()
    return scan([folder])


def by_pydicom(folder: Path) -> list[pydicom.FileDataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]


def same_volume(folder: Path) -> bool:
    image, reference = by_pellucid(folder), by_simpleitk(folder)
    assert image.affine is not None
    values = sitk.GetArrayViewFromImage(reference)
    ends = ((0, 0, 0), tuple(length - 1 for length in values.shape))
    places = [np.array([-1, -1, 1]) * (image.affine @ (*end, 1))[:3] for end in ends]
    wanted = [reference.TransformIndexToPhysicalPoint(end[::-1]) for end in ends]
    return bool(np.array_equal(image.pixels[0], values) and np.allclose(places, wanted, atol=1e-3))


def same_headers(folder: Path) -> bool:
    """Whether each file is in the series that pydicom says, at the place that it says."""
    told = {
        (str(each.filename), str(each.SeriesInstanceUID), float(each.ImagePositionPatient[2]))
        for each in by_pydicom(folder)
    }
    found = scanned(folder)
    own = {
        (str(header.path), series.uid, header.position[2])
        for series in found.series
        if series.stack is not None
        for header in series.stack.headers
        if header.position is not None
    }
    return not found.skipped and all(series.volume for series in found.series) and own == told


def peak(side: str, folder: str) -> float:
    """Memory of a process that reads the series and does nothing else, in MB."""
    forget(torch.device("cpu"))
    (by_simpleitk if side == "SimpleITK" else by_pellucid)(Path(folder))
    return highest(torch.device("cpu"))


def main() -> int:
    given = arguments_parser(__doc__, RESULTS).parse_args()
    slices, side, count, small = (30, 128, 200, 32) if given.quick else (300, 512, 5000, 256)
    repeats = 1 if given.quick else given.repeats
    device = torch.device("cpu")
    report: dict[str, Any] = {
        "surroundings": surroundings(device, "pydicom", "SimpleITK"),
        "series": [slices, side, side],
    }
    report["files"] = count
    print(json.dumps(report["surroundings"], indent=2))
    with tempfile.TemporaryDirectory() as place:
        series = write(Path(place) / "series", slices, side, slices)
        files = write(Path(place) / "files", count, small, SERIES_LENGTH)
        report["same"] = {"volumes": same_volume(series), "headers": same_headers(files)}
        reading = in_turns(
            {"SimpleITK": lambda: by_simpleitk(series), "pellucid": lambda: by_pellucid(series)}, repeats, device
        )
        scanning = in_turns(
            {"bare pydicom": lambda: by_pydicom(files), "pellucid": lambda: scanned(files)}, repeats, device
        )
        memory = peaks(peak, ("SimpleITK", "pellucid"), str(series))
    report |= {"reading_seconds": medians(reading), "scanning_seconds": medians(scanning), "peak_megabytes": memory}
    report |= {"all_reading_seconds": reading, "all_scanning_seconds": scanning}
    report["ratios"] = {
        "SimpleITK, over pellucid, reading": ratio(reading, "SimpleITK", "pellucid"),
        "bare pydicom, over pellucid, scanning": ratio(scanning, "bare pydicom", "pellucid"),
    }
    print(f"\nequal: {report['same']}\nreading {medians(reading)}\nscanning {medians(scanning)}\nmemory, MB {memory}")
    return finish(report, given.output, judged(report["ratios"], TARGETS, given.quick) and all(report["same"].values()))


if __name__ == "__main__":
    sys.exit(main())
