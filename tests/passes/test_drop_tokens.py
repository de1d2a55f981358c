"""Dropped tokens are those that a later layer no longer sees: the answers are those of masks that hide them."""

from collections import Counter

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, causal, every_padding, feeds, fixture, prepared, real_tokens, reference
from oracles import Answers, answers, assert_layers, assert_same_answers, assert_same_outputs, values_of

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.write_attention import attention_style, emit_attention
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.drop_tokens import DropTokens, kept_counts
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad

CANONICAL, FUSE, STANDARD, FIRST = Canonicalize(), Fuse(), Fuse(style="standard"), FirstToken()
KEPT = "kept.{}"  # an input of the oracle: what layers from this one on may see
HALF = DropTokens(keep=0.5, after=0, at_least=2)
TWICE = DropTokens(keep=0.3, after=0, steps=2, at_least=2)
WHOLE = DropTokens(keep=1.0, after=0, steps=2)


def hiding(model: Model, after: int) -> Model:
    """`model` with a mask of its own for each layer behind `after`, an input [batch, seq]."""
    oracle = model.clone()
    layers = oracle.encoder.layers[after + 1 :]
    for layer in layers:
        mask = type(oracle.graph.inputs[0])(KEPT.format(layer.index), np.int64, ["batch", "sequence"])
        oracle.graph.inputs.append(mask)
        tensors = oracle.graph.tensors()
        roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
        old = tensors[layer.context]
        build = Builder(oracle.graph, f"oracle.{layer.index}")
        scale = layer.form.scale
        redirect(
            oracle.graph,
            old,
            emit_attention(build, attention_style(old), roles, layer.query.d_out, layer.heads, scale, mask),
        )
    oracle.changed()
    return oracle


def expected(model: Model, step: DropTokens, given: list[dict[str, Array]]) -> list[Answers]:
    """The answers of `model` when each drop of `step` hides tokens, chosen here from its query, key and value."""
    layers = model.encoder.layers
    oracle = hiding(model, step.after)
    masks = [real_tokens(feed).astype(np.int64) for feed in given]
    lengths = [1 + mask[:, 1:].sum(1) for mask in masks]
    seen = [{KEPT.format(layer.index): mask for layer in layers[step.after + 1 :]} for mask in masks]
    for i in range(step.steps):
        layer = layers[step.after + i]
        probe = oracle.clone()
        tensors = probe.graph.tensors()
        probe.graph.outputs = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
        for tensor in probe.graph.outputs:
            tensor.dtype = np.float32
        held = answers(probe, [a | b for a, b in zip(given, seen, strict=True)], optimize=False)
        share = step.keep ** ((i + 1) / step.steps)
        for row, roles in enumerate(held):
            worth = received(*roles.values(), layer.heads, layer.form.scale, masks[row])
            masks[row] = best(worth, masks[row], lengths[row], share, step.at_least)
            seen[row] |= {KEPT.format(later.index): masks[row] for later in layers[layer.index + 1 :]}
    return answers(oracle, [a | b for a, b in zip(given, seen, strict=True)], optimize=False)


def best(worth: Array, mask: Array, lengths: Array, share: float, at_least: int) -> Array:
    """The mask of the tokens that are left: position 0 and those worth most."""
    worth[:, 0] = np.inf
    left = np.maximum(np.ceil(share * lengths - 1e-9), np.minimum(lengths, at_least))
    ranks = np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1)
    return mask * (ranks < left[:, None])


