"""Findings in sentences, each with what speaks against it: tables and numbers in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pellucid.attribution.families import is_control
from pellucid.report.names import counted, listed, method_title, number, percent

Tone = Literal["result", "against", "alarm"]

LARGE_SHARE_OF_COPIES = 0.05
GRAVE_LEAKS = (
    "confounded",
    "exact-in-other-set",
    "near-in-other-set",
    "near-conflicts",
    "patients-across-splits",
    "lesions-across-splits",
)
FINE_GRID = 7  # cells along an axis, below which a CAM can't outline much
CLEAR_RATIO = 2.0  # relevance mass over the lesion's share, from which a map is called focused
SIGNIFICANT = 0.05
FEW = 10


@dataclass(frozen=True)
class Finding:
    """One sentence or two. `tone`: a result, what speaks against one, or what must not be overlooked."""

    text: str
    tone: Tone = "result"


@dataclass(frozen=True)
class Accuracy:
    """A model's accuracy on one set of test images, and the share of their commonest class."""

    value: float
    low: float
    high: float
    n: int
    chance: float

    @property
    def near_chance(self) -> bool:
        """Whether the interval includes, or lies below, what naming the commonest class would reach."""
        return bool(self.low <= self.chance)

    def told(self) -> str:
        return f"{percent(self.value)} ({percent(self.low)} to {percent(self.high)})"


def copies_finding(
    test_images: int, copies: int, accuracies: Mapping[str, tuple[Accuracy, Accuracy | None]], near: int = 0
) -> Finding | None:
    """What test images that are copies of training images do to the accuracy; None where there are none.

    Arguments:
        test_images, copies: counts over all folds.
        accuracies: per model, on all test images and on those without a copy.
        near: how many of the copies aren't pixel-identical.
    """
    if copies == 0 or test_images == 0:
        return None
    share = copies / test_images
    exact = "" if near else "pixel-identical "
    are = f"is a {exact}copy" if copies == 1 else f"are {exact}copies"
    text = (
        f"{counted(copies, 'image')} of the {test_images} in the test part ({percent(share, 0)}) "
        f"{are} of training images, which a network can know by heart"
        + (f" ({copies - near} pixel-identical, {near} resized, recompressed, flipped or the like)." if near else ".")
    )
    for model, (everything, clean) in accuracies.items():
        if clean is not None:
            text += f" {model}: accuracy {everything.told()} on all test images, {clean.told()} without the copies"
            text += ", which is no better than chance." if clean.near_chance else "."
    if share >= LARGE_SHARE_OF_COPIES:
        return Finding(text + " Only the figures without the copies say how well a model generalises.", "alarm")
    return Finding(text, "against")


def model_findings(
    model: str, everything: Accuracy, clean: Accuracy | None, never_predicted: Sequence[str]
) -> list[Finding]:
    """How well one model does, whether that is better than chance, and which classes it never names."""
    found = [
        Finding(
            f"{model} classifies {everything.told()} of {counted(everything.n, 'test image')} correctly; "
            f"naming the commonest class each time would reach {percent(everything.chance)}."
        )
    ]
    if everything.near_chance:
        found.append(
            Finding(
                f"{model} is near chance: its interval includes the commonest class’s share. "
                "What its maps show and how they score means nothing here.",
                "alarm",
            )
        )
    elif clean is not None and clean.near_chance:
        found.append(
            Finding(
                f"Without the copies {model} is near chance: {clean.told()} of {counted(clean.n, 'image')}, where the "
                f"commonest class has {percent(clean.chance)}. Its maps may show memory and not evidence.",
                "against",
            )
        )
    if never_predicted:
        found.append(Finding(f"{model} never predicts {listed(never_predicted)}.", "against"))
    return found


def training_finding(model: str, best_epochs: Sequence[int], epochs: Sequence[int]) -> Finding | None:
    """A training whose best epoch was its last may not have been finished."""
    open_ended = sum(best == last > 0 for best, last in zip(best_epochs, epochs, strict=True))
    if open_ended == 0:
        return None
    where = "" if len(epochs) == 1 else f" in {open_ended} of {len(epochs)} folds"
    return Finding(f"{model} was still improving when training ended{where}: more epochs may help.", "against")


