"""Without some layers a model is the encoder of the others; which go is measured, and the layer before makes up."""

import functools
import math

import numpy as np
import pytest
from graphs import EVERY, SOME, apply, batches, every_padding, feeds, prepared, real_tokens, reference, trials
from oracles import answers, assert_same_outputs, matrix, values_of
from random_encoders import HEADS, Kind, encoder

from onnxslim_bert.calibration.collect import real_rows
from onnxslim_bert.calibration.observers import OBSERVERS
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import nodes_between, opsets_of, run
from onnxslim_bert.model.norm_form import layer_norm
from onnxslim_bert.model.spans import find_spans, remove_layer
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.drop_layers import DropLayers
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.prune_heads import PruneHeads
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.bridge import best_map
from onnxslim_bert.rewriting.trials import Trials

CANONICAL, FUSE, FIRST = Canonicalize(), Fuse(), FirstToken()
CUT, DROP = DropLayers(refit=False), DropLayers()
ALL = [0, 1, 2]


def encoded(weights, given, kept):
    """The last hidden state [batch, seq, hidden] of an encoder that has the layers `kept` alone, as it is published."""

    def dense(x, place):
        return x @ weights[f"{place}.weight"].T.astype(np.float64) + weights[f"{place}.bias"]

    def norm(x, place):
        return layer_norm(x, weights[f"{place}.weight"], weights[f"{place}.bias"], float(weights["eps"]))

    def apart(x):
        return x.reshape(*x.shape[:2], int(weights["heads"]), -1).transpose(0, 2, 1, 3)

    def attention(x, place):
        query, key, value = (apart(dense(x, f"{place}.{role}")) for role in ("query", "key", "value"))
        scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
        scores = np.where(real_tokens(given)[:, None, None], scores, -np.inf)
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        context = chances / chances.sum(-1, keepdims=True) @ value
        return dense(context.transpose(0, 2, 1, 3).reshape(x.shape), f"{place}.output")

    def feed_forward(x, place):
        inner = dense(x, f"{place}.up")
        return dense(inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))), f"{place}.down")

    before_first = int(weights["position_offset"]) - 1  # the position, and the id, of padding where there is one
    counted = given["input_ids"] != before_first
    positions = np.cumsum(counted, 1) * counted + before_first
    x = weights["embeddings.word.weight"][given["input_ids"]] + weights["embeddings.position.weight"][positions]
    if "embeddings.type.weight" in weights:
        x = x + weights["embeddings.type.weight"][given.get("token_type_ids", np.zeros(1, np.int64))]
    x = norm(x, "embeddings.norm")
    if "embeddings.projection.weight" in weights:
        x = dense(x, "embeddings.projection")
    for index in kept:
        for part, role in ((attention, "attention_norm"), (feed_forward, "ffn_norm")):
            place = f"layers.{index}"
            if weights["pre_norm"]:
                x = x + part(norm(x, f"{place}.{role}"), place)
            else:
                x = norm(x + part(x, place), f"{place}.{role}")
    return norm(x, "final_norm") if weights["pre_norm"] else x


def expected(name, given, kept):
    """The first output of the fixture `name` built with the layers `kept`: its own head on what `encoded` gives."""
    state, nodes, output, opsets = head(name)
    return run(nodes, {state: encoded(reference(name), given, kept).astype(np.float32)}, output, opsets)


@functools.cache
def head(name):
    """What computes the first output from the last hidden state: from the tensor that holds what all layers give."""
    original = prepared(name, CANONICAL)
    given, nodes, output = feeds(original), original.graph.nodes, original.graph.outputs[0]
    last = max(i for i, node in enumerate(nodes) if node.op == "Softmax")
    sums = [n.outputs[0].name for n in nodes[last:] if n.op in ("Add", "LayerNormalization")]
    whole = encoded(reference(name), given, ALL)
    held = zip(sums, values_of(original, sums, given), strict=True)
    state = [n for n, x in held if x.shape == whole.shape and np.allclose(x, whole, atol=1e-4)][-1]
    return state, nodes_between([original.graph.tensors()[state]], output), output, opsets_of(original.graph)


def without(model, gone):
    """A copy of `model` with layers taken out, the last one first."""
    shorter, spans = model.clone(), find_spans(model)
    for index in sorted(gone, reverse=True):
        remove_layer(shorter, spans[index])
    return shorter


