"""The reference model, from its file to the providers that execute here."""

import json
from pathlib import Path

import pytest
from command_line import ROOT, run

from onnxslim_bert.targets.table import TARGETS

MODEL = ROOT / "models" / "sst2-tiny" / "model.onnx"


def written_for(target: str, folder: Path, *arguments: object) -> Path:
    """The reference model, quantized for `target`."""
    output = folder / f"{target}.onnx"
    outcome = run("quantize", MODEL, "--target", target, "-o", output, *arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return output


@pytest.mark.parametrize(
    ("target", "arguments"),
    [("qnn", ["--seq", 24, "--calib", "reviews", "--rows", 64]), ("openvino", [])],
)
def test_it_runs_whole_and_answers_alike(target, arguments, tmp_path):
    """Strictly on the provider, against fp32 on the CPU."""
    if reason := TARGETS[target].absent():
        pytest.skip(reason)
    model = written_for(target, tmp_path, *arguments)
    outcome = run("validate", MODEL, model, "--data", "reviews", "--rows", 12, "--ep", target, "--json")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    found = json.loads(outcome.out)
    assert (found["target"], found["placement"]["left"], found["placement"]["partitions"]) == (target, [], 1)
    assert found["comparison"]["fidelity"]["agreement"]["value"] >= 90


@pytest.mark.parametrize("target", ["coreml", "nnapi"])
def test_it_would_run_whole(target, tmp_path):
    """By the builders' rules; its answers are those of fp32."""
    model = written_for(target, tmp_path, "--seq", 24)
    outcome = run("explain", model, "--target", target, "--json")
    assert outcome.code == 0, outcome
    found = json.loads(outcome.out)
    assert (found["left"], found["partitions"], found["predicted"]) == ([], 1, True)
