"""Statistics: arrays in, small frozen results out."""

from pellucid.statistics.agreement import MaskAgreement, mask_agreement, rating_agreement
from pellucid.statistics.bootstrap import Estimate, WeightStatistic, bootstrap, mean_of, of_rows, summarise
from pellucid.statistics.classification import (
    SCORES,
    ClassScores,
    Predictions,
    Score,
    class_scores,
    classification_intervals,
    classification_scores,
    confusion_matrix,
    predictions,
)
from pellucid.statistics.compare import Comparison, compare_all, correct_family
from pellucid.statistics.corrections import Adjusted, adjust
from pellucid.statistics.friedman import MethodRanks, critical_difference, friedman, groups_within
from pellucid.statistics.paired import corrected_resampled_t, paired_t
from pellucid.statistics.results import MarginResult, PowerResult, TestResult
from pellucid.statistics.units import Units, by_unit, units_of

__all__ = [
    "SCORES",
    "Adjusted",
    "ClassScores",
    "Comparison",
    "Estimate",
    "MaskAgreement",
    "MethodRanks",
    "Predictions",
    "Score",
    "TestResult",
    "Units",
    "WeightStatistic",
    "adjust",
    "bootstrap",
    "by_unit",
    "class_scores",
    "classification_intervals",
    "classification_scores",
    "compare_all",
    "confusion_matrix",
    "correct_family",
    "corrected_resampled_t",
    "critical_difference",
    "friedman",
    "groups_within",
    "mask_agreement",
    "mean_of",
    "of_rows",
    "paired_t",
    "predictions",
    "rating_agreement",
    "summarise",
    "units_of",
]
