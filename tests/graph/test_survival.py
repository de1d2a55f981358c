"""Files at which ONNX Runtime itself crashes: one line, whatever opens them, and nothing is written."""

import contextlib
import platform
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest
from command_line import assert_refused, contents, run, workspace

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph import sessions, survival
from onnxslim_bert.graph.exits import EXIT, NO_ROWS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tried in a fork, on Linux")


def without_bias(path: Path) -> None:
    """Name no bias at a norm, which ONNX allows and ONNX Runtime 1.32 dies of."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            node.input[2] = ""
    onnx.save(model, path)


@pytest.mark.parametrize(
    "command",
    [
        "slim {model} -p canonicalize?,fuse? -o {made}",
        "quantize {model} --mode dynamic -o {made}",
        "validate {model} {model} --data {rows}",
        "bench {model} --seq 4 --rounds 2",
        "explain {model} --target coreml",
        "mobile {model} -o {made}",
    ],
)
def test_a_crash_is_one_line(command, tmp_path, monkeypatch):
    model = workspace(tmp_path, "bert-dynamo20-sdpa")
    without_bias(model)
    before = contents(tmp_path)
    monkeypatch.setattr(sessions, "check_survives", survival.check_survives)
    places = {"model": model, "made": tmp_path / "made.onnx", "rows": tmp_path / "eval.tsv"}
    assert_refused(run(*command.format(**places).split()), "ONNX Runtime crashes when it opens or runs it (SIGSEGV)")
    assert contents(tmp_path) == before


def index_below_all(path: Path) -> None:
    """Look the output up by GatherND with batch_dims far below 0, of which its kernel in ONNX Runtime 1.32 dies."""
    model = onnx.load(path)
    output = model.graph.output[0].name
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 1), np.int64), "at"))
    model.graph.node.append(onnx.helper.make_node("GatherND", [output, "at"], ["found"], batch_dims=-(1 << 40)))
    model.graph.output.append(onnx.helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, ["n", "m"]))
    onnx.save(model, path)


@pytest.mark.parametrize(
    "command", ["slim {model} -p canonicalize?,share-weights? -o {made}", "quantize {model} --mode fp16 -o {made}"]
)
def test_a_crash_at_a_run_is_one_line_before_any_part_of_the_file_runs(command, tmp_path, monkeypatch):
    model = workspace(tmp_path, "bert-dynamo20-sdpa")
    index_below_all(model)
    before = contents(tmp_path)
    monkeypatch.setattr(sessions, "check_survives", survival.check_survives)
    crashes = "ONNX Runtime crashes when it opens or runs it (SIGABRT)"
    assert_refused(run(*command.format(model=model, made=tmp_path / "made.onnx").split()), crashes)
    assert contents(tmp_path) == before


CRASHES_WITHOUT_ROWS = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
exits (float[n, 1, 8] x) => (float[n, 1, 8] y) {
    going = NonZero(x)
    rows = Shape<end: int = 1>(x)
    zero = Constant<value = int32[1] {0}>()
    last = Expand(zero, rows)
    total = Constant<value = int32 {1}>()
    y, k, v = com.microsoft.GroupQueryAttention<num_heads: int = 1, kv_num_heads: int = 1>(x, x, x, "", "", last, total)
}"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="elsewhere dividing by 0 does not crash")
def test_a_file_with_exits_is_run_without_rows_too(tmp_path):
    model = onnx.parser.parse_model(CRASHES_WITHOUT_ROWS)
    for name in ("going", f"{EXIT}/going"):
        model.graph.node[0].name = name
        onnx.save(model, path := tmp_path / f"{len(name)}.onnx")
        refuses = pytest.raises(ModelError, match=rf"\(SIGFPE\); texts leave it early: needed onnxruntime {NO_ROWS}")
        with contextlib.nullcontext() if name == "going" else refuses:
            survival.check_survives(path, path.stat().st_size)


def test_a_file_is_tried_once_for_each_state_of_it(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")  # which is refused in words, by whoever opens it
    survival.check_survives(path, 8)
    monkeypatch.setattr(survival, "_open_and_end", lambda *_: pytest.fail("tried again"))
    survival.check_survives(path, 8)
