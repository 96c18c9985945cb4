"""What Debian's tools say of DICOM files: dicom3tools and dcmtk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} isn't installed")


def errors_of(path: Path) -> list[str]:
    """The errors that dciodvfy finds in a file."""
    needs("dciodvfy")
    ran = subprocess.run(["dciodvfy", str(path)], capture_output=True, check=False)
    return [line for line in ran.stderr.decode(errors="replace").splitlines() if line.startswith("Error")]


def dumped(path: Path, tool: str = "dcmdump") -> str:
    """What dcmtk reads in a file; a failure where it reads no whole one."""
    needs(tool)
    ran = subprocess.run([tool, "+U8", str(path)], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.decode()
