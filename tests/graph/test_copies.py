"""A copied graph says the same, and changes apart from its origin."""

import numpy as np
import pytest
from graphs import SOME, prepared

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad

FORMS = {
    "as exported": (),
    "fused": (Canonicalize(), Fuse()),
    "branches": (Canonicalize(), Fuse(), SkipMask(), Unpad()),
}


@pytest.mark.parametrize("steps", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", SOME)
def test_a_copy_is_the_same_model(name, steps):
    model = prepared(name, *steps)
    copy = model.clone()
    assert copy.proto().SerializeToString(deterministic=True) == model.proto().SerializeToString(deterministic=True)
    weights = model.constants()
    assert all(np.shares_memory(one.values, weights[name].values) for name, one in copy.constants().items())


def everything(graph):
    """The graph, its nodes, tensors and lists of attributes, and those of the graphs inside."""
    for node in graph.nodes:
        yield from (node, *node.inputs, *node.outputs)
        for value in node.attrs.values():
            yield from [value] if isinstance(value, list) else []
        for inner in node.subgraphs():
            yield inner
            yield from everything(inner)


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "prenorm-dynamo18-eager"])
def test_nothing_of_it_is_the_original(name):
    """A branch reads the copy's tensors, not the original's."""
    model = prepared(name, *FORMS["branches"])
    assert any(node.op == "If" for node in model.graph.nodes)
    theirs = {id(one) for one in everything(model.graph)}
    assert not any(id(one) in theirs for one in everything(model.clone().graph))


def test_its_operator_sets_are_its_own():
    model = prepared("bert-ts17-sdpa")
    copy = model.clone()
    for entry in copy.graph.import_domains:
        entry.version = 1
    assert [entry.version for entry in model.graph.import_domains] == [17]