def grid_finding(
    model: str, layer: str | None, grid: Sequence[int] | None, image_size: int | Sequence[int]
) -> Finding | None:
    """A coarse grid limits every CAM of a network."""
    if not grid or min(grid) >= FINE_GRID:
        return None
    shape = " × ".join(str(length) for length in grid)
    lengths = [image_size] * len(grid) if isinstance(image_size, int) else image_size
    cell = " × ".join(str(round(whole / length)) for whole, length in zip(lengths, grid, strict=True))
    return Finding(
        f"{model}’s maps come from a grid of {shape} at layer {layer}: one cell covers {cell} pixels of the image, "
        "so that no map of this layer can outline anything smaller.",
        "against",
    )


def coinciding_findings(model: str, groups: Sequence[Sequence[str]]) -> list[Finding]:
    """Methods that are one and the same map on this network."""
    return [
        Finding(
            f"{listed([method_title(name) for name in group])} give the same map up to scale on {model}; "
            "a difference between them would be rounding, and they count once.",
            "against",
        )
        for group in groups
    ]


def faithfulness_findings(
    model: str, scores: pd.DataFrame, tests: pd.DataFrame, coinciding: Sequence[Sequence[str]]
) -> list[Finding]:
    """Which method raises the confidence most, and which controls do as well.

    Arguments:
        scores: rows of one model with `label` and `correct` both "all": method, metric, mean, low, high, n.
        tests: its rows of paired tests between methods on the same metric; may be empty.
        coinciding: groups of methods whose maps are the same.
    """
    road = scores[(scores["metric"] == "road") & scores["mean"].notna()].set_index("method")
    methods = [name for name in road.index if not is_control(name)]
    controls = [name for name in road.index if is_control(name)]
    if not methods:
        return []
    means = road["mean"].astype(float)
    best, worst = max(methods, key=means.__getitem__), min(methods, key=means.__getitem__)
    same = [method_title(name) for group in coinciding if best in group for name in group if name != best]
    text = (
        f"On {model}, {method_title(best)}{_same(same)} has the largest confidence increase, {_range(road, best)}, "
        f"over {counted(int(road['n'][best]), 'image')}"
    )
    text += f"; {method_title(worst)} has the smallest, {_range(road, worst)}." if worst != best else "."
    found = [Finding(text)]
    if controls:
        found.append(_controls_finding(model, road, tests, methods, controls))
    if means[best] <= 0:
        found.append(
            Finding(
                f"No method’s confidence increase on {model} is above zero: the maps don’t rank what the network uses.",
                "against",
            )
        )
    return found


def _controls_finding(
    model: str, road: pd.DataFrame, tests: pd.DataFrame, methods: Sequence[str], controls: Sequence[str]
) -> Finding:
    means = road["mean"].astype(float)
    groups: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for control in controls:
        open_ones = [method for method in methods if not clearly_better(method, control, road, tests)]
        for equal in (True, False):
            names = tuple(name for name in open_ones if bool(means[control] >= means[name]) is equal)
            if names:
                groups.setdefault((equal, names), []).append(control)
    if not groups:
        return Finding(f"On {model} every method scores clearly above every control.")
    parts = []
    for (equal, names), rivals in groups.items():
        which = "every method" if len(names) == len(methods) else listed([method_title(name) for name in names])
        told = listed([f"{method_title(rival)} ({number(float(means[rival]))})" for rival in rivals])
        one = len(rivals) == 1
        verb = (
            ("does as well as" if one else "do as well as")
            if equal
            else f"{'is' if one else 'are'} not shown to be below"
        )
        parts.append(f"{told} {verb} {which}")
    if any(equal and len(names) == len(methods) for equal, names in groups):
        close = (
            "A map that has never seen the network explains it no worse: these scores are no evidence for the methods."
        )
    elif any(equal for equal, _ in groups):
        close = "Where a control does as well, a method’s score is no evidence that it explains the network."
    else:
        close = "More images may tell them apart."
    return Finding(f"On {model} {'; '.join(parts)}. {close}", "against")


def clearly_better(method: str, control: str, road: pd.DataFrame, tests: pd.DataFrame) -> bool:
    """Whether a method is above a control by the corrected paired test, or without one by its interval."""
    if not float(road["mean"][method]) > float(road["mean"][control]):
        return False
    pair = tests[
        ((tests["a"] == method) & (tests["b"] == control)) | ((tests["a"] == control) & (tests["b"] == method))
    ]
    if len(pair):
        return bool((pair["p_adjusted"].astype(float) < SIGNIFICANT).all())
    return bool(float(road["low"][method]) > float(road["mean"][control]))


