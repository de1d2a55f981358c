"""A model is opened where it can do no harm: what the process says, and what its death means."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from answering_models import WORDS, classifier
from command_line import environment

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph import apart
from onnxslim_bert.graph.apart import answers_apart

TABLE = np.ones((WORDS + 1, 2))
ROW = {"input_ids": np.ones((1, 3), np.int64), "attention_mask": np.ones((1, 3), np.int64)}


@pytest.fixture(autouse=True)
def _new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As commands have them; other tests ask a fork (tests/conftest.py)."""
    monkeypatch.setattr(apart, "ask", apart.in_new_python)


def test_finite_answers_are_told_from_others(tmp_path: Path) -> None:
    """Three words of 3e38 each leave float32."""
    assert answers_apart(classifier(tmp_path / "m.onnx", TABLE), ROW)
    huge = classifier(tmp_path / "huge.onnx", TABLE * 3e38)
    assert not answers_apart(huge, ROW)
    assert answers_apart(huge, {}), "without a row it is only opened"


def test_a_file_that_does_not_open_or_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"no\.onnx: not a complete ONNX file"):
        answers_apart(tmp_path / "no.onnx", ROW)
    nobody = onnx.load(classifier(tmp_path / "nobody.onnx", TABLE))
    nobody.graph.node[0].op_type = "NobodyKnows"
    onnx.save(nobody, tmp_path / "nobody.onnx")
    with pytest.raises(ModelError, match=r"nobody\.onnx: ONNX Runtime cannot load it"):
        answers_apart(tmp_path / "nobody.onnx", ROW)
    beyond = {**ROW, "input_ids": np.full((1, 3), 99, np.int64)}
    with pytest.raises(ModelError, match="does not run on input_ids"):
        answers_apart(classifier(tmp_path / "m.onnx", TABLE), beyond)


def test_a_process_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime does on some graphs: of signal 11, without a word."""
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(ModelError, match=r"m\.onnx: ONNX Runtime ends with it \(exit code -11\); nothing was written"):
        answers_apart(classifier(tmp_path / "m.onnx", TABLE), ROW)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="waits on a pipe")
def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """Also where it would wait for ever, and whoever started it was killed."""
    os.mkfifo(tmp_path / "row.npz")
    command = [sys.executable, "-m", "onnxslim_bert.graph.apart", str(classifier(tmp_path / "m.onnx", TABLE))]
    process = subprocess.Popen([*command, str(tmp_path / "row.npz"), "60"], stdin=subprocess.PIPE, env=environment())
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 1
