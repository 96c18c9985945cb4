"""Fit classifiers to frozen features by scikit-learn, and give them as weights and arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from pellucid.errors import expected
from pellucid.models.boosting import Trees, TreeShape
from pellucid.models.features import LinearHead

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]

STRENGTHS = tuple(10.0**power for power in range(-5, 4))  # C, from the strongest penalty
ROUNDS = 200
_INNER_FOLDS = 5
_STEPS = 10_000


def fit_linear(
    features: Floats, labels: Integers, groups: Integers, *, balanced: bool = False, seed: int = 0
) -> LinearHead:
    """A logistic regression on features that are standardised on these images.

    C is that of `STRENGTHS` with the least log loss over up to five inner folds, which keep groups (patients) together
    and classes in proportion; of equals the smallest. It is 1 where a class has fewer than two groups.

    Arguments:
        features: (N, F) of the training part.
        labels: (N,) from 0, each class at least once.
        groups: (N,) images of one group stay in one inner fold.
        balanced: whether classes weigh the same, however many images they have.
        seed: of the inner folds.

    Raises:
        InputError: fewer than two classes, or one that is missing.
    """
    values: npt.NDArray[np.float64] = features.astype(np.float64)
    classes = _checked_classes(labels)
    losses = _losses(values, labels, groups, balanced, seed)
    strength = min(losses, key=lambda each: losses[each]) if losses else 1.0
    scaler, regression = _regression(values, labels, strength, balanced)
    weight, bias = regression.coef_, regression.intercept_
    if classes == 2:  # one row; two that differ by as much, so that a class is explained as the other is
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return LinearHead(weight, bias - weight @ scaler.mean_, strength, losses)


def _losses(
    features: npt.NDArray[np.float64], labels: Integers, groups: Integers, balanced: bool, seed: int
) -> dict[float, float]:
    """Mean log loss over the inner folds by C."""
    classes = np.unique(labels)
    folds = min(_INNER_FOLDS, *(len(np.unique(groups[labels == each])) for each in classes))
    if folds < 2:
        return {}
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [
        (train, held)
        for train, held in splitter.split(features, labels, groups)
        if len(held) and len(np.unique(labels[train])) == len(classes)
    ]
    losses = {}
    for strength in STRENGTHS if parts else ():
        fold_losses = []
        for train, held in parts:
            scaler, regression = _regression(features[train], labels[train], strength, balanced)
            probabilities = regression.predict_proba(scaler.transform(features[held]))
            fold_losses.append(log_loss(labels[held], probabilities, labels=classes))
        losses[strength] = float(np.mean(fold_losses))
    return losses


def _regression(
    features: npt.NDArray[np.float64], labels: Integers, strength: float, balanced: bool
) -> tuple[StandardScaler, LogisticRegression]:
    scaler = StandardScaler().fit(features)
    weights = "balanced" if balanced else None
    regression = LogisticRegression(C=strength, class_weight=weights, max_iter=_STEPS)
    return scaler, regression.fit(scaler.transform(features), labels)


def _checked_classes(labels: Integers) -> int:
    present = np.unique(labels)
    if len(present) < 2 or present.tolist() != list(range(len(present))):
        raise expected("labels", "two classes or more, numbered from 0, each at least once", present.tolist())
    return len(present)


@dataclass(frozen=True, eq=False)
class Boosted:
    """Trees that were fitted, and the mean log loss (rounds,) on the validation part after each round."""

    trees: Trees
    losses: npt.NDArray[np.float64]


def fit_boosted(
    train: tuple[Floats, Integers], validation: tuple[Floats, Integers], *, balanced: bool = False, seed: int = 0
) -> Boosted:
    """Boost trees on features (N, F) and labels (N,), as many rounds as give the least log loss on the validation part.

    Both parts hold each class. The trees are scikit-learn's, histogram-based, at most `ROUNDS` rounds.
    """
    features, labels = train[0].astype(np.float32), train[1]
    classifier = HistGradientBoostingClassifier(
        max_iter=ROUNDS, early_stopping=False, class_weight="balanced" if balanced else None, random_state=seed
    ).fit(features, labels)
    classes = classifier.classes_
    staged = classifier.staged_predict_proba(validation[0].astype(np.float32))
    losses = np.array([log_loss(validation[1], probabilities, labels=classes) for probabilities in staged])
    return Boosted(trees_of(classifier, int(losses.argmin()) + 1), losses)


def trees_of(classifier: HistGradientBoostingClassifier, rounds: int) -> Trees:
    """The first rounds of a fitted classifier of numbers without missing ones, as tensors.

    A threshold is rounded down to float32, which changes nothing for features in float32.
    """
    found = [[predictor.nodes for predictor in each] for each in classifier._predictors[:rounds]]
    flat = [nodes for each in found for nodes in each]
    shape = TreeShape(
        rounds=rounds,
        outputs=len(found[0]),
        nodes=max(len(nodes) for nodes in flat),
        depth=int(max(nodes["depth"].max() for nodes in flat)),
    )
    trees = Trees(shape)
    for row, nodes in enumerate(flat):
        places = np.arange(len(nodes))
        leaf = nodes["is_leaf"].astype(bool)
        columns = {
            "feature": np.where(leaf, 0, nodes["feature_idx"]),
            "threshold": np.where(leaf, 0.0, _rounded_down(nodes["num_threshold"])),
            "left": np.where(leaf, places, nodes["left"]),
            "right": np.where(leaf, places, nodes["right"]),
            "value": np.where(leaf, nodes["value"], 0.0),
        }
        for name, values in columns.items():
            tensor = getattr(trees, name)
            tensor[row, : len(nodes)] = torch.from_numpy(values).to(tensor.dtype)
    trees.baseline.copy_(torch.from_numpy(np.asarray(classifier._baseline_prediction, dtype=np.float64).reshape(-1)))
    return trees


def _rounded_down(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 that isn't above each value."""
    rounded = values.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    lowered: npt.NDArray[np.float32] = np.where(rounded.astype(np.float64) > values, below, rounded)
    return lowered
