"""Look a network over: its layers and their grids, what could trip a method up, and which methods run on it."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pellucid.attribution.ablation import Ablation
from pellucid.attribution.activated import parted
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.capture import capture, gradients
from pellucid.attribution.engine import COARSE_GRID, GridWarning, explain, unwrapped
from pellucid.attribution.families import METHODS, Method
from pellucid.attribution.head import CANT_RUN, Head, Upstream
from pellucid.attribution.linear import Forward, answered, is_linear_like, quick_forward
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.run import device_of
from pellucid.attribution.scorer import as_model
from pellucid.attribution.targets import Target, objective
from pellucid.attribution.tokens import Witness
from pellucid.errors import InputError, PellucidError, expected
from pellucid.models.ensemble import Ensemble
from pellucid.models.layers import find_layer
from pellucid.progress import progress
from pellucid.registry import Choice, Entry

SMALL = {2: 64, 3: 48}  # pixels along each axis of the images on which methods are tried, where the network takes them
ROWS = 32  # sets of activations that run at once
FEW: Mapping[str, object] = {"steps": 1, "designs": 3, "regions": 2, "areas": (0.1,)}  # where a method has the option
FAULTS = (*CANT_RUN, AttributeError, KeyError, PellucidError)

HEADS = {
    "affine": "affine: every channel's effect is known from the gradient alone, so that ablation-cam is exact and free",
    "mixed": "not affine: ablation-cam runs what follows the first linear layer once per channel",
    "rescored": "not affine: ablation-cam runs the network after the layer once per channel",
    "whole": "can't run without what lies before it: ablation-cam runs the whole network once per channel",
}


@dataclass(frozen=True)
class FeatureMap:
    """A layer with spatial extent: `layout` says how it keeps channels, `prefix` how many tokens have no place."""

    name: str
    kind: str
    channels: int
    grid: tuple[int, ...]
    layout: str
    prefix: int


@dataclass(frozen=True)
class Reused:
    """A module that runs more than once per image."""

    name: str
    kind: str
    runs: int


@dataclass(frozen=True)
class Serving:
    """Whether a method runs on the network, and if not why; `tried` is False where that follows from others."""

    name: str
    family: str
    needs: tuple[str, ...]
    works: bool
    reason: str = ""
    tried: bool = True


@dataclass(frozen=True)
class Examination:
    """What was found out about a network.

    Attributes:
        network: its class.
        image: (C, *S) of the images it was run on.
        auto: the layer that `layer="auto"` takes; None where there is none, and `reason` says why.
        coarse: whether that layer's grid is below 7 along an axis.
        layers: all layers with spatial extent that run once, in the order in which they run.
        in_place: names of modules, and of functions with the module that calls them, that overwrite their input.
        reused: modules that run more than once.
        head: how the score follows from the layer: a key of `HEADS`; empty where that can't be told.
        methods: every registered method.
        coinciding: groups of CAMs whose maps are the same up to scale on these images.
    """

    network: str
    image: tuple[int, ...]
    auto: FeatureMap | None
    reason: str
    coarse: bool
    layers: tuple[FeatureMap, ...]
    in_place: tuple[str, ...]
    reused: tuple[Reused, ...]
    head: str
    methods: tuple[Serving, ...]
    coinciding: tuple[tuple[str, ...], ...]


def examine(
    model: nn.Module, images: Tensor, *, target: Target = "predicted", show_progress: bool = False
) -> Examination:
    """Run a network a few times on images (B, C, *S), and each method on one of them with few draws.

    The network is given back as it was. Methods are tried on a smaller copy of the first image where the network takes
    one. Score-CAM isn't tried, since it runs the network once per channel.

    Raises:
        InputError: the network can't run on the images at all; or it is an ensemble, whose members are several.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = examine(net, torch.rand(2, 1, 16, 16))
    >>> found.auto.name, found.auto.grid, found.head
    ('1', (14, 14), 'affine')
    """
    model, images = unwrapped(model), images.to(device_of(model) or images.device)
    if isinstance(model, Ensemble):
        raise expected("model", "one network", f"an ensemble of {len(model.members)}", do="Examine its members.")
    try:
        explain(model, images, "random", target=target)  # all that is refused whatever the method
    except (RuntimeError, TypeError) as error:
        wanted = f"images that {type(model).__name__} runs on"
        raise expected("images", wanted, f"shape {tuple(images.shape)}: {_line(error)}") from error
    with borrowed(model):
        survey = _survey(model, images)
        layer, reason = _auto(model, images)
    auto = next(
        (dataclasses.replace(each, name=layer) for each in survey.layers if each.name == parted(layer)[0]), None
    )
    with progress("examining", len(METHODS) + 1, show=show_progress) as advance:
        trial = _Trial(model, images[:1], target, layer or "auto")
        served = []
        for entry in METHODS:
            served.append(trial.of(entry))
            advance(1, entry.name)
        served = [_score_cam(each, served) if "masked scores" in each.needs else each for each in served]
        works = {each.name for each in served if each.works}
        slow = {"drops", "masked scores"} if trial.way != "affine" else {"masked scores"}
        cams = [e.name for e in METHODS if "activations" in e.needs and e.name in works and slow.isdisjoint(e.needs)]
        groups = _quietly(lambda: explain(model, images, cams, target, layer).coinciding) if cams else ()
        advance()
    return Examination(
        network=type(model).__name__,
        image=tuple(images.shape[1:]),
        auto=auto,
        reason=reason,
        coarse=auto is not None and min(auto.grid) < COARSE_GRID,
        layers=tuple(each for each in survey.layers if each.name not in {reused.name for reused in survey.reused()}),
        in_place=tuple(dict.fromkeys(survey.in_place)),
        reused=tuple(survey.reused()),
        head=trial.way,
        methods=tuple(served),
        coinciding=groups,
    )


def _auto(model: nn.Module, images: Tensor) -> tuple[str, str]:
    try:
        return find_layer(model, images[:1]), ""
    except InputError as error:
        return "", str(error)


class _Trial:
    """Tries methods on a small copy of an image (1, C, *S), and where that fails on the image itself."""

    def __init__(self, model: nn.Module, image: Tensor, target: Target, layer: str) -> None:
        self._model = model
        self._target = target
        self._layer = layer
        most = SMALL[image.ndim - 2]
        small = resize_maps(image.float(), [min(most, length) for length in image.shape[2:]]).to(image)
        self._images = [small, image] if small.shape != image.shape and self._runs(small) else [image]
        self.way = ""  # in which ablation found its drops

    def of(self, entry: Entry[Method]) -> Serving:
        """Whether a method runs, with few draws."""
        if "masked scores" in entry.needs:
            return Serving(entry.name, entry.family, entry.needs, works=False, tried=False)
        reason = ""
        for image in self._images:
            try:
                if "drops" in entry.needs:
                    self.way = self._ablated(image)
                else:
                    self._explain(image, _few_draws(entry, image))
            except FAULTS as error:
                reason = _line(error)
            else:
                return Serving(entry.name, entry.family, entry.needs, works=True)
        return Serving(entry.name, entry.family, entry.needs, works=False, reason=reason)

    def _runs(self, image: Tensor) -> bool:
        try:
            with borrowed(self._model), torch.no_grad():
                self._model(image)
        except (*FAULTS, AssertionError):
            return False
        return True

    def _explain(self, image: Tensor, choice: Choice[Method]) -> None:
        # a convolution that sees its whole input at once, as VGG's head has, is several times faster as a linear layer
        quick: dict[nn.Module, Forward] = {
            m: quick_forward(m) for m in self._model.modules() if is_linear_like(m) and not isinstance(m, nn.Linear)
        }
        with borrowed(self._model), answered(quick):
            _quietly(lambda: explain(self._model, image, choice, self._target, self._layer))

    def _ablated(self, image: Tensor) -> str:
        """How ablation finds its drops at the layer."""
        as_model(self._model, [METHODS.choose("ablation-cam")])  # refuses what hides its insides
        with borrowed(self._model):
            upstream = Upstream()
            captured = capture(self._model, self._layer, image, upstream)
            one = torch.zeros(1, dtype=torch.long, device=image.device)
            aim = objective(self._target, captured.outputs, slice(0, 1))
            scores = aim.scores(captured.outputs, one)
            slopes = gradients(scores, captured.activations)
            ablation = Ablation(Head(self._model, self._layer, upstream), ROWS)
            ablation.drops(image, captured.activations.detach(), slopes, scores.detach(), aim, captured.layout)
        return ablation.way


def _few_draws(entry: Entry[Method], images: Tensor) -> Choice[Method]:
    half = min(images.shape[2:]) // 2
    draws = max(12, 2 * 2 ** (images.ndim - 2))  # twice the regions, two along each axis
    few = {**FEW, "samples": draws if entry.family == "perturbation" else 1, "window": half, "stride": half}
    return METHODS.choose(entry.name, **{name: value for name, value in few.items() if name in entry.options})


def _score_cam(untried: Serving, served: Iterable[Serving]) -> Serving:
    """It works where both activations and scores of changed images can be had."""
    works = {each.name: each for each in served}
    lacking = [works[name] for name in ("eigen-cam", "occlusion") if not works[name].works]
    reason = lacking[0].reason if lacking else ""
    return Serving(untried.name, untried.family, untried.needs, not lacking, reason, tried=False)


def _quietly(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)
        return call()


def _line(error: BaseException) -> str:
    """An error's first line, without the list of methods that work, which stands beside it."""
    first = (str(error).splitlines() or [""])[0].partition(" These do: ")[0]
    return first if isinstance(error, PellucidError) else f"{type(error).__name__}: {first}"


