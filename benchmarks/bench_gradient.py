"""Integrated gradients and SmoothGrad against Captum at equal steps: the same maps first, then time and peak memory.

Captum runs twice: as it comes, all steps at once, and with as many rows at once as ours. Both count for the time; its
memory is told of both, and judged as it comes. Run it on a machine that does nothing else:

    python benchmarks/bench_gradient.py
    python benchmarks/bench_gradient.py --quick   # on small images with few steps, to see that it works
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from measuring import (
    arguments_parser,
    build,
    finish,
    forget,
    highest,
    in_turns,
    judged,
    largest_error,
    medians,
    peaks,
    ratio,
    surroundings,
)
from torch import Tensor, nn

import pellucid

TOLERANCE = 1e-5
METHODS = ("integrated-gradients", "smooth-grad")
ROWS = 16
OURS, AT_ONCE, BY_ROWS = "ours", "Captum", f"Captum, {ROWS} rows at once"
TARGETS = {f"{method}: {side} over ours": ("at least", 1.1) for method in METHODS for side in (AT_ONCE, BY_ROWS)} | {
    f"{method}: our memory over Captum's": ("at most", 0.5) for method in METHODS
}
RESULTS = Path(__file__).parent / "results" / "gradient.json"
Sides = Mapping[str, Callable[[], Tensor]]


def integrated_gradients(model: nn.Module, images: Tensor, steps: int) -> Sides:
    import captum.attr

    engine = captum.attr.IntegratedGradients(model)

    def ours() -> Tensor:
        choice = pellucid.method("integrated-gradients", steps=steps)
        return pellucid.explain(model, images, choice, target=0, batch_size=ROWS).maps[choice.label]

    def captum_maps(rows: int | None) -> Tensor:
        found = engine.attribute(images, target=0, n_steps=steps, internal_batch_size=rows)
        return found.detach().sum(dim=1).float().cpu()

    return {OURS: ours, AT_ONCE: lambda: captum_maps(None), BY_ROWS: lambda: captum_maps(ROWS)}


def smooth_grad(model: nn.Module, images: Tensor, steps: int, noise: float = 0.15) -> Sides:
    import captum.attr

    engine = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    range_ = float(images.max() - images.min())

    def ours() -> Tensor:
        choice = pellucid.method("smooth-grad", samples=steps, noise=noise)
        return pellucid.explain(model, images, choice, target=0, batch_size=ROWS).maps[choice.label]

    def captum_maps(draws: int | None) -> Tensor:
        found = engine.attribute(
            images,
            nt_type="smoothgrad",
            nt_samples=steps,
            nt_samples_batch_size=draws,
            stdevs=noise * range_,
            target=0,
            abs=False,
        )
        return found.detach().abs().amax(dim=1).float().cpu()

    return {OURS: ours, AT_ONCE: lambda: captum_maps(None), BY_ROWS: lambda: captum_maps(max(1, ROWS // len(images)))}


def sides_of(method: str, model: nn.Module, images: Tensor, steps: int) -> Sides:
    return (integrated_gradients if method == "integrated-gradients" else smooth_grad)(model, images, steps)


def compare(images: Tensor) -> dict[str, float]:
    """Errors in float64, since rounding turns ReLUs of a deep network; SmoothGrad without noise, which is drawn."""
    model, image = build("resnet50", images.shape[-1], images.device).double(), images[:1].double()
    sides = {
        "integrated-gradients": integrated_gradients(model, image, 4),
        "smooth-grad": smooth_grad(model, image, 2, 0),
    }
    return {method: largest_error(each[OURS](), each[AT_ONCE]()) for method, each in sides.items()}


def peak(side: str, method: str, batch: int, size: int, steps: int, device_name: str) -> float:
    """How much one side adds to the memory that the network and images take, in MB."""
    device = torch.device(device_name)
    model = build("resnet50", size, device)
    images = torch.randn(batch, 3, size, size, device=device)
    run = sides_of(method, model, images, steps)[side]
    with warnings.catch_warnings(action="ignore"):
        before = forget(device)
        run()
    return highest(device) - before


def main() -> int:
    parser = arguments_parser(__doc__, RESULTS, batch=4, repeats=3)
    parser.add_argument("--steps", type=int, default=32)
    given = parser.parse_args()
    if given.quick:
        given.batch, given.size, given.repeats, given.steps = 2, 64, 1, 16
    warnings.simplefilter("ignore")
    device = torch.device(given.device)
    report: dict[str, Any] = {
        "surroundings": surroundings(device, "captum"),
        "batch": given.batch,
        "size": given.size,
        "steps": given.steps,
        "rows": ROWS,
        "methods": {},
    }
    print(json.dumps(report["surroundings"], indent=2))
    images = torch.randn(given.batch, 3, given.size, given.size, device=device)
    report["errors"] = compare(images)
    print(f"\nlargest relative differences in float64: {report['errors']}")
    passed = all(error <= TOLERANCE for error in report["errors"].values())
    model = build("resnet50", given.size, device)
    for method in METHODS:
        times = in_turns(sides_of(method, model, images, given.steps), given.repeats, device)
        memory = peaks(peak, list(times), method, given.batch, given.size, given.steps, given.device)
        ratios = {f"{method}: {side} over ours": ratio(times, side, OURS) for side in (AT_ONCE, BY_ROWS)}
        ratios[f"{method}: our memory over Captum's"] = memory[OURS] / memory[AT_ONCE]
        ratios[f"{method}: our memory over Captum's at equal rows"] = memory[OURS] / memory[BY_ROWS]
        report["methods"][method] = {
            "seconds": medians(times),
            "all_seconds": times,
            "peak_megabytes": memory,
            "ratios": ratios,
        }
        print(f"\n{method}\n    seconds {medians(times)}\n    memory, MB {memory}")
        passed &= judged(ratios, TARGETS, given.quick)
    return finish(report, given.output, passed)


if __name__ == "__main__":
    sys.exit(main())
