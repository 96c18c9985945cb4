"""Make torchvision's Python parts importable where its compiled operators don't match torch.

A torchvision built for another torch registers no compiled operators, and its import stops where it attaches
a Python rule to one that was never declared. pellucid uses none of those operators, so declaring their schemas
is enough. Import this module before anything that imports torchvision (timm, Lightning, torchmetrics).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_library: torch.library.Library | None = None


def declare_missing_schemas() -> tuple[str, ...]:
    """Declare the operators that torchvision's import needs and that are absent; returns the names declared.

    Does nothing where torchvision isn't installed, where it was imported already, or where its compiled part
    loads and declares the operators itself.
    """
    global _library
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return ()
    if _compiled_part_loads():
        return ()
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            _library.define(_SCHEMAS[name])
    return tuple(missing)


def _compiled_part_loads() -> bool:
    """Whether torchvision's extension library can be loaded into this torch, which then declares its operators."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    finder = importlib.machinery.PathFinder.find_spec("_C", list(spec.submodule_search_locations))
    if finder is None or finder.origin is None:
        return False
    try:
        torch.ops.load_library(finder.origin)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


declare_missing_schemas()
