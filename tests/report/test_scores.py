"""The tables of maps: metrics by family, with options too, and the best in bold whichever way is better."""

from __future__ import annotations

import pandas as pd

from pellucid.report.scores import _ratio, family_tables
from pellucid.report.tables import Table

MEANS = {  # metric -> means of LayerCAM, saliency and the random control
    "peak-distance": (12.0, 8.0, 40.0),
    "deletion[steps=14]": (0.2, 0.4, 0.1),
    "sparseness": (0.3, 0.6, 0.33),
    "mine": (1.0, 2.0, 3.0),
    "energy-pointing": (0.2, 0.1, 0.05),
    "road-morf": (0.5, 0.3, 0.9),
}


def scores(names: list[str], n: int = 12) -> pd.DataFrame:
    """The summary that a study keeps, of images without a mask in half of the cases."""
    rows = [
        {"metric": name, "method": method, "label": "all", "correct": "all", "n": n, "missing": 24 - n}
        | {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        for name in names
        for method, mean in zip(("layer-cam", "saliency", "random"), MEANS[name], strict=True)
    ]
    return pd.DataFrame(rows)


def bold(table: Table, column: int) -> list[str]:
    return [row[0].text for row in table.rows if row[column].strong]


def test_each_family_has_a_table_of_its_own() -> None:
    tables = family_tables("net", scores(list(MEANS)), share=0.05)
    found = {table.caption: list(table.columns) for table in tables}
    assert found == {
        "Faithfulness over all explained images, net": ["Method", "MoRF\u00a0↓", "Deletion [steps=14]\u00a0↓"],
        "Where the maps lie, net": [
            "Method",
            "Peak distance\u00a0↓",
            "Relevance mass\u00a0↑",
            "Mass over lesion’s share",
        ],
        "Complexity over all explained images, net": ["Method", "Sparseness\u00a0↑"],
        "Other metrics over all explained images, net": ["Method", "Mine"],
    }


def test_the_best_method_is_bold_whichever_way_is_better_and_the_control_never() -> None:
    faithful, where, complexity, _ = family_tables("net", scores(list(MEANS)), share=0.05)
    assert bold(faithful, 1) == ["Saliency"]
    assert bold(faithful, 2) == ["LayerCAM"]
    assert bold(where, 1) == ["Saliency"]
    assert bold(where, 2) == ["LayerCAM"]
    assert bold(complexity, 1) == ["Saliency"]


def test_a_note_speaks_of_what_its_table_has() -> None:
    with_morf, where, *_ = family_tables("net", scores(list(MEANS)), share=0.05)
    assert "MoRF removes" in with_morf.note
    assert where.note.startswith(
        "Over 12 images with a lesion mask; 12 images without one left out. The lesion covers 5.0"
    )
    assert [row[3].text for row in where.rows] == ["4.0", "2.0", "1.0"]
    plain, where = family_tables("net", scores(["deletion[steps=14]", "peak-distance"], n=24), share=0.05)
    assert "MoRF" not in plain.note
    assert where.note == "Over 24 images with a lesion mask. In brackets intervals; the best method in bold. † Control."
    assert list(where.columns) == ["Method", "Peak distance\u00a0↓"]


def test_without_a_mask_nothing_is_said_of_where_maps_lie() -> None:
    assert family_tables("net", scores(["energy-pointing", "peak-distance"], n=0), share=0.0) == []


def test_a_long_time_is_told_in_forward_passes_without_powers_of_ten() -> None:
    assert [_ratio(value) for value in (0.0361, 1.0, 63.2, 99.6, 123.4)] == ["0.036", "1", "63", "100", "123"]
