"""Loggers of other packages that would print patients' names and UIDs, held back while a PACS is spoken to."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_TALKATIVE = ("pynetdicom", "pydicom", "urllib3", "requests")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hold back what those loggers and pydicom's warnings would say, which quote values and addresses."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:  # those below them ask them for their level
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.filterwarnings("ignore", "unclosed", ResourceWarning)  # pynetdicom's, where it couldn't connect
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
