"""Changes of contrast, light and shading before a network sees an image: each a pure function and one line.

A function takes an image (C, *S) float64 in [0, 1], C 1 (grey) or 3 (RGB), and gives one of the same shape in [0, 1].
Colour is changed in its luminance, and its hue is kept, unless the function says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.data.shading import log_bias_field
from pellucid.errors import expected
from pellucid.registry import Choice, Registry

if TYPE_CHECKING:
    import pandas as pd

FloatArray: TypeAlias = NDArray[np.float64]
Enhancement = Callable[..., FloatArray]

ENHANCEMENTS: Registry[Enhancement] = Registry("enhancement")
NONE = "none"
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601

_FLAT = 1e-6  # a smaller range is what resizing leaves of a constant image by rounding
_TRIED = (1, 256, 256)


def enhancement(name: str, **options: object) -> Choice[Enhancement]:
    """An enhancement with options, to pass where one is taken; a bare name means its defaults.

    Raises UnknownNameError for a name or an option that isn't known, naming the nearest.

    >>> enhancement("gamma", gamma=0.7).label
    'gamma[gamma=0.7]'
    """
    return ENHANCEMENTS.choose(name, **options)


def enhancements() -> pd.DataFrame:
    """The registered enhancements as a table: name, family, needs, options, source, summary.

    >>> enhancements()["name"].tolist()[:4]
    ['none', 'negative', 'gamma', 'contrast-stretch']
    """
    return ENHANCEMENTS.table()


def enhance(image: Tensor, choice: str | Choice[Enhancement] = NONE) -> Tensor:
    """Enhance one image; the same image always gives the same result, whatever else is enhanced.

    Arguments:
        image: (C, H, W) or (C, D, H, W) float in [0, 1], C 1 or 3; not changed.
        choice: a name, a label such as "gamma[gamma=0.7]", or what `enhancement` gives.

    Returns:
        The image of the same shape and type, on the same device, in [0, 1].

    Raises:
        InputError: another kind of image, one outside of [0, 1] or not finite, an option out of its range, or a volume
            where the enhancement takes pictures only.
        UnknownNameError: a name or an option that isn't known.

    >>> enhance(torch.tensor([[[0.0, 0.25]]]), "negative")
    tensor([[[1.0000, 0.7500]]])
    """
    choice = ENHANCEMENTS.resolve(choice)
    if choice.entry.name == NONE:
        return image
    if image.ndim not in (3, 4) or len(image) not in (1, 3) or not image.is_floating_point() or not image.numel():
        raise expected("image", "float (1 or 3, H, W) or (1 or 3, D, H, W)", f"{image.dtype} {tuple(image.shape)}")
    if image.ndim == 4 and "2d" in choice.entry.needs:
        raise expected("enhancement", "one that takes volumes", f"{choice.label!r}, which takes pictures only")
    values = image.detach().cpu().double().numpy()
    if not (values.min() >= 0 and values.max() <= 1):  # also where there is NaN
        raise expected("image", "finite values in [0, 1]", f"{values.min():g} to {values.max():g}")
    changed = choice.entry.function(values, **choice.own_options)
    return torch.from_numpy(np.clip(changed, 0, 1)).to(image)  # what lies outside does so by rounding


def enhancement_label(given: str | Mapping[str, object] | Choice[Enhancement]) -> str:
    """The one spelling of an enhancement, once its options were tried: for configs, weights and the command line.

    Arguments:
        given: a name, a label, or a table of `name` and options.

    Raises:
        InputError: an option out of its range, or a table without a name.
        UnknownNameError: a name or an option that isn't known.

    >>> enhancement_label({"name": "gamma", "gamma": 0.7}), enhancement_label("clahe")
    ('gamma[gamma=0.7]', 'clahe')
    """
    if isinstance(given, Mapping):
        options = {str(key): value for key, value in given.items() if key != "name"}
        if not isinstance(given.get("name"), str):
            raise expected("enhancement", "a name, or a table of name and options", dict(given))
        choice = ENHANCEMENTS.choose(str(given["name"]), **options)
    else:
        choice = ENHANCEMENTS.resolve(given)
    if choice.options:
        choice.entry.function(np.zeros(_TRIED), **choice.own_options)
    return choice.label


def _enhancement(
    name: str, *, family: str, source: str, needs: tuple[str, ...] = ()
) -> Callable[[Enhancement], Enhancement]:
    """Declare the enhancement below; one whose `needs` names "2d" refuses volumes."""
    return ENHANCEMENTS.register(name, family=family, source=source, needs=needs)


@_enhancement(NONE, family="none", source="the image as it is")
def none(image: FloatArray) -> FloatArray:
    """The image as it is."""
    return image.copy()


@_enhancement("negative", family="intensity", source="Gonzalez & Woods 2018, section 3.2")
def negative(image: FloatArray) -> FloatArray:
    """One minus the value of each channel."""
    return 1 - image


@_enhancement("gamma", family="intensity", source="Gonzalez & Woods 2018, section 3.2")
def gamma(image: FloatArray, *, gamma: float = 0.5) -> FloatArray:
    """Each channel to the power of `gamma`: below 1 it brightens the dark, above 1 it darkens."""
    power: FloatArray = image ** _above_zero("gamma", gamma)
    return power


@_enhancement("contrast-stretch", family="intensity", source="Gonzalez & Woods 2018, section 3.2")
def contrast_stretch(image: FloatArray, *, low: float = 2.0, high: float = 98.0) -> FloatArray:
    """Luminance between two of its percentiles stretched to [0, 1]; what is beyond them is cut."""
    if not 0 <= _number("low", low) < _number("high", high) <= 100:
        raise expected("low, high", "two percentiles from 0 to 100, the lower first", f"{low}, {high}")
    bright = _luminance(image)
    ends = np.percentile(bright, [low, high])
    if ends[1] - ends[0] < _FLAT:
        return image.copy()
    return _with_luminance(image, np.interp(bright, ends, [0.0, 1.0]))


@_enhancement("histogram-equalisation", family="histogram", source="Gonzalez & Woods 2018, section 3.3")
def histogram_equalisation(image: FloatArray, *, levels: int = 256) -> FloatArray:
    """Luminance replaced by the share of pixels that are darker, from 0 for the darkest level to 1.

    `levels` lie evenly from the image's minimum to its maximum; between two of them the share is interpolated. An 8-bit
    image that uses the whole range is equalised by its own levels.
    """
    bins = _whole("levels", levels, 2)
    bright = _luminance(image)
    low, high = float(bright.min()), float(bright.max())
    if high - low < _FLAT:
        return image.copy()
    place = (bright - low) * ((bins - 1) / (high - low))
    counts = np.bincount(np.rint(place).astype(np.int64).ravel(), minlength=bins)
    share = (counts.cumsum() - counts[0]) / (bright.size - counts[0])
    return _with_luminance(image, np.interp(place, np.arange(bins), share))


@_enhancement("clahe", family="histogram", source="Zuiderveld 1994, Graphics Gems IV; Pizer et al. 1987")
def clahe(image: FloatArray, *, clip_limit: float = 0.01, tiles: int = 8) -> FloatArray:
    """Contrast-limited adaptive histogram equalisation of the luminance, as scikit-image does it.

    `tiles` is their number along each axis, `clip_limit` the share of a tile's pixels above which a level is clipped.
    """
    from skimage.exposure import equalize_adapthist

    if not 0 < _number("clip_limit", clip_limit) <= 1:
        raise expected("clip_limit", "a share above 0 and up to 1", clip_limit)
    parts = _whole("tiles", tiles, 1)
    bright = _luminance(image)
    if np.ptp(bright) < _FLAT:
        return image.copy()
    size = tuple(max(length // parts, 1) for length in bright.shape)
    return _with_luminance(image, equalize_adapthist(bright, kernel_size=size, clip_limit=float(clip_limit)))


@_enhancement("hog", family="features", source="Dalal & Triggs 2005, section 6", needs=("2d",))
def hog(image: FloatArray, *, orientations: int = 9, cell: int = 8) -> FloatArray:
    """Histograms of oriented gradients drawn as a grey picture, of the luminance, from 0 to the largest as 1.

    In each square of `cell` pixels stands a star of lines along the edges that it holds, one for each of
    `orientations` in 180°, as bright as its share of the gradients.
    """
    from skimage.feature import hog as drawn_histograms

    angles, pixels = _whole("orientations", orientations, 2), _whole("cell", cell, 2)
    if min(image.shape[1:]) < pixels:
        raise expected("cell", f"at most the image's side, {min(image.shape[1:])} pixels", pixels)
    _, drawn = drawn_histograms(
        _luminance(image), angles, (pixels, pixels), (1, 1), visualize=True, feature_vector=False
    )
    return _repeated(image, drawn)


@_enhancement("sobel", family="features", source="Sobel & Feldman 1968")
def sobel(image: FloatArray) -> FloatArray:
    """Magnitude of the luminance's gradient, grey, from 0 to the largest as 1."""
    from skimage.filters import sobel as gradient_magnitude

    return _repeated(image, gradient_magnitude(_luminance(image)))


