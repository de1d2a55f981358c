"""A signal ends a command, also where Python drops its exception."""

import ast
import signal
import subprocess
import sys
import time

import pytest
from command_line import environment, run_python

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


# the signal comes while a native module is loaded, which may end the process where that raises an exception
LOADING = DROPPING.replace(
    "    weak = weakref.ref(referred, lambda _: (os.kill(os.getpid(), {number}), [None for _ in range(100)]))\n"
    "    del referred",
    "    _imp.exec_dynamic = lambda _: (os.kill(os.getpid(), {number}), [None for _ in range(100)])\n"
    "    ExtensionFileLoader('native', 'native.so').exec_module(sys)",
).replace("import os, ", "from importlib.machinery import ExtensionFileLoader\nimport _imp, os, ")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "onnxslim: interrupted; nothing was written\n"), (signal.SIGTERM, 143, "")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_native_module_is_loaded_first(number, code, said):
    command = [sys.executable, "-c", LOADING.format(number=int(number))]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "goes on\n", said)


def test_what_else_is_dropped_is_told():
    """A bug in a destructor is nobody's signal."""
    program = DROPPING.format(number=0).replace("os.kill(os.getpid(), 0)", "1 / 0").replace("timeout=20", "timeout=0.2")
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment()
    )
    assert "ZeroDivisionError" in ended.stderr
    assert ended.returncode == 1, "the queue stayed empty"


# native code that is interrupted prints that and raises an exception of its own, as numpy's does while it is imported
REPLACING = """
import os, sys
from onnxslim_bert import cli
from onnxslim_bert.errors import ModelError

def work(*arguments, **named):
    try:
        os.kill(os.getpid(), {number})
        [None for _ in range(100)]
    except BaseException:
        sys.excepthook(*sys.exc_info())
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


# Ctrl-C comes at a line of the code that holds temporary folders, and SIGTERM some lines later, while it is on its way
AT_A_LINE = """
import os, signal, sys, tempfile
from pathlib import Path
from onnxslim_bert import cli
from onnxslim_bert.graph import claims, held_signals

FILES = {claims.__file__, held_signals.__file__, cli.signals.__file__}

def work(*arguments, **named):
    with claims.claimed(Path("made.onnx")) as folder, claims.scratch() as other:
        for place in (folder, other):
            (place / "half").write_text("half")

def interrupted(first, later):
    passed = 0
    def traced(frame, event, _):
        nonlocal passed
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            passed += 1
            if passed == first:
                signal.raise_signal(signal.SIGINT)
            if passed == first + later:
                signal.raise_signal(signal.SIGTERM)
        return traced
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open("said", "w") as sys.stderr:
        sys.settrace(traced)
        try:
            cli.main([])
        except SystemExit as end:
            return end.code
        finally:
            sys.settrace(None)
    return 0 if passed < first else 1

os.chdir(sys.argv[1])
Path("tmp").mkdir()
tempfile.tempdir = str(Path("tmp").resolve())
cli.cli.main, cli.check_memory, cli.warn_of_clash = work, lambda: None, lambda: None
first, later, codes = 1, int(sys.argv[2]), []
while 0 not in codes:
    child = os.fork()
    if not child:
        code = 1
        try:
            code = interrupted(first, later)
        finally:
            os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    left = sorted(str(path) for path in Path().rglob("*") if path.name not in ("said", "tmp"))
    said = Path("said").read_text()
    right = codes[-1] in (0, 130, 143, -2, -15) and said in ("", "onnxslim: interrupted; nothing was written\\n")
    if left or not right:
        print(first, codes[-1], left, said)
        break
    first += 1
print(len(codes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names are claimed by locks, and processes forked")
@pytest.mark.parametrize("later", [3, 10_000])
def test_a_signal_at_any_line_and_one_more_leave_nothing(tmp_path, later):
    said = run_python(AT_A_LINE, tmp_path, later)
    assert said.strip().isdecimal(), said
    assert int(said) > 100, "few lines were interrupted"


def test_before_the_command_line_is_there_a_signal_ends_it_without_a_word():
    program = """
import importlib.abc, os, signal, sys
class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from onnxslim_bert.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, env=environment())
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")


def test_nothing_is_imported_before_signals_are_its_own():
    """Until then Python's handler prints where it was, so that time must be short."""
    program = (
        "import signal, sys; before = set(sys.modules); import onnxslim_bert.__main__; print(set(sys.modules) - before)"
    )
    assert set(ast.literal_eval(run_python(program))) == {"onnxslim_bert", "onnxslim_bert.__main__"}
