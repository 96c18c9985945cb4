"""Maps made again: of images that were changed a little, of another class, of a network whose weights were changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import generator_of
from pellucid.errors import expected, unknown_name
from pellucid.metrics.randomised import owners


class Explainer(Protocol):
    """Explains images by several methods at once."""

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, seeds: Tensor) -> Mapping[str, Tensor]:
        """Maps (M, *S) by a method's label, of images (M, C, *S), each for the class `target` (M,) that it is given."""


_APART = 0.01  # norm of what two makings of one map differ by at most, relative to the map's

LogitsOf = Callable[[Tensor], Tensor]  # (M, C, *S) -> (M, n)
Change = Callable[[nn.Module], contextlib.AbstractContextManager[nn.Module]]  # to the network to explain
Versions = Callable[[], Tensor]  # () -> (B, R, C, *S), R changed versions of each image
Compare = Callable[[Tensor, Tensor], Tensor]  # (B, *S), (B, R, *S) -> (B, ...)


@dataclass(frozen=True)
class Near:
    """R changed images of each of B, and what came of them.

    Attributes:
        images: (B, R, C, *S)
        maps: (B, R, *S) by the one method
        name: what they are kept under.
    """

    images: Tensor
    maps: Tensor
    name: Hashable
    ask: Callable[[], Tensor]  # () -> (B · R, n), the network's logits

    @property
    def logits(self) -> Tensor:
        """The network's logits (B, R, n), for which it runs when they are first asked for."""
        logits: Tensor = self.ask().unflatten(0, self.images.shape[:2])
        return logits


