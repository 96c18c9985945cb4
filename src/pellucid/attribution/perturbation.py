"""Perturbation methods that hide one part at a time, or many at random: the network may be any function.

Throughout, `score_of(rows, sample)` gives scores (M, T) of rows that derive from the images `sample`; `images` is
(B, C, *S), `seeds` (B,) one per image; `baseline` is what hidden pixels become, a value of the normalised image or a
tensor that broadcasts to one image (C, *S). Maps are (B, T, *S). No more than `score_of.rows` images are in flight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.attribution.asking import Scores, generator_of
from pellucid.attribution.baselines import baseline_of
from pellucid.attribution.families import perturbation
from pellucid.attribution.hiding import add_fields, asked, painted, region_scores, wide
from pellucid.attribution.superpixels import Regions, regions_of
from pellucid.errors import expected

Lengths = int | Sequence[int] | None


@perturbation("occlusion", source="Zeiler & Fergus 2014, section 4.2")
def occlusion(
    score_of: Scores,
    images: Tensor,
    seeds: Tensor,
    *,
    window: Lengths = None,
    stride: Lengths = None,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """How much the score falls when a window that slides over the image hides it, averaged over a pixel's windows.

    `window` and `stride` are in pixels, one for all axes or one per axis; by default an eighth of each axis and half
    the window. The last window of an axis is cut at the border.

    Raises:
        InputError: a window longer than its axis, or a stride that leaves pixels between windows.
    """
    shape = images.shape[2:]
    windows = _lengths("window", window, [-(-length // 8) for length in shape], shape)
    strides = _lengths("stride", stride, [-(-length // 2) for length in windows], windows)
    steps = [-(-(length - w) // s) + 1 for length, w, s in zip(shape, windows, strides, strict=True)]
    start, total, covered = _begin(score_of, images)

    def keep_of(sample: Tensor, draw: Tensor) -> Tensor:
        covers = torch.ones(len(draw))
        places = torch.unravel_index(draw, steps)
        for place, length, w, s in zip(places, shape, windows, strides, strict=True):
            offset = torch.arange(length) - (place * s).unsqueeze(1)
            inside = (offset >= 0) & (offset < w)  # (M, length)
            covers = covers.unsqueeze(-1) * inside.reshape(len(draw), *(1,) * (covers.ndim - 1), length)
        return 1 - covers

    counts = [torch.Size(steps).numel()] * len(images)
    for sample, _, keep, scores in asked(score_of, images, baseline_of(baseline, images), counts, keep_of):
        gone = 1 - keep.to(total)
        add_fields(total, sample, start[sample.to(start.device)] - scores, gone)
        add_fields(covered, sample, torch.ones_like(scores[:, :1]), gone)
    return total / covered


@perturbation("feature-ablation", source="Zeiler & Fergus 2014, section 4.2, over regions")
def feature_ablation(
    score_of: Scores, images: Tensor, seeds: Tensor, *, regions: Regions = 7, baseline: float | Tensor = 0.0
) -> Tensor:
    """How much the score falls when a region alone is hidden; each of its pixels bears the whole fall.

    `regions` is as in `superpixels.regions_of`: blocks per axis, "slic", whole numbers (*S) or a function.
    """
    labels = regions_of(images, regions)
    counts = [int(each.max()) + 1 for each in labels]
    start = score_of(images, torch.arange(len(images), device=images.device)).cpu().double()

    def kept(i: int, draw: Tensor) -> Tensor:
        return (draw.unsqueeze(1) != torch.arange(counts[i])).float()

    scores = region_scores(score_of, images, baseline_of(baseline, images), labels, counts, kept)
    return painted([start[i] - each for i, each in enumerate(scores)], labels, images)


@perturbation("rise", source="Petsiuk et al. 2018, eq. 6 and section 3.2")
def rise(
    score_of: Scores,
    images: Tensor,
    seeds: Tensor,
    *,
    samples: int = 4000,
    cells: int = 7,
    share: float = 0.5,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """Mean score of randomly masked images, weighed by how much of the pixel each mask kept, over the masks' mean.

    A mask is a grid of `cells` along each axis, each kept with probability `share`, enlarged linearly to one cell more
    and cut at a random place. The paper's scores are probabilities; pass `target=` a function for those.

    Raises:
        InputError: no samples or cells, or a share that isn't between 0 and 1.
    """
    for name, value in (("samples", samples), ("cells", cells)):
        if value < 1:
            raise expected(name, "at least 1", value)
    if not 0 < share <= 1:
        raise expected("share", "a probability above 0, at most 1", share)
    shape = images.shape[2:]
    _, total, _ = _begin(score_of, images)

    def keep_of(sample: Tensor, draw: Tensor) -> Tensor:
        grids, shifts = [], []
        for i, k in zip(sample, draw, strict=True):
            source = generator_of(int(seeds[i]), int(k))
            grids.append((torch.rand((cells,) * len(shape), generator=source) < share).float())
            shifts.append(torch.rand(len(shape), generator=source))
        return enlarged(torch.stack(grids).to(images.device), torch.stack(shifts).to(images.device), shape)

    counts = [samples] * len(images)
    for sample, _, keep, scores in asked(score_of, images, baseline_of(baseline, images), counts, keep_of):
        add_fields(total, sample, scores / (samples * share), keep.to(total))
    return total


def enlarged(grids: Tensor, shifts: Tensor, shape: Sequence[int]) -> Tensor:
    """Grids (M, *g) enlarged linearly to g + 1 cells along each axis, of which (M, *shape) is cut out.

    A cell is an axis's length over the grid's, rounded up. The cut begins at the share `shifts` (M, axes) in [0, 1) of
    the first cell, from none to all of it in whole pixels.

    >>> enlarged(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0]]), [4])  # the first 4 of 6 pixels
    tensor([[0.0000, 0.0000, 0.3333, 0.6667]])
    """
    fields = grids
    for axis, length in enumerate(shape):
        count = grids.shape[axis + 1]
        cell = -(-length // count)
        shift = (shifts[:, axis : axis + 1] * (cell + 1)).floor()  # 0 to one whole cell
        pixel = torch.arange(length, device=grids.device) + shift
        place = ((pixel + 0.5) * (count / ((count + 1) * cell)) - 0.5).clamp(0, count - 1)
        near = (1 - (place.unsqueeze(2) - torch.arange(count, device=grids.device)).abs()).clamp(min=0)
        fields = torch.einsum("mg...,msg->m...s", fields, near)  # each axis leaves the front and joins the end
    return fields


def _begin(score_of: Scores, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The whole images' scores (B, T), and sums to fill: (B, T, *S) and (B, 1, *S)."""
    start = score_of(images, torch.arange(len(images), device=images.device)).to(wide(images))
    total = start.new_zeros(len(images), start.shape[1], *images.shape[2:])
    return start, total, torch.zeros_like(total[:, :1])


def _lengths(argument: str, given: Lengths, usual: Sequence[int], most: Sequence[int]) -> list[int]:
    """One length per axis, each from 1 to the `most` it may be."""
    lengths = [given] * len(most) if isinstance(given, int) else list(usual if given is None else given)
    if len(lengths) != len(most) or not all(1 <= each <= top for each, top in zip(lengths, most, strict=True)):
        raise expected(argument, f"1 to {tuple(most)} pixels along the axes", given)
    return lengths
