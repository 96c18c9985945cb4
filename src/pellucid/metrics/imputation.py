"""ROAD's imputation: removed pixels become what their neighbours make likely, so that the hole itself tells nothing.

Each removed pixel is the weighted mean of its neighbours, known and removed alike. That is one sparse linear system
per mask, shared by all channels. Systems are solved on their own, from nothing: with this preconditioner a start from
the mask before it would spare one step of six, and tie a result to what was solved earlier.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.errors import PellucidError, expected
from pellucid.metrics.multigrid import fill_batched

# of the largest deviation from a channel's mean; at most a twentieth of what is promised
_TOLERANCE = 1e-5
_PROMISED = 1e-4
_MOST_STEPS = 60  # six to nine are needed


def linear_imputation(images: Tensor, removed: Tensor) -> Tensor:
    """Images whose removed pixels are the weighted mean of their neighbours, all channels together.

    Neighbours weigh by inverse squared distance: in 2-D 1/6 for the four beside a pixel and 1/12 for the diagonals,
    in 3-D 3/44 for faces, 3/88 for edges and 1/44 for corners. At the border the weights that are left are scaled to
    sum to 1. The solution is within 1e-4 of the exact one, relative to the image's range. Where everything is
    removed nothing says what to put there, and each channel becomes its own mean.

    Arguments:
        images: (M, C, *S) with one to three spatial axes, finite.
        removed: (M, *S) bool, on the images' device.

    Returns:
        (M, C, *S), the known pixels unchanged.

    Raises:
        InputError: shapes or types that don't fit.
        PellucidError: a system that couldn't be solved, as with values that aren't finite.

    Source: Rong et al. 2022 (ROAD), section 4.2 and appendix.

    >>> linear_imputation(torch.tensor([[[0.0, 9.0, 6.0]]]), torch.tensor([[False, True, False]]))
    tensor([[[0., 3., 6.]]])
    """
    _check(images, removed)
    images = images.detach()
    positions = removed[0].numel()
    counts = removed.flatten(1).sum(dim=1)
    if bool(((counts > 0) & (counts < positions)).all()):
        return _solved(images, removed)
    filled = images.clone()
    everything = counts == positions
    means = images[everything].flatten(2).mean(dim=2)
    filled[everything] = means.view(*means.shape, *(1,) * (images.ndim - 2)).expand_as(filled[everything])
    rows = (counts > 0) & ~everything
    if bool(rows.any()):
        filled[rows] = _solved(images[rows], removed[rows])
    return filled


def _solved(images: Tensor, removed: Tensor) -> Tensor:
    """Solve where it is fastest: compiled for 2-D float32 on the CPU, else batched in PyTorch."""
    work = images
    if work.device.type not in ("cpu", "cuda"):  # Apple's devices lack float64
        work = work.cpu()
    if work.dtype not in (torch.float32, torch.float64):
        work = work.float()
    with torch.no_grad():
        if work.ndim == 4 and work.dtype == torch.float32 and work.device.type == "cpu":
            from pellucid.metrics.multigrid_compiled import fill_compiled  # loads the compiler

            array, error = fill_compiled(
                work.contiguous().numpy(),
                removed.cpu().contiguous().numpy(),
                tolerance=_TOLERANCE,
                most=_MOST_STEPS,
                threads=torch.get_num_threads(),
            )
            filled = torch.from_numpy(array)
        else:
            filled, error = fill_batched(work, removed.to(work.device), tolerance=_TOLERANCE, most=_MOST_STEPS)
    if not error <= _PROMISED:
        raise PellucidError(
            f"the imputation stopped {error:.1e} from its solution. Check that the images hold finite values."
        )
    return filled.to(images)


def _check(images: Tensor, removed: Tensor) -> None:
    if not 3 <= images.ndim <= 5 or not images.is_floating_point() or not images.numel():
        raise expected("images", "a float tensor (M, C, *S)", f"shape {tuple(images.shape)}, {images.dtype}")
    wanted = (images.shape[0], *images.shape[2:])
    if tuple(removed.shape) != wanted or removed.dtype != torch.bool:
        raise expected("removed", f"a bool tensor {wanted}", f"shape {tuple(removed.shape)}, {removed.dtype}")
