"""pellucid: train medical-image classifiers, explain what they saw, and measure whether to trust it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that holds it; loaded on first use, so that `import pellucid` stays light
_HOMES = {
    "Explanation": "pellucid.attribution.explanation",
    "enhancement": "pellucid.data.enhancements",
    "enhancements": "pellucid.data.enhancements",
    "explain": "pellucid.attribution.engine",
    "method": "pellucid.attribution",
    "methods": "pellucid.attribution",
    "evaluate": "pellucid.metrics.evaluate",
    "metric": "pellucid.metrics",
    "metrics": "pellucid.metrics",
    "read_image": "pellucid.data.images",
    "run_study": "pellucid.study.runner",
    "trust": "pellucid.metrics.verdict",
}

__all__ = [
    "Explanation",
    "enhancement",
    "enhancements",
    "evaluate",
    "explain",
    "method",
    "methods",
    "metric",
    "metrics",
    "read_image",
    "run_study",
    "trust",
]

if TYPE_CHECKING:
    from pellucid.attribution import method, methods
    from pellucid.attribution.engine import explain
    from pellucid.attribution.explanation import Explanation
    from pellucid.data.enhancements import enhancement, enhancements
    from pellucid.data.images import read_image
    from pellucid.metrics import metric, metrics
    from pellucid.metrics.evaluate import evaluate
    from pellucid.metrics.verdict import trust
    from pellucid.study.runner import run_study


def __getattr__(name: str) -> Any:
    # `pellucid.metrics` is both a package and a public function: the function wins
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
