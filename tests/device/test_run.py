"""onnxslim device run, against a fake adb and a runner that really runs the model."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from command_line import run
from devices import PLAN, Device, assert_fails, small_bundle

from onnxslim_bert.device.manifest import RunSettings


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def test_a_run_brings_back_latencies_and_outputs(tmp_path: Path, device: Device) -> None:
    """The timed runs without the warm-up, the device's name, outputs equal to the expected ones; nothing stays."""
    bundle = small_bundle(tmp_path)
    outcome = device.run(bundle.folder, runner="outputs")
    assert outcome.code == 0, outcome
    assert "Phone 9, Android 15" in outcome.out
    assert "not proven" not in outcome.out
    found = json.loads((bundle.folder / "results.json").read_text())
    assert found["bundle"] == bundle.sha256
    assert len(found["latencies_ms"]) == PLAN.runs
    assert all(0 < latency < 1000 for latency in found["latencies_ms"])
    assert found["peak_bytes"] == 123456789
    assert not device.left()
    again = json.loads(run("device", "import", bundle.folder, "--json").out)["latencies"][0]
    assert again["fidelity"]["agreement"]["value"] == 100
    assert again["fidelity"]["max_difference"] < 1e-5


def test_a_runner_without_outputs_proves_latency_only(tmp_path: Path, device: Device) -> None:
    """onnxruntime_perf_test writes none: said, not an error; the length may be the text's own."""
    outcome = device.run(small_bundle(tmp_path, length=None).folder)
    assert outcome.code == 0, outcome
    assert "not proven: the outputs, since the runner wrote none" in outcome.out
    assert "text" in outcome.out


def test_fallback_fails_unless_it_is_allowed(tmp_path: Path, device: Device) -> None:
    """A runner that would use the CPU for nnapi ends with its provider's reason; allowed, the share is unproven."""
    strict = small_bundle(tmp_path, RunSettings("nnapi", {"NNAPI_FLAG_USE_FP16": ""}, warmup=0, runs=1))
    assert_fails(device.run(strict.folder), 5, "fallback", "CPU EP", "exit code 255")
    assert not device.left()
    (tmp_path / "other").mkdir()
    loose = small_bundle(tmp_path / "other", RunSettings("nnapi", fallback=True, warmup=0, runs=1))
    outcome = device.run(loose.folder)
    assert outcome.code == 0, outcome
    assert "not proven: how many nodes ran on nnapi" in outcome.out


@pytest.mark.parametrize(
    ("adb", "code", "words"),
    [
        ("none", 5, "adb finds none: needed a device connected"),
        ("unauthorized", 5, "A1 (unauthorized): needed a device connected and authorized"),
        ("two", 2, "A1 (device), B2 (device): needed --adb SERIAL"),
        ("no server", 5, "adb devices failed: * failed to start daemon"),
        (
            "full",
            5,
            "adb push on A1 failed: adb: error: failed to copy 'model.onnx': remote write failed: No space",
        ),
        ("interrupt", 130, "interrupted"),
    ],
)
def test_a_failing_device_is_one_line(tmp_path: Path, device: Device, adb: str, code: int, words: str) -> None:
    """The exit code says whose fault it is, no results are written, nothing stays on the device."""
    bundle = small_bundle(tmp_path)
    assert_fails(device.run(bundle.folder, adb=adb), code, words)
    assert not (bundle.folder / "results.json").exists()
    assert not device.left()


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        ("fail", "adb shell on A1 failed: Run failed: out of tiny memory (exit code 255)"),
        ("short", "latencies.csv holds 8 runs: needed 2 + 7"),
        ("garbage", "latencies.csv: '' is no row"),
        ("some", "1 of 3 outputs are missing, test_data_set_2/output_0.pb first"),
    ],
)
def test_a_failing_runner_is_one_line(tmp_path: Path, device: Device, runner: str, words: str) -> None:
    """Whatever it leaves undone is named, and nothing stays on the device."""
    bundle = small_bundle(tmp_path)
    assert_fails(device.run(bundle.folder, runner=runner), 5, words)
    assert not (bundle.folder / "results.json").exists()
    assert not device.left()


def test_nan_on_the_device_fails_after_the_results_are_written(tmp_path: Path, device: Device) -> None:
    bundle = small_bundle(tmp_path)
    assert_fails(device.run(bundle.folder, runner="nan"), 3, "logits is NaN or infinite on 1 of 3 rows")
    assert (bundle.folder / "results.json").exists()


def test_a_runner_that_hangs_is_ended(tmp_path: Path, device: Device) -> None:
    """--timeout is kept, and neither the process nor its files outlive it."""
    device.runner.write_text(f"#!/bin/sh\necho $$ >{tmp_path / 'runner.pid'}\nexec sleep 60\n")
    outcome = device.run(small_bundle(tmp_path).folder, "--adb", "A1", "--timeout", 1)
    assert_fails(outcome, 5, "adb shell on A1 took more than 1 s")
    assert not device.left()
    pid = (tmp_path / "runner.pid").read_text().strip()
    for _ in range(50):
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout
        if not state.strip() or state.startswith("Z"):
            return
        time.sleep(0.1)
    pytest.fail(f"the runner {pid} still runs: {state}")


def test_a_device_unplugged_at_the_end_is_said(tmp_path: Path, device: Device) -> None:
    outcome = device.run(small_bundle(tmp_path).folder, adb="unplugged")
    assert_fails(outcome, 5, "may still be on the device", "device 'A1' not found")


def test_a_serial_must_be_connected(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named on the command line or in the environment."""
    folder = small_bundle(tmp_path).folder
    assert_fails(device.run(folder, "--adb", "C3"), 5, "A1 (device): needed C3 connected")
    monkeypatch.setenv("ANDROID_SERIAL", "D4")
    assert_fails(device.run(folder), 5, "needed D4 connected")


def test_no_adb_is_said(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_fails(device.run(small_bundle(tmp_path).folder), 5, "no adb on PATH")


def test_results_are_not_overwritten_unasked(tmp_path: Path, device: Device) -> None:
    """Refused before the device is touched."""
    bundle = small_bundle(tmp_path)
    (bundle.folder / "results.json").write_text("mine")
    assert_fails(device.run(bundle.folder, adb="none"), 2, "results.json exists", "--force")


def test_coreml_is_refused(tmp_path: Path, device: Device) -> None:
    bundle = small_bundle(tmp_path, RunSettings("coreml", warmup=0, runs=1))
    assert_fails(device.run(bundle.folder), 2, "coreml runs on Apple's devices, which adb does not reach")
    assert bundle.manifest.plan.options == {"ModelFormat": "MLProgram"}
