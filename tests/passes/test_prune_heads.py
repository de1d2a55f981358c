"""Heads go where the model misses them least, and what reads the others makes up for them."""

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, prepared
from oracles import answers, assert_same_outputs, matrix

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_heads import PruneHeads

CANONICAL, FUSE = Canonicalize(), Fuse()
OTHERS = ("bert-features", "bert-mlm-tied", "bert-nomask", "bert-dynamo23-sdpa", "fused-mha")


def heads(model):
    return [layer.heads for layer in model.encoder.layers]


@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_a_share_of_the_heads_is_left(name):
    """Over the whole encoder, one in each layer at least; layers that share matrices have one number."""
    model = prepared(name, CANONICAL)
    shared, total = len({model.encoder.layers[i].query.weight for i in (0, 1)}) == 1, len(model.encoder.layers) * 3
    change = apply(PruneHeads(keep=0.67), model)
    counts = heads(model)
    assert min(counts) >= 1
    assert sum(counts) == int(total * 0.67)
    assert len(set(counts)) == 1 or not shared
    assert change.count == (1 if shared else total - sum(counts))
    assert change.note.startswith(f"{change.count} of {3 if shared else total} heads removed; kept ")
    for values in answers(model, every_padding(model)):
        assert all(np.isfinite(value).all() for value in values.values())


@pytest.mark.parametrize("name", SOME)
def test_without_a_refit_heads_that_are_left_work_as_before(name):
    """The answers are those of the whole model with zeros in the rows of the others."""
    model = prepared(name, CANONICAL, FUSE)
    zeroed = model.clone()
    apply(PruneHeads(keep=0.67, even=True, refit=False), model)
    for before, after in zip(zeroed.encoder.layers, model.encoder.layers, strict=True):
        rows = matrix(zeroed, before.output)
        left = matrix(model, after.output)
        kept = [
            head
            for head in range(3)
            if any(np.array_equal(rows[head * 4 : head * 4 + 4], left[i : i + 4]) for i in range(0, len(left), 4))
        ]
        mask = np.isin(np.arange(12) // 4, kept)[:, None]
        if before.index == 0 or before.output.weight != zeroed.encoder.layers[0].output.weight:
            zeroed.replace(
                before.output.weight, zeroed.array(before.output.weight) * (mask.T if before.output.trans_b else mask)
            )
    assert heads(model) == [2] * 3
    assert_same_outputs(model, zeroed, every_padding(model), atol=1e-5)
