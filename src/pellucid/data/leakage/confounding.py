"""Classes that something other than the picture tells: where it came from, or how its file was written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from pellucid.data.labels import members
from pellucid.data.manifest import Manifest

ASSOCIATION_COLUMNS = ("column", "label", "balanced_accuracy", "low", "cramers_v", "value", "units")
PEOPLE = ("age", "sex")
FEWEST = 5  # patients of a class, and of the others
_BINS = 10
_CATEGORIES = 20  # a number with more values is binned too
_TELLING_LETTERS = 4  # of a class's name, so that site "s1" isn't taken for class "1"
_Z = 1.645  # one-sided 95 %
_NOT_SOURCES = re.compile(
    r"(?i)(^|_)(sample|label|labels|class|classes|diagnosis|diagnoses|dx|target|split|fold|mask|masks|box|bbox|boxes|"
    r"path|file|filename|id|ids|uid|hash|sha256|md5|patient|lesion|commit)($|_)"
)


def associations(manifest: Manifest) -> pd.DataFrame:
    """How well each column, and each property of the files, tells each class from the others by itself.

    Columns of the manifest but for labels, identifiers, masks and paths are looked at, and of the files width, height,
    proportions, channels, bits, format and bytes per pixel. The rule says "this class" where the share of the class's
    images with that value exceeds that of the others. It is made without the patient (else lesion, else copies) whose
    image it judges, so that neither many values nor one patient's many images flatter it: unseen values count half.
    Numbers are taken as they are and in ten bins; the better counts.

    Returns column, label, balanced_accuracy (0.5 is chance), low (its one-sided 95 % bound, over patients),
    cramers_v (of column and all classes, corrected for bias: Bergsma 2013), value (that tells the class most) and
    units (patients, lesions or images of the class), best first.
    """
    table = manifest.table
    labels = table["label"].to_numpy(str)
    bearing = members(list(table["label"]), manifest.classes, manifest.multi_label)
    units = pd.factorize(_units(table))[0]
    rows = []
    for column, values in _columns(manifest).items():
        coded = _codings(values)
        if not coded or _is_label(values, table["label"]):
            continue
        v = max(cramers_v(codes, labels) for codes in coded)
        for label, here in zip(manifest.classes, bearing.T, strict=True):
            count, others = len(np.unique(units[here])), len(np.unique(units[~here]))
            if min(count, others) < FEWEST:
                continue
            accuracy, low = max(_told(codes, here, units) for codes in coded)
            rows.append((column, label, accuracy, low, v, _most_telling(values, here), count))
    found = pd.DataFrame(rows, columns=list(ASSOCIATION_COLUMNS))
    return found.sort_values(
        ["balanced_accuracy", "column", "label"], ascending=[False, True, True], ignore_index=True, kind="stable"
    )


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    """Cramér's V of two columns of categories, 0 to 1, corrected for bias; 0 where one is constant.

    Source: Bergsma 2013, A bias-correction for Cramér's V and Tschuprow's T, section 3.

    >>> cramers_v(np.array([0, 1] * 50), np.array(["a", "b"] * 50)), cramers_v(np.array([0, 0]), np.array(["a", "b"]))
    (1.0, 0.0)
    """
    counts = pd.crosstab(pd.factorize(first)[0], pd.factorize(second)[0]).to_numpy()
    r, c = counts.shape
    n = counts.sum()
    if min(r, c) < 2 or n < 2:
        return 0.0
    phi = chi2_contingency(counts, correction=False).statistic / n
    corrected = max(0.0, phi - (r - 1) * (c - 1) / (n - 1))
    sides = [side - (side - 1) ** 2 / (n - 1) for side in (r, c)]
    least = min(sides) - 1
    return float(min(1.0, np.sqrt(corrected / least))) if least > 0 else 0.0


def _columns(manifest: Manifest) -> dict[str, pd.Series]:
    table = manifest.table
    known = ("split", "patient_id", "mask", "pixel_hash")
    columns = {str(name): table[name] for name in table if name not in known and not _NOT_SOURCES.search(str(name))}
    columns["file format"] = pd.Series([Path(sample).suffix.lower() for sample in table["sample"]], table.index)
    if {"width", "height"} <= set(table):
        columns["proportions"] = (table["width"] / table["height"]).round(3)
        columns["bytes per pixel"] = _bytes(manifest) / (table["width"] * table["height"])
    return {name: values for name, values in columns.items() if values.nunique(dropna=False) > 1}


def _bytes(manifest: Manifest) -> pd.Series:
    sizes = []
    for sample in manifest.table["sample"]:
        try:
            sizes.append(float((manifest.root / sample).stat().st_size))
        except OSError:
            sizes.append(np.nan)
    return pd.Series(sizes, manifest.table.index)


def _units(table: pd.DataFrame) -> pd.Series:
    """Whose an image is, as far as it is known: the patient's, else the lesion's, else that of its copies."""
    units = "hash " + table["pixel_hash"].astype(str)
    for column in ("lesion_id", "patient_id"):
        if column in table:
            values = _text(table[column])
            units = units.where(values == "", f"{column} " + values)
    return units


def _codings(values: pd.Series) -> list[np.ndarray]:
    """The column as numbered categories, missing ones too; numbers with many values also in bins."""
    text = _text(values)
    codes = [pd.factorize(text)[0]]
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    if numbers.nunique() > _CATEGORIES and (numbers.notna() | (text == "")).all():
        edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
        binned = np.searchsorted(edges, numbers.to_numpy(float), side="right")
        codes.append(np.where(numbers.isna(), -1, binned))
    return codes


def _is_label(values: pd.Series, labels: pd.Series) -> bool:
    """Whether a column is the label by another name: each class one value that holds its name, or the other way."""
    pairs = pd.DataFrame({"value": _text(values).map(_bare), "label": labels.map(_bare)}).drop_duplicates()
    if pairs["value"].duplicated().any() or pairs["label"].duplicated().any():
        return False
    return all(
        a == b or (min(len(a), len(b)) >= _TELLING_LETTERS and (a in b or b in a))
        for a, b in pairs.itertuples(index=False)
    )


def _text(values: pd.Series) -> pd.Series:
    """Values as text, missing ones as ""."""
    return values.astype(object).where(values.notna(), "").astype(str)


def _bare(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _told(codes: np.ndarray, here: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of the rule and its lower bound; each image judged without its unit."""
    _, value = np.unique(codes, return_inverse=True)
    _, unit = np.unique(units, return_inverse=True)
    _, both = np.unique(value * (unit.max() + 1) + unit, return_inverse=True)
    shares = []
    for of in (here, ~here):
        of_value, of_unit, of_both = (np.bincount(numbers, of)[numbers] for numbers in (value, unit, both))
        shares.append((of_value - of_both) / np.maximum(of.sum() - of_unit, 1))
    said = np.where(np.isclose(shares[0], shares[1], rtol=0, atol=1e-12), 0.5, shares[0] > shares[1])
    accuracy, variance = 0.0, 0.0
    for of, right in ((here, said), (~here, 1 - said)):
        accuracy += float(right[of].mean()) / 2
        images = np.bincount(unit, of)
        each = np.bincount(unit, right * of)[images > 0] / images[images > 0]  # a unit counts once
        share = (each.sum() + 0.5) / (len(each) + 1)
        variance += share * (1 - share) / len(each)
    return accuracy, float(accuracy - _Z * np.sqrt(variance) / 2)


def _most_telling(values: pd.Series, here: np.ndarray) -> str:
    """The value whose share among the class exceeds that among the others most; a number by its middle half."""
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    if numbers.nunique() > _CATEGORIES:
        low, high = np.nanquantile(numbers[here], (0.25, 0.75)) if numbers[here].notna().any() else (np.nan, np.nan)
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    text = _text(values)
    surplus = text[here].value_counts(normalize=True).sub(text[~here].value_counts(normalize=True), fill_value=0)
    value = str(surplus.sort_index(kind="stable").idxmax())
    return value or "none given"
