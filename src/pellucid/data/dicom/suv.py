"""From activity to the standardised uptake value by body weight.

Source: PS3.3, C.8.9.1 (units, decay correction) and C.8.9.2 (the tracer); QIBA's vendor-neutral formula for SUVbw.
"""

from __future__ import annotations

import datetime

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from pellucid.data.dicom.elements import item, number, text, words
from pellucid.data.whole import DecodeError

_DAY = 86400.0


def suv_factor(header: Dataset) -> tuple[float | None, str]:
    """What activity in Bq/ml is multiplied with, in g/Bq, or None and what is missing.

    The injected dose is decayed to the time that pixels are corrected to: to the start of the series with
    DecayCorrection START, not at all with ADMIN.
    """
    tracer = item(header, "RadiopharmaceuticalInformationSequence")
    if tracer is None:
        return None, "the tracer isn't described"
    try:
        weight, dose = number(header, "PatientWeight"), number(tracer, "RadionuclideTotalDose")
        half_life = number(tracer, "RadionuclideHalfLife")
    except DecodeError:
        return None, "weight, dose or half-life are damaged"
    if not weight or weight <= 0:
        return None, "the weight is missing"
    if not dose or dose <= 0:
        return None, "the injected dose is missing"
    corrected = text(header, "DecayCorrection")
    if "DECY" not in words(header, "CorrectedImage") or corrected not in ("START", "ADMIN"):
        return None, "the image isn't corrected for decay to a known time"
    if corrected == "ADMIN":
        return weight * 1000 / dose, ""
    if not half_life or half_life <= 0:
        return None, "the half-life is missing"
    elapsed = _elapsed(header, tracer)
    if elapsed is None:
        return None, "the times of injection and of the scan are missing or don't agree"
    return weight * 1000 / (dose * 2 ** (-elapsed / half_life)), ""


def _elapsed(header: Dataset, tracer: Dataset) -> float | None:
    """Seconds from the injection to the time that decay is corrected to, within a day."""
    series = _moment(text(header, "SeriesDate"), text(header, "SeriesTime"))
    acquired = _moment(text(header, "AcquisitionDate"), text(header, "AcquisitionTime"))
    if series is None or acquired is None or series > acquired:  # a series made later bears its own time
        return None
    begun = _stamp(text(tracer, "RadiopharmaceuticalStartDateTime"))
    if begun is None:
        begun = _moment(text(header, "SeriesDate"), text(tracer, "RadiopharmaceuticalStartTime"))
        if begun is not None and begun > series:  # before midnight
            begun -= datetime.timedelta(days=1)
    if begun is None:
        return None
    elapsed = (series - begun).total_seconds()
    return elapsed if 0 <= elapsed < _DAY else None


def _moment(date: str, time: str) -> datetime.datetime | None:
    if not date or not time:
        return None
    try:
        day, hour = DA(date), TM(time)
    except (ValueError, TypeError):
        return None
    return datetime.datetime(
        day.year, day.month, day.day, hour.hour, hour.minute, hour.second, hour.microsecond
    )  # fmt: skip


def _stamp(stamp: str) -> datetime.datetime | None:
    try:
        found = DT(stamp)
    except (ValueError, TypeError):
        return None
    if not isinstance(found, datetime.datetime) or len(stamp) < 14:
        return None
    return datetime.datetime(
        found.year, found.month, found.day, found.hour, found.minute, found.second, found.microsecond
    )  # fmt: skip
