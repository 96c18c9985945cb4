"""What Debian's tools say of DICOM files: dicom3tools and dcmtk."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

_PACKAGES = {"dciodvfy": "dicom3tools"}  # all others come with dcmtk
_SCRIPT = Path(__file__).parents[2] / "tools" / "debian_packages.sh"


@functools.cache
def _missing(tool: str) -> str:
    """Why a tool can't be had; "" where it is there, or could be installed."""
    if shutil.which(tool):
        return ""
    done = subprocess.run(["sh", _SCRIPT, _PACKAGES.get(tool, "dcmtk")], capture_output=True, text=True, check=False)
    return "" if shutil.which(tool) else f"{tool} can't be had: {done.stderr.strip()[-300:]}"


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A tool's run; the test is skipped where it can't be had."""
    if reason := _missing(tool):
        pytest.skip(reason)
    return subprocess.run([tool, *arguments], capture_output=True, check=False)


def errors_of(path: Path) -> list[str]:
    """The errors that dciodvfy finds in a file."""
    said = run("dciodvfy", str(path)).stderr.decode(errors="replace")
    return [line for line in said.splitlines() if line.startswith("Error")]


def dumped(path: Path, tool: str = "dcmdump") -> str:
    """What dcmtk reads in a file; a failure where it reads no whole one."""
    ran = run(tool, "+U8", str(path))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.decode()
