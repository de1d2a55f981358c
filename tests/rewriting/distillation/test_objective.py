"""The loss that is minimised, and what it follows from."""

import numpy as np
import pytest
from graphs import batches, prepared
from oracles import answers

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.prune_heads import PruneHeads

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation.executor import Executor  # noqa: E402
from onnxslim_bert.rewriting.distillation.layers import layer_pairs, relation_pairs  # noqa: E402
from onnxslim_bert.rewriting.distillation.objective import Objective, Weights, find_outputs  # noqa: E402
from onnxslim_bert.rewriting.distillation.teacher import Teacher  # noqa: E402
from onnxslim_bert.rewriting.distillation.weights import trainable  # noqa: E402

CANONICAL, FUSE = Canonicalize(), Fuse()
CUT = (FUSE, PruneHeads(keep=0.5), PruneFfn(keep=0.5))
EVERY_LOSS = Weights(answers=1.0, chances=0.5, hidden=0.7, relations=0.3, likenesses=0.4)


def run(student, objective, batch):
    """What the objective reads of the student."""
    names = objective.student_tensors
    return dict(zip(names, Executor(student).run(batch.feeds, names), strict=True))


def objective_of(name, weights=EVERY_LOSS, cut=CUT):
    """A student, the objective, a batch and the teacher's answers to it."""
    teacher_model, student = prepared(name, CANONICAL), prepared(name, CANONICAL, *cut)
    given = batches(teacher_model)
    layers, relations = layer_pairs(student, teacher_model), relation_pairs(student, teacher_model)
    names = [output.name for output in teacher_model.graph.outputs]
    names += [theirs for _, theirs in (*layers, *relations)]
    teacher = Teacher(teacher_model, list(dict.fromkeys(names)), given)
    answered = [(batch, teacher.answer(batch)) for batch in given]
    outputs = find_outputs(student, teacher.by_token, answered)
    objective = Objective(
        weights, outputs, dict.fromkeys(layers, 0.5), relations, teacher_model.encoder.layers[-1].heads
    )
    return student, objective, *answered[0]


@pytest.mark.parametrize("name", ["bert-ts13-eager", "prenorm-ts17-sdpa", "albert-ts14-sdpa", "bert-features-pooled"])
def test_its_gradient_is_that_of_finite_differences(name):
    """Of all losses together, for every weight, along a random direction, in float64."""
    student, objective, batch, theirs = objective_of(name)
    names, rng = trainable(student), np.random.default_rng(5)
    executor = Executor(student, names, dtype=torch.float64)
    labels = np.arange(3) % 2 if "features" not in name else None
    theirs = {tensor: values.astype(np.float64) for tensor, values in theirs.items()}

    def loss():
        ours = executor.run(batch.feeds, objective.student_tensors)
        return objective.loss(dict(zip(objective.student_tensors, ours, strict=True)), theirs, batch, labels)

    loss().backward()
    for weight in names:
        parameter = executor.parameters[weight]
        step = torch.from_numpy(rng.standard_normal(parameter.shape)) * 1e-6
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
                sides.append(float(loss()))
                parameter -= sign * step
        found = 0.0 if parameter.grad is None else float((parameter.grad * step).sum())
        assert found == pytest.approx((sides[0] - sides[1]) / 2, rel=1e-4, abs=1e-11), weight


@pytest.mark.parametrize("name", ["bert-ts13-eager", "bert-features-pooled"])
def test_a_student_that_is_its_teacher_has_no_loss(name):
    student, objective, batch, theirs = objective_of(name, cut=())
    assert float(objective.loss(run(student, objective, batch), theirs, batch)) < 1e-9


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bert-ts17-sdpa", [("logits", "classes", False)]),
        ("bert-features", [("last_hidden_state", "vector", True)]),
        ("bert-features-pooled", [("last_hidden_state", "vector", True), ("pooler_output", "vector", False)]),
    ],
)
def test_what_an_output_is_follows_from_its_answers(name, kinds):
    _, objective, _, _ = objective_of(name)
    assert [(output.name, output.kind, output.by_token) for output in objective.outputs] == kinds


def test_places_in_a_text_and_scores_are_told_apart():
    """[batch, seq] that follows the length is a place in a text; [batch, 1] a score."""
    model = prepared("bert-ts17-sdpa", CANONICAL)
    rng, given = np.random.default_rng(0), batches(model)
    for kind, by_token, width in (("span", {"logits"}, None), ("score", set(), 1)):
        made = [(b, {"logits": rng.standard_normal((len(b.mask), width or b.mask.shape[1]))}) for b in given]
        (output,) = find_outputs(model, by_token, made)
        assert (output.kind, output.by_token) == (kind, bool(by_token))


def test_padding_has_no_part_in_the_loss():
    student, objective, batch, theirs = objective_of("bert-features")
    ours = run(student, objective, batch)
    before = objective.loss(ours, theirs, batch)
    padding = ~batch.mask
    for values in ours.values():
        values[torch.from_numpy(padding)] = 100.0
    assert padding.any()
    assert objective.loss(ours, theirs, batch) == before


def test_texts_behind_the_labels_have_none():
    student, objective, batch, theirs = objective_of("bert-ts17-sdpa", Weights(labels=1.0))
    ours = run(student, objective, batch)
    plain = objective.loss(ours, theirs, batch)
    assert objective.loss(ours, theirs, batch, np.zeros(0, np.int64)) == plain
    logits = answers(student, [batch.feeds])[0]["logits"][:2]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = float(plain) - np.log(chances[[0, 1], [1, 0]]).mean()
    assert float(objective.loss(ours, theirs, batch, np.array([1, 0]))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda n: np.tile([1.0, 2.0], (n, 1)), r"'logits' is the same for all 10 rows"),
        (lambda n: np.stack([np.arange(n), np.full(n, 99.0)], 1), r"answers class 1 in all 10 rows of 'logits'"),
        (np.arange, r"no float output with a row for each text"),
    ],
)
def test_a_teacher_of_which_nothing_can_be_learnt_is_refused(values, said):
    model = prepared("bert-ts17-sdpa", CANONICAL)
    made = [(batch, {"logits": values(len(batch.mask))}) for batch in batches(model)]
    with pytest.raises(PassError, match=said):
        find_outputs(model, [], made)
