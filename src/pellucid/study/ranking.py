"""Methods ranked by every metric over patients, per class too, and held against the controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.errors import expected
from pellucid.metrics import METRICS
from pellucid.statistics import (
    Comparison,
    Estimate,
    MethodRanks,
    adjust,
    bootstrap,
    by_unit,
    correct_family,
    friedman,
    mean_of,
    paired_t,
    units_of,
)
from pellucid.statistics.bootstrap import RESAMPLES

COLUMNS = ("sample", "method", "metric", "value")
UNTOLD = "no reason is known"
INFINITE = "the value is infinite"
_RANK_COLUMNS = [
    "metric", "label", "correct", "method", "control", "mean_rank", "ranked", "mean", "low", "high", "n", "missing",
    "unit", "best_control", "difference", "difference_low", "difference_high", "p_value", "p_adjusted",
    "beats_controls",
]  # fmt: skip
_TEST_COLUMNS = [
    "metric", "higher_is_better", "test", "statistic", "df", "p_value", "p_adjusted", "family", "critical_difference",
    "alpha", "n", "unit", "missing", "groups", "note",
]  # fmt: skip


@dataclass(frozen=True)
class MethodScore:
    """What one metric says of one method."""

    method: str
    control: bool
    mean_rank: float | None
    """1 is best in every unit; None where the method has no value."""
    mean: Estimate
    """Mean over units, images averaged within a unit first; its interval resamples units."""
    missing: int
    """Images without a value."""
    floor: Comparison | None
    """The paired test of this method less the best control; None for controls, without any, and within a class."""
    higher_is_better: bool

    @property
    def beats_controls(self) -> bool | None:
        """Whether it is shown to be better than the best control; None where that isn't tested."""
        if self.floor is None or self.floor.adjusted_p is None:
            return None
        difference = self.floor.result.mean_difference or 0.0
        return self.floor.significant and (difference > 0) == self.higher_is_better and difference != 0


