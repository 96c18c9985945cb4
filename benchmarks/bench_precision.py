"""What bfloat16 and compilation do to the maps and to the time: rank correlation with float32's, ResNet50.

Run it on a machine that does nothing else:

    python benchmarks/bench_precision.py
    python benchmarks/bench_precision.py --quick   # ResNet18 on small images, to see that it works
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from measuring import arguments_parser, build, finish, in_turns, medians, ratio, surroundings
from scipy.stats import spearmanr
from torch import Tensor

import pellucid
from pellucid.errors import PellucidError

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compile": True},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}
RESULTS = Path(__file__).parent / "results" / "precision.json"


def rank_correlation(maps: Tensor, others: Tensor) -> float:
    """Spearman's, over an image's places, averaged over images."""
    pairs = zip(maps.flatten(1).numpy(), others.flatten(1).numpy(), strict=True)
    return sum(float(spearmanr(one, two).statistic) for one, two in pairs) / len(maps)


def main() -> int:
    given = arguments_parser(__doc__, RESULTS, batch=4, repeats=3).parse_args()
    if given.quick:
        given.batch, given.size, given.repeats = 2, 64, 1
    steps = 4 if given.quick else 16
    warnings.simplefilter("ignore")
    device = torch.device(given.device)
    choices = {
        "grad-cam": pellucid.method("grad-cam", positive=False),  # where it is cut, ranks are tied
        "integrated-gradients": pellucid.method("integrated-gradients", steps=steps),
        "occlusion": pellucid.method("occlusion", window=given.size // 4, stride=given.size // 8),
    }
    report: dict[str, Any] = {
        "surroundings": surroundings(device),
        "batch": given.batch,
        "size": given.size,
        "steps": steps,
        "methods": {},
    }
    print(json.dumps(report["surroundings"], indent=2))
    model = build("resnet18" if given.quick else "resnet50", given.size, device)
    images = torch.randn(given.batch, 3, given.size, given.size, device=device)
    for name, choice in choices.items():

        def explained(way: str, choice: Any = choice) -> Tensor:
            found = pellucid.explain(model, images, choice, target=0, batch_size=16, **WAYS[way])
            (maps,) = (found.layer_maps or found.maps).values()
            return maps

        maps, refused = {}, {}
        for way in WAYS:
            try:
                maps[way] = explained(way)
            except PellucidError as error:  # no compiler here
                refused[way] = str(error)
        times = in_turns({way: lambda way=way: explained(way) for way in maps}, given.repeats, device)
        correlations = {way: rank_correlation(found, maps["float32"]) for way, found in maps.items()}
        ratios = {f"float32 over {way}": ratio(times, "float32", way) for way in maps if way != "float32"}
        report["methods"][name] = {
            "rank_correlation_with_float32": correlations,
            "seconds": medians(times),
            "all_seconds": times,
            "ratios": ratios,
            "refused": refused,
        }
        print(f"\n{name}")
        for way in maps:
            speed = ratios.get(f"float32 over {way}", 1.0)
            print(f"    {way:<24} rank correlation {correlations[way]:.4f}, {speed:.2f} times as fast as float32")
        for way, reason in refused.items():
            print(f"    {way:<24} {reason}")
    return finish(report, given.output, passed=True)


if __name__ == "__main__":
    sys.exit(main())
