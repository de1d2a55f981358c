"""What tests hold a model to: the outputs of another model, and the weights that it was made from."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model

Answers = dict[str, Array]


def assert_same_outputs(
    actual: Model, expected: Model, given: Sequence[Mapping[str, Array]], atol: float, *, optimize: bool = True
) -> None:
    """On every batch of `given`, `actual` answers as `expected` does, to `atol`.

    `expected` runs as it is written; so does `actual` without `optimize`, and otherwise as ONNX Runtime optimizes it.
    """
    pairs = zip(answers(actual, given, optimize=optimize), answers(expected, given, optimize=False), strict=True)
    for number, (ours, theirs) in enumerate(pairs):
        assert_same_answers(ours, theirs, atol, f"batch {number}: ")


def assert_same_answers(actual: Answers, expected: Answers, atol: float, place: str = "") -> None:
    """The same names, types and shapes; finite values no farther apart than `atol`, which may be 0."""
    assert list(actual) == list(expected), f"{place}outputs"
    for name, values in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (values.dtype, values.shape), f"{place}{name}"
        assert np.isfinite(values).all(), f"{place}{name} is not finite"
        difference = np.abs(actual[name] - values).max()
        assert difference <= atol, f"{place}{name} differs by {difference}"


def answers(model: Model, given: Sequence[Mapping[str, Array]], *, optimize: bool = True) -> list[Answers]:
    """Every output by name, for each batch."""
    session = ort.InferenceSession(model.proto().SerializeToString(), _options(optimize), ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(values)), strict=True)) for values in given]


def values_of(model: Model, tensors: Sequence[str], given: Mapping[str, Array]) -> list[Array]:
    """What these tensors hold while `model` runs as it is written."""
    probe = model.clone()
    found = probe.graph.tensors()
    probe.graph.outputs = [found[name] for name in dict.fromkeys(tensors)]
    for tensor in probe.graph.outputs:
        tensor.dtype = tensor.dtype or np.float32
    (held,) = answers(probe, [given], optimize=False)
    return [held[name] for name in tensors]


def optimized(model: Model) -> onnx.GraphProto:
    """The graph that ONNX Runtime makes of `model`."""
    with tempfile.TemporaryDirectory() as folder:
        options = _options(optimize=True)
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(model.proto().SerializeToString(), options, ["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath).graph


def _options(optimize: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # products between Q and DQ: in float, where ONNX Runtime rounds activations once more on some CPUs
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def assert_roles(model: Model, reference: Mapping[str, Array]) -> None:
    """Every matrix, bias and table in the encoder of `model` is the one that `reference` has in that role."""
    assert_layers(model, reference)
    embeddings = model.encoder.embeddings
    for role, name in (("word", "word"), ("position", "position"), ("token_type", "type")):
        table, expected = embeddings.tables.get(role), reference.get(f"embeddings.{name}.weight")
        assert (table is None) == (expected is None), role
        if table is not None:
            np.testing.assert_array_equal(model.array(table), expected, role)
    assert (embeddings.projection is not None) == ("embeddings.projection.weight" in reference)
    if embeddings.projection is not None:
        assert_linear(model, embeddings.projection, reference, "embeddings.projection")


def assert_layers(model: Model, reference: Mapping[str, Array]) -> None:
    """Every matrix and bias in the layers of `model` is the one that `reference` has in that role."""
    encoder = model.encoder
    count = sum(name.endswith(".query.weight") for name in reference)
    assert (len(encoder.layers), encoder.hidden) == (count, reference["hidden"])
    for layer in encoder.layers:
        assert (layer.heads, layer.head_dim) == (reference["heads"], reference["head_dim"])
        assert list(layer.linears) == ["query", "key", "value", "output", "up", "down"]
        for role, linear in layer.linears.items():
            assert_linear(model, linear, reference, f"layers.{layer.index}.{role}")


def assert_linear(model: Model, linear: Linear, reference: Mapping[str, Array], place: str) -> None:
    """The weight and the bias of `linear` are those at `place`."""
    weight, bias = reference[f"{place}.weight"].T, reference[f"{place}.bias"]
    assert (linear.d_in, linear.d_out) == weight.shape, place
    np.testing.assert_array_equal(matrix(model, linear), weight, place)
    assert linear.bias is not None, f"{place} has no bias"
    np.testing.assert_array_equal(model.array(linear.bias), bias, place)


def matrix(model: Model, linear: Linear) -> Array:
    """The weight [d_in, d_out] of `linear`."""
    weight = model.array(linear.weight)
    return weight.T if linear.trans_b else weight
