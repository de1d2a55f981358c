"""Masked words, multiple choice and one squeezed score, held against transformers' own models and pipelines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import SPECIAL, WORDS, write_tokenizer

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.export.hugging_face import export_encoder
from onnxslim_bert.proof.tasks.masked import evenly
from onnxslim_bert.proof.validate import validate

torch = pytest.importorskip("torch", reason="needs the [export] extra: torch is not installed")
transformers = pytest.importorskip("transformers", reason="needs the [export] extra")
from transformers import BertConfig, PreTrainedTokenizerFast, pipeline  # noqa: E402

RNG = np.random.default_rng(15)
TOKENS = {f"{name.strip('[]').lower()}_token": name for name in (*SPECIAL, "[MASK]")}
SENTENCES = [[str(word) for word in RNG.choice(WORDS, RNG.integers(3, 9))] for _ in range(40)]


def made(folder: Path, architecture: str, **options: Any) -> tuple[Any, Any]:
    """A random model of transformers and its tokenizer; its ONNX file is in `folder`."""
    torch.manual_seed(3)
    words = (*WORDS, "[MASK]")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 20}
    size = len(SPECIAL) + len(words)
    config = BertConfig(vocab_size=size, max_position_embeddings=40, initializer_range=0.2, **sizes, **options)
    model = getattr(transformers, architecture)(config).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder, words)
    export_encoder(folder, folder / "model.onnx", exporter="torchscript", attention="eager")
    return model, PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **TOKENS)


def scores(folder: Path, data: Path, task: str = "") -> dict[str, float]:
    """What validate prints of the model, by metric."""
    working, model = Working(tokenizer=load_tokenizer(folder)), folder / "model.onnx"
    seen = validate(model, model, load_dataset(str(data), "evaluation", task=task), working).comparison
    return {score.metric: score.base.value for score in seen.scores}


def test_masked_words_are_those_of_the_pipeline(tmp_path):
    """pipeline("fill-mask"): the same words among the first, and the same probability of the right one."""
    model, tokenizer = made(tmp_path, "BertForMaskedLM")
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    (tmp_path / "rows.txt").write_text("\n".join(map(" ".join, SENTENCES)))
    ranks, likely = [], []
    for words in SENTENCES:
        for place in evenly(list(range(len(words)))):
            answers = fill(" ".join([*words[:place], "[MASK]", *words[place + 1 :]]), top_k=len(tokenizer))
            rank, right = next((n, each) for n, each in enumerate(answers) if each["token_str"] == words[place])
            ranks.append(rank)
            likely.append(np.log(right["score"]))
    found = scores(tmp_path, tmp_path / "rows.txt", "fill-mask")
    assert 0 < np.mean(np.array(ranks) < 1) < np.mean(np.array(ranks) < 5) < 1
    assert found["top-1"] == pytest.approx(100 * np.mean(np.array(ranks) < 1))
    assert found["top-5"] == pytest.approx(100 * np.mean(np.array(ranks) < 5))
    assert found["pseudo-perplexity"] == pytest.approx(np.exp(-np.mean(likely)), rel=1e-4)


def test_endings_are_those_of_the_model(tmp_path):
    """BertForMultipleChoice on what its tokenizer makes of the pairs, [1, endings, tokens]."""
    model, tokenizer = made(tmp_path, "BertForMultipleChoice")
    asked = [list(map(" ".join, SENTENCES[row : row + 4])) for row in range(len(SENTENCES) - 3)]
    labels = RNG.integers(0, 3, len(asked)).tolist()
    lines = [json.dumps({"ctx": a, "endings": b, "label": n}) for (a, *b), n in zip(asked, labels, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    chosen = []
    for context, *endings in asked:
        batch = tokenizer([context] * 3, endings, padding=True, return_token_type_ids=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**{name: values[None] for name, values in batch.items()}).logits
        chosen.append(int(logits.argmax()))
    right = np.mean(np.array(chosen) == labels)
    assert 0 < right < 1
    assert scores(tmp_path, tmp_path / "rows.jsonl") == {"accuracy": pytest.approx(100 * right)}


def test_scores_are_those_of_the_pipeline(tmp_path):
    """pipeline("text-classification") without a function behind the one logit, and numpy's correlation."""
    model, tokenizer = made(tmp_path, "BertForSequenceClassification", num_labels=1)
    gold = RNG.normal(size=len(SENTENCES)).round(3)
    rows = [f"{' '.join(words)}\t{score}" for words, score in zip(SENTENCES, gold, strict=True)]
    (tmp_path / "rows.tsv").write_text("\n".join(["sentence\tscore", *rows]))
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, function_to_apply="none")
    answered = np.array([each["score"] for each in classify([" ".join(words) for words in SENTENCES])])
    ranked = [np.argsort(np.argsort(side)) for side in (answered, gold)]
    found = scores(tmp_path, tmp_path / "rows.tsv")
    assert found["pearson"] == pytest.approx(100 * np.corrcoef(answered, gold)[0, 1], rel=1e-4)
    assert found["spearman"] == pytest.approx(100 * np.corrcoef(*ranked)[0, 1], rel=1e-4)
    assert found["mse"] == pytest.approx(np.mean((answered - gold) ** 2), rel=1e-4)
