"""A block of images: each metric of each method's maps, from what they share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import torch
from torch import Tensor, nn

from pellucid.attribution.explanation import Explanation
from pellucid.attribution.families import is_control
from pellucid.attribution.layout import weights_laid_out
from pellucid.attribution.memory import Bound
from pellucid.errors import expected
from pellucid.metrics.again import Again, Explained, Explainer
from pellucid.metrics.explainer import ByLabel, explains
from pellucid.metrics.families import Metric
from pellucid.metrics.kept import Kept, Value, fingerprint, model_fingerprint
from pellucid.metrics.network import Network
from pellucid.metrics.scores import Scores
from pellucid.metrics.truth import Truth
from pellucid.progress import Advance
from pellucid.registry import Choice

NOT_FINITE = "the map isn't finite"
STILL = "the score doesn't change, whatever is removed"
NO_AGAIN = "the method can't be run again (pass explainer=)"
NOT_SAME = "the map comes out otherwise when it is made again (other seed, window, precision, compile? pass explainer=)"
ALONE = "there is no other method to compare with"
NO_MASKS, EMPTY_MASK = "no masks were given", "the mask is empty"
EMPTY_ANATOMY, NO_BOX = "the anatomy's mask is empty", "the image has no box"
_GIVEN = {
    "masks": NO_MASKS,
    "boxes": "no boxes were given (pass masks=Truth(boxes=...))",
    "anatomy": "no anatomy was given (pass masks=Truth(anatomy=...))",
}
WHOLE_SET = frozenset({"all maps", "all classes"})


@dataclass
class Cells:
    """What is evaluated, and what every block of images needs of it."""

    network: Network
    explanation: Explanation
    choices: Sequence[Choice[Metric]]
    truth: Truth
    seeds: Tensor
    method_seeds: Tensor
    explainer: Explainer
    bank: Tensor | None
    changed_bytes: int
    kept: Kept
    held: contextlib.ExitStack  # ends with the call
    spare: int | None  # bytes that copies of the weights may take
    bound: Bound
    is_laid_out: bool = False

    @cached_property
    def model_key(self) -> str:
        """A name of the network's weights; for values that are kept."""
        return model_fingerprint(self.network.model)

    def lay_out(self, images: Tensor) -> None:
        """Have the network ready to run on `images` (B, C, *S) until the call ends."""
        if not self.is_laid_out and self.network.takes_layouts:
            self.held.enter_context(weights_laid_out(self.network.model, images, self.spare))
            self.is_laid_out = True

    @property
    def methods(self) -> list[str]:
        """The labels of the methods."""
        return list(self.explanation.maps)

    def whole_set(
        self, images: Tensor, found: Sequence[Mapping[tuple[str, str], Value]], advance: Advance
    ) -> dict[tuple[int, str, str], Value]:
        """Values of the metrics that compare each image with all others."""
        values: dict[tuple[int, str, str], Value] = {}
        choices = [choice for choice in self.choices if WHOLE_SET & set(choice.entry.needs)]
        if not choices:
            return values
        device = self.network.device or images.device
        parts = [self.network.logits(part.to(device)).argmax(dim=1).cpu() for part in images.split(256)]
        classes = torch.cat(parts)
        for choice in choices:
            for method, maps in self.explanation.maps.items():
                finite = maps.flatten(1).isfinite().all(dim=1)
                given = {"all maps": maps[finite], "all classes": classes[finite]}
                scores = iter(())
                if bool(finite.any()):
                    results = choice.entry.function(*(given[need] for need in choice.entry.needs), **choice.options)
                    scores = iter(results.double().tolist())
                for sample, usable in enumerate(finite.tolist()):
                    value = next(scores) if usable else math.nan
                    reason = "" if not math.isnan(value) else (choice.entry.missing if usable else NOT_FINITE)
                    values[sample, method, choice.label] = value, reason
                advance(len(images), f"{choice.label} of {method}")
        return values


