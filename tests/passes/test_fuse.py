"""Fusing gives every exporter's graph one form, which answers as the original does."""

import hashlib
from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import (
    DISTINCT,
    EVERY,
    EXPORTS,
    FAMILIES,
    SOME,
    apply,
    every_padding,
    feeds,
    fixture,
    prepared,
    shared_graph,
)
from oracles import assert_same_outputs, optimized

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import nodes_between
from onnxslim_bert.model.gelu_form import find_gelus
from onnxslim_bert.model.norm_form import find_norms
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
LAYERS = Counter(MatMul=18, Add=18, Sum=5, LayerNormalization=5, Gelu=3, MultiHeadAttention=3)
ELEMENTARY = {"ReduceMean", "Sqrt", "Pow", "Erf", "Tanh", "Softmax"}


def layer_operators(model: Model) -> Counter[str]:
    """The operators that depend on what layer 0 reads, up to the last layer's feed-forward."""
    tensors, layers = model.graph.tensors(), model.encoder.layers
    first, last = tensors[layers[0].key.source], tensors[layers[-1].down.result]
    before = {id(node) for node in nodes_between([], first)}
    reached, front = set[int](), [first]
    while front:
        for node in front.pop().outputs:
            if id(node) not in reached:
                reached.add(id(node))
                front.extend(node.outputs)
    return Counter(n.op for n in nodes_between([], last) if id(n) in reached and id(n) not in before)


@pytest.mark.parametrize("name", [*EVERY, "bert-dynamo23-sdpa", "bert-nomask"])
def test_every_export_becomes_one_form(name):
    """The same operators in the layers, whichever exporter wrote them, and the same answers to 1e-5."""
    model = prepared(name, CANONICAL, FUSE)
    assert layer_operators(model) == LAYERS
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", DISTINCT)
def test_skip_layer_normalization_does_not_fire(name):
    """ONNX Runtime would write it and run it slower than the two operators apart."""
    operators = Counter(node.op_type for node in optimized(prepared(name, CANONICAL, FUSE)).node)
    assert not any("SkipLayerNormalization" in op for op in operators), operators
    assert operators["MultiHeadAttention"] == 3
    assert operators["LayerNormalization"] >= 7
    assert operators["Gelu"] + operators["BiasGelu"] >= 3


@pytest.mark.parametrize("name", EVERY)
def test_the_standard_form_stays_in_the_standard(name):
    """No operator of another domain; one LayerNormalization for each norm, and the answers to 1e-5."""
    model = prepared(name, CANONICAL, STANDARD)
    assert not {node.domain for node in model.graph.nodes} - {None, ""}
    counts = Counter(node.op for node in model.graph.nodes)
    assert counts["LayerNormalization"] == (8 if name.startswith("prenorm") else 7)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


def nameless(model: Model) -> str:
    """What graphs share that differ in the names of nodes and of tensors between them, and in nothing else."""
    known: dict[int, str] = {}

    def said(tensor: gs.Tensor) -> str:
        if isinstance(tensor, gs.Constant):
            return f"{tensor.values.dtype} {tensor.values.shape} {tensor.values.tobytes().hex()}"
        return known.get(id(tensor), tensor.name)

    for node in model.graph.nodes:
        reads = [node.op, node.domain, sorted(map(str, node.attrs.items())), *map(said, node.inputs)]
        for place, tensor in enumerate(node.outputs):
            known[id(tensor)] = hashlib.sha256(repr([place, *reads]).encode()).hexdigest()
    return repr([model.graph.opset, *map(said, model.graph.outputs)])


