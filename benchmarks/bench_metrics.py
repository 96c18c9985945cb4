"""Metrics against Quantus: the same values first, then the time of each, alternately, in one run; and memory.

Deletion curves, patches, steps and localisation of ResNet50 at 224 pixels, by both sides on the same maps. All of
Quantus' deterministic metrics run on grey images alone: its ROAD and IROF fail on colour, so that both kinds are timed,
colour without those two. Its sensitivity-n is another measure than the paper's and is left out. Weights are random, at
a trained network's scale. Both sides are forward passes, of which ours makes fewer, so that all metrics are timed in
each precision, compiled and not, before Quantus and after; the time to compile counts. Run it on a machine that does
nothing else:

    python benchmarks/bench_metrics.py
    python benchmarks/bench_metrics.py --many 100    # more than an hour on two cores
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from bench_road import picture
from measuring import (
    arguments_parser,
    build,
    finish,
    forget,
    highest,
    in_turns,
    judged,
    medians,
    peaks,
    plain_forward,
    ratio,
    surroundings,
    timed,
)
from torch import Tensor, nn

import pellucid
import pellucid.metrics.network as network_module
from pellucid.attribution import Explanation, frozen
from pellucid.attribution.engine import Precision, mixed
from pellucid.attribution.frozen import Frozen
from pellucid.devices import clock
from pellucid.files import read_json
from pellucid.metrics.deletion import patch_numbers, region_removals
from pellucid.metrics.evaluate import MissingValuesWarning
from pellucid.metrics.ranking import removal_orders
from pellucid.metrics.removals import First
from pellucid.metrics.scores import Scores

RESULTS = Path(__file__).parent / "results" / "metrics.json"
STEPS, PATCH, REGIONS = 56, 16, 100
REMOVED = range(1, 100, 2)  # Quantus' shares for ROAD, in per cent
BATCH = 32  # images at once that either side may take
FLOOR_BATCH = 4  # at which plain forward passes are fastest on two cores
TARGETS = {
    "pixel flipping / its forward passes": ("at most", 1.2),
    "Quantus' pixel flipping / ours": ("at least", 2.0),
    "Quantus' deterministic metrics / ours, compiled": ("at least", 5.0),  # all of them, on grey images
    "Quantus' deterministic metrics / ours in bfloat16": ("at least", 5.0),
    "Quantus' deterministic metrics / ours in bfloat16, compiled": ("at least", 5.0),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, compiled": {"compile": True},
    "ours in bfloat16": {"precision": "bfloat16"},
    "ours in bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}
THEIRS = "Quantus' deterministic metrics"
SAME = 1e-4  # of a probability, or of a share
MEMORY = 512 << 20
FLAT = 1.25  # the peak of four times the images over that of a few


def case(
    name: str, size: int, images: int, methods: int, device: torch.device, channels: int = 3
) -> tuple[nn.Module, Tensor, Explanation]:
    """A network, images, and maps without ties by so many methods."""
    model = build(name, size, device, channels)
    first = picture(size, device)[:, :channels]
    pixels = torch.cat([first.roll(37 * place, dims=(2 + place % 2)) for place in range(images)])
    smooth = [pellucid.method("xgrad-cam", positive=False), "saliency", "input-x-gradient", "smooth-grad", "sobel"]
    with warnings.catch_warnings(action="ignore"):
        explanation = pellucid.explain(model, pixels, smooth[:methods], batch_size=8)
    scaled = {}
    for label, maps in explanation.maps.items():
        low, high = maps.flatten(1).amin(dim=1).view(-1, 1, 1), maps.flatten(1).amax(dim=1).view(-1, 1, 1)
        apart = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))  # breaks the ties of a resized CAM
        scaled[label] = (maps - low) / (high - low) + 1e-3 * (1 + apart)  # above zero, as some of Quantus' need
    return model, pixels, dataclasses.replace(explanation, maps=scaled)


def masks_of(images: Tensor) -> Tensor:
    masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    low, high = images.shape[2] // 4, images.shape[2] // 2
    masks[:, low:high, low:high] = True
    return masks


def ours(size: int, channels: int = 3) -> list[Any]:
    """What Quantus has too, with its options."""
    grey_only = [pellucid.metric("road-morf", fractions=tuple(share / 100 for share in REMOVED)), "irof"]
    return [
        *(grey_only if channels == 1 else []),
        pellucid.metric("pixel-flipping", features_in_step=size * size // STEPS),
        pellucid.metric("selectivity", patch_size=PATCH),
        pellucid.metric("region-perturbation", patch_size=PATCH, regions=REGIONS, fill="zero"),
        pellucid.metric("faithfulness-estimate", steps=STEPS),
        pellucid.metric("monotonicity", steps=STEPS),
        "sufficiency",
        "pointing-game",
        "energy-pointing",
        "relevance-rank",
        "top-k-intersection",
        "auroc",
    ]


def quantus_metrics(size: int, channels: int) -> dict[str, Any]:
    """Quantus' counterparts with the same options; it takes channels apart, so that its steps are three times ours."""
    import quantus

    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # type: ignore[attr-defined]  # noqa: NPY201 - its IROF asks for it
    quiet: dict[str, Any] = {"disable_warnings": True, "normalise": False, "return_aggregate": False}
    zero = {"perturb_baseline": 0.0}
    step = size * size // STEPS
    grey_only = {"road": quantus.ROAD(percentages=list(REMOVED), **quiet), "irof": quantus.IROF(**quiet)}
    return {
        **(grey_only if channels == 1 else {}),
        "pixel-flipping": quantus.PixelFlipping(features_in_step=step, **zero, **quiet),
        "selectivity": quantus.Selectivity(patch_size=PATCH, **zero, **quiet),
        "region-perturbation": quantus.RegionPerturbation(
            patch_size=PATCH, regions_evaluation=REGIONS, order="morf", **zero, **quiet
        ),
        "faithfulness-estimate": quantus.FaithfulnessEstimate(features_in_step=step, **zero, **quiet),
        "monotonicity": quantus.Monotonicity(features_in_step=step, **zero, **quiet),
        "sufficiency": quantus.Sufficiency(threshold=0.6, **quiet),
        "pointing-game": quantus.PointingGame(**quiet),
        "attribution-localisation": quantus.AttributionLocalisation(**quiet),
        "relevance-mass": quantus.RelevanceMassAccuracy(**quiet),
        "relevance-rank": quantus.RelevanceRankAccuracy(**quiet),
        "top-k-intersection": quantus.TopKIntersection(k=1000, **quiet),
        "auc": quantus.AUC(**quiet),
    }


