"""Which layers of a student belong to which of its teacher's."""

import pytest
from graphs import prepared

from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.drop_layers import DropLayers
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.low_rank import LowRank
from onnxslim_bert.passes.prune_heads import PruneHeads
from onnxslim_bert.rewriting.distillation.layers import kept_layers, layer_pairs, relation_heads, relation_pairs

CANONICAL, FUSE = Canonicalize(), Fuse()


def exits(model):
    return [span.exit for span in find_spans(model)]


@pytest.mark.parametrize(
    ("dropped", "kept", "ends"),
    [((1,), [0, 2], [1, 2]), ((0,), [1, 2], [1, 2]), ((2,), [0, 1], [0, 2]), ((1, 0), [2], [2])],
)
@pytest.mark.parametrize("name", ["bert-dynamo20-sdpa", "prenorm-ts17-eager"])
def test_a_layer_is_to_leave_what_the_next_kept_one_reads(name, dropped, kept, ends):
    teacher = prepared(name, CANONICAL)
    student = prepared(name, CANONICAL, FUSE, DropLayers(layers=dropped), PruneHeads(keep=0.5))
    assert kept_layers(student.encoder.layers, teacher.encoder.layers) == kept
    assert layer_pairs(student, teacher) == list(zip(exits(student), [exits(teacher)[i] for i in ends], strict=True))


def test_layers_that_share_their_matrices_are_told_apart_by_their_nodes():
    teacher = prepared("albert-ts17-sdpa", CANONICAL)
    student = prepared("albert-ts17-sdpa", CANONICAL, DropLayers(layers=(1,), refit=False))
    assert kept_layers(student.encoder.layers, teacher.encoder.layers) == [0, 2]


def test_layers_of_other_names_are_spread_evenly():
    teacher = prepared("bert-dynamo20-sdpa", CANONICAL)
    other = prepared("roberta-ts17-eager", CANONICAL)
    assert kept_layers(other.encoder.layers[:2], teacher.encoder.layers) == [0, 1]
    assert kept_layers(other.encoder.layers, teacher.encoder.layers) == [0, 1, 2]


def test_factors_still_belong_to_their_layers():
    teacher = prepared("bert-dynamo20-sdpa", CANONICAL)
    student = prepared("bert-dynamo20-sdpa", CANONICAL, FUSE, LowRank())
    assert kept_layers(student.encoder.layers, teacher.encoder.layers) == [0, 1, 2]


def test_relations_are_of_the_last_layers():
    teacher, student = prepared("bert-ts17-sdpa", CANONICAL), prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    last = teacher.encoder.layers[-1]
    theirs = [other for _, other in relation_pairs(student, teacher)]
    assert theirs == [last.query.result, last.key.result, last.value.result]


@pytest.mark.parametrize(("widths", "heads", "parts"), [((192, 384), 12, 12), ((192, 384), 9, 8), ((7, 5), 4, 1)])
def test_relations_are_cut_into_parts_of_both_widths(widths, heads, parts):
    assert relation_heads(widths, heads) == parts
