"""Loggers of other packages that would print patients' names and UIDs, held back while those packages work."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_TALKATIVE = ("pynetdicom", "pydicom", "highdicom", "urllib3", "requests")


@contextlib.contextmanager
def quiet_loggers() -> Iterator[None]:
    """Hold back what those packages log, which quotes values, UIDs and addresses."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:  # those below them ask them for their level
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """As `quiet_loggers`, and pydicom's warnings too, which quote what a PACS sent."""
    with quiet_loggers(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)  # pynetdicom's, where it couldn't connect
        yield