@_enhancement("unsharp", family="filter", source="Gonzalez & Woods 2018, section 3.6")
def unsharp(image: FloatArray, *, radius: float = 2.0, amount: float = 1.0) -> FloatArray:
    """Luminance plus `amount` times what a Gaussian of standard deviation `radius` pixels takes from it."""
    from scipy.ndimage import gaussian_filter

    bright, width, share = _luminance(image), _above_zero("radius", radius), _above_zero("amount", amount)
    return _with_luminance(image, np.clip(bright + share * (bright - gaussian_filter(bright, width)), 0, 1))


@_enhancement("median", family="filter", source="Tukey 1977")
def median(image: FloatArray, *, size: int = 3) -> FloatArray:
    """The median of each channel in a square or cube of `size` pixels; at the border the image is mirrored."""
    from scipy.ndimage import median_filter

    width = _whole("size", size, 1)
    filtered: FloatArray = median_filter(image, size=(1, *(width,) * (image.ndim - 1)))
    return filtered


@_enhancement("bias-correction", family="shading", source="after Tustison et al. 2010 (N4ITK); Sled et al. 1998 (N3)")
def bias_correction(
    image: FloatArray, *, foreground: float = 0.1, levels: int = 3, fwhm: float = 0.15, noise: float = 0.01
) -> FloatArray:
    """Smooth shading divided out of all channels alike; the 99th percentile of luminance stays what it was.

    The log of the shading is made of cubic B-splines of 1, 2, 4, … spans per axis, in so many `levels`, fitted to what
    sharpening the histogram of log luminance moves. Only the foreground counts, luminance above the `foreground` share
    of that percentile; outside of it the field is continued within its range. `fwhm` of the Gaussian taken out of
    the histogram is in log units, `noise` the Wiener filter's.
    """
    if not 0 < _number("foreground", foreground) < 1:
        raise expected("foreground", "a share between 0 and 1", foreground)
    rounds, width, damping = _whole("levels", levels, 1), _above_zero("fwhm", fwhm), _above_zero("noise", noise)
    bright = _luminance(image)
    top = np.percentile(bright, 99)
    if top <= 0:  # next to nothing is in the image
        return image.copy()
    field = log_bias_field(bright, bright > foreground * top, rounds, width, damping)
    if not field.any():
        return image.copy()
    corrected: FloatArray = image * np.exp(-field)
    corrected *= top / np.percentile(_luminance(corrected), 99)
    return _with_luminance(corrected, np.minimum(_luminance(corrected), 1))


