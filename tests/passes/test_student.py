"""A student has the source's inputs and outputs, sees no padding, and learns."""

import importlib.util

import numpy as np
import pytest
from graphs import apply, batches, every_padding, feeds, prepared
from oracles import answers

from onnxslim_bert.errors import NoEncoderError, PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.distill import Distill
from onnxslim_bert.passes.student import Student
from onnxslim_bert.passes.trim_vocabulary import TrimVocabulary
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.students import first_vectors
from onnxslim_bert.rewriting.trials import Trials

NAMES = ("bert-dynamo20-sdpa", "bert-ts13-eager", "roberta-ts17-sdpa", "bert-nomask")
KINDS = ("static", "bilstm")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'",
)


def student_of(name, kind, *before):
    model = prepared(name, Canonicalize(), *before)
    assert apply(Student(kind=kind, width=8, hidden=32), model)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_are_those_of_the_source(name, kind):
    source, model = prepared(name, Canonicalize()), student_of(name, kind)
    for ours, theirs in zip(
        [*model.graph.inputs, *model.graph.outputs], [*source.graph.inputs, *source.graph.outputs], strict=True
    ):
        assert (ours.name, ours.dtype, ours.shape) == (theirs.name, theirs.dtype, theirs.shape)
    given = every_padding(source)
    for made, expected in zip(answers(model, given), answers(source, given), strict=True):
        assert {name: values.shape for name, values in made.items()} == {
            name: values.shape for name, values in expected.items()
        }
    with pytest.raises(NoEncoderError):
        _ = model.encoder


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_read(kind):
    """Other ids under the mask, and more of them behind it, change no answer."""
    model = student_of("bert-dynamo20-sdpa", kind)
    given = feeds(model, 4, 7)
    other = dict(given)
    other["input_ids"] = np.where(given["attention_mask"] == 0, 3, given["input_ids"])
    other = {name: np.pad(values, ((0, 0), (0, 5)), constant_values=0) for name, values in other.items()}
    (ours,), (theirs,) = answers(model, [given]), answers(model, [other])
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=0, atol=1e-6)


def test_a_text_without_a_token_has_an_answer():
    for kind in KINDS:
        model = student_of("bert-dynamo20-sdpa", kind)
        given = feeds(model, 2, 5)
        given["attention_mask"] = np.zeros_like(given["attention_mask"])
        assert np.isfinite(answers(model, [given])[0]["logits"]).all()


def test_order_matters_to_an_lstm_alone():
    for kind, matters in (("static", False), ("bilstm", True)):
        model = student_of("bert-dynamo20-sdpa", kind)
        given = feeds(model, 3, 7, padding="full")
        turned = given | {"input_ids": np.ascontiguousarray(given["input_ids"][:, ::-1])}
        (ours,), (theirs,) = answers(model, [given]), answers(model, [turned])
        assert bool(np.abs(ours["logits"] - theirs["logits"]).max() > 1e-4) is matters


def test_vectors_start_on_the_principal_axes():
    table = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32) @ np.diag([9, 5, 1, 1, 1, 1, 1, 1])
    vectors = first_vectors(table.astype(np.float32), 2)
    kept = np.linalg.svd(table - table.mean(0), full_matrices=False)[0][:, :2]
    residual = vectors - kept @ (kept.T @ vectors)
    assert np.abs(residual).max() < 1e-4
    assert np.var(vectors, 0).mean() == pytest.approx(1, rel=1e-3)
    assert first_vectors(table.astype(np.float32), 12).shape == (50, 12)


def test_a_smaller_vocabulary_is_read_through_its_map():
    model = student_of("bert-dynamo20-sdpa", "static", TrimVocabulary(tokens=25))
    assert np.isfinite(answers(model, [feeds(model)])[0]["logits"]).all()


def test_outputs_of_every_token_are_refused():
    with pytest.raises(PassError, match=r"'last_hidden_state' is \['batch', 'sequence', 12\]; needed one row a text"):
        student_of("bert-features", "static")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"kind": "cnn"}, "kind='cnn' is not one of static, bilstm"), ({"width": 0}, "width=0 is not 1 or more")],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(PassError, match=said):
        Student(**options)


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert-ts13-eager", "roberta-ts17-sdpa"])
def test_pytorch_computes_what_onnx_runtime_computes(name, kind):
    from onnxslim_bert.rewriting.distillation.executor import Executor
    from onnxslim_bert.rewriting.distillation.weights import trainable

    model = student_of(name, kind)
    weights = trainable(model, words=True)
    assert len(weights) == {"static": 5, "bilstm": 8}[kind]
    executor, given = Executor(model, weights), every_padding(model)
    for batch, expected in zip(given, answers(model, given, optimize=False), strict=True):
        (ours,) = executor.run(batch)
        np.testing.assert_allclose(ours.detach().numpy(), expected["logits"], rtol=0, atol=1e-5)
    ours.sum().backward()
    assert all(executor.parameters[name].grad is not None for name in weights)


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind):
    """From how often two tokens occur, which a student can see: the teacher is itself one, with other weights."""
    teacher = student_of("bert-dynamo20-sdpa", "static")
    rows = batches(teacher, ((64, 9), (64, 6)))
    source = prepared("bert-dynamo20-sdpa", Canonicalize())
    model = student_of("bert-dynamo20-sdpa", kind)
    bias = next(name for name in source.constants() if name == source.encoder.head[-1].bias)
    logits = np.concatenate([given["logits"] for given in answers(source, [b.feeds for b in rows])])
    source.replace(bias, source.array(bias) - np.median(logits, 0))
    step = Distill(steps=200, batch=16, texts=400, rate=0.01, words=True)
    change = step.apply(model, Context({}, Trials(source, rows, batches(source, ((4, 8),)))))
    assert change.details["errors"][1] < 0.9 * change.details["errors"][0]
