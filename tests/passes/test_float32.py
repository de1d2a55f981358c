"""Single precision again: a float16 file is taken by every pass, and keeps the types of its inputs and outputs."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, apply, every_padding, fixture, prepared
from onnxruntime.transformers.float16 import convert_float_to_float16
from oracles import answers

from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.inspection.inspection import inspect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.float32 import Float32
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_blockwise import QuantizeBlockwise
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_weights import QuantizeWeights
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
    exactly = answers(narrow, given, optimize=False)  # optimized, onnxruntime 1.25 refuses some
    for exact, ours, theirs in zip(exactly, answers(wide, given), answers(small, given), strict=True):
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


BITS = {
    "4 bits": QuantizeBlockwise(compute="float32"),
    "4 bits, odd blocks": QuantizeBlockwise(block=16, rounding="nearest", compute="float32"),
    "int8": QuantizeWeights(),
}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", SOME[::2])
def test_weights_in_fewer_bits_are_restored(name, bits):
    """The answers stay, within the order of sums; no integer weight is left, and int8 is made of the result."""
    small = prepared(name, CANONICAL, BITS[bits])
    wide = small.clone()
    change = apply(SINGLE, wide)
    assert change.note == f"{change.count} weights restored from fewer bits"
    assert not {node.op for node in wide.graph.nodes} & {"MatMulNBits", "DequantizeLinear"}
    given = every_padding(wide)
    for exact, ours in zip(answers(small, given), answers(wide, given), strict=True):
        for output, values in exact.items():
            np.testing.assert_allclose(ours[output], values, atol=1e-5)
    assert apply(QuantizeDynamic(), wide)


def test_a_bias_within_the_product_is_added_behind_it():
    model = prepared("bert-ts17-eager", CANONICAL, QuantizeBlockwise(rounding="nearest", compute="float32"))
    given = every_padding(model)
    nodes = [node for node in model.graph.nodes if node.op == "MatMulNBits"]
    for node in nodes:
        bias = gs.Constant(f"{node.name}/b", np.linspace(-1, 1, node.attrs["N"], dtype=np.float32))
        node.inputs = [*node.inputs, *[gs.Variable.empty()] * (5 - len(node.inputs)), bias]
    model.changed()
    before = answers(model, given)
    assert apply(SINGLE, model).count == len(nodes) > 0
    for exact, ours in zip(before, answers(model, given), strict=True):
        np.testing.assert_allclose(ours["logits"], exact["logits"], atol=1e-5)


@pytest.mark.parametrize("behind", [False, True])
def test_tables_are_restored_before_and_behind_their_rows(behind):
    """As ONNX Runtime stores them: rows of integers are read, and then restored by one scale."""
    model = prepared("bert-ts17-eager", CANONICAL)
    given = every_padding(model)
    name = model.encoder.embeddings.tables["word"]
    table = model.array(name)
    scale, levels = np.float32(np.abs(table).max() / 127), gs.Constant("levels", np.zeros(table.shape, np.int8))
    levels.values = np.rint(table / scale).astype(np.int8)
    lookup = next(node for node in model.graph.nodes if node.op == "Gather" and node.inputs[0].name == name)
    rest = [gs.Constant("scale", np.array(scale)), gs.Constant("zero", np.array(0, np.int8))]
    made = gs.Variable("restored_rows", np.dtype(np.float32))
    if behind:
        redirect(model.graph, lookup.outputs[0], made)
        lookup.inputs[0], read = levels, gs.Variable("rows")
        lookup.outputs = [read]
        model.graph.nodes.append(gs.Node("DequantizeLinear", "dq", {}, [read, *rest], [made]))
    else:
        lookup.inputs[0] = made
        model.graph.nodes.append(gs.Node("DequantizeLinear", "dq", {}, [levels, *rest], [made]))
    model.changed()
    before = answers(model, given)
    assert apply(SINGLE, model).count == 1
    for exact, ours in zip(before, answers(model, given), strict=True):
        np.testing.assert_array_equal(ours["logits"], exact["logits"])


def test_there_is_nothing_to_widen_and_that_is_said():
    change = apply(SINGLE, prepared("bert-ts17-eager", CANONICAL))
    assert not change
    assert change.note == "nothing is float16, and no weight is restored from fewer bits beside float activations"


def test_weights_stay_where_activations_are_integers():
    """A weight alone in float32 would make no float32 product."""
    assert not apply(SINGLE, prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeDynamic()))


def test_inspect_advises_it_for_float16_files_alone(tmp_path):
    halved("bert-ts17-eager", keep=True).save(tmp_path / "half.onnx")
    given = [inspect(path).encoder for path in (tmp_path / "half.onnx", fixture("bert-ts17-eager"))]
    halves, floats = ({each.name: each for each in encoder.passes} for encoder in given if encoder is not None)
    assert halves["float32"].applies
    assert halves["quantize-dynamic"].note.endswith("start from the float32 model, or put float32 before it")
    assert "float32" not in floats