@dataclass(frozen=True)
class MetricRanking:
    """Methods by one metric, over all images or some."""

    metric: str
    label: str
    """True class, or "all"."""
    correct: str
    """"right" or "wrong" predictions, or "all"."""
    higher_is_better: bool
    ranks: MethodRanks
    adjusted_p: float | None
    """Friedman's p corrected over the metrics; None within a class, where ranks only describe."""
    family: int
    """Metrics over which that p is corrected."""
    methods: tuple[MethodScore, ...]
    """Best mean rank first."""
    best_control: str | None

    @property
    def differ(self) -> bool:
        """Whether the methods are shown to differ."""
        return self.adjusted_p is not None and self.adjusted_p <= self.ranks.alpha

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Sets of methods that aren't told apart, best first: one of all where Friedman's test finds no difference."""
        if self.adjusted_p is None or self.differ:
            return self.ranks.groups if self.adjusted_p is not None else ()
        return (tuple(score.method for score in self.methods if score.mean_rank is not None),)


@dataclass(frozen=True)
class Rankings:
    """Methods ranked by all metrics of a table."""

    overall: tuple[MetricRanking, ...]
    """A ranking per metric that has values and a direction, over all images."""
    parts: tuple[MetricRanking, ...]
    """The same per true class and for right and wrong predictions, where those are known."""
    missing: pd.DataFrame
    """metric, method, reason, images: how many values are missing, and why."""
    images: int
    unit: str
    """What is ranked within and resampled: "patient", or "image" where no patients are known."""
    units: int
    notes: tuple[str, ...]

    def pairing(self) -> str:
        """What was paired, in a sentence.

        >>> rank_methods(pd.DataFrame([("a", "random", "road", 0.1)], columns=COLUMNS)).pairing()
        'Methods are paired by image (1 image), since no patients are known; were several of one patient, ...'
        """
        images = f"{self.images} image{'' if self.images == 1 else 's'}"
        if self.unit == "patient":
            patients = f"{self.units} patient{'' if self.units == 1 else 's'}"
            return f"Methods are paired by patient ({patients}, {images}); a patient’s images are averaged first."
        return (
            f"Methods are paired by image ({images}), since no patients are known; were several of one patient, the "
            "intervals would be too narrow and the p-values too small."
        )

    def table(self) -> pd.DataFrame:
        """A row per metric, class, kind of prediction and method."""
        rows = [_row(ranking, score) for ranking in (*self.overall, *self.parts) for score in ranking.methods]
        return pd.DataFrame(rows, columns=_RANK_COLUMNS)

    def tests(self) -> pd.DataFrame:
        """A row per metric: do the methods differ, and by which difference of mean ranks."""
        rows = [
            {
                "metric": ranking.metric,
                "higher_is_better": ranking.higher_is_better,
                **{
                    name: getattr(ranking.ranks, name)
                    for name in ("test", "statistic", "df", "p_value", "critical_difference", "alpha", "n", "unit")
                },
                "p_adjusted": ranking.adjusted_p,
                "family": ranking.family,
                "missing": ranking.ranks.n_missing,
                "groups": "; ".join(", ".join(group) for group in ranking.groups),
                "note": ranking.ranks.note,
            }
            for ranking in self.overall
        ]
        return pd.DataFrame(rows, columns=_TEST_COLUMNS)


def rank_methods(
    table: pd.DataFrame,
    samples: pd.DataFrame | None = None,
    *,
    coinciding: Sequence[Sequence[str]] = (),
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Rankings:
    """Rank methods by each metric over patients, and hold each against the best control.

    A patient's images are averaged first. The best control of a metric is the one with the best mean; each method is
    compared with it by a paired t-test, corrected by Holm over all methods and metrics; so is Friedman's p over all
    metrics. Within a class, and for right and wrong predictions apart, ranks and means only describe.

    Args:
        table: sample, method, metric, value and, where known, reason, as `pellucid.evaluate` gives them.
        samples: a row per sample: sample, and any of patient_id, label (true class), predicted, correct. Samples that
            are numbers in `table` and names here are places in these rows.
        coinciding: groups of methods known to give the same map up to scale; each takes the values of its first.
        resamples, confidence: of the bootstrap, which resamples patients.

    Raises:
        InputError: missing columns, a value given twice, or a sample that `samples` doesn't have.

    >>> rows = [(image, method, "road", shift + image % 3 / 50) for image in range(12) for method, shift in
    ...         (("grad-cam", 0.3 + image / 99), ("layer-cam", image % 5 / 9 - 0.2), ("random", 0.0))]
    >>> ranking = rank_methods(pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])).overall[0]
    >>> [(score.method, score.mean_rank, score.beats_controls) for score in ranking.methods]
    [('grad-cam', 1.0, True), ('layer-cam', 2.5, False), ('random', 2.5, None)]
    """
    scored, facts = _scored(table, samples)
    methods = [str(name) for name in dict.fromkeys(scored["method"])]
    metrics = [str(name) for name in dict.fromkeys(scored["metric"])]
    wide = scored.pivot(index="sample", columns=["metric", "method"], values="value").reindex(index=facts.index)
    wide = wide.reindex(columns=pd.MultiIndex.from_product([metrics, methods], names=["metric", "method"]))
    for group in coinciding:
        for other in [name for name in group if name in methods][1:]:
            first = next(name for name in group if name in methods)
            for metric in metrics:
                wide[metric, other] = wide[metric, first]
    known, notes = [], []
    for metric in metrics:
        if direction(metric) is None:
            notes.append(f"{metric}: which way is better isn’t known, so methods aren’t ranked by it.")
        elif not np.isfinite(wide[metric].to_numpy(float)).any():
            notes.append(f"{metric}: no image has a value.")
        else:
            known.append(metric)
    wide = wide[known]
    means = _means(wide, facts, resamples, confidence)
    overall = [_ranked(metric, ("all", "all"), wide, facts, means) for metric in known]
    overall = corrected([_with_floors(ranking, wide, facts) for ranking in overall])
    parts = []
    for part, rows in _parts(facts):
        means = _means(wide[rows], facts[rows], resamples, confidence)
        parts += [_ranked(metric, part, wide[rows], facts[rows], means) for metric in known]
    units = units_of(list(facts["patient_id"]), len(facts))
    return Rankings(
        overall=tuple(overall),
        parts=tuple(parts),
        missing=_missing(scored),
        images=len(facts),
        unit=units.unit,
        units=units.count,
        notes=tuple(note for note in (*notes, units.note) if note),
    )


def direction(metric: str) -> bool | None:
    """Whether a metric's higher values are better; None where it isn't registered.

    >>> direction("road-morf[noise=0.0]"), direction("mine")
    (False, None)
    """
    name = metric.partition("[")[0]
    return METRICS[name].higher_is_better if name in METRICS else None


def by_place(scored: pd.DataFrame, samples: pd.DataFrame) -> bool:
    """Whether the table's samples are places in `samples`."""
    numbered = pd.api.types.is_integer_dtype(scored["sample"]) and not pd.api.types.is_integer_dtype(samples["sample"])
    return numbered and bool(scored["sample"].between(0, len(samples) - 1).all())


