"""Lookups by the distance of two tokens, read off diagonals: the same scores, and nothing else is taken for one."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import every_padding, prepared, shared_graph
from oracles import assert_same_outputs

from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.distances import look_up_by_distance
from onnxslim_bert.model.head_cuts import HeadSlices
from onnxslim_bert.model.head_slices import head_slices
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse

HEADS, ROWS, CHANNELS = 3, 9, 5  # distances beyond 4 share a row
CLIPPED = "shifted = Add(d, four)\n wide = Clip(shifted, zero, eight)"
STEPS = """
    far = Abs(d)
    floating = Cast<to=1>(far)
    more = Add(floating, onef)
    logarithm = Log(more)
    rounded = Ceil(logarithm)
    step = Cast<to=7>(rounded)
    side = Sign(d)
    signed = Mul(step, side)
    shifted = Add(signed, four)
    wide = Clip(shifted, zero, eight)
"""


def graph(index: str = CLIPPED, start: str = "zero", difference: str = "tall, flat", behind: str = "") -> Model:
    """x [batch * heads, n, channels] multiplied with a table, of which columns are picked by distance.

    index: the nodes from the distances d to the columns `wide`, [n, n].
    """
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    scores (float[rows, n, channels] x, int64[n, n] given) => (float[rows, n, n] y)
    <int64 zero = {{0}}, int64 one = {{1}}, int64 four = {{4}}, int64 eight = {{8}},
     float onef = {{1}}, float half = {{2}},
     int64[1] a0 = {{0}}, int64[1] a1 = {{1}}, int64[1] heads = {{{HEADS}}}, int64[2] ones = {{1, 1}}>
    {{
        sizes = Shape(x)
        n = Gather(sizes, one)
        rows = Gather(sizes, a0)
        batch = Div(rows, heads)
        r = Range({start}, n, one)
        tall = Unsqueeze(r, a1)
        flat = Unsqueeze(r, a0)
        d = Sub({difference})
        {index}
        square = Shape(given)
        all = Concat<axis=0>(rows, square)
        raised = Unsqueeze(wide, a0)
        columns = Expand(raised, all)
        repeats = Concat<axis=0>(batch, ones)
        tiled = Tile(table, repeats)
        turned = Transpose<perm=[0, 2, 1]>(tiled)
        products = MatMul(x, turned)
        picked = GatherElements<axis=-1>(products, columns)
        {behind or "y = Mul(picked, half)"}
    }}
    """
    proto = onnx.parser.parse_model(text)
    table = np.random.default_rng(0).standard_normal((HEADS, ROWS, CHANNELS)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    return Model.from_proto(proto)


def answers(model: Model, batch: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    session = ort.InferenceSession(model.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    x = rng.standard_normal((batch * HEADS, n, CHANNELS)).astype(np.float32)
    return np.asarray(session.run(None, {"x": x, "given": rng.integers(0, ROWS, (n, n))})[0])


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"index": STEPS},
        {"difference": "flat, tall"},
        {"behind": "back = Transpose<perm=[0, 2, 1]>(picked)\n s = Div(back, half)\n y = Neg(s)"},
        {"behind": "s = Div(picked, half)\n y = Add(s, picked)"},
    ],
    ids=["clipped", "logarithmic", "turned", "scaled behind", "scaled for one reader"],
)
def test_scores_stay_the_same(made):
    """At every number of rows and tokens, the nodes of the index included; no element is looked up any more."""
    before, after = graph(**made), graph(**made)
    assert look_up_by_distance(after.graph) == 1
    after.changed()
    assert "GatherElements" not in Counter(node.op for node in after.graph.nodes)
    for batch, n in [(1, 1), (2, 1), (1, 2), (3, 2), (1, 5), (2, 7), (1, 16)]:
        np.testing.assert_allclose(answers(after, batch, n), answers(before, batch, n), atol=1e-5)


def test_a_scale_is_taken_into_the_table():
    """The number that all scores are divided by is no node of its own behind them."""
    model = graph(behind="back = Transpose<perm=[0, 2, 1]>(picked)\n s = Div(back, half)\n y = Neg(s)")
    look_up_by_distance(model.graph)
    model.changed()
    kept = [node for node in model.graph.nodes if node.op == "Div"]
    assert [node.outputs[0].name for node in kept] == ["batch"]


@pytest.mark.parametrize(
    "made",
    [
        {"index": f"{CLIPPED.replace('wide', 'narrow')}\n wide = Min(narrow, given)"},
        {"start": "one"},
        {"difference": "tall, tall"},
        {"index": "e = Sub(flat, tall)\n f = Mul(e, d)\n wide = Clip(f, zero, eight)"},
        {"behind": "s = Neg(picked)\n y = Add(s, products)", "index": CLIPPED},
    ],
    ids=["of the input too", "from one", "of no pair", "two distances", "product read elsewhere"],
)
def test_what_is_no_lookup_by_distance_stays(made):
    model = graph(**made)
    assert look_up_by_distance(model.graph) == 0


def test_a_deberta_keeps_answers_and_heads():
    """Both lookups of each of its three layers; heads are still told apart behind them."""
    path = shared_graph("families/debertav3-feat-dyn18-eager/model")
    model = prepared(path, Canonicalize(), Fuse())
    assert "GatherElements" not in Counter(node.op for node in model.graph.nodes)
    assert_same_outputs(model, Model.load(path), every_padding(model), atol=1e-5)
    layer = model.encoder.layers[0]
    assert isinstance(head_slices(attention_region(model.graph, layer), layer.groups), HeadSlices)
