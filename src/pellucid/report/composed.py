"""In words, what a model is made of where it is more than one trained network, and what can't be made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pellucid.report.findings import Finding
from pellucid.report.names import counted, listed, method_title, number

_VOTES = {
    "soft": ("mean vote", ""),
    "weighted": ("weighted vote", ", weights of least log loss on the validation part"),
    "accuracy": ("weighted vote", ", weights in proportion to the accuracy on the validation part"),
}


def made_of(combination: Mapping[str, Any] | None) -> str:
    """What a model is made of, where it isn't a network trained by itself.

    >>> made_of({"kind": "vote", "how": "weighted", "members": ["resnet18", "vgg11_bn"], "weights": [0.75, 0.25]})
    'weighted vote of resnet18 (0.75) and vgg11_bn (0.25), weights of least log loss on the validation part'
    """
    if not combination:
        return ""
    members, weights = combination["members"], combination.get("weights")
    named = (
        [f"{name} ({number(weight, 2)})" for name, weight in zip(members, weights, strict=True)] if weights else members
    )
    if combination["kind"] == "vote":
        kind, found = _VOTES[combination["how"]]
        return f"{kind} of {listed(named)}{found}"
    if combination["how"] == "gradient-boosting":
        return f"{counted(combination['rounds'], 'round')} of gradient boosting on frozen features of {listed(named)}"
    strength = f"logistic regression (C = {combination['strength']:g}) on frozen features of {listed(named)}"
    return strength + (", with their share of the logits' spread" if weights else "")


def layer_words(layer: str | None) -> str:
    """A layer's dotted name; those of members that vote without what they share.

    >>> layer_words("members.0.network.layer4 + members.1.network.features.norm5")
    'layer4 + features.norm5'
    """
    return re.sub(r"members\.\d+\.network\.", "", layer) if layer else "–"


def unmade_findings(model: str, unmade: Mapping[str, str]) -> list[Finding]:
    """Methods that ask for more than a model gives, by what it is; those of one reason in one sentence.

    >>> unmade_findings("boosted", {"layer-cam": "trees, which have no gradient"})[0].text
    'No maps of boosted by LayerCAM: it is trees, which have no gradient.'
    """
    reasons: dict[str, list[str]] = {}
    for method, reason in unmade.items():
        reasons.setdefault(reason, []).append(method_title(method))
    return [
        Finding(f"No maps of {model} by {listed(methods)}: it is {reason}.", "against")
        for reason, methods in reasons.items()
    ]
