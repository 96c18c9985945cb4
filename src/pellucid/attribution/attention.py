"""Methods that read a transformer's attention: what its tokens take from which place, block by block.

They serve transformers of the ViT kind, timm's and MONAI's in 2-D and 3-D, whose `blocks` attend over all tokens. Maps
(B, T, *S) are made on the grid of the tokens and enlarged; class and register tokens are left out of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attribution.asking import Gradients
from pellucid.attribution.families import rewriting
from pellucid.attribution.linear import answered
from pellucid.attribution.resize import resize_maps
from pellucid.attribution.tokens import Witness
from pellucid.errors import InputError, expected

_DROPS = ("attn_drop", "drop_weights")  # timm's and MONAI's names for the dropout that sees the attention
_FUSED = ("fused_attn", "use_flash_attention")  # and for the switch that would keep it out of sight

Reader = Callable[[int, Tensor], Tensor]  # a block's number and its attention (M, h, N, N) in, what takes its place out


@rewriting(
    "attention-rollout", family="attention", source="Abnar & Zuidema 2020, eq. 1, with their residual of one half"
)
def attention_rollout(model: nn.Module, gradient_of: Gradients, images: Tensor, seeds: Tensor) -> Tensor:
    """How much of each place flows into the token that is read, through all blocks; the same for every class.

    Each block passes on half of its attention, averaged over heads, and half of what came in. Read is the class token,
    or the mean of the grid's tokens where the network pools those.

    Raises:
        InputError: the network isn't a transformer of timm or MONAI whose blocks attend over all tokens.
    """
    blocks = _attending(model)
    maps = []
    for sample in _everyone(images).split(gradient_of.rows):
        flows: list[Tensor] = []

        def roll(_block: int, attention: Tensor, flows: list[Tensor] = flows) -> Tensor:
            flows[:] = [rolled(attention, flows[0] if flows else None)]
            return attention

        grid = _Grid(model, images[sample])
        with torch.no_grad(), read_attention(blocks, roll), grid.watching():
            scores = gradient_of.scores(images[sample], sample)
        from_class = grid.prefix > 0 and getattr(model, "global_pool", "token") == "token"
        read = flows[0][:, 0] if from_class else flows[0][:, grid.prefix :].mean(dim=1)
        on_grid = grid.place(read).unsqueeze(1)
        maps.append(on_grid.expand(-1, scores.shape[1], *on_grid.shape[2:]))
    return resize_maps(torch.cat(maps), images.shape[2:])


@rewriting("le-grad", family="attention", source="Bousselham et al. 2024, section 3.3, before its min-max")
def le_grad(model: nn.Module, gradient_of: Gradients, images: Tensor, seeds: Tensor) -> Tensor:
    """How much more attention to each place would raise the score that the head reads off each block's tokens.

    Of the gradient of that score with respect to the block's own attention, the positive part is averaged over heads,
    asking tokens and blocks.

    Raises:
        InputError: the network isn't a transformer of timm or MONAI whose blocks attend over all tokens.
    """
    blocks = _attending(model)
    parts = _everyone(images).split(gradient_of.rows)
    return resize_maps(
        torch.cat([_le_grad(model, blocks, gradient_of, images, part) for part in parts]), images.shape[2:]
    )


def _le_grad(
    model: nn.Module, blocks: list[nn.Module], gradient_of: Gradients, images: Tensor, sample: Tensor
) -> Tensor:
    """Maps (M, T, *grid) of the images `sample`: one forward pass, and the head once more for every block."""
    leaves: list[Tensor] = []
    outputs: list[Tensor] = []

    def leaf(_block: int, attention: Tensor) -> Tensor:
        leaves.append(attention.detach().requires_grad_())
        return leaves[-1].clone()

    def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.detach()  # a score's graph then holds one block, not all below it

    grid = _Grid(model, images[sample])
    handles = [block.register_forward_hook(cut) for block in blocks]
    try:
        with read_attention(blocks, leaf), grid.watching():
            gradient_of.scores(images[sample], sample)
    finally:
        for handle in handles:
            handle.remove()
    total: Tensor | None = None
    for attention, output in zip(leaves, outputs, strict=True):
        with answered(dict.fromkeys(blocks, _always(output))):
            scores = gradient_of.scores(images[sample], sample)
        each = [torch.autograd.grad(score.sum(), attention, retain_graph=True)[0] for score in scores.unbind(dim=1)]
        part = sensitivity(torch.stack(each, dim=1))
        total = part if total is None else total + part
    assert total is not None
    placed = [grid.place(one) for one in (total / len(blocks)).unbind(dim=1)]
    return torch.stack(placed, dim=1)


def rolled(attention: Tensor, flow: Tensor | None = None) -> Tensor:
    """One more block's flow between tokens (M, N, N), from its attention (M, h, N, N) and the flow below it.

    >>> rolled(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor([[[0.5000, 0.5000],
             [0.0000, 1.0000]]])
    """
    mean = (attention.float() if attention.dtype in (torch.float16, torch.bfloat16) else attention).mean(dim=1)
    mixed = (mean + torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)) / 2
    return mixed if flow is None else mixed @ flow


def sensitivity(slopes: Tensor) -> Tensor:
    """Positive gradients of scores by attention (M, T, h, N, N), averaged over heads and asking tokens, (M, T, N).

    >>> sensitivity(torch.tensor([[[[[1.0, -2.0], [3.0, 0.0]]]]]))
    tensor([[[2., 0.]]])
    """
    wide = slopes.float() if slopes.dtype in (torch.float16, torch.bfloat16) else slopes
    return wide.relu().mean(dim=(2, 3))


@contextlib.contextmanager
def read_attention(blocks: list[nn.Module], reader: Reader) -> Iterator[None]:
    """Let `reader` see every block's attention, and change it, with fused attention off for as long as this lasts.

    Raises:
        InputError: a block kept its attention to itself, or it isn't over all tokens.
    """
    seen: set[int] = set()
    handles = []
    modules = [module for block in blocks for module in block.modules()]
    fused = [(module, switch) for module in modules for switch in _FUSED if getattr(module, switch, False)]

    def hook(number: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def read(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            if number in seen or output.ndim != 4 or output.shape[2] != output.shape[3]:
                raise _unfit(f"a block with attention of shape {tuple(output.shape)}")
            seen.add(number)
            return reader(number, output)

        return read

    try:
        for module, switch in fused:
            object.__setattr__(module, switch, False)
        for number, block in enumerate(blocks):
            dropout = _dropout(block)
            assert dropout is not None
            handles.append(dropout.register_forward_hook(hook(number)))
        yield
        if len(seen) < len(blocks):
            raise _unfit(f"{len(blocks) - len(seen)} blocks that don't show it")
    finally:
        for handle in handles:
            handle.remove()
        for module, switch in fused:
            object.__setattr__(module, switch, True)


def _attending(model: nn.Module) -> list[nn.Module]:
    blocks = getattr(model, "blocks", None)
    listed = list(blocks.children()) if isinstance(blocks, nn.Sequential | nn.ModuleList) else []
    others = [name for name, child in model.named_children() if name != "blocks" and isinstance(child, nn.ModuleList)]
    told = isinstance(getattr(model, "num_prefix_tokens", None), int) or hasattr(model, "patch_embedding")
    if not listed or others or not told:
        raise _unfit(type(model).__name__)
    if any(_dropout(block) is None for block in listed):
        raise _unfit(f"{type(model).__name__} with blocks of type {type(listed[0]).__name__}")
    return listed


def _dropout(block: nn.Module) -> nn.Module | None:
    """The module that a block's attention passes."""
    attention = getattr(block, "attn", None)
    found = (getattr(attention, name, None) for name in _DROPS)
    return next((module for module in found if isinstance(module, nn.Module)), None)


def _unfit(got: str) -> InputError:
    return expected(
        "model",
        "a transformer of timm or MONAI, each of whose blocks attends once over all tokens",
        got,
        do="CAMs and gradient methods serve other networks.",
    )


class _Grid:
    """Where a transformer's tokens lie, seen while it runs on images (M, C, *S)."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self._model = model
        self._name = f"blocks.{len(model.get_submodule('blocks')._modules) - 1}"
        self._witness = Witness(model, self._name, images)
        self.shape: tuple[int, ...] = ()
        self.prefix = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look on for as long as the block lasts."""

        def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            maps, layout = self._witness.split(output)
            self.shape = tuple(maps.shape[2:])
            self.prefix = 0 if layout.prefix is None else layout.prefix.shape[1]

        with self._witness.watching():
            handle = self._model.get_submodule(self._name).register_forward_hook(note)
            try:
                yield
            finally:
                handle.remove()

    def place(self, tokens: Tensor) -> Tensor:
        """Values of all tokens (M, N) as maps (M, *grid), without those that have no place."""
        return tokens[:, self.prefix :].reshape(len(tokens), *self.shape)


def _always(output: Tensor) -> Callable[..., Tensor]:
    return lambda *_args, **_options: output


def _everyone(images: Tensor) -> Tensor:
    return torch.arange(len(images), device=images.device)
