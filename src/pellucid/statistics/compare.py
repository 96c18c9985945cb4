"""Every pair of a family compared: differences, effects, p-values corrected over the family, and plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from numpy.typing import ArrayLike

from pellucid.errors import expected, unknown_name
from pellucid.statistics.corrections import adjust, adjusted_label, check_correction
from pellucid.statistics.paired import corrected_resampled_t, paired_t
from pellucid.statistics.results import TestResult
from pellucid.statistics.units import UnitIds, numbers
from pellucid.statistics.wording import count, number, p_value, span

TESTS = ("paired-t", "corrected-resampled-t")


@dataclass(frozen=True)
class Comparison:
    """One pair of a family."""

    first: str
    second: str
    result: TestResult
    """The test of first − second; its p isn't adjusted."""
    adjusted_p: float | None
    correction: str
    family: int
    """Tests over which the p-value is adjusted."""

    @property
    def identical(self) -> bool:
        """Whether the two coincide to rounding."""
        return self.result.identical

    @property
    def significant(self) -> bool:
        """Whether the adjusted p is at most 1 − the interval's confidence."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - self.result.confidence + 1e-12

    def sentence(self) -> str:
        """The finding in plain words; the interval is that of this pair alone, the p that of the family.

        >>> scores = {"resnet18": [0.9, 0.8, 0.9, 0.8], "vgg16": [0.7, 0.5, 0.65, 0.6]}
        >>> print(compare_all(scores, ["a", "b", "c", "d"])[0].sentence())
        resnet18 scores 0.238 higher than vgg16 (95 % interval 0.161 to 0.314, Holm-adjusted p = 0.0022, 4 patients).
        """
        result, difference = self.result, self.result.mean_difference
        units = count(result.n, result.unit)
        if result.identical:
            return f"{self.first} and {self.second} are identical ({units})."
        if difference is None:
            return f"{self.first} and {self.second} can't be compared: {_clause(result.note)}"
        higher, lower = (self.first, self.second) if difference >= 0 else (self.second, self.first)
        if result.interval is None or self.adjusted_p is None:
            seen = f"{higher} scores {number(abs(difference))} higher than {lower}"
            return f"{seen}, but that can't be tested: {_clause(result.note)}"
        low, high = result.interval if difference >= 0 else (-result.interval[1], -result.interval[0])
        label = adjusted_label(self.correction)
        evidence = f"{span(low, high, result.confidence)}, {p_value(self.adjusted_p, label)}, {units}"
        if self.significant:
            return f"{higher} scores {number(abs(difference))} higher than {lower} ({evidence})."
        return (
            f"No difference can be shown between {higher} and {lower}: "
            f"{higher} scores {number(abs(difference))} higher ({evidence})."
        )


def compare_all(
    scores: Mapping[str, ArrayLike],
    units: UnitIds | str = "image",
    test: str = "paired-t",
    correction: str = "holm",
    *,
    sizes: tuple[float, float] | None = None,
    coinciding: Sequence[Sequence[str]] = (),
) -> tuple[Comparison, ...]:
    """Compare every pair of names, correcting over all of them.

    Args:
        scores: a vector (N,) per name, all on the same samples or folds in the same order; NaN is missing.
        units: patient id per row ("" unknown), or the word for what each row is ("image", "fold").
        test: "paired-t" or "corrected-resampled-t".
        correction: "holm" or "benjamini-hochberg".
        sizes: (n_train, n_test), needed by "corrected-resampled-t" and only there.
        coinciding: groups of names known to give the same result (methods whose maps agree up to scale on a
            network); a pair within a group is called identical even where rounding keeps its scores apart. Groups may
            hold names that aren't compared here.

    Returns:
        A Comparison per pair, in the order of the names. Pairs without a p-value stay without and aren't counted
        in the family; identical ones have p = 1 and are.

    Raises:
        InputError: for vectors of different length or missing `sizes`; UnknownNameError for unknown names.

    >>> pairs = compare_all({"a": [1, 2, 3.5], "b": [1, 2, 3.5], "c": [2, 2, 3]}, "fold")
    >>> [(pair.first, pair.second, pair.identical) for pair in pairs]
    [('a', 'b', True), ('a', 'c', False), ('b', 'c', False)]
    """
    check_correction(correction)
    if test not in TESTS:
        raise unknown_name("test", test, TESTS)
    if (test == "corrected-resampled-t") != (sizes is not None):
        wanted = "(n_train, n_test)" if sizes is None else "None"
        raise expected("sizes", f"{wanted} with test {test!r}", repr(sizes))
    vectors = {name: numbers(f"scores[{name!r}]", values) for name, values in scores.items()}
    lengths = {name: vector.shape for name, vector in vectors.items()}
    if len(set(lengths.values())) > 1:
        raise expected("scores", "vectors of one length", str(lengths))
    results = []
    for first, second in combinations(vectors, 2):
        if sizes is None:
            result = paired_t(vectors[first], vectors[second], units)
        else:
            result = corrected_resampled_t(vectors[first], vectors[second], *sizes, units)
        if any(first in group and second in group for group in coinciding):
            result = _called_identical(result)
        results.append(Comparison(first, second, result, None, correction, 0))
    return correct_family(results, correction)


def correct_family(comparisons: Sequence[Comparison], correction: str = "holm") -> tuple[Comparison, ...]:
    """Correct comparisons again over a larger family: all that are reported together."""
    adjusted = adjust([comparison.result.p_value for comparison in comparisons], correction)
    return tuple(
        replace(comparison, adjusted_p=p, correction=correction, family=adjusted.counted)
        for comparison, p in zip(comparisons, adjusted.p_values, strict=True)
    )


def _called_identical(result: TestResult) -> TestResult:
    if result.identical or result.mean_difference is None:
        return result
    note = f"Identical up to scale; their scores differ by {number(result.mean_difference)} through rounding."
    return replace(
        result,
        statistic=None,
        p_value=1.0,
        interval=None,
        effect_size=None,
        effect_interval=None,
        note=f"{note} {result.note}".strip(),
        identical=True,
    )


def _clause(note: str) -> str:
    """A note's sentence as the end of another."""
    return note[:1].lower() + note[1:]
