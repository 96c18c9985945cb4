"""What other libraries give for the same network, before they cut, scale and enlarge it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from references.cam_networks import seeded

DEEP = {"vgg16": "features.29", "vgg16 halfway": "features.15", "resnet50": "layer3"}


def deep_network(name: str) -> nn.Module:
    """VGG16 or ResNet50 with random weights at a trained network's scale and five classes."""
    if name.startswith("vgg16"):
        from torchvision.models import vgg16  # its convolutions; narrower after them, to be quick

        with torch.device("meta"):
            model = vgg16(num_classes=5)
        widths = [(512 * 49, 64), (64, 64), (64, 5)]
        for place, (inputs, outputs) in zip((0, 3, 6), widths, strict=True):
            model.classifier[place] = nn.Linear(inputs, outputs)
        return seeded(model.to_empty(device="cpu"))
    import timm

    return seeded(timm.create_model("resnet50", num_classes=5))


def grad_cam_maps(peer: Any, name: str, model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> np.ndarray:
    """pytorch-grad-cam's maps at the layer's resolution, before it cuts negatives and scales to [0, 1]."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    raw, kept = keeping(getattr(peer, name))
    targets = [ClassifierOutputTarget(int(k)) for k in classes]
    with raw(model=model, target_layers=[model.get_submodule(layer)]) as engine:
        engine(images, targets)
    return kept[0]


def keeping(method: Any) -> tuple[Any, list[np.ndarray]]:
    """One of pytorch-grad-cam's classes that notes its raw maps, and where it notes them."""
    kept: list[np.ndarray] = []

    class Raw(method):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **options: Any) -> np.ndarray:
            kept.append(super().get_cam_image(*args, **options))
            return kept[-1]

    return Raw, kept


def torchcam_maps(name: str, model: nn.Module, layer: str, images: Tensor, classes: Tensor) -> np.ndarray:
    """TorchCAM's maps at the layer's resolution, before it cuts negatives and scales to [0, 1]."""
    from torchcam import methods

    with getattr(methods, name)(model, layer) as extractor:
        getattr(extractor, "base_cam", extractor)._relu = False
        scores = model(images)
        (maps,) = extractor(classes.tolist(), scores, normalized=False)
    return maps.detach().numpy()


def score_cam_by_masks(
    model: nn.Module, image: Tensor, activations: Tensor, wanted: int, align_corners: bool = False, first: bool = False
) -> np.ndarray:
    """Score-CAM's signed map of one image (C, *S), a channel at a time, scaled before it is enlarged or after."""
    size = image.shape[1:]
    seen = []
    for channel in activations:
        mask = scaled(channel) if first else channel
        mask = interpolate(mask[None, None], size=size, mode="bilinear", align_corners=align_corners)[0]
        seen.append(image * (mask if first else scaled(mask)))
    with torch.no_grad():
        scores = torch.cat(
            [model(torch.stack(seen[start : start + 64]))[:, wanted] for start in range(0, len(seen), 64)]
        )
    weights = scores.softmax(dim=0)
    return (weights[:, None, None] * activations).sum(dim=0).numpy()


def scaled(values: Tensor) -> Tensor:
    """Values from their least and largest to [0, 1]; zero where they are all the same."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else torch.zeros_like(values)


def output_of(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What a layer gives for images, before anything else can write to it."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0]


def largest_relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of any image, relative to the largest entry of its map; every map has one."""
    axes = tuple(range(1, theirs.ndim))
    size = np.abs(theirs).max(axis=axes)
    assert (size > 0).all()
    return float((np.abs(ours - theirs).max(axis=axes) / size).max())
