"""Recompute the tables of `pellucid paper` from its predictions and scores, with pandas, scikit-learn and SciPy alone.

    python tools/recompute_tables.py OUTPUT

Prints the largest difference of each table, relative where a value is above 1, and ends with status 1 where one is
above 1e-9 or a row or value is there on one side only. Beside predictions.parquet and scores.parquet it reads what they
can't tell: times.json, which maps coincide (cell.json), the settings of the statistics (study.toml), and for the
corrected t-test the sizes of the folds (splits.parquet). Intervals are recomputed from the draws that pellucid
documents: NumPy's default generator with seed 0, units sorted by id.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, recall_score

LIMIT = 1e-9
ROUNDING = 1e-6  # of the largest score: single precision, below which two sides are identical
EXPLAINED = ["seed", "fold", "sample"]
PAPER = {"xgrad-cam": ("XGrad-CAM", 0.12), "grad-cam-plus-plus": ("Grad-CAM++", 0.09), "layer-cam": ("LayerCAM", 0.08)}
FIVE = ("grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam", "ablation-cam")
KEYS = {
    "accuracy": ["task", "model", "images"],
    "network_tests": ["task", "images", "test", "a", "b"],
    "confidence_increase": ["task", "model", "images", "label", "method"],
    "method_tests": ["task", "model", "images", "test", "a", "b"],
    "times": ["task", "model", "method"],
    "beside_paper": ["finding", "model"],
}


class Study:
    """What one task's study left."""

    def __init__(self, folder: Path) -> None:
        config = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
        self.settings = {"resamples": 2000, "confidence": 0.95, "correction": "holm"} | config.get("statistics", {})
        splits = pd.read_parquet(folder / "splits.parquet")
        counts = splits.groupby(["dataset", "fold"])["split"].value_counts().unstack(fill_value=0)
        self.sizes = counts.assign(train=counts["train"] + counts["val"])[["train", "test"]].groupby("dataset").mean()
        predictions, scores, self.times, self.coinciding = [], [], [], {}
        cards = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*/*/cell.json")}
        # the study's own order, which says which network of a pair is the first
        names, enhancements = [model["name"] for model in config["models"]], list(config.get("enhancements", ["none"]))

        def place(card: dict) -> tuple:
            which = names.index(card.get("network", card["model"])), enhancements.index(card.get("enhancement", "none"))
            return card["dataset"], *which, card["fold"], card.get("seed", 0)

        for path, card in sorted(cards.items(), key=lambda item: place(item[1])):
            where = {"task": card["dataset"], "model": card["model"], "seed": card.get("seed", 0), "fold": card["fold"]}
            answers = pd.read_parquet(path.with_name("predictions.parquet"))
            tested = answers[answers["split"] == "test"]
            predictions.append(tested.assign(**where))
            if path.with_name("scores.parquet").exists():
                known = tested[["sample", "patient_id", "label", "copy_in_train"]]
                values = pd.read_parquet(path.with_name("scores.parquet")).merge(known, on="sample")
                scores.append(values[values["metric"] == "road"].assign(**where))
            self.times.append({**where, **json.loads(path.with_name("times.json").read_text(encoding="utf-8"))})
            self.coinciding.setdefault((card["dataset"], card["model"]), []).append(card["coinciding"])
        self.predictions = pd.concat(predictions) if predictions else pd.DataFrame()
        self.scores = pd.concat(scores) if scores else pd.DataFrame()


def main(output: Path) -> int:
    """Print a line per table and more per column that differs; 1 when any does."""
    studies = [Study(path.parent) for path in sorted(output.glob("*/study.toml"))]
    made = {
        "accuracy": [row for study in studies for row in accuracy(study)],
        "network_tests": [row for study in studies for row in network_tests(study)],
        "confidence_increase": [row for study in studies for row in confidence(study)],
        "method_tests": [row for study in studies for row in method_tests(study)],
        "times": [row for study in studies for row in times(study)],
    }
    made["beside_paper"] = beside(pd.DataFrame(made["accuracy"]), pd.DataFrame(made["confidence_increase"]))
    wrong = 0
    for name, rows in made.items():
        largest, faults = compared(
            name, pd.read_csv(output / f"{name}.csv", keep_default_na=False, na_values=[""]), rows
        )
        print(f"{name}: {len(rows)} rows, largest difference {largest:.1e}")
        for fault in faults:
            print(f"{name}: {fault}")
        wrong += len(faults)
    return int(wrong > 0)


