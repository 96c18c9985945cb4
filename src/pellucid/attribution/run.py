"""Run methods on the batches of one layer: one forward pass each, then every method, resized and timed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pellucid.attribution.ablation import Ablation
from pellucid.attribution.asking import Gradients, Scores
from pellucid.attribution.capture import Captured, capture, curvature, gradients
from pellucid.attribution.families import Method
from pellucid.attribution.head import Head, Upstream
from pellucid.attribution.lean import Lean
from pellucid.attribution.masking import masked_scores
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.targets import Objective, Target, objective
from pellucid.attribution.tokens import Layout, Tokens
from pellucid.devices import clock
from pellucid.errors import expected
from pellucid.registry import Choice


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter or buffer lies; None for a model without any."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if tensor is None else tensor.device


def looks_at_layer(choice: Choice[Method]) -> bool:
    """Whether a method's map is made at a layer, and not at the image."""
    return "activations" in choice.entry.needs


@contextlib.contextmanager
def channels_checked(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Where the network can't run and its first convolution wants other channels, say so."""
    try:
        yield
    except RuntimeError as error:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
        if first is None or first.in_channels == images.shape[1]:
            raise
        wanted = f"{first.in_channels} channels, as the model's first convolution has"
        raise expected("images", wanted, f"{images.shape[1]}, shape {tuple(images.shape)}") from error


@dataclass
class _Batch:
    """A batch's forward pass: T scores of each of B images, and what they say about the layer."""

    images: Tensor  # (B, C, *S)
    activations: Tensor  # (B, K, *s)
    gradients: Tensor  # (T, B, K, *s)
    scores: Tensor  # (B, T)
    objective: Objective
    layout: Layout
    found: dict[str, Tensor] = field(default_factory=dict)  # what methods needed besides, the T scores first


@dataclass
class Part:
    """What methods say of a batch of B images, T scores of each."""

    maps: dict[str, Tensor]  # (B, T, *S)
    layer_maps: dict[str, Tensor]  # (B, T, *grid)
    classes: Tensor  # (B, T), -1 for a function; the other two likewise
    scores: Tensor
    probabilities: Tensor
    grid: tuple[int, ...]


class LayerRun:
    """The explanation of a borrowed model at one layer, batch after batch; without one, by methods that need none.

    `asked` runs in the model's place where the whole network is asked for scores or gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | Tokens,
        choices: Sequence[Choice[Method]],
        batch_size: int,
        asked: nn.Module | None = None,
    ) -> None:
        self._model = model
        self._asked = model if asked is None else asked
        self._tokens = layer if isinstance(layer, Tokens) else None
        self._layer = str(layer.layer) if isinstance(layer, Tokens) else layer
        self._choices = choices
        self._batch_size = batch_size
        self._device = device_of(model)
        self._channels_last = self._device == torch.device("cpu")  # convolutions there are faster in this layout
        self._needs = {need for choice in choices for need in choice.entry.needs}
        self._ablation: Ablation | None = None
        self.seconds = {"forward": 0.0} | {choice.label: 0.0 for choice in choices}

    def explain(self, images: Tensor, target: Target, rows: slice, seeds: Tensor) -> Part:
        """Explain `images`, which have the places `rows` and the `seeds` (B,) in the whole call."""
        started = clock(self._device)
        images = images.to(self._device or images.device)
        check_finite(images, rows, "images", "finite values")
        batch, part = self._forward(images, target, rows)
        started = self._spent("forward", started)
        for choice in self._choices:
            maps = self._cam(choice, batch) if looks_at_layer(choice) else self._at_image(choice, batch, seeds)
            check_finite(maps, rows, choice.label, "finite maps")
            if looks_at_layer(choice):
                part.layer_maps[choice.label] = kept(maps)
                maps = resize_maps(maps, images.shape[2:])
            part.maps[choice.label] = kept(maps)
            started = self._spent(choice.label, started)
        return part

    def _forward(self, images: Tensor, target: Target, rows: slice) -> tuple[_Batch, Part]:
        upstream = Upstream() if "drops" in self._needs and self._ablation is None else None
        captured = self._run(images, upstream)
        aim = objective(target, captured.outputs, rows)
        everyone = torch.arange(len(images), device=images.device)
        scores = aim.scores(captured.outputs, everyone)
        check_finite(scores, rows, "model", "finite scores")
        slopes = gradients(scores, captured.activations) if self._needs & {"gradients", "drops"} else scores
        if upstream is not None:
            self._ablation = Ablation(Head(self._model, self._layer, upstream), self._batch_size)
        found = {"curvature": curvature(scores, captured.activations)} if "curvature" in self._needs else {}
        classes = torch.full_like(scores, -1) if aim.classes is None else aim.classes
        probabilities = aim.probabilities(captured.outputs, everyone)
        grid = tuple(captured.activations.shape[2:])
        part = Part({}, {}, kept(classes, torch.long), kept(scores), kept(probabilities), grid)
        layout = captured.layout
        return _Batch(images, captured.activations.detach(), slopes, scores.detach(), aim, layout, found), part

    def _run(self, images: Tensor, upstream: Upstream | None) -> Captured:
        with channels_checked(self._model, images):
            if not self._layer:
                with torch.no_grad():  # a clone, lest it is written to
                    return Captured(images.new_empty(0), self._model(images.clone()))
            if self._channels_last and images.ndim == 4:
                laid = images.to(memory_format=torch.channels_last)
                try:
                    return capture(self._model, self._layer, laid, upstream, self._tokens)
                except RuntimeError:  # a view that wants the usual layout, or a fault that comes again below
                    self._channels_last = False
                    if upstream is not None:
                        upstream.standins.clear()
            return capture(self._model, self._layer, images, upstream, self._tokens)

    def _at_image(self, choice: Choice[Method], batch: _Batch, seeds: Tensor) -> Tensor:
        """Maps (B, T, *S); a control's are the same for every class."""
        function, options, needs = choice.entry.function, choice.own_options, choice.entry.needs
        if choice.entry.family == "control":
            maps = function(batch.images, seeds, **options)
            return maps.unsqueeze(1).expand(-1, batch.scores.shape[1], *maps.shape[1:])
        if needs == ("scores",):
            score_of = Scores(self._asked, batch.objective, self._batch_size)
            return function(score_of, batch.images, seeds, **options)
        if "model" in needs:
            gradient_of = Gradients(self._model, batch.objective, self._batch_size)
            return function(self._model, gradient_of, batch.images, seeds, **options)
        # a compiled network would trace the mode, and chooses by itself what it keeps
        with Lean() if self._asked is self._model else contextlib.nullcontext():
            return function(Gradients(self._asked, batch.objective, self._batch_size), batch.images, seeds, **options)

    def _cam(self, choice: Choice[Method], batch: _Batch) -> Tensor:
        """Maps (B, T, *grid) at the layer's resolution, in float32 at least."""
        function, options, needs = choice.entry.function, choice.own_options, choice.entry.needs
        per_target = [self._needed(need, batch) for need in needs[1:]]
        if not per_target:
            saliency = function(_single(batch.activations), **options)
            return saliency.unsqueeze(1).expand(-1, batch.scores.shape[1], *saliency.shape[1:])
        given = zip(*per_target, strict=True)
        return torch.stack([function(_single(batch.activations), *map(_single, each), **options) for each in given], 1)

    def _needed(self, need: str, batch: _Batch) -> Tensor:
        """What a CAM asks for besides the activations, the T scores first."""
        if need == "gradients":
            return batch.gradients
        if need == "scores":
            return batch.scores.T
        if need not in batch.found:
            batch.found[need] = self._find(need, batch)
        return batch.found[need]

    def _find(self, need: str, batch: _Batch) -> Tensor:
        if need == "masked scores":
            score_of = Scores(self._asked, batch.objective, self._batch_size)
            return masked_scores(score_of, batch.images, batch.activations)
        assert need == "drops", need
        assert self._ablation is not None
        return self._ablation.drops(
            batch.images, batch.activations, batch.gradients, batch.scores, batch.objective, batch.layout
        )

    @contextlib.contextmanager
    def timed(self, label: str) -> Iterator[None]:
        """Add the time that the block takes."""
        started = clock(self._device)
        yield
        self._spent(label, started)

    def _spent(self, label: str, since: float) -> float:
        now = clock(self._device)
        self.seconds[label] += now - since
        return now


def kept(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values as they are given back."""
    return values.detach().to("cpu", dtype)


def _single(values: Tensor) -> Tensor:
    """Half precision as float32, in which maps are made."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_finite(values: Tensor, rows: slice, argument: str, wanted: str) -> None:
    """Raise InputError where an image's values (B, ...) aren't finite; it is told by its place in the whole call."""
    finite = values.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        places = (torch.nonzero(~finite.cpu()).flatten() + rows.start).tolist()
        listed = ", ".join(map(str, places[:10])) + (" and more" if len(places) > 10 else "")
        raise expected(argument, wanted, f"infinite or missing ones for the images at {listed}")
