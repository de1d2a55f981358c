"""Which texts a student is trained on."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.rewriting.trials import Sampled, Trials

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation.choice import class_logits, surest
from onnxslim_bert.rewriting.distillation.material import gather
from onnxslim_bert.rewriting.distillation.plan import DistillationPlan


def plan(texts, copies=0.5, replace=0.0, balance=False):
    options = {
        "epochs": 1,
        "steps": 0,
        "minutes": 0,
        "rate": "auto",
        "words": False,
        "quantized": False,
        "layer_epochs": 0.0,
        "seed": 0,
    }
    return DistillationPlan(texts, batch=8, copies=copies, replace=replace, join=0.0, balance=balance, **options)


def test_of_more_texts_than_wanted_the_longer_ones_are_drawn_more_often(monkeypatch):
    """A draw by length of a few texts has the mean length sum(n^2) / sum(n); one of all texts that of the corpus."""
    monkeypatch.setattr("onnxslim_bert.rewriting.distillation.material.MOST_HELD_BACK", 20)
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
    monkeypatch.setattr("onnxslim_bert.rewriting.distillation.material.MOST_HELD_BACK", 20)
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


def test_the_surest_texts_of_each_class_are_chosen():
    """Two of each of three classes; of the last there is but one. The margin counts, not the logit."""
    logits = np.array([[9.0, 8, 0], [3, 0, 0], [0, 1, 0], [5, 0, 1], [0, 6, 2], [0, 2, 0], [0, 0, 0.1]])
    assert surest(logits, 6).tolist() == [1, 3, 4, 5, 6]
    assert surest(logits, 5).tolist() == [1, 3, 4, 5, 6]
    assert surest(logits, 3).tolist() == [3, 4, 6]


def test_texts_that_are_balanced_are_answered_evenly_and_surely(monkeypatch):
    """More so than those that are drawn by length."""
    monkeypatch.setattr("onnxslim_bert.rewriting.distillation.material.MOST_HELD_BACK", 20)
    model = prepared("bert-ts17-sdpa", Canonicalize())
    rows = batches(model, [(600, 12)])
    every = class_logits(model, rows, 1)
    model.replace(model.encoder.head[-1].bias, model.array(model.encoder.head[-1].bias) - np.median(every, 0))
    trials = Trials(model, rows, rows[:0], corpus=lambda _: Sampled(rows))
    counts, margins = [], []
    for balance in (False, True):
        texts = gather(model, trials, plan(60, 0.0, balance=balance)).texts
        logits = class_logits(model, list(texts.epoch()), 1)
        counts.append(np.bincount(logits.argmax(1), minlength=logits.shape[1]))
        margins.append(np.ptp(np.sort(logits, 1)[:, -2:], axis=1).mean())
    assert counts[1].std() < counts[0].std()
    assert margins[1] > 1.2 * margins[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bert-features", "balance=true needs classes of a text; the output 'last_hidden_state' has none"),
        ("", "class 2"),
    ],
)
def test_without_several_classes_nothing_is_balanced(name, said):
    model = prepared(name or "bert-ts17-sdpa", Canonicalize())
    if not name:
        model.replace(model.encoder.head[-1].bias, np.array([0, 0, 99, 0, 0], np.float32))
    with pytest.raises(PassError, match=said):
        class_logits(model, batches(model), 1)
