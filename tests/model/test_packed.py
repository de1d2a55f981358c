"""Packed matrices are parted in every layout, whatever views cut them."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from oracles import assert_same_outputs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.linear import is_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.packed import part_packed

BATCH, SEQ, WIDTH, HEADS, SIZE = 2, 5, 6, 7, 4
FEEDS = {"x": np.random.default_rng(1).standard_normal((BATCH, SEQ, WIDTH)).astype(np.float32)}
LAYOUTS = {  # the shape behind the product, the order that it is turned to, the axis that is cut
    "side by side": ([0, 0, 3 * HEADS * SIZE], None, 2),
    "three, heads": ([0, 0, 3, HEADS, SIZE], None, 2),
    "three first": ([0, 0, 3, HEADS, SIZE], [2, 0, 3, 1, 4], 0),
    "heads, three": ([0, 0, HEADS, 3 * SIZE], None, 3),
    "heads, three apart": ([0, 0, HEADS, 3, SIZE], None, 3),
    "heads first, three": ([0, 0, HEADS, 3 * SIZE], [0, 2, 1, 3], 3),
    "tokens first": ([0, 0, 3, HEADS * SIZE], [2, 1, 0, 3], 0),
}


def packed_model(layout: str, cut: str, batch: int | str = "batch") -> Model:
    """x times one matrix, cut in three, of which each goes out as y0, y1, y2."""
    rng = np.random.default_rng(0)
    graph = gs.Graph(opset=17)
    x = gs.Variable("x", np.dtype(np.float32), [batch, "seq", WIDTH])
    graph.inputs = [x]
    build = Builder(graph, "")
    shape, order, axis = LAYOUTS[layout]
    columns = 3 * HEADS * SIZE
    result = build.node("MatMul", "product", [x, build.constant("w", normal(rng, WIDTH, columns))])
    result = build.node("Add", "biased", [result, build.constant("b", normal(rng, columns))])
    if len(shape) > 3:
        result = build.node("Reshape", "apart", [result, build.constant("shape", np.array(shape, np.int64))])
    if order:
        result = build.node("Transpose", "turned", [result], perm=order)
    size = {"side by side": HEADS * SIZE}.get(layout, 1 if 3 in shape else SIZE)
    for i, piece in enumerate(cuts(build, result, cut, axis, size)):
        named = gs.Variable(f"y{i}", np.dtype(np.float32))
        graph.nodes.append(gs.Node("Relu", f"relu{i}", inputs=[piece], outputs=[named]))
        graph.outputs.append(named)
    graph.cleanup().toposort()
    return Model.from_proto(gs.export_onnx(graph))


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def cuts(build: Builder, result: gs.Tensor, cut: str, axis: int, size: int) -> list[gs.Tensor]:
    if cut == "Split":
        sizes = build.constant("sizes", np.full(3, size, np.int64))
        return build.nodes("Split", "split", [result, sizes], 3, axis=axis)
    starts = range(0, 3 * size, size)
    if cut == "Slice":
        numbers = [[np.array([i], np.int64) for i in (start, start + size, axis)] for start in starts]
        return [build.node("Slice", "cut", [result, *(build.constant("n", n) for n in three)]) for three in numbers]
    indices = [build.constant("i", np.arange(start, start + size, dtype=np.int64)) for start in starts]
    return [build.node("Gather", "cut", [result, index], axis=axis) for index in indices]


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("cut", ["Split", "Slice", "Gather"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_piece_gets_a_matrix_of_its_own(layout, cut, batch):
    """Three matrices of a third of the columns, no cut left, and the same answers; where a batch is one text, too."""
    model = packed_model(layout, cut, batch)
    before = model.clone()
    assert part_packed(model.graph) == 1
    model.changed()
    widths = [node.inputs[1].values.shape for node in model.graph.nodes if is_linear(node)]
    assert widths == [(WIDTH, HEADS * SIZE)] * 3
    assert not any(node.op == cut for node in model.graph.nodes)
    texts = FEEDS["x"] if batch == "batch" else FEEDS["x"][:1]
    assert_same_outputs(model, before, [{"x": texts}], atol=1e-5)


def test_what_reads_the_product_whole_keeps_it_whole():
    model = packed_model("three, heads", "Split")
    whole = gs.Variable("whole", np.dtype(np.float32))
    product = next(node for node in model.graph.nodes if node.op == "Add").outputs[0]
    model.graph.nodes.append(gs.Node("Relu", "reader", inputs=[product], outputs=[whole]))
    model.graph.outputs.append(whole)
    assert part_packed(model.graph) == 0


def test_the_halves_of_heads_are_no_pieces():
    """Rotary positions turn half of each head: query stays one matrix."""
    graph = gs.Graph(opset=17)
    x = gs.Variable("x", np.dtype(np.float32), ["batch", "seq", WIDTH])
    graph.inputs = [x]
    build = Builder(graph, "")
    weight = build.constant("w", normal(np.random.default_rng(0), WIDTH, HEADS * SIZE))
    product = build.node("MatMul", "product", [x, weight])
    heads = build.node("Reshape", "heads", [product, build.constant("s", np.array([0, 0, HEADS, SIZE], np.int64))])
    half = build.constant("n", np.full(2, SIZE // 2, np.int64))
    graph.outputs = build.nodes("Split", "halves", [heads, half], 2, axis=3)
    for output in graph.outputs:
        output.dtype = np.dtype(np.float32)
    assert part_packed(Model.from_proto(gs.export_onnx(graph)).graph) == 0
