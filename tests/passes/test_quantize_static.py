"""Static int8: weights to half a step, ranges from real tokens, products in integers, the same in both formats."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, batches, every_padding, feeds, fixture, prepared, reference
from int8_oracles import (
    assert_inputs_quantized_once,
    assert_runs_in_integers,
    assert_tables_close,
    assert_weights_close,
    linears_of,
    stored,
)
from oracles import answers, assert_same_outputs, matrix, values_of

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.layer_sets import layer_groups
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.share_weights import ShareWeights
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.int8 import layers
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets import int8_check

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
STATIC, QDQ = QuantizeStatic(), QuantizeStatic(format="qdq")
FORMATS = {"contrib": (CANONICAL, FUSE, STATIC), "qdq": (CANONICAL, STANDARD, QDQ)}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_weights_and_tables_are_stored_in_int8(name, form):
    """Within half a step of the float model; shared inputs quantized once."""
    *before, step = FORMATS[form]
    model, original = prepared(name, *before, step), prepared(name, *before)
    assert_weights_close(model, original)
    assert_tables_close(model, original)
    assert_inputs_quantized_once(model)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", DISTINCT)
def test_every_export_runs_in_integers(name, form):
    """In the graph that ONNX Runtime makes of it, whichever exporter and format; no weight becomes float again."""
    model = prepared(name, *FORMATS[form])
    assert_runs_in_integers(model)
    if form == "qdq":
        assert not {node.domain for node in model.graph.nodes} - {None, ""}


@pytest.mark.parametrize("steps", [(CANONICAL, STATIC), (CANONICAL, QDQ)], ids=["contrib", "qdq"])
@pytest.mark.parametrize("name", SOME)
def test_a_graph_that_was_not_fused_runs_in_integers(name, steps):
    assert_runs_in_integers(prepared(name, *steps))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_after_the_exact_passes_it_runs_in_integers(name, form):
    """first-token and unpad before; the encoder is found in what comes out."""
    *before, step = FORMATS[form]
    model = prepared(name, *before, FirstToken(), Unpad(), step)
    assert_runs_in_integers(model)
    assert_weights_close(model, prepared(name, *before))
    assert model.encoder.layers[-1].first_token


@pytest.mark.parametrize("name", DISTINCT)
def test_both_formats_answer_the_same(name):
    """From one fused graph; and near to the float model."""
    float_model = prepared(name, CANONICAL, STANDARD)
    contrib, qdq = prepared(name, CANONICAL, STANDARD, STATIC), prepared(name, CANONICAL, STANDARD, QDQ)
    given = every_padding(qdq)
    assert_same_outputs(qdq, contrib, given, atol=1e-5)
    for ours, exact in zip(answers(contrib, given), answers(float_model, given), strict=True):
        difference = np.abs(ours["logits"] - exact["logits"])
        assert 0 < difference.mean() < 0.2
        assert difference.max() < 0.5


@pytest.mark.parametrize("name", SOME)
def test_every_exporter_gives_one_int8_model(name):
    """The ranges, the weights and so the answers do not depend on who exported."""
    family = name.split("-")[0]
    model, other = (prepared(n, CANONICAL, FUSE, STATIC) for n in (name, f"{family}-dynamo18-sdpa"))
    given = feeds(model)
    ours, theirs = answers(model, [given])[0]["logits"], answers(other, [given])[0]["logits"]
    assert np.abs(ours - theirs).max() < 0.02  # a level here and there, where the last bit decides


@pytest.mark.parametrize("name", SOME)
def test_a_product_is_the_integers_product(name):
    """uint8 rows times int8 columns, rescaled, plus the bias: computed here in int64."""
    model = prepared(name, *FORMATS["contrib"])
    layer = model.encoder.layers[1]
    for linear in (layer.key, layer.up):
        node = next(node for node in model.graph.nodes if node.name == linear.node)
        scale, zero_point = node.inputs[2].values, node.inputs[4].values.astype(np.int64)
        source, result = values_of(model, [linear.source, linear.result], feeds(model))
        levels = np.clip(np.rint(source / scale) + zero_point, 0, 255).astype(np.int64) - zero_point
        integers, scales = stored(model, linear)
        expected = (levels @ integers.astype(np.int64)) * (scale * scales).astype(np.float64) + model.array(linear.bias)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_ranges_are_those_of_real_tokens():
    """Ids at padding positions are random: with them the ranges would be wider."""
    before = prepared("bert-ts17-eager", CANONICAL, FUSE)
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, STATIC)
    scales = {n.inputs[0].name: [t.values for t in n.inputs[1:]] for n in model.graph.nodes if n.op == "QuantizeLinear"}
    sources = list(dict.fromkeys(linear.source for linear in linears_of(before)))
    rows = {name: [] for name in sources}
    for batch in batches(before):
        for name, values in zip(sources, values_of(before, sources, batch.feeds), strict=True):
            rows[name].append(values[batch.mask])
    for name in sources:
        values = np.concatenate(rows[name])
        scale, zero_point = scales[name]
        assert scale == pytest.approx((values.max() - values.min()) / 255, rel=1e-3), name
        assert zero_point == np.rint(-values.min() / scale), name


def mean_query(model: Model) -> np.ndarray:
    """The mean over calibration rows of what layer 0's query gives."""
    name = model.encoder.layers[0].query.result
    return np.concatenate([values_of(model, [name], b.feeds)[0][b.mask] for b in batches(model)]).mean(0)


