"""The teacher's answers, kept and put together again."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
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
