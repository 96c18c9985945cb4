"""Feature maps in layers that keep them otherwise: as tokens (B, N, K), or with channels last (B, *s, K)."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.attribution.targets import described
from pellucid.errors import expected

_CHANNELS_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


@dataclass(frozen=True)
class Tokens:
    """A layer whose tokens lie on a grid that the network doesn't tell of.

    Arguments:
        layer: the layer's dotted name, or the module.
        grid: positions along each spatial axis, first axis first.
        prefix: class, register and other tokens that come before those of the grid.
    """

    layer: str | nn.Module
    grid: tuple[int, ...]
    prefix: int = 0


def layer_name(layer: str | Tokens) -> str:
    """The dotted name of a layer that was found in the network, with a grid of the user's or without.

    >>> layer_name(Tokens("blocks.3", grid=(2, 2)))
    'blocks.3'
    """
    return str(layer.layer) if isinstance(layer, Tokens) else layer


@dataclass(frozen=True)
class Layout:
    """How a layer's output for B images holds their feature maps (B, K, *s); by default it is them."""

    positions: tuple[int, ...] | None = None  # the output's axes between batch and channels; None: channels first
    prefix: Tensor | None = None  # (B, P, K), tokens that have no place on the grid

    def output(self, activations: Tensor, sample: Tensor) -> Tensor:
        """The layer's output from feature maps (M, K, *s) of rows that derive from the images `sample` (M,)."""
        if self.positions is None:
            return activations
        tokens = activations.flatten(2).mT
        if self.prefix is not None:
            tokens = torch.cat([self.prefix[sample], tokens], dim=1)
        return tokens.reshape(len(activations), *self.positions, activations.shape[1])


def split(output: Tensor, grid: tuple[int, ...] | None, prefix: int = 0) -> tuple[Tensor, Layout]:
    """Feature maps (B, K, *grid) of a layer's output, and the layout that leads back; no grid: the output is them.

    >>> maps, layout = split(torch.arange(10.0).reshape(1, 5, 2), grid=(2, 2), prefix=1)
    >>> maps[0, 0].tolist(), layout.output(maps, torch.tensor([0])).shape
    ([[2.0, 4.0], [6.0, 8.0]], torch.Size([1, 5, 2]))
    """
    if grid is None:
        return output, Layout()
    tokens = output.flatten(1, -2)
    rest = tokens[:, :prefix].detach().clone() if prefix else None
    return tokens[:, prefix:].mT.unflatten(2, grid), Layout(tuple(output.shape[1:-1]), rest)


