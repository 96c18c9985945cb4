"""Run metrics on an explanation: blocks of images, what metrics and methods share, what is missing and why."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pellucid.attribution.borrow import borrowed
from pellucid.attribution.engine import Precision, check_precision, explain, seeds_of, unwrapped
from pellucid.attribution.explanation import Explanation
from pellucid.attribution.families import METHODS
from pellucid.attribution.frozen import copied_bytes
from pellucid.attribution.memory import Bound, checked_rows, give_back, told_if_full
from pellucid.attribution.run import device_of
from pellucid.attribution.scorer import ScoringFunction, as_model
from pellucid.errors import expected
from pellucid.metrics.again import Explainer
from pellucid.metrics.block import EMPTY_MASK, NO_MASKS, Block, Cells
from pellucid.metrics.draws import sample_seeds
from pellucid.metrics.explainer import explainer_of
from pellucid.metrics.families import METRICS, Metric
from pellucid.metrics.kept import Kept, Value
from pellucid.metrics.network import Network
from pellucid.metrics.truth import Truth
from pellucid.progress import Advance, heard
from pellucid.registry import Choice

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METRICS = ("road", "pointing-game", "energy-pointing")
_BLOCK_BYTES = 64 << 20  # of images, maps and maps made again that lie on the device at once
_COPIES = 24  # of an image's maps that metrics which explain again hold
_TWICE = 4  # images that are scored twice, since dropout may do the same to one of them by chance
_SAME = 1e-4  # two scores of one image differ by no more, relative to them or to 1

MetricChoice = str | Choice[Metric]


class MissingValuesWarning(UserWarning):
    """Some values are missing; says how many, and why."""


class EmptyMaskWarning(MissingValuesWarning):
    """Some images have an empty mask, so that metrics that need one have no value there."""


class UnmovedScoreWarning(UserWarning):
    """The score of some images doesn't change, whatever is done to them, so that it says nothing of their maps."""


class NondeterministicWarning(UserWarning):
    """The model gives another score each time that it sees the same image."""


