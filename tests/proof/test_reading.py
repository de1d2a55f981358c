"""What an output is taken for follows from the graph and the configuration; names decide the rest."""

import numpy as np
import onnx
import pytest

from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.model.model_config import ModelConfig
from onnxslim_bert.proof.output_axes import Output, hidden_width
from onnxslim_bert.proof.reading import heads, read_outputs

STATES, POOLED = Output("f", ("rows", "tokens", 8)), Output("f", ("rows", 8))
LOGITS, NUMBERS = Output("f", ("rows", 3)), Output("i", ("rows", 3))
SCORE, ONE, CLASS = Output("f", ("rows",)), Output("f", ("rows", 1)), Output("i", ("rows",))
WORDS = Output("f", ("rows", "tokens", 2000))
TAGS, EACH = Output("f", ("rows", "tokens", 5)), Output("f", ("rows", "tokens"))
PLAIN, MULTI = ModelConfig(), "multi_label_classification"


def config(architecture: str, classes: int = 0, **more: str) -> ModelConfig:
    return ModelConfig(architecture=f"Bert{architecture}", classes=classes, hidden=8, **more)


@pytest.mark.parametrize(
    ("outputs", "hidden", "expected"),
    [
        ({"hidden": STATES, "other": LOGITS, "logits": LOGITS}, 0, ("logits", "classes")),
        ({"lengths": NUMBERS, "1234": LOGITS}, 0, ("1234", "classes")),
        ({"last_hidden_state": STATES, "987": POOLED}, 0, ("last_hidden_state", "embedding")),
        ({"sentence_embedding": POOLED}, 0, ("sentence_embedding", "embedding")),
        ({"pooler_output": POOLED, "scores": LOGITS}, 0, ("scores", "classes")),
        ({"logits": STATES}, 0, ("logits", "embedding")),
        ({"output": POOLED}, 8, ("output", "embedding")),
        ({"pooled_logits": LOGITS}, 8, ("pooled_logits", "classes")),
        ({"embedding": LOGITS}, 8, ("embedding", "classes")),
        ({"label": CLASS}, 8, ("label", "classes")),
        ({"x": SCORE}, 8, ("x", "score")),
        ({"x": ONE}, 8, ("x", "score")),
        ({"x": TAGS}, 8, ("x", "tokens")),
        ({"end": EACH, "start": EACH}, 8, ("start and end", "spans")),
        ({"a": EACH, "b": EACH}, 8, ("a and b", "spans")),
    ],
)
def test_the_graph_decides(outputs, hidden, expected):
    """By axes and widths: as wide as the encoder is a vector, another width is classes."""
    found = read_outputs(outputs, PLAIN, hidden)
    assert (found.output, found.kind) == expected


@pytest.mark.parametrize(
    ("outputs", "said", "expected"),
    [
        ({"out": POOLED}, config("ForSequenceClassification", 8), ("out", "classes")),
        (
            {"a": LOGITS},
            config("ForSequenceClassification", 3, problem_type="multi_label_classification"),
            ("a", "labels"),
        ),
        ({"a": ONE}, config("ForSequenceClassification", 1), ("a", "score")),
        ({"out": STATES}, config("ForTokenClassification", 8), ("out", "tokens")),
        ({"a": STATES, "b": TAGS}, config("ForTokenClassification", 5), ("b", "tokens")),
        ({"end_logits": EACH, "s": EACH, "x": STATES}, config("ForQuestionAnswering"), ("s and end_logits", "spans")),
        ({"t": STATES, "sentence_embedding": POOLED}, config("Model"), ("sentence_embedding", "embedding")),
        ({"t": STATES, "pooler_output": POOLED}, config("Model"), ("t", "embedding")),
        ({"t": STATES}, config("ForMaskedLM", pooling="first"), ("t", "embedding")),
        ({"t": STATES}, config("ForTokenClassification", 5), ("t", "tokens")),
        ({"logits": LOGITS}, config("ForQuestionAnswering"), ("logits", "classes")),
        ({"logits": ONE}, config("ForMultipleChoice"), ("logits", "score")),
        ({"logits": POOLED}, config("ForNextSentencePrediction", 8), ("logits", "classes")),
        ({"prediction_logits": WORDS, "next": LOGITS}, config("ForPreTraining"), ("prediction_logits", "masked")),
        ({"t": STATES}, config("ForPreTraining"), ("t", "embedding")),
        ({"relevance": SCORE, "start": EACH, "end": EACH}, config("Reader"), ("start and end", "spans")),
        ({"t": STATES, "text_embeds": LOGITS}, config("ModelWithProjection"), ("text_embeds", "embedding")),
        ({"pooler_output": POOLED}, config("QuestionEncoder"), ("pooler_output", "embedding")),
    ],
)
def test_the_configuration_decides_where_the_outputs_allow_it(outputs, said, expected):
    """Else the graph does."""
    found = read_outputs(outputs, said, 8)
    assert (found.output, found.kind) == expected


@pytest.mark.parametrize(
    ("task", "kind"),
    [("classification", "classes"), ("multi-label", "labels"), ("embedding", "embedding")],
)
def test_a_task_that_is_named_decides(task, kind):
    """Over both."""
    assert read_outputs({"x": LOGITS}, config("ForSequenceClassification", 3), 8, task).kind == kind


def test_a_task_that_the_outputs_do_not_serve_is_refused():
    """One line that says both."""
    with pytest.raises(
        DataError, match=r"task 'answers' needs two outputs \[rows, tokens\]: the model answers x \['rows', 3\]"
    ):
        read_outputs({"x": LOGITS}, PLAIN, 8, "answers")


def test_outputs_that_serve_no_task_are_refused():
    with pytest.raises(ModelError, match="needed logits"):
        read_outputs({"lengths": NUMBERS}, PLAIN, 0)


def test_what_answers_something_is_told_from_the_encoder_s_own_vectors():
    """States, pooled vectors, attentions and lone numbers are not among a model's heads; without a width none is."""
    outputs = {"t": STATES, "p": POOLED, "slots": TAGS, "intent": LOGITS, "score": SCORE, "ids": NUMBERS}
    outputs["attention"] = Output("f", ("rows", 4, "tokens", "tokens"))
    outputs["temperature"] = Output("f", ())  # one number for the whole batch
    assert heads(outputs, 8) == ("slots", "intent", "score")
    assert heads(outputs, 0) == ()


def test_an_output_as_wide_as_attention_is_one_of_an_encoder_whose_stream_became_narrower():
    """Where nothing says what it is: 6 norms of 8 channels, biases of 12 in the layers, and states of 12."""
    vectors = [np.zeros(8)] * 6 + [np.zeros(12)] * 4
    graph = onnx.GraphProto(initializer=[onnx.numpy_helper.from_array(values) for values in vectors])
    assert hidden_width(graph) == 8
    assert hidden_width(graph, {"states": np.zeros((2, 5, 12))}) == 12
    assert hidden_width(graph, {"logits": np.zeros((2, 5))}) == 8


@pytest.mark.parametrize("classes", [3, 5, 20])
def test_the_vectors_of_a_quantized_head_make_classes_no_embedding(classes):
    """Its bias, scales and zero points are as wide as the answer, which may be wider than the encoder."""
    vectors = [np.zeros(8)] * 36 + [np.zeros(classes)] * 5
    graph = onnx.GraphProto(initializer=[onnx.numpy_helper.from_array(values) for values in vectors])
    assert hidden_width(graph, {"logits": np.zeros((2, classes))}) == 8