def received(query: Array, key: Array, value: Array, heads: int, scale: float, mask: Array) -> Array:
    """The formula, head by head."""
    total = np.zeros(mask.shape)
    mean = (query * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    for q, k, v in zip(*(np.split(x, heads, axis=-1) for x in (mean, key, value)), strict=True):
        scores = np.where(mask > 0, scale * np.einsum("bd,bsd->bs", q, k), -np.inf)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        total += weights / weights.sum(1, keepdims=True) * np.linalg.norm(v, axis=-1)
    return total


@pytest.mark.parametrize("name", [*DISTINCT, "bert-nomask", "bert-dynamo23-sdpa"])
def test_dropped_tokens_are_as_good_as_hidden(name):
    """In two layers in a row, on every padding, with holes and with position 0 itself hidden."""
    before = prepared(name, CANONICAL, FUSE)
    model = before.clone()
    assert apply(TWICE, model)
    given = every_padding(model)
    for number, pair in enumerate(zip(answers(model, given), expected(before, TWICE, given), strict=True)):
        assert_same_answers(*pair, 1e-5, f"batch {number}: ")


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *((name, (CANONICAL, FUSE, FIRST)) for name in SOME),
        *((name, (CANONICAL, STANDARD)) for name in SOME[::2]),
        *((name, (CANONICAL,)) for name in SOME if "ts13" not in name and "ts14" not in name),  # they have no norm node
    ],
)
def test_in_other_forms_dropped_tokens_are_as_good_as_hidden(name, steps):
    before = prepared(name, *steps)
    model = before.clone()
    assert apply(HALF, model)
    given = every_padding(model)
    for number, pair in enumerate(zip(answers(model, given), expected(before, HALF, given), strict=True)):
        assert_same_answers(*pair, 1e-5, f"batch {number}: ")


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("step", [WHOLE, DropTokens(keep=0.1, after=1, at_least=99)], ids=str)
def test_where_all_tokens_stay_the_answers_are_the_same(name, step):
    """Their order aside, which nothing reads."""
    model = prepared(name, CANONICAL, FUSE, step)
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_a_row_answers_alone_as_in_a_batch(name):
    """However long the others are: each keeps a share of its own length."""
    model = prepared(name, CANONICAL, FUSE, FIRST, TWICE)
    given = feeds(model, 5, 11)
    (together,) = answers(model, [given])
    lengths = real_tokens(given).sum(1)
    assert len(set(lengths)) == 5
    alone = answers(model, [{n: v[i : i + 1, :length] for n, v in given.items()} for i, length in enumerate(lengths)])
    for i, answer in enumerate(alone):
        np.testing.assert_allclose(answer["logits"][0], together["logits"][i], atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_layers_behind_compute_fewer_tokens(name):
    """The first feed-forward already; all roles are still found."""
    model = prepared(name, CANONICAL, FUSE, FIRST, HALF)
    first, *_, last = model.encoder.layers
    assert_layers(model, reference(name))
    assert last.first_token
    names = [first.query, first.output, first.up, first.down, last.query, last.key, last.down]
    values = values_of(model, [linear.result for linear in names], feeds(model, 1, 11))
    assert [x.shape[1] for x in values] == [11, 11, 6, 6, 1, 6, 1]


@pytest.mark.parametrize("name", SOME)
def test_it_quantizes_afterwards(name):
    """Every dense layer, and int8 answers stay near the float ones."""
    float_model = prepared(name, CANONICAL, FUSE, FIRST, HALF)
    model = prepared(name, CANONICAL, FUSE, FIRST, HALF, QuantizeStatic())
    assert all(linear.quantized for layer in model.encoder.layers for linear in layer.linears.values())
    given = [feeds(model, 3, 9)]
    (ours,), (theirs,) = answers(model, given), answers(float_model, given)
    assert np.abs(ours["logits"] - theirs["logits"]).max() < 0.2 * np.abs(theirs["logits"]).max()
    assert apply(SkipMask(), model)
    assert_same_outputs(model, prepared(name, CANONICAL, FUSE, FIRST, HALF, QuantizeStatic()), given, atol=1e-5)


def test_no_matrix_of_all_pairs_is_computed():
    """What a drop adds has one product of activations, that of the mean query."""
    before = Counter(node.op for node in prepared("bert-ts17-eager", CANONICAL, FUSE).graph.nodes)
    after = Counter(node.op for node in prepared("bert-ts17-eager", CANONICAL, FUSE, HALF).graph.nodes)
    added = after - before
    assert (added["MatMul"], added["TopK"], added["MultiHeadAttention"]) == (1, 1, 0)


def test_counts_round_up_and_leave_short_texts_whole():
    assert kept_counts(8, 0.5, 3).tolist() == [1, 2, 3, 3, 3, 3, 4, 4]
    assert kept_counts(10, 0.1, 1).tolist() == [1] * 10
    assert kept_counts(5, 1.0, 1).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "steps", "reason"),
    [
        ("bert-features", (CANONICAL, FUSE), "every token is needed: the whole last hidden state is an output"),
        ("bert-mlm", (CANONICAL, FUSE), "every token is needed: the whole last hidden state is an output"),
        ("bert-ts13-eager", (CANONICAL, FUSE, FIRST, Unpad()), "drop tokens before `unpad`"),
        ("bert-ts13-eager", (CANONICAL, FUSE, SkipMask()), "drop tokens before `skip-mask`"),
        ("bert-ts13-eager", (CANONICAL,), "(ReduceMean)"),
    ],
    ids=["states", "masked words", "unpadded", "skip-mask", "not fused"],
)
def test_what_cannot_lose_tokens_is_left_and_told(name, steps, reason):
    """The pass says why it does not apply, and the graph stays what it was."""
    model = prepared(name, *steps)
    before = model.fingerprint()
    change = apply(HALF, model)
    assert not change
    assert reason in change.note
    assert model.fingerprint() == before


