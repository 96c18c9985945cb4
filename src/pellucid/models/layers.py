"""Which layer `layer="auto"` means: the last feature map with spatial extent, after its norm and activation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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

    ResNet, DenseNet, VGG, EfficientNet and MobileNetV3 as timm and torchvision build them, timm's ConvNeXt, Swin and
    ViT-like networks, and MONAI's DenseNet and EfficientNet are known by their structure. Of a ViT it is what enters
    the last attention, normed, since behind it the patches beside a class token reach the score no more. Any other
    network runs once on the first of `images` (B, C, *S), and the last module is taken whose output has as many spatial
    axes as the image, more than one position, and isn't pooled; or, if tokens (B, N, K) come after it, the last norm of
    tokens most of which the output depends on.

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
    if kind.startswith("DenseNet") and hasattr(parts.get("class_layers"), "relu"):  # MONAI's
        return "class_layers.relu"
    if kind == "EfficientNet" and "bn2" in parts:
        return "bn2"
    if kind == "MobileNetV3" and isinstance(blocks := parts.get("blocks"), nn.Sequential):
        return f"blocks.{len(blocks) - 1}"
    if kind in ("EfficientNet", "MobileNetV3") and isinstance(features, nn.Sequential):
        return f"features.{len(features) - 1}"
    if kind == "ConvNeXt" and isinstance(stages := parts.get("stages"), nn.Sequential):
        normed = not isinstance(parts.get("norm_pre", nn.Identity()), nn.Identity)
        return "norm_pre" if normed else f"stages.{len(stages) - 1}"
    if kind == "EfficientNetBN" and "_bn1" in parts:  # MONAI's; the activation after it is one module for all layers
        return "_bn1"
    if kind in ("SwinTransformer", "SwinTransformerV2") and {"layers", "norm", "head"} <= parts.keys():
        return "norm"
    if kind == "Hiera" and isinstance(blocks := parts.get("blocks"), nn.ModuleList):
        return f"blocks.{len(blocks) - 1}"
    if {"patch_embed", "blocks"} <= parts.keys() and isinstance(getattr(model, "num_prefix_tokens", None), int):
        return _attended(parts)
    return None


def _attended(parts: Mapping[str, nn.Module]) -> str | None:
    """What enters the last attention of timm's blocks, normed; None where other blocks follow them."""
    blocks = parts["blocks"]
    later = list(parts)[list(parts).index("blocks") + 1 :]
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        return None
    if any(isinstance(parts[name], nn.ModuleList) for name in later):
        return None
    last = blocks[len(blocks) - 1]
    if "Post" in type(last).__name__:  # the norm follows the attention
        return f"blocks.{len(blocks) - 2}" if len(blocks) > 1 else None
    return f"blocks.{len(blocks) - 1}.norm1" if hasattr(last, "norm1") and hasattr(last, "attn") else None


def _probed_layer(model: nn.Module, image: Tensor) -> str:
    watch = _Watch(image.ndim)
    with _evaluating(model), _hooked(model, watch.hook), torch.no_grad(), watch:
        model(image)
    kind = type(model).__name__
    if watch.ends_in_tokens():
        name = _token_layer(model, image)
        if name is None:
            raise watch.error(kind, "a norm of tokens from which most have a gradient")
        return name
    return watch.last_feature_map(kind)


def _token_layer(model: nn.Module, image: Tensor) -> str | None:
    """The last norm with tokens (1, N, K) as its output, most of which the model's output depends on."""
    seen: list[tuple[str, Tensor]] = []
    fed: list[Tensor] = []  # what the last linear layer was given

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(module, nn.Linear) and inputs and inputs[0].requires_grad:
                fed[:] = [inputs[0]]
            normed = "norm" in type(module).__name__.lower() and isinstance(output, Tensor)
            if normed and output.ndim == 3 and output.shape[1] > 1 and output.requires_grad:
                seen.append((name, output))

        return note

    with torch.inference_mode(False), torch.enable_grad(), _evaluating(model), _hooked(model, hook):
        scores = _first_tensor(model(image.detach().clone().requires_grad_()))
        if scores is None or not scores.requires_grad or not seen:
            return None
        for reached in (scores, *fed):  # before training a head may be all zero
            weights = torch.arange(1.0, reached.numel() + 1, device=reached.device).cos()  # softmax's sum has no slope
            total = (reached.flatten() * weights.to(reached.dtype)).sum()
            slopes = torch.autograd.grad(total, [tokens for _, tokens in seen], allow_unused=True, retain_graph=True)
            for (name, _), slope in reversed(list(zip(seen, slopes, strict=True))):
                if slope is not None and 2 * int(slope[0].any(dim=1).sum()) > slope.shape[1]:
                    return name
    return None


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return next((each for each in map(_first_tensor, output) if each is not None), None)
    return output if isinstance(output, Tensor) else None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # not if frozen
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _hooked(model: nn.Module, hook: Callable[[str], Callable[[nn.Module, Any, Any], None]]) -> Iterator[None]:
    seen = [(name, m) for name, m in model.named_modules() if name and not isinstance(m, torch.jit.ScriptModule)]
    handles = [module.register_forward_hook(hook(name)) for name, module in seen]  # scripted modules take none
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Notes modules' outputs and activations applied as functions, in the order in which they come."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self._axes = axes
        self._outputs: list[tuple[str, nn.Module, Tensor]] = []
        self._activated: list[tuple[Tensor, int, str]] = []  # input of an activation, how many outputs came before it

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
            self._activated.append((args[0], len(self._outputs), func.__name__.strip("_")))
        return func(*args, **(kwargs or {}))

    def ends_in_tokens(self) -> bool:
        """Whether tokens come after the last feature map, or there are tokens alone."""
        rest = self._outputs[self._chosen() or 0 :]
        return any(output.ndim == 3 and min(output.shape[1:]) > 1 for _, _, output in rest)

    def last_feature_map(self, kind: str) -> str:
        """The last module whose output is one; with ":relu" behind it where an activation is a function, or shared."""
        chosen = self._chosen()
        if chosen is None:
            raise self.error(kind, "a module whose output is a feature map")
        for values, before, function in reversed(self._activated):
            if before > chosen and values is self._outputs[chosen][2]:
                return f"{self._outputs[chosen][0]}:{function}"
        name, module, _ = self._outputs[chosen]
        if self._runs(module) > 1:  # the activation is a module that others share
            for values, before, function in reversed(self._activated):
                sources = [(each, source) for each, source, output in self._outputs[:before] if output is values]
                if before == chosen and sources and self._runs(sources[-1][1]) == 1:
                    return f"{sources[-1][0]}:{function}"
        return name

    def _runs(self, module: nn.Module) -> int:
        return sum(each is module for _, each, _ in self._outputs)

    def _chosen(self) -> int | None:
        """Where the last module stands whose output has spatial extent and isn't pooled."""
        pooled = [output for _, module, output in self._outputs if _is_pooling(module)]
        chosen = None
        for place, (_, _, output) in enumerate(self._outputs):
            extended = output.ndim == self._axes and output.shape[2:].numel() > 1
            if extended and not any(output is each for each in pooled):
                chosen = place
        return chosen

    def error(self, kind: str, wanted: str) -> Exception:
        seen = ", ".join(f"{name} {tuple(output.shape)}" for name, _, output in self._outputs[-6:])
        return expected(
            "layer",
            f"{wanted}, to take in {kind} for 'auto'",
            f"last outputs {seen}" if seen else "no tensors",
            do="Pass layer= with the dotted name of the layer to explain.",
        )


def _is_pooling(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower()
