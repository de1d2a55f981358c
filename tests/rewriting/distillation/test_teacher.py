"""The teacher's answers, kept and put together again."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes.canonicalize import Canonicalize

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation import bfloat16, executor
from onnxslim_bert.rewriting.distillation import teacher as module
from onnxslim_bert.rewriting.distillation.teacher import Teacher
from onnxslim_bert.rewriting.distillation.texts import Texts, padding_of, rows_of

CANONICAL = Canonicalize()


def taught(name="bert-ts17-sdpa"):
    model = prepared(name, CANONICAL)
    given = batches(model)
    hidden = model.encoder.layers[1].query.result
    return Teacher(model, [model.graph.outputs[0].name, hidden], given), Texts(rows_of(given), padding_of(given), 3)


def test_values_for_each_token_are_told_from_those_for_each_text():
    model = prepared("bert-ts17-sdpa", CANONICAL)
    teacher, _ = taught()
    assert teacher.by_token == {model.encoder.layers[1].query.result}


def test_answers_that_are_remembered_are_those_that_were_given():
    teacher, texts = taught()
    for batch in texts.epoch(np.random.default_rng(0)):
        teacher.remember(batch)
    runs = []
    teacher.answer = runs.append
    for batch in texts.epoch(np.random.default_rng(1)):
        again = teacher.remember(batch)
        fresh = Teacher.answer(teacher, batch)
        for name, values in fresh.items():
            ours, theirs = (x[batch.mask] if name in teacher.by_token else x for x in (again[name], values))
            assert again[name].shape == values.shape
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert not runs


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(module, "ROOM", 2000)
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    teacher, texts = taught()
    runs = []
    answer = teacher.answer
    teacher.answer = lambda batch: runs.append(1) or answer(batch)
    for _ in range(2):
        for batch in texts.epoch():
            teacher.remember(batch)
    assert len(list(texts.epoch())) < len(runs)
    assert sum(value.nbytes for row in teacher._kept.values() for value in row.values()) <= 2000


def test_answers_that_are_not_finite_are_refused():
    model = prepared("bert-ts17-sdpa", CANONICAL)
    bias = model.encoder.head[-1].bias
    model.replace(bias, np.full_like(model.array(bias), np.nan))
    with pytest.raises(PassError, match=r"the teacher's 'logits' is not finite on a text"):
        Teacher(model, ["logits"], batches(model))


@pytest.mark.parametrize(("allowed", "exact", "rounded"), [(0.0, False, False), (1.0, False, True), (1.0, True, False)])
def test_what_is_trained_on_is_answered_in_bfloat16_where_that_is_near_enough(allowed, exact, rounded, monkeypatch):
    """And what judges never is. On a CPU without instructions for it PyTorch computes the same, only slower."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(bfloat16, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(module, "ROUNDING", allowed)
    teacher, texts = taught()
    teacher.exact = exact
    for batch in texts.epoch():
        judged, given = teacher.answer(batch), teacher.remember(batch)
        for name, values in judged.items():
            ours, theirs = (x[batch.mask] if name in teacher.by_token else x for x in (given[name], values))
            assert np.array_equal(ours, theirs) is not rounded
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.05 * np.abs(theirs).max())


def test_a_teacher_with_an_operator_that_pytorch_is_not_told_of_answers_in_float32(monkeypatch):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(module, "ROUNDING", 1.0)
    monkeypatch.setattr(executor, "OPERATORS", {})
    teacher, texts = taught()
    for batch in texts.epoch():
        exact, given = teacher.answer(batch), teacher.remember(batch)
        assert all(np.array_equal(given[name], values) for name, values in exact.items())
