"""Score-CAM, RISE and occlusion at equal evaluations against the peers that have them: the same maps first, then times.

Score-CAM is compared with pytorch-grad-cam, which enlarges masks with their corners aligned, and with TorchCAM, which
scales them before it enlarges them, so that both maps differ and a plain batched loop says whether ours is right;
occlusion with Captum. None of the installed peers has RISE: it too meets a plain batched loop over the same masks. Run
it on a machine that does nothing else:

    python benchmarks/bench_perturbation.py
    python benchmarks/bench_perturbation.py --quick   # on small images, to see that it works
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
from torch.nn.functional import interpolate

import pellucid
from pellucid.attribution import GridWarning
from pellucid.attribution.asking import generator_of
from pellucid.attribution.engine import image_seeds

TOLERANCE = 1e-3  # a softmax over channels, or a mean of thousands, of scores with float32's rounding
NETWORK = "resnet18"  # 512 channels, so that Score-CAM's peers end in time
ROWS = 32
CELLS = 7
TARGETS = {
    f"{peer} over ours": ("at least", 1.3)
    for peer in (
        "score-cam: pytorch-grad-cam",
        "score-cam: TorchCAM",
        "occlusion: Captum",
        "rise: plain loop",
    )
}
OTHER_MASKS = ("pytorch-grad-cam", "TorchCAM")  # their maps differ, and are shown for that
RESULTS = Path(__file__).parent / "results" / "perturbation.json"
Sides = Mapping[str, Callable[[], Tensor]]


def ours(model: nn.Module, images: Tensor, choice: Any, layer: str = "auto") -> Callable[[], Tensor]:
    """Our maps; of a CAM those at the layer."""

    def run() -> Tensor:
        explanation = pellucid.explain(model, images, choice, target=0, layer=layer, batch_size=ROWS)
        (maps,) = (explanation.layer_maps or explanation.maps).values()
        return maps

    return run


def score_cam(model: nn.Module, images: Tensor, layer: str) -> Sides:
    with warnings.catch_warnings(action="ignore"):
        import pytorch_grad_cam.score_cam
        import torchcam.methods
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    pytorch_grad_cam.score_cam.tqdm.tqdm = lambda steps, **_: steps

    def grad_cam() -> Tensor:
        kept = []

        class Raw(pytorch_grad_cam.score_cam.ScoreCAM):  # type: ignore[misc]
            def get_cam_image(self, *args: Any, **options: Any) -> Any:
                kept.append(super().get_cam_image(*args, **options))
                return kept[-1]

        with Raw(model=model, target_layers=[model.get_submodule(layer)]) as engine:
            engine.batch_size = ROWS
            engine(images, [ClassifierOutputTarget(0)] * len(images))
        return torch.from_numpy(kept[0]).relu()

    def torchcam_maps() -> Tensor:
        with (
            torchcam.methods.ScoreCAM(model, layer, batch_size=ROWS, input_shape=images.shape[1:]) as engine,
            torch.no_grad(),
        ):
            (maps,) = engine(0, model(images), normalized=False)
        return maps.cpu()

    def loop() -> Tensor:
        kept = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, out: kept.append(out[0]))
        with torch.no_grad():
            model(images)
            handle.remove()
            masks = interpolate(kept[0].unsqueeze(1), images.shape[2:], mode="bilinear")
            least, most = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            masks = torch.where(most > least, (masks - least) / (most - least), 0)
            scores = torch.cat([model(images * some)[:, 0] for some in masks.split(ROWS)])
        return torch.einsum("k,kyx->yx", scores.softmax(dim=0), kept[0]).relu().unsqueeze(0).cpu()

    return {
        "ours": ours(model, images, "score-cam", layer),
        "plain loop": loop,
        "pytorch-grad-cam": grad_cam,
        "TorchCAM": torchcam_maps,
    }


def occlusion(model: nn.Module, images: Tensor, window: int) -> Sides:
    import captum.attr

    engine = captum.attr.Occlusion(model)

    def captum_maps() -> Tensor:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            found = engine.attribute(
                images,
                (images.shape[1], window, window),
                strides=(images.shape[1], window // 2, window // 2),
                target=0,
                perturbations_per_eval=ROWS // len(images),
            )
        return found[:, 0].float().cpu()

    choice = pellucid.method("occlusion", window=window, stride=window // 2)
    return {"ours": ours(model, images, choice), "Captum": captum_maps}


def rise(model: nn.Module, images: Tensor, samples: int) -> Sides:
    length, seeds = images.shape[-1], image_seeds(torch.Generator().manual_seed(0), len(images))
    cell = -(-length // CELLS)

    def masks(seed: int, draws: range) -> Tensor:
        sources = [generator_of(seed, draw) for draw in draws]
        grids = torch.stack([(torch.rand(CELLS, CELLS, generator=source) < 0.5).float() for source in sources])
        shifts = [(torch.rand(2, generator=source) * (cell + 1)).long().tolist() for source in sources]
        size = ((CELLS + 1) * cell,) * 2
        larger = interpolate(grids[:, None].to(images.device), size, mode="bilinear")
        return torch.stack([m[:, y : y + length, x : x + length] for m, (y, x) in zip(larger, shifts, strict=True)])

    def loop() -> Tensor:
        maps = []
        for image, seed in zip(images, seeds.tolist(), strict=True):
            total = torch.zeros(length, length, device=images.device)
            for start in range(0, samples, ROWS):
                some = masks(seed, range(start, min(start + ROWS, samples)))
                with torch.no_grad():
                    scores = model(image * some)[:, 0]
                total += torch.einsum("m,myx->yx", scores, some[:, 0])
            maps.append(total / (samples * 0.5))
        return torch.stack(maps).cpu()

    choice = pellucid.method("rise", samples=samples, cells=CELLS)
    return {"ours": ours(model, images, choice), "plain loop": loop}


def sides_of(method: str, model: nn.Module, images: Tensor, quick: bool) -> Sides:
    if method == "score-cam":
        return score_cam(model, images[:1], "layer1" if quick else "layer4")  # 64 or 512 channels
    if method == "occlusion":
        return occlusion(model, images, images.shape[-1] // (4 if quick else 8))
    return rise(model, images[:1], 64 if quick else 512)


def measure(method: str, model: nn.Module, images: Tensor, repeats: int, quick: bool) -> dict[str, Any]:
    """Errors of the peers' maps, and every side's time in turns."""
    sides = sides_of(method, model, images, quick)
    maps = {side: run() for side, run in sides.items()}
    errors = {side: largest_error(maps["ours"], theirs) for side, theirs in maps.items() if side != "ours"}
    times = in_turns(sides, repeats, images.device)
    ratios = {f"{method}: {side} over ours": ratio(times, side, "ours") for side in errors}
    return {"errors": errors, "seconds": medians(times), "all_seconds": times, "ratios": ratios}


def peak(side: str, size: int, device_name: str, quick: bool) -> float:
    """How much one side's Score-CAM adds to the memory that the network and images take, in MB."""
    device = torch.device(device_name)
    model = build(NETWORK, size, device)
    run = sides_of("score-cam", model, torch.randn(1, 3, size, size, device=device), quick)[side]
    before = forget(device)
    run()
    return highest(device) - before


