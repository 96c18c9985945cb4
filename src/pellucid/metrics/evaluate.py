"""Run metrics on an explanation: batches, device, what they share, progress; the model is given back as it was."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pellucid.attribution.borrow import borrowed
from pellucid.attribution.explanation import Explanation
from pellucid.attribution.run import channels_checked, device_of
from pellucid.attribution.targets import class_logits, class_probabilities
from pellucid.errors import expected
from pellucid.metrics.draws import sample_seeds
from pellucid.metrics.families import MASKS, METRICS, REMOVAL_CURVES, Metric
from pellucid.metrics.road import CurvesOf, RoadCurves, ScoreOf, road_curves
from pellucid.progress import progress as progress_bar
from pellucid.registry import Choice

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METRICS = ("road", "pointing-game", "energy-pointing")
_MAP_BYTES = 64 << 20  # of maps that lie on the device at once; perturbed images are bounded by `road_curves`

MetricChoice = str | Choice[Metric]


class EmptyMaskWarning(UserWarning):
    """Some images have an empty mask, so that metrics that need one have no value there."""


def evaluate(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    metrics: MetricChoice | Sequence[MetricChoice] = DEFAULT_METRICS,
    masks: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 32,
    progress: bool = False,
    multi_label: bool = False,
) -> pd.DataFrame:
    """Score each map of an explanation by each metric, per image.

    Arguments:
        model: the network that was explained; given back as it was.
        images: (B, C, *S) that were explained, normalised as the model expects.
        explanation: maps (B, *S) per method, and the class that they explain.
        metrics: names, or choices with options from `pellucid.metric`.
        masks: (B, *S) bool, True on the finding; None where there are none, which leaves the metrics that need
            them without a value.
        generator: where ties and noise come from; None means seed 0. An image's draws depend on its place in
            `images`, not on the batch size, the methods or the metrics.
        batch_size: images that the network sees at once.
        progress: show a bar on standard error.
        multi_label: each class has a probability of its own, by the sigmoid, instead of the softmax over all.

    Returns:
        A table with a row per image, method and metric: sample (place in `images`), method, metric, value. A missing
        value is NaN.

    Raises:
        InputError: an argument that can't be used; says which, and what to do.

    Warns:
        EmptyMaskWarning: masks are empty; says how many.

    >>> from pellucid.attribution import explain
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(2, 1, 12, 12)
    >>> explanation = explain(model, images, methods=["layer-cam", "random"])
    >>> evaluate(model, images, explanation, metrics=["road", "road-morf"]).shape
    (8, 4)
    """
    import pandas as pd

    choices = _choices(metrics)
    _check(images, explanation, masks, batch_size)
    maps = explanation.maps
    values: dict[str, Tensor] = {}  # label of a metric -> (B, methods)
    curved = [choice for choice in choices if REMOVAL_CURVES in choice.entry.needs]
    if curved:
        seeds = sample_seeds(generator, len(images))
        with borrowed(model), torch.no_grad():
            scorer = _Scorer(model, explanation.target, batch_size, multi_label)
            values |= _removal_values(scorer, images, maps, curved, seeds, progress)
    located = [choice for choice in choices if MASKS in choice.entry.needs]
    values |= _mask_values(maps, masks, located)
    labels = [choice.label for choice in choices]
    table = torch.stack([values[label].double() for label in labels], dim=2)  # (B, methods, metrics)
    index = pd.MultiIndex.from_product([range(len(images)), list(maps), labels], names=["sample", "method", "metric"])
    return pd.DataFrame({"value": table.flatten().numpy()}, index=index).reset_index()


class _Scorer:
    """The probability of each row's explained class, batch by batch."""

    def __init__(self, model: nn.Module, target: Tensor, batch_size: int, multi_label: bool) -> None:
        self.model, self.target, self.batch_size, self.multi_label = model, target, batch_size, multi_label

    def __call__(self, images: Tensor, sample: Tensor) -> Tensor:
        """Scores (M,) of rows (M, C, *S) that derive from the explained images `sample` (M,)."""
        parts = [
            self._probabilities(images[start : start + self.batch_size])
            for start in range(0, len(images), self.batch_size)
        ]
        probabilities = torch.cat(parts)
        target = self.target.to(probabilities.device)[sample.to(probabilities.device)]
        if int(target.max()) >= probabilities.shape[1]:
            wanted = f"classes from 0 to {probabilities.shape[1] - 1}, as the model has"
            raise expected("explanation", wanted, int(target.max()), do="Pass the model that was explained.")
        return probabilities.gather(1, target.unsqueeze(1)).squeeze(1)

    def _probabilities(self, images: Tensor) -> Tensor:
        with channels_checked(self.model, images):
            outputs = self.model(images)
        return class_logits(outputs).sigmoid() if self.multi_label else class_probabilities(outputs)


