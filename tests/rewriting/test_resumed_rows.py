"""Rows that have come some way through a model answer as if they had started at the top."""

import numpy as np
import pytest
from graphs import SOME, prepared, trials

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.model.parts import boundary
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting import resumed_rows as module
from onnxslim_bert.rewriting.resumed_rows import ResumedRows

NAMES = (*SOME, "bert-features", "bert-features-pooled", "bert-mlm-tied")


def downs(model):
    """Every matrix that ends a layer, each once."""
    return list(dict.fromkeys(layer.linears["down"].weight for layer in model.encoder.layers))


@pytest.mark.parametrize("steps", [(Canonicalize(),), (Canonicalize(), Fuse())], ids=["canonical", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_the_rest_of_a_model_gives_what_all_of_it_gives(name, steps):
    """Statistics and damages, while matrices change from the top downwards."""
    model = prepared(name, *steps)
    on_rows = trials(model)
    resumed, left = ResumedRows(model, on_rows), downs(model)
    while left:
        part, here = resumed.part(left)
        want = Want(next(layer.down.source for layer in model.encoder.layers if layer.down.weight == left[0]), "square")
        expected = on_rows.collect(model, [want])[want]
        np.testing.assert_allclose(here.collect(part, [want])[want], expected, rtol=1e-3, atol=1e-6)
        variants = [{}, {left[0]: model.array(left[0]) * 0}]
        assert here.damages(part, variants) == pytest.approx(on_rows.damages(model, variants), abs=1e-4)
        model.replace(left[0], model.array(left[0]) * 0.5)
        left.pop(0)


def test_what_is_done_does_not_run_again():
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    resumed, (first, *others) = ResumedRows(model, trials(model)), downs(model)
    whole, _ = resumed.part([first, *others])
    part, here = resumed.part(others)
    assert len(part.graph.nodes) < len(whole.graph.nodes) < len(model.graph.nodes)
    assert not set(here.held_back[0].feeds) & {
        tensor.name for tensor in model.graph.inputs if "mask" not in tensor.name
    }


def test_many_rows_start_at_the_top(monkeypatch):
    """Their hidden states would not fit."""
    monkeypatch.setattr(module, "STATES_BYTES", 10.0)
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    on_rows = trials(model)
    part, here = ResumedRows(model, on_rows).part(downs(model)[1:])
    assert here is on_rows
    assert part is model


def test_a_boundary_is_what_the_rest_reads():
    """Shared matrices are reached where their first layer is."""
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    layers = model.encoder.layers
    assert layers[1].down.source in boundary(model, [layers[1].down.weight])
    shared = prepared("albert-ts14-sdpa", Canonicalize(), Fuse())
    assert shared.encoder.layers[0].down.source in boundary(shared, downs(shared))
    assert boundary(model, []) == [tensor.name for tensor in model.graph.outputs]
