"""Run methods on the batches of one layer: one forward pass each, then every method, resized and timed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pellucid.attribution.ablation import Ablation
from pellucid.attribution.asking import Asking, Gradients, Scores, gains_by_channels_last
from pellucid.attribution.capture import Captured, capture, curvature, gradients, rival_gradients
from pellucid.attribution.families import Method
from pellucid.attribution.head import Head, Upstream, summed_size
from pellucid.attribution.lean import Lean
from pellucid.attribution.masking import masked_scores
from pellucid.attribution.relevance import contrastive_relevance
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.stages import capture_stages, stage_layers
from pellucid.attribution.targets import Objective, Target, objective
from pellucid.attribution.tokens import Layout, Tokens, layer_name
from pellucid.devices import clock
from pellucid.errors import expected
from pellucid.progress import Advance
from pellucid.registry import Choice

Ask = TypeVar("Ask", bound=Asking)

HEADS = frozenset({"drops", "relevance"})  # needs for which the network after the layer runs by itself


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter or buffer lies; None for a model without any."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if tensor is None else tensor.device


def looks_at_layer(choice: Choice[Method]) -> bool:
    """Whether a method's map depends on a layer, and not on the image and the scores alone."""
    return bool({"activations", "stages"} & set(choice.entry.needs))


def _is_cam(choice: Choice[Method]) -> bool:
    """Whether a method's map is made at its layer's resolution."""
    return "activations" in choice.entry.needs and "model" not in choice.entry.needs