class Quantus:
    """Runs Quantus' metrics on the maps of each method."""

    def __init__(self, model: nn.Module, images: Tensor, explanation: Explanation, masks: Tensor) -> None:
        self.model, self.device = model, images.device
        self.images, self.labels = images.cpu().numpy(), explanation.target.numpy()
        self.maps = {label: maps.unsqueeze(1).numpy() for label, maps in explanation.maps.items()}
        self.masks = masks.unsqueeze(1).numpy()
        self.metrics = quantus_metrics(images.shape[2], images.shape[1])

    def __call__(self, name: str) -> dict[str, Any]:
        found = {}
        for label, maps in self.maps.items():
            with warnings.catch_warnings(action="ignore"):
                found[label] = self.metrics[name](
                    model=self.model,
                    x_batch=self.images.copy(),
                    y_batch=self.labels.copy(),
                    a_batch=maps.copy(),
                    s_batch=self.masks.copy(),
                    device=str(self.device),
                    softmax=True,
                    batch_size=BATCH,
                )
        return found

    def all(self) -> None:
        for name in self.metrics:
            self(name)


def scores_of(model: nn.Module, images: Tensor, explanation: Explanation) -> Scores:
    target = explanation.target.to(images.device)

    def score_of(rows: Tensor, sample: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(part) for part in rows.split(BATCH)]).softmax(dim=1)[
                torch.arange(len(rows), device=rows.device), target[sample]
            ]

    return Scores(score_of, images)


