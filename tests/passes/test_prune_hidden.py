"""Channels of the residual stream go, and what is left is a narrower encoder."""

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, feeds, prepared, trials
from oracles import answers, assert_same_outputs

from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.inspection.encoder_facts import encoder_facts
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_hidden import PruneHidden
from onnxslim_bert.passes.share_weights import ShareWeights
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.narrow import every_value, keep_channels, short_row
from onnxslim_bert.rewriting.pruning.stream import follow_stream

CANONICAL, FUSE, STANDARD = Canonicalize(), Fuse(), Fuse(style="standard")
CUT, REFIT = PruneHidden(width=12, refit=False), PruneHidden(width=12)


def stream_of(model, last=None):
    return follow_stream(model, every_value(model, short_row(model, trials(model))), last)


def widened(narrow, share):
    """`narrow` with every channel twice, in any order, so that mean and variance over channels are what they were.

    share: of its weight, what the first copy of a channel has in the matrices that read it; the second has the rest.
    """
    stream, wide = stream_of(narrow), narrow.clone()
    channels = np.random.default_rng(3).permutation(np.repeat(np.arange(stream.width), 2))
    first = np.array([channel not in channels[:place] for place, channel in enumerate(channels)])
    keep_channels(wide, stream, channels)
    weights = np.where(first, share, 1 - share).astype(np.float32)
    nodes = {node.name: node for node in wide.graph.nodes}
    reading = {nodes[cut.node].inputs[cut.position].name: cut.axis for cut in stream.cuts if cut.reads}
    for name, axis in reading.items():
        wide.replace(name, wide.array(name) * (weights[:, None] if axis == -2 else weights))
    wide.changed()
    assert wide.encoder.hidden == 2 * stream.width
    return wide


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *((name, (CANONICAL,)) for name in (*SOME, "bert-mlm-tied", "bert-mlm", "bert-nomask", "fused-mha")),
        *((name, (CANONICAL, FUSE)) for name in (*SOME, "bert-mlm-tied")),
        ("bert-ts13-eager", (CANONICAL, STANDARD)),
    ],
)
def test_every_tensor_along_the_stream_is_found(name, steps):
    """In any other order of the channels, each of them twice, the model answers as before."""
    model = prepared(name, *steps)
    assert_same_outputs(widened(model, 0.3), model, every_padding(model)[:2], atol=2e-5)


@pytest.mark.parametrize("name", SOME)
def test_the_encoder_that_was_widened_comes_back(name):
    """Channels that repeat others and that nothing reads go first; without them it answers as before it had them."""
    narrow = prepared(name, CANONICAL, FUSE)
    model = widened(narrow, 1.0)
    before = sum(values.values.nbytes for values in model.constants().values())
    assert apply(CUT, model).count == 12
    assert model.encoder.hidden == 12
    assert_same_outputs(model, narrow, every_padding(narrow), atol=2e-5)
    assert sum(values.values.nbytes for values in model.constants().values()) < 0.7 * before


def test_matrices_make_up_for_the_channels_that_went():
    """Where both copies are read, what reads the one that stays is fitted to read it as much as both."""
    narrow = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    cut, fitted = widened(narrow, 0.4), widened(narrow, 0.4)
    on_rows = trials(fitted)
    apply(CUT, cut)
    change = REFIT.apply(fitted, Context({}, on_rows))
    assert on_rows.damage(fitted) < 0.3 * on_rows.damage(cut)
    assert len(change.details["errors"]) == 13  # 3 layers of two readers and two writers, and the head
    assert max(change.details["errors"][:-1]) < 0.05


def test_a_matrix_that_layers_share_is_cut_once():
    narrow = prepared("albert-ts14-sdpa", CANONICAL, FUSE)
    model = widened(narrow, 1.0)
    apply(REFIT, model)
    assert len({layer.query.weight for layer in model.encoder.layers}) == 1
    assert_same_outputs(model, narrow, every_padding(narrow), atol=2e-3)


def test_a_tied_decoder_reads_the_narrow_table():
    """What is multiplied with the word table loses the same channels, and the table can still be stored once."""
    model = prepared("bert-mlm-tied", CANONICAL, FUSE, PruneHidden(width=9))
    assert answers(model, [feeds(model)])[0]["logits"].shape == (3, 7, 37)
    apply(ShareWeights(), model)
    assert [c.values.shape for c in model.constants().values() if 37 in c.values.shape and c.values.ndim == 2] == [
        (37, 9)
    ]


@pytest.mark.parametrize(("name", "refit"), [("bert-features", True), ("bert-features-pooled", False)])
def test_outputs_that_are_the_stream_keep_their_width(name, refit):
    """A dense layer behind the last one computes all channels; it reads the stream when that is cut again."""
    model = prepared(name, CANONICAL, FUSE)
    change = PruneHidden(width=11, refit=refit).apply(pruned := model.clone(), Context({}, trials(model)))
    assert "a dense layer restores 12" in change.note
    assert pruned.encoder.hidden == 11
    for ours, theirs in zip(answers(pruned, every_padding(model)), answers(model, every_padding(model)), strict=True):
        assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}
    again = PruneHidden(width=9, refit=False).apply(pruned, Context({}, trials(model)))
    assert "restores" not in again.note
    assert pruned.encoder.hidden == 9


