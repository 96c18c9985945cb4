"""The numbers of arXiv 2503.08420's tables as a study of the same protocol gives them, beside those published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.report.findings_of import model_accuracies, test_images
from pellucid.report.names import method_title
from pellucid.report.read import DatasetResult, StudyResult
from pellucid.report.tables import T_TESTS
from pellucid.statistics import bootstrap, units_of
from pellucid.statistics.units import FloatArray

# The published numbers that are known here; which network the confidence increases belong to isn't.
PUBLISHED_ACCURACY = {("skin", "ResNet50"): 0.8631}
PUBLISHED_CONFIDENCE = {("brain", "glioma"): {"xgrad-cam": 0.12, "grad-cam-plus-plus": 0.09, "layer-cam": 0.08}}
PUBLISHED_WEAKEST = {"skin": "eigen-grad-cam"}
METHODS = ("grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam", "ablation-cam")
NETWORKS = ("ResNet50", "DenseNet121", "VGG16", "EfficientNet-B0")

_FAMILIES = {"densenet": NETWORKS[1], "vgg": NETWORKS[2], "efficientnet": NETWORKS[3], "tinynet": NETWORKS[3]}
_FAMILIES["resnet"] = NETWORKS[0]

_BESIDE = ["finding", "published", "kind", "task", "network", "model", "here"]
ACCURACY_COLUMNS = [
    "task", "network", "model", "images", "n", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy",
    "balanced_accuracy_low", "balanced_accuracy_high", "macro_f1", "macro_f1_low", "macro_f1_high", "commonest_class",
    "one_over_classes", "at_chance", "paper_accuracy",
]  # fmt: skip
TEST_COLUMNS = [
    "a", "b", "mean_difference", "low", "high", "statistic", "df", "p_value", "p_adjusted", "effect_size", "n", "unit",
    "identical",
]  # fmt: skip


def network_of(model: str) -> str:
    """The paper's network of the same family, or "".

    >>> network_of("resnet10t"), network_of("efficientnet_b0"), network_of("tinynet_e"), network_of("swin_tiny")
    ('ResNet50', 'EfficientNet-B0', 'EfficientNet-B0', '')
    """
    return next((network for family, network in _FAMILIES.items() if family in model), "")


def accuracy_numbers(study: StudyResult, dataset: DatasetResult) -> pd.DataFrame:
    """A row per network and set of test images: accuracy, balanced accuracy and F1, beside chance and the paper.

    A network is at chance where the interval of its balanced accuracy isn't above one over the number of classes that
    occur; where there is no interval, where that of its accuracy isn't above the share of the commonest class.
    """
    rows = []
    for model in dataset.models:
        answers = test_images(dataset.of_model(model))
        table = study.table("models", dataset.name, model)
        whole = table[table["fold"] == "all"].drop_duplicates(["images", "metric"]).set_index(["images", "metric"])
        for images, accuracy in model_accuracies(study, dataset, model).items():
            part = answers if images == "all" else answers[~answers["copy_in_train"].astype(bool)]
            network, chance = network_of(model), 1 / part["label"].nunique()
            numbers = {
                f"{metric}{end}": whole[name].get((images, metric), np.nan)
                for metric in ("balanced_accuracy", "macro_f1")
                for name, end in (("value", ""), ("low", "_low"), ("high", "_high"))
            }
            if np.isnan(numbers["balanced_accuracy"]):
                names = ("balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high")
                numbers |= dict(zip(names, _balanced(part, study), strict=True))
            low = float(numbers["balanced_accuracy_low"])
            rows.append(
                {
                    "task": dataset.name,
                    "network": network,
                    "model": model,
                    "images": images,
                    "n": accuracy.n,
                    "accuracy": accuracy.value,
                    "accuracy_low": accuracy.low,
                    "accuracy_high": accuracy.high,
                    **numbers,
                    "commonest_class": accuracy.chance,
                    "one_over_classes": chance,
                    "at_chance": low <= chance if np.isfinite(low) else accuracy.near_chance,
                    "paper_accuracy": PUBLISHED_ACCURACY.get((dataset.name, network), np.nan),
                }
            )
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


def _balanced(answers: pd.DataFrame, study: StudyResult) -> tuple[float, float, float]:
    """Balanced accuracy over the classes that occur, and its interval, for test images that lack a class."""
    rows = answers.sort_values("sample", kind="stable")
    patients, samples = rows["patient_id"].astype(str), rows["sample"].astype(str)
    if samples.duplicated().any():
        patients = patients.where(patients != "", "image " + samples)
    right = (rows["label"] == rows["predicted"]).to_numpy(float)
    groups = [(rows["label"] == label).to_numpy(float) for label in rows["label"].unique()]

    def balanced(weights: FloatArray) -> FloatArray:
        shares = [
            np.divide(weights @ (right * group), weights @ group, out=np.full(len(weights), np.nan), where=there)
            for group, there in ((group, weights @ group > 0) for group in groups)
        ]
        return np.asarray(np.mean(shares, axis=0))

    settings = study.config.get("statistics", {})
    found = bootstrap(
        {"": balanced},
        units_of(list(patients), len(rows)),
        resamples=int(settings.get("resamples", 2000)),
        confidence=study.confidence,
    )[""]
    value, low, high = (np.nan if each is None else each for each in (found.value, found.low, found.high))
    return value, low, high


def network_tests(study: StudyResult, dataset: DatasetResult) -> pd.DataFrame:
    """Every pair of networks by accuracy: the paper's paired t-test, and the corrected one where there are folds."""
    tests = study.table("model_tests", dataset.name)
    tests = tests[(tests["metric"] == "accuracy") & tests["test"].isin(T_TESTS)]
    return tests.assign(task=dataset.name)[["task", "images", "test", *TEST_COLUMNS]]


