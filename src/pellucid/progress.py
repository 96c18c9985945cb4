"""Progress with time left: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_LINE_EVERY_SECONDS = 10.0


class Advance(Protocol):
    """Called with the steps, or parts of one, done since the last call and, if wanted, a note beside the bar."""

    def __call__(self, steps: float = 1, note: str = "") -> None: ...


@contextlib.contextmanager
def progress(title: str, total: int, *, show: bool = True, console: Console | None = None) -> Iterator[Advance]:
    """Show how far `total` steps have come and the time left, on standard error.

    On a terminal a bar; elsewhere a plain line at most every ten seconds and one at the end, nothing for work
    that ends within two seconds. `show=False` shows nothing.
    """
    if not show:
        yield lambda steps=1, note="": None
        return
    console = console or Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            task, done = bar.add_task(title, total=total, note=""), 0.0

            def advance(steps: float = 1, note: str = "") -> None:
                nonlocal done
                done += steps
                bar.update(task, completed=round(done, 6))
                if note:
                    bar.update(task, note=note)

            yield advance
        return
    lines = _PlainLines(title, total)
    yield lines
    lines.end()


def heard(listener: bool | Advance, title: str, total: int) -> contextlib.AbstractContextManager[Advance]:
    """The function that hears of steps; or, for True, a bar on standard error, and for False nothing.

    >>> with heard(lambda steps=1, note="": print(steps, note), "counting", 2) as advance:
    ...     advance(2, "done")
    2 done
    """
    return progress(title, total, show=listener) if isinstance(listener, bool) else contextlib.nullcontext(listener)


def in_parts(advance: Advance, parts: int) -> Advance:
    """Hears of steps of which `parts` make one of another listener's.

    >>> told = in_parts(lambda steps=1, note="": print(steps, note), 4)
    >>> told(2, "half")
    0.5 half
    """

    def told(steps: float = 1, note: str = "") -> None:
        advance(steps / parts, note)

    return told


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
    )


class _PlainLines:
    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done, self.note = title, total, 0.0, ""
        self.started = self.printed = time.monotonic()

    def __call__(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        self.note = note or self.note
        now = time.monotonic()
        if now - self.printed >= PLAIN_LINE_EVERY_SECONDS and self._whole < self.total:
            self.printed = now
            so_far = now - self.started
            left = f"{duration(so_far / self.done * (self.total - self.done))} left" if self.done else ""
            self._print(left or f"{duration(so_far)} so far")

    def end(self) -> None:
        seconds = time.monotonic() - self.started
        if seconds >= 2.0:
            self._print(f"{duration(seconds)}")

    @property
    def _whole(self) -> int:
        return int(round(self.done, 6))  # parts may add up to a little less

    def _print(self, when: str) -> None:
        note = f", {self.note}" if self.note else ""
        sys.stderr.write(f"{self.title}: {self._whole}/{self.total}, {when}{note}\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds as a person writes them.

    >>> duration(4), duration(75), duration(3700)
    ('4 s', '1 min 15 s', '1 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
