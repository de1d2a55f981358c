"""Canonicalizing changes how a graph is written and nothing of what it computes."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import EVERY, EXPORTS, SOME, apply, every_padding, feeds, fixture, prepared, shared_graph
from oracles import assert_same_outputs

from onnxslim_bert.errors import ModelError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.simplify import merge_equal_constants, merge_equal_nodes
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.contract import Change, Context

CANONICAL = Canonicalize()


def parsed(body: str) -> Model:
    """A model of the nodes in `body`, from x [N, 3] to y [N, 3]."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> main (float[N, 3] x) => (float[N, 3] y) {body}'
    return Model.from_proto(onnx.parser.parse_model(text))


def operators(model: Model) -> Counter[str]:
    return Counter(node.op for node in model.graph.nodes)


def weight_bytes(model: Model) -> int:
    """What the matrices take."""
    return sum(c.values.nbytes for c in model.constants().values() if c.values.ndim == 2 and c.values.dtype.kind == "f")


@pytest.mark.parametrize("name", [*EVERY, "bert-features-pooled", "bert-mlm", "quantized-dynamic", "quantized-qdq"])
def test_outputs_stay_bit_identical(name):
    """Run as it is written, on every kind of padding; and the file does not grow."""
    model, original = prepared(name, CANONICAL), Model.load(fixture(name))
    assert_same_outputs(model, original, every_padding(model), atol=0, optimize=False)
    assert model.proto().ByteSize() <= fixture(name).stat().st_size
    assert weight_bytes(model) <= weight_bytes(original)
    assert len(model.graph.nodes) <= len(original.graph.nodes)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("name", ["bert-dynamo20-sdpa", "distilbert-ts17-eager"])