def evaluate(
    model: nn.Module | ScoringFunction,
    images: Tensor,
    explanation: Explanation,
    metrics: MetricChoice | Sequence[MetricChoice] = DEFAULT_METRICS,
    masks: Tensor | Truth | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 32,
    progress: bool | Advance = False,
    multi_label: bool = False,
    *,
    controls: Sequence[str] = (),
    bank: Tensor | None = None,
    explainer: Explainer | None = None,
    max_memory: int | None = None,
    keep: Path | str | None = None,
    precision: Precision = "float32",
    compile: bool = False,
) -> pd.DataFrame:
    """Score each map of an explanation by each metric, per image.

    Arguments:
        model: the network that was explained, or a function as `explain` takes; given back as it was.
        images: (B, C, *S) that were explained, normalised as the model expects.
        explanation: maps (B, *S) per method, and the class that they explain.
        metrics: names, or choices with options from `pellucid.metric`.
        masks: (B, *S) bool, True on the finding, or a `pellucid.metrics.Truth` with boxes, anatomy and spacing; None
            where there are none, which leaves the metrics that need them without a value.
        generator: where ties, noise and random sets come from; None means seed 0. An image's draws depend on its place
            in `images`, not on the batch size, the methods or the metrics.
        batch_size: images that the network sees at once at most; on a CPU as many as its caches hold.
        progress: show a bar on standard error; or a function that hears of steps and notes in its place.
        multi_label: each class has a probability of its own, by the sigmoid, instead of the softmax over all.
        controls: maps that never saw the model, as "random", "center-gaussian" and "sobel", that are made and scored
            beside the explanation's where it lacks them, so that each number has a floor.
        bank: held-out images (K, C, *S), normalised likewise, for the fills "dataset-mean" and "inpainting".
        explainer: makes maps again, for metrics that explain changed images; None runs the methods by their labels at
            the explanation's layer.
        max_memory: bytes that the network's tensors and the changed images may take at once, besides weights, images
            and maps.
        keep: a folder in which values are kept as they come. The same call goes on from there when it was stopped;
            values of other images, maps or weights are never taken.
        precision: "float32" runs the network as it is; "bfloat16" in mixed precision, in less time, for scores and for
            maps that are made again: take the precision that the explanation was made in.
        compile: have the network in a form that scores faster, ready in a second or two. On a CPU, patches that go one
            after another take 0.15 to 0.5 of the time, other changed images 0.5 to 0.9. A network that can't be read
            for any number of images, and one on a GPU after thousands of them, is compiled, which takes up to a minute.
            Maps are made again without. What was made serves later calls on the same weights, of which it holds copies
            while the network lives.

    Returns:
        A table with a row per image, method and metric: sample (place in `images`), method, metric, value, and reason,
        which says why a value is missing (NaN) and is empty elsewhere.

    Raises:
        InputError: an argument that can't be used; says which, and what to do.
        PellucidError: the network can't be compiled, as was asked.

    Warns:
        MissingValuesWarning: values are missing; says how many and why.
        UnmovedScoreWarning: the score of an image doesn't change, whatever is removed, so that values of faithfulness,
            where there are any, say nothing of its maps.
        NondeterministicWarning: the model scores the same image differently from one time to the next.
        CompiledWarning: a form of the network gives other outputs than the network itself, and isn't used.

    >>> from pellucid.attribution import explain
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(2, 1, 12, 12)
    >>> explanation = explain(model, images, methods=["layer-cam", "random"])
    >>> evaluate(model, images, explanation, metrics=["road", "road-morf"]).shape
    (8, 5)
    """
    choices = _choices(metrics)
    check_precision(precision)
    _check(images, explanation, batch_size)
    explanation = with_controls(model, images, explanation, controls)
    shape = (images.shape[0], *images.shape[2:])
    truth = (masks if isinstance(masks, Truth) else Truth(masks)).checked(shape)
    model = unwrapped(as_model(model, []))
    found: list[dict[tuple[str, str], Value]] = []
    unmoved = 0
    with Kept(keep) as kept, borrowed(model), contextlib.ExitStack() as held, torch.no_grad():
        trial = _Trial(model, images, batch_size, precision)
        most = batch_size if max_memory is None else trial.most_rows
        copies = copied_bytes(model, precision) if compile else 0
        rows, spare = checked_rows(trial, most, max_memory, parts=2, copies=copies)
        block_bytes = _BLOCK_BYTES if max_memory is None else min(_BLOCK_BYTES, max(max_memory // 8, 1))
        cells = Cells(
            network=Network(model, rows, multi_label, precision, compile),
            explanation=explanation,
            choices=choices,
            truth=truth,
            seeds=sample_seeds(generator, len(images)),
            method_seeds=seeds_of(explanation),
            explainer=explainer or explainer_of(explanation, rows, max_memory, precision),
            bank=bank,
            changed_bytes=block_bytes // 4,
            kept=kept,
            held=held,
            spare=spare,
            bound=Bound(None if max_memory is None else (max_memory - copies) // 2),
        )
        steps = len(images) * len(explanation.maps) * len(choices)
        with (
            told_if_full(trial, rows, device_of(model)),
            heard(progress, "Evaluating", steps) as advance,
        ):
            for part in _blocks(images, explanation, choices, block_bytes):
                block = Block(cells, images, part, advance)
                found += block.values()
                unmoved += block.unmoved
                if part.start == 0:
                    _check_deterministic(block)
                del block
                give_back()
            whole = cells.whole_set(images, found, advance)
    table = _table(found, whole, list(explanation.maps), [choice.label for choice in choices])
    _warn(table, unmoved, told_of_masks=metrics is not DEFAULT_METRICS)
    return table


def with_controls(
    model: nn.Module | ScoringFunction, images: Tensor, explanation: Explanation, controls: Sequence[str]
) -> Explanation:
    """The explanation with the maps of controls that it lacks.

    Raises:
        InputError: a name that isn't that of a control.
    """
    wrong = [name for name in controls if name not in METHODS.names("control")]
    if wrong:
        raise expected("controls", f"some of {', '.join(METHODS.names('control'))}", wrong[0])
    missing = [name for name in controls if name not in explanation.maps]
    if not missing:
        return explanation
    beside = explain(model, images, missing, explanation.target, generator=seeds_of(explanation))
    return dataclasses.replace(explanation, maps={**explanation.maps, **beside.maps})


class _Trial:
    """A run of the network on so many copies of the first image, as the memory it takes is measured by."""

    def __init__(self, model: nn.Module, images: Tensor, batch_size: int, precision: Precision) -> None:
        self._network = partial(Network, model, batch_size, multi_label=False, precision=precision)
        self._sample = images[:1].to(device_of(model) or images.device)

    @property
    def most_rows(self) -> int:
        """How many rows run at once where memory doesn't bound them."""
        return self._network().rows_at_once(self._sample)

    def __call__(self, rows: int) -> None:
        self._network().logits(self._sample.repeat(rows, *(1,) * (self._sample.ndim - 1)))


def _blocks(
    images: Tensor, explanation: Explanation, choices: Sequence[Choice[Metric]], block_bytes: int
) -> Iterator[slice]:
    """Images that are evaluated together, few enough for their maps to lie in memory."""
    again = any("again" in choice.entry.needs for choice in choices)
    maps = len(explanation.maps) * images[0, 0].numel() * 4 * (_COPIES if again else 1)
    each = maps + images[0].numel() * images.element_size() * (_COPIES if again else 1)
    step = max(1, block_bytes // each)
    return (slice(start, min(start + step, len(images))) for start in range(0, len(images), step))


def _check_deterministic(block: Block) -> None:
    """Warn where the first images, scored once more, get other scores."""
    if not block.has_asked:
        return
    first = torch.stack([block.scores.unperturbed(each)[:_TWICE] for each in ("probability", "logit")], dim=1)
    again = block.cells.network.readings(block.images[:_TWICE], block.target[:_TWICE])[:, :2]
    apart = float(((again - first).abs() / first.abs().clamp(min=1)).max())
    if not apart <= _SAME:
        warnings.warn(
            f"the model's score of one image differs by {apart:.1e} from one time to the next, so that values of "
            "metrics do too. Look for dropout or noise that stays on in evaluation mode.",
            NondeterministicWarning,
            stacklevel=3,
        )


def _table(
    found: Sequence[Mapping[tuple[str, str], Value]],
    whole: Mapping[tuple[int, str, str], Value],
    methods: Sequence[str],
    labels: Sequence[str],
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for sample, values in enumerate(found):
        for method in methods:
            for label in labels:
                value = values[method, label] if (method, label) in values else whole[sample, method, label]
                rows.append((sample, method, label, *value))
    table = pd.DataFrame(rows, columns=["sample", "method", "metric", "value", "reason"])
    return table.astype({"value": "float64"})


def _warn(table: pd.DataFrame, unmoved: int, *, told_of_masks: bool) -> None:
    """Say how many scores never moved, how many values are missing, and why."""
    if unmoved:
        warnings.warn(
            f"the score of {unmoved} of {table['sample'].nunique()} images doesn't change, whatever is removed: "
            "faithfulness says nothing of their maps. Look whether the network is trained, and its input normalised.",
            UnmovedScoreWarning,
            stacklevel=3,
        )
    missing = table[table["value"].isna()]
    empty = missing[missing["reason"] == EMPTY_MASK]
    if len(empty):
        names = " and ".join(dict.fromkeys(empty["metric"]))
        warnings.warn(
            f"{empty['sample'].nunique()} of {table['sample'].nunique()} masks are empty, without a value of {names}.",
            EmptyMaskWarning,
            stacklevel=3,
        )
    others = missing[missing["reason"] != EMPTY_MASK]
    if not told_of_masks:
        others = others[others["reason"] != NO_MASKS]
    counts = Counter(zip(others["metric"], others["reason"], strict=True))
    if counts:
        listed = "; ".join(f"{label}: {count}, since {reason}" for (label, reason), count in counts.items())
        warnings.warn(
            f"{len(others)} of {len(table)} values are missing: {listed}.", MissingValuesWarning, stacklevel=3
        )


def _choices(metrics: MetricChoice | Sequence[MetricChoice]) -> list[Choice[Metric]]:
    named = [metrics] if isinstance(metrics, str | Choice) else list(metrics)
    choices = [METRICS.resolve(each) for each in named]
    labels = [choice.label for choice in choices]
    if not labels or len(set(labels)) < len(labels):
        raise expected("metrics", "at least one, each once", ", ".join(labels) or "none")
    return choices


def _check(images: Tensor, explanation: Explanation, batch_size: int) -> None:
    if not isinstance(images, Tensor) or images.ndim < 3 or not images.numel():
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise expected("images", "a tensor (B, C, *S) with at least one image", got)
    wrong = (~images.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise expected("images", "finite values", f"NaN or infinity in image {wrong[0]}")
    shape = (images.shape[0], *images.shape[2:])
    if not explanation.maps:
        raise expected("explanation", "at least one map", "none")
    for method, maps in explanation.maps.items():
        if tuple(maps.shape) != shape:
            several = maps.ndim == len(shape) + 1
            hint = "Evaluate one class's maps at a time." if several else "Explain these images, at this size."
            raise expected("explanation", f"maps {shape}", f"{tuple(maps.shape)} for {method!r}", do=hint)
    target = explanation.target
    if tuple(target.shape) != shape[:1] or bool((target < 0).any()):
        got = f"shape {tuple(target.shape)}" if target.ndim != 1 else "a function of the output as target"
        raise expected("explanation", f"one class per image, shape {shape[:1]}", got)
    if batch_size < 1:
        raise expected("batch_size", "at least 1", batch_size)