def test_corrected_biases_keep_the_mean():
    """Over calibration rows, the first layer's products lose next to nothing on average: what a clipped value lost."""
    float_model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    lost = {}
    for corrected in (True, False):
        model = float_model.clone()
        apply(QuantizeStatic(embeddings=False, correct_bias=corrected), model)
        lost[corrected] = np.abs(mean_query(model) - mean_query(float_model)).max()
    assert lost[True] < lost[False] / 5


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("export", ["ts13-eager", "dynamo20-sdpa"])
def test_albert_s_weights_are_quantized_and_stored_once(export, form):
    """Twelve scales for one weight is how ALBERT's F1 fell from .80 to .05 elsewhere."""
    model = prepared(f"albert-{export}", *FORMATS[form])
    matrices = [c.values for c in model.constants().values() if c.values.dtype == np.int8 and c.values.ndim == 2]
    assert sorted(m.shape for m in matrices) == sorted(
        [(12, 12)] * 4 + [(12, 20), (20, 12), (10, 12), (37, 10), (23, 10), (2, 10)]
    )
    for role in model.encoder.layers[0].linears:
        layers = [stored(model, layer.linears[role]) for layer in model.encoder.layers]
        assert len({layer.linears[role].weight for layer in model.encoder.layers}) == 1
        assert all((scales == layers[0][1]).all() for _, scales in layers)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_model_that_runs(method):
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeStatic(method=method))
    exact = prepared("bert-ts17-eager", CANONICAL, FUSE)
    ours, theirs = answers(model, [feeds(model)])[0], answers(exact, [feeds(exact)])[0]
    assert np.abs(ours["logits"] - theirs["logits"]).max() < 1
    assert_runs_in_integers(model)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_a_reduced_range_costs_little(name, form):
    """It runs in integers as before, each weight within half of a step that is at most twice as wide."""
    *before, step = FORMATS[form]
    original, full = prepared(name, *before), prepared(name, *before, step)
    model = prepared(name, *before, QuantizeStatic(format=form, reduce_range=True))
    assert_runs_in_integers(model)
    for linear, wide, exact in zip(*map(linears_of, (model, full, original)), strict=True):
        (integers, scales), (_, finest) = stored(model, linear), stored(full, wide)
        assert (np.abs(integers * scales - matrix(original, exact)) <= scales / 2 * (1 + 1e-5)).all(), linear.node
        assert ((finest <= scales) & (scales <= 127 / 63 * finest)).all(), linear.node
    ours, theirs = answers(model, [feeds(model)])[0], answers(original, [feeds(original)])[0]
    assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < 0.5


def test_tables_stay_float_when_asked():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeStatic(embeddings=False))
    expected = reference("bert")
    for role, name in (("word", "word"), ("position", "position"), ("token_type", "type")):
        table = model.array(model.encoder.embeddings.tables[role])
        np.testing.assert_array_equal(table, expected[f"embeddings.{name}.weight"])


def test_other_heads_are_quantized_too():
    """The vocabulary's matrix is a dense layer like others; five logits are not worth it."""
    model = prepared("bert-mlm", CANONICAL, FUSE, STATIC)
    assert [linear.quantized for linear in model.encoder.head if linear.d_out == 37] == [True]
    assert not any(linear.quantized for linear in prepared("bert-ts17-eager", CANONICAL, FUSE, STATIC).encoder.head)
    exact = prepared("bert-mlm", CANONICAL, FUSE)
    ours, theirs = answers(model, [feeds(model)])[0], answers(exact, [feeds(exact)])[0]
    assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < 1


@pytest.mark.parametrize("step", [STATIC, QDQ, QuantizeDynamic()], ids=str)
@pytest.mark.parametrize("again", [STATIC, QuantizeDynamic(format="qdq")], ids=str)
def test_quantizing_twice_is_refused(step, again):
    with pytest.raises(PassError, match="quantized already; start from the float model"):
        apply(again, prepared("bert-ts17-eager", CANONICAL, FUSE, step))


@pytest.mark.parametrize("name", ["quantized-dynamic", "quantized-qdq"])
def test_what_others_quantized_is_refused(name):
    with pytest.raises(PassError, match="quantized already"):
        apply(STATIC, prepared(name, CANONICAL))