def _luminance(image: FloatArray) -> FloatArray:
    """Luminance (*S), in [0, 1] but for rounding where the image is."""
    bright: FloatArray = image[0] if len(image) == 1 else np.tensordot(np.array(LUMINANCE), image, axes=1)
    return bright


def _with_luminance(image: FloatArray, wanted: FloatArray) -> FloatArray:
    """The image with another luminance (*S).

    Each channel's distance from the luminance is kept, and shrunk for all of a pixel's channels alike where one would
    leave [0, 1]: so the hue is kept everywhere, and no value is cut.
    """
    if len(image) == 1:
        grey: FloatArray = wanted[None]
        return grey
    chroma = image - _luminance(image)
    room = np.where(chroma > 0, 1 - wanted, wanted)
    size = np.abs(chroma)
    share = np.divide(room, size, out=np.full_like(size, np.inf), where=size > np.finfo(np.float64).eps)
    kept: FloatArray = wanted + chroma * np.minimum(share.min(axis=0), 1)
    return kept


def _repeated(image: FloatArray, drawn: FloatArray) -> FloatArray:
    """A picture (*S) of values above 0, scaled to a maximum of 1, in as many channels as the image; nothing stays 0."""
    largest = float(drawn.max())
    scaled = drawn / largest if largest > _FLAT else np.zeros_like(drawn)
    return np.broadcast_to(scaled, image.shape).copy()


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise expected(name, "a number", repr(value))
    return float(value)


def _above_zero(name: str, value: object) -> float:
    if _number(name, value) <= 0:
        raise expected(name, "a number above 0", value)
    return _number(name, value)


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise expected(name, f"a whole number of at least {least}", repr(value))
    return value
