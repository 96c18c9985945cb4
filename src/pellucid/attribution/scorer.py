"""A bare function as a model: what runs elsewhere, in ONNX Runtime, in scikit-learn or behind a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.attribution.families import METHODS, Method
from pellucid.errors import expected
from pellucid.registry import Choice

ScoringFunction = Callable[[Tensor], Any]
_ENOUGH = (("scores",), ("images",))  # needs that a function meets


class Scorer(nn.Module):
    """A function from images (M, C, *S) to scores (M,) or (M, n), a tensor or an array, as a model without weights."""

    def __init__(self, function: ScoringFunction) -> None:
        super().__init__()
        self._function = function

    def forward(self, images: Tensor) -> Tensor:
        """Scores as floats on the images' device; the function gets a copy, in the usual layout and without a graph.

        Raises:
            InputError: what the function gives isn't one row of numbers per image.
        """
        with torch.no_grad():
            given = self._function(images.detach().clone(memory_format=torch.contiguous_format))
        scores = given.detach() if isinstance(given, Tensor) else _from_array(given)
        if scores is None or scores.ndim not in (1, 2) or len(scores) != len(images) or scores.is_complex():
            shape = "" if scores is None else f" of shape {tuple(scores.shape)}"
            wanted = f"a function that gives scores ({len(images)},) or ({len(images)}, n) for {len(images)} images"
            raise expected("model", wanted, f"{type(given).__name__}{shape}")
        return scores.to(images.device, torch.float32)


def _from_array(given: object) -> Tensor | None:
    try:
        array = np.asarray(given)
    except ValueError:  # rows of several lengths
        return None
    return torch.from_numpy(array.copy()) if array.dtype.kind in "fiub" else None


def as_model(model: object, choices: Sequence[Choice[Method]]) -> nn.Module:
    """A module as it is, or a function as a `Scorer` where all the chosen methods ask for scores alone.

    Raises:
        InputError: neither of them, or a method that has to look into the network; names those that don't.
    """
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        wanted = "a torch module, or a function from images (B, C, *S) to scores"
        raise expected("model", wanted, type(model).__name__)
    refused = [choice.label for choice in choices if choice.entry.needs not in _ENOUGH]
    if refused:
        names = ", ".join(entry.name for entry in METHODS if entry.needs in _ENOUGH)
        wanted = "methods that ask for scores alone, since the model is a bare function"
        raise expected("methods", wanted, ", ".join(refused), do=f"These do: {names}.")
    return Scorer(model)