def confidence_numbers(study: StudyResult, dataset: DatasetResult) -> pd.DataFrame:
    """Mean confidence increase per network, set of images, true class ("all" for all) and method."""
    scores = study.table("scores", dataset.name)
    road = scores[(scores["metric"] == "road") & (scores["correct"] == "all")]
    published = [
        PUBLISHED_CONFIDENCE.get((dataset.name, str(label)), {}).get(str(method), np.nan)
        for label, method in zip(road["label"], road["method"], strict=True)
    ]
    road = road.assign(task=dataset.name, control=road["method"].map(is_control).astype(bool), paper=published)
    columns = ["model", "images", "label", "method", "control", "mean", "low", "high", "n", "missing", "paper"]
    return road[["task", *columns]]


def method_tests(study: StudyResult, dataset: DatasetResult) -> pd.DataFrame:
    """Every pair of methods and controls on each network, by their confidence increase."""
    tests = study.table("method_tests", dataset.name)
    tests = tests[tests["metric"] == "road"]
    return tests.assign(task=dataset.name)[["task", "model", "images", "test", *TEST_COLUMNS]]


def time_numbers(study: StudyResult, dataset: DatasetResult) -> pd.DataFrame:
    """Seconds per image of each network and method, the mean over folds, and its ratio to a plain forward pass."""
    rows = []
    for model in dataset.models:
        cells = [cell for cell in dataset.of_model(model) if cell.times.get("explain")]
        names = dict.fromkeys(name for cell in cells for name in cell.times["explain"])
        spent = {
            "forward": [cell.times["forward_seconds_per_image"] for cell in cells],
            "forward and gradient": [cell.times["shared_seconds_per_image"] for cell in cells],
            **{
                name: [cell.times["explain"][name] for cell in cells if name in cell.times["explain"]] for name in names
            },
        }
        for method, values in spent.items() if cells else ():
            mean, forward = float(np.mean(values)), float(np.mean(spent["forward"]))
            devices = ", ".join(sorted({str(cell.times["device"]) for cell in cells}))
            rows.append((dataset.name, model, method, mean, mean / forward if forward else np.nan, devices))
    columns = ["task", "model", "method", "seconds_per_image", "ratio_to_forward", "device"]
    return pd.DataFrame(rows, columns=columns)


def paper_sheets(studies: Mapping[str, StudyResult]) -> dict[str, pd.DataFrame]:
    """File name without ending -> table, over all tasks. None of them names a patient or an image."""
    made = {
        "accuracy": accuracy_numbers,
        "network_tests": network_tests,
        "confidence_increase": confidence_numbers,
        "method_tests": method_tests,
        "times": time_numbers,
    }
    sheets = {}
    for name, make in made.items():
        tables = [make(study, dataset) for study in studies.values() for dataset in study.datasets]
        filled = [table for table in tables if len(table)]
        sheets[name] = pd.concat(filled, ignore_index=True) if filled else tables[0]
    sheets["beside_paper"] = beside_paper(sheets)
    return sheets


def beside_paper(sheets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per network and published finding: what it was, and what was found here."""
    rows = []
    accuracy = sheets["accuracy"]
    for _, row in accuracy[accuracy["paper_accuracy"].notna()].iterrows():
        images = "" if row["images"] == "all" else f", {row['images']}"
        what = f"Accuracy of {row['network']} on {row['task']}{images}", f"{100 * row['paper_accuracy']:.2f}\u00a0%"
        rows.append((*what, "accuracy", row["task"], row["network"], row["model"], row["accuracy"]))
    increase = sheets["confidence_increase"]
    increase = increase[increase["images"] == "all"]
    for (task, label), published in PUBLISHED_CONFIDENCE.items():
        part = increase[(increase["task"] == task) & (increase["label"] == label)]
        for method, value in published.items():
            what = f"Confidence increase on {label}, {method_title(method)}", f"{value:.2f}", "increase"
            for _, row in part[part["method"] == method].iterrows():
                rows.append((*what, task, _network(row["model"]), row["model"], row["mean"]))
        what = f"{' > '.join(map(method_title, published))} on {label}", "holds", "holds"
        for model, means in _means(part):
            values = [means.get(method, np.nan) for method in published]
            if np.isfinite(values).all():
                holds = float(values == sorted(values, reverse=True))
                rows.append((*what, task, _network(model), model, holds))
    for task, weakest in PUBLISHED_WEAKEST.items():
        what = f"{method_title(weakest)} the weakest of the five on {task}", "holds", "holds"
        for model, means in _means(increase[(increase["task"] == task) & (increase["label"] == "all")]):
            known = {method: means[method] for method in METHODS if np.isfinite(means.get(method, np.nan))}
            if weakest in known and len(known) > 1:
                holds = float(min(known, key=known.__getitem__) == weakest)
                rows.append((*what, task, _network(model), model, holds))
    return pd.DataFrame(rows, columns=_BESIDE)


def _means(increase: pd.DataFrame) -> Iterator[tuple[str, dict[str, float]]]:
    """Each network with its methods' means."""
    for model, part in increase.groupby("model", sort=False):
        yield str(model), dict(zip(part["method"].astype(str), part["mean"].astype(float), strict=True))


def _network(model: str) -> str:
    return network_of(model) or model
