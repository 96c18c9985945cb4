"""Where tensors live: the one place that turns `--device` into a device, and that waits for one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pellucid.errors import expected

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises InputError when the name isn't a device or this machine lacks it.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise expected("device", "auto, cpu, cuda, cuda:N or mps", repr(name)) from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise expected("device", "a device of this machine", repr(name), do="Use 'auto' or 'cpu'.")
    return device


def pick_devices(name: str = "auto") -> tuple[torch.device, ...]:
    """As `pick_device`, or several CUDA devices that follow one another, as in `cuda:0,1`.

    Raises InputError as `pick_device` does, or when the numbers don't follow one another.

    >>> pick_devices("cpu")
    (device(type='cpu'),)
    """
    first, *others = name.split(",")
    if not others:
        return (pick_device(name),)
    start = first.removeprefix("cuda:")
    numbers = [int(number) if number.isdigit() else -1 for number in (start, *others)]
    if not first.startswith("cuda:") or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise expected("device", "several as in 'cuda:0,1', one after the other", repr(name))
    return tuple(pick_device(f"cuda:{number}") for number in numbers)


def clock(device: torch.device | None) -> float:
    """Seconds of a clock that runs on, read once `device` has done its work; differences are times."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()
