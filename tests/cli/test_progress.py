"""Long work says what it does and how far it is: a bar and the time left on a terminal, a line a minute elsewhere."""

import io
import re
import time

import pytest
from rich.progress import Progress

from onnxslim_bert.cli.progress import progress_bar


class Terminal(io.StringIO):
    """A stream that says that people read it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_share_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three of four steps in some time, a quarter of it is left: a time, and 75 %."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar() as progress:
        for done in range(4):
            progress("measuring: layer 1", done, 4)
            time.sleep(0.05)
    shown = stream.getvalue()
    assert "measuring: layer 1" in shown
    assert "75%" in shown
    assert re.search(r"\d:\d\d:\d\d", shown)


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of less than a minute prints nothing; what is longer says once a minute where it is."""
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress_bar() as progress:
        for done, clock[0] in enumerate((1.0, 59.0, 61.0, 119.0, 125.0, 3700.0)):
            progress(f"measuring: layer {done}", done, 6)
    assert stream.getvalue().splitlines() == [
        "1 min 1 s: measuring: layer 2, 33%, 2 min 0 s left",
        "2 min 5 s: measuring: layer 4, 67%, 1 min 2 s left",
        "1 h 1 min: measuring: layer 5, 83%, 12 min 20 s left",
    ]


def test_the_time_that_is_left_is_that_of_the_stage_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where it began, or began again; none is told before it moves."""
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress_bar() as progress:
        for stage, done, clock[0] in (
            ("plans", 2, 100.0),
            ("training: loss 3", 0, 200.0),
            ("training: loss 2", 5, 300.0),
            ("training: loss 3", 1, 400.0),
            ("training: loss 2", 4, 460.0),
        ):
            progress(stage, done, 10)
    left = [line.split(", ")[1:] for line in stream.getvalue().splitlines()]
    assert left == [["20%"], ["0%"], ["50%", "1 min 40 s left"], ["10%"], ["40%", "2 min 0 s left"]]


def test_one_bar_is_shown_that_of_the_stage_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that ended, or that another interrupts, leaves no bar behind; one that begins again has its own time."""
    made: list[Progress] = []

    class Kept(Progress):
        def start(self) -> None:
            made.append(self)

    monkeypatch.setattr("rich.progress.Progress", Kept)
    monkeypatch.setattr("sys.stderr", Terminal())
    with progress_bar() as progress:
        for stage, done in (
            ("plans", 1),
            ("training: loss 3", 1),
            ("training: loss 2", 4),
            ("plans", 2),
            ("training: loss 3", 1),
        ):
            progress(stage, done, 4)
            (bar,) = [task for task in made[0].tasks if task.visible]
            assert (bar.description, bar.completed, bar.finished) == (stage, done, done == 4)
