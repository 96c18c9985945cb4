import io

import pytest
from rich.console import Console

from pellucid import progress as module
from pellucid.progress import duration, in_parts, progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def test_plain_lines_off_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 10, console=Console(file=io.StringIO())) as advance:
        clock.now = 5
        advance(2)
        clock.now = 12
        advance(2, note="half")
        clock.now = 30
        advance(6)
    assert capsys.readouterr().err == "reading: 4/10, 18 s left, half\nreading: 10/10, 30 s, half\n"


def test_no_time_left_is_made_up_before_anything_is_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("explaining", 4, console=Console(file=io.StringIO())) as advance:
        clock.now = 12
        advance(0, "rise, 20 rows")
        clock.now = 24
        advance(0.5)  # of one of four
        clock.now = 36
        advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "explaining: 0/4, 12 s so far, rise, 20 rows",
        "explaining: 0/4, 2 min 48 s left, rise, 20 rows",
        "explaining: 1/4, 1 min 0 s left, rise, 20 rows",
        "explaining: 1/4, 36 s, rise, 20 rows",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_parts_of_steps_add_up_to_all(clock: Clock, capsys: pytest.CaptureFixture[str], terminal: bool) -> None:
    screen = io.StringIO()
    with progress("explaining", 3, console=Console(file=screen, force_terminal=terminal, width=120)) as advance:
        part = in_parts(advance, 7)
        for _ in range(21):
            clock.now += 11
            part(0.3)
            part(0.7)
    told = screen.getvalue() if terminal else capsys.readouterr().err.splitlines()[-1]
    assert "3/3" in told


def test_quick_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 3, console=Console(file=io.StringIO())) as advance:
        clock.now = 1
        advance(3)
    assert capsys.readouterr().err == ""


def test_show_false_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 3, show=False) as advance:
        clock.now = 100
        advance(3, note="x")
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    with progress("reading", 3, console=Console(file=screen, force_terminal=True, width=120)) as advance:
        advance(1)
        advance(2, note="nearly")
    assert "reading" in screen.getvalue()
    assert "3/3" in screen.getvalue()
    assert "nearly" in screen.getvalue()


def test_duration_rounds_to_what_matters() -> None:
    assert [duration(s) for s in (0.4, 59.4, 60, 3599, 7260)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 1 min",
    ]
