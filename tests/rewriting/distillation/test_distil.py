"""Which texts a student is trained on."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.rewriting.trials import Sampled, Trials

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation.distil import DistillationPlan, gather


def plan(texts, copies=0.5, replace=0.0):
    options = {"epochs": 1, "steps": 0, "minutes": 0, "rate": "auto", "words": False, "quantized": False, "seed": 0}
    return DistillationPlan(texts, batch=8, copies=copies, replace=replace, join=0.0, **options)


def test_of_more_texts_than_wanted_the_longer_ones_are_drawn_more_often(monkeypatch):
    """A draw by length of a few texts has the mean length sum(n^2) / sum(n); one of all texts that of the corpus."""
    monkeypatch.setattr("onnxslim_bert.rewriting.distillation.distil.MOST_HELD_BACK", 20)
    model = prepared("bert-ts17-sdpa", Canonicalize())
    rows, asked = batches(model, [(600, 12)]), []
    trials = Trials(model, rows, rows[:0], corpus=lambda most: asked.append(most) or Sampled(rows))
    few, every = (gather(model, trials, plan(texts)) for texts in (60, 600))
    drawn, known = ([len(row.real) for row in (*m.texts.rows, *m.held_back.rows)] for m in (few, every))
    assert (asked, len(drawn)) == ([320, 2480], 80)
    assert len(known) > 500
    by_length = sum(n * n for n in known) / sum(known)
    assert by_length > 1.1 * np.mean(known)
    assert np.mean(drawn) == pytest.approx(by_length, rel=0.05)


@pytest.mark.parametrize(("copies", "own"), [(0.0, 60), (0.5, 30), (0.75, 15)])
def test_some_of_the_texts_are_copies_and_half_of_those_held_back(copies, own, monkeypatch):
    """No row that is judged by is trained on; texts that are no copies are drawn as they are where there are none."""
    monkeypatch.setattr("onnxslim_bert.rewriting.distillation.distil.MOST_HELD_BACK", 20)
    model = prepared("bert-ts17-sdpa", Canonicalize())
    rows = batches(model, [(600, 12)])
    trials = Trials(model, rows, rows[:0], corpus=lambda _: Sampled(rows))
    plain, mixed = gather(model, trials, plan(own)), gather(model, trials, plan(60, copies, 0.2))
    texts, theirs = ([row.key for row in material.texts.rows] for material in (mixed, plain))
    held, unchanged = ([row.key for row in material.held_back.rows] for material in (mixed, plain))
    half = len(unchanged) // 2
    assert len(texts) == max(60, mixed.own)
    assert texts[: mixed.own] == theirs
    assert held[:half] == unchanged[:half]
    assert len(held) == len(unchanged)
    assert not {*held[half:]} & {*unchanged}
    assert not {*held} & {*texts}
