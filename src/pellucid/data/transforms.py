"""From stored pixels to what a network sees: scaling, size and channels, normalisation, augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn_functional

from pellucid import torchvision_schemas as torchvision_schemas  # before torchvision
from pellucid.data.enhancements import LUMINANCE, NONE, Enhancement, enhance
from pellucid.data.images import MedicalImage, read_image
from pellucid.data.intensity import grey_of
from pellucid.data.resample import Frame, grid_of
from pellucid.errors import expected
from pellucid.progress import progress
from pellucid.registry import Choice

AS_STORED = Frame()

_LOSSY_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")


def prepare(
    image: MedicalImage,
    *,
    channels: int,
    size: int | tuple[int, int, int],
    intensity: str = "dtype",
    enhancement: str | Choice[Enhancement] = NONE,
    frame: Frame = AS_STORED,
) -> Tensor:
    """Scale, convert, resize and enhance one image: float32 (channels, size, size) in [0, 1], or (channels, D, H, W).

    Arguments:
        image: pixels (1 or 3, H, W), or (1 or 3, D, H, W) of a volume.
        channels: 1 or 3; colour becomes grey by its luminance, grey is repeated.
        size: of the square, in pixels, or (D, H, W) of the volume in voxels; the aspect isn't kept. Bilinear or
            trilinear with antialiasing.
        intensity: "dtype" takes the range of the stored type to [0, 1] (8 bits: 0 to 255, 16 bits: 0 to 65,535, signed
            16 bits: −32,768 to 32,767; float must lie in [0, 1] already), but grey DICOM goes through its own window;
            "image" takes the image's own minimum and maximum, over all channels, to 0 and 1, and a constant image to
            0; or a window: "file", "percentile", "lung", "40/400" and so on, as `pick_window` takes it. Images whose
            low values are bright (MONOCHROME1) are turned round.
        enhancement: as `enhance` takes it. It comes last, at the network's size, so that tiles, cells and radii are the
            same share of every image, and large files don't cost more.
        frame: which way a volume's axes run, and the steps between its voxels, which keep its proportions. Voxels that
            it doesn't have are as dark as its darkest. By default axes stay as they are stored, and all of it is seen.

    Raises InputError for other channels, for a volume where a picture is wanted or the other way round, for a float
    image outside of [0, 1] with "dtype", for a window that the image can't be seen through, or for an enhancement that
    can't be made.
    """
    if channels not in (1, 3):
        raise expected("channels", "1 or 3", channels)
    lengths = size if isinstance(size, tuple) else (size, size)
    if image.pixels.ndim != len(lengths) + 1 or len(image.pixels) not in (1, 3):
        wanted = "a volume, (1 or 3, D, H, W)" if len(lengths) == 3 else "a picture, (1 or 3, H, W)"
        kind = {3: "a picture", 4: "a volume"}.get(image.pixels.ndim, "pixels")
        raise expected("image", wanted, f"{kind}, {image.pixels.shape}, in {image.source}")
    scaled = torch.from_numpy(grey_of(image, intensity))
    if is_grey(scaled):
        scaled = scaled[:1]  # as the same image in one channel, to the last bit
    if channels == 1 and len(scaled) == 3:
        weights = scaled.new_tensor(LUMINANCE).view(3, *(1,) * len(lengths))
        scaled = (scaled * weights).sum(dim=0, keepdim=True)
    if frame.plain:
        seen = _resized(scaled, lengths)
    else:
        grid = grid_of(image.pixels.shape[1:], image.affine, lengths, frame)
        seen = torch.from_numpy(grid.bring(scaled.numpy(), fill=float(scaled.min()))).clamp_(0, 1)
    return enhance(seen, enhancement).expand(channels, *lengths).contiguous()


def is_grey(image: Tensor) -> bool:
    """Whether an image (C, *S) shows no colour: one channel, or three that are equal."""
    return len(image) == 1 or (torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]))


def prepare_mask(path: str | Path, *, size: int | tuple[int, int, int]) -> Tensor:
    """Read a lesion mask and bring it to its size, bool, as `mask_of` does. Raises UnreadableFileError."""
    return mask_of(read_image(path), size=size)


def mask_of(
    mask: MedicalImage,
    *,
    size: int | tuple[int, int, int],
    labels: Sequence[int] | None = None,
    frame: Frame = AS_STORED,
) -> Tensor:
    """A lesion mask (size, size) or (D, H, W) bool, in register with its image.

    Every pixel that isn't zero belongs to the lesion, in whichever channel, or those whose value is one of `labels`; in
    a JPEG, whose zeros are smeared, those above half of the range. The mask is resized as the image is, a volume's in
    the same `frame`, and cut at one half; a lesion too small to fill half a pixel keeps the pixels that it fills most.
    A volume's voxels must be those of its image (`pellucid.data.masks.on_voxels_of`).
    """
    lengths = size if isinstance(size, tuple) else (size, size)
    floor = 127 if str(mask.source).lower().endswith(_LOSSY_ENDINGS) else 0
    inside = mask.pixels > floor if labels is None else np.isin(mask.pixels, list(labels))
    marked = np.asarray(inside.any(axis=0, keepdims=True), np.float32)
    if frame.plain:
        share = _resized(torch.from_numpy(marked), lengths)[0]
    else:
        share = torch.from_numpy(grid_of(mask.pixels.shape[1:], mask.affine, lengths, frame).bring(marked)[0])
    return (share > 0) & (share >= min(0.5, float(share.max())))


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Images (C, *S) at the given lengths."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    depth = size[:-2]
    resized = _resized_planes(image.reshape(1, -1, *image.shape[-2:]), size[-2:])
    if depth:  # torch has no antialiased trilinear resize, but it is a bilinear one along the axes in turn
        plane = math.prod(size[1:])
        resized = _resized_planes(resized.reshape(1, len(image), -1, plane), (*depth, plane))
    return resized.reshape(len(image), *size).clamp_(0, 1)  # the weights sum to one but for rounding


def _resized_planes(planes: Tensor, size: Sequence[int]) -> Tensor:
    return nn_functional.interpolate(planes, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, in units of images in [0, 1], and where they come from.

    >>> Normalisation((0.5,), (0.25,), "data-set").normalise(torch.ones(1, 2, 2)).unique()
    tensor([2.])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise expected("std", f"as many values as mean, {len(self.mean)}", len(self.std))
        if min(self.std) <= 0:
            raise expected("std", "values above 0", self.std)

    def normalise(self, images: Tensor, axes: int = 2) -> Tensor:
        """Images (…, C, *S) in [0, 1] with so many spatial axes, less the mean, over the standard deviation."""
        return (images - self._column(self.mean, images, axes)) / self._column(self.std, images, axes)

    def denormalise(self, images: Tensor, axes: int = 2) -> Tensor:
        """Undo `normalise`."""
        return images * self._column(self.std, images, axes) + self._column(self.mean, images, axes)

    def _column(self, values: Sequence[float], images: Tensor, axes: int) -> Tensor:
        if images.ndim <= axes or images.shape[-1 - axes] != len(values):
            space = "D, H, W" if axes == 3 else "H, W"
            raise expected("images", f"(…, {len(values)}, {space})", tuple(images.shape))
        return images.new_tensor(values).view(-1, *(1,) * axes)


class PreparedImages(Protocol):
    """Images that were brought to one size and to [0, 1]."""

    def __len__(self) -> int: ...

    def image(self, position: int) -> Tensor: ...


def dataset_normalisation(images: PreparedImages, *, show_progress: bool = False) -> Normalisation:
    """Mean and standard deviation of each channel over all pixels of `images`, which should be the training part.

    Summed in float64, one image at a time. A channel that doesn't vary gets the standard deviation 1.
    """
    if not len(images):
        raise expected("images", "at least one image", "none")
    totals, squares, count = np.zeros(1), np.zeros(1), 0
    with progress("measuring intensities", len(images), show=show_progress) as advance:
        for position in range(len(images)):
            pixels = images.image(position).numpy().astype(np.float64)
            spatial = tuple(range(1, pixels.ndim))
            totals = totals + pixels.sum(axis=spatial)
            squares = squares + (pixels**2).sum(axis=spatial)
            count += pixels[0].size
            advance(1)
    mean = totals / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6] = 1
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()), "data-set")


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training image.

    `rotation` in degrees either way; `translation` a share of the image's side; `scale`, `brightness` and `contrast`
    shares around 1. A flip that is allowed is made with probability one half.

    Volumes are mirrored from left to right by a horizontal flip and from foot to head by a vertical one (where axes
    stay as they are stored, along the first and the last, which mostly are these), brightened and contrasted; they
    aren't turned, moved or scaled.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: float = 10.0
    translation: float = 0.05
    scale: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.1


def augment(image: Tensor, settings: Augmentation, seed: int | Sequence[int], orientation: str | None = None) -> Tensor:
    """Change one image (C, H, W) or (C, D, H, W) in [0, 1] at random, but always alike for one seed.

    What is moved in from outside is black. Every draw is made whether or not it is used, so that one setting
    doesn't change what another does. `orientation` says which way a volume's axes run, as in `Frame`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waking others costs more than an image of this size takes
    try:
        return _augmented(image, settings, seed, orientation or "RAS")
    finally:
        torch.set_num_threads(threads)


