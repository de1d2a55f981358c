"""Padding that moves no other token is told from padding that does, whatever the attention computes."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import PADDINGS, feeds, prepared, shared_graph
from oracles import assert_same_outputs, values_of
from random_encoders import HEADS, POSITIONS, VOCABULARY, Kind, encoder

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.padding import padding_mask
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context

FIXED = Kind("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "first")
KINDS = {
    "rotary": {"rotary": True, "positions": "none"},
    "a window": {"window": 8},
    "a window and rotary": {"window": 3, "rotary": True},
    "relative": {"bias": "table"},
    "alibi": {"bias": "alibi", "positions": "none"},
    "grouped keys": {"groups": 2, "rotary": True},
}


def made(changes: dict[str, object], *steps: object) -> Model:
    model = encoder(Kind(**{**vars(FIXED), **changes}))
    for step in (Canonicalize(), *steps):
        step.apply(model, Context())
    return model


def masks(model: Model) -> list[str | None]:
    return [padding_mask(attention_region(model.graph, layer)) for layer in model.encoder.layers]


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("steps", [(), (Fuse(),)], ids=["as exported", "fused"])
def test_padding_is_dropped_around_any_attention_that_hides_it(changes, steps):
    """The mask is found, dense layers see real tokens alone, and answers stay, with padding anywhere."""
    model = made(changes, *steps)
    assert masks(model) == ["attention_mask"] * 2
    assert Unpad().apply(model, Context())
    rng, places = np.random.default_rng(0), np.arange(POSITIONS)
    rows = []
    for length in (1, 5, 33, POSITIONS):
        p = places[:length]
        mask = np.stack([p < length, p < -(-length // 2), (p >= length // 2), (p % 3 != 1)]).astype(np.int64)
        rows.append({"input_ids": rng.integers(2, VOCABULARY, mask.shape), "attention_mask": mask})
    assert_same_outputs(model, encoder(Kind(**{**vars(FIXED), **changes})), rows, atol=1e-5)
    mask = rows[1]["attention_mask"].copy()
    mask[mask[:, 0] == 0] = 1  # in a window of padding alone, position 0 reads it
    (dense,) = {x.shape[:-1] for x in values_of(model, [layer.up.source for layer in model.encoder.layers], rows[1])}
    assert dense == (mask.sum(),)


@pytest.mark.parametrize("steps", [(), (Fuse(),)], ids=["as exported", "fused"])
@pytest.mark.parametrize("name", ["modernbert-feat-dyn20-sdpa", "nomic-feat-dyn20-sdpa", "mpnet-feat-dyn20-eager"])
def test_families_that_read_their_first_token_run_on_real_tokens(name, steps):
    """With a window, too, and position 0 far from any real token."""
    model = prepared(shared_graph(f"families/{name}/model"), Canonicalize()).clone()
    state = model.graph.outputs[0]
    first = Builder(model.graph, "").node("Gather", "first", [state, gs.Constant("zero", np.array(0))], axis=1)
    first.dtype, model.graph.outputs = np.dtype(np.float32), [first]
    model.changed()
    before = model.clone()
    for step in (*steps, Unpad()):
        assert step.apply(model, Context())
    rows = [feeds(model, 3, length, padding) for length in (4, 7, 40) for padding in PADDINGS]
    assert_same_outputs(model, before, rows, atol=1e-5)


def test_padding_that_is_only_made_less_likely_is_read():
    """A mask that lowers scores by 2, and one that nothing reads, keep no token apart."""
    model = made({"bias": "alibi"})
    for node in model.graph.nodes:
        for tensor in node.inputs:
            if (values := constant(tensor)) is not None and (values == -1e9).any():
                tensor.values = np.where(values == -1e9, np.float32(-2), values).astype(np.float32)
    model.changed()
    assert masks(model) == [None, None]
    assert masks(made({"bias": "alibi", "mask": "none"})) == [None, None]
