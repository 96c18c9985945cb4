"""The study's statistics, computed from the tables on disk and written beside them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pellucid.errors import InputError
from pellucid.files import read_json, read_table, write_table
from pellucid.progress import progress
from pellucid.statistics import (
    Estimate,
    Units,
    bootstrap,
    compare_all,
    mean_of,
    units_of,
)
from pellucid.study.classified import MEASURE_COLUMNS, measured_rows
from pellucid.study.config import StatisticsSettings, StudyConfig, read_config
from pellucid.study.enhancement_tests import compared_enhancements
from pellucid.study.families import TEST_COLUMNS, Compared, corrected_rows
from pellucid.study.model_tests import compared_models
from pellucid.study.plan import arm_folder, cell_folders
from pellucid.study.ranking import MethodScore, MetricRanking, corrected, rank_methods
from pellucid.study.store import read_cells

COMPARED_METRIC = "road"
_EXPLAINED = ["seed", "fold", "sample"]
"""What tells an explained image of one network from the others."""

_MODEL_COLUMNS = ["dataset", "model", "fold", "images", *MEASURE_COLUMNS]
_SCORE_COLUMNS = [
    "dataset", "model", "images", "method", "metric", "label", "correct", "mean", "low", "high", "n", "missing",
]  # fmt: skip
_RANK_COLUMNS = [
    "dataset", "model", "images", "metric", "method", "control", "mean_rank", "best_control", "p_adjusted",
    "beats_controls", "ranked", "missing", "unit", "friedman", "friedman_p", "friedman_p_adjusted",
    "critical_difference",
]  # fmt: skip


def summarise_study(config: StudyConfig, output: Path, *, show_progress: bool = False) -> None:
    """Write `statistics/*.csv` from the cells that are finished: models, scores, and the tests between them.

    - `models.csv`: every measure of the classifiers on the test images, of all classes and of each, at thresholds
      chosen on the validation part too, with intervals that resample patients, per fold and over all folds, on all
      images and without the copies of training images; and on each external set.
    - `model_tests.csv`: every pair of models on each data set by every test that is declared, and on each external
      set, corrected over the declared family.
    - `power.csv`: the difference between two models that so many folds or patients would show.
    - `enhancement_tests.csv`: each enhancement of each network against none, corrected over the study.
    - `scores.csv`: mean of each metric per method and class, right and wrong predictions apart; likewise on both sets
      of images.
    - `method_tests.csv`: every pair of methods by the ROAD confidence increase, corrected over the study.
    - `method_ranks.csv`: methods ranked by each metric within patients, by Friedman and Nemenyi, and held against the
      best control, corrected over the study.
    """
    folder, settings = output / "statistics", config.statistics
    folders = cell_folders(config, output)
    answers, elsewhere = read_cells(folders, "predictions"), read_cells(folders, "external")
    sizes = fold_sizes(output)
    scored = _scored(folders)
    made: dict[str, pd.DataFrame] = {}
    compared = functools.cache(lambda: compared_models(answers, sizes, settings, elsewhere))
    steps: list[tuple[str, Callable[[], pd.DataFrame]]] = [
        ("models", lambda: _models(answers, elsewhere, settings)),
        ("model_tests", lambda: compared().tests),
        ("power", lambda: compared().power),
        ("enhancement_tests", lambda: _enhancement_tests(answers, made["models"], sizes, config)),
        ("scores", lambda: _scores(scored, settings)),
        ("method_tests", lambda: _method_tests(scored, output, config)),
        ("method_ranks", lambda: _method_ranks(scored, output, settings)),
    ]
    with progress("comparing", len(steps), show=show_progress) as advance:
        for name, make in steps:
            made[name] = make()
            write_table(folder / f"{name}.csv", made[name])
            advance(1)


def summarise_stored(output: Path, *, show_progress: bool = False) -> None:
    """The same for a folder that a study left, finished or not."""
    if not (output / "study.toml").is_file():
        raise InputError(f"output: expected the folder of a study, got {str(output)!r}, which has no study.toml.")
    summarise_study(read_config(output / "study.toml"), output, show_progress=show_progress)


def fold_sizes(output: Path) -> dict[str, tuple[float, float]]:
    """Mean images of a fold outside of its test part and in it, by data set."""
    splits = read_table(output / "splits.parquet")
    sizes = {}
    for name, rows in splits.groupby("dataset"):
        counts = rows.groupby(["fold", "split"]).size().unstack("split", fill_value=0)
        sizes[str(name)] = (float((counts["train"] + counts["val"]).mean()), float(counts["test"].mean()))
    return sizes


def _units(rows: pd.DataFrame) -> Units:
    """Patients; where they aren't known images, which may be there once per fold and seed."""
    patients, samples = rows["patient_id"].astype(str), rows["sample"].astype(str)
    if not samples.duplicated().any() or not (patients == "").any():
        return units_of(list(patients), len(rows))
    if (patients == "").all():
        return replace(units_of(list(samples), len(rows)), unit="image")
    return units_of(list(patients.where(patients != "", "image " + samples)), len(rows))


