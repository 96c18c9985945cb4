"""What every test shares: torchvision importable, and where the real images stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pellucid import torchvision_schemas as torchvision_schemas  # before timm, which imports torchvision
from servers.orthanc import Orthanc, running

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real images, ../shared/data, isn't there")
    return SHARED


@pytest.fixture(scope="session")
def _orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(_orthanc: Orthanc) -> Orthanc:
    """A PACS on loopback that holds nothing yet; one for all tests of a worker."""
    _orthanc.empty()
    return _orthanc