@pytest.mark.parametrize("step", [FUSE, STANDARD], ids=["contrib", "standard"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_exports_of_a_family_become_few_graphs(family, step):
    """Those of `DISTINCT`, to the bit, embeddings and matrices included: what holds for them holds for every export."""
    graphs = {f"{family}-{name}": nameless(prepared(f"{family}-{name}", CANONICAL, step)) for name in EXPORTS}
    assert set(graphs.values()) == {graph for name, graph in graphs.items() if name in DISTINCT}
    assert len(set(graphs.values())) == len(graphs.keys() & set(DISTINCT))


@pytest.mark.parametrize("name", ["bert-features-pooled", "bert-mlm", "bert-mlm-tied"])
def test_other_heads_stay_exact(name):
    """Padding positions of a whole hidden state are answers too."""
    model = prepared(name, CANONICAL, FUSE)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=2e-5)


def test_a_pytorch_1_10_distilbert_fuses():
    path = shared_graph("optimum_tiny_bert_seqcls_pt110_opset11")
    model = prepared(path, CANONICAL, FUSE)
    assert Counter(node.op for node in model.graph.nodes)["MultiHeadAttention"] == 2
    assert_same_outputs(model, Model.load(path), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_a_fixed_shape_fuses(name):
    model = Model.load(fixture(name))
    for tensor in model.graph.inputs:
        tensor.shape = [2, 5]
    apply(CANONICAL, model)
    apply(FUSE, model)
    assert layer_operators(model) == LAYERS
    assert_same_outputs(model, Model.load(fixture(name)), [feeds(model, 2, 5)], atol=1e-5)


@pytest.mark.parametrize("step", [FUSE, STANDARD], ids=str)
@pytest.mark.parametrize("name", SOME)
def test_a_second_time_changes_no_output(name, step):
    model = prepared(name, CANONICAL, step)
    before = len(model.graph.nodes)
    change = step.apply(model, None)
    assert "norm" not in change.note
    assert "activation" not in change.note
    assert len(model.graph.nodes) == before
    assert_same_outputs(model, Model.load(fixture(name)), [feeds(model)], atol=1e-5)


def test_fusing_twice_says_that_there_was_nothing():
    assert not FUSE.apply(prepared("bert-ts17-sdpa", CANONICAL, FUSE), None)


@pytest.mark.parametrize(("step", "left"), [(STANDARD, True), (FUSE, False)], ids=str)
def test_what_is_not_proven_is_left_and_reported(step, left):
    """A causal mask is something that is added to scores, for which the operators of ONNX alone have no node."""
    model = prepared("decoder-ts17", CANONICAL)
    change = step.apply(model, None)
    assert ("left as it is: attention of layer" in change.note) == left
    assert_same_outputs(model, Model.load(fixture("decoder-ts17")), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", ["fused-attention", "fused-mha"])
def test_what_onnx_runtime_fused_is_fused_again(name):
    model = prepared(name, CANONICAL)
    change = FUSE.apply(model, None)
    assert "left as it is" not in change.note
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


def test_an_unknown_style_is_refused():
    with pytest.raises(PassError, match="fuse: style='best' is not one of contrib, standard"):
        Fuse(style="best")


# recognising norms and activations by what they compute


def graph_of(body: str) -> Model:
    """x [N, 3] to y by the nodes in `body`, with a gamma and a beta."""
    constants = "float[3] gamma = {1, 2, 3}, float[3] beta = {4, 5, 6}, float eps = {1e-5}, float two = {2}"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3] x) => (float[N, 3] y) <{constants}> {{ {body} }}"""
    return Model.from_proto(onnx.parser.parse_model(text))


CENTRED = "mean = ReduceMean<axes = [-1]>(x) c = Sub(x, mean) "
SCALED = "s = Add(v, eps) r = Sqrt(s) n = Div(c, r) g = Mul(n, gamma) y = Add(g, beta)"
NORMS = {
    "pow": CENTRED + "p = Pow(c, two) v = ReduceMean<axes = [-1]>(p) " + SCALED,
    "mul": CENTRED + "p = Mul(c, c) v = ReduceMean<axes = [-1]>(p) " + SCALED,
    "reciprocal": CENTRED
    + """p = Mul(c, c) v = ReduceMean<axes = [-1]>(p) s = Add(v, eps) r = Sqrt(s) i = Reciprocal(r)
        n = Mul(c, i) g = Mul(gamma, n) y = Add(beta, g)""",
    "as Keras has it": CENTRED
    + """p = Mul(c, c) v = ReduceMean<axes = [-1]>(p) s = Add(v, eps) r = Sqrt(s) i = Reciprocal(r)
        f = Mul(i, gamma) a = Mul(x, f) b = Mul(mean, f) d = Sub(beta, b) y = Add(a, d)""",
}
NOT_NORMS = {
    "root mean square": "p = Mul(x, x) v = ReduceMean<axes = [-1]>(p) s = Add(v, eps) r = Sqrt(s) n = Div(x, r) "
    "g = Mul(n, gamma) y = Add(g, beta)",
    "over the batch": NORMS["pow"].replace("[-1]", "[0]"),
    "absolute": CENTRED + "a = Abs(c) v = ReduceMean<axes = [-1]>(a) " + SCALED,
    "no root": NORMS["mul"].replace("r = Sqrt(s)", "r = Add(s, eps)"),
}


@pytest.mark.parametrize("body", NORMS.values(), ids=NORMS)
def test_norms_are_recognised_however_they_are_spelled(body):
    (form,) = find_norms(graph_of(body).graph)
    assert (form.source.name, form.target.name, form.gamma.name, form.beta.name) == ("x", "y", "gamma", "beta")
    assert form.epsilon == pytest.approx(1e-5)


@pytest.mark.parametrize("body", NOT_NORMS.values(), ids=NOT_NORMS)
def test_what_only_looks_like_a_norm_is_none(body):
    assert find_norms(graph_of(body).graph) == []


GELUS = {
    "erf": "a = Div(x, root) e = Erf(a) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)",
    "erf, halved first": "a = Mul(x, inverse) e = Erf(a) o = Add(e, one) h = Mul(x, half) y = Mul(h, o)",
    "tanh": """p = Pow(x, three) q = Mul(p, small) i = Add(x, q) s = Mul(i, rate) t = Tanh(s) o = Add(t, one)
        h = Mul(x, half) y = Mul(h, o)""",
}
NOT_GELUS = {
    "another slope": GELUS["erf"].replace("root", "half"),
    "another half": GELUS["erf"].replace("half", "one"),
    "tanh alone": "t = Tanh(x) y = Mul(x, t)",
}


def gelu_graph(body: str) -> Model:
    constants = {"one": 1, "half": 0.5, "root": np.sqrt(2), "inverse": np.sqrt(0.5), "three": 3, "small": 0.044715}
    constants["rate"] = np.sqrt(2 / np.pi)
    listed = ", ".join(f"float {name} = {{{value}}}" for name, value in constants.items())
    text = f'<ir_version: 8, opset_import: ["" : 17]> main (float[N] x) => (float[N] y) <{listed}> {{ {body} }}'
    return Model.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize("name", GELUS)
def test_gelus_are_recognised_however_they_are_spelled(name):
    (form,) = find_gelus(gelu_graph(GELUS[name]).graph)
    assert (form.source.name, form.target.name, form.kind) == ("x", "y", name[:4].rstrip(","))


@pytest.mark.parametrize("body", NOT_GELUS.values(), ids=NOT_GELUS)
def test_what_only_looks_like_a_gelu_is_none(body):
    assert find_gelus(gelu_graph(body).graph) == []


@pytest.mark.parametrize("name", ["bert-ts17-eager", "electra-dynamo20-eager", "bert-ts13-eager"])
def test_the_standard_form_follows_the_contrib_one(name):
    """Nothing of com.microsoft is left, and it answers as before."""
    fused = prepared(name, CANONICAL, FUSE)
    assert any(node.domain for node in fused.graph.nodes)
    standard = fused.clone()
    assert apply(STANDARD, standard)
    assert not [node.op for node in standard.graph.nodes if node.domain]
    assert_same_outputs(standard, fused, every_padding(fused), atol=1e-5)


def test_the_tanh_approximation_is_spelled_as_it_is():
    """Not as the exact one."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    for node in model.graph.nodes:
        if node.op == "Gelu":
            node.op = "FastGelu"
    spelled = model.clone()
    assert apply(STANDARD, spelled)
    assert {"Tanh"} <= {node.op for node in spelled.graph.nodes} - {"Erf"}
    assert not [node.op for node in spelled.graph.nodes if node.domain]
    assert_same_outputs(spelled, model, every_padding(model), atol=1e-5)
