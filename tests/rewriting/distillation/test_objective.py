"""The loss that is minimised, and what it follows from."""

from dataclasses import replace

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

from onnxslim_bert.calibration.batches import Batch  # noqa: E402
from onnxslim_bert.rewriting.distillation.executor import Executor  # noqa: E402
from onnxslim_bert.rewriting.distillation.layers import layer_pairs, relation_pairs  # noqa: E402
from onnxslim_bert.rewriting.distillation.objective import (  # noqa: E402
    USUAL,
    Objective,
    Output,
    OutputWeights,
    Weights,
    check_weights,
    find_outputs,
)
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
    assert float(objective.loss(run(student, objective, batch), theirs, batch)) < 1e-7


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


def test_chances_of_words_are_classes_of_each_token():
    """A language model's output is wider than its encoder, as vectors are, but has a column for each word."""
    _, objective, _, _ = objective_of("bert-mlm", Weights(), cut=())
    (output,) = objective.outputs
    assert (output.kind, output.by_token) == ("classes", True)


REAL = np.arange(7) < np.array([[7], [4], [5]])


def cosines(vectors):
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return unit @ unit.T


def of_places(ours, theirs):
    return [values.masked_fill(~torch.from_numpy(REAL), -1e4) for values in (ours, theirs)]


def of_means(ours, theirs):
    return [
        torch.stack([row[r].mean(0) for row, r in zip(x, torch.from_numpy(REAL), strict=True)]) for x in (ours, theirs)
    ]


def no_loss(ours, theirs):
    return 0.0


def kl(ours, theirs):
    """By the definition, of softened chances."""
    p, q = (torch.softmax(values / 2, -1) for values in (theirs, ours))
    return 4 * (p * (p / q).log()).nan_to_num().sum(-1).mean()


def apart(ours, theirs):
    return (cosines(ours) - cosines(theirs)).square().mean()


TASKS = {
    "classes": ("classes", False, (3, 5), no_loss),
    "scores": ("score", False, (3, 1), no_loss),
    "tags": ("classes", True, (3, 7, 5), lambda ours, theirs: kl(ours[REAL], theirs[REAL])),
    "ratings of tokens": ("score", True, (3, 7, 1), no_loss),
    "places": ("span", True, (3, 7), lambda ours, theirs: kl(*of_places(ours, theirs))),
    "embeddings": ("vector", False, (3, 6), apart),
    "embeddings of tokens": ("vector", True, (3, 7, 6), lambda ours, theirs: apart(*of_means(ours, theirs))),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_trains_towards_its_own_loss(task):
    """By default: the squared error and what is usual for the task, each written out here, and both become small."""
    kind, by_token, shape, own = TASKS[task]
    generator = torch.Generator().manual_seed(3)
    theirs, ours = (torch.randn(shape, generator=generator) for _ in range(2))
    ours.requires_grad_()
    batch = Batch({}, REAL, np.arange(3))
    objective = Objective(Weights(), [Output("answer", kind, by_token, 2.0)], {}, [], 1)
    optimizer = torch.optim.Adam([ours], lr=0.05)

    def loss():
        return objective.loss({"answer": ours}, {"answer": theirs.numpy()}, batch)

    def written_out():
        with torch.no_grad():
            error = (ours - theirs)[REAL if by_token else ...].square().mean() / 2
            return float(error), float(own(ours, theirs))

    first = written_out()
    assert float(loss()) == pytest.approx(sum(first), rel=1e-4)
    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    last = written_out()
    assert float(loss()) == pytest.approx(sum(last), rel=1e-3, abs=1e-5)
    assert all(after < 0.1 * before for before, after in zip(first, last, strict=True) if before)


def test_every_kind_of_output_has_usual_weights_for_losses_that_it_can_have():
    for (kind, by_token), usual in USUAL.items():
        output = Output("answer", kind, by_token, 1.0)
        assert all(getattr(usual, loss) == 0 or loss in output.losses for loss in ("answers", "chances", "likenesses"))
        assert Weights().of(output) == usual


def test_a_weight_that_is_given_stands_in_place_of_the_usual_one():
    span = Output("start", "span", True, 1.0)
    assert Weights(answers=0.5).of(span) == OutputWeights(answers=0.5, chances=1.0)
    assert Weights(chances=0.0).of(span) == OutputWeights(answers=1.0)
    assert Weights(likenesses=3.0).of(span).likenesses == 0


@pytest.mark.parametrize(
    ("kind", "weights", "said"),
    [
        ("score", {"chances": 0.5}, r"chances=0.5 is no loss of this model's outputs: 'answer' of the kind score"),
        (
            "classes",
            {"likenesses": 1.0},
            r"likenesses=1 is no loss of this model's outputs: 'answer' of the kind classes",
        ),
    ],
)
def test_a_loss_that_no_output_can_have_is_refused(kind, weights, said):
    with pytest.raises(PassError, match=said):
        check_weights(Weights(**weights), [Output("answer", kind, False, 1.0)])
    check_weights(Weights(**dict.fromkeys(weights, 0.0)), [Output("answer", kind, False, 1.0)])


def test_a_temperature_where_nothing_is_softened_is_refused():
    """As for the classes of a text, whose chances have no weight unless one is given; those of a tagger have."""
    hot = Weights(temperature=4.0)
    with pytest.raises(PassError, match="temperature=4 softens chances, which have no weight here"):
        check_weights(hot, [Output("answer", "classes", False, 1.0)])
    check_weights(replace(hot, chances=0.5), [Output("answer", "classes", False, 1.0)])
    check_weights(hot, [Output("answer", "classes", False, 1.0), Output("tags", "classes", True, 1.0)])


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
