"""How much a score falls when a channel of a layer is set to zero, exactly and without a forward pass for each.

Three ways, each checked at run time before it is believed:

1. The scores are affine in the activations (global pooling and a linear layer): the fall is Σ_s G_k A_k.
2. Channels first meet in a linear layer, or a convolution that sees its whole input: every channel's part of that
   layer's output is computed once, and the rest of the network runs on the output less one part at a time.
3. The network after the layer runs on the activations less one channel at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pellucid.attribution.head import CANT_RUN, Head, summed_size
from pellucid.attribution.linear import Forward, LinearLike, is_linear_on, matrix, shaped_like_output
from pellucid.attribution.targets import Objective
from pellucid.attribution.tokens import Layout

# error of the affine prediction relative to the largest fall: rounding stays below, networks that aren't affine above
_AFFINE_TOLERANCE = 1e-4
_AGREEMENT = 1e-3  # between the second way and the third, relative to the largest fall
_ROUNDING = 1e-5  # between two ways to the same score, relative to what adds up to it
_PARTS = 2**24  # numbers in the channels' parts held at once: 64 MB in float32
_ROWS = 2**22  # numbers in the rows that run at once: 16 MB in float32


class Ablation:
    """Falls of the scores by channel, batch after batch; what was found out about a network is kept between them."""

    def __init__(self, head: Head, rows: int) -> None:
        """Arguments: the network after the layer, and how many sets of activations to hold at once."""
        self._head = head
        self._rows = rows
        self._affine: bool | None = None
        self._mixing: LinearLike | None = None
        self._searched = False

    @property
    def way(self) -> str:
        """How the last drops were found: affine, mixed, rescored, or whole where the network can't run in part."""
        if self._affine:
            return "affine"
        if self._mixing is not None:
            return "mixed"
        return "rescored" if self._head.runs_alone else "whole"

    def drops(
        self,
        images: Tensor,
        activations: Tensor,
        gradients: Tensor,
        scores: Tensor,
        objective: Objective,
        layout: Layout | None = None,
    ) -> Tensor:
        """Fall of each of the T scores when a channel is set to zero, (T, B, K).

        Arguments:
            images: (B, C, *S).
            activations: (B, K, *s), the layer's output for them.
            gradients: (T, B, K, *s), of the scores.
            scores: (B, T).
            objective: what reads them off the network's output.
            layout: how the layer gives its activations; class and register tokens keep their values.
        """
        scale = summed_size(activations, gradients, scores)
        self._head.use(images, activations, objective, scores, scale, layout)
        if self._affine is not False:
            self._affine = self._is_affine(activations, gradients, objective)
        if self._affine:
            return _affine_drops(activations, gradients)
        live = activations.flatten(2).any(dim=2)  # setting the others to zero changes nothing
        first_time, self._searched = not self._searched, True
        if first_time and self._head.runs_alone:
            drops = self._tried(activations, live, objective, scale)
            if drops is not None:
                return drops
        if self._mixing is not None:
            return self._mixed(self._mixing, activations, live, objective)
        return self._rescored(activations, live, objective)

    def _tried(self, activations: Tensor, live: Tensor, objective: Objective, scale: Tensor) -> Tensor | None:
        """Drops by the second way, which is kept for later batches if the third confirms it; else None."""
        try:
            module = self._first_linear(activations[0])
            if module is None:
                return None
            drops = self._mixed(module, activations, live, objective)
            if not self._confirms(drops, activations, objective, scale):
                return None
        except CANT_RUN:  # something else after the layer wants one row per image
            return None
        self._mixing = module
        return drops

    def _is_affine(self, activations: Tensor, gradients: Tensor, objective: Objective) -> bool:
        everyone = _everyone(activations).split(max(1, self._rows // 3))  # each image takes three rows
        # one image is enough to see that a network isn't affine; all are checked before it counts as one
        groups = everyone if self._affine else (everyone[0][:1], *everyone)
        return all(self._foretold(activations[each], gradients[:, each], objective, each) for each in groups)

    def _foretold(self, activations: Tensor, gradients: Tensor, objective: Objective, sample: Tensor) -> bool:
        """Whether gradients foretell the scores, in a random direction and with a random half of the channels."""
        draw = torch.Generator().manual_seed(0)
        shape = activations.shape[1:]
        per_channel = (shape[0], *(1,) * (len(shape) - 1))
        # one part is the same all over a channel, since pooling averages the other away
        direction = torch.randn(per_channel, generator=draw) + torch.randn(shape, generator=draw)
        spread = activations.flatten(1).square().mean(dim=1).sqrt().reshape(-1, *(1,) * len(shape))
        kept = torch.randint(2, per_channel, generator=draw).to(activations)
        moves = torch.stack([spread * direction.to(activations), activations * (kept - 1)])
        rows = torch.cat([activations, (activations + moves).flatten(0, 1)])
        scores = objective.scores(self._head(rows, sample.repeat(3)), sample.repeat(3))
        before, *after = scores.T.unflatten(1, (3, -1)).unbind(dim=1)
        largest = _affine_drops(activations, gradients).abs().amax(dim=2)
        errors = [
            (score - before - _wide(gradients * move).flatten(2).sum(dim=2)).abs()
            for score, move in zip(after, moves, strict=True)
        ]
        return all(bool((error <= _AFFINE_TOLERANCE * largest).all()) for error in errors)

    def _confirms(self, drops: Tensor, activations: Tensor, objective: Objective, scale: Tensor) -> bool:
        """Whether running the network on the first image less its two strongest channels gives their drops."""
        strongest = drops[:, 0].abs().amax(dim=0).topk(min(2, drops.shape[2])).indices
        rows = activations[:1].repeat(1 + len(strongest), *(1,) * (activations.ndim - 1))
        rows[torch.arange(len(strongest), device=rows.device) + 1, strongest] = 0
        scores = objective.scores(self._head(rows, _zeros(len(rows), rows)), _zeros(len(rows), rows)).T
        error = (drops[:, 0, strongest] - (scores[:, :1] - scores[:, 1:])).abs().max()
        return bool(error <= _AGREEMENT * drops[:, 0].abs().max() + _ROUNDING * scale)

    def _first_linear(self, activations: Tensor) -> LinearLike | None:
        """The first linear layer to run, if a channel set to zero is its part of the input set to zero."""
        channels = len(activations)
        kept = torch.randint(2, (channels,), generator=torch.Generator().manual_seed(0)).to(activations)
        mask = kept.reshape(channels, *(1,) * (activations.ndim - 1))
        rows = torch.stack([activations, activations * mask, activations * (1 - mask)])
        seen = self._met(self._head.linear_modules, rows, _zeros(3, rows))
        if seen is None:
            return None
        module, features = seen
        if not is_linear_on(module, features) or features[0].numel() % channels:
            return None
        whole, some, others = features.flatten(1).unflatten(1, (channels, -1))
        slack = 4 * torch.finfo(whole.dtype).eps * whole.abs().max()
        apart = torch.stack([some - whole * kept[:, None], others - whole * (1 - kept)[:, None]])
        return module if bool(apart.abs().max() <= slack) else None

    def _met(
        self, modules: Iterable[LinearLike], activations: Tensor, sample: Tensor
    ) -> tuple[LinearLike, Tensor] | None:
        """Which of the modules runs first on activations, and its input."""
        seen: list[tuple[LinearLike, Tensor]] = []
        self._head(activations, sample, {module: _noting(module, seen) for module in modules})
        return seen[0] if seen else None

    def _mixed(self, module: LinearLike, activations: Tensor, live: Tensor, objective: Objective) -> Tensor:
        """Drops by way of each channel's part of the output of the layer in which they meet."""
        weight = matrix(module).unflatten(1, (live.shape[1], -1)).permute(1, 2, 0)  # (K, inputs, outputs)
        size = weight.shape[0] * weight.shape[2]
        drops = []
        for sample in _everyone(activations).split(max(1, _PARTS // size)):
            seen = self._met([module], activations[sample], sample)
            assert seen is not None
            columns = seen[1].flatten(1).unflatten(1, (live.shape[1], -1)).transpose(0, 1)
            parts = torch.bmm(columns, weight)  # (K, images, outputs)
            whole = parts.sum(dim=0) if module.bias is None else parts.sum(dim=0) + module.bias
            # few enough images at a time that their rows stay in fast memory
            for some in torch.arange(len(sample), device=sample.device).split(max(1, _ROWS // size)):
                images = sample[some]
                grown = [torch.cat([whole[i : i + 1], whole[i] - parts[live[sample[i]], i]]) for i in some.tolist()]
                rows = shaped_like_output(torch.cat(grown), module)
                drops.append(self._drops_of_rows(module, rows, activations[images], live[images], images, objective))
        return torch.cat(drops, dim=1)

    def _drops_of_rows(
        self,
        module: LinearLike,
        rows: Tensor,
        activations: Tensor,
        live: Tensor,
        images: Tensor,
        objective: Objective,
    ) -> Tensor:
        """Drops (T, images, K) from the outputs of a layer: of each image whole, then without each live channel."""
        counts = live.sum(dim=1) + 1
        image = images.repeat_interleave(counts)
        scores = objective.scores(self._head(activations, image, {module: lambda _features: rows}), image)
        is_whole = torch.zeros(len(image), dtype=torch.bool, device=image.device)
        is_whole[counts.cumsum(dim=0) - counts] = True
        fall = scores[is_whole].repeat_interleave(counts, dim=0) - scores
        drops = scores.new_zeros((*live.shape, scores.shape[1]))
        drops[live] = fall[~is_whole]
        return drops.permute(2, 0, 1)

    def _rescored(self, activations: Tensor, live: Tensor, objective: Objective) -> Tensor:
        """Drops by running the network on the activations less one live channel at a time."""
        everyone = _everyone(activations).split(self._rows)
        whole = [objective.scores(self._head(activations[each], each), each) for each in everyone]
        before = torch.cat(whole)
        drops = before.new_zeros((before.shape[1], *live.shape))
        for pairs in live.nonzero().split(self._rows):
            image, channel = pairs.unbind(dim=1)
            ablated = activations[image]
            ablated[torch.arange(len(image), device=image.device), channel] = 0
            drops[:, image, channel] = (before[image] - objective.scores(self._head(ablated, image), image)).T
        return drops


def _affine_drops(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * activations).flatten(3).sum(dim=3)


def _everyone(activations: Tensor) -> Tensor:
    return torch.arange(len(activations), device=activations.device)


def _wide(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.double()


def _zeros(count: int, like: Tensor) -> Tensor:
    return torch.zeros(count, dtype=torch.long, device=like.device)


def _noting(module: LinearLike, seen: list[tuple[LinearLike, Tensor]]) -> Forward:
    """Note the input if it is the first; what comes of it doesn't matter, so that zeros do."""
    original = module.forward

    def forward(features: Tensor) -> Tensor:
        if not seen:
            seen.append((module, features.clone()))
        if is_linear_on(module, features):
            return shaped_like_output(features.new_zeros(len(features), matrix(module).shape[0]), module)
        return original(features)

    return forward
