"""The registry of tests, and the line that declares one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from pellucid.registry import Registry

Test: TypeAlias = Callable[..., Any]

TESTS: Registry[Test] = Registry("test")


def comparison(
    name: str, *, source: str, family: str = "difference", needs: tuple[str, ...] = ("scores", "units")
) -> Callable[[Test], Test]:
    """Declare a test of two arms: `f(what `needs` names, in that order, *, confidence, its options) -> TestResult`.

    `family` is what it asks: "difference", "non-inferiority" (of either order of a pair), "equivalence", "power", or
    "ranks", whose function is given all arms at once and returns a result for each pair. `needs` are of:

    - "scores": the two arms' scores of folds where there are any, else of samples;
    - "all scores": a dict of every arm's;
    - "answers": the two arms' scores of samples, 1 right and 0 wrong;
    - "labels": the samples' true classes; "probabilities": those of the two arms;
    - "units": the word "fold", or the samples' patient ids;
    - "sizes": n_train and n_test of a fold; "overlap": n_test / n_train, 0 for samples;
    - "margin": the margin stated beforehand.
    """
    return TESTS.register(name, family=family, source=source, needs=needs)