class Witness:
    """Notes, while a network runs, what tells how the output of one of its layers is laid out."""

    def __init__(self, model: nn.Module, layer: str, images: Tensor, tokens: Tokens | None = None) -> None:
        self._model = model
        self._layer = layer
        self._images = images
        self._tokens = tokens
        self._grids: list[tuple[int, ...]] = []  # of convolutions' outputs
        self._last: tuple[nn.Module, int] | None = None  # the last module that says how many channels it gives

    def at(self, layer: str) -> Witness:
        """A witness of the same run that judges another layer's output, now that it has just been given."""
        other = copy.copy(self)
        other._layer = layer
        return other

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look on for as long as the block lasts."""
        telling = (*_CHANNELS_FIRST, *_CHANNELS_LAST)
        handles = [m.register_forward_hook(self._note) for m in self._model.modules() if isinstance(m, telling)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def split(self, output: object) -> tuple[Tensor, Layout]:
        """Feature maps (B, K, *s) of the layer's output, and the layout that leads back.

        Raises:
            InputError: it holds none, or can't be told; says what was seen, and how to pass a grid.
        """
        if isinstance(output, Tensor) and output.is_floating_point() and len(output) == len(self._images):
            if self._tokens is not None:
                return self._as_told(output, self._tokens)
            if output.ndim == self._images.ndim:
                return split(output, tuple(output.shape[1:-1]) if self._channels_come_last(output) else None)
            if output.ndim == 3 and (found := self._grid(output)) is not None:
                return split(output, *found)
        raise self._unfit(output)

    def _as_told(self, output: Tensor, told: Tokens) -> tuple[Tensor, Layout]:
        axes = self._images.ndim - 2
        count = math.prod(output.shape[1:-1])
        if len(told.grid) != axes or min(told.grid) < 1 or told.prefix < 0:
            raise expected("layer", f"a grid of {axes} axes, and a prefix of 0 or more", f"{told.grid}, {told.prefix}")
        if math.prod(told.grid) + told.prefix != count:
            wanted = f"a grid and prefix of {count} tokens, as {self._layer!r} gives"
            raise expected("layer", wanted, f"{_times(told.grid)} and {told.prefix}")
        return split(output, told.grid, told.prefix)

    def _note(self, module: nn.Module, inputs: object, output: object) -> None:
        width = _width(module)
        if width is not None:
            self._last = module, width
        if isinstance(module, nn.Conv2d | nn.Conv3d) and isinstance(output, Tensor) and output.ndim > 3:
            self._grids.append(tuple(output.shape[2:]))

    def _channels_come_last(self, output: Tensor) -> bool:
        """By the width of what ran last; where it fits both axes, by what the layer is or the model says of itself."""
        if self._last is None:
            return False
        last, width = self._last
        if isinstance(last, nn.Conv2d | nn.Conv3d) and width == output.shape[-1] != output.shape[1] and self._grids:
            return tuple(output.shape[1:-1]) == self._grids[-1]  # turned round behind it, as by a patch embedding
        turned = type(last).__name__.lower().endswith(("2d", "3d"))  # a LayerNorm for channels that come first
        if width != output.shape[-1] or turned or not isinstance(last, _CHANNELS_LAST):
            return False
        if width != output.shape[1] or last is self._model.get_submodule(self._layer):
            return True
        declared = getattr(self._model, "output_fmt", None)
        if declared is None:
            raise self._unfit(output, "; channels may come first or last")
        return str(getattr(declared, "value", declared)) == "NHWC"

    def _grid(self, tokens: Tensor) -> tuple[tuple[int, ...], int] | None:
        """The grid and the prefix of tokens (B, N, K): as a convolution's output, or in patches as long as wide."""
        if self._last is not None and self._last[1] == tokens.shape[1] != tokens.shape[2]:
            return None  # (B, K, N)
        hiera = next((m for m in self._model.modules() if type(m).__name__ == "Hiera"), None)
        if hiera is not None:  # its tokens lie in another order until all pooling is done
            final = tuple(getattr(hiera, "mask_spatial_shape", ()))
            return (final, 0) if math.prod(final) == tokens.shape[1] else None
        size = tuple(self._images.shape[2:])
        even = [tuple(n // p for n in size) for p in range(1, min(size) + 1) if not any(n % p for n in size)]
        for prefix in self._prefixes():
            for grid in (*reversed(self._grids), *even):
                if math.prod(grid) == tokens.shape[1] - prefix > 1:
                    return grid, prefix
        return None

    def _prefixes(self) -> list[int]:
        """How many tokens may precede the grid's, likeliest first.

        The network around the layer says, or the names of its weights do: all of them together, or where branches
        have tokens of their own, one; or else none.
        """
        holders = [self._model]
        for part in self._layer.split("."):
            holders.append(holders[-1].get_submodule(part))
        for holder in reversed(holders):
            declared = getattr(holder, "num_prefix_tokens", None)
            if isinstance(declared, int):
                return [declared, 0]
            named = [math.prod(p.shape[:-1]) for name, p in holder.named_parameters() if _is_prefix(name)]
            if named:
                return [sum(named), *dict.fromkeys(named), 0]
        return [0]

    def _unfit(self, output: object, more: str = "") -> Exception:
        axes = self._images.ndim - 2
        seen = ", ".join(dict.fromkeys(map(_times, self._grids))) or "none"
        tokens = isinstance(output, Tensor) and output.ndim == 3
        told = f"; {self._prefixes()[0]} prefix tokens, convolutions' grids {seen}" if tokens else ""
        letters = ("depth, " if axes == 3 else "") + "height, width"
        return expected(
            "layer",
            f"an output (B, K, *s) with {axes} spatial axes for {len(self._images)} images",
            f"{self._layer!r} with output {described(output)}{told}{more}",
            do=(
                f"Pass layer=pellucid.attribution.Tokens({self._layer!r}, grid=({letters}), prefix=...) for tokens "
                "(B, N, K) or channels last, or another layer's dotted name; model.named_modules() lists them."
            ),
        )


def _width(module: nn.Module) -> int | None:
    """How many channels a module gives, where it says so."""
    names = ("out_channels", "out_features", "num_features", "num_channels")
    width = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        width = module.normalized_shape[0]
    return width if isinstance(width, int) else None


def _is_prefix(name: str) -> bool:
    own = name.rsplit(".", 1)[-1].lower()
    return "token" in own and any(kind in own for kind in ("cls", "class", "dist", "reg"))


def _times(grid: tuple[int, ...]) -> str:
    return " × ".join(map(str, grid))
