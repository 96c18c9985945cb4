"""Explain images: check what was given, find the layer, go through the batches, put the parts together."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.attribution.activated import parted
from pellucid.attribution.borrow import borrowed
from pellucid.attribution.call import Call, Trial
from pellucid.attribution.explanation import Explanation
from pellucid.attribution.families import METHODS, Method
from pellucid.attribution.frozen import Compiled, copied_bytes, told_if_uncompiled
from pellucid.attribution.layout import weights_laid_out
from pellucid.attribution.memory import checked_rows, told_if_full
from pellucid.attribution.merging import Fusion, fused, merged
from pellucid.attribution.run import channels_checked, device_of, looks_at_layer
from pellucid.attribution.scorer import ScoringFunction, as_model
from pellucid.attribution.targets import Target, check_target
from pellucid.attribution.tokens import Tokens, layer_name
from pellucid.attribution.views import Views, Window
from pellucid.attribution.voting import JOINT, joined, parts_of
from pellucid.errors import InputError, UnknownNameError, expected, nearest
from pellucid.models.ensemble import Ensemble
from pellucid.models.layers import find_layer
from pellucid.progress import Advance, heard, in_parts
from pellucid.registry import Choice

PAPER_METHODS = ("grad-cam-plus-plus", "xgrad-cam", "layer-cam", "eigen-grad-cam", "ablation-cam")
COARSE_GRID = 7
_GIVEN = -1  # an explanation's seed where each image was given one

Layer = str | nn.Module | Tokens
Precision = Literal["float32", "bfloat16"]
MethodChoice = str | Choice[Method]


class GridWarning(UserWarning):
    """The layer's grid is so coarse that a map can't tell small structures apart."""


def explain(
    model: nn.Module | ScoringFunction,
    images: Tensor,
    methods: MethodChoice | Sequence[MethodChoice] = PAPER_METHODS,
    target: Target = "predicted",
    layer: Layer | Sequence[Layer] = "auto",
    batch_size: int = 32,
    generator: torch.Generator | Tensor | None = None,
    progress: bool | Advance = False,
    *,
    fuse: Fusion | None = None,
    window: Window | int | Sequence[int] | None = None,
    max_memory: int | None = None,
    precision: Precision = "float32",
    compile: bool = False,
) -> Explanation:
    """Explain what a network saw in each image, by several methods from one forward pass.

    Arguments:
        model: any network from images to logits (B, n), or to one logit, which counts as two classes. It is given
            back as it was. Calls on one model from several threads take turns. For methods that ask for scores
            alone it may be any function from images (M, C, *S) to a tensor or an array of scores (M,) or (M, n),
            which count as logits.
        images: (B, C, H, W) or (B, C, D, H, W), finite, normalised as the model expects, of the weights' dtype.
            Batches are moved to the model's device.
        methods: names, or choices with options from `pellucid.method`. Every method takes the option `smooth`:
            "flips", "scales", "noise", several joined by "+", or `Flips`, `Scales`, `Noise` of
            `pellucid.attribution`; its map is then the mean over those views of the image, brought back to it.
        target: the class to explain: "predicted", "all", an index, one index per image (B,), a function from the
            model's output for M rows to M scores, or one of `pellucid.attribution.aims`, for segmentation, detection,
            regression, several labels at once, and outputs that are dicts or tuples.
        layer: for CAMs: "auto", a dotted name ("features:relu" for what a function makes of that module's output), a
            module of the model, or several, whose maps are labelled `method@layer`. Layers of tokens and with channels
            last are taken as feature maps; where the network doesn't tell the tokens' grid, pass
            `pellucid.attribution.Tokens`. Of an `Ensemble`, a layer of each member, joined by " + ", whose maps are
            averaged by the vote's weights.
        batch_size: images that run at once at most, and sets of activations where ablation has to run the network on
            each. On a CPU as many images run at once as its caches hold.
        generator: where draws come from; None means seed 0. An image's draws depend on its place in `images`, not
            on the batch size. Or a seed for each image, integers (B,), as `image_seeds` gives.
        progress: show a bar on standard error; or a function that hears in its place of images, or parts of one, and
            of notes.
        fuse: one map from the CAMs of several layers, each divided by its largest absolute value: "mean" of the
            layers, or "max", the value of largest size.
        window: for images larger than the network takes: the length of a window that slides over them, for all axes
            or for each, or a `Window` of `pellucid.attribution`, whose text says how windows are blended.
        max_memory: bytes that the network's tensors may take at once, besides weights, images and maps; fewer than
            `batch_size` images then run at once where it takes that.
        precision: "float32" runs the network as it is; "bfloat16" runs it in mixed precision, in less time.
        compile: have the network in a form that runs faster, for the methods that ask it for scores or gradients. On a
            CPU, "occlusion" takes 0.2 to 0.6 of the time, scores of images that changed all over 0.5 to 0.9, after a
            second or two; for gradients, and on a GPU after thousands of images, a compiler works for up to a minute.
            What was made serves later calls on the same weights, of which it holds copies while the network lives.

    Returns:
        Explanation: maps (B, *S) per method's label, in float32 on the CPU, and what they explain.

    Raises:
        InputError: an argument that can't be used, or images that don't fit into memory; says which, and what to do.

    Warns:
        GridWarning: a layer's grid is below 7 along an axis.
        CompiledWarning: a form of the network gives other outputs than the network itself, and isn't used.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> explanation = explain(model, torch.rand(3, 1, 12, 12), methods=["grad-cam", "random"])
    >>> explanation.layer, explanation.grid, explanation.maps["grad-cam"].shape
    ('1', (10, 10), torch.Size([3, 12, 12]))
    """
    choices = _choices(methods)
    model = unwrapped(as_model(model, choices))
    _check_forward(model)
    _check_images(images)
    check_target(target, len(images), images.ndim - 2)
    _check_running(batch_size, fuse, layer, precision)
    seeds = generator if isinstance(generator, Tensor) else image_seeds(generator, len(images))
    if seeds.shape != images.shape[:1] or seeds.is_floating_point():
        wanted = f"a torch.Generator, None, or an integer for each image ({len(images)},)"
        raise expected("generator", wanted, f"shape {tuple(seeds.shape)}, {seeds.dtype}")
    views = Views.over(tuple(images.shape[2:]), window)
    for choice in choices:
        views.smoothed(choice.options.get("smooth"))  # refused before anything runs
    with borrowed(model), _uncompiled(model), mixed(precision, device_of(model)):
        images = images.clone() if images.is_inference() else images
        _check_fits(model, images)
        sample = views.sample(images)
        layers = _layers(model, layer, sample) if any(map(looks_at_layer, choices)) else [""]
        trial = Trial(model, choices, layers[0], sample)
        copies = copied_bytes(model, precision) if compile else 0
        rows, spare = checked_rows(trial, batch_size, max_memory, copies=copies)
        call = Call(model, Compiled(model, rows) if compile else model, choices, target, rows, views)
        lay_out = _asks_often(choices) and not compile  # what is compiled has copies of its own
        with (
            told_if_full(trial, rows, device_of(model)),
            weights_laid_out(model, sample, spare) if lay_out else contextlib.nullcontext(),
            told_if_uncompiled() if compile else contextlib.nullcontext(),
            heard(progress, "Explaining", len(images)) as advance,
        ):
            parts = [
                call.at_layer(name, images, seeds, first=place == 0, advance=in_parts(advance, call.passes(layers)))
                for place, name in enumerate(layers)
            ]
    seed = _GIVEN if isinstance(generator, Tensor) else 0 if generator is None else generator.initial_seed()
    parts = [dataclasses.replace(part, seed=seed, seeds=seeds.long().cpu()) for part in parts]
    for part in parts:
        if part.grid and min(part.grid) < COARSE_GRID:
            grid = " × ".join(map(str, part.grid))
            warnings.warn(f"{part.layer!r} has a grid of {grid}, so that maps are coarse.", GridWarning, stacklevel=2)
    if fuse is not None:
        return fused(parts, choices, fuse)
    return parts[0] if isinstance(layer, Layer) else merged(parts, choices)


def _asks_often(choices: Sequence[Choice[Method]]) -> bool:
    """Whether any of the methods scores many changed images."""
    return any(choice.entry.family == "perturbation" or "masked scores" in choice.entry.needs for choice in choices)


def _check_running(batch_size: int, fuse: Fusion | None, layer: Layer | Sequence[Layer], precision: Precision) -> None:
    if batch_size < 1:
        raise expected("batch_size", "at least 1", batch_size)
    if fuse not in (None, "mean", "max"):
        raise expected("fuse", "'mean', 'max' or None", repr(fuse))
    if fuse is not None and (isinstance(layer, Layer) or len(layer) < 2):
        raise expected("fuse", "several layers to fuse", "one", do="Pass layer= a list of two or more.")
    check_precision(precision)


def check_precision(precision: str) -> None:
    """Raise InputError for a precision in which networks aren't run."""
    if precision not in ("float32", "bfloat16"):
        raise expected("precision", "'float32' or 'bfloat16'", repr(precision))


def mixed(precision: Precision, device: torch.device | None) -> contextlib.AbstractContextManager[object]:
    """A context in which a network on `device` runs in that precision."""
    if precision == "float32" or device is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _choices(methods: MethodChoice | Sequence[MethodChoice]) -> list[Choice[Method]]:
    named = [methods] if isinstance(methods, str | Choice) else list(methods)
    choices = [METHODS.resolve(each) for each in named]
    labels = [choice.label for choice in choices]
    if not labels or len(set(labels)) < len(labels):
        raise expected("methods", "at least one, each once", ", ".join(labels) or "none")
    return choices


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise expected("images", "a tensor (B, C, *S)", type(images).__name__, do="Use torch.as_tensor or torch.stack.")
    if images.ndim not in (4, 5):
        do = "Pass one image as images[None]." if images.ndim == 3 else ""
        raise expected("images", "(B, C, H, W) or (B, C, D, H, W)", f"shape {tuple(images.shape)}", do=do)
    if not images.numel():
        raise expected("images", "at least one image and pixel", f"shape {tuple(images.shape)}")


def _check_forward(model: nn.Module) -> None:
    """Refuse a network that wants more than the images."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # not written in Python
        return
    try:
        signature.bind(None)
    except TypeError:
        raise expected(
            "model",
            "a network that is called with the images alone",
            f"{type(model).__name__}.forward{signature}",
            do="Wrap it in a module whose forward(images) gives the other arguments.",
        ) from None


def _check_fits(model: nn.Module, images: Tensor) -> None:
    """Compare the images with the weights that meet them first."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if not images.is_floating_point() or (
        weight is not None and weight.dtype != images.dtype and not torch.is_autocast_enabled(weight.device.type)
    ):
        wanted = "float values" if weight is None else f"the weights' dtype {weight.dtype}"
        raise expected(
            "images", wanted, images.dtype, do="Convert with images.to(...), or the model with model.to(...)."
        )
    first = next((module for module in model.modules() if isinstance(module, _CONVOLUTIONS)), None)
    if first is not None and first.weight.ndim != images.ndim:
        axes = first.weight.ndim - 2
        raise expected(
            "images", f"{axes} spatial axes, as the model's convolutions have", f"shape {tuple(images.shape)}"
        )


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def unwrapped(model: nn.Module) -> nn.Module:
    """Of a compiled or a parallel model the one that hooks and gradients can enter."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _uncompiled(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Parts that are compiled run as written, where torch can do so, since a compiled part would trace the hooks."""
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())
    stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    return stance("force_eager") if compiled and stance is not None else contextlib.nullcontext()