def test_a_sum_that_is_restored_is_fitted_to_all_channels():
    """Where the user gets the norm of the last sum, as of towers and pre-norm encoders, the stream ends at that sum."""
    model = prepared("prenorm-ts17-sdpa", CANONICAL, FUSE)
    (norm,) = (node for node in model.graph.tensors()[find_spans(model)[-1].exit].outputs if "Norm" in node.op)
    norm.outputs[0].dtype = np.dtype(np.float32)
    model.graph.outputs.append(norm.outputs[0])
    model.changed()
    cut, fitted, on_rows = model.clone(), model.clone(), trials(model)
    PruneHidden(width=10, refit=False).apply(cut, Context({}, on_rows))
    change = PruneHidden(width=10).apply(fitted, Context({}, on_rows))
    assert "a dense layer restores 12" in change.note
    assert on_rows.damage(fitted) < on_rows.damage(cut)


def test_what_is_counted_is_that_of_the_narrow_encoder(tmp_path):
    """The file opens and is smaller; layers, tables and matrices are as wide as the stream."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    model.save(tmp_path / "whole.onnx")
    apply(PruneHidden(keep=0.667, refit=False), model)
    model.save(tmp_path / "narrow.onnx")
    assert (tmp_path / "narrow.onnx").stat().st_size < (tmp_path / "whole.onnx").stat().st_size
    read = Model.load(tmp_path / "narrow.onnx")
    facts = encoder_facts(read)
    assert facts.hidden == read.encoder.hidden == 8
    assert {read.array(table).shape[1] for table in read.encoder.embeddings.tables.values()} == {8}
    for layer in read.encoder.layers:
        linears = layer.linears
        assert {linears[role].d_in for role in ("query", "key", "value", "up")} == {8}
        assert {linears[role].d_out for role in ("output", "down")} == {8}
        assert linears["query"].d_out == linears["output"].d_in == 12


def test_restored_channels_are_exact_where_they_repeat_others():
    narrow = prepared("bert-features", CANONICAL, FUSE)
    wide = widened(narrow, 1.0)
    for output in wide.graph.outputs:
        output.shape = None
    expected = answers(wide, every_padding(narrow))
    PruneHidden(width=12, refit=False).apply(wide, Context({}, trials(wide)))
    for ours, theirs in zip(answers(wide, every_padding(narrow)), expected, strict=True):
        for name, values in theirs.items():
            assert np.abs(ours[name] - values).max() < 0.05 * np.abs(values).max()


def test_nothing_to_remove():
    model = prepared("bert-ts17-sdpa", CANONICAL)
    change = apply(PruneHidden(keep=1.0), before := model.clone())
    assert (change.count, change.note) == (0, "all 12 channels are kept")
    assert before.fingerprint() == model.fingerprint()


def softened(model):
    """With a Softmax over the channels of the embeddings."""
    source = model.graph.tensors()[model.encoder.layers[0].query.source]
    build = Builder(model.graph, "odd")
    readers = list(source.outputs)
    soft = build.node("Softmax", "soft", [source], axis=-1)
    for node in readers:
        node.inputs = [soft if tensor is source else tensor for tensor in node.inputs]
    model.changed()
    return model


def averaged(model):
    """With the mean over the channels of the last layer's state as an output."""
    source = model.graph.tensors()[find_spans(model)[-1].exit]
    mean = Builder(model.graph, "odd").node("ReduceMean", "mean", [source], axes=[-1])
    mean.dtype = np.dtype(np.float32)
    model.graph.outputs.append(mean)
    model.changed()
    return model


def with_states(model):
    """With the state behind the first layer as an output."""
    state = model.graph.tensors()[model.encoder.layers[1].query.source]
    state.dtype = np.dtype(np.float32)
    model.graph.outputs.append(state)
    model.changed()
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (softened, r"prune-hidden: node 'odd/soft' \(Softmax\) does not treat the stream's channels one by one"),
        (averaged, r"prune-hidden: node 'odd/mean' \(ReduceMean\) does not treat the stream's channels one by one"),
        (with_states, "is the stream before the last layer's end; needed outputs"),
        (lambda model: prepared("quantized-dynamic", CANONICAL), "start from the float32 model"),
    ],
)
def test_what_it_cannot_follow_is_refused(change, message):
    model = change(prepared("bert-ts17-sdpa", CANONICAL))
    before = model.fingerprint()
    with pytest.raises(PassError, match=message):
        apply(PruneHidden(width=8), model)
    assert model.fingerprint() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.5, "width": 6}, "keep and width are given; give one of them"),
        ({"keep": 0.0}, r"keep=0.0 is not in \(0, 1\]"),
        ({"width": 0}, "width=0 is not 1 or more"),
        ({"width": 13}, "width=13 is more than the stream has, 12"),
        ({"keep": 0.01}, "keep=0.01 of 12 channels leaves fewer than 1"),
    ],
)
def test_widths_that_are_none(options, message):
    with pytest.raises(PassError, match=message):
        apply(PruneHidden(**options), prepared("bert-ts17-sdpa", CANONICAL))


@pytest.mark.parametrize(
    ("keep", "hidden", "width"), [(0.667, 384, 256), (0.75, 768, 576), (0.75, 72, 54), (0.5, 300, 128)]
)
def test_a_share_is_a_width(keep, hidden, width):
    assert PruneHidden(keep=keep).width_of(hidden) == width


def test_without_calibration_rows():
    with pytest.raises(DataError, match="name some with --calib"):
        PruneHidden(width=8).apply(prepared("bert-ts17-sdpa", CANONICAL), Context())
