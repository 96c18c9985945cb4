"""Every CAM that needs the head alone, 3-D DenseNet121 on 128³ voxels: time over a forward pass, and memory.

Run it on a machine that does nothing else:

    python benchmarks/bench_volume.py
    python benchmarks/bench_volume.py --quick   # on 64³ voxels, to see that it works
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import monai.networks.nets
import torch
from measuring import (
    arguments_parser,
    finish,
    forget,
    head_methods,
    highest,
    in_turns,
    judged,
    largest_error,
    medians,
    peaks,
    plain_forward,
    ratio,
    surroundings,
)
from torch import Tensor, nn

import pellucid
from pellucid.attribution import GridWarning

TOLERANCE = 1e-4
LAYER = "class_layers.relu"
TARGETS = {"CAMs of the head, over forward": ("at most", 1.5), "gibibytes in all": ("at most", 4.0)}
RESULTS = Path(__file__).parent / "results" / "volume.json"


def network(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return monai.networks.nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=4).to(device).eval()


def by_hand(model: nn.Module, volumes: Tensor) -> dict[str, Tensor]:
    """Signed HiResCAM and Grad-CAM by a hook and a whole backward pass."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = model.get_submodule(LAYER).register_forward_hook(keep)
    model(volumes)[:, 0].sum().backward()
    handle.remove()
    model.zero_grad()
    activations, slopes = kept[0].detach(), kept[0].grad
    assert slopes is not None
    maps = {
        "hires-cam": (activations * slopes).sum(dim=1),
        "grad-cam": (activations * slopes.mean(dim=(2, 3, 4), keepdim=True)).sum(dim=1),
    }
    return {name: values.cpu() for name, values in maps.items()}


def compare(model: nn.Module, volumes: Tensor) -> dict[str, float]:
    expected = by_hand(model, volumes)
    choices = [pellucid.method(name, positive=False) for name in head_methods()]
    found = pellucid.explain(model, volumes, choices, target=0)
    ours = dict(zip(head_methods(), found.layer_maps.values(), strict=True))
    return {name: largest_error(ours[name], maps) for name, maps in expected.items()}


def peak(side: str, size: int, device_name: str) -> float:
    """Memory of a process that does one side and nothing else, the network and the volume included, in MB."""
    device = torch.device(device_name)
    model, volumes = network(device), torch.randn(1, 1, size, size, size, device=device)
    forget(device)
    if side == "forward":
        plain_forward(model, volumes)
    else:
        pellucid.explain(model, volumes, head_methods())
    return highest(device)


def main() -> int:
    parser = arguments_parser(__doc__, RESULTS, batch=1, repeats=3)
    parser.set_defaults(size=128)
    given = parser.parse_args()
    if given.quick:
        given.size, given.repeats = 64, 1
    warnings.simplefilter("ignore", GridWarning)
    device = torch.device(given.device)
    report: dict[str, Any] = {"surroundings": surroundings(device, "monai"), "size": given.size}
    print(json.dumps(report["surroundings"], indent=2))
    model = network(device)
    small = torch.randn(1, 1, 64, 64, 64, device=device)
    report["errors"] = compare(model, small)
    volumes = torch.randn(given.batch, 1, *(given.size,) * 3, device=device)
    names = head_methods()
    times = in_turns(
        {
            "forward": lambda: plain_forward(model, volumes),
            "CAMs of the head": lambda: pellucid.explain(model, volumes, names),
        },
        given.repeats,
        device,
    )
    memory = peaks(peak, ("forward", "CAMs of the head"), given.size, given.device)
    report |= {"methods": names, "seconds": medians(times), "all_seconds": times, "peak_megabytes": memory}
    report["ratios"] = {
        "CAMs of the head, over forward": ratio(times, "CAMs of the head", "forward"),
        "gibibytes in all": memory["CAMs of the head"] / 1024,
    }
    print(f"\nlargest relative differences: {report['errors']}\nseconds {medians(times)}\nmemory, MB {memory}")
    same = all(error <= TOLERANCE for error in report["errors"].values())
    return finish(report, given.output, judged(report["ratios"], TARGETS, given.quick) and same)


if __name__ == "__main__":
    sys.exit(main())
