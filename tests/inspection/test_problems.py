"""What stands in the way of a model's use is said in one sentence."""

import numpy as np
import onnx
import pytest
from graphs import SOME, causal, fixture, prepared
from inspected import inspected
from onnx import numpy_helper

from onnxslim_bert.errors import NoEncoderError
from onnxslim_bert.inspection.inspection import inspect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse


@pytest.mark.parametrize("name", SOME)
def test_a_plain_export_has_no_problems(name):
    assert inspected(name).problems == ()


def test_a_model_without_a_mask_is_a_problem():
    assert inspected("bert-nomask").problems == ("no input says which tokens are real: padding changes the answers",)


def test_words_stored_twice_are_a_problem():
    """Once is none."""
    assert inspected("bert-mlm").problems == ("equal weights are stored more than once, 1.78 kB too much: word, head",)
    assert inspected("bert-mlm-tied").problems == ()


def test_unproven_attention_is_a_problem_with_its_reason(tmp_path):
    """A causal mask lets tokens see earlier ones alone."""
    causal(prepared("bert-ts17-eager", Canonicalize(), Fuse())).save(tmp_path / "causal.onnx")
    found = inspect(tmp_path / "causal.onnx").encoder
    assert found is not None
    assert found.facts.proven == (False, False, False)
    assert found.problems[0].startswith("attention of layers 0 to 2 is not proven: each token sees only earlier ones")


def test_attention_that_counts_tokens_is_proven():
    """ONNX Runtime's fused attention is given their number in place of a mask."""
    assert inspected("fused-mha").facts.proven == (True, True, True)


def test_fixed_shapes_are_a_problem(tmp_path):
    proto = onnx.load(fixture("bert-ts17-eager"))
    for value in proto.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, (1, 7), strict=True):
            axis.dim_value = size
    onnx.save(proto, tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found.file.inputs[0].axes == (1, 7)
    assert found.encoder is not None
    assert "'token_type_ids' has the fixed shape [1, 7]" in found.encoder.problems[0]


def test_external_data_is_named(tmp_path):
    """With its size; and when it is gone, that is why there is no encoder."""
    onnx.save(onnx.load(fixture("bert-ts17-eager")), tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    found = inspect(tmp_path / "m.onnx")
    assert found.encoder is not None
    assert found.file.external == {"m.data": (tmp_path / "m.data").stat().st_size}
    assert found.file.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    (tmp_path / "m.data").unlink()
    found = inspect(tmp_path / "m.onnx")
    assert (found.file.external, found.encoder) == ({"m.data": None}, None)
    assert "is missing: no file 'm.data' beside the model" in found.reason


def test_a_broken_weight_is_why_there_is_no_encoder(tmp_path):
    """The file's facts stay."""
    proto = onnx.load(fixture("bert-ts17-eager"))
    table = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 2)
    values = numpy_helper.to_array(table).copy()
    values[3, 5] = np.nan
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(proto, tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found.encoder is None
    assert found.reason.startswith(f"weight {table.name!r} holds NaN")
    assert found.file.inputs[0].name == "input_ids"


def test_integer_attention_is_named_as_what_is_not_read(tmp_path):
    """QAttention packs its weights."""
    proto = onnx.load(fixture("fused-attention"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1), "scale"))
    for node in proto.graph.node:
        if node.op_type == "Attention":  # activations, weights, bias, two scales and the mask
            node.op_type, (data, weight, bias, *mask) = "QAttention", node.input
            node.input[:] = [data, weight, bias, "scale", "scale", *mask]
    onnx.save(proto, tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found.encoder is None
    assert found.reason.endswith("; 3 QAttention are not read: start from the file before them")
    assert found.file.quantized == {"QAttention": 3}
    with pytest.raises(NoEncoderError, match=r"no self-attention .*; 3 QAttention are not read: start from the file"):
        _ = Model.load(tmp_path / "m.onnx").encoder  # and every pass says so