def _removal_values(
    scorer: _Scorer,
    images: Tensor,
    maps: Mapping[str, Tensor],
    choices: Sequence[Choice[Metric]],
    seeds: Tensor,
    show: bool,
) -> dict[str, Tensor]:
    """Values (B, methods) of the metrics that read removal curves, which those with the same options share."""
    device = device_of(scorer.model) or images.device
    parts: dict[str, list[Tensor]] = {choice.label: [] for choice in choices}
    step = max(1, _MAP_BYTES // sum(values[0].numel() * values.element_size() for values in maps.values()))
    done = 0
    with progress_bar("Removing pixels", len(images), show=show) as advance:

        def reached(image: int) -> None:
            nonlocal done
            if image > done:
                advance(image - done)
                done = image

        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            stacked = torch.stack([values[rows].to(device) for values in maps.values()], dim=1)

            def score_of(rows: Tensor, sample: Tensor, start: int = start) -> Tensor:
                scores = scorer(rows, sample + start)
                reached(start + int(sample.max()))  # images come in order
                return scores

            curves_of = _shared_curves(score_of, images[rows].to(device), stacked, seeds[rows])
            for choice in choices:
                parts[choice.label].append(choice.entry.function(curves_of, **choice.options).cpu())
            reached(start + len(stacked))
    return {label: torch.cat(values) for label, values in parts.items()}


def _shared_curves(score_of: ScoreOf, images: Tensor, maps: Tensor, seeds: Tensor) -> CurvesOf:
    """Curves by fractions and noise, each computed once."""
    known: dict[tuple[tuple[float, ...], float], RoadCurves] = {}

    def curves_of(fractions: Sequence[float], noise: float) -> RoadCurves:
        key = (tuple(fractions), noise)
        if key not in known:
            known[key] = road_curves(score_of, images, maps, fractions=fractions, noise=noise, seeds=seeds)
        return known[key]

    return curves_of


def _mask_values(
    maps: Mapping[str, Tensor], masks: Tensor | None, choices: Sequence[Choice[Metric]]
) -> dict[str, Tensor]:
    """Values (B, methods) of the metrics that need a mask, NaN where it is empty."""
    if not choices:
        return {}
    count = len(next(iter(maps.values())))
    missing = torch.full((count, len(maps)), float("nan"), dtype=torch.float64)
    if masks is None:
        return {choice.label: missing for choice in choices}
    masks = masks.cpu()
    there = masks.flatten(1).any(dim=1)
    empty = count - int(there.sum())
    if empty:
        names = " and ".join(choice.entry.name for choice in choices)
        warnings.warn(
            f"{empty} of {count} masks are empty; {names} have no value there.", EmptyMaskWarning, stacklevel=3
        )
    values = {}
    for choice in choices:
        columns = missing.clone()
        for column, each in enumerate(maps.values()):
            columns[there, column] = choice.entry.function(each[there].cpu(), masks[there], **choice.options)
        values[choice.label] = columns
    return values


def _choices(metrics: MetricChoice | Sequence[MetricChoice]) -> list[Choice[Metric]]:
    named = [metrics] if isinstance(metrics, str | Choice) else list(metrics)
    choices = [METRICS.resolve(each) for each in named]
    labels = [choice.label for choice in choices]
    if not labels or len(set(labels)) < len(labels):
        raise expected("metrics", "at least one, each once", ", ".join(labels) or "none")
    return choices


def _check(images: Tensor, explanation: Explanation, masks: Tensor | None, batch_size: int) -> None:
    if not isinstance(images, Tensor) or images.ndim < 3 or not images.numel():
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise expected("images", "a tensor (B, C, *S) with at least one image", got)
    shape = (images.shape[0], *images.shape[2:])
    if not explanation.maps:
        raise expected("explanation", "at least one map", "none")
    for method, maps in explanation.maps.items():
        if tuple(maps.shape) != shape:
            hint = "Evaluate one class's maps at a time." if maps.ndim == len(shape) + 1 else ""
            raise expected("explanation", f"maps {shape}", f"{tuple(maps.shape)} for {method!r}", do=hint)
        wrong = (~maps.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()
        if wrong:
            raise expected("explanation", "finite maps", f"NaN or infinity for {method!r}, image {wrong[0]}")
    target = explanation.target
    if tuple(target.shape) != shape[:1] or bool((target < 0).any()):
        got = f"shape {tuple(target.shape)}" if target.ndim != 1 else "a function of the output as target"
        raise expected("explanation", f"one class per image, shape {shape[:1]}", got)
    if masks is not None and (tuple(masks.shape) != shape or masks.dtype != torch.bool):
        raise expected("masks", f"a bool tensor {shape}", f"shape {tuple(masks.shape)}, {masks.dtype}")
    if batch_size < 1:
        raise expected("batch_size", "at least 1", batch_size)
