"""Findings on patients and lesions: parted by the split, or of several classes."""

from __future__ import annotations

import pandas as pd

from pellucid.data.leakage.finding import LeakageFinding, Severity, conflicts, counted, number_groups


def findings(table: pd.DataFrame, multi_label: bool = False) -> list[LeakageFinding]:
    """Patients and lesions whose images lie in several parts of the split, or bear several labels.

    With `multi_label`, where labels don't exclude each other, the second isn't told.
    """
    found = []
    for column, noun in (("patient_id", "patient"), ("lesion_id", "lesion")):
        if column not in table:
            continue
        known = table[table[column].notna() & (table[column] != "")]
        if known.empty:
            continue
        groups = known.groupby(column)
        crossing = known[groups["split"].transform("nunique") > 1]
        if len(crossing):
            count = crossing[column].nunique()
            has = "has" if count == 1 else "have"
            sentence = f"{counted(count, noun)} {has} images in more than one part of the split."
            rows = number_groups(crossing, column)
            found.append(LeakageFinding(f"{noun}s-across-splits", "alarm", count, sentence, rows))
        several = known[groups["label"].transform("nunique") > 1]
        if len(several) and not multi_label:
            count = several[column].nunique()
            rows = number_groups(several, column)
            has = "has" if count == 1 else "have"
            sentence = f"{counted(count, noun)} {has} images of more than one class: {conflicts(rows)}."
            if noun == "lesion":
                sentence += " A lesion has one diagnosis at a time."
            severity: Severity = "note" if noun == "patient" else "warning"
            found.append(LeakageFinding(f"{noun}s-in-classes", severity, count, sentence, rows))
    return found + _unknown_patients(table)


def _unknown_patients(table: pd.DataFrame) -> list[LeakageFinding]:
    if (table["patient_id"] != "").any():
        return []
    sentence = "No patient ids are known, so that leakage between images of one patient can't be excluded."
    rows = pd.DataFrame(columns=["sample"])
    return [LeakageFinding("no-patients", "note", len(table), sentence, rows)]
