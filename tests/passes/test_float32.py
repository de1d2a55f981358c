"""Single precision again: a float16 file is taken by every pass, and keeps the types of its inputs and outputs."""

import numpy as np
import onnx
import pytest
from graphs import SOME, apply, every_padding, fixture, prepared
from onnxruntime.transformers.float16 import convert_float_to_float16
from oracles import answers

from onnxslim_bert.inspection.inspection import inspect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.float32 import Float32
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.skip_mask import SkipMask

CANONICAL, FUSE, HALF, SINGLE = Canonicalize(), Fuse(), Float16(), Float32()


def halved(name: str, *, keep: bool) -> Model:
    """A fixture as ONNX Runtime's converter writes it; without `keep`, inputs and outputs are float16 too."""
    return Model.from_proto(convert_float_to_float16(onnx.load(fixture(name)), keep_io_types=keep))


@pytest.mark.parametrize("keep", [True, False], ids=["converted", "half"])
@pytest.mark.parametrize("name", SOME)
def test_a_wide_file_answers_as_the_narrow_one_and_is_quantized(name, keep):
    narrow = halved(name, keep=keep)
    wide = narrow.clone()
    assert apply(SINGLE, wide)
    assert not any(constant.values.dtype == np.float16 for constant in wide.constants().values())
    assert [end.dtype for end in wide.graph.outputs] == [end.dtype for end in narrow.graph.outputs]
    small = wide.clone()
    for step in (CANONICAL, FUSE, QuantizeDynamic()):
        apply(step, small)
    assert {node.op for node in small.graph.nodes} & {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
    given = every_padding(wide)
    for exact, ours, theirs in zip(*(answers(each, given) for each in (narrow, wide, small)), strict=True):
        for output, values in exact.items():
            assert ours[output].dtype == values.dtype
            np.testing.assert_allclose(ours[output], values, atol=2e-2)
            np.testing.assert_allclose(theirs[output], values, atol=0.3)


def test_branches_are_widened_too():
    """An attention that skips its mask stands in two branches."""
    narrow = prepared("bert-ts17-eager", CANONICAL, FUSE, HALF, SkipMask())
    wide = narrow.clone()
    apply(SINGLE, wide)
    given = every_padding(wide)
    for ours, theirs in zip(answers(wide, given), answers(narrow, given), strict=True):
        np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=2e-2)


def test_there_is_nothing_to_widen_and_that_is_said():
    change = apply(SINGLE, prepared("bert-ts17-eager", CANONICAL))
    assert not change
    assert change.note == "nothing is float16"


def test_inspect_advises_it_for_float16_files_alone(tmp_path):
    halved("bert-ts17-eager", keep=True).save(tmp_path / "half.onnx")
    given = [inspect(path).encoder for path in (tmp_path / "half.onnx", fixture("bert-ts17-eager"))]
    halves, floats = ({each.name: each for each in encoder.passes} for encoder in given if encoder is not None)
    assert halves["float32"].applies
    assert halves["quantize-dynamic"].note.endswith("start from the float32 model, or put float32 before it")
    assert "float32" not in floats