@pytest.mark.parametrize(
    ("action", "options", "message"),
    [
        (QuantizeStatic, {"method": "guess"}, "quantize-static: method='guess' is not one of minmax, moving-average"),
        (QuantizeStatic, {"format": "int4"}, "quantize-static: format='int4' is not one of contrib, qdq"),
        (QuantizeDynamic, {"format": "int4"}, "quantize-dynamic: format='int4' is not one of contrib, qdq"),
        (QuantizeStatic, {"float_layers": (1, 0, 1)}, "quantize-static: float-layers=1/0/1 names a layer twice"),
        (QuantizeStatic, {"float_layers": (-1,)}, "quantize-static: float-layers=-1 needed whole numbers from 0"),
    ],
)
def test_impossible_options_are_refused(action, options, message):
    with pytest.raises(PassError, match=message):
        action(**options)


def test_the_file_shrinks(tmp_path):
    """Of a model made of weights, to little more than a quarter."""
    model = Model.load(fixture("bert-ts17-eager"))
    assert apply(CANONICAL, model)
    small = prepared("bert-ts17-eager", CANONICAL, FUSE, STATIC)
    weights = [sum(c.values.nbytes for c in m.constants().values() if c.values.ndim == 2) for m in (small, model)]
    assert weights[0] < 0.4 * weights[1]
    assert matrix(small, small.encoder.layers[0].query).dtype == np.int8


@pytest.mark.parametrize("action", [STATIC, QuantizeDynamic()], ids=["static", "dynamic"])
def test_a_float16_model_is_refused(action):
    """ONNX Runtime would refuse the mixture."""
    model = prepared("bert-dynamo18-eager", CANONICAL, FUSE, Float16())
    with pytest.raises(PassError, match="is float16; start from the float32 model"):
        apply(action, model)


SEPARATE = [name for name in SOME if "albert" not in name]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SEPARATE)
def test_named_layers_stay_float(name, form, tmp_path, monkeypatch):
    """Their weights are equal, all others are int8, and ONNX Runtime turns none back."""
    *before, _ = FORMATS[form]
    original = prepared(name, *before)
    model = prepared(name, *before, QuantizeStatic(format=form, float_layers=(2, 0)))
    for layer, exact in zip(model.encoder.layers, original.encoder.layers, strict=True):
        for role, linear in layer.linears.items():
            weight = matrix(model, linear)
            assert linear.quantized is (layer.index == 1)
            assert weight.dtype == (np.int8 if layer.index == 1 else np.float32)
            if layer.index != 1:
                np.testing.assert_array_equal(weight, matrix(original, exact.linears[role]))
    assert_tables_close(model, original)
    file = tmp_path / "mixed.onnx"
    model.save(file)
    monkeypatch.setattr(int8_check, "SMALL", 100)  # the weights here are small
    int8_check.check_weights_stay_int8(file)
    given, every = [feeds(model)], prepared(name, *FORMATS[form])
    errors = [
        np.abs(answers(one, given)[0]["logits"] - answers(original, given)[0]["logits"]).mean()
        for one in (model, every)
    ]
    assert 0 < errors[0] < errors[1]


