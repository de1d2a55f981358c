"""What is predicted of whole encoders."""

from collections import Counter
from pathlib import Path

import onnxruntime
import pytest
from graphs import EVERY, SOME, fixture, prepared

from onnxslim_bert.errors import ModelError, ProviderError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.dense_2d import Dense2d
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.gelu_tanh import GeluTanh
from onnxslim_bert.passes.int32_inputs import Int32Inputs
from onnxslim_bert.passes.lower_opset import LowerOpset
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.passes.split_sums import SplitSums
from onnxslim_bert.passes.unfuse_norms import UnfuseNorms
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.prediction import coreml, nnapi
from onnxslim_bert.targets.prediction.predict import PREDICTED, placement_of, predict, rules_of
from onnxslim_bert.targets.prediction.remedies import BY_OPERATOR, FIX_SHAPES, MASK, STANDARD
from onnxslim_bert.targets.prediction.seen import seen_by_provider

LISTS = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers"


@pytest.mark.parametrize("name", EVERY)
def test_an_export_with_fixed_shapes_is_taken_in_part(name):
    """NNAPI leaves something in every layer, and each node left has a reason and a file that says so."""
    seen = seen_by_provider(fixture(name), (2, 7))
    for target in PREDICTED:
        placement = placement_of(seen, rules_of(target))
        assert placement.predicted
        assert 0 < placement.taken < placement.total
        assert placement.partitions > 3 * (target == "nnapi")
        assert placement.total == len(seen.graph.nodes) == placement.taken + len(placement.left)
        assert all(left.node and left.reason for left in placement.left)


@pytest.mark.parametrize("name", SOME)
def test_an_export_with_open_shapes_is_left_for_that(name):
    """NNAPI takes fixed shapes only."""
    placement = predict(fixture(name), "nnapi")
    fixes = Counter(left.fix for left in placement.left)
    assert fixes.most_common(1)[0][0] == "fix-shapes"


@pytest.mark.parametrize("name", SOME)
def test_shapes_asked_about_are_shapes_written(name, tmp_path):
    """The question about (2, 7) finds what it finds in the file that fix-shapes writes, shape arithmetic aside."""
    asked, written = tmp_path / "open.onnx", tmp_path / "fixed.onnx"
    prepared(name, Canonicalize()).save(asked)
    prepared(name, Canonicalize(), FixShapes(batch=2, seq=7)).save(written)
    found = [
        Counter(left.op for left in predict(*question).left)
        for question in ((asked, "nnapi", (2, 7)), (written, "nnapi"))
    ]
    for op in ("LayerNormalization", "Erf", "Gelu", "IsNaN", "Softmax"):
        assert found[0][op] == found[1][op]


def test_norms_are_fused_as_the_provider_sees_them():
    """The graph is the one after ONNX Runtime's basic optimizations, with every shape known."""
    graph = seen_by_provider(fixture("bert-ts17-eager"), (2, 7)).graph
    assert {"LayerNormalization", "Gemm"} <= {node.op for node in graph.nodes}
    assert "Shape" not in {node.op for node in graph.nodes}
    tensors = [tensor for node in graph.nodes for tensor in node.outputs]
    assert all(tensor.dtype is not None and None not in tensor.shape for tensor in tensors)


def test_a_mask_is_left_to_the_cpu_and_the_layers_are_not():
    """Real figures: the export of a three-layer BERT, whose mask CoreML does not take in older releases."""
    placement = predict(fixture("bert-ts17-eager"), "coreml", (1, 8))
    assert {left.fix for left in placement.left} == {"mask-bias", "first-token"}
    assert placement.share > 0.9


@pytest.mark.parametrize("name", SOME)
def test_a_float16_file_is_taken_like_its_float32_source(name, tmp_path):
    """By CoreML, but for casts; NNAPI takes float32 only."""
    single, half = tmp_path / "single.onnx", tmp_path / "half.onnx"
    prepared(name, Canonicalize()).save(single)
    prepared(name, Canonicalize(), Float16()).save(half)
    left = [Counter(n.op for n in predict(path, "coreml", (1, 8)).left if n.op != "Cast") for path in (half, single)]
    assert left[0] == left[1]
    assert not predict(half, "nnapi", (1, 8)).taken


FIXED = (Canonicalize(), Fuse(style="standard"), FirstToken(), FixShapes(batch=1, seq=7), MaskBias(), SplitSums())
LOWERED = {
    "coreml": FIXED,
    "nnapi": (*FIXED, Int32Inputs(), GeluTanh(), UnfuseNorms(), Dense2d(), LowerOpset(opset=16)),
}


@pytest.mark.parametrize(
    "name", ["bert-ts13-eager", "distilbert-dynamo20-sdpa", "albert-ts14-sdpa", "electra-dynamo20-eager"]
)
@pytest.mark.parametrize("target", LOWERED)
def test_what_the_reasons_ask_for_mends_all(name, target, tmp_path):
    """The passes that are named make one piece of the graph."""
    prepared(name, *LOWERED[target]).save(tmp_path / "lowered.onnx")
    placement = predict(tmp_path / "lowered.onnx", target)
    assert placement.whole, placement.left


# the rules themselves


def listed(name: str) -> set[str]:
    """The operators that ONNX Runtime's own list for a provider names."""
    lines = (LISTS / f"{name}_supported{'_mlprogram' * (name == 'coreml')}_ops.md").read_text().splitlines()
    return {line.split("|")[1].split(":")[1] for line in lines if line.startswith("|ai.onnx:")}


def test_every_rule_is_for_an_operator_that_onnxruntime_lists():
    """Its list for CoreML has left out Gather since it was added (pull request 17153)."""
    assert set(nnapi.BUILDERS) <= listed("nnapi")
    assert set(coreml.BUILDERS) <= listed("coreml") | {"Gather"}
    assert not set(coreml.BUILDERS) & set(coreml.NEWER)


def test_what_mends_a_node_is_a_recipe():
    for fix in {*BY_OPERATOR.values(), *nnapi.FIXES.values(), nnapi.DENSE, nnapi.INTEGER, FIX_SHAPES, MASK, STANDARD}:
        Recipe.parse(fix)


def test_targets_without_rules_are_refused():
    with pytest.raises(ProviderError, match="no rules are known of qnn; prediction is for coreml and nnapi"):
        predict(fixture("bert-ts17-eager"), "qnn")


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(ModelError):
        predict(path, "coreml")
