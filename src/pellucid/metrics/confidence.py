"""What the network still says of an image of which only what the map shows is left, and how sure that makes it."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.metrics.again import Again
from pellucid.metrics.families import SHARE, faithfulness
from pellucid.metrics.kept import fingerprint
from pellucid.metrics.road import check_maps, road
from pellucid.metrics.scores import Scores

ARCC_FRACTIONS = (0.2, 0.4, 0.6, 0.8)  # of removed pixels; the authors' percentiles are the shares kept
_ROUNDING = 16 * torch.finfo(torch.float32).eps  # a map that differs by no more is the same everywhere

_AGAIN = ("scores", "again", "maps")


@faithfulness(
    "average-drop",
    source="Chattopadhay et al. 2018 (Grad-CAM++), section 4.1, as a share",
    higher_is_better=False,
    range=SHARE,
    missing="the score of the image itself is 0",
)
def average_drop(scores: Scores, maps: Tensor) -> Tensor:
    """Share of the score that is lost where the image is multiplied by its map; 0 where the score rises.

    The map is scaled from its least and largest value to [0, 1]; one that is the same everywhere shows nothing, and
    becomes 0. What is multiplied by 0 becomes the normalised image's 0, as a rule mid-grey.

    Arguments:
        scores: what the network says of the images; its probability of the explained class is read.
        maps: (B, *S), finite.

    Returns:
        (B,) float64 in [0, 1].

    >>> images = torch.tensor([[[[0.2, 0.6]]]])
    >>> scores = Scores(lambda rows, sample: rows.sum((1, 2, 3)), images)
    >>> average_drop(scores, torch.tensor([[[0.0, 5.0]]]))
    tensor([0.2500], dtype=torch.float64)
    """
    whole, shown = _confidences(scores, maps)
    return (whole - shown).clamp(min=0) / whole


@faithfulness(
    "average-gain",
    source="Zhang et al. 2023 (Opti-CAM), as a share",
    higher_is_better=True,
    range=SHARE,
    missing="the score of the image itself is 1, so that nothing can be gained",
)
def average_gain(scores: Scores, maps: Tensor) -> Tensor:
    """Share of what the score lacks of 1 that is gained where the image is multiplied by its map; 0 where it falls.

    Maps are scaled as for `average_drop`.
    """
    whole, shown = _confidences(scores, maps)
    return (shown - whole).clamp(min=0) / (1 - whole)


@faithfulness(
    "increase-in-confidence",
    source="Chattopadhay et al. 2018 (Grad-CAM++), section 4.1, as a share",
    higher_is_better=True,
    range=SHARE,
)
def increase_in_confidence(scores: Scores, maps: Tensor) -> Tensor:
    """1 where the score rises as the image is multiplied by its map, else 0; the mean is the share of such images.

    Maps are scaled as for `average_drop`.
    """
    whole, shown = _confidences(scores, maps)
    return (shown > whole).double()


@faithfulness(
    "arcc",
    source="Domeniconi et al. 2026, How to Evaluate and Refine your CAM",
    higher_is_better=True,
    range=SHARE,
    missing="the map made again isn't finite",
    needs=_AGAIN,
)
def arcc(scores: Scores, again: Again, maps: Tensor) -> Tensor:
    """Harmonic mean of coherency, 1 - complexity, and twice the ROAD confidence increase, cut to [0, 1].

    Coherency is (r + 1) / 2, r being the correlation of the map with the method's map of the image multiplied by the
    map; with a map that is the same everywhere nothing varies, and r is 0. Complexity is the mean of the map, scaled to
    [0, 1]. ROAD removes 20, 40, 60 and 80 % of the pixels. Where one of the three is 0 the harmonic mean is 0.

    Arguments:
        scores: what the network says of the images; its probability of the explained class is read.
        again: the method, which is run on the multiplied images.
        maps: (B, *S), finite.

    Returns:
        (B,) float64 in [0, 1].
    """
    coherency, simplicity = _coherency(scores, again, maps), _simplicity(maps)
    faithful = (2 * road(scores, maps, fractions=ARCC_FRACTIONS).cpu().double()).clamp(0, 1)
    return _harmonic_mean(coherency, simplicity, faithful)


@faithfulness(
    "adcc",
    source="Poppi et al. 2021 (ADCC)",
    higher_is_better=True,
    range=SHARE,
    missing="the score of the image itself is 0, or the map made again isn't finite",
    needs=_AGAIN,
)
def adcc(scores: Scores, again: Again, maps: Tensor) -> Tensor:
    """Harmonic mean of coherency, 1 - complexity, and 1 - the average drop; the first two as for `arcc`."""
    return _harmonic_mean(_coherency(scores, again, maps), _simplicity(maps), 1 - average_drop(scores, maps))


def unit_maps(maps: Tensor) -> Tensor:
    """Maps (B, *S) scaled from their least and largest value to [0, 1]; 0 where these differ by rounding alone.

    >>> unit_maps(torch.tensor([[-1.0, 0.0, 3.0], [7.0, 7.0, 7.0]]))
    tensor([[0.0000, 0.2500, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    axes = tuple(range(1, maps.ndim))
    least, most = maps.amin(dim=axes, keepdim=True), maps.amax(dim=axes, keepdim=True)
    size = torch.maximum(least.abs(), most.abs())
    # halves, since the spread of finite values can be infinite
    spread = most / 2 - least / 2
    uneven = spread > _ROUNDING / 2 * size
    return torch.where(uneven, (maps / 2 - least / 2) / torch.where(uneven, spread, 1), 0)


def _confidences(scores: Scores, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B,) of the images and of those multiplied by their maps, float64 on the CPU."""
    check_maps(scores, maps)

    def ask() -> Tensor:
        return scores.of(_shown(scores, maps), torch.arange(len(maps)))

    shown = scores.kept(("multiplied by", fingerprint(maps)), ask)
    return scores.unperturbed().cpu().double(), shown.cpu().double()


def _shown(scores: Scores, maps: Tensor) -> Tensor:
    """Images (B, C, *S) multiplied by their maps."""
    return scores.images * unit_maps(maps).unsqueeze(1)


def _coherency(scores: Scores, again: Again, maps: Tensor) -> Tensor:
    """(r + 1) / 2 (B,) of the maps and those made again of the images multiplied by them."""
    check_maps(scores, maps)

    def explain() -> Tensor:
        return again.maps_of(_shown(scores, maps), torch.arange(len(maps)))

    made = scores.kept(("map of what it shows", again.label, fingerprint(maps)), explain)
    one, other = (_centred(unit_maps(each)) for each in (maps, made))
    sizes = (one.square().sum(dim=1) * other.square().sum(dim=1)).sqrt()
    # the authors' released code adds 1e-8 to the sizes, which makes r smaller where maps hardly vary
    r = torch.where(sizes == 0, 0, (one * other).sum(dim=1) / sizes).clamp(-1, 1)
    return torch.where(made.flatten(1).isfinite().all(dim=1).cpu(), (r + 1) / 2, torch.nan)


def _centred(maps: Tensor) -> Tensor:
    flat = maps.flatten(1).cpu().double()
    return flat - flat.mean(dim=1, keepdim=True)


def _simplicity(maps: Tensor) -> Tensor:
    """1 - complexity (B,), the mean of the map scaled to [0, 1]."""
    return 1 - unit_maps(maps).flatten(1).cpu().double().mean(dim=1)


def _harmonic_mean(*parts: Tensor) -> Tensor:
    """(B,) of parts (B,) in [0, 1]; 0 where one is 0. The authors' released code adds 1e-8 to each part instead."""
    table = torch.stack(parts, dim=1)
    return torch.where((table <= 0).any(dim=1), 0, table.shape[1] / (1 / table).sum(dim=1))