@contextlib.contextmanager
def channels_checked(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Where the network can't run and its first convolution wants other channels, or it is in two places, say so."""
    try:
        yield
    except RuntimeError as error:
        places: dict[torch.device, str] = {}
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            places.setdefault(tensor.device, name)
        if len(places) > 1 and "device" in str(error):
            seen = " and ".join(f"{name!r} on {device}" for device, name in places.items())
            do = "Move it whole with model.to(device)."
            raise expected("model", "parameters and buffers on one device", seen, do=do) from error
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

    `asked` runs in the model's place where the whole network is asked for scores or gradients; `advance` hears of
    each image that a method is done with.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | Tokens,
        choices: Sequence[Choice[Method]],
        batch_size: int,
        asked: nn.Module | None = None,
        advance: Advance | None = None,
    ) -> None:
        self._model = model
        self._asked = model if asked is None else asked
        self._advance: Advance = advance or (lambda steps=1, note="": None)
        self._tokens = layer if isinstance(layer, Tokens) else None
        self._layer = layer_name(layer)
        self._choices = choices
        self._batch_size = batch_size
        self._device = device_of(model)
        self._channels_last = True  # while a captured pass takes that layout; behind the layer it has the usual one
        self._whole_channels_last: bool | None = None  # whether the whole network takes it; not known yet
        self._needs = {need for choice in choices for need in choice.entry.needs}
        self._rivals = _most_rivals(choices)
        self._head: Head | None = None
        self._ablation: Ablation | None = None
        self._stages: dict[str, list[str]] = {}  # by a method's label, the layers that it combines
        self._share = 0.0  # of what a method does with a batch, that was told of
        self.seconds = {"forward": 0.0} | {choice.label: 0.0 for choice in choices}

    def explain(self, images: Tensor, target: Target, rows: slice, seeds: Tensor) -> Part:
        """Explain `images`, which have the places `rows` and the `seeds` (B,) in the whole call."""
        started = clock(self._device)
        images = images.to(self._device or images.device)
        check_finite(images, rows, "images", "finite values")
        batch, part = self._forward(images, target, rows)
        started = self._spent("forward", started)
        for choice in self._choices:
            self._share = 0.0
            self._advance(0, choice.label)
            maps = self._cam(choice, batch) if _is_cam(choice) else self._at_image(choice, batch, seeds)
            check_finite(maps, rows, choice.label, "finite maps")
            if _is_cam(choice):
                part.layer_maps[choice.label] = kept(maps)
                maps = resize_maps(maps, images.shape[2:])
            part.maps[choice.label] = kept(maps)
            started = self._spent(choice.label, started)
            self._advance(len(images) * (1 - self._share), choice.label)
        return part

    def _forward(self, images: Tensor, target: Target, rows: slice) -> tuple[_Batch, Part]:
        upstream = Upstream() if self._needs & HEADS and self._head is None else None
        with sdpa_kernel(SDPBackend.MATH) if "curvature" in self._needs else contextlib.nullcontext():
            captured = self._run(images, upstream)  # fused attention has no second derivative
        aim = objective(target, captured.outputs, rows)
        everyone = torch.arange(len(images), device=images.device)
        scores = aim.scores(captured.outputs, everyone)
        check_finite(scores, rows, "model", "finite scores")
        slopes = gradients(scores, captured.activations) if self._needs & {"gradients", *HEADS} else scores
        if upstream is not None:
            self._head = Head(self._model, self._layer, upstream)
            self._ablation = Ablation(self._head, self._batch_size)
        found = {"curvature": curvature(scores, captured.activations)} if "curvature" in self._needs else {}
        if "rival gradients" in self._needs:
            rivals = aim.rivals(captured.outputs, self._rivals)
            found["rival gradients"] = rival_gradients(aim.logits(captured.outputs), captured.activations, rivals)
        classes = torch.full_like(scores, -1) if aim.classes is None else aim.classes
        probabilities = aim.probabilities(captured.outputs, everyone)
        grid = tuple(captured.activations.shape[2:])
        part = Part({}, {}, kept(classes, torch.long), kept(scores), kept(probabilities), grid)
        layout = captured.layout
        return _Batch(images, captured.activations.detach(), slopes, scores.detach(), aim, layout, found), part

    def outputs(self, images: Tensor) -> Any:
        """What the network gives for images (B, C, *S), without a graph."""
        images = images.to(self._device or images.device)
        with channels_checked(self._model, images):
            return self._whole(images)

    def _run(self, images: Tensor, upstream: Upstream | None) -> Captured:
        if not self._layer:
            return Captured(images.new_empty(0), self.outputs(images))
        with channels_checked(self._model, images):
            if self._channels_last and gains_by_channels_last(images):
                laid = images.to(memory_format=torch.channels_last)
                try:
                    return capture(self._model, self._layer, laid, upstream, self._tokens)
                except RuntimeError:  # a view that wants the usual layout, or a fault that comes again below
                    self._channels_last = False
                    if upstream is not None:
                        upstream.standins.clear()
            return capture(self._model, self._layer, images, upstream, self._tokens)

    def _whole(self, images: Tensor) -> Any:
        with torch.no_grad():  # clones, lest they are written to
            if self._whole_channels_last is not False and gains_by_channels_last(images):
                try:
                    outputs = self._model(images.clone(memory_format=torch.channels_last))
                except RuntimeError:  # as above
                    self._whole_channels_last = False
                else:
                    self._whole_channels_last = True
                    return outputs
            return self._model(images.clone())

    def _takes_channels_last(self, images: Tensor) -> bool:
        if self._whole_channels_last is None and gains_by_channels_last(images):
            self._whole(images[:1])
        return self._whole_channels_last is not False

    def _asking(self, kind: type[Ask], model: nn.Module, batch: _Batch, label: str) -> Ask:
        """What a method asks the whole network by; the rows that have run are told of."""

        def told(rows: int, expected: int | None) -> None:
            share = max(self._share, rows / expected if expected else 0.0)
            of = f" of {expected}" if expected else ""
            self._advance(len(batch.images) * (share - self._share), f"{label}, {rows}{of} rows")
            self._share = share

        return kind(model, batch.objective, self._batch_size, told, self._takes_channels_last(batch.images))

    def _at_image(self, choice: Choice[Method], batch: _Batch, seeds: Tensor) -> Tensor:
        """Maps (B, T, *S); a control's are the same for every class."""
        function, options, needs = choice.entry.function, choice.own_options, choice.entry.needs
        if choice.entry.family == "control":
            maps = function(batch.images, seeds, **options)
            return maps.unsqueeze(1).expand(-1, batch.scores.shape[1], *maps.shape[1:])
        if "stages" in needs:
            return self._layered(choice, batch)
        if needs == ("scores",):
            return function(self._asking(Scores, self._asked, batch, choice.label), batch.images, seeds, **options)
        if "model" in needs:
            gradient_of = self._asking(Gradients, self._model, batch, choice.label)
            if looks_at_layer(choice):
                activations, slopes = _single(batch.activations), _single(batch.gradients)
                return function(self._model, gradient_of, batch.images, activations, slopes, **options)
            return function(self._model, gradient_of, batch.images, seeds, **options)
        gradient_of = self._asking(Gradients, self._asked, batch, choice.label)
        # a compiled network would trace the mode, and chooses by itself what it keeps
        with Lean() if self._asked is self._model else contextlib.nullcontext():
            return function(gradient_of, batch.images, seeds, **options)

    def _cam(self, choice: Choice[Method], batch: _Batch) -> Tensor:
        """Maps (B, T, *grid) at the layer's resolution, in float32 at least."""
        function, options, needs = choice.entry.function, choice.own_options, choice.entry.needs
        per_target = [self._needed(need, batch, choice.label) for need in needs[1:]]
        if not per_target:
            saliency = function(_single(batch.activations), **options)
            return saliency.unsqueeze(1).expand(-1, batch.scores.shape[1], *saliency.shape[1:])
        given = zip(*per_target, strict=True)
        return torch.stack([function(_single(batch.activations), *map(_single, each), **options) for each in given], 1)

    def _layered(self, choice: Choice[Method], batch: _Batch) -> Tensor:
        """Maps (B, T, *S) of several layers at once, by a pass of their own."""
        if choice.label not in self._stages:
            asked = choice.options.get("layers", choice.entry.options["layers"])
            self._stages[choice.label] = stage_layers(self._model, batch.images, self._layer, asked, choice.entry.name)
        several = capture_stages(self._model, self._stages[choice.label], batch.images, self._tokens)
        everyone = torch.arange(len(batch.images), device=batch.images.device)
        scores = batch.objective.scores(several.outputs, everyone)
        activations = [_single(each) for each in several.activations]
        size = batch.images.shape[2:]
        maps = []
        for score in scores.unbind(dim=1):
            slopes = [_single(each) for each in several.gradients(score)]
            maps.append(choice.entry.function(activations, slopes, size, **choice.own_options))
        return torch.stack(maps, dim=1)

    def _needed(self, need: str, batch: _Batch, label: str) -> Tensor:
        """What a CAM asks for besides the activations, the T scores first."""
        if need == "gradients":
            return batch.gradients
        if need == "scores":
            return batch.scores.T
        if need not in batch.found:
            batch.found[need] = self._find(need, batch, label)
        return batch.found[need]

    def _find(self, need: str, batch: _Batch, label: str) -> Tensor:
        if need == "masked scores":
            score_of = self._asking(Scores, self._asked, batch, label)
            return masked_scores(score_of, batch.images, batch.activations)
        if need == "relevance":
            assert self._head is not None
            scale = summed_size(batch.activations, batch.gradients, batch.scores)
            self._head.use(batch.images, batch.activations, batch.objective, batch.scores, scale, batch.layout)
            return contrastive_relevance(self._head, batch.activations, batch.objective)
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


def _most_rivals(choices: Sequence[Choice[Method]]) -> int:
    """How many classes to compare with, for the method that compares with most."""
    asked = [choice.options.get("rivals", choice.entry.options.get("rivals")) for choice in choices]
    return max([1, *(each for each in asked if isinstance(each, int))])


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
