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


CUTTING = """
import mmap, os, sys
from onnxslim_bert import cli
from onnxslim_bert.graph.claims import scratch

def work(*arguments, **named):
    with scratch(), open(sys.argv[1], "rb") as file:
        weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.truncate(sys.argv[1], 1 << 16)
        print(weights[0])
        print(weights[1 << 18])

cli.cli.main = work
cli.main([])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_file_that_is_cut_short_while_it_is_read_is_named(tmp_path):
    """And nothing temporary stays."""
    weights, temporary = tmp_path / "weights\x1b", tmp_path / "tmp"
    weights.write_bytes(bytes(1 << 20))
    temporary.mkdir()
    command = [sys.executable, "-c", CUTTING, str(weights)]
    variables = environment(TMPDIR=str(temporary))
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    said = "onnxslim: weights\\x1b was cut short while it was read; nothing was written: run it again\n"
    assert (ended.returncode, ended.stderr) == (2, said)
    assert list(temporary.iterdir()) == []
