"""Encoders made at random: exact passes answer alike at every length and padding, and what was made is found."""

from collections.abc import Iterator

import numpy as np
import pytest
import random_encoders
from oracles import answers
from random_encoders import HEADS, NEURONS, POSITIONS, SIZE, VOCABULARY, Kind, encoder, random_kind

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import subgraph_nodes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.passes.share_weights import ShareWeights
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context, Pass
from onnxslim_bert.rewriting.pruning.least_squares import channels
from onnxslim_bert.rewriting.pruning.sites import UnitKind, find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units, matrix, set_dense

SEEDS = range(40)
LENGTHS = (1, 2, 7, 16, 63, POSITIONS)
CPU: tuple[Pass, ...] = (Canonicalize(), Fuse(), FirstToken(), Unpad(), SkipMask(), ShareWeights())
STANDARD: tuple[Pass, ...] = (Canonicalize(), Fuse(style="standard"), FirstToken(), MaskBias())
FIXED = {
    "window": 0, "bias": "none", "rotary": False, "groups": HEADS, "positions": "table", "norm": "layer",
    "before": False, "gate": "none", "packing": "none", "mask": "input", "pad": 0, "head": "first",
    "beside": "",
}  # fmt: skip
ODD = [  # kinds that are not plain, each alone
    *({"window": size} for size in (3, 8, 20, 64)),
    *({"bias": bias} for bias in ("alibi", "table")),
    *({"rotary": True}, {"groups": 1}, {"groups": 2}),
]


