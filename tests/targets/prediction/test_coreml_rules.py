"""What CoreML's builders are said to take, a node or two at a time."""

import numpy as np
import onnx
import pytest
from tiny_graphs import noise, numbers, predicted, write_graph

from onnxslim_bert.targets.prediction.predict import predict, rules_of
from onnxslim_bert.targets.prediction.seen import seen_by_provider

TAKEN = {
    "rank 3 by rank 2": ("(float[2,3,4] x) => (float[2,3,5] y) {y = MatMul(x, w)}", {"w": noise(4, 5)}),
    "int64 lookup": ("(int64[2,3] x) => (float[2,3,4] y) {y = Gather(w, x)}", {"w": noise(7, 4)}),
    "erf": ("(float[2,3] x) => (float[2,3] y) {y = Erf(x)}", {}),
    "norm": ("(float[2,3] x) => (float[2,3] y) {y = LayerNormalization(x, w, w)}", {"w": noise(3)}),
    "open rows": ("(float[N,3] x) => (float[N,3] y) {y = Tanh(x)}", {}),
    "float16": ("(float16[2,3] x) => (float16[2,3] y) {y = Tanh(x)}", {}),
    "softmax of three": ("(float[2,3,4] x) => (float[2,3,4] y) {y = Softmax(x)}", {}),
    "dense": ("(float[2,3] x) => (float[2,5] y) {y = Gemm(x, w, b)}", {"w": noise(3, 5), "b": noise(5)}),
    "cast of a computed tensor": (
        "(int64[5] x) => (float[2] y) {z = Slice(x, a, b) y = Cast<to=1>(z)}",
        {"a": numbers(0), "b": numbers(2)},
    ),
}
REFUSED = {
    "cast of an input": (
        "(int32[2,3] x) => (float[2,3] y) {y = Cast<to=1>(x)}",
        {},
        "a Cast of a graph input",
        "mask-bias",
    ),
    "cast to bool": ("(float[3] x) => (bool[3] y) {z = Tanh(x) y = Cast<to=9>(z)}", {}, "Cast with bool", "mask-bias"),
    "where": (
        "(bool[2,3] m, float[2,3] x) => (float[2,3] y) {y = Where(m, x, w)}",
        {"w": noise(2, 3)},
        "only newer releases of ONNX Runtime take this operator",
        "mask-bias",
    ),
    "reshape of bools": (
        "(bool[2,3] x) => (bool[6] y) {y = Reshape(x, s)}",
        {"s": numbers(6)},
        "reads bool, float32 or float16 was needed (base_op_builder.cc)",
        "mask-bias",
    ),
    "sum of integers": ("(int64[2,3] x) => (int64[2,3] y) {y = Add(x, x)}", {}, "reads int64", None),
    "open reshape": (
        "(float[N,3] x) => (float[M] y) {y = Reshape(x, s)}",
        {"s": numbers(-1)},
        "an open shape, before or after (reshape_op_builder.cc)",
        "fix-shapes",
    ),
    "six dimensions": (
        "(float[1,2,1,2,1,2] x) => (float[1,2,1,2,1,2] y) {y = Tanh(x)}",
        {},
        "at most 5 are taken",
        None,
    ),
    "flatten": ("(float[2,3,4] x) => (float[2,12] y) {y = Flatten(x)}", {}, "no rule is known", "mask-bias"),
    "three summands": (
        "(float[3] x, float[3] z) => (float[3] y) {y = Sum(x, z, x)}",
        {},
        "no rule is known",
        "split-sums",
    ),
    "computed scale": (
        "(float[2,3] x, float[3] s) => (float[2,3] y) {y = LayerNormalization(x, s)}",
        {},
        "the scale is computed, a constant was needed (normalization_op_builder.cc)",
        None,
    ),
    "one row": (
        "(float[2,3,4] x) => (float[2,4] y) {y = Gather<axis=1>(x, i)}",
        {"i": np.array(1, np.int64)},
        "a lookup of one row",
        "first-token",
    ),
    "computed matrix": (
        "(float[2,3] x, float[3,5] w) => (float[2,5] y) {y = Gemm(x, w)}",
        {},
        "the matrix is computed, a constant was needed (gemm_op_builder.cc)",
        None,
    ),
    "bias for every row": (
        "(float[2,3] x) => (float[2,5] y) {y = Gemm(x, w, b)}",
        {"w": noise(3, 5), "b": noise(2, 5)},
        "the bias is [2, 5], one row [5] was needed",
        None,
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken_whole(case, tmp_path):
    placement = predicted(tmp_path, "coreml", *TAKEN[case])
    assert placement.whole, placement.left
    assert placement.predicted


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_reason_and_what_mends_it(case, tmp_path):
    text, constants, reason, fix = REFUSED[case]
    (left,) = predicted(tmp_path, "coreml", text, constants).left
    assert reason in left.reason
    assert left.fix == fix


def test_quantized_nodes_split_the_graph(tmp_path):
    """ML programs have no Q/DQ in ONNX Runtime: what lies between runs alone."""
    quantized = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    text = """(float[2,3] x) => (float[2,3] y) {
        a = Tanh(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Erf(d)
    }"""
    placement = predicted(tmp_path, "coreml", text, quantized)
    assert (placement.taken, placement.total, placement.partitions) == (2, 4, 2)
    assert {left.reason for left in placement.left} == {"ML programs have no quantized form here, give the float model"}


def test_weights_in_another_file_are_refused(tmp_path):
    path = write_graph(tmp_path, *TAKEN["rank 3 by rank 2"])
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    for target in ("coreml", "nnapi"):
        (left,) = predict(path, target).left
        assert "another file" in left.reason


@pytest.mark.parametrize(("rows", "said"), [(16384, 0), (16385, 1)])
def test_a_table_too_large_for_the_neural_engine_is_a_note_not_a_refusal(rows, said, tmp_path):
    path = write_graph(tmp_path, "(int64[2,3] x) => (float[2,3,1] y) {y = Gather(w, x)}", {"w": noise(rows, 1)})
    assert predict(path, "coreml").whole
    assert len(rules_of("coreml").notes(seen_by_provider(path).graph)) == said
