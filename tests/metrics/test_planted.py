"""A planted map of the lesion is first and the random control last, on a trained network that looks at the lesion."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping

import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

import pellucid
from pellucid.attribution.engine import image_seeds
from pellucid.metrics import METRICS, Truth
from pellucid.metrics.evaluate import MissingValuesWarning
from references.phantom_network import phantom_network

PLANTED, IMAGES = "planted", 12
METHODS = ("layer-cam", "saliency", "random")
NAMES = METRICS.names("faithfulness") + METRICS.names("localisation")

# metric -> why it doesn't put the planted map first on this network
NOT_FIRST = {
    "monotonicity": "it counts steps without a fall, however small, and most steps come outside of the lesion",
    "monotonicity-correlation": "it asks how much each block moves the score, and the lesion's surroundings do so too",
    "insertion": "the network tells a lesion by its edge, and broader maps bring its surroundings with it",
    "irof": "a superpixel with the lesion's edge moves the score as well, and broader maps name it early",
    "infidelity": "a square of zeros anywhere changes the logit, which a map that is never zero fits better",
}
# metric -> why it doesn't put the random control last
NOT_LAST = {
    "monotonicity": "it counts steps without a fall, and pixels that come at random hardly move the score",
    "infidelity": "as above: the control is nowhere zero",
    "sufficiency": "no two random maps are alike, so that the control has no value",
}
# metric -> why all maps get the same value
UNTOLD = dict.fromkeys(
    ("average-drop", "average-gain", "increase-in-confidence"),
    "an image times any map is so dark that this network calls it one and the same class",
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Every metric of the planted map, two methods' and the random control's."""
    network = phantom_network()
    images, masks, labels = (each[:IMAGES] for each in (network.images, network.masks, network.labels))
    explanation = pellucid.explain(network.model, images, METHODS, target=labels)
    # slopes on the lesion, so that nothing ties, and hardly anything around it
    soft = torch.stack([torch.from_numpy(gaussian_filter(mask.double().numpy(), 1.5)).float() for mask in masks])
    planted = torch.where(masks, 1 + soft, 0.05 * soft)
    explanation = dataclasses.replace(explanation, maps={PLANTED: planted, **explanation.maps})
    by_seed = dict(zip(image_seeds(None, IMAGES).tolist(), planted, strict=True))

    def explainer(model: nn.Module, rows: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        """The planted map knows where the lesion is, whatever is done to the image."""
        found = pellucid.explain(model, rows, METHODS, target=target, generator=seeds).maps
        return {PLANTED: torch.stack([by_seed[int(seed)] for seed in seeds]), **found}

    corners = [mask.nonzero() for mask in masks]
    boxes = [torch.stack([places.amin(dim=0), places.amax(dim=0) + 1]).unsqueeze(0) for places in corners]
    truth = Truth(masks, boxes, anatomy=network.heads[:IMAGES], spacing=(1.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingValuesWarning)
        return pellucid.evaluate(network.model, images, explanation, NAMES, truth, explainer=explainer)


def means(table: pd.DataFrame, name: str) -> dict[str, float]:
    """By method, higher being better."""
    sign = 1 if METRICS[name].higher_is_better else -1
    values = table[table["metric"] == name].groupby("method")["value"].mean()
    return {str(method): sign * float(value) for method, value in values.items()}


def test_the_network_is_one_that_looks_at_the_lesion() -> None:
    assert phantom_network().accuracy >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_planted_map_is_first_and_random_last(name: str, table: pd.DataFrame) -> None:
    found = means(table, name)
    if name in UNTOLD:
        assert max(found.values()) - min(found.values()) < 0.02, f"{found}, though {UNTOLD[name]}"
        return
    known = {method: value for method, value in found.items() if not math.isnan(value)}
    first = all(found[PLANTED] >= value for value in known.values()) and found[PLANTED] > known.get("random", -math.inf)
    last = all(known.get("random", math.inf) <= value for value in known.values())
    assert first == (name not in NOT_FIRST), f"{found}; {NOT_FIRST.get(name, 'no reason is known')}"
    assert last == (name not in NOT_LAST), f"{found}; {NOT_LAST.get(name, 'no reason is known')}"
