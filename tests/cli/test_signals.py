"""A signal ends a command, also where Python drops its exception."""

import signal
import subprocess
import sys
import time

import pytest
from command_line import environment

# the signal comes in a weak reference's callback, where its exception is dropped; then the command waits for long
DROPPING = """
import os, queue, signal, sys, weakref
from onnxslim_bert import cli

class Referred: pass

def work(*arguments, **named):
    referred = Referred()
    weak = weakref.ref(referred, lambda _: (os.kill(os.getpid(), {number}), [None for _ in range(100)]))
    del referred
    print("goes on", flush=True)
    queue.SimpleQueue().get(timeout=20)

cli.cli.main = work
cli.main([])
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "onnxslim: interrupted; nothing was written\n"), (signal.SIGTERM, 143, "")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_dropped_signal_comes_again(number, code, said):
    began = time.monotonic()
    command = [sys.executable, "-c", DROPPING.format(number=int(number))]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    assert ended.stdout == "goes on\n", "its exception was not dropped"
    assert (ended.returncode, ended.stderr) == (code, said)
    assert time.monotonic() - began < 15


def test_what_else_is_dropped_is_told():
    """A bug in a destructor is nobody's signal."""
    program = DROPPING.format(number=0).replace("os.kill(os.getpid(), 0)", "1 / 0").replace("timeout=20", "timeout=0.2")
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment()
    )
    assert "ZeroDivisionError" in ended.stderr
    assert ended.returncode == 1, "the queue stayed empty"


# native code that is interrupted raises an exception of its own, as numpy's does while it is imported
REPLACING = """
import os
from onnxslim_bert import cli
from onnxslim_bert.errors import ModelError

def work(*arguments, **named):
    try:
        os.kill(os.getpid(), {number})
        [None for _ in range(100)]
    except BaseException:
        raise {error}("numpy.core.multiarray failed to import")

cli.cli.main = work
cli.main([])
"""


@pytest.mark.parametrize("error", ["ImportError", "ModelError", "ValueError"])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "onnxslim: interrupted; nothing was written\n"), (signal.SIGTERM, 143, "")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_that_became_another_error_is_still_a_signal(number, code, said, error):
    command = [sys.executable, "-c", REPLACING.format(number=int(number), error=error)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    assert (ended.returncode, ended.stderr) == (code, said)
