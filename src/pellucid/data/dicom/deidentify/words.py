"""Descriptors cleaned: only words stay that are known to speak of images and bodies (PS3.15, E.3.5).

What isn't on the list, `words.txt`, goes: no list of names would be long enough. Numbers stay up to three digits, with
or without a unit, so that no date, telephone or record number does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from importlib import resources

_TOKEN = re.compile(r"[^\W_]+(?:[.'][^\W_]+)*[+%]?")
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3})?(?:mm|cm|ml|mg|kv|kvp|ms|s|sec|min|t|d|%|hz|mhz|x)?\+?", re.IGNORECASE)
_SPINE_OR_WEIGHT = re.compile(r"[ctls]\d{1,2}w?|b\d{1,4}|te\d{1,3}|t[12][wc]?|t1rho|[23]d|4d|th\d{1,2}", re.IGNORECASE)


@functools.cache
def known_words() -> frozenset[str]:
    """The words that stay, in small letters."""
    return frozenset((resources.files(__package__) / "words.txt").read_text(encoding="ascii").split())


def cleaned(text: str, identifiers: Collection[str] = ()) -> str:
    """A text's known words and short numbers, but for those of `identifiers` (in small letters).

    >>> cleaned("MRI BRAIN_W/O contrast, Dr. Mueller 2024-03-01 3mm AX T2", ())
    'MRI BRAIN contrast 3mm AX T2'
    >>> cleaned("Head of John Head", {"john", "head"})
    ''
    """
    kept = []
    for token in _TOKEN.finditer(text):
        small = token[0].lower()
        if small in identifiers:
            continue
        number = _NUMBER.fullmatch(small) is not None
        if number and small.isdecimal() and _among_numbers(text, token.start(), token.end()):
            continue
        if number or small in known_words() or _SPINE_OR_WEIGHT.fullmatch(small):
            kept.append(token[0])
    return " ".join(kept)


def _among_numbers(text: str, start: int, end: int) -> bool:
    """Whether a number is part of a longer one, such as a date or a telephone number."""
    return bool(re.search(r"\d\W$", text[:start]) or re.match(r"\W\d", text[end:]))
