"""Warnings as notes of the log."""

from __future__ import annotations

import logging
import warnings

import pytest

from pellucid.metrics.evaluate import MissingValuesWarning, UnmovedScoreWarning
from pellucid.study.notes import noted

_log = logging.getLogger("notes")


def test_each_warning_is_a_note_each_time_but_for_those_told_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with noted(_log, MissingValuesWarning):
            warnings.warn("one value is missing", MissingValuesWarning, stacklevel=1)
            warnings.warn("a score stays", UnmovedScoreWarning, stacklevel=1)
    assert caplog.messages == ["note: a score stays"] * 2
