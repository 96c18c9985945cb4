"""Which layer `layer="auto"` means: the last feature map with spatial extent, after its norm and activation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pellucid.errors import expected

_ACTIVATIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu6, functional.gelu),
        *(functional.silu, functional.elu, functional.leaky_relu, functional.hardswish, functional.mish),
    }
)


def find_layer(model: nn.Module, images: Tensor | None = None) -> str:
    """Dotted name of the last feature map with spatial extent before pooling, after its norm and activation.

    ResNet, DenseNet, VGG, EfficientNet and MobileNetV3, as timm and torchvision build them, are known by their
    structure. Any other network runs once on the first of `images` (B, C, *S), and the last module is taken whose
    output has as many spatial axes as the image, more than one position, and isn't pooled.

    Raises:
        InputError: an unknown network without `images`, or one whose feature map can't be told; says what was seen.

    >>> import timm
    >>> find_layer(timm.create_model("resnet18"))
    'layer4'
    """
    known = _known_layer(model)
    if known is not None:
        return known
    if images is None:
        raise expected("images", f"images to run {type(model).__name__} on, which isn't a known network", "None")
    return _probed_layer(model, images[:1])


def _known_layer(model: nn.Module) -> str | None:
    kind = type(model).__name__
    parts = dict(model.named_children())
    features = parts.get("features")
    if kind == "ResNet" and "layer4" in parts:
        return "layer4"
    if kind == "VGG" and isinstance(features, nn.Sequential):
        # timm's head convolves, so that on large images it has spatial extent too
        return "features." + [name for name, part in features.named_children() if not _is_pooling(part)][-1]
    if kind == "DenseNet" and isinstance(features, nn.Sequential) and hasattr(getattr(features, "norm5", None), "act"):
        return "features.norm5"
    if kind == "EfficientNet" and "bn2" in parts:
        return "bn2"
    if kind == "MobileNetV3" and isinstance(blocks := parts.get("blocks"), nn.Sequential):
        return f"blocks.{len(blocks) - 1}"
    if kind in ("EfficientNet", "MobileNetV3") and isinstance(features, nn.Sequential):
        return f"features.{len(features) - 1}"
    return None


def _probed_layer(model: nn.Module, image: Tensor) -> str:
    watch = _Watch(image.ndim)
    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(watch.hook(name)) for name, module in model.named_modules() if name]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad(), watch:
            model(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return watch.last_feature_map(type(model).__name__)


class _Watch(TorchFunctionMode):
    """Notes modules' outputs and activations applied as functions, in the order in which they come."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self._axes = axes
        self._outputs: list[tuple[str, nn.Module, Tensor]] = []
        self._activated: list[tuple[Tensor, int]] = []  # input of an activation, and how many outputs came before

    def hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._outputs.append((name, module, output))

        return note

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _ACTIVATIONS and args:
            self._activated.append((args[0], len(self._outputs)))
        return func(*args, **(kwargs or {}))

    def last_feature_map(self, kind: str) -> str:
        pooled = [output for _, module, output in self._outputs if _is_pooling(module)]
        chosen = None
        for place, (_, _, output) in enumerate(self._outputs):
            extended = output.ndim == self._axes and output.shape[2:].numel() > 1
            if extended and not any(output is each for each in pooled):
                chosen = place
        if chosen is None:
            raise self._error(kind, "a module whose output is a feature map")
        name, _, features = self._outputs[chosen]
        for _, _, output in self._outputs[chosen:]:
            if output.ndim == 3 and min(output.shape[1:]) > 1:
                raise self._error(kind, f"no tokens after the last feature map ({name!r})")
        for values, before in self._activated:
            if values is features and before > chosen:
                raise self._error(kind, f"a module for the activation that follows {name!r}, which is a function")
        return name

    def _error(self, kind: str, wanted: str) -> Exception:
        seen = ", ".join(f"{name} {tuple(output.shape)}" for name, _, output in self._outputs[-6:])
        return expected(
            "layer",
            f"{wanted}, to take in {kind} for 'auto'",
            f"last outputs {seen}" if seen else "no tensors",
            do="Pass layer= with the dotted name of the layer to explain.",
        )


def _is_pooling(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower()
