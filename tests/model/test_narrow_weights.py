"""Weights stored in fewer bits and widened by a Cast: what `inspect` says of them, and what folding makes of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from command_line import ROOT, run, workspace
from onnx import helper, numpy_helper

from onnxslim_bert.model.narrow_weights import narrow_weights

SIZE = 40  # rows and columns of a weight, beyond which it counts


def widened(form: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that write "w" of a narrow weight, [SIZE, SIZE], and the constants that they read."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 255, (SIZE, SIZE))
    scale = rng.random((1, SIZE)).astype(np.float32)
    cast = helper.make_node("Cast", ["q"], ["c"], to=1)
    mul = helper.make_node("Mul", ["c", "s"], ["w"])
    if form == "scaled":
        return [cast, mul], {"q": (whole - 128).astype(np.int8), "s": scale}
    if form == "with zero points":
        zero = helper.make_node("Cast", ["z"], ["zc"], to=1)
        sub = helper.make_node("Sub", ["c", "zc"], ["d"])
        return [cast, zero, sub, helper.make_node("Mul", ["d", "s"], ["w"])], {
            "q": whole.astype(np.uint8),
            "z": np.full((1, SIZE), 128, np.uint8),
            "s": scale,
        }
    if form == "half":
        return [helper.make_node("Cast", ["q"], ["w"], to=1)], {"q": rng.random((SIZE, SIZE)).astype(np.float16)}
    turned = helper.make_node("Transpose", ["d"], ["w"], perm=[1, 0])
    return [cast, helper.make_node("Mul", ["s", "c"], ["d"]), turned], {"q": (whole - 128).astype(np.int8), "s": scale}


@pytest.mark.parametrize(
    ("form", "dtype", "nbytes"),
    [
        ("scaled", "int8", SIZE * SIZE + 4 * SIZE),
        ("with zero points", "uint8", SIZE * SIZE + 5 * SIZE),
        ("half", "float16", 2 * SIZE * SIZE),
        ("turned", "int8", SIZE * SIZE + 4 * SIZE),
    ],
)
def test_a_narrow_weight_is_found_with_what_scales_it(form, dtype, nbytes):
    nodes, constants = widened(form)
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", SIZE])],
        [helper.make_tensor_value_info("y", 1, ["n", SIZE])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    (found,) = narrow_weights(gs.import_onnx(helper.make_model(graph)))
    assert (found.name, found.dtype, found.nbytes, found.wide) == ("w", dtype, nbytes, 4 * SIZE * SIZE)


def test_float_weights_and_casts_of_activations_are_none(tmp_path: Path):
    assert narrow_weights(gs.import_onnx(onnx.load(workspace(tmp_path)))) == ()


def stored_in_int8(path: Path) -> int:
    """Store every table and matrix worth it in the model at `path` as int8, behind Cast and Mul; how many those are."""
    model = onnx.load(path)
    kept, nodes = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < 1024:
            kept.append(tensor)
            continue
        scale = np.abs(values).max(0, keepdims=True) / np.float32(127)
        whole = np.round(values / scale).astype(np.int8)
        kept += [numpy_helper.from_array(whole, f"{tensor.name}.q"), numpy_helper.from_array(scale, f"{tensor.name}.s")]
        nodes += [
            helper.make_node("Cast", [f"{tensor.name}.q"], [f"{tensor.name}.c"], to=1),
            helper.make_node("Mul", [f"{tensor.name}.c", f"{tensor.name}.s"], [tensor.name]),
        ]
    nodes += model.graph.node
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    graph = helper.make_graph(nodes, "g", model.graph.input, model.graph.output, kept)
    onnx.save(helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version), path)
    return (len(nodes) - len(model.graph.node)) // 2


@pytest.fixture
def int8_file(tmp_path: Path, monkeypatch) -> tuple[str, int]:
    monkeypatch.chdir(tmp_path)
    path = Path(shutil.copy(ROOT / "models" / "sst2-tiny" / "model.onnx", tmp_path))
    return path.name, stored_in_int8(path)


def test_inspect_calls_them_what_they_are(int8_file):
    """Types, stored bytes and what passes would save are those of the file, not of the floats that it unfolds to."""
    name, count = int8_file
    ended = run("inspect", name, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["file"]["quantized"] == {"Cast of int8": count}
    assert found["encoder"]["facts"]["encoder_dtypes"].get("int8", 0) > 0
    stored = sum(cost["nbytes"] for cost in found["encoder"]["costs"])
    assert 0.8 * found["file"]["nbytes"] < stored <= found["file"]["nbytes"]
    assert any(
        f"{count} weights stored as int8 and widened on loading" in text for text in found["encoder"]["problems"]
    )
    notes = [advice["note"] for advice in found["encoder"]["passes"]]
    assert not any("about -" in note for note in notes), notes


def test_slim_says_what_it_unfolds(int8_file):
    name, count = int8_file
    ended = run("slim", name, "-p", "canonicalize", "-o", "made.onnx")
    assert ended.code == 0, ended.err
    assert f"{count} weights stored as int8 unfolded, " in ended.out + ended.err
