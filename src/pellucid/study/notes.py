"""What is warned of while images are worked on, told as notes."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from pellucid.attribution.frozen import CompiledWarning
from pellucid.metrics.evaluate import NondeterministicWarning, UnmovedScoreWarning


@contextlib.contextmanager
def noted(log: logging.Logger, *told_elsewhere: type[Warning]) -> Iterator[None]:
    """Log what is warned of inside as notes, but for the kinds that the reader hears of elsewhere."""
    with warnings.catch_warnings(record=True) as told:
        for kind in told_elsewhere:
            warnings.simplefilter("ignore", kind)
        for each_time in (CompiledWarning, NondeterministicWarning, UnmovedScoreWarning):
            warnings.simplefilter("always", each_time)
        yield
    for each in told:
        log.warning("note: %s", each.message)
