"""Networks by name: timm's, and MONAI's for volumes, whose names end in "-3d"."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError
from torch import nn

from pellucid.errors import MissingWeightsError, expected, unknown_name
from pellucid.models import light as light  # registers its networks with timm
from pellucid.models import volumes

_HUB_ERRORS = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)

Size = int | tuple[int, int, int]  # of square pictures, or of volumes (D, H, W)


def create_model(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    size: Size = 224,
    pretrained: bool | Path = False,
    output_stride: int | None = None,
) -> nn.Module:
    """A network with `classes` outputs for images of `channels` × `size` × `size`, or for volumes.

    Arguments:
        name: any name that `timm.list_models()` gives, with or without a weights tag; or one of
            `pellucid.models.volumes.NETWORKS`, such as "densenet121-3d", for volumes.
        classes: outputs of the last layer, at least 1.
        channels: channels of the images; a pretrained first convolution is adapted to them.
        size: height and width in pixels, or (D, H, W) for volumes; networks with a fixed token grid are built for it.
        pretrained: True for the hub's weights, a path for weights in a local file (safetensors, or a state
            dict that loads with `weights_only`), False for random initialisation.

    Raises:
        UnknownNameError: no such network; the nearest names are given.
        MissingWeightsError: the weights can't be had; never replaced by random ones.
    """
    check_architecture(name)
    if classes < 1:
        raise expected("classes", "at least 1", classes)
    check_size(name, size)
    if isinstance(size, tuple):
        return volumes.create(name, classes, channels, size, pretrained, output_stride)
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if output_stride is not None:
        options["output_stride"] = output_stride
        try:
            with torch.device("meta"):
                timm.create_model(name, pretrained=False, output_stride=output_stride)
        except (TypeError, AssertionError) as error:
            raise expected(
                "output_stride", f"a stride that {name!r} can be built with", output_stride, do="Leave it out."
            ) from error
    cfg = timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.fixed_input_size:
        options["img_size"] = size
    if pretrained is False:
        return _module(timm.create_model(name, pretrained=False, **options))
    if isinstance(pretrained, Path):
        if not pretrained.is_file():
            raise MissingWeightsError(
                f"pretrained: expected a weights file, got {str(pretrained)!r}, which isn't there."
            )
        overlay = {"file": str(pretrained)}
        try:
            return _module(timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options))
        except (RuntimeError, OSError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise MissingWeightsError(
                f"pretrained: {str(pretrained)!r} can't be loaded into {name!r} with {channels} channels: {reason}"
            ) from error
    fetch_weights(name)
    return _module(timm.create_model(name, pretrained=True, **options))


def fetch_weights(name: str) -> None:
    """Bring the published weights of `name` into the local cache, so that later loading needs no network.

    Raises MissingWeightsError, within seconds, when there are none or the hub can't be reached.
    """
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise MissingWeightsError(f"pretrained: the model hub has no weights for {name!r}. {_WAYS_ON}")
    if cfg.hf_hub_id and any(_cached(cfg.hf_hub_id, file) for file in ("model.safetensors", "pytorch_model.bin")):
        return
    try:
        _reach_hub()
        timm.create_model(name, pretrained=True)
    except _HUB_ERRORS as error:
        reason = type(error).__name__
        raise MissingWeightsError(
            f"pretrained: the weights of {name!r} can't be fetched from the model hub ({reason}). {_WAYS_ON}"
        ) from error


def _reach_hub() -> None:
    """One short try: the download itself would retry for most of a minute before it gives up."""
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5.0).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says: the hub is there


def _cached(repository: str, file: str) -> bool:
    return isinstance(try_to_load_from_cache(repository, file), str)


_WAYS_ON = (
    "Set pretrained = false to train from random weights, "
    'or give a local weights file: pretrained = "FILE.safetensors".'
)


def check_architecture(name: str) -> None:
    """Raise UnknownNameError, with the nearest names, unless there is a network called `name`."""
    if name not in volumes.NETWORKS and not timm.is_model(name.split(".", 1)[0]):
        raise unknown_name("model", name, [*timm.list_models(), *volumes.NETWORKS])


def check_size(name: str, size: Size) -> None:
    """Raise InputError unless the size is one of volumes for a network of volumes, and else of pictures."""
    if isinstance(size, tuple) != (name in volumes.NETWORKS):
        wanted = "three lengths (D, H, W)" if name in volumes.NETWORKS else "one length, of a square picture"
        raise expected("size", f"{wanted} for {name!r}", size)


def pretrained_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel that `name`'s published weights were trained with."""
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    return tuple(cfg.mean), tuple(cfg.std)


def pretrained_size(name: str) -> int:
    """Height and width in pixels that `name`'s published weights were trained with."""
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    return int(cfg.input_size[-1])


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def _module(model: object) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model.to(torch.float32)
