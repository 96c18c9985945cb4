"""The script that installs Debian's packages: silent where they are there, plain where it can't, no service left."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "debian_packages.sh"


TOOLS = ("sh", "env", "tee", "chmod", "rm", "grep", "flock", "cat", "ls")


class Machine:
    """A PATH of stand-ins beside the few tools that the script needs; what they were called with is in `calls`."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls, self.policy = folder / "bin", folder / "calls", folder / "policy-rc.d"
        self.bin.mkdir()
        self.calls.touch()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is not None:
                (self.bin / tool).symlink_to(found)
        self.has("id", "echo 0")
        self.has("dpkg-query", f"echo 'install ok' $(cat {folder}/installed 2>/dev/null)")

    def has(self, name: str, does: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def run(self, *packages: str) -> subprocess.CompletedProcess[str]:
        sh = shutil.which("sh")
        assert sh is not None
        environment = {"PATH": str(self.bin), "PELLUCID_POLICY_RC": str(self.policy), "TMPDIR": str(self.bin.parent)}
        return subprocess.run([sh, SCRIPT, *packages], env=environment, capture_output=True, text=True, check=False)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_there_is_left_alone(machine: Machine) -> None:
    machine.has("dcmdump", "exit 9")
    machine.has("apt-get", f"echo called >> {machine.calls}")
    (machine.bin.parent / "installed").write_text("installed")
    done = machine.run("dcmtk", "some-package")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.called() == []


def test_what_lacks_is_installed_and_no_service_starts(machine: Machine) -> None:
    machine.has("apt-get", f'echo "$DEBIAN_FRONTEND $(cat {machine.policy}) $@" >> {machine.calls}')
    machine.has("systemctl", f'echo "systemctl $@" >> {machine.calls}')
    machine.has("dcmdump", "")
    done = machine.run("dcmtk", "one-package", "another")
    assert done.returncode == 0, done.stderr
    called = " ".join(machine.called())
    assert called.startswith("noninteractive #!/bin/sh exit 101 ")
    assert called.endswith("install -y --no-install-recommends one-package another")
    assert not machine.policy.exists()  # it was ours


def test_a_policy_of_others_is_kept(machine: Machine) -> None:
    machine.policy.write_text("theirs")
    machine.has("apt-get", f"cat {machine.policy} >> {machine.calls}")
    assert machine.run("one-package").returncode == 0
    assert machine.called() == ["theirs"]
    assert machine.policy.read_text() == "theirs"


def test_lists_are_renewed_where_a_package_is_not_found(machine: Machine) -> None:
    known = machine.bin / "known"
    machine.has(
        "apt-get", f'echo "$@" >> {machine.calls}; case "$*" in *update*) : > {known};; *) [ -e {known} ];; esac'
    )
    assert machine.run("one-package").returncode == 0
    assert [("update" in line, "one-package" in line) for line in machine.called()] == [
        *((False, True), (True, False), (False, True))
    ]


@pytest.mark.parametrize(
    ("stand_ins", "why"),
    [
        ({}, "this system has no apt-get"),
        ({"apt-get": "exit 0", "id": "echo 1000"}, "that needs root or sudo without a password"),
        ({"apt-get": "exit 0", "id": "echo 1000", "sudo": "exit 1"}, "that needs root or sudo without a password"),
        ({"apt-get": "exit 100"}, "apt-get failed"),
    ],
)
def test_where_it_cannot_it_says_what_to_do(machine: Machine, stand_ins: dict[str, str], why: str) -> None:
    for name, does in stand_ins.items():
        machine.has(name, does)
    done = machine.run("one-package", "another")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"not installed: one-package another ({why}). Install them by: sudo apt-get install one" in done.stderr
    assert not machine.policy.exists()


def test_sudo_without_a_password_serves(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    machine.has("sudo", f'echo "sudo $@" >> {machine.calls}; [ "$1" = -n ] || "$@"')
    machine.has("apt-get", "exit 0")
    assert machine.run("one-package").returncode == 0
    assert any(line.startswith("sudo env DEBIAN_FRONTEND=noninteractive apt-get") for line in machine.called())
    assert not machine.policy.exists()
