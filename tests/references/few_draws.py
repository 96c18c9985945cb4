"""Methods with few draws, so that tests that run all of them stay quick."""

from __future__ import annotations

from pellucid.attribution import METHODS, method
from pellucid.attribution.families import Method
from pellucid.registry import Choice

FEW: dict[str, dict[str, object]] = {
    "lime": {"samples": 12, "regions": 2},
    "kernel-shap": {"regions": 2, "samples": 40},
    "occlusion": {"window": 4, "stride": 4},
    "sobol": {"designs": 4, "regions": 2},
    "hsic": {"samples": 20, "regions": 2},
    "extremal-masks": {"areas": (0.1,), "steps": 2, "cells": 3},
}


def quick(name: str) -> Choice[Method]:
    """A method with few draws, where its defaults are many."""
    few = {option: 4 for option in ("samples", "steps") if option in METHODS[name].options}
    return method(name, **FEW.get(name, few))
