"""Statistics: arrays in, small frozen results out."""

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
from pellucid.statistics.compare import Comparison, compare_all, correct_family
from pellucid.statistics.corrections import Adjusted, adjust
from pellucid.statistics.friedman import MethodRanks, critical_difference, friedman, groups_within
from pellucid.statistics.measured import Measured
from pellucid.statistics.multi_label import LabelPredictions, label_predictions, measure_labels
from pellucid.statistics.paired import TestResult, corrected_resampled_t, paired_t
from pellucid.statistics.thresholds import THRESHOLD_RULES, Decision, choose_thresholds, decide
from pellucid.statistics.units import Units, by_unit, units_of

__all__ = [
    "CLASS_METRICS",
    "LABEL_SET_METRICS",
    "SCORES",
    "SCORE_METRICS",
    "THRESHOLD_RULES",
    "Adjusted",
    "Comparison",
    "Decision",
    "Estimate",
    "LabelPredictions",
    "MaskAgreement",
    "Measured",
    "MethodRanks",
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
    "compare_all",
    "confusion_matrix",
    "correct_family",
    "corrected_resampled_t",
    "critical_difference",
    "decide",
    "friedman",
    "groups_within",
    "label_predictions",
    "mask_agreement",
    "mean_of",
    "measure",
    "measure_labels",
    "of_rows",
    "paired_t",
    "predictions",
    "rating_agreement",
    "summarise",
    "units_of",
]