def _scored(table: pd.DataFrame, samples: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values with their sample's name, and what is known of each sample, indexed by that name."""
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise expected("table", f"columns {', '.join(COLUMNS)}", ", ".join(map(str, table.columns)) or "none")
    scored = table.copy()
    scored["value"] = scored["value"].astype("float64")
    reasons = scored["reason"].fillna("").astype(str) if "reason" in scored else pd.Series("", index=scored.index)
    infinite = np.isinf(scored["value"])
    scored["reason"] = reasons.mask(infinite, INFINITE)
    scored.loc[infinite, "value"] = np.nan
    facts = _facts(scored, samples)
    if samples is not None and by_place(scored, samples):
        scored["sample"] = facts.index[scored["sample"].to_numpy()]
    unknown = sorted({str(name) for name in scored["sample"]} - {str(name) for name in facts.index})
    if unknown:
        raise expected("samples", "a row for each sample of the table", f"none for {unknown[0]!r}")
    twice = scored.duplicated(["sample", "method", "metric"])
    if twice.any():
        sample, method, metric = scored.loc[twice, ["sample", "method", "metric"]].iloc[0]
        raise expected("table", "one value per sample, method and metric", f"several of {metric} of {method}, {sample}")
    return scored, facts[facts.index.isin(set(scored["sample"]))]


def _facts(scored: pd.DataFrame, samples: pd.DataFrame | None) -> pd.DataFrame:
    if samples is None:
        samples = pd.DataFrame({"sample": list(dict.fromkeys(scored["sample"]))})
    if "sample" not in samples:
        raise expected("samples", "a column sample", ", ".join(map(str, samples.columns)) or "none")
    if samples["sample"].duplicated().any():
        name = samples.loc[samples["sample"].duplicated(), "sample"].iloc[0]
        raise expected("samples", "each sample once", f"{name!r} twice")
    facts = pd.DataFrame(index=pd.Index(list(samples["sample"]), name="sample"))
    for column in ("patient_id", "label", "predicted"):
        given = samples[column].to_numpy(object) if column in samples else np.full(len(samples), "", object)
        facts[column] = ["" if pd.isna(value) else str(value) for value in given]
    facts["correct"] = _correct(facts, samples)
    return facts


def _correct(facts: pd.DataFrame, samples: pd.DataFrame) -> list[str]:
    """ "right", "wrong", or "" where it isn't known."""
    if "correct" in samples:
        return ["" if pd.isna(value) else "right" if bool(value) else "wrong" for value in samples["correct"]]
    pairs = zip(facts["label"], facts["predicted"], strict=True)
    return ["" if not (label and said) else "right" if label == said else "wrong" for label, said in pairs]


def _parts(facts: pd.DataFrame) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Images of each class, of right and of wrong predictions, and of these within each class."""
    right_or_wrong = ("right", "wrong") if (facts["correct"] != "").any() else ()
    for label in (*sorted({label for label in facts["label"] if label}), "all"):
        of_label = (facts["label"] == label).to_numpy() | (label == "all")
        for correct in ("all", *right_or_wrong):
            rows = of_label & ((facts["correct"] == correct).to_numpy() | (correct == "all"))
            if (label, correct) != ("all", "all") and rows.any():
                yield (label, correct), rows


def _means(
    wide: pd.DataFrame, facts: pd.DataFrame, resamples: int, confidence: float
) -> dict[tuple[str, str], Estimate]:
    """Means of every metric and method over the same resamples of units."""
    values, units = by_unit(wide.to_numpy(float), list(facts["patient_id"]))
    names = (wide.columns.get_level_values(level).astype(str).tolist() for level in ("metric", "method"))
    pairs: list[tuple[str, str]] = list(zip(*names, strict=True))
    columns = {str(place): column for place, column in enumerate(values.T)}
    estimates = bootstrap(
        {place: mean_of(column) for place, column in columns.items()},
        units_of(units.unit, len(values)),
        resamples=resamples,
        confidence=confidence,
    )
    present = {place: int(np.isfinite(column).sum()) for place, column in columns.items()}
    return {
        pair: replace(estimates[place], n=present[place], n_missing=len(values) - present[place])
        for pair, place in zip(pairs, columns, strict=True)
    }


def _ranked(
    metric: str,
    part: tuple[str, str],
    wide: pd.DataFrame,
    facts: pd.DataFrame,
    means: Mapping[tuple[str, str], Estimate],
) -> MetricRanking:
    """Ranks of the methods that have a value of the metric at all; the others stand last, without a rank."""
    higher = bool(direction(metric))
    values = {method: wide[metric, method].to_numpy(float) for of_metric, method in means if of_metric == metric}
    present = [name for name in values if means[metric, name].n] or list(values)
    columns = np.column_stack([values[name] for name in present])
    whole = part == ("all", "all")
    ranked = friedman(columns, present, list(facts["patient_id"]), higher_is_better=higher, test=whole)
    ranks = dict(zip(ranked.methods, ranked.mean_ranks, strict=True))
    scores = [
        MethodScore(
            name, is_control(name), ranks.get(name), means[metric, name], int(np.isnan(column).sum()), None, higher
        )
        for name, column in values.items()
    ]
    scores.sort(key=lambda score: np.inf if score.mean_rank is None else score.mean_rank)
    return MetricRanking(metric, *part, higher, ranked, None, 0, tuple(scores), None)


def _with_floors(ranking: MetricRanking, wide: pd.DataFrame, facts: pd.DataFrame) -> MetricRanking:
    """Each method's paired test against the control with the best mean."""
    sign = 1.0 if ranking.higher_is_better else -1.0
    controls = {
        score.method: sign * score.mean.value
        for score in ranking.methods
        if score.control and score.mean.value is not None
    }
    if not controls:
        return ranking
    best = max(controls, key=controls.__getitem__)
    patients = list(facts["patient_id"])

    def floor(score: MethodScore) -> Comparison | None:
        if score.control or not score.mean.n:
            return None
        of_method, of_best = (wide[ranking.metric, name].to_numpy(float) for name in (score.method, best))
        result = paired_t(of_method, of_best, patients)
        return Comparison(score.method, best, result, None, "holm", 0)

    return replace(
        ranking, best_control=best, methods=tuple(replace(score, floor=floor(score)) for score in ranking.methods)
    )


def corrected(rankings: Sequence[MetricRanking]) -> list[MetricRanking]:
    """Rankings that are reported together: Friedman's p and the tests against controls, each corrected over all."""
    omnibus = adjust([ranking.ranks.p_value for ranking in rankings])
    floors = correct_family(
        [score.floor for ranking in rankings for score in ranking.methods if score.floor is not None]
    )
    known: Mapping[tuple[int, str], Comparison] = dict(
        zip(
            [(i, s.method) for i, ranking in enumerate(rankings) for s in ranking.methods if s.floor is not None],
            floors,
            strict=True,
        )
    )
    return [
        replace(
            ranking,
            adjusted_p=p,
            family=omnibus.counted,
            methods=tuple(replace(score, floor=known.get((place, score.method))) for score in ranking.methods),
        )
        for place, (ranking, p) in enumerate(zip(rankings, omnibus.p_values, strict=True))
    ]


def _missing(scored: pd.DataFrame) -> pd.DataFrame:
    gone = scored[scored["value"].isna()]
    gone = gone.assign(reason=gone["reason"].where(gone["reason"] != "", UNTOLD))
    counts = gone.groupby(["metric", "method", "reason"], sort=False).size()
    return counts.rename("images").reset_index()


def _row(ranking: MetricRanking, score: MethodScore) -> dict[str, Any]:
    floor = score.floor
    low, high = (floor.result.interval or (None, None)) if floor else (None, None)
    return {
        "metric": ranking.metric,
        "label": ranking.label,
        "correct": ranking.correct,
        "method": score.method,
        "control": score.control,
        "mean_rank": score.mean_rank,
        "ranked": ranking.ranks.n,
        "mean": score.mean.value,
        "low": score.mean.low,
        "high": score.mean.high,
        "n": score.mean.n,
        "missing": score.missing,
        "unit": ranking.ranks.unit,
        "best_control": ranking.best_control,
        "difference": floor.result.mean_difference if floor else None,
        "difference_low": low,
        "difference_high": high,
        "p_value": floor.result.p_value if floor else None,
        "p_adjusted": floor.adjusted_p if floor else None,
        "beats_controls": score.beats_controls,
    }
