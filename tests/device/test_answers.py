"""onnxslim device import: what comes back is believed only as far as it fits the bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from answering_models import embedder, reading, texts
from command_line import assert_refused, run
from devices import PLAN, TABLE, assert_fails, expected_logits, packed, results_of, save, sent, small_bundle

from onnxslim_bert.device.bundle import open_bundle
from onnxslim_bert.device.make import make_bundle

FIRST = "test_data_set_0/output_0.pb"


def test_whole_results_are_compared_here(tmp_path: Path) -> None:
    """Percentiles of the raw latencies; agreement, difference and width of the interval from the outputs."""
    bundle = small_bundle(tmp_path)
    logits = expected_logits()
    off = {"outputs": {f"test_data_set_{k}/output_0.pb": sent(values + 0.25) for k, values in enumerate(logits)}}
    path = save(tmp_path / "results.json", results_of(bundle, **off))
    outcome = run("device", "import", bundle.folder, path, "--json")
    assert outcome.code == 0, outcome
    row = json.loads(outcome.out)["latencies"][0]
    assert (row["median_ms"], row["p90_ms"], row["p99_ms"]) == pytest.approx((4, 6.4, 6.94))
    assert (row["model"], row["target"], row["batch"], row["length"]) == ("sums.onnx", "cpu", 1, 5)
    assert row["fidelity"]["agreement"]["value"] == 100
    assert row["fidelity"]["mean_difference"] == pytest.approx(0.25, abs=1e-5)
    assert row["unproven"] == []


def test_disagreement_is_counted(tmp_path: Path) -> None:
    """One of three rows with its classes turned round agrees no more."""
    bundle = small_bundle(tmp_path)
    document = results_of(bundle)
    document["outputs"][FIRST] = sent(-expected_logits()[0])
    outcome = run("device", "import", bundle.folder, save(tmp_path / "results.json", document))
    assert outcome.code == 0, outcome
    assert "66.67 (" in outcome.out


def test_several_results_stand_in_one_table(tmp_path: Path) -> None:
    """The folder of the first results is the bundle when none is named; one without outputs proves latency only."""
    bundle = small_bundle(tmp_path)
    first = save(bundle.folder / "results.json", results_of(bundle))
    second = save(tmp_path / "b.json", results_of(bundle, device="Board", outputs=None))
    outcome = run("device", "import", first, second)
    assert outcome.code == 0, outcome
    assert "Board: not proven: the outputs" in outcome.out
    assert "Phone 9: not proven" not in outcome.out
    assert outcome.out.index("Phone 9") < outcome.out.index("Board")


def test_states_are_pooled_over_the_real_tokens(tmp_path: Path) -> None:
    """What a device answers on padding does not count."""
    model = embedder(tmp_path / "states.onnx", TABLE)
    make_bundle(model, texts(["w0 w1 w2", "w3 w4"]), reading(tmp_path), tmp_path / "b", PLAN, length=5)
    bundle = open_bundle(tmp_path / "b")
    states = [bundle.tensor(name).copy() for name in bundle.manifest.output_files()]
    states[0][:, 3:] = 77
    states[1][:, 2:] = -77
    outputs = {name: sent(values) for name, values in zip(bundle.manifest.output_files(), states, strict=True)}
    path = save(tmp_path / "results.json", results_of(bundle, outputs=outputs))
    row = json.loads(run("device", "import", tmp_path / "b", path, "--json").out)["latencies"][0]
    assert (row["kind"], row["fidelity"]["max_difference"]) == ("embedding", 0)
    assert row["fidelity"]["cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schema": 2}, "has schema version 2: this program reads 1"),
        ({"schema": None}, "has no schema version"),
        ({"bundle": "0" * 64}, "is of another bundle (000000000000): needed one of"),
        ({"device": None}, "is incomplete: needed device"),
        ({"latency": [1]}, "'latency' is no field of a results"),
        ({"device": 9}, "device is 9: needed a string"),
        ({"device": "\x1b[2J"}, "device holds control characters"),
        ({"latencies_ms": [1.0, 2.0]}, "is partial: latencies of 2 of 7 runs"),
        ({"latencies_ms": []}, "is partial: latencies of 0 of 7 runs"),
        ({"latencies_ms": [1, 2, 3, 4, 5, 6, "7"]}, 'latencies_ms: item 6 is "7": needed a number'),
        ({"latencies_ms": [1, 2, 3, 4, 5, 6, True]}, "item 6 is true: needed a number"),
        ({"latencies_ms": [1, 2, 3, 4, 5, 6, 0]}, "a run took 0.0 ms: needed positive times"),
        ({"latencies_ms": [1, 2, 3, 4, 5, 6, float("nan")]}, "cut off or no JSON (found NaN)"),
        ({"outputs": {}}, "is partial: 3 of 3 outputs missing, test_data_set_0/output_0.pb first"),
        ({"peak_bytes": 1.5}, "peak_bytes is 1.5: needed an integer"),
    ],
)
def test_results_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """Foreign, partial or mistyped: one line that says what was found and what was needed."""
    bundle = small_bundle(tmp_path)
    path = save(tmp_path / "results.json", results_of(bundle, **changed))
    assert_refused(run("device", "import", bundle.folder, path), "results.json", words)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (None, "is partial: 1 of 3 outputs missing, test_data_set_0/output_0.pb first"),
        ({"sha256": "0" * 64, "data": "AAAA"}, "was changed on its way"),
        ({"sha256": "0" * 64, "data": "a?"}, "is no base64"),
        ({"sha256": "0" * 64}, "is incomplete: needed data"),
        (sent(np.zeros((1, 4), np.float32)), "is float32[1, 4]: needed float32[1, 3]"),
        (sent(np.zeros((1, 3), np.int64)), "is int64[1, 3]: needed float32[1, 3]"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(tmp_path: Path, output: dict[str, str] | None, words: str) -> None:
    """Each by its name."""
    bundle = small_bundle(tmp_path)
    document = results_of(bundle)
    if output is None:
        del document["outputs"][FIRST]
    else:
        document["outputs"][FIRST] = output
    assert_refused(run("device", "import", bundle.folder, save(tmp_path / "r.json", document)), "r.json", words)


def test_half_precision_is_compared_too(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    document = results_of(bundle)
    document["outputs"][FIRST] = sent(expected_logits()[0].astype(np.float16))
    assert run("device", "import", bundle.folder, save(tmp_path / "r.json", document)).code == 0


def test_nan_outputs_fail(tmp_path: Path) -> None:
    """Shown, then exit code 3: the device answers, and wrongly."""
    bundle = small_bundle(tmp_path)
    document = results_of(bundle)
    document["outputs"][FIRST] = sent(np.full((1, 3), np.nan, np.float32))
    outcome = run("device", "import", bundle.folder, save(tmp_path / "r.json", document))
    assert_fails(outcome, 3, "Phone 9: logits is NaN or infinite on 1 of 3 rows: needed finite outputs")
    assert "median ms" in outcome.out


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1', '{"schema": 1}', "[" * 100_000, "\xff"])
def test_corrupted_results_are_refused(tmp_path: Path, text: str) -> None:
    bundle = small_bundle(tmp_path)
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    assert_refused(run("device", "import", bundle.folder, path), "results.json")


@pytest.mark.parametrize("name", ["../../outside.pb", "/etc/passwd", "test_data_set_9/output_0.pb", "model.onnx"])
def test_outputs_by_other_names_are_refused(tmp_path: Path, name: str) -> None:
    """No path in results is ever opened."""
    bundle = small_bundle(tmp_path)
    document = results_of(bundle)
    document["outputs"][name] = sent(expected_logits()[0])
    outcome = run("device", "import", bundle.folder, save(tmp_path / "r.json", document))
    assert_refused(outcome, f"{name!r} is no output of the bundle")


def test_a_tensor_that_points_to_a_file_is_refused(tmp_path: Path) -> None:
    """External data would let results read this machine's files."""
    bundle = small_bundle(tmp_path)
    tensor = onnx.TensorProto(dims=[1, 3], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="bundle/model.onnx")
    document = results_of(bundle)
    document["outputs"][FIRST] = packed(tensor.SerializeToString())
    outcome = run("device", "import", bundle.folder, save(tmp_path / "r.json", document))
    assert_refused(outcome, "is no tensor (its values are in another file)")
