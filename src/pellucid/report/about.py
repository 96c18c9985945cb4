"""How the report was made, how to cite it, and what its words mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any

import tomli_w

from pellucid.attribution import METHODS
from pellucid.metrics import METRICS
from pellucid.report.names import measure_title, method_title, metric_title
from pellucid.report.ranked import arrow_of
from pellucid.report.read import StudyResult

PROTOCOL = (
    "Chaddad et al. 2025, arXiv:2503.08420: the protocol that this study follows (convolutional networks on three "
    "medical tasks, class activation maps scored by the ROAD confidence increase)."
)
ROAD = "Rong et al. 2022, A consistent and efficient evaluation strategy for attribution methods, ICML: ROAD."

_CLASSIFICATION = (
    ("accuracy", "↑", "Share of test images whose class is predicted right."),
    (
        "balanced_accuracy",
        "↑",
        "Mean of the classes’ sensitivities, so that a rare class counts as much as a common one; one over the number "
        "of classes is chance.",
    ),
    ("macro_f1", "↑", "Harmonic mean of precision and recall per class, averaged over classes."),
    (
        "auroc",
        "↑",
        "Probability that an image of a class gets a higher score for it than one of another class; averaged over "
        "classes; 0.5 is chance.",
    ),
    (
        "auprc",
        "↑",
        "Precision averaged over all thresholds at which another image of the class is found, in steps (average "
        "precision); for all together the mean over classes. Chance is the class’s share of the images.",
    ),
    (
        "kappa",
        "↑",
        "Agreement with the true classes beyond what their frequencies give by chance; 0 is chance, 1 is full.",
    ),
    (
        "mcc",
        "↑",
        "Matthews’ correlation of true and predicted classes, for several classes as Gorodkin’s R_K; 0 is chance, 1 is "
        "full.",
    ),
    (
        "brier",
        "↓",
        "Squared distance of the probabilities from the truth, summed over classes: from 0 to 2; of one label alone "
        "from 0 to 1.",
    ),
    (
        "log_loss",
        "↓",
        "Negative natural logarithm of the probability that the truth was given, on average; a probability below "
        "2.2e-16 counts as that much.",
    ),
    ("sensitivity", "↑", "Share of the images of a class that are found (recall)."),
    ("specificity", "↑", "Share of the images of other classes that aren’t taken for it."),
    (
        "ppv",
        "↑",
        "Positive predictive value (precision): share of the images taken for a class that are of it, at these images’ "
        "frequencies.",
    ),
    (
        "npv",
        "↑",
        "Negative predictive value: share of the images not taken for a class that aren’t of it, at these images’ "
        "frequencies.",
    ),
    ("f1", "↑", "Harmonic mean of sensitivity and positive predictive value of a class."),
    ("subset_accuracy", "↑", "Share of test images all of whose labels are right."),
    ("hamming_loss", "↓", "Share of wrong labels among all labels of all test images."),
)
_RULES = (
    ("argmax", "Predicted class", "The class with the largest probability, held against the rest."),
    ("fixed", "Stated threshold", "A class is said to be there where its probability is at least this."),
    (
        "youden",
        "Youden’s threshold",
        "That with the largest sensitivity plus specificity on the validation images; the test images had no part in "
        "it, and intervals take it as given.",
    ),
    (
        "sensitivity-0.9",
        "Threshold of a sensitivity of 0.9",
        "The highest that finds at least nine of ten images of the class in the validation part; on the test images it "
        "may find more or fewer.",
    ),
)
_AVERAGES = (
    ("macro", "Macro", "Of several labels: the mean over the labels, each counting alike."),
    ("micro", "Micro", "Of several labels: every pair of an image and a label taken as one case."),
)


@dataclass(frozen=True)
class Term:
    """A word with its direction and meaning."""

    title: str
    direction: str
    meaning: str
    source: str = ""


def shown_config(config: Mapping[str, Any]) -> str:
    """The study's config as TOML, its paths cut to their last part, since the rest tells where someone works."""
    shown = dict(config)
    shown["datasets"] = [{**dataset, "path": last_part(str(dataset["path"]))} for dataset in config.get("datasets", ())]
    models = [model if isinstance(model, dict) else {"name": model} for model in config.get("models", ())]
    shown["models"] = [_without_folders(model) for model in models]
    return tomli_w.dumps(shown)


def _without_folders(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's settings, the paths of its weights and of those of its features' networks cut."""
    shown = dict(model)
    if isinstance(model.get("pretrained"), str):
        shown["pretrained"] = last_part(model["pretrained"])
    if isinstance(model.get("features"), list):
        networks = (each if isinstance(each, dict) else {"name": each} for each in model["features"])
        shown["features"] = [_without_folders(each) for each in networks]
    return shown


def last_part(path: str) -> str:
    """The last part of a path of any system; a built-in phantom's name stays whole.

    >>> last_part("/home/someone/brain_mri"), last_part("phantom:brain"), last_part(r"C:\\\\data\\\\skin")
    ('brain_mri', 'phantom:brain', 'skin')
    """
    if path.startswith("phantom:"):
        return path
    return PureWindowsPath(path).name if "\\" in path else PurePath(path).name or path


def environment_rows(study: StudyResult) -> list[tuple[str, str]]:
    """Hardware, seeds and versions, a row each."""
    environment, config = study.environment, study.config
    rows = [
        ("Seed", str(config.get("seed", 0))),
        ("Folds", str(study.folds)),
    ]
    for key, title in (
        ("device", "Device"),
        ("processors", "Processors"),
        ("threads", "Threads"),
        ("system", "System"),
        ("python", "Python"),
    ):
        if environment.get(key) is not None:
            rows.append((title, str(environment[key])))
    rows += [(str(name), str(version)) for name, version in environment.get("packages", {}).items()]
    return rows


def glossary(metrics: Sequence[str], measures: Collection[str], rules: Collection[str]) -> list[Term]:
    """The words of the model tables that hold these measures and rules, then the metrics that the study used."""
    plain = {name.removeprefix("macro_").removeprefix("micro_") for name in measures} | set(measures)
    terms = [
        Term(measure_title(name), direction, meaning) for name, direction, meaning in _CLASSIFICATION if name in plain
    ]
    terms += [
        Term(title, "", meaning) for name, title, meaning in _AVERAGES if {f"{name}_f1", f"{name}_ppv"} <= set(measures)
    ]
    terms += [Term(title, "", meaning) for name, title, meaning in _RULES if name in rules]
    for name in dict.fromkeys(label.partition("[")[0] for label in metrics):
        if name in METRICS:
            terms.append(Term(metric_title(name), arrow_of(name), METRICS[name].summary, METRICS[name].source))
    return terms


def method_terms(methods: Sequence[str]) -> list[Term]:
    """What each method of the study is, with its source."""
    terms = []
    for label in methods:
        name = label.partition("[")[0]
        if name in METHODS:
            control = "control" if METHODS[name].family == "control" else ""
            terms.append(Term(method_title(label), control, METHODS[name].summary, METHODS[name].source))
    return terms
