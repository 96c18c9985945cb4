"""Every pair of arms compared by every test that is named: one row each, corrected over the family, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, permutations
from typing import Any, Literal

from numpy.typing import ArrayLike

from pellucid.errors import InputError, expected
from pellucid.registry import Choice
from pellucid.statistics import delong, margins, mcnemar, nemenyi, paired, permutation, power, wilcoxon
from pellucid.statistics.corrections import adjust, check_correction
from pellucid.statistics.evidence import Evidence
from pellucid.statistics.registry import TESTS, Test
from pellucid.statistics.results import MarginResult, PowerResult, TestResult
from pellucid.statistics.sentences import refused, told
from pellucid.statistics.units import UnitIds
from pellucid.statistics.wording import count, number

DECLARED = (paired, wilcoxon, permutation, mcnemar, delong, nemenyi, margins, power)  # modules whose tests are listed

ROW_COLUMNS = (
    "a", "b", "test", "of", "measure", "mean_difference", "low", "high", "confidence", "statistic", "df", "p_value",
    "p_adjusted", "family", "effect", "effect_size", "effect_low", "effect_high", "margin", "detectable", "needed",
    "n", "unit", "identical", "note", "sentence",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One pair by one test."""

    first: str
    second: str
    result: TestResult
    """The test of first − second; its p isn't adjusted."""
    adjusted_p: float | None
    correction: str
    family: int
    """Tests over which the p-value is adjusted."""
    subject: str = ""
    """The class that an AUROC is of; "" for all."""
    refused: bool = False
    """The test wasn't made; the result's note says why."""

    @property
    def identical(self) -> bool:
        """Whether the two coincide to rounding."""
        return self.result.identical

    @property
    def significant(self) -> bool:
        """Whether the adjusted p is at most the test's level."""
        return self.adjusted_p is not None and self.adjusted_p <= self.result.level + 1e-12

    def sentence(self) -> str:
        """The finding in plain words; the interval is that of this pair alone, the p that of the family.

        >>> scores = {"resnet18": [0.9, 0.8, 0.9, 0.8], "vgg16": [0.7, 0.5, 0.65, 0.6]}
        >>> print(compare_all(scores, ["a", "b", "c", "d"])[0].sentence())
        resnet18 scores 0.238 higher than vgg16 (95 % interval 0.161 to 0.314, Holm-adjusted p = 0.0022, 4 patients).
        """
        if self.refused:
            return refused(self.first, self.second, self.result.name, self.result.note)
        return told(self.first, self.second, self.result, self.adjusted_p, self.correction, self.subject)

    def row(self) -> dict[str, Any]:
        """The comparison as a row of a table: a value for each of `ROW_COLUMNS`, None where there is none."""
        result = self.result
        low, high = result.interval or (None, None)
        effect_low, effect_high = result.effect_interval or (None, None)
        notes = [result.note]
        if result.n_missing:
            notes.append(f"{count(result.n_missing, 'row')} without a score on either side left out.")
        values = {
            **asdict(result),
            "a": self.first,
            "b": self.second,
            "test": result.name,
            "of": self.subject,
            "low": low,
            "high": high,
            "p_adjusted": self.adjusted_p,
            "family": self.family,
            "effect_low": effect_low,
            "effect_high": effect_high,
            "note": " ".join(note for note in notes if note),
            "sentence": self.sentence(),
        }
        return {column: values.get(column) for column in ROW_COLUMNS}


def compare(
    evidence: Evidence,
    tests: Sequence[str | Choice[Test]] = ("paired-t",),
    *,
    margin: float | None = None,
    correction: str = "holm",
    family: Literal["test", "all"] = "test",
    confidence: float = 0.95,
    coinciding: Sequence[Sequence[str]] = (),
) -> tuple[Comparison, ...]:
    """Compare every pair of arms by every test, correcting over the declared family.

    Args:
        evidence: what is known of the arms.
        tests: names of registered tests, with options as labels ("wilcoxon[zeros=pratt]") or choices.
        margin: of non-inferiority and equivalence, in the scores' unit, stated before they were seen.
        correction: "holm" or "benjamini-hochberg".
        family: what is corrected together: all comparisons by one "test" (those of single classes apart), or "all".
        confidence: of intervals; 1 less the level of the tests.
        coinciding: groups of arms known to give the same result (methods whose maps agree up to scale on a
            network); a pair within a group is called identical even where rounding keeps its scores apart. Groups may
            hold names that aren't compared here.

    Returns:
        A Comparison per test and pair, in the order given. Non-inferiority is tested both ways round; AUROCs of more
        than two classes are compared as their mean and class by class. What a test can't be made of, and a test that
        is refused, is a Comparison whose note says so. Pairs without a p-value stay without and aren't counted in
        the family; identical ones have p = 1 and are.

    Raises:
        UnknownNameError: for tests, options or corrections that aren't known.

    >>> evidence = Evidence(folds={"a": [0.9, 0.8, 0.85], "b": [0.8, 0.7, 0.8]}, sizes=(2, 1))
    >>> [(each.result.name, each.refused) for each in compare(evidence, ["corrected-resampled-t", "mcnemar"])]
    [('corrected-resampled-t', False), ('mcnemar', True)]
    """
    check_correction(correction)
    if family not in ("test", "all"):
        raise expected("family", "'test' or 'all'", repr(family))
    found: list[Comparison] = []
    for choice in [TESTS.resolve(test) for test in tests]:
        made = [_coinciding(each, coinciding) for each in _made(choice, evidence, margin, confidence)]
        for whole in (True, False):  # single classes are a family of their own
            found += correct_family([each for each in made if (each.subject == "") is whole], correction)
    return correct_family(found, correction) if family == "all" else tuple(found)


