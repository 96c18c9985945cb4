"""What flatters a test score: copies, parted patients and lesions, and classes that their source tells."""

from pellucid.data.leakage.check import LeakageReport, check_leakage, report_leakage
from pellucid.data.leakage.exact import COPY_COLUMNS, CopyCounts, copy_in_train, count_copies, find_copies
from pellucid.data.leakage.finding import LeakageFinding
from pellucid.data.leakage.near import ALIKE, NEAR, NEAR_COLUMNS, copy_groups, copy_kind, find_near, near_groups
from pellucid.data.leakage.shown import shown_groups
from pellucid.data.leakage.thumbnails import Thumbnails, read_thumbnails

__all__ = [
    "ALIKE",
    "COPY_COLUMNS",
    "NEAR",
    "NEAR_COLUMNS",
    "CopyCounts",
    "LeakageFinding",
    "LeakageReport",
    "Thumbnails",
    "check_leakage",
    "copy_groups",
    "copy_in_train",
    "copy_kind",
    "count_copies",
    "find_copies",
    "find_near",
    "near_groups",
    "read_thumbnails",
    "report_leakage",
    "shown_groups",
]
