"""ROAD against pytorch-grad-cam: the same perturbed images first, then the time of each, alternately, in one run.

Weights are random, at a trained network's scale: no download, and neither side's time depends on them. Run it on a
machine that does nothing else:

    python benchmarks/bench_road.py
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import build, finish, forget, highest, in_turns, medians, peaks, plain_forward, surroundings, timed
from torch import Tensor, nn
from torch.nn.functional import interpolate

import pellucid
from pellucid.attribution import Explanation
from pellucid.attribution.engine import PAPER_METHODS
from pellucid.metrics.imputation import linear_imputation
from pellucid.metrics.ranking import removal_count, removal_orders, removed_mask
from pellucid.metrics.road import FRACTIONS, road_curves
from pellucid.metrics.scores import Scores

TOLERANCE = 1e-3  # of the perturbed images, absolute
PEER_RATIO = 3.0  # the peer takes at least so many times as long
FORWARD_RATIO = 1.5  # one method over its forward passes
METHODS_RATIO = 1.4  # eight methods over theirs
EIGHT = (*PAPER_METHODS, "random", "center-gaussian", "sobel")
SIGNED = "xgrad-cam[positive=False]"  # one method's time is taken on a map without ties, which both sides rank alike
BATCH = 32
PEERS_TIES = 2  # pixels by which its threshold misses the share without ties
MEMORY_SIDES = ("forward", "our road", "eight methods", "peer")
RESULTS = Path(__file__).parent / "results" / "road.json"


def picture(size: int, device: torch.device) -> Tensor:
    """An image (1, 3, size, size) with detail at several scales, normalised."""
    draw = torch.Generator().manual_seed(1)
    image = torch.zeros(1, 3, size, size)
    for cells, strength in ((4, 1.0), (16, 0.5), (64, 0.3), (size, 0.1)):
        coarse = torch.randn(1, 3, cells, cells, generator=draw)
        image += strength * interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return ((image - image.mean()) / image.std()).to(device)


def explained(model: nn.Module, image: Tensor) -> Explanation:
    """The eight methods' maps and a signed one, scaled to [0, 1] as the peer expects them."""
    choices = [*EIGHT, pellucid.method("xgrad-cam", positive=False)]
    with warnings.catch_warnings(action="ignore"):
        explanation = pellucid.explain(model, image, choices)
    scaled = {}
    for name, maps in explanation.maps.items():
        low, high = maps.min(), maps.max()
        scaled[name] = (maps - low) / (high - low)
    return dataclasses.replace(explanation, maps=scaled)


def only(explanation: Explanation, *methods: str) -> Explanation:
    return dataclasses.replace(explanation, maps={method: explanation.maps[method] for method in methods})


def compare(image: Tensor, explanation: Explanation) -> dict[str, Any]:
    """Largest difference of our perturbed images from the peer's, noise off, over methods, fractions and orders."""
    from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst, RemoveMostRelevantFirst
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    imputer = NoisyLinearImputer(noise=0.0)
    picture_, size = image[0].cpu(), image.shape[2:]
    compared = tied = same_count = 0
    on_its_masks = on_our_masks = 0.0
    for maps in explanation.maps.values():
        orders = removal_orders(maps, torch.tensor([0]))
        sides = (RemoveMostRelevantFirst, maps[0]), (RemoveLeastRelevantFirst, 1 - maps[0])
        for (removal, shown), order in zip(sides, orders, strict=True):
            for fraction in FRACTIONS:
                percentile = 100 * (1 - fraction)
                removed = torch.from_numpy(shown.numpy() >= np.percentile(shown.numpy(), percentile))
                count = removal_count(fraction, size.numel())
                if abs(int(removed.sum()) - count) > PEERS_TIES:
                    tied += 1
                    continue
                with warnings.catch_warnings(action="ignore"):
                    theirs = removal(percentile, imputer)(picture_, maps[0])
                ours = linear_imputation(image, removed[None].to(image.device))[0].cpu()
                on_its_masks = max(on_its_masks, float((ours - theirs).abs().max()))
                compared += 1
                mine = removed_mask(order[0], count, size)
                if torch.equal(mine, removed):
                    same_count += 1
                    alone = linear_imputation(image, mine[None].to(image.device))[0].cpu()
                    on_our_masks = max(on_our_masks, float((alone - theirs).abs().max()))
    return {
        "perturbed_images_compared": compared,
        "left_out_for_ties": tied,
        "largest_difference": on_its_masks,
        "of_these_our_mask_is_the_same": same_count,
        "largest_difference_there": on_our_masks,
        "image_range": [float(image.min()), float(image.max())],
    }


def peers_road(model: nn.Module, image: Tensor, explanation: Explanation) -> float:
    """The peer's combined score of one image, on the signed map."""
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    targets = [ClassifierOutputSoftmaxTarget(int(explanation.target[0]))]
    with warnings.catch_warnings(action="ignore"):
        return float(ROADCombined()(image, explanation.maps[SIGNED].numpy(), targets, model)[0])


def our_road(model: nn.Module, image: Tensor, explanation: Explanation) -> float:
    """Our score, from the public call; of the first method."""
    table = pellucid.evaluate(model, image, explanation, metrics="road", batch_size=BATCH)
    return float(table["value"].iloc[0])


