"""A bare function as a model: what runs elsewhere, in ONNX Runtime, in scikit-learn or behind a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.attribution.families import METHODS, Method
from pellucid.errors import expected
from pellucid.models.boosting import BoostedFeatures
from pellucid.registry import Choice

ScoringFunction = Callable[[Tensor], Any]
SCORES_ALONE = frozenset({"scores", "images"})  # needs that a function meets
WITHOUT_GRADIENTS = SCORES_ALONE | {"activations", "masked scores"}
_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


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
    """A module as it is, or a function as a `Scorer`, where it can give what all the chosen methods need.

    Raises:
        InputError: neither of them; or a method that asks for more than a function, a scripted or a quantised network
            can give. Names those that work.
    """
    if not isinstance(model, nn.Module) and not callable(model):
        wanted = "a torch module, or a function from images (B, C, *S) to scores"
        raise expected("model", wanted, type(model).__name__)
    limits = _limits(model)
    if limits is not None:
        what, given = limits
        refused = [choice.label for choice in choices if not given.issuperset(choice.entry.needs)]
        if refused:
            names = ", ".join(entry.name for entry in METHODS if given.issuperset(entry.needs))
            asking = "methods that ask for scores alone" if given == SCORES_ALONE else "methods without gradients"
            raise expected(
                "methods", f"{asking}, since the model is {what}", ", ".join(refused), do=f"These do: {names}."
            )
    return model if isinstance(model, nn.Module) else Scorer(model)


def unserved(model: object, names: Sequence[str]) -> dict[str, str]:
    """The methods among `names` that ask for more than a model can give, each with what the model is.

    >>> unserved(lambda images: images.mean(dim=(1, 2, 3)), ["grad-cam", "occlusion"])
    {'grad-cam': 'a bare function'}
    """
    limits = _limits(model)
    if limits is None:
        return {}
    what, given = limits
    return {name: what for name in names if not given.issuperset(METHODS.resolve(name).entry.needs)}


def _limits(model: object) -> tuple[str, frozenset[str]] | None:
    """What a model is that can't be looked into, and the needs of methods that it meets; None for other networks."""
    if not isinstance(model, nn.Module):
        return "a bare function", SCORES_ALONE
    if isinstance(model, BoostedFeatures):
        return "trees boosted on frozen features, which have no gradient", SCORES_ALONE
    if isinstance(model, torch.jit.ScriptModule):
        return "scripted or traced by torch.jit", SCORES_ALONE
    quantised = [(name, type(module)) for name, module in model.named_modules() if _is_quantised(type(module))]
    if not quantised:
        return None
    name, kind = quantised[0]
    # its values between layers are floats where weights alone are quantised
    dynamic = all(".dynamic." in each.__module__ for _, each in quantised)
    return (
        f"quantised ({name!r} is a {kind.__name__} of {kind.__module__})",
        WITHOUT_GRADIENTS if dynamic else SCORES_ALONE,
    )


def _is_quantised(kind: type) -> bool:
    return kind.__module__.startswith(_QUANTISED) and not kind.__name__.endswith("PackedParams")