def compare_all(
    scores: Mapping[str, ArrayLike],
    units: UnitIds | str = "image",
    test: str = "paired-t",
    correction: str = "holm",
    *,
    sizes: tuple[float, float] | None = None,
    coinciding: Sequence[Sequence[str]] = (),
) -> tuple[Comparison, ...]:
    """Compare every pair of names by one test of their scores alone, correcting over all of them.

    Args:
        scores: a vector (N,) per name, all on the same samples or folds in the same order; NaN is missing.
        units: patient id per row ("" unknown), or the word for what each row is ("image", "fold").
        test: a test that asks for scores alone, as "paired-t", "corrected-resampled-t" and "wilcoxon" do.
        correction, coinciding: as in `compare`.
        sizes: (n_train, n_test), needed by "corrected-resampled-t" and only there.

    Returns:
        A Comparison per pair, in the order of the names, as `compare` gives them.

    Raises:
        InputError: for vectors of different length or missing `sizes`; UnknownNameError for unknown names.

    >>> pairs = compare_all({"a": [1, 2, 3.5], "b": [1, 2, 3.5], "c": [2, 2, 3]}, "fold")
    >>> [(pair.first, pair.second, pair.identical) for pair in pairs]
    [('a', 'b', True), ('a', 'c', False), ('b', 'c', False)]
    """
    check_correction(correction)
    choice = TESTS.resolve(test)
    if ("sizes" in choice.entry.needs) != (sizes is not None):
        wanted = "(n_train, n_test)" if sizes is None else "None"
        raise expected("sizes", f"{wanted} with test {test!r}", repr(sizes))
    if sizes is not None or (isinstance(units, str) and units == "fold"):
        evidence = Evidence(folds=scores, sizes=sizes)
    else:
        evidence = Evidence(scores=scores, units=units)
    return compare(evidence, [choice], correction=correction, coinciding=coinciding)


def correct_family(comparisons: Sequence[Comparison], correction: str = "holm") -> tuple[Comparison, ...]:
    """Correct comparisons again over a larger family: all that are reported together.

    A p-value that holds for several tests already (Nemenyi's) is multiplied by how many times as large the family is.
    """
    adjusted = adjust([comparison.result.p_value for comparison in comparisons], correction)
    family = adjusted.counted
    corrected = []
    for comparison, p in zip(comparisons, adjusted.p_values, strict=True):
        raw, covers = comparison.result.p_value, comparison.result.covers
        held = p if raw is None or covers == 1 else min(1.0, raw * max(1.0, family / covers))
        corrected.append(replace(comparison, adjusted_p=held, correction=correction, family=family))
    return tuple(corrected)


def _made(choice: Choice[Test], evidence: Evidence, margin: float | None, confidence: float) -> Iterator[Comparison]:
    """One test's comparisons, not corrected yet."""
    entry = choice.entry
    options = {"confidence": confidence, **choice.own_options}
    pairs: Iterable[tuple[str, str]] = combinations(evidence.arms, 2)
    if entry.family == "ranks":
        yield from _ranked(choice, evidence, list(pairs), options)
        return
    if entry.family == "non-inferiority":
        pairs = permutations(evidence.arms, 2)
    classes: list[int | None] = [None]
    if "probabilities" in entry.needs and evidence.class_count() > 2:
        classes += range(evidence.class_count())
    for first, second in pairs:
        for place in classes:
            chosen = options if place is None else {**options, "positive": place}
            subject = "" if place is None else evidence.class_name(place)
            try:
                given = evidence.arguments(entry.needs, first, second, margin)
                result: TestResult = entry.function(*given, **chosen)
            except InputError as error:
                yield _refused(choice, first, second, evidence, str(error))
                break
            yield Comparison(first, second, result, None, "holm", 0, subject)


def _ranked(
    choice: Choice[Test], evidence: Evidence, pairs: list[tuple[str, str]], options: dict[str, object]
) -> Iterator[Comparison]:
    """All arms at once."""
    if not pairs:
        return
    try:
        given = evidence.arguments(choice.entry.needs, *pairs[0], None)
        results = choice.entry.function(*given, **options)
    except InputError as error:
        yield from (_refused(choice, *pair, evidence, str(error)) for pair in pairs)
        return
    yield from (Comparison(*pair, results[pair], None, "holm", 0) for pair in pairs)


def _refused(choice: Choice[Test], first: str, second: str, evidence: Evidence, reason: str) -> Comparison:
    empty: dict[str, Any] = dict.fromkeys(
        ("statistic", "p_value", "df", "mean_a", "mean_b", "mean_difference", "interval", "effect_size",
         "effect_interval")
    )  # fmt: skip
    kinds: dict[str, type[TestResult]] = {
        "non-inferiority": MarginResult, "equivalence": MarginResult, "power": PowerResult
    }  # fmt: skip
    result = kinds.get(choice.entry.family, TestResult)(
        name=choice.entry.name,
        n=0,
        n_missing=0,
        unit="fold" if evidence.by_fold(choice.entry.needs) else "image",
        confidence=0.95,
        note=reason,
        **empty,
    )
    return Comparison(first, second, result, None, "holm", 0, refused=True)


def _coinciding(comparison: Comparison, groups: Sequence[Sequence[str]]) -> Comparison:
    """Call a pair identical that is known to be so."""
    result = comparison.result
    known = any(comparison.first in group and comparison.second in group for group in groups)
    if not known or result.identical or result.mean_difference is None:
        return comparison
    note = f"Identical up to scale; their scores differ by {number(result.mean_difference)} through rounding."
    return replace(
        comparison,
        result=replace(
            result,
            statistic=None,
            p_value=1.0,
            interval=None,
            effect_size=None,
            effect_interval=None,
            note=f"{note} {result.note}".strip(),
            identical=True,
        ),
    )