def test_a_file_that_onnx_runtime_optimized_ends_as_its_plain_export(name, level, tmp_path):
    """Its fused nodes are taken apart, and behind `fuse` no node is left that the plain export does not have there."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "model.onnx"), 3
    ort.InferenceSession(fixture(name), options, providers=["CPUExecutionProvider"])
    saved, plain = Model.load(tmp_path / "model.onnx"), Model.load(fixture(name))
    ends = [operators(fused(model)) for model in (saved, plain)]
    assert not ends[0] - ends[1]


def fused(model):
    for step in (CANONICAL, Fuse()):
        step.apply(model, Context())
    return model


def test_a_decoder_tied_to_the_word_table_stays_exact():
    """It reads the table through a Transpose."""
    model = prepared("bert-mlm-tied", CANONICAL)
    assert_same_outputs(model, Model.load(fixture("bert-mlm-tied")), every_padding(model), atol=0, optimize=False)


@pytest.mark.xfail(strict=True, reason="folding the Transpose writes the table a second time")
def test_a_decoder_tied_to_the_word_table_stays_tied():
    original = Model.load(fixture("bert-mlm-tied"))
    assert weight_bytes(prepared("bert-mlm-tied", CANONICAL)) <= weight_bytes(original)


@pytest.mark.parametrize("name", ["fused-attention", "fused-mha"])
def test_fused_nodes_are_taken_apart(name):
    """What onnxruntime.transformers fused becomes what it stands for, to 1e-5; MultiHeadAttention stays."""
    model = prepared(name, CANONICAL)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)
    assert {node.op for node in model.graph.nodes if node.domain} == {"MultiHeadAttention", "Gelu"}


@pytest.mark.parametrize(
    "name", ["optimum_tiny_bert_seqcls_pt110_opset11", "vespa_dummy_bert_pt17_opset12", "ortfused_attention_mha"]
)
def test_old_exporters_graphs_stay_exact(name):
    """Opsets 11, 12 and 16 are raised to 17."""
    path = shared_graph(name)
    model, original = prepared(path, CANONICAL), Model.load(path)
    if name.startswith("ortfused"):
        rng = np.random.default_rng(0)
        given = {t.name: rng.normal(size=t.shape).astype(t.dtype) for t in model.graph.inputs[:2]}
        given["input_mask"] = np.array([[1, 0, 1]])
        assert_same_outputs(model, original, [given], atol=1e-5)
    else:
        assert_same_outputs(model, original, every_padding(model), atol=0, optimize=False)
    assert model.graph.opset == 17


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("size", [(1, 9), (2, 5), ("batch", 5), (2, "length")])
def test_fixed_shapes_stay_exact(name, size):
    """Shapes that the file fixes are folded, the others are not."""
    model = Model.load(fixture(name))
    for tensor in model.graph.inputs:
        tensor.shape = list(size)
    batch, length = (fixed if isinstance(fixed, int) else 4 for fixed in size)
    apply(CANONICAL, model)
    assert_same_outputs(model, Model.load(fixture(name)), [feeds(model, batch, length)], atol=0, optimize=False)


@pytest.mark.parametrize("name", SOME)
def test_a_second_time_changes_nothing_and_says_so(name):
    model = prepared(name, CANONICAL)
    before = model.fingerprint()
    change = CANONICAL.apply(model, None)
    assert not change
    assert change.note == f"nothing to simplify in {len(model.graph.nodes)} nodes"
    assert model.fingerprint() == before


@pytest.mark.parametrize("name", EVERY)
def test_nodes_and_constants_are_unique(name):
    """Each node has a name of its own; no two constants of one type and shape have one content."""
    model = prepared(name, CANONICAL)
    assert len({node.name for node in model.graph.nodes}) == len(model.graph.nodes)
    contents = [(c.values.dtype, c.values.shape, c.values.tobytes()) for c in model.constants().values()]
    assert len(set(contents)) == len(contents)
    assert not {"Identity", "Constant", "Dropout"} & set(operators(model))


@pytest.mark.parametrize("export", EXPORTS)
def test_albert_s_weights_are_stored_once(export):
    """Exporters write one copy for each layer, or folding does."""
    constants = prepared(f"albert-{export}", CANONICAL).constants().values()
    shapes = Counter(tuple(sorted(c.values.shape)) for c in constants if c.values.dtype == np.float32)
    assert shapes[12, 20] == 2  # up and down
    assert shapes[12, 12] == 5  # query, key, value, output, and the pooler


def test_constants_fold():
    model = parsed("<float[3] a = {1, 2, 3}> { b = Exp(a)  c = Add(b, a)  y = Mul(x, c) }")
    assert apply(CANONICAL, model)
    assert operators(model) == Counter(Mul=1)


def test_equal_nodes_merge_but_dense_layers_do_not():
    """Query and key may start from one matrix, and still have their roles."""
    body = """<float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
        a = Exp(x) b = Exp(x) q = MatMul(a, w) k = MatMul(b, w) y = Sub(q, k) }"""
    model = parsed(body)
    apply(CANONICAL, model)
    assert operators(model) == Counter(Exp=1, MatMul=2, Sub=1)


def test_random_nodes_do_not_merge():
    model = parsed("{ a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }")
    assert merge_equal_nodes(model.graph) == 0


def test_nodes_that_differ_in_an_attribute_do_not_merge():
    model = parsed("{ a = ReduceMax<axes = [0]>(x) b = ReduceMax<axes = [1]>(x) y = Add(a, b) }")
    apply(CANONICAL, model)
    assert operators(model) == Counter(ReduceMax=2, Add=1)


def test_constants_of_equal_bytes_and_other_type_or_shape_stay_apart():
    """Zeros look alike in every type."""
    body = """<float[3] a = {0, 0, 0}, float[1, 3] b = {0, 0, 0}, int32[3] c = {0, 0, 0}, float[3] d = {0, 0, 0}> {
        f = Cast<to = 1>(c) s = Sum(x, a, b, f) y = Add(s, d) }"""
    model = parsed(body)
    assert merge_equal_constants(model.graph) == 1
    assert len({t.name for node in model.graph.nodes for t in node.inputs} & {"a", "b", "c", "d"}) == 3


@pytest.mark.parametrize("body", ["{ y = Identity(x) }", "{ a = Identity(x) b = Identity(a) y = Identity(b) }"])
def test_an_output_that_is_an_input_stays(body):
    model = parsed(body)
    apply(CANONICAL, model)
    assert_same_outputs(model, parsed(body), [{"x": np.ones((2, 3), np.float32)}], atol=0, optimize=False)


@pytest.mark.parametrize("body", ["a = Dropout(x) y = Exp(a)", "a = Identity(x) b = Identity(a) y = Exp(b)"])
def test_nodes_without_effect_go(body):
    model = parsed(f"{{ {body} }}")
    before = model.clone()
    apply(CANONICAL, model)
    assert set(operators(model)) == {"Exp"}
    assert_same_outputs(model, before, [{"x": np.ones((2, 3), np.float32)}], atol=0, optimize=False)


def test_an_opset_that_cannot_be_raised_is_refused():
    """Said with the opset that was needed and what to do."""
    text = '<ir_version: 8, opset_import: ["" : 10]> main (float[N, 3] x) => (float[N, 3] y) { y = Nonsense(x) }'
    with pytest.raises(ModelError, match=r"opset 10 cannot be raised to 17: .+; export at 17 or later"):
        apply(CANONICAL, Model.from_proto(onnx.parser.parse_model(text)))


@pytest.mark.parametrize("beta", [True, False])
def test_a_fused_norm_may_have_no_beta(beta):
    """Its LayerNormalization then has two inputs: an empty third one ends ONNX Runtime without a word."""
    parts = ["x", "x", "gamma", *["beta"] * beta]
    fused = onnx.helper.make_node("SkipLayerNormalization", parts, ["y"], "fused", domain="com.microsoft")
    vectors = {"gamma": [1.0, 2.0, 3.0], "beta": [0.5, 0.0, -0.5]}
    weights = [onnx.helper.make_tensor(n, 1, [3], vectors[n]) for n in parts[2:]]
    x, y = (onnx.helper.make_tensor_value_info(n, 1, ["N", 2, 3]) for n in "xy")
    graph = onnx.helper.make_graph([fused], "norm", [x], [y], weights)
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in (("", 17), ("com.microsoft", 1))]
    original = Model.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    model = original.clone()
    assert apply_alone(CANONICAL, model)
    (norm,) = (node for node in model.graph.nodes if node.op == "LayerNormalization")
    assert [tensor.is_empty() for tensor in norm.inputs] == [False] * (2 + beta)
    given = [{"x": np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)}]
    assert_same_outputs(model, original, given, atol=1e-5)


@pytest.mark.parametrize("given", ["", "alpha = 0.5", "transA = 1, transB = 1, alpha = 0.25"])
def test_a_scaled_product_becomes_a_product_where_its_ranks_are_known(given):
    """ONNX Runtime's sessions put the scale of attention and its Transpose into FusedMatMul, and save it."""
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    main (float[2, heads, 3, 3] x, float[2, heads, 3, 3] z) => (float[a, b, c, d] y) {{
        y = com.microsoft.FusedMatMul<{given or "alpha = 1.0"}>(x, z)
    }}"""
    original = Model.from_proto(onnx.parser.parse_model(text))
    model = original.clone()
    assert apply_alone(CANONICAL, model)
    assert not any(node.op == "FusedMatMul" for node in model.graph.nodes)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 4, 3, 3)).astype(np.float32) for name in "xz"}
    assert_same_outputs(model, original, [feeds], atol=1e-6)


def test_a_softmax_of_scores_that_a_reshape_gives_stays_whole():
    """At opset 11 its axis is last among four: heads split off batched products, beside a bias of three axes."""
    text = """<ir_version: 8, opset_import: ["" : 11]>
    main (float[N, length, length] x, float[1, 1, 2] slopes) => (float[a, b, c, d] y) {
        shape = Shape(x)
        one = Constant<value = int64 {1}>()
        length = Gather<axis = 0>(shape, one)
        side = Unsqueeze<axes = [0]>(length)
        rest = Constant<value = int64[1] {-1}>()
        heads = Constant<value = int64[1] {2}>()
        sizes = Concat<axis = 0>(rest, heads, side, side)
        scores = Reshape(x, sizes)
        capped = Tanh(scores)
        bias = Transpose<perm = [2, 1, 0]>(slopes)
        added = Add(capped, bias)
        y = Softmax<axis = 3>(added)
    }"""
    original = Model.from_proto(onnx.parser.parse_model(text))
    model = original.clone()
    assert apply_alone(CANONICAL, model)
    assert [node.op for node in model.graph.nodes][-3:] == ["Tanh", "Add", "Softmax"]
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((4, 5, 5)), "slopes": rng.standard_normal((1, 1, 2))}
    assert_same_outputs(model, original, [{name: x.astype(np.float32) for name, x in given.items()}], atol=0)


def apply_alone(step: Canonicalize, model: Model) -> Change:
    """For a graph that is no encoder, which has no rows to calibrate on."""
    return step.apply(model, Context())
