"""The doctor tries everything, says what works, and fails only for what it was asked."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_targets import taking_nothing

from onnxslim_bert.cli.doctor import doctor as command
from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets import doctor
from onnxslim_bert.targets.doctor import examine, idle_amx, self_test
from onnxslim_bert.targets.int8_kernels import Int8Kernels
from onnxslim_bert.targets.table import CPU, PLACES


def test_every_target_is_tried():
    """In ten seconds; the CPU provider works everywhere, and what does not work says why."""
    found = examine()
    assert [check.target for check in found.checks] == list(PLACES)
    assert found.checks[0].works
    assert sum(check.seconds for check in found.checks) < 10
    for check in found.checks:
        assert check.works == (PLACES[check.target].absent() == "")
        assert check.note
    assert found.packages["onnxruntime"] == found.host.onnxruntime
    json.dumps(found.to_json(), allow_nan=False)


def test_a_provider_that_takes_nothing_does_not_work():
    """Although it opens the model."""
    check = self_test(taking_nothing())
    assert not check.works
    assert "idle leaves 2 of 2 nodes to the CPU" in check.note


def test_a_provider_that_computes_wrong_does_not_work(monkeypatch):
    """By how much is said."""
    true = np.exp
    monkeypatch.setattr(np, "exp", lambda x: true(2 * x))
    check = self_test(CPU)
    assert not check.works
    assert "cpu computes a tiny model wrong: off by" in check.note


def test_packages_that_clash_are_problems(monkeypatch):
    """The other owner of the script, and what overwrites onnxruntime."""
    monkeypatch.setattr(doctor, "PLACES", {"cpu": CPU})
    monkeypatch.setattr(doctor, "installed", lambda name: "9.9")
    problems = examine().problems
    assert any("onnxslim 9.9 is installed: its script `onnxslim`" in problem for problem in problems)
    assert any("onnxruntime-openvino 9.9" in problem for problem in problems)


def test_a_provider_that_is_installed_and_fails_is_a_problem(monkeypatch):
    """One that is not installed is none."""
    broken = replace(taking_nothing(), extra="idle")
    monkeypatch.setattr(doctor, "PLACES", {"cpu": CPU, "idle": broken})
    assert [problem for problem in examine().problems if problem.startswith("idle is installed and does not work")]


@pytest.mark.parametrize(
    ("sets", "rate", "told"),
    [
        (("AVX512-VNNI", "AMX-INT8"), 570.0, "u8 x s8 runs at 3.8 times float32"),
        (("AVX512-VNNI", "AMX-INT8"), 1500.0, ""),
        (("AVX512-VNNI",), 570.0, ""),
    ],
    ids=["left out", "used", "not there"],
)
def test_amx_that_is_left_out_is_a_problem(sets, rate, told):
    """Told by the rate that was measured, on CPUs that have it."""
    found = list(idle_amx(sets, Int8Kernels({"float32": 150.0, "u8 x s8": rate}, saturates=False)))
    assert len(found) == bool(told)
    assert told in "".join(found)


def test_the_command_prints_tables_or_one_document():
    """For people and for programs."""
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0, result.output
    for words in ("cpu", "onnxruntime-qnn", "u8 x s8", "CPUs, load"):
        assert words in result.stdout
    document = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert [check["target"] for check in document["checks"]] == list(PLACES)


def test_the_command_fails_for_what_it_was_asked(monkeypatch):
    """With exit code 5, after everything is printed."""
    if not PLACES["nnapi"].absent():
        pytest.skip("it runs here")
    result = CliRunner().invoke(command, ["--ep", "cpu,nnapi"])
    assert isinstance(result.exception, ProviderError)
    assert result.exception.exit_code == 5
    assert "nnapi runs on Android, not here" in str(result.exception)
    assert "cpu" in result.stdout