def _augmented(image: Tensor, settings: Augmentation, seed: int | Sequence[int], orientation: str) -> Tensor:
    from torchvision.transforms.v2 import functional  # takes a second to import, and only training needs it

    draws = np.random.default_rng(np.random.SeedSequence(seed)).random(8).tolist()
    horizontal, vertical = draws[0] < 0.5, draws[1] < 0.5
    turn, right, down, zoom, light, spread = (2 * draw - 1 for draw in draws[2:])
    if image.ndim == 4:
        mirrored = {"RL": settings.horizontal_flip and horizontal, "SI": settings.vertical_flip and vertical}
        sides = [pair for pair, made in mirrored.items() if made]
        volume = image.flip([1 + axis for axis, letter in enumerate(orientation) for pair in sides if letter in pair])
        volume = (volume * (1 + light * settings.brightness)).clamp(0, 1)
        mean = volume.mean()
        contrasted: Tensor = mean + (volume - mean) * (1 + spread * settings.contrast)
        return contrasted.clamp(0, 1)
    if settings.horizontal_flip and horizontal:
        image = functional.horizontal_flip(image)
    if settings.vertical_flip and vertical:
        image = functional.vertical_flip(image)
    if settings.rotation or settings.translation or settings.scale:
        height, width = image.shape[-2:]
        image = functional.affine(
            image,
            angle=turn * settings.rotation,
            translate=[right * settings.translation * width, down * settings.translation * height],
            scale=1 + zoom * settings.scale,
            shear=[0.0, 0.0],
            interpolation=functional.InterpolationMode.BILINEAR,
        )
    if settings.brightness:
        image = functional.adjust_brightness(image, 1 + light * settings.brightness)
    if settings.contrast:
        image = functional.adjust_contrast(image, 1 + spread * settings.contrast)
    return image