def _models(answers: pd.DataFrame, elsewhere: pd.DataFrame, settings: StatisticsSettings) -> pd.DataFrame:
    rows = []
    for dataset, model, fold, images, part in [*_test_parts(answers), *_test_parts(elsewhere)]:
        held = answers[(answers["split"] == "val") & (answers["dataset"] == dataset) & (answers["model"] == model)]
        found = measured_rows(part, held, _units(part), resamples=settings.resamples, confidence=settings.confidence)
        where = {"dataset": dataset, "model": model, "fold": fold, "images": images}
        rows += [{**where, **row} for row in found]
    return pd.DataFrame(rows, columns=_MODEL_COLUMNS).astype({"positives": "Int64"})  # whole, or missing


def _test_parts(answers: pd.DataFrame) -> Iterable[tuple[str, str, str, str, pd.DataFrame]]:
    """Predictions per data set, model, fold (and all folds pooled) and set of images: the test part's, or external."""
    if answers.empty:
        return
    tested = answers[answers["split"] != "val"]
    for (dataset, model, split), part in tested.groupby(["dataset", "model", "split"], sort=False):
        folds = [("all", part)]
        if part["fold"].nunique() > 1:
            folds += [(str(fold), rows) for fold, rows in part.groupby("fold")]
        name = "" if split == "test" else f"{split} "
        for fold, rows in folds:
            yield str(dataset), str(model), fold, name.rstrip() or "all", rows
            clean = rows[~rows["copy_in_train"]]
            if 0 < len(clean) < len(rows):
                yield str(dataset), str(model), fold, f"{name}without copies", clean


def _enhancement_tests(
    answers: pd.DataFrame, models: pd.DataFrame, sizes: Mapping[str, tuple[float, float]], config: StudyConfig
) -> pd.DataFrame:
    correction = config.statistics.correction
    families = compared_enhancements(answers, models, sizes, correction)
    compared = [(each, key) for key, family in families.items() for each in family]
    return corrected_rows([each for each, _ in compared], [key for _, key in compared], correction)


def _scored(folders: Sequence[Path]) -> pd.DataFrame:
    """Scores beside what is known of each explained image."""
    scores, explained = read_cells(folders, "scores"), read_cells(folders, "explained")
    if scores.empty:
        return scores
    known = [*_EXPLAINED, "dataset", "model", "patient_id", "label", "correct", "copy_in_train"]
    return scores.merge(explained[known], on=["dataset", "model", *_EXPLAINED], validate="many_to_one")


def _scores(scored: pd.DataFrame, settings: StatisticsSettings) -> pd.DataFrame:
    if scored.empty:
        return pd.DataFrame(columns=_SCORE_COLUMNS)
    rows: list[dict[str, Any]] = []
    for dataset, model, images, cell in _explained_parts(scored):
        for label in ("all", *sorted(cell["label"].unique())):
            of_label = cell if label == "all" else cell[cell["label"] == label]
            for correct, part in (
                ("all", of_label),
                ("right", of_label[of_label["correct"]]),
                ("wrong", of_label[~of_label["correct"]]),
            ):
                where = {"dataset": dataset, "model": model, "images": images, "label": label, "correct": correct}
                rows += [{**where, **row} for row in _means(part, settings)]
    return pd.DataFrame(rows, columns=_SCORE_COLUMNS)


def _explained_parts(scored: pd.DataFrame) -> Iterable[tuple[str, str, str, pd.DataFrame]]:
    """Scores per data set, model and set of images; the second set only where there are copies to leave out."""
    for (dataset, model), cell in scored.groupby(["dataset", "model"], sort=False):
        yield str(dataset), str(model), "all", cell
        clean = cell[~cell["copy_in_train"]]
        if 0 < len(clean) < len(cell):
            yield str(dataset), str(model), "without copies", clean