def compared(name: str, table: pd.DataFrame, rows: list[dict]) -> tuple[float, list[str]]:
    """The largest difference of a table, and what is wrong with it."""
    again = pd.DataFrame(rows, columns=None if rows else list(table.columns))
    keys = KEYS[name]
    table, again = (
        each.assign(**{key: each[key].astype(object).fillna("").astype(str) for key in keys}) for each in (table, again)
    )
    both = table.merge(again, on=keys, how="outer", suffixes=("", " again"), indicator=True)
    faults = [f"rows {len(table)}, recomputed {len(again)}"] if (both["_merge"] != "both").any() else []
    largest = 0.0
    for column in [each for each in again.columns if each not in keys]:
        left, right = both[column], both[f"{column} again"]
        if not all(pd.api.types.is_numeric_dtype(each) for each in (left, right)):
            left, right = (pd.Series(pd.factorize(pd.concat([left, right]).astype(str))[0]) for _ in range(2))
            left, right = left[: len(both)], right[len(both) :]
        a, b = left.to_numpy(float), right.to_numpy(float)
        if (np.isnan(a) != np.isnan(b)).any():
            faults.append(f"{column}: a value on one side only")
        difference = float(np.nanmax(np.abs(a - b) / np.maximum(1, np.abs(b)), initial=0))
        largest = max(largest, difference)
        if difference > LIMIT:
            faults.append(f"{column} differs by {difference:.1e}")
    return largest, faults


