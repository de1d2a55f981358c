"""What NNAPI's builders are said to take, a node or two at a time."""

import numpy as np
import pytest
from tiny_graphs import noise, numbers, predicted, write_graph

from onnxslim_bert.targets.prediction.predict import predict, rules_of
from onnxslim_bert.targets.prediction.seen import seen_by_provider

HALF = {"p": np.array(0.5, np.float32)}
TAKEN = {
    "2 by 2": ("(float[2,4] x) => (float[2,5] y) {y = MatMul(x, w)}", {"w": noise(4, 5)}),
    "batches": ("(float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y) {y = MatMul(x, w)}", {}),
    "dense on three dimensions": (  # ONNX Runtime writes it as Reshape, Gemm, Reshape before
        "(float[2,3,4] x) => (float[2,3,5] y) {z = MatMul(x, w) y = Add(z, b)}",
        {"w": noise(4, 5), "b": noise(5)},
    ),
    "int32 lookup": ("(int32[2,3] x) => (float[2,3,4] y) {y = Gather(w, x)}", {"w": noise(7, 4)}),
    "fixed int64 lookup": ("(float[4,3] x) => (float[2,3] y) {y = Gather(x, i)}", {"i": numbers(0, 2)}),
    "softmax of four": ("(float[1,2,3,4] x) => (float[1,2,3,4] y) {y = Softmax(x)}", {}),
    "tanh": ("(float[2,3] x) => (float[2,3] y) {y = Tanh(x)}", {}),
    "mean": ("(float[2,3] x) => (float[2,1] y) {y = ReduceMean<axes=[-1]>(x)}", {}),
    "equal parts": ("(float[2,6] x) => (float[2,3] y, float[2,3] z) {y, z = Split<axis=1>(x)}", {}),
    "clip to one": ("(float[3] x) => (float[3] y) {y = Clip(x, a, b)}", {"a": -2 * HALF["p"], "b": 2 * HALF["p"]}),
}
REFUSED = {
    "cast of an input": ("(int32[2,3] x) => (float[2,3] y) {y = Cast<to=1>(x)}", {}, "reads int32", "mask-bias"),
    "cast to int64": (
        "(float[3] x) => (int64[3] y) {y = Cast<to=7>(x)}",
        {},
        "gives int64, float32 or int32",
        "mask-bias",
    ),
    "rank 3 by rank 2": (
        "(float[2,3,4] x) => (float[2,3,5] y) {y = MatMul(x, w)}",
        {"w": noise(4, 5)},
        "3 by 2 dimensions, 2 by 2 or as many of equal size were needed (gemm_op_builder.cc)",
        "dense-2d",
    ),
    "broadcast batches": (
        "(float[2,3,4] x, float[1,4,5] w) => (float[2,3,5] y) {y = MatMul(x, w)}",
        {},
        "3 by 3 dimensions",
        "dense-2d",
    ),
    "bools": ("(bool[2,3] x, bool[2,3] z) => (bool[2,3] y) {y = And(x, z)}", {}, "no rule is known", "mask-bias"),
    "int64 lookup": (
        "(int64[2,3] x) => (float[2,3,4] y) {y = Gather(w, x)}",
        {"w": noise(7, 4)},
        "computed int64 indices, int32 was needed (gather_op_builder.cc)",
        "int32-inputs",
    ),
    "open dimension": ("(float[N,3] x) => (float[N,3] y) {y = Tanh(x)}", {}, "reads an open dimension", "fix-shapes"),
    "norm": (
        "(float[2,3] x) => (float[2,3] y) {y = LayerNormalization(x, w, w)}",
        {"w": noise(3)},
        "no rule is known",
        "unfuse-norms,lower-opset",
    ),
    "erf": ("(float[2,3] x) => (float[2,3] y) {y = Erf(x)}", {}, "no rule is known", "gelu-tanh"),
    "float16": ("(float16[2,3] x) => (float16[2,3] y) {y = Tanh(x)}", {}, "reads float16, float32 was needed", None),
    "softmax of three": ("(float[2,3,4] x) => (float[2,3,4] y) {y = Softmax(x)}", {}, "2 or 4 are taken", None),
    "five dimensions": (
        "(float[1,2,1,2,3] x) => (float[3,2,1,2,1] y) {y = Transpose(x)}",
        {},
        "reads 5 dimensions, 1 to 4 are taken (transpose_op_builder.cc)",
        None,
    ),
    "uneven parts": (
        "(float[2,6] x) => (float[2,4] y, float[2,2] z) {y, z = Split<axis=1>(x, s)}",
        {"s": numbers(4, 2)},
        "parts of different size",
        None,
    ),
    "a reshape alone": (
        "(float[2,3] x) => (float[6] y) {y = Reshape(x, s)}",
        {"s": numbers(6)},
        "a piece of this one node is left to the CPU (helper.cc)",
        None,
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken_whole(case, tmp_path):
    placement = predicted(tmp_path, "nnapi", *TAKEN[case])
    assert placement.whole, placement.left
    assert placement.predicted


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_reason_and_what_mends_it(case, tmp_path):
    text, constants, reason, fix = REFUSED[case]
    (left,) = predicted(tmp_path, "nnapi", text, constants).left
    assert reason in left.reason
    assert left.fix == fix


@pytest.mark.parametrize(("opset", "taken"), [(16, 9), (17, 0)])
def test_a_decomposed_norm_survives_up_to_opset_16(opset, taken, tmp_path):
    """From 17 on ONNX Runtime puts it together before it asks the provider."""
    text = """(float[2,3,4] x) => (float[2,3,4] y) {
        m = ReduceMean<axes=[-1]>(x) c = Sub(x, m) s = Pow(c, two) v = ReduceMean<axes=[-1]>(s) e = Add(v, eps)
        d = Sqrt(e) n = Div(c, d) g = Mul(n, w) y = Add(g, w)
    }"""
    constants = {"two": np.array(2, np.float32), "eps": np.array(1e-5, np.float32), "w": noise(4)}
    placement = predicted(tmp_path, "nnapi", text, constants, opset)
    assert placement.taken == taken
    assert placement.total == (taken or 1)


# quantized

SCALES = {"s": np.array(0.1, np.float32), "t": np.array(1 / 256, np.float32)}


def quantized(op: str, kind: str, scale: str = "s", read: str = "x", shape: str = "2,3", **more: np.ndarray):
    """A node between DequantizeLinear and QuantizeLinear, after a Tanh, so that a graph input is none of it."""
    text = f"""(float[{shape}] i) => (float[{shape}] o) {{
        t0 = Tanh(i) q = QuantizeLinear(t0, s, z) x = DequantizeLinear(q, s, z) r = {op}({read})
        p = QuantizeLinear(r, {scale}, z) y = DequantizeLinear(p, {scale}, z) o = Tanh(y)
    }}"""
    return text, {**SCALES, "z": np.array(0, kind), **more}


@pytest.mark.parametrize("op", ["Softmax", "Transpose<perm=[0,1]>"])
def test_quantized_groups_of_uint8_are_taken(op, tmp_path):
    placement = predicted(tmp_path, "nnapi", *quantized(op, "uint8", "t"))
    assert placement.whole, placement.left


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (quantized("Softmax", "int8", "t"), "quantized to int8, uint8 was needed (helper.cc)"),
        (quantized("Softmax", "uint8"), "an output scale other than 1/256 (softmax_op_builder.cc)"),
        (quantized("Sqrt", "uint8"), "no quantized form of this operator is taken (helper.cc)"),
    ],
)
def test_quantized_groups_are_left_whole(case, reason, tmp_path):
    """The node goes with its DequantizeLinear and QuantizeLinear."""
    left = [node for node in predicted(tmp_path, "nnapi", *case).left if reason in node.reason]
    assert [node.op for node in left] == ["DequantizeLinear", left[1].op, "QuantizeLinear"]


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(("shape", "taken"), [("2,3", True), ("1,2,3", False)])
def test_a_quantized_matrix_is_taken_on_two_dimensions(kind, shape, taken, tmp_path):
    """Activations are uint8; weights may be int8."""
    text, constants = quantized("MatMul", "uint8", read="x, d", shape=shape)
    text = text.replace("r = ", "d = DequantizeLinear(w, s, n) r = ")
    constants |= {"w": np.eye(3).astype(kind), "n": np.array(0, kind)}
    placement = predicted(tmp_path, "nnapi", text, constants)
    assert placement.whole == taken
    assert taken or {left.fix for left in placement.left} == {"dense-2d"}


def test_shapes_can_be_fixed_for_the_question(tmp_path):
    path = write_graph(tmp_path, REFUSED["open dimension"][0])
    assert not predict(path, "nnapi").taken
    assert predict(path, "nnapi", (2, 3)).whole


def test_its_end_is_noted(tmp_path):
    graph = seen_by_provider(write_graph(tmp_path, REFUSED["erf"][0])).graph
    assert "deprecated since Android 15" in rules_of("nnapi").notes(graph)[0]
