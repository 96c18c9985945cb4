"""What a result was made with: versions and hardware, nothing that names a person or a machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

_PACKAGES = (
    "pellucid",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "numpy",
    "scipy",
    "scikit-learn",
    "statsmodels",
    "pandas",
    "pyarrow",
    "zarr",
    "pillow",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions of what computes, the operating system, and the device with its threads or name."""
    return {
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
