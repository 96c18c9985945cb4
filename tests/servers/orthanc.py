"""An Orthanc of our own: on loopback, on free ports, in a folder of its own, gone when the block ends."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pellucid.data.pacs import Access

ROOT = Path(__file__).parents[2]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "radiographer", "made-up-secret"
TITLE = "ARCHIVE"
WEB = Access(user=USER, password=PASSWORD, timeout=20, attempts=3, pause=0.02)
DICOM = Access(timeout=20, attempts=3, pause=0.02)
WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []  # it dies even if pytest is killed
REFUSED = "REFUSED"  # the patient of whom it drops everything, saying that it was stored

FILTER = f"""
function ReceivedInstanceFilter(dicom, origin, info)
  return dicom.PatientID ~= '{REFUSED}'
end
"""


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line try again at once."""
    *others, _ = Access.__init__.__defaults__  # type: ignore[misc]
    monkeypatch.setattr(Access.__init__, "__defaults__", (*others, 0.001))


@functools.cache
def program() -> str:
    """Orthanc's path; the test is skipped where it can't be had."""
    script = ROOT / "tools" / "debian_packages.sh"
    done = subprocess.run(["sh", script, "orthanc", "orthanc-dicomweb"], capture_output=True, text=True, check=False)
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if done.returncode or found is None or not PLUGIN.exists():
        pytest.skip(f"Orthanc can't be had: {done.stderr.strip().splitlines()[-1:] or ['it is of another make']}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """One server, which may be killed and started again over the same storage."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.http_port, self.dicom_port, self.move_port = free_port(), free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "filter.lua").write_text(FILTER)
        self.settings: dict[str, Any] = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "LuaScripts": [str(folder / "filter.lua")],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": TITLE,
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "OverwriteInstances": False,
            "DicomModalities": {"pellucid": ["PELLUCID", "127.0.0.1", self.move_port]},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **settings,
        }
        (folder / "orthanc.json").write_text(json.dumps(self.settings))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def encrypted(self) -> bool:
        return bool(self.settings.get("SslEnabled"))

    @property
    def web(self) -> str:
        return f"http{'s' if self.encrypted else ''}://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def dicom(self) -> str:
        scheme = "dicom-tls" if self.settings.get("DicomTlsEnabled") else "dicom"
        return f"{scheme}://{TITLE}@127.0.0.1:{self.dicom_port}"

    def start(self) -> None:
        if self.process is not None:
            return
        with (self.folder / "log").open("ab") as log:
            command = [*WITH_US, program(), str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not all(map(listens, (self.http_port, self.dicom_port))):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Orthanc doesn't start:\n" + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a failing machine would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Orthanc's own interface, which isn't the one under test."""
        address = f"{self.web.removesuffix('/dicom-web')}{path}"
        options.setdefault("verify", False)
        with requests.request(method, address, auth=(USER, PASSWORD), timeout=10, **options) as answer:
            answer.raise_for_status()
            return answer.json() if answer.content else None

    def upload(self, *files: Path) -> None:
        for file in files:
            self.ask("POST", "/instances", data=file.read_bytes())

    def empty(self) -> None:
        for patient in self.ask("GET", "/patients"):
            self.ask("DELETE", f"/patients/{patient}")

    def count(self) -> int:
        return len(self.ask("GET", "/instances"))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """A server that is up within the block, with settings of Orthanc's configuration added or changed."""
    server = Orthanc(folder, **settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
