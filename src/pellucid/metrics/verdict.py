"""Can this map be trusted? A verdict per image and method from four kinds of evidence, none of which needs a mask."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pellucid.attribution.explanation import Explanation
from pellucid.attribution.families import is_control
from pellucid.errors import expected
from pellucid.metrics.evaluate import evaluate
from pellucid.metrics.families import METRICS

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = TRUSTED, DOUBTFUL, NOT_TRUSTED = "trusted", "doubtful", "not trusted"
CONTROLS = ("random", "center-gaussian", "sobel")
COLUMNS = ["sample", "method", "verdict", "evidence"]
_SURE = 0.5  # below this probability of the explained class no map is trusted
_PASS, _UNSURE, _FAIL = "✓", "?", "✗"


@dataclass(frozen=True)
class Evidence:
    """One kind of evidence: a metric, and how its value reads in a sentence.

    Attributes:
        name: of the kind.
        metric: whose value it is.
        higher_is_better: which way speaks for the map.
        above_controls: whether the best control's value of the same image is taken off first.
        text: the sentence, with the value as {value}.
    """

    name: str
    metric: str
    higher_is_better: bool
    above_controls: bool
    text: str


_RANDOM = "parameter-randomisation[stages=1]"  # all weights at once
EVIDENCE = (
    Evidence("faithfulness", "road", True, True, "confidence increase {value:+.2f} against the best control"),
    Evidence("stability", "avg-sensitivity", False, False, "changes by {value:.0%} under small noise"),
    Evidence("sanity", _RANDOM, False, False, "correlates {value:+.2f} with that of random weights"),
    Evidence("agreement", "rank-correlation", True, False, "agrees with the other methods to {value:.2f}"),
)
METRICS_ASKED = tuple(each.metric for each in EVIDENCE)  # labels, as `METRICS.from_label` takes


@dataclass(frozen=True)
class Threshold:
    """Where evidence of one kind passes and where it fails; between the two it tells nothing."""

    passes: float
    fails: float


@dataclass(frozen=True)
class Calibration:
    """Thresholds and how well they tell right maps from wrong ones.

    Attributes:
        thresholds: by the name of the evidence.
        right, wrong: how many cases of either kind they were taken from.
        verdicts: of other cases, {"right": {"trusted": n, …}, "wrong": {…}}.
        cases: what the cases were, in a sentence.
    """

    thresholds: Mapping[str, Threshold]
    right: int
    wrong: int
    verdicts: Mapping[str, Mapping[str, int]]
    cases: str

    def text(self) -> str:
        """The thresholds and what became of known cases, for a reader."""
        limits = []
        for each in EVIDENCE:
            limit, sign = self.thresholds[each.name], "≥" if each.higher_is_better else "≤"
            worse = "<" if each.higher_is_better else ">"
            told = f"{each.name} passes {sign} {limit.passes:.3g} and fails {worse} {limit.fails:.3g}"
            limits.append(told.replace("-", "−"))
        tested = []
        for kind, counts in self.verdicts.items():
            listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
            tested.append(f"of {sum(counts.values())} other {kind} maps {listed}")
        taken = f"Taken from {self.right} right and {self.wrong} wrong maps ({self.cases})"
        return f"{'; '.join(limits)}. {taken}; {'; '.join(tested)}."


def trust(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    generator: torch.Generator | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Say of each map whether it can be trusted: trusted, doubtful or not trusted, with the evidence in one line.

    The controls are explained beside the methods where they are missing. Faithfulness, stability, sanity and agreement
    are measured by `METRICS_ASKED` and compared with thresholds calibrated on cases with known truth, which
    `default_calibration().text()` shows.

    Arguments:
        model, images, explanation: as `evaluate` takes.
        generator: where draws come from; None means seed 0.
        batch_size: images that the network sees at once at most; on a CPU as many as its caches hold.
        progress: show a bar on standard error.

    Returns:
        A table with a row per image and method, the controls left out: sample, method, verdict, evidence, and the
        values of faithfulness, stability, sanity and agreement.

    Raises:
        InputError: as `evaluate` does.
    """
    table = evaluate(
        model,
        images,
        explanation,
        list(map(METRICS.from_label, METRICS_ASKED)),
        None,
        generator,
        batch_size,
        progress,
        controls=CONTROLS,
    )
    return verdicts(table, explanation.probability.tolist())


def verdicts(
    table: pd.DataFrame, probability: Sequence[float] | None = None, calibration: Calibration | None = None
) -> pd.DataFrame:
    """Verdicts from values that `evaluate` gave, as `trust` does.

    A map is trusted when it is more faithful than every control by enough, and no other evidence fails; it is not
    trusted when it isn't more faithful, or when two other kinds of evidence fail; in between it is doubtful, and so
    where the model gives the explained class less than one half or nothing is known of its faithfulness.

    Arguments:
        table: sample, method, metric, value, with the metrics of `METRICS_ASKED` and at least one control; a missing
            kind of evidence tells nothing.
        probability: of the explained class, one per sample; None leaves it out.
        calibration: thresholds; None takes those that come with pellucid.

    Raises:
        InputError: no control among the methods, without which faithfulness has no floor.
    """
    import pandas as pd

    calibration = default_calibration() if calibration is None else calibration
    found = evidence_of(table)
    rows = []
    for sample, method, *values in found.itertuples(index=False):
        evidence = dict(zip((each.name for each in EVIDENCE), values, strict=True))
        sure = probability is None or probability[sample] >= _SURE
        verdict, marks = _judged(evidence, calibration, sure)
        told = [
            f"{each.text.format(value=evidence[each.name])} {mark}"
            for each, mark in zip(EVIDENCE, marks, strict=True)
            if mark
        ]
        if probability is not None and not sure:
            told.append(f"the model gives this class only {probability[sample]:.2f}")
        rows.append((sample, method, verdict, "; ".join(told), *values))
    return pd.DataFrame(rows, columns=[*COLUMNS, *(each.name for each in EVIDENCE)])


