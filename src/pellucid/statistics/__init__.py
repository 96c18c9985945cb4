"""Statistics: arrays in, small frozen results out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.statistics.agreement import MaskAgreement, mask_agreement, rating_agreement
from pellucid.statistics.bootstrap import (
    Estimate,
    WeightStatistic,
    bootstrap,
    bootstrap_columns,
    mean_of,
    of_rows,
    summarise,
)
from pellucid.statistics.class_metrics import CLASS_METRICS, LABEL_SET_METRICS, SCORE_METRICS
from pellucid.statistics.classification import (
    SCORES,
    Predictions,
    Score,
    classification_intervals,
    classification_scores,
    confusion_matrix,
    measure,
    predictions,
)
from pellucid.statistics.compare import ROW_COLUMNS, Comparison, compare, compare_all, correct_family
from pellucid.statistics.corrections import Adjusted, adjust
from pellucid.statistics.delong import delong, delong_clustered
from pellucid.statistics.evidence import Evidence
from pellucid.statistics.friedman import MethodRanks, critical_difference, friedman, groups_within
from pellucid.statistics.margins import equivalence, non_inferiority
from pellucid.statistics.mcnemar import mcnemar, mcnemar_clustered
from pellucid.statistics.measured import Measured
from pellucid.statistics.multi_label import LabelPredictions, label_predictions, measure_labels
from pellucid.statistics.nemenyi import friedman_nemenyi
from pellucid.statistics.paired import corrected_resampled_t, paired_t
from pellucid.statistics.permutation import permutation
from pellucid.statistics.power import detectable_difference
from pellucid.statistics.registry import TESTS
from pellucid.statistics.results import MarginResult, PowerResult, TestResult
from pellucid.statistics.thresholds import THRESHOLD_RULES, Decision, choose_thresholds, decide
from pellucid.statistics.units import Units, by_unit, units_of
from pellucid.statistics.wilcoxon import wilcoxon

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CLASS_METRICS",
    "LABEL_SET_METRICS",
    "ROW_COLUMNS",
    "SCORES",
    "SCORE_METRICS",
    "TESTS",
    "THRESHOLD_RULES",
    "Adjusted",
    "Comparison",
    "Decision",
    "Estimate",
    "Evidence",
    "LabelPredictions",
    "MarginResult",
    "MaskAgreement",
    "Measured",
    "MethodRanks",
    "PowerResult",
    "Predictions",
    "Score",
    "TestResult",
    "Units",
    "WeightStatistic",
    "adjust",
    "bootstrap",
    "bootstrap_columns",
    "by_unit",
    "choose_thresholds",
    "classification_intervals",
    "classification_scores",
    "compare",
    "compare_all",
    "confusion_matrix",
    "correct_family",
    "corrected_resampled_t",
    "critical_difference",
    "decide",
    "delong",
    "delong_clustered",
    "detectable_difference",
    "equivalence",
    "friedman",
    "friedman_nemenyi",
    "groups_within",
    "label_predictions",
    "mask_agreement",
    "mcnemar",
    "mcnemar_clustered",
    "mean_of",
    "measure",
    "measure_labels",
    "non_inferiority",
    "of_rows",
    "paired_t",
    "permutation",
    "predictions",
    "rating_agreement",
    "summarise",
    "tests",
    "units_of",
    "wilcoxon",
]


def tests() -> pd.DataFrame:
    """The registered tests as a table: name, family (what it asks), needs, options, source, summary.

    >>> tests()["name"].tolist()[:2]
    ['paired-t', 'corrected-resampled-t']
    """
    return TESTS.table()