def rows(kind: Kind) -> Iterator[tuple[dict[str, Array], Array]]:
    """Feeds of two rows of every length, and which tokens are real: all, padded right, left, with holes."""
    for length in LENGTHS:
        rng, places = np.random.default_rng(length), np.arange(length)
        everything, short = places < length, max(1, length // 2)
        masks = [everything] if kind.mask == "none" else [everything, places < short, places >= length - short]
        masks += [places % 3 != 1] * (kind.mask != "none" and length > 3)
        for mask in masks:
            real = np.stack([mask, everything])
            feeds = {"input_ids": np.where(real, rng.integers(2, VOCABULARY, real.shape), kind.pad)}
            yield feeds | ({"attention_mask": real.astype(np.int64)} if kind.mask == "input" else {}), real


def assert_alike(model: Model, before: Model, kind: Kind) -> None:
    """Within 1e-4 at real tokens."""
    given = list(rows(kind))
    pairs = zip(*(answers(one, [feeds for feeds, _ in given]) for one in (model, before)), given, strict=True)
    for ours, theirs, (_, real) in pairs:
        at_tokens = real[:, :, None] if kind.head == "states" else np.True_
        difference = np.abs(np.where(at_tokens, ours["output"] - theirs["output"], 0)).max()
        assert difference < 1e-4, f"{difference} at {real.shape[1]} tokens of {kind}"


def after(kind: Kind, steps: tuple[Pass, ...], seed: int = 0) -> Model:
    model = encoder(kind, seed)
    for step in steps:
        step.apply(model, Context())
    return model


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_passes_answer_alike_at_every_length(seed):
    """Whatever the encoder is like, the passes for the CPU and those for other targets change no answer."""
    kind = random_kind(seed)
    made = after(kind, (CPU, STANDARD)[seed % 2], seed)
    assert_alike(made, encoder(kind, seed), kind)
    inner = [other for node in made.graph.nodes for other in (node, *subgraph_nodes(node))]
    fused = any(node.op == "MultiHeadAttention" for node in inner)
    assert fused == ((kind.is_plain or kind.is_biased) and seed % 2 == 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_is_proven_where_it_is_plain_and_only_there(seed):
    """So are the feed-forward, its gate, and the mask, an input or made of ids."""
    kind = random_kind(seed)
    for layer in after(kind, (Canonicalize(),), seed).encoder.layers:
        assert (layer.form is not None) == kind.is_plain, f"{layer.reason} of {kind}"
        assert layer.form is None or (layer.form.mask is None) == (kind.mask == "none")
        assert (layer.gate is None) == (kind.gate == "none")
        assert layer.up is not None
        assert layer.up.d_out == NEURONS


@pytest.mark.parametrize("change", ODD, ids=str)
def test_attention_of_another_kind_is_never_claimed(change):
    kind = Kind(**(FIXED | change))
    assert [layer.form for layer in after(kind, (Canonicalize(),)).encoder.layers] == [None, None]
    assert_alike(after(kind, CPU), encoder(kind), kind)


@pytest.mark.parametrize("low", [-16.0, -60.0])
@pytest.mark.parametrize("change", [{}, {"rotary": True}, {"window": 3}], ids=str)
def test_a_mask_that_lowers_scores_by_little_hides_no_key(monkeypatch, change, low):
    """log(mask + 1e-7) is -16: keys at padding keep a weight once scores are large, so nothing may drop them."""
    monkeypatch.setattr(random_encoders, "LOW", low)
    kind = Kind(**(FIXED | change))
    model = after(kind, (Canonicalize(),))
    assert [layer.form for layer in model.encoder.layers] == [None, None]
    assert Unpad().apply(model, Context()).count == 0
    assert_alike(after(kind, CPU), encoder(kind), kind)


def test_heads_are_as_wide_without_padding(monkeypatch):
    """Their width is found by running where no Reshape states it, as behind pairs that are turned and stacked."""
    kind = Kind(**(FIXED | {"rotary": True}))
    monkeypatch.setattr("onnxslim_bert.model.find_encoder._written_width", lambda operand: None)
    model = after(kind, (Canonicalize(), Unpad()))
    assert any(node.name.startswith("unpad") for node in model.graph.nodes)
    assert {(layer.heads, layer.head_dim) for layer in model.encoder.layers} == {(HEADS, SIZE)}


@pytest.mark.parametrize("head", ["first", "states"])
@pytest.mark.parametrize("beside", ["in turn", "together"])
@pytest.mark.parametrize(
    "change", [{}, {"gate": "apart"}, {"gate": "split", "packing": "heads"}, {"rotary": True}], ids=str
)
def test_a_feed_forward_beside_attention_is_that_of_its_layer(change, beside, head):
    """Not that of the next one, which is the first dense layer behind the attention."""
    kind = Kind(**(FIXED | {"beside": beside, "head": head} | change))
    model = after(kind, (Canonicalize(),))
    tensors = model.graph.tensors()
    for layer in model.encoder.layers:
        assert layer.down is not None
        assert layer.linears["up"].source == layer.key.source
        read = {id(reader) for reader in tensors[layer.output.result].outputs}
        added = [reader for node in tensors[layer.output.result].outputs for reader in node.outputs[0].outputs]
        assert {id(reader) for reader in tensors[layer.down.result].outputs} <= read | {id(node) for node in added}
    for steps in (CPU, STANDARD):
        assert_alike(after(kind, steps), encoder(kind), kind)


@pytest.mark.parametrize("beside", ["", "in turn", "together"])
@pytest.mark.parametrize("gate", ["none", "apart", "sliced", "split"])
def test_neurons_that_go_are_neurons_that_give_nothing(gate, beside):
    """A column of up and of its gate, and a row of down: removing them equals zeroing that row."""
    kind = Kind(**(FIXED | {"gate": gate, "beside": beside}))
    pruned = kept_alone(kind, "neurons", np.array([0, 3, 4, 11, 19]))
    assert {layer.linears["up"].d_out for layer in pruned.encoder.layers} == {5}


@pytest.mark.parametrize("change", [*ODD, {"rotary": True, "groups": 2}, {"bias": "table", "window": 3}], ids=str)
def test_heads_that_go_are_heads_that_give_nothing(change):
    """Also where positions turn them or are added to their scores; those that share a key go together."""
    kind = Kind(**(FIXED | change))
    kept = np.array([0, 2, 3]) if kind.groups == HEADS else np.array([kind.groups - 1])
    pruned = kept_alone(kind, "heads", kept)
    assert {layer.groups for layer in pruned.encoder.layers} == {len(kept)}


def kept_alone(kind: Kind, units: UnitKind, kept: Array) -> Model:
    """An encoder with the units `kept` alone, which answers as with zeros where the others were read."""
    pruned, zeroed = after(kind, (Canonicalize(),)), after(kind, (Canonicalize(),))
    for index, site in enumerate(find_sites(zeroed, units)):
        for reader in site.readers(zeroed):
            rows = channels(kept, site.unit)
            values = np.zeros_like(matrix(zeroed, reader))
            values[rows] = matrix(zeroed, reader)[rows]
            set_dense(zeroed, Builder(zeroed.graph, ""), reader, values, None)
        keep_units(pruned, find_sites(pruned, units)[index], kept)
    assert_alike(pruned, zeroed, kind)
    return pruned