def parts(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All images, and those without the copies where there are some of either."""
    yield "all", table
    clean = table[~table["copy_in_train"].astype(bool)]
    if 0 < len(clean) < len(table):
        yield "without copies", clean


def units(table: pd.DataFrame) -> np.ndarray:
    """A number per row: patients sorted by id after the rows without one."""
    ids, samples = table["patient_id"].fillna("").astype(str), table["sample"].astype(str)
    if samples.duplicated().any() and (ids == "").any():
        ids = samples if (ids == "").all() else ids.where(ids != "", "image " + samples)
    known = (ids != "").to_numpy()
    codes = np.arange(len(ids))
    if known.any():
        codes[~known] = np.arange((~known).sum())
        codes[known] = (~known).sum() + np.unique(ids[known], return_inverse=True)[1]
    return codes


def draws(codes: np.ndarray, settings: dict) -> np.ndarray:
    """How often each row is drawn in each resample of whole units, (R, N)."""
    count = int(codes.max()) + 1
    drawn = np.random.default_rng(0).integers(count, size=(settings["resamples"], count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn])[:, codes].astype(float)


def bounds(values: np.ndarray, codes: np.ndarray, settings: dict) -> tuple[float, float]:
    """Percentile interval; none for one unit, or where most resamples have no value."""
    finite = values[np.isfinite(values)]
    if codes.max() == 0 or 2 * len(finite) < len(values):
        return np.nan, np.nan
    tail = (1 - settings["confidence"]) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def accuracy(study: Study) -> Iterator[dict]:
    """Accuracy, balanced accuracy and F1 of each network."""
    for (task, model), answers in (
        study.predictions.groupby(["task", "model"], sort=False) if len(study.predictions) else ()
    ):
        classes = sorted(
            name.removeprefix("prob_") for name in answers if name.startswith("prob_") and answers[name].notna().all()
        )
        for images, rows in parts(answers):
            ids = rows["patient_id"].fillna("").astype(str)
            place = {name: number for number, name in enumerate(classes)}
            label, said = rows["label"].map(place).to_numpy(), rows["predicted"].map(place).to_numpy()
            shares = [rows[f"prob_{name}"].to_numpy() for name in classes]
            order = np.lexsort((*shares, said, label, row_ids(rows, ids)))
            rows, label, said = rows.iloc[order], label[order], said[order]
            codes = units(rows)
            weights = draws(codes, study.settings)
            with np.errstate(invalid="ignore", divide="ignore"):
                hits = weights @ (label == said) / weights.sum(axis=1)
                per_class, recalls = [], []
                for k in range(len(classes)):
                    right, true, named = (
                        weights @ each for each in ((label == k) & (said == k), label == k, said == k)
                    )
                    per_class.append(np.where(true > 0, 2 * right / (true + named), np.nan))
                    recalls.append(np.where(true > 0, right / true, np.nan))
            share = rows["label"].value_counts(normalize=True).max()
            low, high = bounds(hits, codes, study.settings)
            whole = rows["label"].nunique() == len(classes)
            f1 = f1_score(rows["label"], rows["predicted"], average="macro", labels=classes) if whole else np.nan
            f1_low, f1_high = bounds(np.mean(per_class, axis=0), codes, study.settings) if whole else (np.nan, np.nan)
            balanced = recall_score(label, said, average="macro", labels=np.unique(label))
            if not whole:  # over the classes that occur, the rows by sample
                codes, recalls = by_sample(rows, study.settings)
            balanced_low, balanced_high = bounds(np.mean(recalls, axis=0), codes, study.settings)
            yield {
                "task": task,
                "model": model,
                "images": images,
                "n": len(rows),
                "accuracy": accuracy_score(rows["label"], rows["predicted"]),
                "accuracy_low": low,
                "accuracy_high": high,
                "balanced_accuracy": balanced,
                "balanced_accuracy_low": balanced_low,
                "balanced_accuracy_high": balanced_high,
                "macro_f1": f1,
                "macro_f1_low": f1_low,
                "macro_f1_high": f1_high,
                "commonest_class": share,
                "one_over_classes": 1 / rows["label"].nunique(),
                "at_chance": bool(
                    balanced_low <= 1 / rows["label"].nunique() if np.isfinite(balanced_low) else low <= share
                ),
            }


def by_sample(rows: pd.DataFrame, settings: dict) -> tuple[np.ndarray, list[np.ndarray]]:
    """Units, and recall of each class that occurs in each resample."""
    rows = rows.sort_values("sample", kind="stable")
    codes = units(rows)
    weights = draws(codes, settings)
    right = (rows["label"] == rows["predicted"]).to_numpy()
    recalls = []
    for label in rows["label"].unique():
        there = (rows["label"] == label).to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls.append(weights @ (right & there) / (weights @ there))
    return codes, recalls


def row_ids(rows: pd.DataFrame, ids: pd.Series) -> np.ndarray:
    """The ids by which rows are ordered; images stand for unknown patients where an image comes several times."""
    samples = rows["sample"].astype(str)
    if samples.duplicated().any() and (ids == "").any():
        ids = samples if (ids == "").all() else ids.where(ids != "", "image " + samples)
    return ids.to_numpy(str)


def network_tests(study: Study) -> list[dict]:
    """Every pair of networks by accuracy."""
    rows: list[dict] = []
    for task, answers in study.predictions.groupby("task", sort=False) if len(study.predictions) else ():
        for images, part in parts(answers):
            models = list(dict.fromkeys(part["model"]))
            by_fold = part["fold"].nunique() > 1
            right = part.assign(correct=(part["label"] == part["predicted"]).astype(float))
            index = "fold" if by_fold else "sample"
            wide = right.pivot_table("correct", index, "model")
            codes = np.arange(len(wide))
            if not by_fold:
                codes = units(right.drop_duplicates("sample").set_index("sample").loc[wide.index].reset_index())
            overlap = {"paired-t": 0.0}
            if by_fold:
                overlap["corrected-resampled-t"] = study.sizes.loc[task, "test"] / study.sizes.loc[task, "train"]
            for a, b in combinations(models, 2):
                for test, extra in overlap.items():
                    where = {"task": task, "images": images, "test": test, "a": a, "b": b}
                    rows.append({**where, **paired(wide[a].to_numpy(), wide[b].to_numpy(), codes, extra)})
    return corrected(rows, ["images", "test"], study.settings)


def method_tests(study: Study) -> list[dict]:
    """Every pair of methods of each network by confidence increase."""
    rows: list[dict] = []
    for (task, model), scores in study.scores.groupby(["task", "model"], sort=False) if len(study.scores) else ():
        first, *others = study.coinciding[task, model]
        same = [group for group in first if all(group in other for other in others)]
        for images, part in parts(scores):
            wide = part.pivot(index=EXPLAINED, columns="method", values="value")
            codes = units(part.drop_duplicates(EXPLAINED).set_index(EXPLAINED).loc[wide.index].reset_index())
            for a, b in combinations(dict.fromkeys(part["method"]), 2):
                result = paired(wide[a].to_numpy(float), wide[b].to_numpy(float), codes, 0.0)
                if any(a in group and b in group for group in same) and np.isfinite(result["mean_difference"]):
                    none = dict.fromkeys(("low", "high", "statistic", "effect_size"), np.nan)
                    result |= {**none, "p_value": 1.0, "identical": True}
                rows.append(
                    {"task": task, "model": model, "images": images, "test": "paired-t", "a": a, "b": b, **result}
                )
    return corrected(rows, ["images"], study.settings)


def paired(a: np.ndarray, b: np.ndarray, codes: np.ndarray, overlap: float) -> dict:
    """SciPy's paired t-test on the means within units, its variance larger by the overlap of training sets."""
    present = np.isfinite(a) & np.isfinite(b)
    means = pd.DataFrame({"unit": codes[present], "a": a[present], "b": b[present]}).groupby("unit").mean()
    difference = (means["a"] - means["b"]).to_numpy()
    n, small = len(means), ROUNDING * np.abs(means.to_numpy()).max(initial=0)
    result = dict.fromkeys(("low", "high", "statistic", "p_value", "effect_size"), np.nan)
    result |= {"mean_difference": difference.mean() if n else np.nan, "n": n, "df": n - 1 if n > 1 else np.nan}
    result["identical"] = bool(n and np.abs(difference).max() <= small)
    if result["identical"]:
        result["p_value"] = 1.0
    elif n > 1 and np.ptp(difference) > small:
        test = stats.ttest_rel(means["a"], means["b"])
        factor = np.sqrt((1 / n + overlap) * n)
        low, high = test.confidence_interval(0.95)
        centre, reach = result["mean_difference"], (high - low) / 2 * factor
        statistic = test.statistic / factor
        result |= {
            "statistic": statistic,
            "p_value": test.pvalue if overlap == 0 else 2 * stats.t.sf(abs(statistic), n - 1),
            "low": centre - reach,
            "high": centre + reach,
            "effect_size": centre / difference.std(ddof=1),
        }
    return result


def corrected(rows: list[dict], family: list[str], settings: dict) -> list[dict]:
    """The rows with p corrected over each family of the study."""
    if not rows:
        return []
    table = pd.DataFrame(rows)
    table["p_adjusted"] = np.nan
    for _, part in table.groupby(family):
        p = part["p_value"].dropna()
        if settings["correction"] == "holm":
            ordered = p.sort_values(kind="stable")
            raised = np.maximum.accumulate(ordered * np.arange(len(p), 0, -1)).clip(upper=1)
        else:
            raised = pd.Series(stats.false_discovery_control(p), p.index)
        table.loc[raised.index, "p_adjusted"] = raised
    return table.to_dict("records")


def confidence(study: Study) -> Iterator[dict]:
    """Mean confidence increase of each network, true class and method."""
    for (task, model), scores in study.scores.groupby(["task", "model"], sort=False) if len(study.scores) else ():
        for images, part in parts(scores):
            for label in ("all", *sorted(part["label"].unique())):
                rows = part if label == "all" else part[part["label"] == label]
                wide = rows.pivot(index=EXPLAINED, columns="method", values="value")
                codes = units(rows.drop_duplicates(EXPLAINED).set_index(EXPLAINED).loc[wide.index].reset_index())
                weights = draws(codes, study.settings)
                for method, values in wide.items():
                    there = values.notna().to_numpy()
                    with np.errstate(invalid="ignore", divide="ignore"):
                        means = weights @ values.fillna(0).to_numpy() / (weights @ there)
                    low, high = bounds(means, codes, study.settings) if there.any() else (np.nan, np.nan)
                    row = {"mean": values.mean(), "low": low, "high": high, "n": there.sum(), "missing": (~there).sum()}
                    yield {"task": task, "model": model, "images": images, "label": label, "method": method, **row}


def times(study: Study) -> Iterator[dict]:
    """Mean over the folds of the seconds per image."""
    cells = [cell for cell in study.times if cell["explain"]]
    rows = [
        {"task": cell["task"], "model": cell["model"], "method": method, "seconds_per_image": value}
        for cell in cells
        for method, value in {
            "forward": cell["forward_seconds_per_image"],
            "forward and gradient": cell["shared_seconds_per_image"],
            **cell["explain"],
        }.items()
    ]
    if not rows:
        return
    means = pd.DataFrame(rows).groupby(["task", "model", "method"], sort=False)["seconds_per_image"].mean()
    for (task, model, method), value in means.items():
        ratio = value / means[task, model, "forward"]
        yield {"task": task, "model": model, "method": method, "seconds_per_image": value, "ratio_to_forward": ratio}


def beside(accuracies: pd.DataFrame, increases: pd.DataFrame) -> list[dict]:
    """What stands beside the published numbers."""
    rows = []
    for _, row in accuracies.iterrows():
        if row["task"] == "skin" and "resnet" in row["model"]:
            finding = "Accuracy of ResNet50 on skin" + ("" if row["images"] == "all" else f", {row['images']}")
            rows.append({"finding": finding, "model": row["model"], "here": row["accuracy"]})
    if increases.empty:
        return rows
    increases = increases[increases["images"] == "all"]
    glioma = increases[(increases["task"] == "brain") & (increases["label"] == "glioma")]
    for method, (title, _) in PAPER.items():
        for _, row in glioma[glioma["method"] == method].iterrows():
            finding = f"Confidence increase on glioma, {title}"
            rows.append({"finding": finding, "model": row["model"], "here": row["mean"]})
    skin = increases[(increases["task"] == "skin") & (increases["label"] == "all")]
    for part, finding in (
        (glioma, f"{' > '.join(title for title, _ in PAPER.values())} on glioma"),
        (skin, "EigenGradCAM the weakest of the five on skin"),
    ):
        for model, of_model in part.groupby("model", sort=False):
            means = of_model.set_index("method")["mean"].dropna()
            if part is glioma and set(PAPER) <= set(means.index):
                holds = means[list(PAPER)].is_monotonic_decreasing
            elif part is skin and "eigen-grad-cam" in means:
                holds = means[[name for name in FIVE if name in means]].idxmin() == "eigen-grad-cam"
            else:
                continue
            rows.append({"finding": finding, "model": model, "here": float(holds)})
    return rows


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