def main() -> int:
    given = arguments_parser(__doc__, RESULTS, batch=2, repeats=3).parse_args()
    if given.quick:
        given.size, given.repeats = 64, 1
    warnings.simplefilter("ignore", GridWarning)
    device = torch.device(given.device)
    report: dict[str, Any] = {
        "surroundings": surroundings(device, "grad-cam", "torchcam", "captum"),
        "network": NETWORK,
        "size": given.size,
        "methods": {},
    }
    print(json.dumps(report["surroundings"], indent=2))
    model = build(NETWORK, given.size, device)
    images = torch.randn(given.batch, 3, given.size, given.size, device=device)
    passed = True
    for method in ("score-cam", "occlusion", "rise"):
        result = measure(method, model, images, given.repeats, given.quick)
        report["methods"][method] = result
        print(f"\n{method}\n    errors {result['errors']}")
        passed &= all(error <= TOLERANCE for side, error in result["errors"].items() if side not in OTHER_MASKS)
        passed &= judged(result["ratios"], TARGETS, given.quick)
    report["peak_megabytes"] = peaks(
        peak, ("ours", "pytorch-grad-cam", "TorchCAM"), given.size, given.device, given.quick
    )
    print(f"\nmemory of score-cam above the network and images, MB: {report['peak_megabytes']}")
    return finish(report, given.output, passed)


if __name__ == "__main__":
    sys.exit(main())