class Block:
    """Images `part` of a call, with the scores and the maps made again that all metrics and methods share."""

    def __init__(self, cells: Cells, images: Tensor, part: slice, advance: Advance) -> None:
        self.cells, self.part, self.advance = cells, part, advance
        self.device = cells.network.device or images.device
        self.images = images[part].to(self.device)
        self.target = cells.explanation.target[part].to(self.device)
        self.maps = {method: maps[part].float().to(self.device) for method, maps in cells.explanation.maps.items()}
        self.seeds = cells.seeds[part]
        self.finite = {method: maps.flatten(1).isfinite().all(dim=1).cpu() for method, maps in self.maps.items()}

    @cached_property
    def scores(self) -> Scores:
        """The network's scores of the block's images, and of changed ones."""

        network, target, bound = self.cells.network, self.target, self.cells.bound  # not the block, which holds this

        def score_of(rows: Tensor, sample: Tensor) -> Tensor:
            bound()
            return network.readings(rows, target[sample])

        network.compile(self.images, self.advance)
        if network.precision == "float32":  # others have copies of their own
            self.cells.lay_out(self.images)
        return Scores(
            score_of,
            self.images,
            self.seeds,
            bank=self.cells.bank,
            block_bytes=self.cells.changed_bytes,
            together=network.rows_at_once(self.images),
        )

    @cached_property
    def explained(self) -> Explained:
        """The maps made again, all methods at once."""
        cells = self.cells
        cells.lay_out(self.images)
        maps = {method: values for method, values in self.maps.items() if explains(cells.explainer, method)}
        return Explained(
            cells.network.model,
            cells.explainer,
            cells.network.logits,
            self.images,
            self.target,
            cells.method_seeds[self.part],
            self.seeds,
            maps,
        )

    @property
    def has_asked(self) -> bool:
        """Whether a metric has asked the network for scores."""
        return "scores" in self.__dict__

    @property
    def unmoved(self) -> int:
        """How many images were changed without any effect on their score."""
        if not self.has_asked or self.scores.rows <= len(self.images):
            return 0
        return int((~self.scores.changed).sum())

    def values(self) -> list[dict[tuple[str, str], Value]]:
        """For each image the values by method and metric."""
        count = len(self.images)
        found: list[dict[tuple[str, str], Value]] = [{} for _ in range(count)]
        for choice in self.cells.choices:
            if WHOLE_SET & set(choice.entry.needs):
                continue
            for method in self.cells.methods:
                for row, value in enumerate(self._cell(choice, method)):
                    found[row][method, choice.label] = value
                self.advance(count, f"{choice.label} of {method}")
        return found

    def _cell(self, choice: Choice[Metric], method: str) -> list[Value]:
        """Values of the block's images, those that are kept from before as they are."""
        keys = self._keys(choice, method)
        known = [self.cells.kept.get(key) for key in keys] if self.cells.kept else []
        if known and all(value is not None for value in known):
            return [value for value in known if value is not None]
        values = self._computed(choice, method)
        self.cells.kept.add(dict(zip(keys, values, strict=True)) if keys else {})
        return values

    def _keys(self, choice: Choice[Metric], method: str) -> list[str]:
        """A name for each image's value, of everything that it depends on."""
        if not self.cells.kept:
            return []
        cells, truth = self.cells, self.cells.truth
        among = "other" in choice.entry.needs
        maps = self.maps.values() if among else [self.maps[method]]
        options = {name: _printable(value) for name, value in choice.options.items()}
        asked = (choice.entry.name, sorted(options.items()), method, cells.methods if among else "")
        bank = "" if cells.bank is None else cells.bank
        network = cells.network
        run = (version("pellucid"), cells.model_key, cells.explanation.layer, network.multi_label, network.precision)
        shared = fingerprint(*run, *asked, bank)
        keys = []
        for row in range(len(self.images)):
            place = range(self.part.start, self.part.stop)[row]
            told = (truth.masks, truth.boxes, truth.anatomy, truth.spacing)
            known = [None if each is None else each[place] for each in told]
            own = (self.target[row], self.seeds[row], cells.method_seeds[place])
            each = [values[row] for values in maps]
            keys.append(fingerprint(shared, self.images[row], *each, *own, *known))
        return keys

    def _computed(self, choice: Choice[Metric], method: str) -> list[Value]:
        needs = choice.entry.needs
        count = len(self.images)
        reasons = [""] * count
        usable = self.finite[method].clone()
        for row in (~usable).nonzero().flatten().tolist():
            reasons[row] = NOT_FINITE
        for need in needs:
            reason, there = self._there(need, method)
            for row in (usable & ~there).nonzero().flatten().tolist():
                reasons[row] = reason[row]
            usable &= there
        values = torch.full((count,), math.nan, dtype=torch.float64)
        if bool(usable.any()):
            values[usable] = self._asked(choice, method, usable)[usable]
        for row in values.isnan().logical_and(usable).nonzero().flatten().tolist():
            reasons[row] = choice.entry.missing or "it isn't defined there"
            if "scores" in needs and not bool(self.scores.changed[row]):
                reasons[row] = STILL
        return list(zip(values.tolist(), reasons, strict=True))

    def _there(self, need: str, method: str) -> tuple[list[str], Tensor]:
        """Which images have what a metric needs, and why the others don't."""
        count = len(self.images)
        everyone = torch.ones(count, dtype=torch.bool)
        if need in _GIVEN:
            given = getattr(self.cells.truth, need)
            if given is None:
                return [_GIVEN[need]] * count, ~everyone
            if need == "boxes":
                there = torch.tensor([len(each) > 0 for each in given[self.part]])
                return [NO_BOX] * count, there
            return [EMPTY_MASK if need == "masks" else EMPTY_ANATOMY] * count, given[self.part].flatten(1).any(dim=1)
        if need == "again":
            if not explains(self.cells.explainer, method):
                return [NO_AGAIN] * count, ~everyone
            if isinstance(self.cells.explainer, ByLabel):  # a user's own may draw
                return [NOT_SAME] * count, self.explained.remade[method].cpu()
        if need == "other" and not self._others(method):
            return [ALONE] * count, ~everyone
        return [], everyone

    def _others(self, method: str) -> list[str]:
        return [other for other in self.cells.methods if other != method and not is_control(other)]

    def _asked(self, choice: Choice[Metric], method: str, usable: Tensor) -> Tensor:
        """Values (B,); only those of `usable` images count, and others may be anything."""
        needs, function = choice.entry.needs, choice.entry.function
        maps = torch.where(
            usable.view(-1, *(1,) * (self.images.ndim - 2)).to(self.device), self.maps[method], 0.0
        )  # so that what isn't finite disturbs nothing
        if "other" in needs:
            return self._mean_over_others(choice, method, maps)
        if "scores" in needs or "again" in needs:
            given = [self._given(need, method, maps, None) for need in needs]
            return _one_each(choice, function(*given, **choice.options), len(maps))
        rows = usable.nonzero().flatten()
        given = [self._given(need, method, maps, rows) for need in needs]
        values = torch.full((len(maps),), math.nan, dtype=torch.float64)
        values[usable] = _one_each(choice, function(*given, **choice.options), len(rows))
        return values

    def _mean_over_others(self, choice: Choice[Metric], method: str, maps: Tensor) -> Tensor:
        """The mean value (B,) over the other methods whose maps are finite and that have one."""
        each = []
        for other in self._others(method):
            values = choice.entry.function(maps, self.maps[other].nan_to_num(), **choice.options)
            values = _one_each(choice, values, len(maps))
            each.append(torch.where(self.finite[other], values, math.nan))
        return torch.stack(each).nanmean(dim=0)

    def _given(self, need: str, method: str, maps: Tensor, rows: Tensor | None) -> object:
        """What a metric is called with; of the images `rows` alone where some are left out."""
        if need == "scores":
            return self.scores
        if need == "again":
            return Again(self.explained, method)
        if need == "maps":
            return maps if rows is None else maps[rows.to(self.device)]
        given = getattr(self.cells.truth, need)
        if given is None:
            return None
        block = given[self.part]
        if need == "boxes":
            return block if rows is None else [block[row] for row in rows.tolist()]
        return (block if rows is None else block[rows]).to(self.device)


def _one_each(choice: Choice[Metric], values: object, count: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (count,):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise expected(f"metric {choice.label!r}", f"one value for each of {count} images", got)
    return values.double().cpu()


def _printable(value: object) -> str:
    if isinstance(value, nn.Module):
        return model_fingerprint(value)
    return fingerprint(value) if isinstance(value, Tensor) else repr(value)