def _means(part: pd.DataFrame, settings: StatisticsSettings) -> Iterable[dict[str, Any]]:
    """Mean of every method and metric over the same resamples of patients."""
    if part.empty:
        return []
    order = ["method", "metric"]
    pairs = list(part[order].drop_duplicates().itertuples(index=False, name=None))
    values = part.pivot(index=_EXPLAINED, columns=order, values="value")
    columns = {pair: values[pair].to_numpy(float) for pair in pairs}
    estimates = bootstrap(
        {"\n".join(pair): mean_of(column) for pair, column in columns.items()},
        _units_of_explained(part, values.index),
        resamples=settings.resamples,
        confidence=settings.confidence,
        generator=np.random.default_rng(0),
    )
    rows = []
    for (method, metric), column in columns.items():
        estimate = estimates[f"{method}\n{metric}"]
        missing = int(np.isnan(column).sum())
        row = {**_columns(estimate, "mean"), "n": len(column) - missing, "missing": missing}
        rows.append({"method": method, "metric": metric, **row})
    return rows


def _units_of_explained(scored: pd.DataFrame, index: pd.Index[Any]) -> Units:
    return _units(scored.drop_duplicates(_EXPLAINED).set_index(_EXPLAINED)[["patient_id"]].loc[index].reset_index())


def _method_tests(scored: pd.DataFrame, output: Path, config: StudyConfig) -> pd.DataFrame:
    if scored.empty or COMPARED_METRIC not in set(scored["metric"]):
        return pd.DataFrame(columns=TEST_COLUMNS)
    road = scored[scored["metric"] == COMPARED_METRIC]
    found: list[Compared] = []
    for dataset, model, images, cell in _explained_parts(road):
        methods = list(dict.fromkeys(cell["method"]))
        values = cell.pivot(index=_EXPLAINED, columns="method", values="value")
        comparisons = compare_all(
            {name: values[name].to_numpy(float) for name in methods},
            _units_of_explained(cell, values.index),
            correction=config.statistics.correction,
            coinciding=_coinciding(output, dataset, model),
        )
        where = {"dataset": dataset, "model": model, "images": images, "test": "paired-t", "metric": COMPARED_METRIC}
        found += [(where, comparison) for comparison in comparisons]
    return corrected_rows(found, [where["images"] for where, _ in found], config.statistics.correction)


def _method_ranks(scored: pd.DataFrame, output: Path, settings: StatisticsSettings) -> pd.DataFrame:
    """Ranks over all images of each network, corrected over the study."""
    found: dict[str, list[tuple[str, str, MetricRanking]]] = {}
    for dataset, model, images, cell in _explained_parts(scored) if len(scored) else ():
        places = [cell[name].astype(str) for name in _EXPLAINED]
        patients = cell["patient_id"].astype(str)
        if cell.drop_duplicates(_EXPLAINED)["sample"].duplicated().any():  # one image several times
            patients = patients.where(patients != "", "image " + cell["sample"].astype(str))
        named = cell.assign(sample=places[0] + "/" + places[1] + "/" + places[2], patient_id=patients)
        rankings = rank_methods(
            named[["sample", "method", "metric", "value"]],
            named.drop_duplicates("sample")[["sample", "patient_id"]],
            coinciding=_coinciding(output, dataset, model),
            resamples=settings.resamples,
            confidence=settings.confidence,
        )
        found.setdefault(images, []).extend((dataset, model, ranking) for ranking in rankings.overall)
    rows: list[dict[str, Any]] = []
    for images, family in found.items():
        for (dataset, model, _), ranking in zip(family, corrected([each for *_, each in family]), strict=True):
            where = {"dataset": dataset, "model": model, "images": images, "metric": ranking.metric}
            rows += [{**where, **_rank_row(ranking, score)} for score in ranking.methods]
    return pd.DataFrame(rows, columns=_RANK_COLUMNS)


def _rank_row(ranking: MetricRanking, score: MethodScore) -> dict[str, Any]:
    ranks = ranking.ranks
    return {
        "method": score.method,
        "control": score.control,
        "mean_rank": score.mean_rank,
        "best_control": ranking.best_control,
        "p_adjusted": None if score.floor is None else score.floor.adjusted_p,
        "beats_controls": score.beats_controls,
        "ranked": ranks.n,
        "missing": ranks.n_missing,
        "unit": ranks.unit,
        "friedman": ranks.statistic,
        "friedman_p": ranks.p_value,
        "friedman_p_adjusted": ranking.adjusted_p,
        "critical_difference": ranks.critical_difference,
    }


def _coinciding(output: Path, dataset: str, model: str) -> list[list[str]]:
    """Groups of methods that gave the same map in every fold: those of the first fold that all others repeat."""
    cards = [read_json(path) for path in sorted(arm_folder(output, dataset, model).glob("fold-*/cell.json"))]
    groups = [card["coinciding"] for card in cards]
    return [group for group in groups[0] if all(group in other for other in groups[1:])]


def _columns(estimate: Estimate, name: str) -> dict[str, Any]:
    return {name: estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