class Explained:
    """B explained images and a way to explain again; all methods are run at once, and what one metric asked is kept."""

    def __init__(
        self,
        model: nn.Module,
        explainer: Explainer,
        logits_of: LogitsOf,
        images: Tensor,
        target: Tensor,
        seeds: Tensor,
        draws: Tensor,
        maps: Mapping[str, Tensor],
    ) -> None:
        """Arguments.

        model: the network, borrowed.
        explainer: makes the maps.
        logits_of: logits (M, n) of rows (M, C, *S), by running the network.
        images: (B, C, *S).
        target: (B,) the class explained of each.
        seeds: (B,) from which the methods drew, so that their own draws don't differ when they explain again.
        draws: (B,) from which the metrics draw.
        maps: label of a method -> (B, *S), those that can be made again.
        """
        self.model, self.explainer, self.logits_of = model, explainer, logits_of
        self.images, self.target, self.seeds, self.draws = images, target, seeds, draws
        self.maps = {label: values.nan_to_num() for label, values in maps.items()}
        self._known: dict[Hashable, Mapping[str, Tensor]] = {}
        self._tensors: dict[Hashable, Tensor] = {}

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """Names of the modules that hold weights, the last used first."""
        return owners(self.model, self.images[:1])

    @cached_property
    def remade(self) -> Mapping[str, Tensor]:
        """By a method's label, which of its maps (B,) come out as they were when they are made again."""
        found = self.explain(self.images, torch.arange(len(self.images)))
        same = {}
        for label, maps in self.maps.items():
            apart = (found[label] - maps).flatten(1).square().sum(dim=1).sqrt()
            same[label] = apart <= _APART * maps.flatten(1).square().sum(dim=1).sqrt()
        return same

    def kept(self, key: Hashable, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """What was made of every method's maps under this key, or is made now."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def kept_tensor(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What was made for all methods under this key, or is made now."""
        if key not in self._tensors:
            self._tensors[key] = make()
        return self._tensors[key]

    def explain(
        self,
        images: Tensor,
        sample: Tensor,
        target: Tensor | None = None,
        model: nn.Module | None = None,
        only: str | None = None,
    ) -> Mapping[str, Tensor]:
        """Maps (M, *S) of rows that derive from the images `sample`, for their classes or those of `target` (M,).

        By all methods, or by `only` one.
        """
        sample = sample.cpu()
        wanted_labels = list(self.maps) if only is None else [only]
        narrowed = getattr(self.explainer, "only", None)  # a user's own explains by all
        explainer: Explainer = self.explainer if only is None or narrowed is None else narrowed(only)
        classes = self.target[sample.to(self.target.device)] if target is None else target
        with torch.enable_grad():
            found = explainer(self.model if model is None else model, images, classes, self.seeds[sample])
        missing = [label for label in wanted_labels if label not in found]
        if missing:
            raise expected("explainer", f"maps by {', '.join(wanted_labels)}", f"none by {missing[0]!r}")
        wanted = (len(images), *images.shape[2:])
        for label in wanted_labels:
            if tuple(found[label].shape) != wanted:
                raise expected("explainer", f"maps {wanted}", f"{tuple(found[label].shape)} by {label!r}")
        return {label: found[label].detach().to(self.images.device) for label in wanted_labels}


class Again:
    """One method, by its label, to be asked for its maps again; `images`, `target` and `draws` as in `Explained`."""

    def __init__(self, explained: Explained, label: str) -> None:
        self._explained, self.label = explained, label
        self.images, self.target, self.draws = explained.images, explained.target, explained.draws

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of the network's modules that hold weights, in the order in which it uses them, the last first."""
        return self._explained.owners

    @property
    def logits(self) -> Tensor:
        """The network's logits (B, n) of the images."""
        explained = self._explained
        return explained.kept_tensor("logits", lambda: explained.logits_of(self.images))

    def maps_of(self, images: Tensor, sample: Tensor) -> Tensor:
        """Maps (M, *S) of any images (M, C, *S) that derive from the images `sample` (M,); nothing is kept."""
        return self._explained.explain(images, sample, only=self.label)[self.label]

    def toward(self, classes: Tensor) -> Tensor:
        """Maps (B, *S) that explain other classes (B,)."""
        everyone = torch.arange(len(self.images))
        key = ("toward", tuple(classes.tolist()))
        return self._explained.kept(key, lambda: self._explained.explain(self.images, everyone, classes))[self.label]

    def logits_of(self, images: Tensor) -> Tensor:
        """The network's logits (M, n) of images (M, C, *S); nothing is kept."""
        return self._explained.logits_of(images)

    def shared(self, name: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make()` gives, made once for all methods; it is kept under `name`."""
        return self._explained.kept_tensor(("shared", name), make)

    def features_of(self, images: Tensor, layer: str, name: Hashable) -> Tensor:
        """What a layer gives for images (M, C, *S), flat (M, F); made once for all methods under `name`.

        The layer is a module's dotted name; "" means what enters the last layer of weights that the network uses,
        which are its penultimate features.
        """
        explained = self._explained

        def make() -> Tensor:
            with _listening(explained.model, layer or _last_layer(explained), entering=not layer) as heard:
                explained.logits_of(images)
            return torch.cat(heard).to(images.device)

        return explained.kept_tensor(("features", layer, name), make)

    def near(self, change: Callable[[Tensor, torch.Generator], Tensor], name: Hashable, draws: int) -> Near:
        """R = `draws` changed versions of each image, and their maps; made once for all methods.

        `change(image (C, *S), generator) -> (C, *S)` makes one of them on the CPU or where the image lies; `name` tells
        it from other changes. A version depends on the image's own seed and the draw's number alone.
        """
        explained, key = self._explained, ("near", name, draws)
        rows = explained.kept_tensor(key, lambda: self.versions(change, draws))
        sample = torch.arange(len(rows)).repeat_interleave(draws)
        maps = explained.kept(key, lambda: explained.explain(rows.flatten(0, 1), sample))[self.label]

        def ask() -> Tensor:
            return explained.kept_tensor(("logits", key), lambda: explained.logits_of(rows.flatten(0, 1)))

        return Near(rows, maps.unflatten(0, rows.shape[:2]), key, ask)

    def versions(self, change: Callable[[Tensor, torch.Generator], Tensor], draws: int) -> Tensor:
        """The images alone of `near`, (B, R, C, *S); nothing is kept."""
        each = zip(self.images, self.draws.tolist(), strict=True)
        return torch.stack(
            [torch.stack([change(image, generator_of(seed, draw)) for draw in range(draws)]) for image, seed in each]
        )

    def compared(
        self, name: Hashable, compare: Compare, change: Change | None = None, versions: Versions | None = None
    ) -> Tensor:
        """What `compare(maps (B, *S), again (B, R, *S))` says of the maps and of those made again.

        They are made again of R `versions` of each image, (B, R, C, *S), or else of the images themselves, R = 1; by
        the network that `change(model)` gives inside it, or else by the one explained. All methods are run and compared
        at once, and only what comes of it is kept, under `name`: the maps made again are let go.
        """
        explained = self._explained

        def make() -> Mapping[str, Tensor]:
            rows = explained.images.unsqueeze(1) if versions is None else versions()
            sample = torch.arange(len(rows)).repeat_interleave(rows.shape[1])
            with contextlib.nullcontext(explained.model) if change is None else change(explained.model) as model:
                found = explained.explain(rows.flatten(0, 1), sample, model=model)
            again = {label: maps.unflatten(0, rows.shape[:2]) for label, maps in found.items()}
            return {label: compare(maps, again[label]) for label, maps in explained.maps.items()}

        return explained.kept(("compared", name), make)[self.label]


def _last_layer(explained: Explained) -> str:
    """The module without modules inside that the network uses last of those with a weight of two axes or more."""
    for name in explained.owners:
        module = explained.model.get_submodule(name)
        if not any(module.children()) and any(weight.ndim > 1 for weight in module.parameters()):
            return name
    raise expected(
        "model", "a layer of weights, whose input is the representation", "none", do="Pass the metric's option layer=."
    )


@contextlib.contextmanager
def _listening(model: nn.Module, layer: str, *, entering: bool) -> Iterator[list[Tensor]]:
    """What enters or leaves a layer in each of the network's runs, flat (rows, F); the last time in each."""
    modules = dict(model.named_modules())
    if layer not in modules:
        raise unknown_name("layer", layer, modules)
    heard: list[Tensor] = []
    latest: list[Tensor] = []

    def listen(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        value = inputs[0] if entering else output
        if not isinstance(value, Tensor):
            raise expected("layer", "a layer that gives a tensor", type(value).__name__)
        latest[:] = [value.detach().float().flatten(1)]

    def begin(module: nn.Module, inputs: object) -> None:
        latest.clear()  # a run that failed is begun again

    def end(module: nn.Module, inputs: object, output: object) -> None:
        if not latest:
            raise expected("layer", "a layer that runs on these images", f"{layer!r}, which doesn't")
        heard.append(latest.pop())

    handles = [
        model.register_forward_pre_hook(begin),
        modules[layer].register_forward_hook(listen),
        model.register_forward_hook(end),
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
