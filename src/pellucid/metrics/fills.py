"""What takes the place of removed pixels: each a pure function, and the line that declares it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import expected
from pellucid.metrics.draws import noise_field, tie_order
from pellucid.metrics.imputation import linear_imputation
from pellucid.registry import Choice, Registry

Fill = Callable[..., Tensor]

FILLS: Registry[Fill] = Registry("fill")

PETSIUK_BLUR = 5 / 224  # the standard deviation, 5 pixels of 224
_ROUNDING = 1e-4  # of the squares that a distance is the difference of; float32 sums of a million are closer


def fill(name: str, *, source: str, needs: tuple[str, ...] = ()) -> Callable[[Fill], Fill]:
    """Declare a fill: `f(images (M, C, *S), removed (M, *S)) -> filled (M, C, *S)`, known pixels unchanged.

    It is called with what `needs` names besides, in that order: "seeds", one per row (M,), the same for all rows of an
    image; "bank", images (K, C, *S) that aren't among those explained.
    """
    return FILLS.register(name, family="fill", source=source, needs=needs)


def filling(name: str, **options: object) -> Choice[Fill]:
    """A fill with options, to pass as a metric's `fill`; a bare name means its defaults.

    >>> filling("blur", sigma=3).label
    'blur[sigma=3]'
    """
    return FILLS.choose(name, **options)


@fill("linear", source="Rong et al. 2022 (ROAD), section 4.2 and appendix", needs=("seeds",))
def linear(images: Tensor, removed: Tensor, seeds: Tensor, *, noise: float = 0.01) -> Tensor:
    """Noisy linear imputation: the weighted mean of a pixel's neighbours, known and removed alike.

    `noise` is the standard deviation of the normal noise on imputed pixels, in units of the normalised image. An
    image's noise is drawn once, so that a pixel gets the same whatever else is removed.
    """
    filled = linear_imputation(images, removed)
    if noise:
        fields = {seed: noise_field(seed, images.shape[1:]).to(filled) * noise for seed in set(seeds.tolist())}
        for row, mask, seed in zip(filled, removed, seeds.tolist(), strict=True):
            row += fields[seed] * mask
    return filled


@fill("zero", source="Samek et al. 2017, section III")
def zero(images: Tensor, removed: Tensor) -> Tensor:
    """Zero, which after normalisation is the mean over the data set, as a rule mid-grey."""
    return torch.where(removed.unsqueeze(1), 0, images)


@fill("mean", source="Rieger & Hansen 2020 (IROF)")
def mean(images: Tensor, removed: Tensor) -> Tensor:
    """The image's own mean of each channel, over all its pixels, those that are removed too."""
    shown, row = _distinct(images)
    return _put(images, removed, _channel_means(shown)[row])


@fill("blur", source="Petsiuk et al. 2018 (RISE), causal metrics")
def blur(images: Tensor, removed: Tensor, *, sigma: float | None = None, share: float = PETSIUK_BLUR) -> Tensor:
    """The whole image blurred by a Gaussian, removed pixels included, as they were before anything went.

    Its standard deviation is `sigma` pixels along each axis, or where that is None the `share` of the image's longest
    side, at least one pixel; 5 pixels of 224 unless told. At the border the weights that are left are scaled to sum to
    1, so that a constant image stays as it is.

    >>> blur(torch.tensor([[[0.0, 3.0, 0.0]]]), torch.tensor([[False, True, False]]), sigma=100.0)
    tensor([[[0.0000, 1.0000, 0.0000]]])
    """
    if not (sigma is None or 0 < sigma < math.inf):
        raise expected("sigma", "pixels above 0, or None", sigma)
    if not 0 < share < math.inf:
        raise expected("share", "a share of the image's longest side above 0", share)
    shown, row = _distinct(images)
    width = max(1.0, share * max(images.shape[2:])) if sigma is None else sigma
    return _put(images, removed, _blurred(shown, width)[row])


@fill("noise", source="Samek et al. 2017, section III", needs=("seeds",))
def noise(images: Tensor, removed: Tensor, seeds: Tensor, *, kind: Literal["normal", "uniform"] = "normal") -> Tensor:
    """Noise with the mean and the standard deviation of each of the image's channels, over all pixels.

    An image's noise is drawn once from its seed, so that a pixel gets the same whatever else is removed. `kind` is
    "normal" or "uniform". A constant channel has no spread and stays as it is.
    """
    if kind not in ("normal", "uniform"):
        raise expected("kind", "'normal' or 'uniform'", repr(kind))
    shown, row = _distinct(images)
    different, seed = seeds.unique(return_inverse=True)
    fields = torch.stack([noise_field(int(each), images.shape[1:]) for each in different])
    if kind == "uniform":  # a normal value's rank is uniform; of variance 1 from -√3 to √3
        fields = torch.erf(fields / math.sqrt(2)) * math.sqrt(3)
    spread = shown.std(dim=tuple(range(2, images.ndim)), correction=0, keepdim=True)
    return _put(images, removed, _channel_means(shown)[row] + spread[row] * fields.to(images)[seed.to(row.device)])