class _Survey(TorchFunctionMode):
    """Notes the layers of one pass, what overwrites its input, and how often each module runs."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self._names = {module: name for name, module in model.named_modules() if name}
        self._witness = Witness(model, next(iter(self._names.values()), ""), images)
        self._running: list[nn.Module] = [model]
        self._runs: dict[nn.Module, int] = {}
        self.layers: list[FeatureMap] = []
        self.in_place: list[str] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        hooked = [module for module in self._names if not isinstance(module, torch.jit.ScriptModule)]
        with self._witness.watching():
            handles = [module.register_forward_pre_hook(self._begin) for module in hooked]
            handles += [module.register_forward_hook(self._end) for module in hooked]
            try:
                with self:
                    yield
            finally:
                for handle in handles:
                    handle.remove()

    def reused(self) -> Iterator[Reused]:
        for module, runs in self._runs.items():
            if runs > 1:
                yield Reused(self._names[module], type(module).__name__, runs)

    def _begin(self, module: nn.Module, inputs: object) -> None:
        self._running.append(module)
        self._runs[module] = self._runs.get(module, 0) + 1
        if getattr(module, "inplace", False):
            self.in_place.append(f"{self._names[module]} ({type(module).__name__})")

    def _end(self, module: nn.Module, inputs: object, output: object) -> None:
        self._running.pop()
        name, kind = self._names[module], type(module).__name__
        if self._runs[module] > 1 or isinstance(module, nn.Identity) or "Drop" in kind:
            return
        try:
            maps, layout = self._witness.at(name).split(output)
        except InputError:
            return  # no feature map
        if maps.shape[2:].numel() < 2:
            return
        tokens = isinstance(output, Tensor) and output.ndim == 3
        laid = "tokens" if tokens else "channels first" if layout.positions is None else "channels last"
        prefix = 0 if layout.prefix is None else layout.prefix.shape[1]
        self.layers.append(FeatureMap(name, kind, maps.shape[1], tuple(maps.shape[2:]), laid, prefix))

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name: str = getattr(func, "__name__", "")
        operator = name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}")  # += and its like
        writes = operator or (name.endswith("_") and not name.endswith("__")) or (kwargs or {}).get("inplace")
        here = self._running[-1]
        if writes and name != "requires_grad_" and not getattr(here, "inplace", False):
            bare = name.strip("_").removeprefix("i" if operator else "")
            self.in_place.append(f"{bare} in {self._names.get(here, type(here).__name__)}")
        return func(*args, **(kwargs or {}))


def _survey(model: nn.Module, images: Tensor) -> _Survey:
    survey = _Survey(model, images)
    with torch.no_grad(), survey.watching():
        model(images.clone())
    return survey
