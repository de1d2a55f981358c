"""Where heads and neurons can go, on every export, and what is said where they cannot."""

import numpy as np
import pytest
from graphs import EVERY, SOME, prepared

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.rewriting.pruning.sites import Site, find_sites

CANONICAL, FUSE = Canonicalize(), Fuse()
OTHERS = ("bert-features", "bert-nomask", "bert-dynamo23-sdpa", "fused-mha")
WIDTHS = {"heads": (3, 4), "neurons": (20, 1)}  # units and channels of one, in every fixture


@pytest.mark.parametrize("kind", ["heads", "neurons"])
@pytest.mark.parametrize("name", [*EVERY, *OTHERS])
def test_every_layer_is_a_site_and_layers_that_share_are_one(name, kind):
    places = [(0, 1, 2)] if name.startswith("albert") else [(0,), (1,), (2,)]
    found = find_sites(prepared(name, CANONICAL), kind)
    assert found == [Site(kind, layers, *WIDTHS[kind]) for layers in places]


def test_a_site_names_what_reads_and_what_writes_it():
    model = prepared("bert-ts17-eager", CANONICAL)
    layers = model.encoder.layers
    heads, neurons = (find_sites(model, kind)[1] for kind in ("heads", "neurons"))
    assert (str(heads), str(find_sites(prepared("albert-ts17-eager", CANONICAL), "heads")[0])) == (
        "layer 1",
        "layer 0, 1, 2",
    )
    assert heads.readers(model) == [layers[1].output]
    assert heads.writers(model) == [layers[1].query, layers[1].key, layers[1].value]
    assert (neurons.readers(model), neurons.writers(model)) == ([layers[1].down], [layers[1].up])


@pytest.mark.parametrize("kind", ["heads", "neurons"])
@pytest.mark.parametrize(
    ("step", "dtype", "remedy"),
    [(QuantizeStatic(), "int8", "$"), (Float16(), "float16", ", or put float32 before it$")],
)
@pytest.mark.parametrize("name", SOME)
def test_small_types_are_refused(name, step, dtype, remedy, kind):
    with pytest.raises(PassError, match=rf"the weight at node '.*' is {dtype}; start from the float32 model{remedy}"):
        find_sites(prepared(name, CANONICAL, FUSE, step), kind)


@pytest.mark.parametrize("shape", [(), (1, 1)], ids=["a row", "of three axes"])
@pytest.mark.parametrize(("kind", "role"), [("heads", "output"), ("neurons", "down")])
@pytest.mark.parametrize("name", SOME)
def test_a_number_for_each_channel_is_refused(name, kind, role, shape):
    """As `smooth` writes: a Mul between the units and what reads them."""
    model = prepared(name, CANONICAL, FUSE)
    linear = model.encoder.layers[1].linears[role]
    build, source = Builder(model.graph, "smooth"), model.graph.tensors()[linear.source]
    factors = build.constant("factors", np.linspace(1, 2, linear.d_in, dtype=np.float32).reshape(*shape, -1))
    reader = next(node for node in model.graph.nodes if node.name == linear.node)
    reader.inputs[0] = build.node("Mul", "smoothed", [source, factors])
    model.changed()
    with pytest.raises(PassError, match=rf"node '.*' \(Mul\) depends on single {kind} too; prune before"):
        find_sites(model, kind)


@pytest.mark.parametrize(("op", "attributes"), [("ReduceMean", {"axes": [-1]}), ("Softmax", {"axis": -1})])
def test_neurons_that_are_normed_together_are_refused(op, attributes):
    """Their mean is another one without some: the rows that go are not zeroed ones then."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    down = model.encoder.layers[1].down
    node = next(node for node in model.graph.nodes if node.name == down.node)
    build, neurons = Builder(model.graph, "norm"), node.inputs[0]
    node.inputs[0] = build.node("Sub", "normed", [neurons, build.node(op, "together", [neurons], **attributes)])
    model.changed()
    with pytest.raises(PassError, match=rf"layer 1: node '.*' \({op}\) depends on single neurons too"):
        find_sites(model, "neurons")


@pytest.mark.parametrize(("kind", "role"), [("heads", "output"), ("neurons", "down")])
def test_another_reader_of_the_units_is_refused(kind, role):
    """As `split-outliers` writes: some channels are gathered besides."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    build, source = (
        Builder(model.graph, "outliers"),
        model.graph.tensors()[model.encoder.layers[0].linears[role].source],
    )
    chosen = build.node("Gather", "chosen", [source, build.constant("indices", np.array([1, 7]))], axis=-1)
    chosen.dtype = np.float32
    model.graph.outputs.append(chosen)
    model.changed()
    with pytest.raises(PassError, match=rf"layer 0: node '.*' \(Gather\) depends on single {kind} too"):
        find_sites(model, kind)


def test_shapes_that_others_read_are_no_obstacle():
    """The length of a batch, read off the query, is the same with fewer heads."""
    model = prepared("bert-ts17-eager", CANONICAL)
    shape = Builder(model.graph, "extra").node(
        "Shape", "shape", [model.graph.tensors()[model.encoder.layers[0].query.result]]
    )
    shape.dtype = np.int64
    model.graph.outputs.append(shape)
    model.changed()
    assert len(find_sites(model, "heads")) == 3


def test_a_layer_without_a_feed_forward_is_refused():
    """The last layer's `down` is read by nothing: only the first layers' neurons are left."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    up = model.encoder.layers[2].up
    activation = model.graph.tensors()[up.result].outputs[0].outputs[0]
    activation.dtype = np.float32
    model.graph.outputs = [activation]
    model.changed()
    assert model.encoder.layers[2].down is None
    assert producer(activation) is not None
    with pytest.raises(PassError, match="layer 2 has no plain feed-forward: nothing to prune"):
        find_sites(model, "neurons")
    assert len(find_sites(model, "heads")) == 3


def test_a_factored_layer_is_refused():
    """`low-rank` stores a matrix as two: heads and neurons go first."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    down = model.encoder.layers[1].down
    node = next(node for node in model.graph.nodes if node.name == down.node)
    build, weight = Builder(model.graph, "low-rank"), model.array(down.weight)
    left = build.node("MatMul", "left", [node.inputs[0], build.constant("left", weight[:, :5].copy())])
    node.inputs[0], node.inputs[1] = left, build.constant("right", weight[:5].copy())
    model.changed()
    assert model.encoder.layers[1].down.factors
    with pytest.raises(PassError, match="is stored as two factors; prune first, then factor"):
        find_sites(model, "neurons")
