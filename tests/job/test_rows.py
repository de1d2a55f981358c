"""Hard rows are made of whatever rows a job has, in the shapes that its model takes."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import fixture, prepared

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.hard_rows import Counts
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.job.data import Data
from onnxslim_bert.job.rows import calibration_batches, harder, make_trials
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fix_shapes import FixShapes

COUNTS = Counts(6, 2, 3)
WORKING = Working(max_length=12)


def ready(model: Model, rows: int = 20, length: int = 7) -> Dataset:
    """Ready inputs of ids at random, padded on the right; the last row is padding alone."""
    rng = np.random.default_rng(1)
    ids = rng.integers(5, 30, (rows, length))
    mask = (np.arange(length) < rng.integers(2, length + 1, (rows, 1))).astype(np.int64)
    mask[-1] = 0
    made = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": 0 * ids}
    return Dataset("rows", "", (), None, None, {t.name: made[t.name] for t in model.graph.inputs})


@pytest.mark.parametrize("name", ["bert-ts17-eager", "roberta-ts17-eager", "albert-dynamo20-sdpa"])
def test_ready_inputs_are_made_harder_too(name):
    model = prepared(name, Canonicalize())
    batches = harder(model, calibration_batches(model, ready(model), WORKING), WORKING, (None, None), COUNTS)
    lengths = np.concatenate([batch.mask.sum(1) for batch in batches])
    assert set(lengths) >= {1, 2, 3, 4, 6, 8, 12}
    assert len(lengths) == 6 + 2 * 6 + 3
    for batch in batches:
        assert batch.feeds.keys() == {tensor.name for tensor in model.graph.inputs}
        assert (batch.feeds["attention_mask"] == batch.mask).all()


def behind_padding(batches: list[Batch]) -> list[Batch]:
    return [batch for batch in batches if not batch.mask[:, 0].all()]


def test_short_rows_stand_behind_padding_where_each_token_has_an_answer():
    """A classifier reads the first token: what it answers to padding there is nobody's."""
    states, classes = (prepared(name, Canonicalize()) for name in ("bert-features", "bert-ts17-eager"))
    of_states, of_classes = (
        harder(model, calibration_batches(model, ready(model), WORKING), WORKING, (None, None), COUNTS)
        for model in (states, classes)
    )
    (batch,) = behind_padding(of_states)
    assert batch.mask[:, -1].all()
    assert (batch.feeds["attention_mask"] == batch.mask).all()
    assert {1, 2} <= set(batch.mask.sum(1)) <= set(range(1, 9))
    assert not behind_padding(of_classes)


def test_rows_behind_padding_are_left_out_where_they_have_no_answer():
    """Of padding in front alone, some exports make what is no number."""
    model = prepared("bert-features", Canonicalize())
    output = model.graph.outputs[0]
    (last,) = (node for node in model.graph.nodes if node.outputs[0] is output)
    build = Builder(model.graph, "test")
    inner = last.outputs[0] = gs.Variable("inner", np.dtype(np.float32))
    first = build.node("Gather", "first", [model.graph.inputs[1], build.constant("zero", np.array(0))], axis=1)
    real = build.node("Cast", "real", [first], to=1)
    wide = build.node("Unsqueeze", "wide", [real, build.constant("axes", np.array([1, 2]))])
    model.graph.nodes.append(gs.Node("Div", "last", inputs=[inner, wide], outputs=[output]))
    model.graph.toposort()
    model.changed()
    rows = calibration_batches(model, ready(model), WORKING)
    assert not behind_padding(harder(model, rows, WORKING, (None, None), COUNTS))


def test_a_fixed_shape_is_kept():
    """Both axes: rows are padded to the length, and there are as many as fill every batch."""
    model = prepared("bert-ts17-eager", Canonicalize(), FixShapes(batch=5, seq=9))
    batches = harder(model, calibration_batches(model, ready(model, 20, 9), WORKING), WORKING, (5, 9), COUNTS)
    assert batches
    assert {batch.feeds["input_ids"].shape for batch in batches} == {(5, 9)}


def test_trials_hold_hard_rows_of_both_sides():
    """Those to judge on have ids that those to fit on do not have in the same place."""
    model = Model.load(fixture("bert-ts17-eager"))
    canonical = prepared("bert-ts17-eager", Canonicalize())
    found = make_trials(canonical, Data(ready(model, 40)), WORKING, split=True)
    fitted, judged = found.hard
    assert len(fitted) > len(judged) > 0
    assert len(found.row_errors(canonical)) == sum(len(b.rows) for b in (*found.held_back, *judged))
    assert found.row_errors(canonical).max() < 1e-6


@pytest.mark.parametrize(("rows", "batch", "held"), [(40, 5, 5), (35, 5, 35), (16, 1, 2), (15, 1, 15), (5, 5, 5)])
def test_rows_are_held_back_where_they_fill_a_batch(rows, batch, held):
    """Of fewer rows, all serve both, the last batch filled or left out."""
    model = prepared("bert-ts17-eager", Canonicalize(), FixShapes(batch=batch, seq=7))
    found = make_trials(model, Data(ready(model, rows)), WORKING, split=True)
    assert sum(len(each.rows) for each in found.held_back) == held
    assert sum(len(each.rows) for each in found.fitting) == (rows - held if held < rows // 2 else held)
