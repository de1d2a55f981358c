"""RoBERTa's positions by lookup and product: the same, padding included; other positions are left."""

import numpy as np
import pytest
from graphs import EVERY, apply, feeds, fixture, prepared
from oracles import assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.lookup_positions import LookupPositions, roberta_positions
from onnxslim_bert.rewriting.contract import Context

CANONICAL, FIX, LOOKUP = Canonicalize(), FixShapes(2, 7), LookupPositions()
COUNTED = [name for name in EVERY if name.startswith(("roberta", "prenorm"))]
PAD = 1


@pytest.mark.parametrize("name", COUNTED)
def test_the_answers_stay_where_ids_are_padding(name):
    """At the end, at the start and in between."""
    model = prepared(name, CANONICAL, FIX, LOOKUP)
    assert not {"Equal", "Not", "CumSum"} & {node.op for node in model.graph.nodes}
    given = [feeds(model, 2, 7, padding) for padding in ("ragged", "left", "holes")]
    given = [dict(g, input_ids=np.where(g["attention_mask"], g["input_ids"], PAD)) for g in given]
    assert_same_outputs(model, Model.load(fixture(name)), given, atol=1e-5)


def test_the_formula():
    ids = np.array([[5, 6, 1, 7], [1, 1, 8, 9]])
    np.testing.assert_array_equal(roberta_positions(ids, 1), [[2, 3, 1, 4], [1, 1, 2, 3]])


def test_positions_that_are_counted_otherwise_are_left():
    """One more for every token."""
    model = prepared("roberta-ts17-eager", CANONICAL, FIX)
    table = model.encoder.embeddings.position
    lookup = next(node for node in model.graph.nodes if node.op == "Gather" and node.inputs[0].name == table)
    build = Builder(model.graph, "other")
    lookup.inputs[1] = build.node("Add", "more", [lookup.inputs[1], build.constant("one", np.array(1))])
    model.changed()
    change = apply(LOOKUP, model)
    assert (bool(change), change.note) == (False, "positions 'other/more' are not RoBERTa's")


def test_positions_that_are_not_counted_are_left():
    model = prepared("bert-ts17-eager", CANONICAL, FIX)
    before = model.fingerprint()
    change = apply(LOOKUP, model)
    assert (bool(change), change.note) == (False, "no positions are counted from token ids")
    assert model.fingerprint() == before


def test_an_open_length_is_refused():
    message = r"^lookup-positions: input 'input_ids' has no fixed shape; run fix-shapes before$"
    with pytest.raises(PassError, match=message):
        LOOKUP.apply(prepared("roberta-ts17-eager", CANONICAL), Context())