@fill("dataset-mean", source="Hooker et al. 2019 (ROAR)", needs=("bank",))
def dataset_mean(
    images: Tensor, removed: Tensor, bank: Tensor, *, per: Literal["channel", "pixel"] = "channel"
) -> Tensor:
    """The bank's mean: of each channel over all its images and pixels, or of each pixel over its images.

    `per` is "channel" or "pixel". Where images are aligned the mean per pixel keeps what all have in common, such as
    the outline of a chest.
    """
    if per not in ("channel", "pixel"):
        raise expected("per", "'channel' or 'pixel'", repr(per))
    _check_bank(images, bank, same_size=per == "pixel")
    axes = (0, *range(2, bank.ndim)) if per == "channel" else 0
    return _put(images, removed, bank.mean(dim=axes, keepdim=True))


@fill("inpainting", source="pellucid: the nearest of held-out images on the known pixels", needs=("bank", "seeds"))
def inpainting(images: Tensor, removed: Tensor, bank: Tensor, seeds: Tensor) -> Tensor:
    """The same pixels of that image of the bank which is nearest on the pixels that are known.

    Nearest by the sum of squared differences over all channels of the known pixels; no patch is moved and nothing is
    blended. Among images that are equally near, the image's seed decides. Where everything is removed all are equally
    near, so that the seed draws one of the bank.

    Raises:
        InputError: no bank of the images' size, or an explained image in it, which nothing could be removed from.
    """
    _check_bank(images, bank, same_size=True)
    nearest = _nearest(images, ~removed, bank, seeds)
    if bool((images == bank[nearest]).flatten(1).all(dim=1).any()):
        raise expected("bank", "images other than the explained ones", "one that is equal to an explained image")
    return _put(images, removed, bank[nearest])


def _put(images: Tensor, removed: Tensor, others: Tensor) -> Tensor:
    """Images whose removed pixels are those of `others`, broadcast."""
    return torch.where(removed.unsqueeze(1), others, images)


def _distinct(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (U, C, *S) of which no two neighbours are equal, and which of them each row is (M,).

    The rows of one image come one after another, so what depends on the image alone is made once.
    """
    changes = (images[1:] != images[:-1]).flatten(1).any(dim=1)
    row = torch.nn.functional.pad(changes.long().cumsum(dim=0), (1, 0))
    starts = torch.nn.functional.pad(changes, (1, 0), value=True)
    return images[starts], row


def _channel_means(images: Tensor) -> Tensor:
    """Means (U, C, 1, …) of each channel over all pixels."""
    return images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (U, C, *S) blurred along one axis after another; a Gaussian is the product of its axes."""
    for axis in range(2, images.ndim):
        place = torch.arange(images.shape[axis], device=images.device, dtype=torch.float32)
        weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
        weights = (weights / weights.sum(dim=1, keepdim=True)).to(images)
        images = (images.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return images


def _check_bank(images: Tensor, bank: Tensor, *, same_size: bool) -> None:
    wanted = images.shape[1:] if same_size else images.shape[1:2]
    if bank.ndim != images.ndim or not bank.numel() or bank.shape[1 : 1 + len(wanted)] != wanted:
        sizes = f"(K, {', '.join(map(str, wanted))}{'' if same_size else ', *S'})"
        raise expected("bank", f"at least one image, {sizes}", f"shape {tuple(bank.shape)}")
    if not bool(bank.sum().isfinite()) and not bool(bank.isfinite().all()):  # a sum is quicker, but may overflow
        raise expected("bank", "finite values", "NaN or infinity")


def _nearest(images: Tensor, known: Tensor, bank: Tensor, seeds: Tensor) -> Tensor:
    """Which image (M,) of the bank (K, C, *S) is nearest to each row on its known pixels (M, *S)."""
    seen = known.to(images).flatten(1)
    shown, stored = images.flatten(2) * seen.unsqueeze(1), bank.flatten(2)
    # |x - b|² = |x|² - 2xb + |b|² over known pixels, as matrix products
    squares = shown.square().sum(dim=(1, 2)).unsqueeze(1) + seen @ stored.square().sum(dim=1).T
    distances = squares - 2 * shown.flatten(1) @ stored.flatten(1).T
    margins = distances - _ROUNDING * squares
    close = margins <= (distances + _ROUNDING * squares).amin(dim=1, keepdim=True)
    nearest = distances.argmin(dim=1)
    for row in (close.sum(dim=1) > 1).nonzero().flatten().tolist():
        nearest[row] = _first_nearest(images[row], known[row], bank, close[row].tolist(), int(seeds[row]))
    return nearest


def _first_nearest(image: Tensor, known: Tensor, bank: Tensor, close: list[bool], seed: int) -> int:
    """The nearest of those that are `close` (K,), by exact differences, the first of them in the seed's order."""
    order: list[int] = [place for place in tie_order(seed, len(bank)).tolist() if close[place]]
    pixels = image[:, known].cpu().double()
    distances = [float((bank[place][:, known].cpu().double() - pixels).square().sum()) for place in order]
    return order[distances.index(min(distances))]
