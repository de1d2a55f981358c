"""A folder to bundle from, a device that is a folder, and results as a device would send them."""

import base64
import hashlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering_models import classifier, reading, texts
from command_line import Outcome, run

from onnxslim_bert.arrays import Array
from onnxslim_bert.device.bundle import Bundle, open_bundle
from onnxslim_bert.device.make import make_bundle
from onnxslim_bert.device.manifest import RunSettings
from onnxslim_bert.device.vectors import pack

HERE = Path(__file__).parent
LENGTH = 5
ROWS = ["w0 w1 w2", "w3 w4", "w5 w6 w0 w1"]
TABLE = np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32)
PLAN = RunSettings("cpu", threads=1, warmup=2, runs=7)


def small_bundle(folder: Path, plan: RunSettings = PLAN, length: int | None = LENGTH) -> Bundle:
    """A bundle of the three ROWS and a model whose logits are sums of rows of TABLE."""
    model = classifier(folder / "sums.onnx", TABLE)
    make_bundle(model, texts(ROWS), reading(folder), folder / "bundle", plan, length=length)
    return open_bundle(folder / "bundle")


def expected_logits() -> list[Array]:
    """What the model of `small_bundle` answers to each row [1, 3], computed by hand."""
    ids = [[int(word[1:]) + 1 for word in row.split()] for row in ROWS]
    return [TABLE[row].sum(axis=0, keepdims=True) for row in ids]


def results_of(bundle: Bundle, /, **changed: Any) -> dict[str, Any]:
    """A whole results.json, with fields changed; None drops a field."""
    document = {
        "schema": 1,
        "tool": "an app",
        "bundle": bundle.sha256,
        "device": "Phone 9",
        "runner": "an app",
        "latencies_ms": [3, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0],
        "outputs": {f"test_data_set_{k}/output_0.pb": sent(values) for k, values in enumerate(expected_logits())},
    }
    return {name: value for name, value in (document | changed).items() if value is not None}


def sent(values: Array) -> dict[str, str]:
    """A tensor as results hold it."""
    return packed(pack("logits", values))


def packed(data: bytes) -> dict[str, str]:
    """Bytes as results hold them."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "data": base64.b64encode(data).decode()}


def save(path: Path, document: dict[str, Any]) -> Path:
    """The document as JSON at `path`."""
    path.write_text(json.dumps(document))
    return path


class Device:
    """A device behind a fake adb on PATH, with the fake runner to push."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scratch = folder / "device"
        self.scratch.mkdir()
        self.runner = program(folder / "perf_test", "fake_runner.py")
        program(folder / "bin" / "adb", "fake_adb.py")
        self._patch = monkeypatch
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_DEVICE", str(self.scratch))
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)

    def run(self, bundle: Path, *options: object, adb: str = "", runner: str = "") -> Outcome:
        """`onnxslim device run`, with adb and the runner failing as told."""
        self._patch.setenv("FAKE_ADB", adb)
        self._patch.setenv("FAKE_RUNNER", runner)
        return run("device", "run", bundle, "--runner", self.runner, *(options or ["--adb"]))

    def left(self) -> list[Path]:
        """What lies on the device."""
        return list(self.scratch.iterdir())


def program(path: Path, source: str) -> Path:
    """The Python file `source` of this folder as a program at `path`."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{(HERE / source).read_text()}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def assert_fails(outcome: Outcome, code: int, *parts: str) -> None:
    """This exit code, and one line on stderr that holds every one of `parts`."""
    assert outcome.code == code, outcome
    assert outcome.err.startswith("onnxslim: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err
