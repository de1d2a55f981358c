"""What tests hold a model to: the outputs of another model, and the weights that it was made from."""

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.encoder import Encoder
from onnxslim_bert.linear import Linear
from onnxslim_bert.model import Model


def answers(model: Model, given: Mapping[str, Array], *, optimize: bool = True) -> dict[str, Array]:
    """Every output of `model` by name; the graph as it is written unless `optimize`."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.proto().SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(given)), strict=True))


def assert_same_outputs(actual: Model, expected: Model, given: Mapping[str, Array], atol: float) -> None:
    """`actual`, as ONNX Runtime optimizes it, answers as `expected` does as it is written, to `atol`."""
    assert_same_answers(answers(actual, given), answers(expected, given, optimize=False), atol)


def assert_same_answers(actual: Mapping[str, Array], expected: Mapping[str, Array], atol: float) -> None:
    """The same names, types and shapes; finite values no farther apart than `atol`, which may be 0."""
    assert list(actual) == list(expected)
    for name, values in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (values.dtype, values.shape), name
        assert np.isfinite(values).all(), f"{name} is not finite"
        difference = np.abs(actual[name] - values).max()
        assert difference <= atol, f"{name} differs by {difference}"


def assert_roles(model: Model, encoder: Encoder, reference: Mapping[str, Array]) -> None:
    """Every matrix, bias and table of `encoder` is the one that `reference` has in that role (see tools/tiny_models.py)."""
    count = sum(name.endswith(".query.weight") for name in reference)
    assert (len(encoder.layers), encoder.hidden) == (count, int(reference["hidden"]))
    for layer in encoder.layers:
        assert (layer.heads, layer.head_dim) == (int(reference["heads"]), int(reference["head_dim"]))
        assert list(layer.linears) == ["query", "key", "value", "output", "up", "down"]
        for role, linear in layer.linears.items():
            _assert_linear(model, linear, reference, f"layers.{layer.index}.{role}")
    tables = {"token_type" if role == "type" else role for role in ("word", "position", "type") if _table(role) in reference}
    assert set(encoder.embeddings.tables) == tables
    for role, name in encoder.embeddings.tables.items():
        np.testing.assert_array_equal(model.array(name), reference[_table(role.removeprefix("token_"))], role)
    projection = encoder.embeddings.projection
    assert (projection is not None) == ("embeddings.projection.weight" in reference)
    if projection is not None:
        _assert_linear(model, projection, reference, "embeddings.projection")


def _assert_linear(model: Model, linear: Linear, reference: Mapping[str, Array], place: str) -> None:
    assert linear.bias is not None, place
    np.testing.assert_array_equal(matrix(model, linear), reference[f"{place}.weight"].T, place)
    np.testing.assert_array_equal(model.array(linear.bias), reference[f"{place}.bias"], place)
    assert (linear.d_in, linear.d_out) == reference[f"{place}.weight"].T.shape


def matrix(model: Model, linear: Linear) -> Array:
    """The weight [d_in, d_out] of `linear`."""
    weight = model.array(linear.weight)
    return weight.T if linear.trans_b else weight


def _table(role: str) -> str:
    return f"embeddings.{role}.weight"
