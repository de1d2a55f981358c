"""Models that take no text, images or sounds: their inputs come ready, and are what they are judged and timed on."""

import json

import numpy as np
import onnx
import pytest
from command_line import run
from random_encoders import HEADS, HIDDEN, Kind, encoder

PLACES = 9


@pytest.fixture
def patches(tmp_path):
    """A model of patches [batch, places, width], and an npz of rows."""
    kind = {"positions": "none", "norm": "layer", "before": True, "gate": "none", "packing": "none", "mask": "none"}
    plain = {"window": 0, "bias": "none", "rotary": False, "groups": HEADS}
    model = encoder(Kind(**kind, **plain, pad=0, head="states"))
    words = next(node for node in model.graph.nodes if node.op == "Gather")
    given = words.outputs[0]
    given.inputs.clear()
    given.name, given.dtype, given.shape = "patches", np.dtype(np.float32), ["batch", PLACES, HIDDEN]
    model.graph.inputs = [given]
    model.graph.cleanup().toposort()
    model.graph.outputs[0].shape = ["batch", PLACES, HIDDEN]
    onnx.save(model.proto(), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    for name in ("calib", "eval"):
        np.savez(tmp_path / f"{name}.npz", patches=rng.standard_normal((24, PLACES, HIDDEN)).astype(np.float32))
    return tmp_path


def test_patches_are_quantized_judged_and_timed(patches):
    model, report = patches / "model.onnx", patches / "out.json"
    options = ("--calib", patches / "calib.npz", "--data", patches / "eval.npz", "-o", patches / "out.onnx")
    assert run("quantize", model, *options, "--method", "minmax").code == 0
    found = json.loads(report.read_text())
    assert [latency["length"] for latency in found["latencies"]] == [None, None]
    assert found["comparison"]["rows"] == 24
    assert found["comparison"]["kind"] == "embedding"