def assert_is_the_encoder_of(model, name, kept):
    given = feeds(model)
    (ours,) = answers(model, [given])
    np.testing.assert_allclose(ours[model.graph.outputs[0].name], expected(name, given, kept), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_the_oracle_answers_what_the_exporter_did(name):
    weights = reference(name)
    given = {tensor.name: weights[tensor.name] for tensor in prepared(name).graph.inputs}
    np.testing.assert_allclose(expected(name, given, ALL), weights["logits"], atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_without_a_layer_a_model_is_the_encoder_built_without_it(name):
    model = prepared(name, CANONICAL)
    for span in find_spans(model):
        shorter = model.clone()
        remove_layer(shorter, span)
        assert_is_the_encoder_of(shorter, name, [index for index in ALL if index != span.index])


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("steps", [(FUSE,), (FUSE, FIRST), (FUSE, FIRST, Unpad())], ids=["fused", "first", "unpadded"])
def test_layers_of_rewritten_graphs_go_as_well(name, steps):
    """One or two of them, the last one among them although it computes one token; the others are found."""
    before = prepared(name, CANONICAL, *steps)
    for gone in ([0], [2], [1, 2]):
        model = without(before, gone)
        assert len(model.encoder.layers) == len(ALL) - len(gone)
        assert_is_the_encoder_of(model, name, [index for index in ALL if index not in gone])


@pytest.mark.parametrize("name", SOME)
def test_the_layer_that_changes_the_answers_least_goes(name):
    """By what the encoders built without each answer on held-back rows; padding is not read by these heads."""
    model = prepared(name, CANONICAL, FUSE)
    given = [batch.feeds for batch in trials(model).held_back]
    gaps = [
        [expected(name, feed, [i for i in ALL if i != gone]) - expected(name, feed, ALL) for feed in given]
        for gone in ALL
    ]
    damages = [np.sqrt(sum(np.square(part).sum() for part in parts)) for parts in gaps]
    size = np.sqrt(sum(np.square(expected(name, feed, ALL)).sum() for feed in given))
    change = apply(CUT, model)
    assert (change.count, change.details["removed"]) == (1, [int(np.argmin(damages))])
    assert list(change.details["damages"][0].values()) == pytest.approx(np.array(damages) / size, abs=1e-3)
    assert change.note == f"layer {np.argmin(damages)} of 3 removed; the answers change by {min(damages) / size:.1%}"


@pytest.mark.parametrize("step", [CUT, DROP], ids=["cut", "refit"])
@pytest.mark.parametrize("idle", ALL)
def test_a_layer_that_adds_nothing_goes_wherever_it_is(idle, step):
    """Zero `output` and `down`: the stream passes unchanged, and without the layer it still does."""
    model = prepared("prenorm-ts17-eager", CANONICAL, FUSE)
    for role in ("output", "down"):
        linear = model.encoder.layers[idle].linears[role]
        for constant in (linear.weight, linear.bias):
            model.replace(constant, np.zeros_like(model.array(constant)))
    before = model.clone()
    change = apply(step, model)
    assert change.details["removed"] == [idle]
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


def test_layers_go_one_after_the_other_by_the_numbers_they_had():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    change = apply(DropLayers(drop=2, refit=False), model)
    first, second = change.details["removed"]
    assert sorted(change.details["damages"][1]) == [index for index in ALL if index != first]
    assert change.note.startswith(f"layers {first}, {second} of 3 removed; the answers change by ")
    assert_is_the_encoder_of(model, "bert-ts17-eager", [index for index in ALL if index not in (first, second)])


def bridged(name, gone, *steps):
    """The fixture before and after layer `gone` went with a refit, and the reported error: the others are no choice."""

    class OnlyOne(Trials):
        def damage(self, model):
            self.asked = getattr(self, "asked", -1) + 1
            return float(self.asked != gone)

    before = prepared(name, CANONICAL, FUSE, *steps)
    model, on_rows = before.clone(), trials(before)
    change = DROP.apply(model, Context({}, OnlyOne(before, on_rows.fitting, on_rows.held_back)))
    assert change.details["removed"] == [gone]
    return before, model, change


@pytest.mark.parametrize("name", [name for name in SOME if "albert" not in name])
@pytest.mark.parametrize("gone", [1, 2])
def test_a_refit_is_the_ridge_regression_of_the_lost_layer_s_stream(name, gone):
    """Some ridge of the list, on all real tokens; the residual stays, and the lost layer's norm follows."""
    before, model, change = bridged(name, gone)
    spans, down = find_spans(before), before.encoder.layers[gone - 1].down
    names = [down.source, spans[gone].ffn_sum, spans[gone - 1].ffn_residual]

    def pairs(rows):
        held = [[real_rows(x, b.mask) for x in values_of(before, names, b.feeds)] for b in rows]
        x, total, residual = (np.concatenate(parts).astype(np.float64) for parts in zip(*held, strict=True))
        return np.hstack([x, np.ones((len(x), 1))]), total - residual

    new = model.encoder.layers[gone - 1].down
    fitted = np.vstack([matrix(model, new), model.array(new.bias)])
    start = np.vstack([matrix(before, down), before.array(down.bias)])
    x, target = pairs(batches(before))
    spread = np.square(x[:, :-1]).sum(0).mean()
    candidates = [start]
    for ridge in (1e-4, 1e-3, 1e-2, 1e-1):
        penalty = np.diag(np.sqrt(np.append(np.full(down.d_in, spread * ridge), 0)))
        rows = np.vstack([x, penalty]), np.vstack([target, penalty @ start])
        candidates.append(np.linalg.lstsq(*rows, rcond=None)[0])
    unseen, wanted = pairs(trials(before).held_back)
    errors = [np.linalg.norm(unseen @ candidate - wanted) / np.linalg.norm(wanted) for candidate in candidates]
    np.testing.assert_allclose(fitted, candidates[int(np.argmin(errors))], atol=1e-3)
    assert change.details["errors"][gone] == pytest.approx(min(errors), abs=1e-3)
    assert min(errors) < errors[0]
    if not name.startswith("prenorm"):
        gammas = [model.array(node.inputs[1].name) for node in model.graph.nodes if node.op == "LayerNormalization"]
        own, lost = (reference(name)[f"layers.{i}.ffn_norm.weight"] for i in (gone - 1, gone))
        assert [any(np.array_equal(gamma, norm) for gamma in gammas) for norm in (own, lost)] == [False, True]


def test_the_best_map_is_exact_where_one_is():
    """x -> x @ weight + bias is found from moments alone; where the start has it, the start is kept."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3))

    def moments(rows):
        x = rng.standard_normal((rows, 4))
        observer = OBSERVERS["gram"]()
        observer.update(np.hstack([x, np.hstack([x, np.ones((rows, 1))]) @ weight]))
        return observer.result()

    fitted, error = best_map(moments(50), moments(20), np.zeros((5, 3)))
    np.testing.assert_allclose(fitted, weight, atol=1e-3)
    assert error < 1e-3
    kept, error = best_map(moments(50), moments(20), weight)
    np.testing.assert_allclose(kept, weight, atol=1e-12)
    assert error == pytest.approx(0, abs=1e-6)


def test_layers_that_share_their_matrices_keep_sharing():
    """ALBERT: nothing is refitted, and every constant of the encoder is what it was."""
    before = prepared("albert-ts17-eager", CANONICAL, FUSE)
    model = before.clone()
    change = apply(DropLayers(drop=2), model)
    assert change.details["errors"] == {}
    assert {n: model.array(n).tobytes() for n in model.constants()} == {
        n: before.array(n).tobytes() for n in model.constants()
    }
    assert_is_the_encoder_of(model, "albert-ts17-eager", [0])


@pytest.mark.parametrize("name", SOME)
def test_other_passes_find_a_whole_encoder(name):
    """Pruning before and after, then everything that a recipe ends with."""
    model = prepared(name, CANONICAL, FUSE)
    for step in (PruneHeads(keep=0.7), DROP, PruneFfn(keep=0.5), FIRST, QuantizeStatic()):
        assert apply(step, model), step
    assert [list(layer.linears) for layer in model.encoder.layers] == [
        ["query", "key", "value", "output", "up", "down"]
    ] * 2
    assert all(linear.quantized for layer in model.encoder.layers for linear in layer.linears.values())
    assert all(np.isfinite(x).all() for given in answers(model, every_padding(model)) for x in given.values())


def test_it_goes_before_fuse_as_well():
    """The same weights, to rounding, as after."""
    early = prepared("bert-ts17-sdpa", CANONICAL, DROP, FUSE)
    late = prepared("bert-ts17-sdpa", CANONICAL, FUSE, DROP)
    assert_same_outputs(early, late, every_padding(early), atol=1e-4)


def test_progress_counts_the_layers_tried():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    told, on_rows = [], trials(model)
    on_rows.progress = lambda *now: told.append(now)
    DropLayers(drop=2, refit=False).apply(model, Context({}, on_rows))
    assert [now for now in told if now[0] == "dropping layers"] == [
        *[("dropping layers", done, 3) for done in (1, 2, 3)],
        *[("dropping layers", done, 2) for done in (1, 2)],
    ]


@pytest.mark.parametrize(
    ("name", "steps", "drop", "message"),
    [
        ("bert-ts17-eager", (), 3, "3 layers less leave none: the encoder has 3"),
        ("bert-ts17-eager", (QuantizeStatic(),), 1, "layer 0: the query matrix is int8; start from the float32 model"),
        (
            "bert-ts17-eager",
            (Float16(),),
            1,
            "layer 0: the query matrix is float16; .*, or put float32 before it",
        ),
    ],
)
def test_what_cannot_be_is_refused(name, steps, drop, message):
    model = prepared(name, CANONICAL, FUSE, *steps)
    before = model.fingerprint()
    with pytest.raises(PassError, match=message):
        apply(DropLayers(drop=drop), model)
    assert model.fingerprint() == before


def test_no_layers_to_drop_is_refused():
    with pytest.raises(PassError, match="drop=0 removes nothing; needed a number from 1"):
        DropLayers(drop=0)


@pytest.mark.parametrize("name", SOME)
def test_named_layers_go_without_being_looked_for(name):
    """In the order given, numbered as in the whole encoder: the file that measuring them gives."""
    found, told = prepared(name, CANONICAL, FUSE), prepared(name, CANONICAL, FUSE)
    removed = apply(DropLayers(drop=2), found).details["removed"]
    change = apply(DropLayers(layers=tuple(removed)), told)
    assert change.details["removed"] == removed
    assert [len(tried) for tried in change.details["damages"]] == [1, 1]
    assert told.fingerprint() == found.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (1, 1)}, "layers=1/1 names a layer twice"),
        ({"layers": (1,), "drop": 2}, "layers=1 says how many layers go; leave drop=2 out"),
        ({"layers": (7,)}, "no layer 7: the encoder has 0 to 2"),
    ],
)
def test_names_that_cannot_be_are_refused(options, message):
    with pytest.raises(PassError, match=message):
        apply(DropLayers(**options), prepared("bert-ts17-eager", CANONICAL, FUSE))


@pytest.mark.parametrize("role", ["exit", "ffn_residual"])
def test_a_state_within_that_is_an_output_is_refused(role):
    """As exported with output_hidden_states: it would be another layer's."""
    model = prepared("bert-ts17-eager", CANONICAL)
    tensor = model.graph.tensors()[getattr(find_spans(model)[1], role)]
    tensor.dtype = np.float32
    model.graph.outputs.append(tensor)
    with pytest.raises(
        PassError, match=f"layer 1: its '{tensor.name}' is an output of the model, so the layer cannot go"
    ):
        apply(CUT, model)


def test_a_state_that_the_head_reads_too_is_refused():
    """A head that adds an earlier state to the last one."""
    model = prepared("bert-ts17-eager", CANONICAL)
    spans, tensors = find_spans(model), model.graph.tensors()
    early, last = (tensors[spans[i].exit] for i in (0, 2))
    reader = last.outputs[0]
    mixed = Builder(model.graph, "head").node("Add", "mixed", [last, early])
    reader.inputs[0] = mixed
    model.changed()
    with pytest.raises(PassError, match=r"layer 0: node 'head/mixed' \(Add\) outside the next layer reads it too"):
        apply(CUT, model)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("beside", ["in turn", "together"])
def test_a_layer_beside_itself_that_gives_nothing_can_go(beside, refit):
    """Attention and feed-forward are added to the stream in turn, or as one sum (GPT-NeoX, Falcon, GPT-J)."""
    fixed = ("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "first")
    model = encoder(Kind(*fixed, beside=beside))
    CANONICAL.apply(model, Context())
    layer = model.encoder.layers[1]
    for name in (x for linear in (layer.output, layer.down) for x in (linear.weight, linear.bias)):
        model.replace(name, np.zeros_like(model.array(name)))
    wanted = model.clone()
    apply(DropLayers(layers=(1,), refit=refit), model)
    assert len(model.encoder.layers) == 1
    assert_same_outputs(model, wanted, every_padding(model), atol=1e-4)
