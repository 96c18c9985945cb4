"""What an evaluation of files is asked, and which metrics can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.attribution.engine import MethodChoice, Precision
from pellucid.errors import expected, unknown_name
from pellucid.metrics.families import Metric
from pellucid.registry import Choice
from pellucid.study.known_images import Sources

CONTROLS = ("random", "sobel", "center-gaussian")

_GIVEN = {"masks": "--masks", "boxes": "--boxes", "anatomy": "--anatomy"}


@dataclass(frozen=True)
class EvaluationQuestion:
    """What is measured of each image.

    `methods` are choices, or with `maps` labels, of which none means all; `controls` are scored beside. Metrics in
    `optional` are left out where what they need isn't given. `target` is "predicted", "true" or a class by its name or
    index; None is "predicted", or what saved maps explain. `bank` are held-out images for fills that take from them.
    """

    metrics: Sequence[Choice[Metric]]
    methods: Sequence[MethodChoice] = ()
    optional: frozenset[str] = frozenset()
    controls: Sequence[str] = CONTROLS
    sources: Sources = field(default_factory=Sources)
    maps: Path | None = None
    target: str | None = None
    layers: Sequence[str] = ("auto",)
    batch_size: int = 32
    max_memory: int | None = None
    seed: int = 0
    index: int | None = None
    bank: Sequence[Path] = ()
    precision: Precision = "float32"
    compile: bool = False


def fitting_metrics(
    question: EvaluationQuestion, given: frozenset[str]
) -> tuple[list[Choice[Metric]], tuple[str, ...]]:
    """The metrics that can be computed, and the labels of those left out since nothing was given for them.

    Raises InputError where one can't be left out, or none is left.
    """
    kept, left_out = [], []
    for choice in question.metrics:
        lacking = [need for need in choice.entry.needs if need in _GIVEN and need not in given]
        if not lacking:
            kept.append(choice)
        elif choice.label in question.optional:
            left_out.append(choice.label)
        else:
            wanted = f"{lacking[0]} of the images for {choice.label}"
            raise expected("metrics", wanted, "none", do=f"Pass {_GIVEN[lacking[0]]}, or leave it out.")
    if not kept:
        needed = sorted({need for choice in question.metrics for need in choice.entry.needs if need in _GIVEN} - given)
        do = f"Pass {' or '.join(_GIVEN[need] for need in needed)}." if needed else ""
        raise expected("metrics", "at least one that can be computed", ", ".join(left_out) or "none", do=do)
    return kept, tuple(left_out)


def check_target(asked: str | None, classes: Sequence[str]) -> None:
    """Raise UnknownNameError for a target that is neither a word for one nor a class by its name or index."""
    known = asked in (None, "predicted", "true", *classes)
    if not known and not (str(asked).isdecimal() and int(str(asked)) < len(classes)):
        raise unknown_name("target", str(asked), ["predicted", "true", *classes])
