"""`--target auto`: what executes here is made roughly and timed in turns; without a clear winner it is the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
from command_line import assert_refused, run, workspace

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.job.fastest_target import chosen
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.recipes.lowering import LOWERINGS
from onnxslim_bert.targets.setup import Setup
from onnxslim_bert.targets.table import CPU, TARGETS


def latency(low: float, value: float, high: float) -> Latency:
    return Latency("m.onnx", 1, 128, 10.0, 11.0, 12.0, Interval(value, low, high))


@pytest.mark.parametrize(
    ("cpu", "other", "taken"),
    [
        ((2.9, 3.0, 3.1), (3.5, 3.6, 3.7), "openvino"),
        ((2.9, 3.0, 3.6), (3.5, 3.6, 3.7), "cpu"),
        ((2.9, 3.0, 3.1), (1.0, 3.6, 3.7), "cpu"),
        ((2.9, 3.0, 3.1), (0.7, 0.8, 0.9), "cpu"),
    ],
)
def test_another_target_is_taken_only_when_it_is_surely_faster(cpu, other, taken):
    """Its interval lies above that of the CPU; what was timed is said in either case."""
    found = chosen({"cpu": latency(*cpu), "openvino": latency(*other)})
    assert found.target == taken
    assert found.why.startswith(f"target {taken}, ")
    assert f"cpu {cpu[1]:.2f}x" in found.why
    assert f"openvino {other[1]:.2f}x" in found.why


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other target executes here."""

    def missing(options: object, threads: int) -> Setup:
        raise ProviderError("openvino is not here")

    monkeypatch.setitem(TARGETS, "openvino", replace(TARGETS["openvino"], setup=missing))


@pytest.mark.usefixtures("alone")
def test_where_nothing_else_executes_it_is_the_cpu(tmp_path: Path) -> None:
    """Said, with the reasons of the others; the file has the name of --target cpu's."""
    model = workspace(tmp_path)
    done = run("quantize", model, "--calib", tmp_path / "calib.tsv", "--method", "minmax", "--target", "auto")
    assert done.code == 0, done
    assert done.out.startswith("target cpu, the only one that can be had here (openvino: openvino is not here")
    assert (tmp_path / "model.int8.onnx").is_file()


@pytest.mark.usefixtures("alone")
def test_two_targets_are_timed_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second target, the CPU by another name with int8 weights alone: both are timed, and one file is written."""
    monkeypatch.setitem(TARGETS, "twin", replace(CPU, name="twin"))
    monkeypatch.setitem(LOWERINGS, "twin", LOWERINGS["openvino"])
    model = workspace(tmp_path)
    data = ["--calib", tmp_path / "calib.tsv", "--data", tmp_path / "eval.tsv"]
    done = run("quantize", model, *data, "--target", "auto")
    assert done.code == 0, done
    why = done.out.splitlines()[0]
    taken = why.split(",")[0].removeprefix("target ")
    assert taken in ("cpu", "twin")
    assert "cpu " in why
    assert "twin " in why
    assert "interleaved rounds" in why
    written = {path.name for path in tmp_path.glob("model.*.onnx")}
    assert written == {"model.int8.onnx" if taken == "cpu" else "model.twin.onnx"}


def test_options_that_auto_ignores_are_refused(tmp_path: Path) -> None:
    """Before anything is timed."""
    model = workspace(tmp_path)
    done = run("quantize", model, "--calib", tmp_path / "calib.tsv", "--target", "auto", "--seq", "8")
    assert_refused(done, "--seq does nothing with --target auto")
    assert_refused(run("quantize", model, "--target", "auto"), "needs calibration texts")
