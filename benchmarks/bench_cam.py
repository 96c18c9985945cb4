"""CAMs against pytorch-grad-cam: the same maps first, then the time of each, alternately, in one run.

Weights are random, drawn at a trained network's scale: no download, and neither side's time depends on them. Run
it on a machine that does nothing else:

    python benchmarks/bench_cam.py           # the peer's ablation extrapolated from 64 channels
    python benchmarks/bench_cam.py --full    # its whole ablation, about three minutes a network
    python benchmarks/bench_cam.py --quick   # without the peer's ablation, on a batch of 2, to see that it works
"""

from __future__ import annotations

import argparse
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

import pellucid
from pellucid.attribution import GridWarning
from pellucid.attribution.ablation import Ablation
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.capture import capture, gradients
from pellucid.attribution.engine import PAPER_METHODS
from pellucid.attribution.head import Head, Upstream
from pellucid.attribution.targets import Objective
from pellucid.models.layers import find_layer

TOLERANCE = 1e-4
TARGET_RATIO = 1.3
PEERS = {
    "grad-cam": "GradCAM",
    "hires-cam": "HiResCAM",
    "eigen-cam": "EigenCAM",
    "grad-cam-plus-plus": "GradCAMPlusPlus",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "eigen-grad-cam": "EigenGradCAM",
    "ablation-cam": "AblationCAM",
}
PAPER_PLUS_PLUS = "grad-cam-plus-plus without the peer's ε"  # differs, and is shown for that
EPSILON = 1e-6  # what the peer adds to Grad-CAM++'s denominator
PEERS_ROWS = 32  # how many ablated copies it runs at once
MEMORY_SIDES = ("forward", "five methods", "peer xgrad-cam")
RESULTS = Path(__file__).parent / "results" / "cam.json"


def peers_class(name: str, keep: list[np.ndarray]) -> Any:
    """The peer's method, keeping its maps as they are before it cuts and scales them."""
    with warnings.catch_warnings(action="ignore"):
        import pytorch_grad_cam
        import pytorch_grad_cam.ablation_cam

    pytorch_grad_cam.ablation_cam.tqdm.tqdm = lambda steps, **_: steps  # its own bar costs nothing, but clutters

    class Raw(getattr(pytorch_grad_cam, name)):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **options: Any) -> np.ndarray:
            keep.append(super().get_cam_image(*args, **options))
            return keep[-1]

    return Raw


