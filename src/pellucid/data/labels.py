"""The label of an image as text: one class, or several of them parted by "|"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

SEPARATOR = "|"


def labels_of(text: str, multi_label: bool = True) -> tuple[str, ...]:
    """The labels that a text names; a text without any names none.

    >>> labels_of("edema | nodule"), labels_of(""), labels_of("a|b", multi_label=False)
    (('edema', 'nodule'), (), ('a|b',))
    """
    if not multi_label:
        return (text,)
    return tuple(name for part in text.split(SEPARATOR) if (name := part.strip()))


def joined(labels: Iterable[str]) -> str:
    """The text of a set of labels: each once, sorted.

    >>> joined(["nodule", "edema", "nodule"])
    'edema|nodule'
    """
    return SEPARATOR.join(sorted(set(labels)))


def classes_in(texts: Iterable[str], multi_label: bool) -> tuple[str, ...]:
    """All labels that texts name, sorted.

    >>> classes_in(["b|a", "", "c"], True), classes_in(["b|a", "c"], False)
    (('a', 'b', 'c'), ('b|a', 'c'))
    """
    return tuple(sorted({name for text in texts for name in labels_of(text, multi_label)}))


def members(texts: Sequence[str], classes: Sequence[str], multi_label: bool) -> NDArray[np.bool_]:
    """(N, K) which of the classes each text names.

    >>> members(["b|a", "", "b"], ["a", "b"], True).tolist()
    [[True, True], [False, False], [False, True]]
    """
    place = {name: position for position, name in enumerate(classes)}
    table = np.zeros((len(texts), len(classes)), dtype=bool)
    for row, text in enumerate(texts):
        table[row, [place[name] for name in labels_of(text, multi_label)]] = True
    return table
