"""Draw docs/overview.png from a finished demo: `python tools/readme_picture.py runs/demo`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pellucid.attribution.resize import resize_maps
from pellucid.drawing import outline, overlay, to_picture
from pellucid.report.names import method_title

MODEL = "resnet10t"
METHODS = ("grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam", "ablation-cam", "random")
ROWS = (("brain", "glioma"), ("skin", "melanoma"), ("chest", "pneumonia"))


def main(output: Path, target: Path) -> None:
    figure = Figure(figsize=(1.55 * (len(METHODS) + 1), 1.62 * len(ROWS) + 0.3), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS), len(METHODS) + 1)
    for row, (dataset, label) in zip(axes, ROWS, strict=True):
        cell = output / dataset / MODEL / "fold-0"
        explained = pd.read_parquet(cell / "explained.parquet")
        known = explained[(explained["label"] == label) & explained["correct"]]
        position = int(known["probability"].idxmax())
        group = zarr.open_group(output / "data" / f"{dataset}_explained_fold-0.zarr", mode="r")
        image, mask = np.asarray(group["images"][position]), np.asarray(group["masks"][position])
        maps = zarr.open_group(cell / "maps.zarr", mode="r")
        row[0].imshow(outline(to_picture(image), mask))
        row[0].set_ylabel(f"{dataset}\n{label}", fontsize=9)
        for axis, method in zip(row[1:], METHODS, strict=True):
            values = torch.from_numpy(np.asarray(maps[method][position]))[None]
            axis.imshow(overlay(image, resize_maps(values, mask.shape)[0].numpy(), mask=mask))
    for axis, title in zip(axes[0], ("lesion outlined", *map(method_title, METHODS)), strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout(pad=0.4)
    target.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parents[1] / "docs" / "overview.png")
