"""Certificates made up for one test run, by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path
    both: Path  # in one file


def make(folder: Path, name: str, alternative: str = "IP:127.0.0.1", *, days: int = 2) -> Certificate:
    """A certificate that is signed by itself, for a host."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates can't be made: openssl isn't there")
    made = Certificate(*(folder / f"{name}.{ending}" for ending in ("crt", "key", "pem")))
    asked = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days), "-subj", f"/CN={name}"]
    asked += ["-addext", f"subjectAltName={alternative}", "-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(["openssl", "req", *asked], check=True, capture_output=True)
    made.both.write_text(made.key.read_text() + made.certificate.read_text())
    return made
