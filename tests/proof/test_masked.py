"""Masked language models: what is found behind masks, held against loops over tokens."""

import json
from math import exp, log

import numpy as np
import pytest
from answering_models import WORDS, configured, per_token

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import AccuracyGateError, DataError
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.tasks.masked import MOST, evenly
from onnxslim_bert.proof.validate import validate

RNG = np.random.default_rng(8)
MASK = WORDS + 1
# What the model answers at a mask, whatever is around it: w0 (id 1) is likeliest, then w1, ...
AT_MASK = np.array([-9, *range(WORDS, 0, -1), -9], np.float32)


def masked_reader(folder) -> Working:
    """The tokenizer of words with a mask, as the file of a masked language model says."""
    configured(folder, "ForMaskedLM", vocab_size=WORDS + 2)
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["vocab"]["[MASK]"] = MASK
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return Working(128, tokenizer=load_tokenizer(folder))


def masked_model(path, at_mask=AT_MASK):
    table = RNG.normal(size=(WORDS + 2, WORDS + 2)).astype(np.float32)
    table[MASK] = at_mask
    return per_token(path, table, ("logits",))


def texts(folder) -> tuple[str, list[list[int]]]:
    rows = [RNG.integers(0, WORDS, length).tolist() for length in (1, 2, 3, 4, 5, 9, 12)]
    (folder / "rows.txt").write_text("\n".join(" ".join(f"w{word}" for word in row) for row in rows))
    return str(folder / "rows.txt"), rows


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("task", ["", "fill-mask"])
def test_words_behind_masks(tmp_path, task, batch):
    """Top-1, top-5 and pseudo-perplexity are those of a loop over the masked words."""
    reader = masked_reader(tmp_path)
    file, rows = texts(tmp_path)
    base = masked_model(tmp_path / "m.onnx")
    words = [row[place] for row in rows for place in evenly(list(range(len(row))))]
    total = log(sum(exp(value) for value in AT_MASK))
    likely = [float(AT_MASK[word + 1]) - total for word in words]
    seen = validate(base, base, load_dataset(file, "evaluation", task=task), reader, batch_size=batch).comparison
    found = {score.metric: score.base.value for score in seen.scores}
    assert list(found) == ["top-1", "top-5", "pseudo-perplexity"]
    assert found["top-1"] == pytest.approx(100 * np.mean([word == 0 for word in words]))
    assert found["top-5"] == pytest.approx(100 * np.mean([word < 5 for word in words]))
    assert found["pseudo-perplexity"] == pytest.approx(exp(-np.mean(likely)), rel=1e-5)
    assert (seen.kind, seen.fidelity.agreement.value, seen.rows) == ("masked", 100, len(rows))


def test_a_model_that_finds_others_misses_its_budgets(tmp_path):
    """A perplexity that rises is a drop, and a likelier word that changes is no agreement."""
    reader = masked_reader(tmp_path)
    data = load_dataset(texts(tmp_path)[0], "evaluation", task="fill-mask")
    base, worse = masked_model(tmp_path / "m.onnx"), masked_model(tmp_path / "w.onnx", 2 * AT_MASK[::-1].copy())
    result = validate(base, worse, data, reader, Budgets(max_drop=1, min_agreement=90))
    top, _, perplexity = result.comparison.scores
    assert top.drop.value == pytest.approx(top.base.value - top.candidate.value)
    assert perplexity.drop.value == pytest.approx(perplexity.candidate.value - perplexity.base.value)
    assert perplexity.drop.value > 0
    with pytest.raises(AccuracyGateError, match="min-agreement missed"):
        enforce(result.verdicts)


def test_a_tokenizer_without_a_mask_is_told(tmp_path):
    """Where the task is named; else the model is compared token by token, as before."""
    reader = configured(tmp_path, "ForMaskedLM", vocab_size=WORDS + 1)
    base = per_token(tmp_path / "m.onnx", RNG.normal(size=(WORDS + 1, WORDS + 1)).astype(np.float32), ("logits",))
    file, _ = texts(tmp_path)
    assert validate(base, base, load_dataset(file, "evaluation"), reader).comparison.kind == "tokens"
    with pytest.raises(DataError, match=r"task 'fill-mask' needs a tokenizer with a mask token"):
        validate(base, base, load_dataset(file, "evaluation", task="fill-mask"), reader)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17])
def test_masks_lie_evenly(count):
    """As many as allowed, each its own, the outer ones as far from their ends."""
    chosen = evenly(list(range(count)))
    assert len(set(chosen)) == min(count, MOST)
    assert chosen == sorted(chosen)
    assert abs(chosen[0] - (count - 1 - chosen[-1])) <= 1