def test_float_layers_want_no_statistics():
    """Inputs of the other layers alone are asked for."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    sources = [{linear.source for linear in layer.linears.values()} for layer in model.encoder.layers]
    wanted = {want.tensor for want in QuantizeStatic(float_layers=(1,)).wants(model)}
    assert wanted == sources[0] | sources[2]


def test_what_is_in_no_layer_is_quantized_all_the_same():
    """The vocabulary's matrix, and the projection of ALBERT's tables."""
    model = prepared("bert-mlm", CANONICAL, FUSE, QuantizeStatic(float_layers=(0, 1)))
    assert [linear.quantized for linear in model.encoder.head if linear.d_out == 37] == [True]
    model = prepared("albert-ts14-sdpa", CANONICAL, FUSE, QuantizeStatic(float_layers=(0, 1, 2)))
    assert model.encoder.embeddings.projection.quantized
    assert not any(linear.quantized for layer in model.encoder.layers for linear in layer.linears.values())


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("bert-ts17-eager", (0, 3), "quantize-static: float-layers=0/3: no layer 3: the encoder has 0 to 2"),
        ("bert-ts17-eager", (0, 1, 2), "quantize-static: float-layers=0/1/2 leaves nothing to quantize"),
        (
            "albert-ts14-sdpa",
            (0, 2),
            "quantize-static: float-layers=0/2: layers 0, 1, 2 share their matrices; name all of them or none",
        ),
    ],
)
def test_float_layers_that_cannot_be_are_refused(name, layers, message):
    model = prepared(name, CANONICAL, FUSE)
    with pytest.raises(PassError) as caught:
        apply(QuantizeStatic(float_layers=layers), model)
    assert str(caught.value) == message


def test_layers_that_share_a_matrix_belong_together():
    """All of ALBERT's, and those that were given one set of feed-forwards."""
    assert layer_groups(prepared("bert-ts17-eager", CANONICAL, FUSE)) == [(0,), (1,), (2,)]
    assert layer_groups(prepared("albert-ts14-sdpa", CANONICAL, FUSE)) == [(0, 1, 2)]
    shared = prepared("bert-ts17-eager", CANONICAL, FUSE, ShareWeights(groups=2, roles="ffn"))
    assert sorted(map(len, layer_groups(shared))) == [1, 2]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_named_inputs_have_their_range_from_run_time(name, form):
    """The others keep the calibrated one; it still runs in integers, near to the float model."""
    *before, step = FORMATS[form]
    original = prepared(name, *before)
    calibrated = prepared(name, *before, step)
    model = prepared(name, *before, replace(step, run_time=(1, 3)))
    quantizers = Counter(node.op for node in model.graph.nodes)
    assert quantizers["DynamicQuantizeLinear"] == 2
    assert quantizers["QuantizeLinear"] == Counter(n.op for n in calibrated.graph.nodes)["QuantizeLinear"] - 2
    assert_weights_close(model, original)
    assert_runs_in_integers(model)
    given = [feeds(model)]
    assert np.abs(answers(model, given)[0]["logits"] - answers(original, given)[0]["logits"]).max() < 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"run_time": (99,)}, "run-time=99, but the last input has number"),
        ({"run_time": (1, 1)}, "names an input twice"),
        ({"run_time": (1,), "ranges": "best"}, "ranges=best finds run-time itself"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(PassError, match=said):
        prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeStatic(**options))


@pytest.mark.parametrize("name", ["bert-ts17-eager", "albert-ts17-eager"])
def test_what_clips_hard_rows_gets_its_range_at_run_time(name):
    """Calibrated on rows of one id alone: the step names inputs, with which hard rows are nearer to the original."""
    model = prepared(name, CANONICAL, FUSE)
    one_id = [Batch({**b.feeds, "input_ids": b.feeds["input_ids"] * 0 + 7}, b.mask, b.rows) for b in batches(model)]
    on_rows = Trials(model.clone(), one_id, batches(model, ((4, 8), (2, 5))), hard=([], batches(model, ((4, 2),))))
    change = run_recipe(model, Recipe.parse("quantize-static{ranges=best}"), on_rows)[0]
    measured = change.details["ranges"]
    assert measured["inputs"]
    assert Recipe.parse(change.step) == Recipe((Step(QuantizeStatic(run_time=measured["inputs"])),))
    assert measured["error"] < measured["fixed"]
    assert on_rows.error_a_row(model) == pytest.approx(measured["error"])
    assert ("instead" in change.details) != measured["as_good"]


def test_what_is_tried_is_rounded_and_answered_once(monkeypatch):
    """Five methods, several shares of inputs and what is written share their integers; none is judged twice."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    rounded, judged = [], []
    for module, name in ((layers, "quantize_columns"), (layers, "quantize_rows")):
        once = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, once=once, **how: rounded.append(x.shape) or once(x, **how))
    row_errors = Trials.row_errors
    monkeypatch.setattr(
        Trials, "row_errors", lambda on, made: judged.append(made.fingerprint()) or row_errors(on, made)
    )
    one_id = [Batch({**b.feeds, "input_ids": b.feeds["input_ids"] * 0 + 7}, b.mask, b.rows) for b in batches(model)]
    on_rows = Trials(model.clone(), one_id, batches(model, ((4, 8), (2, 5))), hard=([], batches(model, ((4, 2),))))
    weights = {linear.weight for linear in linears_of(model)}
    change = run_recipe(model, Recipe.parse("quantize-static{method=best,ranges=best}"), on_rows)[0]
    assert change.details["ranges"]["inputs"]
    assert len(rounded) == len(weights) + 3  # and three tables
    assert len(judged) == len(set(judged)) > len(METHODS)


@pytest.mark.parametrize("name", ["albert-ts17-eager", "albert-dynamo20-sdpa"])
def test_each_call_of_a_shared_weight_has_a_range_of_its_own(name):
    """ALBERT's layers share their matrices: stored once, and read with as many ranges as there are inputs."""
    model = prepared(name, CANONICAL, FUSE, STATIC)
    products = [node for node in model.graph.nodes if node.op == "MatMulIntegerToFloat"]
    by_weight = {}
    for node in products:
        by_weight.setdefault(node.inputs[1].name, []).append(float(node.inputs[2].values))
    calls = [scales for scales in by_weight.values() if len(scales) > 1]
    assert calls
    assert all(len(set(scales)) == len(scales) for scales in calls)
