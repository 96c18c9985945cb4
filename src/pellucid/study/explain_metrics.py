"""How good the maps are that `explain` makes: the values of metrics beside each map, where they are asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pellucid.attribution import Explanation
from pellucid.attribution.engine import Precision
from pellucid.errors import expected
from pellucid.metrics.evaluate import MissingValuesWarning, evaluate
from pellucid.metrics.families import Metric
from pellucid.registry import Choice
from pellucid.study.notes import noted

Values = Mapping[str, Mapping[str, float]]
"""By the label of a method and that of a metric."""
_GIVEN = frozenset({"masks", "boxes", "anatomy", "all maps", "all classes"})
_log = logging.getLogger(__name__)


def check_metrics(metrics: Sequence[Choice[Metric]], target: str) -> None:
    """Raise InputError for metrics that ask for more than the image, and where all classes are explained."""
    for choice in metrics:
        lacking = sorted(_GIVEN & set(choice.entry.needs))
        if lacking:
            wanted = "metrics that need the image alone"
            raise expected("metrics", wanted, f"{choice.label}, which needs {lacking[0]}", do="Use pellucid evaluate.")
    if metrics and target == "all":
        raise expected("target", "one class, for which metrics are measured", "all")


def measured(
    network: nn.Module,
    images: Tensor,
    explanation: Explanation,
    metrics: Sequence[Choice[Metric]],
    *,
    seed: int,
    batch_size: int,
    max_memory: int | None,
    precision: Precision,
    compile: bool,
    multi_label: bool,
) -> list[Values]:
    """The values of each image (B, C, *S), missing ones left out; nothing where no metric is asked for."""
    if not metrics:
        return [{} for _ in range(len(images))]
    with noted(_log, MissingValuesWarning):  # they lack in the record
        table = evaluate(
            network,
            images,
            explanation,
            list(metrics),
            generator=torch.Generator().manual_seed(seed),
            batch_size=batch_size,
            max_memory=max_memory,
            precision=precision,
            compile=compile,
            multi_label=multi_label,
        )
    found: list[dict[str, dict[str, float]]] = [{label: {} for label in explanation.maps} for _ in range(len(images))]
    for sample, method, metric, value, _ in table.itertuples(index=False):
        if not math.isnan(value):
            found[sample][method][metric] = float(value)
    return list(found)
