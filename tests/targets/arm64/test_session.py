"""A model that another process runs answers as a session here; what goes wrong there is said here.

The process is this Python: the emulator itself is tried in test_emulator.py.
"""

import sys

import numpy as np
import pytest
from graphs import feeds, fixture, prepared
from oracles import answers

from onnxslim_bert.errors import ModelError, ProviderError
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.targets.arm64.session import EmulatedSession
from onnxslim_bert.targets.assignment import placement_of
from onnxslim_bert.targets.setup import CPU_PROVIDER

HERE = (sys.executable, "-sPB")
NAME = "bert-ts17-sdpa"


def test_it_answers_as_a_session_here():
    model, here, there = prepared(NAME), open_session(fixture(NAME)), EmulatedSession(fixture(NAME), HERE)
    for ours, theirs in ((there.get_inputs(), here.get_inputs()), (there.get_outputs(), here.get_outputs())):
        assert [tuple(one) for one in ours] == [(one.name, one.type, one.shape) for one in theirs]
    for given in (feeds(model, 3, 7), feeds(model, 1, 5)):
        (expected,) = answers(model, [given])
        for name, values in zip(expected, there.run(None, given), strict=True):
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-6)


def test_its_nodes_are_placed():
    placed = placement_of(EmulatedSession(fixture(NAME), HERE), CPU_PROVIDER)
    assert placed.total > 10
    assert placed.whole


def test_what_onnx_runtime_refuses_there_is_one_line(tmp_path):
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"no\.onnx: ONNX Runtime cannot load it on 64-bit ARM"):
        EmulatedSession(path, HERE)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not UTF-8, as the emulator needs it: give another name"):
        EmulatedSession(tmp_path / "odd\udcff.onnx", HERE)


def test_rows_that_do_not_fit_leave_the_session_open():
    model, session = prepared(NAME), EmulatedSession(fixture(NAME), HERE)
    given = feeds(model, 2, 5)
    with pytest.raises(ModelError):
        session.run(None, {name: values.astype(np.float64) for name, values in given.items()})
    assert len(session.run(None, given)[0]) == 2


@pytest.mark.parametrize("program", ["raise SystemExit('illegal instruction')", "import os; os.abort()", "print(1)"])
def test_a_process_that_ends_is_one_line(program):
    with pytest.raises(ProviderError, match=r"the emulator of 64-bit ARM ended with -?[0-9]+ "):
        EmulatedSession(fixture(NAME), (sys.executable, "-c", program))


def test_a_process_that_ends_later_is_one_line():
    session = EmulatedSession(fixture(NAME), HERE)
    session._process.kill()
    session._process.wait()
    with pytest.raises(ProviderError, match=r"ended with -9 \(it said nothing\)"):
        session.run(None, feeds(prepared(NAME), 2, 5))