def _layers(model: nn.Module, layer: Layer | Sequence[Layer], images: Tensor) -> list[str | Tokens]:
    """The layers by their names, those with a grid of the user's as `Tokens`."""
    names = _named(model)
    found: list[str | Tokens] = []
    for each in [layer] if isinstance(layer, Layer) else layer:
        if isinstance(each, Tokens):
            found.append(dataclasses.replace(each, layer=_layer_name(model, each.layer, names, images)))
        else:
            found.append(_layer_name(model, each, names, images))
    listed = [layer_name(each) for each in found]
    if not listed or len(set(listed)) < len(listed):
        raise expected("layer", "at least one, each once", ", ".join(listed) or "none")
    return found


def _layer_name(model: nn.Module, layer: str | nn.Module, names: dict[nn.Module, str], images: Tensor) -> str:
    if isinstance(layer, nn.Module):
        if layer not in names:
            raise expected("layer", "a module inside the model", type(layer).__name__)
        return names[layer]
    if layer == "auto":
        return _auto(model, images)
    if JOINT in layer and isinstance(model, Ensemble):
        first = images[:1].to(device_of(model) or images.device)
        parts = zip(model.each(), parts_of(layer, model), strict=True)
        return joined([_layer_name(m.network, name, _named(m.network), m.prepare(first)) for m, name in parts])
    if parted(layer)[0] not in names.values():
        close = nearest(layer, names.values())
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        with contextlib.suppress(InputError):  # which would hide the name
            hint += f" 'auto' takes {_auto(model, images)!r}."
        raise UnknownNameError(f"unknown layer {layer!r}.{hint} model.named_modules() lists all.")
    return layer


def _named(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules() if name}


def _auto(model: nn.Module, images: Tensor) -> str:
    first = images[:1].to(device_of(model) or images.device)
    if isinstance(model, Ensemble):
        return joined([_auto(member.network, member.prepare(first)) for member in model.each()])
    with channels_checked(model, first):
        return find_layer(model, first)


def image_seeds(generator: torch.Generator | None, count: int) -> Tensor:
    """A seed (count,) for each image, from one draw, so that it depends on the image's place alone; None means seed 0.

    >>> bool((image_seeds(None, 5)[:3] == image_seeds(torch.Generator().manual_seed(0), 3)).all())
    True
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    base = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    digests = [hashlib.blake2b(f"{base}/{place}".encode(), digest_size=7).digest() for place in range(count)]
    return torch.tensor([int.from_bytes(digest, "big") for digest in digests], dtype=torch.long)


def seeds_of(explanation: Explanation) -> Tensor:
    """The seed (B,) of each image's draws; where an explanation doesn't tell them, those of its seed and place."""
    if explanation.seeds is not None:
        return explanation.seeds
    return image_seeds(torch.Generator().manual_seed(max(explanation.seed, 0)), len(explanation))
