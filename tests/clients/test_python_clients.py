"""Programs that load written folders, as their documentation says: they answer what we read, within 1e-4."""

from pathlib import Path

import numpy as np
import pytest
from client_folders import REVIEWS, SENTENCES, our_answers, quantized_embedder

from onnxslim_bert.arrays import Array

EXTRA = "needs the extra [test-services]"
fastembed = pytest.importorskip("fastembed", reason=EXTRA)
optimum = pytest.importorskip("optimum.onnxruntime", reason=EXTRA)
sentence_transformers = pytest.importorskip("sentence_transformers", reason=EXTRA)
transformers = pytest.importorskip("transformers", reason=EXTRA)

ATOL = 1e-4


def assert_same(found: Array, wanted: Array) -> None:
    """Equal within ATOL, and rows that differ from each other, so that an answer of nothing cannot pass."""
    assert np.ptp(wanted, axis=0).max() > 100 * ATOL
    np.testing.assert_allclose(found, wanted, atol=ATOL, rtol=0)


def test_answers_that_differ_are_not_the_same() -> None:
    wanted = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(AssertionError):
        assert_same(wanted + 2e-4, wanted)
    with pytest.raises(AssertionError):
        assert_same(np.ones((2, 2)), np.ones((2, 2)))


def test_sentence_transformers_takes_the_file_that_is_named(embedder: Path) -> None:
    """SentenceTransformer with file_name: pooled as modules.json says."""
    ours = our_answers(embedder / "onnx/model_quantized.onnx", SENTENCES)
    named = {"file_name": "onnx/model_quantized.onnx"}
    model = sentence_transformers.SentenceTransformer(str(embedder), backend="onnx", device="cpu", model_kwargs=named)
    assert_same(model.encode(list(SENTENCES)), ours)


def test_sentence_transformers_takes_its_layout_without_a_change(tmp_path: Path) -> None:
    """SentenceTransformer(folder, backend="onnx"), word for word as for the source."""
    folder = quantized_embedder(tmp_path, "--layout", "sentence-transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), backend="onnx", device="cpu")
    assert_same(model.encode(list(SENTENCES)), our_answers(folder / "onnx/model.onnx", SENTENCES))


def test_optimum_takes_an_encoder(embedder: Path) -> None:
    """ORTModelForFeatureExtraction: the states that we pool."""
    model = optimum.ORTModelForFeatureExtraction.from_pretrained(embedder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedder)
    batch = tokenizer(list(SENTENCES), return_tensors="np", padding=True)
    states, mask = model(**batch).last_hidden_state, batch["attention_mask"][:, :, None]
    pooled = (states * mask).sum(axis=1) / mask.sum(axis=1)
    assert_same(pooled, our_answers(embedder / "onnx/model_quantized.onnx", SENTENCES))


def test_optimum_takes_a_classifier(classifier: Path) -> None:
    """ORTModelForSequenceClassification, one text at a time: the logits, and the names of the classes."""
    model = optimum.ORTModelForSequenceClassification.from_pretrained(
        classifier, subfolder="onnx", file_name="model_quantized.onnx"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier)
    found = [model(**tokenizer(text, return_tensors="np")).logits[0] for text in REVIEWS]
    assert_same(np.stack(found), our_answers(classifier / "onnx/model_quantized.onnx", REVIEWS))
    assert model.config.id2label[1] == "positive"


def test_fastembed_takes_a_local_folder(tmp_path: Path) -> None:
    """A custom model of --layout fastembed, by specific_model_path; nothing is fetched."""
    folder = quantized_embedder(tmp_path, "--layout", "fastembed")
    fastembed.TextEmbedding.add_custom_model(
        model="tests/tiny",
        pooling=fastembed.common.model_description.PoolingType.MEAN,
        normalization=False,
        sources=fastembed.common.model_description.ModelSource(hf="tests/tiny"),
        dim=12,
        model_file="model_optimized.onnx",
    )
    model = fastembed.TextEmbedding("tests/tiny", specific_model_path=str(folder), local_files_only=True)
    found = np.stack(list(model.embed(list(SENTENCES))))
    assert_same(found, our_answers(folder / "model_optimized.onnx", SENTENCES))
