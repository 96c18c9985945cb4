"""Errors that say which argument, what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PellucidError(Exception):
    """Base of every error that pellucid raises on purpose; its text is written for the user."""


class InputError(PellucidError, ValueError):
    """Something the user gave can't be used as it is."""


class UnknownNameError(InputError, KeyError):
    """A name that no registry entry, column or key bears."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


class UnreadableFileError(PellucidError):
    """A file that can't be read; names the file and the reason."""


class StorageError(PellucidError):
    """A file that can't be written; whatever else is computed would be lost as well."""


class MissingWeightsError(PellucidError):
    """Pretrained weights that can't be had, with the ways on."""


def expected(argument: str, wanted: str, got: object, do: str = "") -> InputError:
    """Build the one form that an input error takes.

    >>> print(expected("images", "a float tensor (B, C, *S)", "int64", do="Call images.float()."))
    images: expected a float tensor (B, C, *S), got int64. Call images.float().
    """
    return InputError(f"{argument}: expected {wanted}, got {got}." + (f" {do}" if do else ""))


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Known names most like `name`, best first; case, dashes and a "++" written out count as no difference.

    >>> nearest("GradCAM++", ["sobel", "grad-cam", "grad-cam-plus-plus", "deletion"])
    ['grad-cam-plus-plus', 'grad-cam']
    """
    bare: dict[str, list[str]] = {}
    for each in known:
        bare.setdefault(_bare(each), []).append(each)
    close = difflib.get_close_matches(_bare(name), list(bare), n=count, cutoff=0.5)
    return [each for match in close for each in bare[match]][:count]


def _bare(name: str) -> str:
    """A name's letters, digits and dots alone."""
    spelled = name.lower().replace("++", "plusplus")
    return "".join(letter for letter in spelled if letter.isalnum() or letter == ".")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Say that `name` isn't known and which names are nearest.

    >>> print(unknown_name("method", "layercam", ["layer-cam", "grad-cam"]))
    unknown method 'layercam'. Did you mean 'layer-cam' or 'grad-cam'?
    """
    known = sorted(known)
    close = nearest(name, known)
    if close:
        hint = "Did you mean " + " or ".join(repr(candidate) for candidate in close) + "?"
    else:
        hint = "Known: " + (", ".join(known) if known else "none") + "."
    return UnknownNameError(f"unknown {kind} {name!r}. {hint}")
