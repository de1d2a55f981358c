"""Calls of native code share seconds beyond those that their size explains; one that stays ends the process."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from onnxslim_bert.graph.patience import patience, renewed
from onnxslim_bert.job import run as job_run


def work(seconds: float) -> None:
    """Native code that uses the CPU for about so long, and lets other threads run."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)


def test_what_calls_take_beyond_the_usual_is_shared():
    with renewed(seconds=5.0):
        with patience.for_call(10.0):
            work(0.1)
        assert patience.left == 5.0
        for _ in range(2):
            with patience.for_call(0.05):
                work(0.15)
        assert 4.0 < patience.left <= 4.8


def test_a_call_is_asked_to_stop_when_nothing_is_left_and_not_before():
    asked = threading.Event()
    with renewed(seconds=0.3):
        with patience.for_call(0.0, asked.set) as call:
            work(0.1)
            assert not asked.is_set()
            work(0.5)
            assert asked.wait(2)
            assert call.over
        assert patience.left == 0


def test_waiting_is_not_held_against_a_call():
    """A machine that is busy with other work runs this one late, which is no fault of the model."""
    with renewed(seconds=0.2):
        with patience.for_call(0.0) as call:
            time.sleep(0.5)
            assert not call.over
        assert patience.left > 0


def test_a_budget_of_its_own_ends_with_its_block():
    before = patience.left
    with renewed(seconds=1.0):
        assert patience.left == 1.0
    assert patience.left == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_watches_its_own_calls():
    with patience.for_call(60.0):
        pass
    child = os.fork()
    if not child:
        asked = threading.Event()
        with renewed(seconds=0.1), patience.for_call(0.0, asked.set):
            work(0.4)
        os._exit(0 if asked.is_set() else 7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_each_job_of_a_process_has_its_own(tmp_path, monkeypatch):
    """One that took all its time leaves the next one its own."""
    seen = []
    monkeypatch.setattr(job_run, "check_free", lambda job: None)
    monkeypatch.setattr(job_run, "run_in", lambda folder, job: (seen.append(patience.left), spend()))

    def spend():
        with patience.for_call(-patience.left):
            pass

    for name in "ab":
        job_run.run(SimpleNamespace(output=tmp_path / f"{name}.onnx"))
    assert seen[0] == seen[1] > 0


STUCK = """
import hashlib, sys
from pathlib import Path
from onnxslim_bert.graph import patience as shared
shared.SHARED, shared.GRACE = 0.2, 0.2
from onnxslim_bert.cli.stuck import ended_when_stuck
from onnxslim_bert.graph.files import staging
from onnxslim_bert.native_output import native_output
with ended_when_stuck(), staging(Path(sys.argv[1])), native_output():
    with shared.patience.for_call(0.0):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # minutes, and no exception gets through
"""


def test_a_call_that_does_not_stop_ends_the_command_in_a_line_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path / "made.onnx")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("onnxslim: ONNX Runtime is inside of one node")
    assert len(done.stderr.splitlines()) == 1
    assert not [*tmp_path.iterdir()]