def test_states_of_a_layer_behind_are_outputs_and_so_need_every_token():
    """As exported with all hidden states: the last one is read at position 0 only, an earlier one is not."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    state = model.graph.tensors()[model.encoder.layers[2].key.source]
    state.dtype = np.float32
    model.graph.outputs.append(state)
    model.changed()
    change = apply(HALF, model)
    assert (bool(change), change.note) == (False, f"every token of {state.name!r} is an output")


def test_a_node_that_brings_early_tokens_back_is_seen():
    """A stream from before the drop, added behind it."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    first, _, last = model.encoder.layers
    tensors = model.graph.tensors()
    stream = tensors[last.key.source]
    added = Builder(model.graph, "extra").node("Add", "again", [tensors[first.key.source], stream])
    norm = next(node for node in model.graph.nodes if node.op == "Sum" and any(t is stream for t in node.inputs))
    norm.inputs[next(i for i, t in enumerate(norm.inputs) if t is stream)] = added
    model.changed()
    change = apply(HALF, model)
    assert not change
    assert "(Add) needs every token of" in change.note


@pytest.mark.parametrize("step", [QuantizeStatic(), Float16()], ids=["int8", "float16"])
def test_only_float32_models_lose_tokens(step):
    with pytest.raises(PassError, match="start from the float"):
        apply(HALF, prepared("bert-ts17-eager", CANONICAL, FUSE, step))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.0}, r"drop-tokens: keep=0.0 is not in \(0, 1\]"),
        ({"keep": 1.5}, r"drop-tokens: keep=1.5 is not in \(0, 1\]"),
        ({"after": -1}, "drop-tokens: after=-1 is less than 0"),
        ({"steps": 0}, "drop-tokens: steps=0 is less than 1"),
        ({"at_least": 1}, "drop-tokens: at-least=1 is less than 2"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(PassError, match=message):
        DropTokens(**options)


@pytest.mark.parametrize("step", [DropTokens(after=2), DropTokens(after=1, steps=2)], ids=str)
def test_a_drop_that_no_layer_profits_from_is_refused(step):
    with pytest.raises(PassError, match="go beyond layer 1, the last but one"):
        apply(step, prepared("bert-ts17-eager", CANONICAL, FUSE))


def test_attention_that_is_not_proven_keeps_its_tokens():
    model = causal(prepared("bert-ts13-eager", CANONICAL, FUSE))
    before = model.fingerprint()
    change = apply(HALF, model)
    assert not change
    assert change.note.startswith("layer 0's attention is not proven: ")
    assert model.fingerprint() == before