def evidence_of(table: pd.DataFrame) -> pd.DataFrame:
    """The evidence for each map that isn't a control's: sample, method, faithfulness, stability, sanity, agreement.

    Raises InputError as `verdicts` does.
    """
    import pandas as pd

    values = {
        (int(sample), str(method), str(metric)): float(value)
        for sample, method, metric, value in table[["sample", "method", "metric", "value"]].itertuples(index=False)
    }
    methods = list(dict.fromkeys(method for _, method, _ in values))
    controls = [method for method in methods if is_control(method)]
    if not controls:
        do = f"Explain {', '.join(CONTROLS)} beside the methods."
        raise expected("table", "a control among the methods", ", ".join(methods) or "none", do=do)
    rows = [
        (sample, method, *(_value(each, values, sample, method, controls) for each in EVIDENCE))
        for sample in dict.fromkeys(sample for sample, _, _ in values)
        for method in methods
        if method not in controls
    ]
    return pd.DataFrame(rows, columns=["sample", "method", *(each.name for each in EVIDENCE)])


def _value(
    each: Evidence, values: Mapping[tuple[int, str, str], float], sample: int, method: str, controls: Sequence[str]
) -> float:
    value = values.get((sample, method, each.metric), math.nan)
    if not each.above_controls:
        return value
    floors = [values.get((sample, control, each.metric), math.nan) for control in controls]
    floors = [floor for floor in floors if not math.isnan(floor)]
    return value - (max(floors) if each.higher_is_better else min(floors)) if floors else math.nan


def _judged(found: Mapping[str, float], calibration: Calibration, sure: bool) -> tuple[str, list[str]]:
    """The verdict, and a mark for each kind of evidence, empty where there is none."""
    marks = [_mark(each, found[each.name], calibration.thresholds[each.name]) for each in EVIDENCE]
    faithful, others = marks[0], marks[1:]
    if faithful == _FAIL or others.count(_FAIL) > 1:
        return NOT_TRUSTED, marks
    if faithful == _PASS and _FAIL not in others and sure:
        return TRUSTED, marks
    return DOUBTFUL, marks


def _mark(each: Evidence, value: float, threshold: Threshold) -> str:
    if math.isnan(value):
        return ""
    sign = 1 if each.higher_is_better else -1
    if sign * value >= sign * threshold.passes:
        return _PASS
    return _FAIL if sign * value < sign * threshold.fails else _UNSURE


def calibrate(values: pd.DataFrame, right: Sequence[bool], cases: str, share: float = 0.1) -> Calibration:
    """Thresholds from maps of which it is known whether they are right.

    Evidence passes where at most `share` of the wrong maps come so far, and fails where at most `share` of the right
    ones stay so far behind; where the two cross, their middle is both. Every other case is held out, and the
    calibration says what verdicts these get.

    Arguments:
        values: a row per map with the columns faithfulness, stability, sanity and agreement, as `verdicts` gives.
        right: whether each is right.
        cases: what they are, in a sentence.
        share: in (0, 0.5).

    Raises:
        InputError: fewer than 20 right or wrong maps.
    """
    known = torch.tensor(list(right), dtype=torch.bool)
    if min(int(known.sum()), int((~known).sum())) < 20:
        raise expected("right", "at least 20 right and 20 wrong maps", f"{int(known.sum())} of {len(known)} right")
    order = torch.arange(len(known))
    held = torch.zeros_like(known)
    for kind in (known, ~known):
        held[order[kind][1::2]] = True
    columns = torch.stack([torch.tensor(values[each.name].to_numpy(dtype=float)) for each in EVIDENCE])
    thresholds = {}
    for each, given_values in zip(EVIDENCE, columns, strict=True):
        sign = 1 if each.higher_is_better else -1
        column = given_values * sign
        told = ~column.isnan() & ~held
        passes = float(column[told & ~known].quantile(1 - share))
        fails = float(column[told & known].quantile(share))
        if fails > passes:
            passes = fails = (passes + fails) / 2
        thresholds[each.name] = Threshold(sign * passes, sign * fails)
    taken = Calibration(thresholds, int((known & ~held).sum()), int((~known & ~held).sum()), {}, cases)
    counts: dict[str, dict[str, int]] = {}
    records = [dict(zip((each.name for each in EVIDENCE), row, strict=True)) for row in columns.T.tolist()]
    for name, of in (("right", known), ("wrong", ~known)):
        given = [_judged(records[row], taken, sure=True)[0] for row in (of & held).nonzero().flatten().tolist()]
        counts[name] = {verdict: given.count(verdict) for verdict in VERDICTS}
    return dataclasses.replace(taken, verdicts=counts)


@cache
def default_calibration() -> Calibration:
    """The thresholds that come with pellucid, from its phantoms, whose lesions are known."""
    file = importlib.resources.files("pellucid.metrics") / "verdict_thresholds.json"
    return read_calibration(json.loads(file.read_text(encoding="utf-8")))


def read_calibration(content: Mapping[str, Any]) -> Calibration:
    """A calibration from what `dataclasses.asdict` made of it."""
    thresholds = {name: Threshold(**limits) for name, limits in content["thresholds"].items()}
    return Calibration(**(dict(content) | {"thresholds": thresholds}))
