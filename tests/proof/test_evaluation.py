"""What a model answers to every row, whatever its batches, shapes and outputs."""

import numpy as np
import pytest
from answering_models import WORDS, classifier, embedder, reading, texts
from graphs import prepared

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ModelError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.proof import at_once, evaluation
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe

ROWS = ["w0", "w1 w2 w3", "w4 w4", "w5", "w6 w0 w1 w2 w3"]
TABLE = np.random.default_rng(5).normal(size=(WORDS + 1, 3)).astype(np.float32)
EXPECTED = np.stack([TABLE[[int(word[1:]) + 1 for word in row.split()]].sum(axis=0) for row in ROWS])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
@pytest.mark.parametrize("shape", [("batch", "length"), ("batch", 7), (1, "length"), (3, 6)])
def test_answers_come_in_the_order_of_the_rows(tmp_path, batch_size, shape):
    """Whatever is batched, padded or filled up to a fixed shape."""
    model = classifier(tmp_path / "m.onnx", TABLE, shape=shape)
    outputs = evaluate(model, texts(ROWS), reading(tmp_path), batch_size=batch_size)
    assert (outputs.output, outputs.kind) == ("logits", "classes")
    np.testing.assert_allclose(outputs.values, EXPECTED, atol=1e-5)
    assert outputs.predictions().tolist() == EXPECTED.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("steps", "runs"), [("", 1 + 3 + 3), ("quantize-dynamic", 1 + 3 + 6)], ids=["float", "dynamic"]
)
def test_rows_of_one_length_are_answered_at_once_where_that_changes_nothing(tmp_path, monkeypatch, steps, runs):
    """Beside the first row and two that are tried alone and together: three lengths of six rows, or each row alone."""
    model = prepared("bert-ts17-eager", Canonicalize())
    run_recipe(model, Recipe.parse(steps)) if steps else None
    model.save(tmp_path / "m.onnx")
    ids = np.random.default_rng(4).integers(5, 30, (6, 9))
    rows = texts([" ".join(f"w{n % 7}" for n in row[: 3 + 2 * (i % 3)]) for i, row in enumerate(ids)])
    alone = evaluate(tmp_path / "m.onnx", rows, reading(tmp_path), batch_size=1)
    seen = []
    for module in (evaluation, at_once):
        run = module.run
        monkeypatch.setattr(module, "run", lambda *given, run=run: seen.append(1) or run(*given))
    outputs = evaluate(tmp_path / "m.onnx", rows, reading(tmp_path))
    assert len(seen) == runs
    np.testing.assert_allclose(outputs.values, alone.values, atol=1e-5)


def test_rows_are_cut_to_max_length(tmp_path):
    """Four words are left of five."""
    outputs = evaluate(classifier(tmp_path / "m.onnx", TABLE), texts(ROWS), reading(tmp_path, 4))
    np.testing.assert_allclose(outputs.values[4], TABLE[[7, 1, 2, 3]].sum(axis=0), atol=1e-5)


def test_one_logit_is_a_score(tmp_path):
    """Its prediction is its value."""
    outputs = evaluate(classifier(tmp_path / "m.onnx", TABLE[:, :1]), texts(ROWS), reading(tmp_path), batch_size=2)
    assert outputs.kind == "score"
    np.testing.assert_allclose(outputs.predictions(), EXPECTED[:, 0], atol=1e-5)


def test_hidden_states_are_pooled_over_the_real_tokens(tmp_path):
    """The mean, not counting the padding of the batch."""
    outputs = evaluate(embedder(tmp_path / "m.onnx", TABLE), texts(ROWS), reading(tmp_path), batch_size=5)
    assert outputs.kind == "embedding"
    np.testing.assert_allclose(outputs.values, EXPECTED / [[len(row.split())] for row in ROWS], atol=1e-5)


def test_rows_that_are_not_finite_have_no_class(tmp_path):
    """They are marked, and predict -1."""
    broken = TABLE.copy()
    broken[6, 1] = np.nan  # w5
    outputs = evaluate(classifier(tmp_path / "m.onnx", broken), texts(ROWS), reading(tmp_path))
    assert outputs.finite.tolist() == [True, True, True, False, True]
    assert outputs.predictions()[3] == -1


def test_ready_feeds_need_no_tokenizer(tmp_path):
    """An npz of model inputs."""
    feeds = {"input_ids": np.array([[1, 2], [3, 0]]), "attention_mask": np.array([[1, 1], [1, 0]])}
    outputs = evaluate(classifier(tmp_path / "m.onnx", TABLE), Dataset("f", "all", (), None, None, feeds), Working())
    np.testing.assert_allclose(outputs.values, [TABLE[1] + TABLE[2], TABLE[3]], atol=1e-5)


def test_a_token_that_the_embedding_lacks_is_said_with_the_model(tmp_path):
    """The tokenizer knows seven words, this embedding three."""
    model = classifier(tmp_path / "small.onnx", TABLE[:4])
    with pytest.raises(ModelError, match=r"small\.onnx does not run on input_ids \[1, 5\]"):
        evaluate(model, texts(ROWS), reading(tmp_path))
