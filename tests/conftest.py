"""What every test shares: torchvision importable, and where the real images stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid import torchvision_schemas as torchvision_schemas  # before timm, which imports torchvision

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real images, ../shared/data, isn't there")
    return SHARED
