"""Read damaged files one by one, in a process that may end with one of them.

Arguments: a folder to write to, the first number, the one behind the last, and their step. A line of FIRST.jsonl says
of each file what came of it, the seconds that it took, and the most memory that this process has held so far, in bytes;
FIRST.number is the file that it has begun with.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from pathlib import Path

import pydicom

from dicom_files.mutations import SECRET, dicom_bases, mutated, nifti_bases
from pellucid.data.images import read_image
from pellucid.data.intensity import grey_of
from pellucid.errors import UnreadableFileError

LIMIT = 4 * 2**30  # of addresses, so that a fault harms no other process
SLOW = 1.0  # seconds, from which on a file is timed again


def outcome(path: Path) -> str:
    try:
        image = read_image(path)
    except UnreadableFileError as error:
        text = str(error)
        if "index=" not in text:
            return _checked(text)
        try:
            image = read_image(path, 0)
        except UnreadableFileError as second:
            return _checked(str(second))
    grey = grey_of(image) if image.window is not None else None
    assert image.pixels.ndim == (3 if image.affine is None else 4)
    assert grey is None or (grey.min() >= 0 and grey.max() <= 1)
    return "read"


def _checked(text: str) -> str:
    assert "\n" not in text
    assert SECRET.decode() not in text
    return "refused: " + text.split(": ", 1)[1]


def main(folder: Path, first: int, last: int, step: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    logging.disable(logging.CRITICAL)
    data = Path(pydicom.__file__).parent / "data"
    dicom = dicom_bases([data / "test_files", data / "charset_files"])
    nifti = nifti_bases()
    with (folder / f"{first}.jsonl").open("a") as results:
        for number in range(first, last, step):
            name, content = mutated(number, dicom, nifti)
            path = folder / f"{first}-{name}"
            path.write_bytes(content)
            (folder / f"{first}.number").write_text(f"{number}")
            what, taken = timed(path)
            for _ in range(3):  # since others may have had the processor
                taken = min(taken, timed(path)[1]) if taken > SLOW else taken
            results.write(json.dumps([number, what, round(taken, 3), most_memory()]) + "\n")
            results.flush()


def most_memory() -> int:
    """Bytes; getrusage would count those of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def timed(path: Path) -> tuple[str, float]:
    begun = time.perf_counter()
    try:
        what = outcome(path)
    except Exception as error:  # noqa: BLE001 - any other error is what is looked for
        what = f"{type(error).__name__}: {error}"
    return what, time.perf_counter() - begun


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
