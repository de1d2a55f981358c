"""Long work says what it does, how far it is, and how long it still takes: on a terminal, and nowhere else."""

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
        assert progress is not None
        for done in range(4):
            progress("measuring: layer 1", done, 4)
            time.sleep(0.05)
    shown = stream.getvalue()
    assert "measuring: layer 1" in shown
    assert "75%" in shown
    assert re.search(r"\d:\d\d:\d\d", shown)


def test_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress_bar() as progress:
        assert progress is None


def test_one_bar_is_shown_that_of_the_stage_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that ended, or that another interrupts, leaves no bar behind; one that begins again has its own time."""
    made: list[Progress] = []

    class Kept(Progress):
        def start(self) -> None:
            made.append(self)

    monkeypatch.setattr("rich.progress.Progress", Kept)
    monkeypatch.setattr("sys.stderr", Terminal())
    with progress_bar() as progress:
        assert progress is not None
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
