"""Fixed shapes: the same answers, shape arithmetic gone, every tensor's shape in the file, and refusals."""

from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from graphs import EVERY, SOME, apply, feeds, fixture, prepared
from oracles import assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.simplify import bypass_same_shape
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes, fold_uniform
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.contract import Context

CANONICAL, FUSE, STANDARD, FIRST = Canonicalize(), Fuse(), Fuse(style="standard"), FirstToken()
OTHERS = ("bert-dynamo23-sdpa", "bert-nomask", "bert-features-pooled", "bert-mlm", "fused-mha")
SHAPE_ARITHMETIC = {"Shape", "ConstantOfShape", "Range", "Expand", "Concat", "Tile"}


@pytest.mark.parametrize("name", [*EVERY, *OTHERS])
def test_the_answers_stay_and_shape_arithmetic_goes(name):
    """As exported, in a shape whose batch and length no two dimensions share."""
    model = prepared(name, CANONICAL, FixShapes(2, 7))
    assert not SHAPE_ARITHMETIC & {node.op for node in model.graph.nodes}
    given = [feeds(model, 2, 7, padding) for padding in ("ragged", "holes")]
    assert_same_outputs(model, Model.load(fixture(name)), given, atol=1e-5)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("steps", [(FUSE, FIRST, QuantizeStatic()), (STANDARD, FIRST)], ids=["int8", "standard"])
def test_other_forms_answer_the_same(name, steps):
    before, model = prepared(name, CANONICAL, *steps), prepared(name, CANONICAL, *steps, FixShapes(1, 5))
    assert_same_outputs(model, before, [feeds(model, 1, 5, "holes")], atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_the_file_says_the_shape_that_every_tensor_has(name):
    """value_info against what runs."""
    model = prepared(name, CANONICAL)
    assert apply(FixShapes(2, 7), model)
    proto = model.proto()
    del proto.graph.output[:]
    proto.graph.output.extend([*proto.graph.value_info, *model.proto().graph.output])
    said = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in proto.graph.output}
    assert set(said) == {name for node in proto.graph.node for name in node.output}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    held = session.run(list(said), feeds(model, 2, 7))
    assert said == {name: list(values.shape) for name, values in zip(said, held, strict=True)}


def test_rows_of_positions_are_added_as_constants():
    """Only words and token types, which are inputs, are still looked up."""
    model = prepared("bert-ts17-eager", CANONICAL, STANDARD, FIRST, FixShapes(1, 5))
    lookups = [node for node in model.graph.nodes if node.op == "Gather"]
    assert sorted(node.inputs[1].name for node in lookups) == ["input_ids", "token_type_ids"]
    embeddings = model.encoder.embeddings
    assert (embeddings.position, embeddings.token_type is None) == (None, False)


@pytest.mark.parametrize("name", ["roberta-ts17-eager", "roberta-dynamo18-sdpa"])
def test_token_types_that_are_no_input_become_constants(name):
    """RoBERTa looks them up at every position in a buffer of zeros."""
    ops = Counter(node.op for node in prepared(name, CANONICAL, STANDARD, FixShapes(1, 5)).graph.nodes)
    assert ops["GatherElements"] == 0


def test_a_second_time_changes_nothing_and_says_so():
    model = prepared("bert-dynamo18-sdpa", CANONICAL, FixShapes(2, 7))
    change = apply(FixShapes(2, 7), model)
    assert (bool(change), change.note) == (False, "inputs are [2, 7] already and nothing is left to fold")


def test_what_depends_on_data_is_told():
    """com.microsoft operators say no shapes."""
    model = prepared("fused-mha", CANONICAL)
    assert "; unknown stays the shape of " in apply(FixShapes(2, 7), model).note


@pytest.mark.parametrize(
    "name", ["bert-ts17-eager", "bert-dynamo18-sdpa", "roberta-ts17-sdpa", "roberta-dynamo20-eager"]
)
def test_more_tokens_than_positions_are_refused(name):
    """RoBERTa's first positions are for padding: two tokens fewer than its table has rows."""
    model = prepared(name, CANONICAL)
    rows = len(model.array(str(model.encoder.embeddings.position)))
    most = rows - 2 if name.startswith("roberta") else rows
    assert apply(FixShapes(1, most), model.clone())
    message = rf"^fix-shapes: seq={most + 1} is too long for the position table .*, which serves {most} tokens$"
    with pytest.raises(PassError, match=message):
        FixShapes(1, most + 1).apply(model, Context())


def test_inputs_fixed_otherwise_are_refused():
    model = prepared("bert-ts17-eager", CANONICAL, FixShapes(2, 7))
    message = r"^fix-shapes: input 'input_ids' has the fixed shape \[2, 7\], not \[1, 7\]; export with dynamic axes$"
    with pytest.raises(PassError, match=message):
        FixShapes(1, 7).apply(model, Context())


def test_an_input_of_another_rank_is_refused():
    model = prepared("bert-ts17-eager", CANONICAL)
    model.graph.inputs[1].shape = ["batch", "choices", "seq"]
    with pytest.raises(PassError, match=r"input 'attention_mask' has shape .*; \[batch, seq\] was needed$"):
        FixShapes(1, 7).apply(model, Context())


@pytest.mark.parametrize("sizes", [(0, 7), (1, 0)])
def test_no_rows_or_tokens_are_refused(sizes):
    with pytest.raises(PassError, match="both are at least 1"):
        FixShapes(*sizes).apply(prepared("bert-ts17-eager"), Context())


@pytest.mark.parametrize(("step", "expected"), [(1, "Identity"), (-1, "Slice")])
def test_a_reversal_is_no_identity(step, expected):
    """A Slice can keep the shape and turn the order."""
    x, y = (gs.Variable(name, np.float32, [2, 3]) for name in "xy")
    bounds = [np.array([value]) for value in (0, 3, 1, 1) if step > 0]
    bounds = bounds or [np.array([value]) for value in (-1, -4, 1, -1)]
    constants = [gs.Constant(f"c{i}", values) for i, values in enumerate(bounds)]
    graph = gs.Graph([gs.Node("Slice", inputs=[x, *constants], outputs=[y])], [x], [y], opset=17)
    bypass_same_shape(graph)
    assert graph.nodes[0].op == expected


@pytest.mark.parametrize(("table", "folds"), [([4, 4, 4], True), ([4, 4, 5], False), ([0.5, 0.5, 0.5], False)])
def test_only_equal_integers_are_picked_ahead(table, folds):
    ids, y = gs.Variable("ids", np.int64, [2, 3]), gs.Variable("y", None, [2, 3])
    doubled = gs.Variable("doubled", None, [2, 3])
    nodes = [
        gs.Node("Gather", inputs=[gs.Constant("table", np.array(table)), ids], outputs=[y]),
        gs.Node("Add", inputs=[y, y], outputs=[doubled]),
    ]
    graph = gs.Graph(nodes, [ids], [doubled], opset=17)
    fold_uniform(graph)
    assert isinstance(nodes[1].inputs[0], gs.Constant) == folds
    if folds:
        np.testing.assert_array_equal(nodes[1].inputs[0].values, np.full((2, 3), 4))


def test_the_written_file_is_valid_and_has_the_shapes(tmp_path):
    model = prepared("bert-ts17-eager", CANONICAL)
    apply(FixShapes(1, 5), model)
    model.save(tmp_path / "fixed.onnx")
    onnx.checker.check_model(str(tmp_path / "fixed.onnx"), full_check=True)
    graph = onnx.load(tmp_path / "fixed.onnx").graph
    assert len(graph.value_info) == sum(len(node.output) for node in graph.node) - len(graph.output)
