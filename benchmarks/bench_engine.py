"""Every CAM that needs the head alone against one forward pass, and CAMs and ablation against pytorch-grad-cam.

Maps are compared first, then times are taken alternately in one run. The peer's ablation is extrapolated from 64
channels of one image. Run it on a machine that does nothing else:

    python benchmarks/bench_engine.py
    python benchmarks/bench_engine.py --quick   # without the peer's ablation, on a batch of 2, to see that it works
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_cam import error_of_some_drops, largest_error, peers_ablation_seconds, peers_maps
from measuring import (
    arguments_parser,
    build,
    finish,
    forget,
    head_methods,
    highest,
    in_turns,
    judged,
    medians,
    peaks,
    plain_forward,
    ratio,
    surroundings,
)
from torch import Tensor, nn

import pellucid
from pellucid.attribution import GridWarning
from pellucid.models.layers import find_layer

TOLERANCE = 1e-4
FOUR = ("grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam")
COMPARED = ("grad-cam", "hires-cam", "eigen-cam", "xgrad-cam", "layer-cam", "eigen-grad-cam")  # the fifth: bench_cam.py
TARGETS = {
    "CAMs of the head": ("at least", 10),
    "CAMs of the head, over forward": ("at most", 1.3),
    "peer's four gradient CAMs over ours": ("at least", 6),
    "peer's ablation over ours, resnet50": ("at least", 500),
    "peer's ablation over ours, vgg16": ("at least", 50),
}
RESULTS = Path(__file__).parent / "results" / "engine.json"


def compare(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Errors of our signed maps relative to the peer's, those of all methods made in one call."""
    choices = [pellucid.method(name, positive=False) for name in head_methods()]
    explanation = pellucid.explain(model, images, choices)
    ours = dict(zip(head_methods(), (maps.numpy() for maps in explanation.layer_maps.values()), strict=True))
    errors = {}
    for name in COMPARED:
        theirs = peers_maps(name, model, explanation.layer, images, explanation.target)
        if "eigen" in name:  # its sign is what the decomposition happens to give
            theirs = theirs * np.sign((ours[name] * theirs).sum(axis=(1, 2), keepdims=True))
        errors[name] = largest_error(ours[name], theirs)
    return errors


def of_the_head(model: nn.Module, images: Tensor, repeats: int) -> dict[str, Any]:
    """All CAMs of the head and one plain forward pass, in turns."""
    names = head_methods()
    sides: dict[str, Callable[[], object]] = {
        "forward": lambda: plain_forward(model, images),
        "CAMs of the head": lambda: pellucid.explain(model, images, names, batch_size=len(images)),
    }
    times = in_turns(sides, repeats, images.device)
    ratios = {
        "CAMs of the head": float(len(names)),
        "CAMs of the head, over forward": ratio(times, "CAMs of the head", "forward"),
    }
    return {"methods": names, "batch": len(images), "seconds": medians(times), "all_seconds": times, "ratios": ratios}


def four(model: nn.Module, images: Tensor, repeats: int) -> dict[str, Any]:
    """The paper's four gradient CAMs in one call, and the peer's one after another."""
    layer, classes = find_layer(model), torch.zeros(len(images), dtype=torch.long)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: pellucid.explain(model, images, FOUR, target=0, batch_size=len(images)),
        "peer": lambda: [peers_maps(name, model, layer, images, classes) for name in FOUR],
    }
    times = in_turns(sides, repeats, images.device)
    ratios = {"peer's four gradient CAMs over ours": ratio(times, "peer", "ours")}
    return {"batch": len(images), "seconds": medians(times), "all_seconds": times, "ratios": ratios}


def ablation(name: str, images: Tensor, repeats: int, quick: bool) -> dict[str, Any]:
    """Ablation-CAM of a batch, and the peer's of one image times the batch."""
    model = build(name, images.shape[-1], images.device)
    error = error_of_some_drops(model, find_layer(model), images[:1], 0)
    ours = {"ours": lambda: pellucid.explain(model, images, "ablation-cam", target=0, batch_size=len(images))}
    times = in_turns(ours, repeats, images.device)
    result = {"error of 32 drops": error, "batch": len(images), "seconds": medians(times), "all_seconds": times}
    if quick:
        return {**result, "ratios": {}}
    seconds = peers_ablation_seconds(model, find_layer(model), images[:1], 0, full=False) * len(images)
    result["seconds"]["peer (one image, from 64 channels, times the batch)"] = seconds
    return {**result, "ratios": {f"peer's ablation over ours, {name}": seconds / result["seconds"]["ours"]}}


def peak(side: str, batch: int, size: int, device_name: str) -> float:
    """How much one side adds to the memory that ResNet50 and images take, in MB."""
    device = torch.device(device_name)
    model = build("resnet50", size, device)
    images = torch.randn(batch, 3, size, size, device=device)
    before = forget(device)
    if side == "forward":
        plain_forward(model, images)
    else:
        pellucid.explain(model, images, head_methods(), batch_size=batch)
    return highest(device) - before


def main() -> int:
    given = arguments_parser(__doc__, RESULTS).parse_args()
    batch, many, repeats = (2, 2, 1) if given.quick else (given.batch, 2 * given.batch, given.repeats)
    warnings.simplefilter("ignore", GridWarning)
    device = torch.device(given.device)
    report: dict[str, Any] = {"surroundings": surroundings(device, "grad-cam"), "size": given.size}
    print(json.dumps(report["surroundings"], indent=2))
    model = build("resnet50", given.size, device)
    images = torch.randn(many, 3, given.size, given.size, device=device)
    report["errors"] = compare(model, images[:2])
    report["parts"] = {
        "head": of_the_head(model, images, repeats),
        "four": four(model, images[:batch], repeats),
        **{f"ablation {name}": ablation(name, images[:batch], repeats, given.quick) for name in ("resnet50", "vgg16")},
    }
    report["peak_megabytes"] = peaks(peak, ("forward", "head"), many, given.size, given.device)
    errors = {**report["errors"], **{k: v["error of 32 drops"] for k, v in report["parts"].items() if "ablation" in k}}
    same = all(error <= TOLERANCE for error in errors.values())
    print(f"\nlargest relative differences: {', '.join(f'{name} {error:.0e}' for name, error in errors.items())}")
    print(f"memory above the network and images, MB: {report['peak_megabytes']}")
    met = judged({k: v for part in report["parts"].values() for k, v in part["ratios"].items()}, TARGETS, given.quick)
    return finish(report, given.output, same and met)


if __name__ == "__main__":
    sys.exit(main())