def rows_of(image: Tensor, explanation: Explanation) -> int:
    """How many images the network sees: what methods and orders have in common is seen once."""
    scores = Scores(lambda images, sample: torch.zeros(len(images), device=images.device), image)
    for maps in explanation.maps.values():
        road_curves(scores, maps.to(image.device), noise=0.0)
    return scores.rows


def imputations(image: Tensor, explanation: Explanation) -> Callable[[], Tensor]:
    """Only the 18 imputations of the signed map."""
    orders = removal_orders(explanation.maps[SIGNED], torch.tensor([0]))
    counts = [removal_count(fraction, image.shape[2:].numel()) for fraction in FRACTIONS]
    masks = torch.stack([removed_mask(order[0], count, image.shape[2:]) for order in orders for count in counts])
    masks = masks.to(image.device)
    return lambda: linear_imputation(image.expand(len(masks), -1, -1, -1), masks)


def measure(model: nn.Module, image: Tensor, explanation: Explanation, repeats: int, eight: bool) -> dict[str, Any]:
    """Median seconds of each side, taken in turns."""
    device = image.device
    single, many = only(explanation, SIGNED), only(explanation, *EIGHT)
    rows, all_rows = rows_of(image, single), rows_of(image, many)
    repeated = image.expand(all_rows, -1, -1, -1).clone()
    sides: dict[str, Callable[[], object]] = {
        f"{rows} plain forward passes": lambda: plain_forward(model, repeated[:rows], BATCH),
        "our road": lambda: our_road(model, image, single),
        "our imputations alone": imputations(image, explanation),
        "peer": lambda: peers_road(model, image, explanation),
    }
    if eight:
        sides[f"eight methods: {all_rows} plain forward passes"] = lambda: plain_forward(model, repeated, BATCH)
        sides["eight methods: our road"] = lambda: our_road(model, image, many)
    times = in_turns(sides, repeats, device)
    middle = medians(times)
    plain, ours, imputing, peer, *more = middle.values()
    result = {
        "seconds": middle,
        "all_seconds": times,
        "peer_over_ours": peer / ours,
        "ours_over_forward_passes": ours / plain,
        "imputations_over_forward_passes": imputing / plain,
    }
    return result | ({"eight_methods_over_forward_passes": more[1] / more[0]} if eight else {})


def peak(side: str, name: str, size: int, device_name: str) -> float:
    """How much one side adds to the memory that the network and image take, in MB."""
    device = torch.device(device_name)
    model, image = build(name, size, device), picture(size, device)
    explanation = explained(model, image)
    plain_forward(model, image)
    before = forget(device)
    if side == "forward":
        plain_forward(model, image.expand(19, -1, -1, -1).clone(), BATCH)
    elif side == "our road":
        our_road(model, image, only(explanation, SIGNED))
    elif side == "eight methods":
        our_road(model, image, only(explanation, *EIGHT))
    else:
        peers_road(model, image, explanation)
    return highest(device) - before


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat of one map, no judgement of the ratios")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.quick:
        given.repeats = 1
    return given


def show(report: dict[str, Any]) -> None:
    print("\nperturbed images, noise off")
    for key, value in report["equality"].items():
        print(f"  {key.replace('_', ' '):<48}{value if isinstance(value, int | list) else f'{value:.1e}'!s:>24}")
    print("scores with noise")
    for key, value in report["scores"].items():
        print(f"  {key:<48}{value:>24.5f}")
    print("seconds, median")
    for side, seconds in report["times"]["seconds"].items():
        print(f"  {side:<48}{seconds:>24.3f}")
    print("ratios")
    for key, value in report["times"].items():
        if "over" in key:
            print(f"  {key.replace('_', ' '):<48}{value:>24.2f}")
    print("memory above the network and image, MB")
    for side, megabytes in report["peak_megabytes"].items():
        print(f"  {side:<48}{megabytes:>24.0f}")


def main() -> int:
    given = arguments()
    device = torch.device(given.device)
    print(json.dumps(surroundings(device, "grad-cam", "scipy", "numba"), indent=2))
    model, image = build(given.network, given.size, device), picture(given.size, device)
    explanation = explained(model, image)
    first = timed(imputations(image, explanation), device)
    report: dict[str, Any] = {
        "surroundings": surroundings(device, "grad-cam", "scipy", "numba"),
        "network": given.network,
        "size": given.size,
        "first_imputations_with_compilation_seconds": first,
        "equality": compare(image, only(explanation, SIGNED) if given.quick else explanation),
        "scores": {
            "ours": our_road(model, image, only(explanation, SIGNED)),
            "peer": peers_road(model, image, explanation),
        },
        "times": measure(model, image, explanation, given.repeats, eight=not given.quick),
        "peak_megabytes": peaks(peak, MEMORY_SIDES, given.network, given.size, given.device),
    }
    equality, times = report["equality"], report["times"]
    same = equality["perturbed_images_compared"] > 0 and equality["largest_difference"] <= TOLERANCE
    fast = given.quick or (
        times["peer_over_ours"] >= PEER_RATIO
        and times["ours_over_forward_passes"] <= FORWARD_RATIO
        and times["eight_methods_over_forward_passes"] <= METHODS_RATIO
    )
    report["passed"] = same and fast
    show(report)
    return finish(report, given.output, report["passed"])


if __name__ == "__main__":
    sys.exit(main())
