"""How the rate goes, when training ends and which weights are kept."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.prune_ffn import PruneFfn

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation import training  # noqa: E402
from onnxslim_bert.rewriting.distillation.executor import Executor  # noqa: E402
from onnxslim_bert.rewriting.distillation.objective import Objective, Weights, find_outputs  # noqa: E402
from onnxslim_bert.rewriting.distillation.teacher import Teacher  # noqa: E402
from onnxslim_bert.rewriting.distillation.texts import Texts, padding_of, rows_of  # noqa: E402
from onnxslim_bert.rewriting.distillation.torch_threads import torch_threads  # noqa: E402
from onnxslim_bert.rewriting.distillation.training import (  # noqa: E402
    Budget,
    Judged,
    Lessons,
    judge,
    rate_at,
    train,
    usual_rate,
)
from onnxslim_bert.rewriting.distillation.weights import trainable  # noqa: E402

SIZES = ((16, 9), (16, 6), (16, 7))


def setting():
    """A student, its teacher, the objective, texts, and held-back batches with answers."""
    model, cut = (
        prepared("bert-features", Canonicalize()),
        prepared("bert-features", Canonicalize(), PruneFfn(keep=0.5)),
    )
    given = batches(model, SIZES)
    teacher = Teacher(model, [model.graph.outputs[0].name], given)
    held_back = [(batch, teacher.answer(batch)) for batch in given[2:]]
    objective = Objective(Weights(), find_outputs(cut, teacher.by_token, held_back), {}, [], 1)
    texts = Texts(rows_of(given[:2]), padding_of(given), 8)
    return Executor(cut, trainable(cut)), teacher, objective, texts, held_back


@pytest.mark.parametrize(("used", "share"), [(0, 0), (0.03, 0.5), (0.06, 1), (0.53, 0.5), (1, 0), (1.2, 0)])
def test_the_rate_rises_and_falls(used, share):
    assert rate_at(used, 2.0) == pytest.approx(2.0 * share)


@pytest.mark.parametrize(("error", "rate"), [(4.0, 3e-4), (0.36, 3e-4), (0.09, 1.5e-4), (0.01, 5e-5), (0.0001, 5e-6)])
def test_a_student_near_to_its_teacher_is_moved_less(error, rate):
    assert usual_rate(error) == pytest.approx(rate)


def test_without_a_rate_it_is_the_usual_one_for_the_error_before():
    """The weights are those that this rate gives when it is named, and others than with another."""
    student, _, objective, _, held_back = setting()
    usual = usual_rate(judge(student, objective, held_back).error)
    found = []
    for rate in ("auto", usual, 2 * usual):
        student, teacher, objective, texts, held_back = setting()
        train(student, teacher, objective, Lessons(texts, held_back), Budget(5, 0, rate, 0), lambda *_: None)
        found.append(student.trained())
    same = [all((found[0][name] == other[name]).all() for name in other) for other in found]
    assert same == [True, True, False]


@pytest.mark.parametrize(("near", "wanted"), [(0.0, True), (1e9, False)])
def test_a_student_that_is_near_already_is_trained_in_float32(near, wanted, monkeypatch):
    """Its teacher answers in float32, too."""
    student, teacher, objective, texts, held_back = setting()
    rounded, context = [], training.products_in_bfloat16
    monkeypatch.setattr(training, "NEAR", near)
    monkeypatch.setattr(training, "products_in_bfloat16", lambda wanted: rounded.append(wanted) or context())
    train(student, teacher, objective, Lessons(texts, held_back), Budget(3, 0, 1e-3, 0), lambda *said: None)
    assert rounded == [wanted] * 3
    assert teacher.exact is not wanted


def test_the_weights_that_answered_best_are_kept(monkeypatch):
    student, teacher, objective, texts, held_back = setting()
    errors, weights = iter([0.5, 0.4, 0.2, 0.3, 0.35, 0.25]), []

    def judged(*_):
        weights.append({name: value.copy() for name, value in student.trained().items()})
        return Judged(next(errors), 0.0)

    monkeypatch.setattr(training, "judge", judged)
    monkeypatch.setattr(training, "JUDGED", 5)
    done = train(student, teacher, objective, Lessons(texts, held_back), Budget(5, 0, 1e-3, 0), lambda *_: None)
    assert (done.steps, done.kept, done.before.error, done.after.error) == (5, 2, 0.5, 0.2)
    for name, values in student.trained().items():
        np.testing.assert_array_equal(values, weights[2][name])
    assert any((weights[2][name] != weights[5][name]).any() for name in weights[2])


def test_it_ends_when_nothing_gets_better(monkeypatch):
    student, teacher, objective, texts, held_back = setting()
    monkeypatch.setattr(training, "judge", lambda *_: Judged(0.5, 0.0))
    monkeypatch.setattr(training, "PATIENCE", 3)
    before = student.trained()
    done = train(student, teacher, objective, Lessons(texts, held_back), Budget(40, 0, 1e-3, 0), lambda *_: None)
    assert (done.steps, done.kept) == (6, 0)  # judged every second step
    for name, values in student.trained().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_short_training_is_judged_no_longer_than_it_trains():
    """As many steps lie between two judgements as judging takes batches, but for the last one."""
    student, teacher, objective, texts, held_back = setting()
    said = []
    lessons = Lessons(texts, held_back * 4)
    train(student, teacher, objective, lessons, Budget(10, 0, 1e-3, 0), lambda what, *_: said.append(what))
    assert len(held_back) == 1
    assert len(said) == 3  # after 4, 8 and 10 steps


def test_the_error_is_a_share_of_the_variance_of_real_tokens():
    student, _, objective, _, held_back = setting()
    (output,) = objective.outputs
    batch, theirs = held_back[0]
    ours = student.run(batch.feeds)[0].detach().numpy()
    real = theirs[output.name][batch.mask]
    squares = np.square(ours[batch.mask] - real).mean()
    found = judge(student, objective, held_back)
    assert found.error == pytest.approx(squares / real.var(0).mean(), rel=1e-5)
    assert np.isnan(found.agreement)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


class Kept:
    """Keeps the state in memory, and may be told to stop the training there."""

    def __init__(self, stop_after=0):
        self.state, self.count, self.stop_after = None, 0, stop_after

    def load(self):
        return self.state

    def keep(self, state):
        self.state, self.count = {name: values.copy() for name, values in state.items()}, self.count + 1
        if self.count == self.stop_after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop_after", [1, 7, 18])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(stop_after):
    def ended(kept):
        student, teacher, objective, texts, held_back = setting()
        with torch_threads(1):
            budget = Budget(40, 0, 1e-3, 3)
            return train(student, teacher, objective, Lessons(texts, held_back), budget, lambda *_: None, kept), student

    whole, expected = ended(None)
    kept = Kept(stop_after)
    with pytest.raises(KeyboardInterrupt):
        ended(kept)
    assert kept.state["counts"][0] == 2 * stop_after
    resumed, student = ended(kept)
    assert str(resumed) == str(whole)  # an agreement of NaN is none
    assert kept.count == 20
    for name, values in student.trained().items():
        np.testing.assert_array_equal(values, expected.trained()[name])


def test_a_training_that_ended_is_not_done_again(monkeypatch):
    """What it keeps is its result: the best weights, without what another step would need."""

    def ended(kept):
        student, teacher, objective, texts, held_back = setting()
        given = Lessons(texts, held_back)
        return train(student, teacher, objective, given, Budget(40, 0, 1e-3, 3), lambda *_: None, kept), student

    kept = Kept()
    first, expected = ended(kept)
    assert not any(name.startswith(("parameter", "exp_avg")) for name in kept.state)
    monkeypatch.setattr(training, "_step", lambda *_: pytest.fail("trained again"))
    again, student = ended(kept)
    assert str(again) == str(first)
    for name, values in student.trained().items():
        np.testing.assert_array_equal(values, expected.trained()[name])
