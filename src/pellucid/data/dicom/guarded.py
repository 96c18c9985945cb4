"""A decoder's call, given up when it takes far longer than any whole picture would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.data.whole import DecodeError

_LOOK = 0.2  # seconds between looks


def within(seconds: float, decode: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """What `decode` gives, unless it has had more than `seconds` of a processor; then DecodeError.

    CharLS counts to 2^32 on some damaged JPEG-LS streams, which nothing in their headers tells. It can't be stopped
    from outside, so that it is left to run out in a thread that nobody waits for. Only a decoder that gives up Python's
    lock may be called here.
    """
    result: list[np.ndarray] = []
    fault: list[Exception] = []

    def run() -> None:
        try:
            result.append(decode(*arguments))
        except Exception as error:  # noqa: BLE001 - handed on, whatever it is
            fault.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    begun = time.monotonic()
    while thread.is_alive():
        thread.join(_LOOK)
        if thread.is_alive() and _spent(thread, begun) > seconds:
            raise DecodeError("the compressed pixels are damaged (their decoder finds no end)")
    if fault:
        raise fault[0]
    return result[0]


def _spent(thread: threading.Thread, begun: float) -> float:
    """Seconds of a processor that a thread has had; where a system can't tell, a tenth of those that have gone by."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    if clock_of is None or thread.ident is None:
        return (time.monotonic() - begun) / 10
    try:
        return time.clock_gettime(clock_of(thread.ident))
    except OSError:  # it has just ended
        return 0.0