def peers_maps(name: str, model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> np.ndarray:
    """The peer's signed maps at the layer's resolution."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kept: list[np.ndarray] = []
    targets = [ClassifierOutputTarget(k) for k in classes.tolist()]
    with peers_class(PEERS[name], kept)(model=model, target_layers=[model.get_submodule(layer)]) as engine:
        engine(images, targets)
    return kept[0]


def largest_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of two maps relative to the second's largest value, over images."""
    sizes = np.abs(theirs).max(axis=(1, 2))
    return float((np.abs(ours - theirs).max(axis=(1, 2)) / sizes).max())


def compare(model: nn.Module, images: Tensor, full: bool) -> dict[str, float]:
    """Errors of our signed maps relative to the peer's, by method."""
    choices = [pellucid.method(name, positive=False) for name in PAPER_METHODS]
    explanation = pellucid.explain(model, images, choices)
    ours = dict(zip(PAPER_METHODS, (maps.numpy() for maps in explanation.layer_maps.values()), strict=True))
    layer, classes = explanation.layer, explanation.target
    errors = {}
    for name in PAPER_METHODS:
        if name == "ablation-cam":
            continue
        theirs = peers_maps(name, model, layer, images, classes)
        if name == "eigen-grad-cam":  # its sign is what the decomposition happens to give
            theirs *= np.sign((ours[name] * theirs).sum(axis=(1, 2), keepdims=True))
        if name == "grad-cam-plus-plus":
            errors[PAPER_PLUS_PLUS] = largest_error(ours[name], theirs)
            errors[name] = largest_error(with_peers_epsilon(model, layer, images, classes), theirs)
        else:
            errors[name] = largest_error(ours[name], theirs)
    sign = np.sign(explanation.score[:1].numpy())  # it divides by y, we by |y|
    if full:
        theirs = peers_maps("ablation-cam", model, layer, images[:1], classes[:1]) * sign
        errors["ablation-cam"] = largest_error(ours["ablation-cam"][:1], theirs)
    else:
        errors["ablation-cam, 32 channels"] = error_of_some_drops(model, layer, images[:1], int(classes[0]))
    return errors


def with_peers_epsilon(model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> np.ndarray:
    """Our Grad-CAM++ with the peer's ε in the denominator, signed."""
    with borrowed(model):
        captured = capture(model, layer, images)
        (g,) = gradients(captured.outputs.gather(1, classes.to(images.device).unsqueeze(1)), captured.activations)
    a = captured.activations.detach()
    alpha = torch.where(g != 0, g**2 / (2 * g**2 + a.sum(dim=(2, 3), keepdim=True) * g**3 + EPSILON), 0)
    return torch.einsum("bk,bkhw->bhw", (alpha * g.relu()).sum(dim=(2, 3)), a).cpu().numpy()


def error_of_some_drops(model: nn.Module, layer: str, image: Tensor, wanted: int) -> float:
    """Error of our drops for 32 channels against the network run on activations without them."""
    with borrowed(model):
        upstream, aim = Upstream(), Objective(torch.tensor([[wanted]], device=image.device))
        captured = capture(model, layer, image, upstream)
        activations, scores = captured.activations.detach(), captured.outputs[:, wanted : wanted + 1]
        ablation, slopes = Ablation(Head(model, layer, upstream), 32), gradients(scores, captured.activations)
        drops = ablation.drops(image, activations, slopes, scores.detach(), aim)[0, 0]
    chosen = drops.abs().topk(32).indices

    def without(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        rows = output.repeat(33, 1, 1, 1)
        rows[torch.arange(32), chosen] = 0
        return rows

    handle = model.get_submodule(layer).register_forward_hook(without)
    with torch.no_grad():
        rows = model(image)[:, wanted]
    handle.remove()
    return float((drops[chosen] - (rows[32] - rows[:32])).abs().max() / drops.abs().max())


def peers_ablation_seconds(model: nn.Module, layer: str, image: Tensor, wanted: int, full: bool) -> float:
    """Seconds that the peer's ablation takes for one image, all channels, from two runs on few if not `full`."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    channels: list[int] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: channels.append(output.shape[1]))
    plain_forward(model, image)
    handle.remove()

    def seconds(share: float) -> float:
        module = model.get_submodule(layer)
        with (
            peers_class("AblationCAM", [])(
                model=model, target_layers=[module], batch_size=PEERS_ROWS, ratio_channels_to_ablate=share
            ) as engine,
            warnings.catch_warnings(action="ignore"),
        ):
            return timed(lambda: engine(image, [ClassifierOutputTarget(wanted)]), image.device)

    if full:
        return seconds(1.0)
    # a share r takes the r strongest and the r weakest channels; +0.1 lest rounding loses one
    one, two = (seconds((passes * PEERS_ROWS / 2 + 0.1) / channels[0]) for passes in (1, 2))
    return one + (channels[0] / PEERS_ROWS - 1) * (two - one)


def measure(model: nn.Module, images: Tensor, repeats: int, full: bool, quick: bool) -> dict[str, Any]:
    """Median seconds of each side, taken in turns."""
    layer, classes = find_layer(model), torch.zeros(len(images), dtype=torch.long)
    sides: dict[str, Callable[[], object]] = {
        "forward": lambda: plain_forward(model, images),
        "five methods": lambda: pellucid.explain(model, images, batch_size=len(images)),
    }
    for name in PAPER_METHODS:
        if name != "ablation-cam":
            sides[f"peer {name}"] = lambda name=name: peers_maps(name, model, layer, images, classes)
    times = in_turns(sides, repeats, images.device)
    middle = medians(times)
    ours, peer = middle["five methods"], sum(middle[side] for side in middle if side.startswith("peer"))
    ratios = {
        "five_methods_over_forward": ours / middle["forward"],
        "peer_without_ablation_over_five_methods": peer / ours,
    }
    if not quick:
        ablation = peers_ablation_seconds(model, layer, images[:1], 0, full) * len(images)
        how = "one image" if full else "one image, from 64 channels"
        middle[f"peer ablation-cam ({how}, times the batch)"] = ablation
        ratios["peer_over_five_methods"] = (peer + ablation) / ours
    return {"seconds": middle, "all_seconds": times, **ratios}


def peak(side: str, name: str, batch: int, size: int, device_name: str) -> float:
    """How much one side adds to the memory that the network and images take, in MB."""
    device = torch.device(device_name)
    model = build(name, size, device)
    images = torch.randn(batch, 3, size, size, device=device)
    before = forget(device)
    if side == "forward":
        plain_forward(model, images)
    elif side == "five methods":
        pellucid.explain(model, images, batch_size=batch)
    else:
        peers_maps("xgrad-cam", model, find_layer(model), images, torch.zeros(batch, dtype=torch.long))
    return highest(device) - before


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "vgg16"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a batch of 2, one repeat, no judgement of the ratio")
    parser.add_argument("--full", action="store_true", help="the peer's whole ablation, on one image")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.quick:
        given.batch, given.repeats = 2, 1
    return given


def show(name: str, result: dict[str, Any]) -> None:
    print(f"\n{name}\n  largest relative difference of the maps")
    for method, error in result["errors"].items():
        print(f"    {method:<36}{error:10.1e}")
    print("  seconds for the batch, median")
    for side, seconds in result["seconds"].items():
        print(f"    {side:<60}{seconds:10.3f}")
    print("  memory above the network and images, MB")
    for side, megabytes in result["peak_megabytes"].items():
        print(f"    {side:<36}{megabytes:10.0f}")
    print(f"  five methods over one forward pass: {result['five_methods_over_forward']:.2f} (at most {TARGET_RATIO})")
    if "peer_over_five_methods" in result:
        print(f"  the peer's five over ours: {result['peer_over_five_methods']:.0f}")
    print(f"  the peer's four without ablation over our five: {result['peer_without_ablation_over_five_methods']:.1f}")


def main() -> int:
    given = arguments()
    warnings.simplefilter("ignore", GridWarning)
    device = torch.device(given.device)
    report: dict[str, Any] = {
        "surroundings": surroundings(device, "grad-cam"),
        "batch": given.batch,
        "size": given.size,
        "networks": {},
    }
    print(json.dumps(report["surroundings"], indent=2))
    passed = True
    for name in given.networks:
        model = build(name, given.size, device)
        images = torch.randn(given.batch, 3, given.size, given.size, device=device)
        errors = compare(model, images[:2], given.full)
        same = all(error <= TOLERANCE for method, error in errors.items() if method != PAPER_PLUS_PLUS)
        result = {"errors": errors, "same": same, **measure(model, images, given.repeats, given.full, given.quick)}
        result["peak_megabytes"] = peaks(peak, MEMORY_SIDES, name, given.batch, given.size, given.device)
        report["networks"][name] = result
        show(name, result)
        passed &= same and (given.quick or result["five_methods_over_forward"] <= TARGET_RATIO)
    return finish(report, given.output, passed)


if __name__ == "__main__":
    sys.exit(main())