def lesion_findings(model: str, scores: pd.DataFrame, lesion_share: float, masks: int) -> list[Finding]:
    """How much of each map's evidence lies in the lesion, beside the lesion's share of the image.

    Arguments:
        scores: rows of one model with `label` and `correct` both "all".
        lesion_share: mean share of the image that the mask covers, in [0, 1].
        masks: how many explained images have a mask with a lesion.
    """
    mass = scores[(scores["metric"] == "energy-pointing") & scores["mean"].notna()].set_index("method")
    methods = [name for name in mass.index if not is_control(name)]
    if not methods or masks == 0 or not lesion_share > 0:
        return []
    means = mass["mean"].astype(float)
    best = max(methods, key=means.__getitem__)
    ratio = float(means[best]) / lesion_share
    text = (
        f"{method_title(best)} puts {percent(float(means[best]))} of its evidence on {model} inside the lesion, "
        f"{number(ratio, 1)} times the lesion’s share of the image ({percent(lesion_share)}, "
        f"{counted(masks, 'image')} with a mask)."
    )
    found = [Finding(text)]
    if ratio <= 1:
        found.append(
            Finding(
                f"No map of {model} puts more of its evidence in the lesion than an even map: it looks elsewhere.",
                "against",
            )
        )
    elif ratio < CLEAR_RATIO:
        found.append(
            Finding(
                f"The relevance mass on {model} is less than twice the lesion’s share: the maps hardly single it out.",
                "against",
            )
        )
    rivals = [name for name in mass.index if is_control(name) and means[name] >= means[best]]
    if rivals:
        told = listed([f"{method_title(name)} ({percent(float(means[name]))})" for name in rivals])
        put = "puts" if len(rivals) == 1 else "put"
        found.append(
            Finding(
                f"{told} {put} as much inside the lesion without seeing {model}: the lesions’ place or edges suffice.",
                "against",
            )
        )
    return found


def data_findings(facts: Mapping[str, Any]) -> list[Finding]:
    """What in the data itself limits every figure: unknown patients, unreadable files, conflicting labels."""
    found = []
    if facts.get("patients") == 0:
        found.append(
            Finding(
                "No patients are known: leakage between images of one patient can’t be excluded, and the intervals "
                "treat images as independent.",
                "against",
            )
        )
    unreadable = len(facts.get("unreadable", ()))
    if unreadable:
        was = "was" if unreadable == 1 else "were"
        found.append(Finding(f"{counted(unreadable, 'file')} couldn’t be read and {was} skipped.", "against"))
    found += [
        Finding(str(leak["sentence"]), "alarm" if leak["severity"] == "alarm" else "against")
        for leak in facts.get("leakage", ())
        if leak["kind"] in GRAVE_LEAKS  # of copies in training `copies_finding` says more
    ]
    conflicts = facts.get("duplicates", {}).get("conflicting_groups", 0)
    if conflicts:
        found.append(
            Finding(f"{counted(conflicts, 'group')} of pixel-identical images bear different labels.", "against")
        )
    return found


def sample_findings(model: str, explained: int, wrong: int) -> list[Finding]:
    """Whether enough images were explained to say anything."""
    if explained == 0:
        return [Finding(f"No image of {model} was explained, so nothing is said about its maps.", "against")]
    if 0 < wrong < FEW:
        return [
            Finding(
                f"Only {counted(wrong, 'wrong prediction')} of {model} {'was' if wrong == 1 else 'were'} explained: "
                "read the rows of wrong predictions with care.",
                "against",
            )
        ]
    return []


def accuracy_of(models: pd.DataFrame, test: pd.DataFrame, images: str) -> Accuracy | None:
    """A model's accuracy over all folds with its chance level, or None where it wasn't computed.

    Arguments:
        models: its rows of the table of models.
        test: its predictions on the test images.
        images: "all" or "without copies".
    """
    rows = models[(models["images"] == images) & (models["metric"] == "accuracy")]
    rows = rows[rows["fold"] == "all"] if (rows["fold"] == "all").any() else rows
    if rows.empty or not np.isfinite(float(rows["value"].iloc[0])):
        return None
    labels = test["label"] if images == "all" else test.loc[~test["copy_in_train"].astype(bool), "label"]
    chance = float(labels.value_counts(normalize=True).max()) if len(labels) else 0.0
    value, low, high = (float(rows[name].iloc[0]) for name in ("value", "low", "high"))
    low, high = (bound if np.isfinite(bound) else value for bound in (low, high))
    return Accuracy(value, low, high, int(rows["n"].iloc[0]), chance)


def _same(names: Sequence[str]) -> str:
    return f" (here the same map as {listed(names)})" if names else ""


def _range(table: pd.DataFrame, name: str) -> str:
    mean, low, high = (number(float(table[column][name])) for column in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
