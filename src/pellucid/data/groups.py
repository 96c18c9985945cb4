"""Images that belong together, and choices among them that part none of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pellucid.data.labels import SEPARATOR, classes_in, members
from pellucid.data.leakage import copy_groups
from pellucid.errors import expected

_GROUPING = ("patient_id", "pixel_hash", "lesion_id")
_ATTEMPTS = 20
_PASSES = 10
NO_LABEL, EVERY = "", SEPARATOR  # columns beside the labels: images without any, and all images
_FEW_WITHOUT = 4  # with fewer groups per part than this, images without a label aren't stratified


def independent_groups(table: pd.DataFrame, near: pd.DataFrame | None = None) -> np.ndarray:
    """Number (N,) of the group of each image: images bound by a patient, a lesion or as copies share one.

    Copies are pixel-identical ones, and the near ones where they are given.

    >>> independent_groups(pd.DataFrame({"patient_id": ["p", "p", "", ""], "pixel_hash": ["a", "b", "b", "c"]}))
    array([0, 0, 0, 1])
    """
    rows, owners, count = [], [], len(table)
    binding = {column: table[column] for column in _GROUPING if column in table}
    if near is not None:
        binding["copies"] = copy_groups(table, near)
    for bound in binding.values():
        values = bound.astype(object).where(bound.notna(), "").astype(str)
        known = np.flatnonzero(values != "")
        codes, _ = pd.factorize(values.iloc[known])
        rows.append(known)
        owners.append(codes + count)
        count += int(codes.max(initial=-1)) + 1
    edges = (np.concatenate(rows), np.concatenate(owners))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(count, count))
    components = connected_components(graph, directed=False)[1][: len(table)]
    return pd.factorize(components)[0]


def labelled_groups(
    table: pd.DataFrame, groups: np.ndarray, seed: tuple[int, ...], multi_label: bool
) -> LabelledGroups:
    """The labels and groups of a table's rows, with the seed of what is drawn from them."""
    texts = table["label"].astype(str).tolist()
    names = classes_in(texts, multi_label)
    found = members(texts, names, multi_label)
    if multi_label:  # labels alone would fill a part with images that have many of them
        without = ~found.any(axis=1)
        names, found = (*names, NO_LABEL, EVERY), np.column_stack([found, without, np.ones(len(texts), bool)])
    return LabelledGroups(names, found, groups, seed)


@dataclass(frozen=True, eq=False)
class LabelledGroups:
    """Label and group of each image, and the seed of what is drawn from them."""

    names: tuple[str, ...]
    members: np.ndarray
    """(N, K) which of the names each image has; `NO_LABEL` and `EVERY` are names of another kind."""
    groups: np.ndarray
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def require(self, needed: int, parts: str, pool: np.ndarray | None = None) -> None:
        """Refuse a class with fewer independent groups than there are parts."""
        where = "" if pool is None else " in the training part"
        for name, member in zip(self.names, self.members.T, strict=True):
            if name in (NO_LABEL, EVERY):
                continue  # images without a label are spread as far as they go
            here = member & (True if pool is None else pool)
            independent = len(np.unique(self.groups[here]))
            if independent < needed:
                bound = f" ({here.sum()}, bound by patient, lesion or identical pixels)"
                raise expected(
                    "label", f"at least {needed} independent images of each class{where}, for {parts}",
                    f"{independent} of {name!r}{bound if here.sum() > independent else ''}",
                    do=f"Add images of {name!r}, merge it into another class, or leave it out.",
                )  # fmt: skip

    def take(
        self, rows: np.ndarray, share: float, *, stage: int, keep: int, least: int = 1, free: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Some of `rows`: whole groups, near `share` of each class, `least` groups or more of each.

        At least `keep` groups of each class stay; only rows that are `free` are taken. None when no such choice is
        found. `stage` tells the draws of one seed apart.
        """
        groups, of_row = np.unique(self.groups[rows], return_inverse=True)
        counts = np.zeros((len(groups), len(self.names)))
        np.add.at(counts, of_row, self.members[rows])
        enough = [_FEW_WITHOUT * (keep + least) if name == NO_LABEL else 1 for name in self.names]
        counts = counts[:, (counts > 0).sum(axis=0) >= enough]
        may = np.ones(len(groups), bool)
        if free is not None:
            may[of_row[~free]] = False
        for attempt in range(_ATTEMPTS):
            generator = np.random.default_rng(np.random.SeedSequence((*self.seed, stage, attempt)))
            taken = _draw(counts, share, keep, least, may, generator)
            if taken is not None:
                chosen: np.ndarray = rows[taken[of_row]]
                return chosen
        return None


def _draw(
    counts: np.ndarray, share: float, keep: int, least: int, may: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """Choose groups (G,) so that their class counts (G, K) come near `share`.

    Each group in turn, the large ones first, is taken or given back when that brings the counts nearer, until none
    does; then classes that got too few groups get the least harmful ones.
    """
    present = counts > 0
    wanted = np.maximum(share * counts.sum(axis=0), 1)
    got, groups_got, groups_left = np.zeros(counts.shape[1]), np.zeros(counts.shape[1], int), present.sum(axis=0)
    taken = np.zeros(len(counts), bool)
    order = generator.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]

    def allowed(group: int) -> bool:
        return bool(taken[group] or (may[group] and (groups_left[present[group]] > keep).all()))

    def gain(group: int) -> float:
        after = got - counts[group] if taken[group] else got + counts[group]
        return float((((got - wanted) ** 2 - (after - wanted) ** 2) / wanted).sum())

    def turn(group: int) -> None:
        nonlocal got, groups_got, groups_left
        sign = -1 if taken[group] else 1
        taken[group] = not taken[group]
        got, groups_got = got + sign * counts[group], groups_got + sign * present[group]
        groups_left = groups_left - sign * present[group]

    for _ in range(_PASSES):
        before = taken.copy()
        for group in order:
            if allowed(group) and gain(group) > 1e-9:
                turn(group)
        if np.array_equal(taken, before):
            break
    for name in range(counts.shape[1]):
        while groups_got[name] < least:
            candidates = [group for group in order if present[group, name] and not taken[group] and allowed(group)]
            if not candidates:
                return None
            turn(max(candidates, key=gain))
    return taken


def found(chosen: np.ndarray | None, parts: str) -> np.ndarray:
    if chosen is None:
        raise expected(
            "label", f"classes that can each be in {parts}", "classes bound to each other by patients or copies",
            do="Merge the small classes, or lower the number of folds.",
        )  # fmt: skip
    return chosen
