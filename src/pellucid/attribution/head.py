"""A network from one of its layers onward, run without what lies before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attribution.activated import changed, module_of, parted
from pellucid.attribution.linear import Forward, answered, is_linear_like, quick_forward
from pellucid.attribution.targets import Objective
from pellucid.attribution.tokens import Layout
from pellucid.errors import PellucidError

_TOLERANCE = 1e-4  # between two ways to the same score, relative to what adds up to it

# how a stand-in of one row becomes what a module answers
_WAYS: dict[str, Callable[..., Tensor]] = {
    "view": lambda standin, rows: standin,
    "copy": lambda standin, rows: standin.clone(memory_format=torch.contiguous_format),
    "rows": lambda standin, rows: standin.expand(rows, *standin.shape[1:]),
}

# what a head raises when the network can't run on what was put in place of its beginning
CANT_RUN = (RuntimeError, ValueError, IndexError, TypeError)


@dataclass
class Upstream:
    """The largest modules that lie before a layer, and what stands in for each of their outputs.

    A stand-in has one row, filled with NaN and without memory of its own: whatever reaches a score by another way
    than through the layer shows there.
    """

    standins: dict[nn.Module, list[Any]] = field(default_factory=dict)

    def record(self, module: nn.Module, output: object) -> None:
        """Note an output of a module that ran before the layer."""
        self.standins.setdefault(module, []).append(_standin(output))


def beside(model: nn.Module, layer: str) -> Iterator[nn.Module]:
    """The largest modules that neither hold the layer nor lie in it."""
    holder, inside = model, set(module_of(model, layer).modules())
    for part in parted(layer)[0].split("."):
        for name, child in holder.named_children():
            if name != part and inside.isdisjoint(child.modules()):
                yield from _that_run(child)
        holder = holder.get_submodule(part)


class Head:
    """The network after a layer: outputs from activations, for rows that derive from a batch of images.

    Several ways are tried once, and the first that gives back the captured scores is kept: answer for all that lies
    before the layer by stand-ins; the same, with stand-ins that may be written to, or that have as many rows as the
    activations; run the whole network on the rows' images and put the activations in place of the layer's output.
    """

    def __init__(self, model: nn.Module, layer: str, upstream: Upstream) -> None:
        self._model = model
        self._name = layer
        self._layer = module_of(model, layer)
        self._upstream = upstream
        self._images: Tensor | None = None
        self._layout = Layout()
        self._ways = [*_WAYS, "whole"]
        self._trusted = False
        skipped = {part for module in (self._layer, *upstream.standins) for part in module.modules()}
        self.linear_modules = [m for m in model.modules() if m not in skipped and is_linear_like(m)]

    @property
    def runs_alone(self) -> bool:
        """Whether the network before the layer is left out."""
        return self._ways[0] != "whole"

    def use(
        self,
        images: Tensor,
        activations: Tensor,
        objective: Objective,
        scores: Tensor,
        scale: Tensor,
        layout: Layout | None = None,
    ) -> None:
        """Take the images (B, C, *S) that rows derive from from now on; the first time, find the way that works.

        `scale` is the size of what adds up to a score, by which rounding is judged; `layout` is how the layer gives its
        activations. Raises PellucidError when no way gives back `scores` (B, T) for `activations` (B, K, *s).
        """
        self._images = images
        self._layout = layout or Layout()
        first = torch.arange(min(2, len(images)), device=images.device)
        while not self._trusted:
            try:
                again = objective.scores(self(activations[first], first), first)
            except CANT_RUN:
                if not self.runs_alone:
                    raise
                self._ways.pop(0)
                continue
            error = (again - scores[first]).abs().max()
            self._trusted = bool(error <= _TOLERANCE * scale)  # NaN fails
            if not self._trusted and not self.runs_alone:
                raise PellucidError(
                    "model: gives other scores when it runs again on the same activations, so no channel's effect can "
                    "be measured. Remove what is random in evaluation mode, or leave out ablation- and relevance-cam."
                )
            if not self._trusted:
                self._ways.pop(0)

    def __call__(self, activations: Tensor, sample: Tensor, answers: Mapping[nn.Module, Forward] | None = None) -> Any:
        """Outputs for activations (M, K, *s), whose row j derives from image `sample[j]`; may overwrite them.

        `answers` replaces the forward of further modules after the layer.
        """
        with torch.no_grad():
            quick: dict[nn.Module, Forward] = {m: quick_forward(m) for m in self.linear_modules}
            return self._run(activations, sample, quick | dict(answers or {}))

    def as_written(self, activations: Tensor) -> Any:
        """Outputs for the activations (B, K, *s) of every image, each module being itself, where gradients can pass."""
        return self._run(activations.clone(), torch.arange(len(activations), device=activations.device), {})

    def _run(self, activations: Tensor, sample: Tensor, answers: Mapping[nn.Module, Forward]) -> Any:
        assert self._images is not None
        replaced: dict[nn.Module, Forward] = {}
        if self.runs_alone:
            change = partial(_WAYS[self._ways[0]], rows=len(activations))
            images = change(_standin(self._images))
            for module, outputs in self._upstream.standins.items():
                replaced[module] = _recall(outputs, module.forward, change)
        else:
            images = self._images[sample]
        replaced |= answers
        output = self._layout.output(activations, sample)
        fed = output.clone() if parted(self._name)[1] else output  # an activation may follow in place
        replaced[self._layer] = lambda *_args, **_options: fed
        # a hook of the user's on the layer has had its say already
        with answered(replaced), changed(self._model, self._name, lambda _: output):
            return self._model(images)


def summed_size(activations: Tensor, gradients: Tensor, scores: Tensor) -> Tensor:
    """The size of what adds up to the scores (B, T), by which their rounding is judged: a sum itself may cancel."""
    return (gradients * activations).abs().flatten(2).sum(dim=2).max() + scores.abs().max()


def _that_run(module: nn.Module) -> Iterator[nn.Module]:
    """The module, or what it holds where it is a mere container that is never called."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        for child in module.children():
            yield from _that_run(child)
    elif not isinstance(module, torch.jit.ScriptModule):  # which takes no hook
        yield module


def _standin(output: Any) -> Any:
    def blank(tensor: Tensor) -> Tensor:
        return tensor.new_full((), torch.nan if tensor.is_floating_point() else 0).expand(1, *tensor.shape[1:])

    return _on_tensors(output, blank)


def _on_tensors(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The output with each tensor in it changed."""
    if isinstance(output, Tensor):
        return change(output)
    if type(output) in (tuple, list):
        return type(output)(_on_tensors(part, change) for part in output)
    if type(output) is dict:
        return {key: _on_tensors(part, change) for key, part in output.items()}
    return output


def _recall(outputs: list[Any], original: Forward, change: Callable[[Tensor], Tensor]) -> Forward:
    """Answer the first calls by what was recorded, later ones by the module itself."""
    left = list(outputs)

    def forward(*args: Any, **options: Any) -> Any:
        return _on_tensors(left.pop(0), change) if left else original(*args, **options)

    return forward