def compare(model: nn.Module, images: Tensor, explanation: Explanation, masks: Tensor) -> dict[str, float]:
    """Largest difference of each value that both sides define alike."""
    theirs = Quantus(model, images, explanation, masks)
    scores = scores_of(model, images, explanation)
    size = images.shape[2]
    apart: dict[str, float] = {}

    def note(name: str, difference: float) -> None:
        apart[name] = max(apart.get(name, 0.0), difference)

    flipped, selected = theirs("pixel-flipping"), theirs("selectivity")
    for label, maps in explanation.maps.items():
        on_device = maps.to(images.device)
        order = removal_orders(on_device, scores.seeds)[0]
        counts = [size * size // STEPS * step for step in range(1, STEPS + 1)]
        curve = scores.without(First(order, counts), "zero").cpu()
        note("pixel flipping: curves", float((curve - torch.tensor(np.array(flipped[label]))[:, 2::3]).abs().max()))
        patches = region_removals(on_device, patch_numbers(maps.shape[1:], PATCH).expand(maps.shape), scores.seeds)
        curve = scores.without(patches, "zero").cpu()[:, 1:]
        given = torch.tensor(np.array(selected[label]))
        given = given[:, -curve.shape[1] :]  # it may begin with the image itself
        note("selectivity: curves", float((curve - given).abs().max()))
    table = pellucid.evaluate(model, images, explanation, ours(size)[-5:], masks)
    for mine, other in {
        "pointing-game": "pointing-game",
        "energy-pointing": "relevance-mass",
        "relevance-rank": "relevance-rank",
        "auroc": "auc",
    }.items():
        found = theirs(other)
        for label in explanation.maps:
            values = table[(table["metric"] == mine) & (table["method"] == label)]["value"].to_numpy()
            note(mine, float(np.abs(values - np.array(found[label], dtype=float)).max()))
    return apart


class Counted(nn.Module):
    """Counts the rows that the network sees, and the seconds that it takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows, self.seconds = model, 0, 0.0

    def forward(self, images: Tensor) -> Tensor:
        started = clock(images.device)
        outputs: Tensor = self.model(images)
        self.seconds += clock(images.device) - started
        self.rows += len(images)
        return outputs


class CountedFrozen(Frozen):
    """The same of a compiled network, of which all calls count."""

    rows, seconds = 0, 0.0

    def __call__(self, images: Tensor) -> Any:
        started = clock(images.device)
        outputs = super().__call__(images)
        CountedFrozen.seconds += clock(images.device) - started
        CountedFrozen.rows += len(images)
        return outputs


def rows_of(model: nn.Module, run: Callable[[nn.Module], object]) -> int:
    counted = Counted(model).eval()
    run(counted)
    return counted.rows


def peak(side: str, name: str, size: int, device_name: str) -> float:
    """What `evaluate` adds to the memory that network, images and maps take, in MB."""
    device = torch.device(device_name)
    count = int(side.split()[0])
    precision: Precision = "bfloat16" if "bfloat16" in side else "float32"
    model, images, explanation = case(name, size, count, 1, device)
    plain_forward(model, images[:1])
    compiled = side.endswith("compiled")
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    few = images[:1, :, :32, :32].contiguous()
    saliency = pellucid.explain(small.to(device), few, "saliency")
    pellucid.evaluate(small, few, saliency, "road", compile=compiled)  # loads code, which the bound doesn't count
    before = forget(device)
    choices = [
        pellucid.metric("pixel-flipping", features_in_step=size * size // 8),
        "road",
        pellucid.metric("selectivity", patch_size=2 * PATCH),
    ]
    pellucid.evaluate(model, images, explanation, choices, max_memory=MEMORY, precision=precision, compile=compiled)
    return highest(device) - before


def arguments() -> argparse.Namespace:
    parser = arguments_parser(__doc__, RESULTS, repeats=1)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--many", type=int, help="time so many images with five maps each alone; other figures stay")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of --many alone")
    parser.add_argument("--compile", action="store_true", help="with --many, compiled")
    return parser.parse_args()


def main() -> int:
    warnings.simplefilter("ignore", MissingValuesWarning)  # no two of the maps need be alike, as sufficiency asks
    given = arguments()
    device = torch.device(given.device)
    around = surroundings(device, "quantus")
    print(json.dumps(around, indent=2))
    before = dict(read_json(given.output)) if given.output.exists() else {}
    if given.many:
        found = many(given, device)
        peaked = {"peak MB at max_memory of 512 MB": float(found["peak_megabytes_above_its_input"])}
        held = judged(peaked, dict.fromkeys(peaked, ("at most", MEMORY / 2**20)), quick=False)
        before[f"many in {given.precision}{', compiled' * given.compile}"] = found | {"surroundings": around}
        return finish(before, given.output, passed=held and bool(before.get("passed", True)))
    images_count = 1 if given.quick else given.images
    model, images, explanation = case(given.network, given.size, images_count, 2, device)
    masks = masks_of(images)
    equal = compare(model, images[:1], explanation[:1], masks[:1])
    same = judged(equal, dict.fromkeys(equal, ("at most", SAME)), quick=False)

    theirs = Quantus(model, images, explanation, masks)
    first = dataclasses.replace(explanation, maps=dict([next(iter(explanation.maps.items()))]))
    flipping = ours(given.size)[0]
    rows = rows_of(model, lambda net: pellucid.evaluate(net, images, first, flipping, batch_size=BATCH))
    repeated = images.repeat(-(-rows // len(images)), 1, 1, 1)[:rows]
    one = Quantus(model, images, first, masks)
    sides: dict[str, Callable[[], object]] = {
        "forward passes of pixel flipping": lambda: plain_forward(model, repeated, FLOOR_BATCH),
        "our pixel flipping": lambda: pellucid.evaluate(model, images, first, flipping, batch_size=BATCH),
        "Quantus' pixel flipping": lambda: one("pixel-flipping"),
    }
    times = in_turns(sides, 1 if given.quick else max(given.repeats, 2), device)
    grey_model, grey, grey_maps = case(given.network, given.size, images_count, 2, device, channels=1)
    tables: dict[str, Any] = {}
    turns: dict[str, list[float]] = {}

    def on_grey(side: str) -> None:
        frozen._KNOWN.clear()  # the network is read anew each time
        tables[side] = pellucid.evaluate(
            grey_model, grey, grey_maps, ours(given.size, 1), masks, batch_size=BATCH, **SETTINGS[side]
        )

    everything: dict[str, Callable[[], object]] = {
        **{side: partial(on_grey, side) for side in SETTINGS},
        THEIRS: Quantus(grey_model, grey, grey_maps, masks).all,
        "ours on colour": lambda: pellucid.evaluate(
            model, images, explanation, ours(given.size), masks, batch_size=BATCH
        ),
        "Quantus' on colour, without ROAD and IROF": theirs.all,
    }
    if not given.quick:
        after = list(SETTINGS)[::-1]  # on both sides of Quantus, so that a machine that slows down slows both
        for side in [*SETTINGS, THEIRS, *after, *list(everything)[-2:]]:  # minutes each, and all are warm
            turns.setdefault(side, []).append(timed(everything[side], device))
        times |= {side: [mean(seconds)] for side, seconds in turns.items()}
    ratios: Mapping[str, float] = {
        "pixel flipping / its forward passes": ratio(times, "our pixel flipping", "forward passes of pixel flipping"),
        "Quantus' pixel flipping / ours": ratio(times, "Quantus' pixel flipping", "our pixel flipping"),
        "the same, by row (it scores three times as many)": ratio(
            times, "Quantus' pixel flipping", "our pixel flipping"
        )
        / 3,
    }
    report: dict[str, Any] = {"surroundings": around, "network": given.network, "size": given.size, "equality": equal}
    if not given.quick:
        plain = tables["ours"]
        for side in list(SETTINGS)[1:]:
            moved = (plain["value"] - tables[side]["value"]).abs()
            report[f"moved from ours to {side}"] = moved.groupby(plain["metric"]).max().to_dict()
        mine_colour, other_colour = list(everything)[-2:]
        ratios = dict(ratios) | {f"{THEIRS} / {side}": ratio(times, THEIRS, side) for side in SETTINGS}
        ratios["the same on colour, without ROAD and IROF"] = ratio(times, other_colour, mine_colour)
        report |= {name: figures for name, figures in before.items() if name.startswith("many in ")}
        sides_of_memory = ("4 images", "16 images", "16 images in bfloat16", "16 images, compiled")
        report["peak_megabytes"] = peaks(peak, sides_of_memory, given.network, given.size, given.device)
    report |= {"seconds": medians(times), "all_seconds": times | turns, "ratios": dict(ratios)}
    print("\nseconds, median")
    for side, seconds in report["seconds"].items():
        print(f"    {side:<64}{seconds:10.2f}")
    print("ratios")
    passed = judged(ratios, TARGETS, given.quick) and same
    if not given.quick:
        few, more, half, compiled = report["peak_megabytes"].values()
        limits = {
            "peak MB at max_memory of 512 MB": more,
            "the same in bfloat16": half,
            "the same compiled": compiled,
            "peak of 16 images / that of 4": more / few,
        }
        bounds = dict.fromkeys(limits, ("at most", MEMORY / 2**20)) | {
            "peak of 16 images / that of 4": ("at most", FLAT)
        }
        passed &= judged(limits, bounds, quick=False)
    report["passed"] = passed
    return finish(report, given.output, passed)


def many(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Five maps of each of several images, ours alone: seconds, and the share of them inside the network.

    Plain forward passes of as many rows run before and after every ten images, and what is known so far is kept.
    """
    model, images, explanation = case(given.network, given.size, given.many, 5, device)
    masks = masks_of(images)

    def run(net: nn.Module, part: slice) -> object:
        return pellucid.evaluate(
            net,
            images[part],
            explanation[part],
            ours(given.size),
            masks[part],
            batch_size=BATCH,
            max_memory=MEMORY,
            precision=given.precision,
            compile=given.compile,
        )

    def per_row() -> float:
        started = clock(device)
        with mixed(given.precision, device):
            plain_forward(model, block, FLOOR_BATCH)
        return (clock(device) - started) / len(block)

    network_module.Frozen = CountedFrozen  # type: ignore[misc, attr-defined]
    block = images.repeat(-(-BATCH * 2 // len(images)), 1, 1, 1)[: BATCH * 2]
    run(model, slice(0, 1))  # warm
    per_row()
    floors, seconds, found = [per_row()], 0.0, {}
    counted = CountedFrozen if given.compile else Counted(model).eval()
    CountedFrozen.rows, CountedFrozen.seconds = 0, 0.0
    network = model if given.compile else counted
    before = forget(device)
    for start in range(0, given.many, 10):
        part = slice(start, min(start + 10, given.many))
        started = clock(device)
        run(network, part)
        seconds += clock(device) - started
        floors.append(per_row())
        found = {
            "precision": given.precision,
            "compiled": given.compile,
            "images": part.stop,
            "maps_per_image": len(explanation.maps),
            "rows_scored": counted.rows,
            "seconds": seconds,
            "share_inside_the_network": counted.seconds / seconds,
            "seconds_over_those_of_as_many_plain_forward_passes": seconds / counted.rows / median(floors),
            "peak_megabytes_above_its_input": highest(device) - before,
            "load_at_end": os.getloadavg()[0],
        }
        print(json.dumps(found), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
