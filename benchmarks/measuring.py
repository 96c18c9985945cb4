"""What the benchmarks share: networks at a trained one's scale, times taken in turns, memory, and where it was run."""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import multiprocessing
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pellucid.torchvision_schemas  # isort: skip  # before timm, which imports torchvision
import timm
import torch
from torch import Tensor, nn

import pellucid
from pellucid.attribution import METHODS
from pellucid.devices import clock
from pellucid.files import write_json


def build(name: str, size: int, device: torch.device, channels: int = 3) -> nn.Module:
    """A network of timm with weights, norms and logits at a trained network's scale."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, in_chans=channels).to(device).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # zero where timm ends a residual branch; full size there makes a random network chaotic in its rounding
            low, high = (0.5, 1.5) if module.weight.any() else (0.15, 0.45)
            nn.init.uniform_(module.weight, low, high)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    nn.init.normal_(model.get_classifier().weight, 0, 0.05)
    with torch.no_grad():
        model(torch.randn(8, channels, size, size, device=device))  # running statistics
    return model.eval()


def head_methods() -> list[str]:
    """Every CAM that is made from one forward pass and the network after the layer."""
    families = ("cam", "rescoring-cam")
    return [entry.name for entry in METHODS if entry.family in families and "masked scores" not in entry.needs]


def plain_forward(model: nn.Module, images: Tensor, batch: int | None = None) -> None:
    """The floor under every figure: the images through the network, without gradients."""
    with torch.no_grad():
        for part in images.split(batch or len(images)):
            model(part)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes."""
    started = clock(device)
    run()
    return clock(device) - started


def in_turns(sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each side in every turn but the first, which warms up."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(repeats + 1):
        for side, run in sides.items():
            seconds = timed(run, device)
            if turn:
                times[side].append(seconds)
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {side: statistics.median(values) for side, values in times.items()}


def highest(device: torch.device) -> float:
    """Largest memory since the start or the last `forget`, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":  # not getrusage, whose figure a process takes over from the one that started it
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget(device: torch.device) -> float:
    """Forget the largest memory so far, where the system can; returns what is in use, in MB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:  # what building the network freed must not serve the run that is measured
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return highest(device)


def peaks(measure: Callable[..., float], sides: Sequence[str], *arguments: object) -> dict[str, float]:
    """`measure(side, *arguments)` in MB for each side, in a process of its own that has held nothing else."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for side in sides:
        with context.Pool(1) as pool:
            found[side] = pool.apply(measure, (side, *arguments))
    return found


def surroundings(device: torch.device, *packages: str) -> dict[str, Any]:
    """Versions and hardware."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm", "numpy", *packages)}
        | {"pellucid": pellucid.__version__, "python": platform.python_version()},
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def arguments_parser(text: str | None, results: Path, batch: int = 8, repeats: int = 5) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--quick", action="store_true", help="little of each, once; no judgement of the ratios")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=results)
    return parser


def ratio(times: Mapping[str, Sequence[float]], side: str, other: str) -> float:
    """How many times as long `side` took as `other`: the median over turns, in which both met the same load."""
    return statistics.median(one / two for one, two in zip(times[side], times[other], strict=True))


def largest_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of maps (B, ...) relative to the second's largest value, over images."""
    sizes = theirs.flatten(1).abs().amax(dim=1)
    return float(((ours - theirs).flatten(1).abs().amax(dim=1) / sizes).max())


def judged(ratios: Mapping[str, float], targets: Mapping[str, tuple[str, float]], quick: bool) -> bool:
    """Print each ratio with its target, ("at least" or "at most", value); whether all are met, or `quick`."""
    passed = True
    for name, value in ratios.items():
        bound, wanted = targets.get(name, ("", 0.0))
        met = not bound or (value >= wanted if bound == "at least" else value <= wanted)
        passed &= met
        goal = f"  ({bound} {wanted:g}{'' if met else ': missed'})" if bound else ""
        print(f"    {name:<64}{value:10.2f}{goal}")
    return passed or quick


def finish(report: Mapping[str, Any], output: Path, passed: bool) -> int:
    """Write the figures, say how it ended, and give the exit status."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, dict(report))
    print(f"\n{'passed' if passed else 'FAILED'}; written to {output}")
    return 0 if passed else 1
