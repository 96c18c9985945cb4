"""Hide parts of images and ask for the scores of what is left, a few rows at a time.

A field `keep` (M, *S) in [0, 1] says how much of each pixel stays; the rest is the baseline's. All channels of a pixel
are hidden together. Draws are numbered image by image, so that neither an image's fields nor its scores depend on the
batch it came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pellucid.attribution.asking import Scores


def hidden(images: Tensor, keep: Tensor, baseline: Tensor) -> Tensor:
    """Images (M, C, *S) where `keep` (M, *S) is 1, the baseline (C, *S) where it is 0, both by parts between.

    >>> hidden(torch.full((1, 1, 3), 4.0), torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[2.0, 2.0, 2.0]]))
    tensor([[[4., 3., 2.]]])
    """
    return torch.lerp(baseline.expand_as(images), images, keep.unsqueeze(1).to(images))


def asked(
    score_of: Scores,
    images: Tensor,
    baseline: Tensor,
    counts: Sequence[int],
    keep_of: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The scores of `counts[i]` hidden copies of each image i, in turn: `sample, draw, keep, scores`.

    `keep_of(sample (M,), draw (M,))` gives the fields (M, *S) of these draws of these images; both are on the CPU,
    where seeds are. At most `score_of.rows` rows are in flight.
    """
    for sample, draw in score_of.draws(counts):
        keep = keep_of(sample, draw).to(images.device)
        here = sample.to(images.device)
        yield sample, draw, keep, score_of(hidden(images[here], keep, baseline), here).to(wide(images))


def add_fields(total: Tensor, sample: Tensor, weights: Tensor, fields: Tensor) -> None:
    """Add the fields (M, *S), weighed by (M, T), to the sums (B, T, *S) of the images they belong to, in place."""
    for i in sample.unique().tolist():
        mine = (sample == i).to(total.device)
        total[i].view(total.shape[1], -1).addmm_(weights[mine].T, fields[mine].flatten(1))


def region_scores(
    score_of: Scores,
    images: Tensor,
    baseline: Tensor,
    labels: Tensor,
    counts: Sequence[int],
    kept: Callable[[int, Tensor], Tensor],
) -> list[Tensor]:
    """Scores (N, T) of each image's N hidden copies, on the CPU in float64, ready for a fit.

    `kept(i, draw (M,))` says how much stays (M, n) of each of image i's n regions, whose numbers are `labels` (B, *S).
    """

    def keep_of(sample: Tensor, draw: Tensor) -> Tensor:
        fields = [
            kept(i, draw[sample == i]).to(images.device, wide(images))[:, labels[i]] for i in sample.unique().tolist()
        ]
        return torch.cat(fields)

    found: list[list[Tensor]] = [[] for _ in images]
    for sample, _, _, scores in asked(score_of, images, baseline, counts, keep_of):
        scores = scores.cpu().double()
        for i in sample.unique().tolist():
            found[i].append(scores[sample == i])
    return [torch.cat(parts) for parts in found]


def painted(values: Sequence[Tensor], labels: Tensor, images: Tensor) -> Tensor:
    """Maps (B, T, *S) from the values (n, T) of each image's n regions."""
    maps = [each.T.to(wide(images)).to(images.device)[:, of] for each, of in zip(values, labels, strict=True)]
    return torch.stack(maps)


def wide(images: Tensor) -> torch.dtype:
    """The dtype in which maps are summed: float32 at least."""
    return torch.promote_types(images.dtype, torch.float32)
