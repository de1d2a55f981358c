"""Neurons go where the model misses them least."""

import pytest
from graphs import apply, every_padding, prepared
from oracles import assert_same_outputs
from pruned import units, without_units

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_ffn import PruneFfn


@pytest.mark.parametrize("rounds", [1])
@pytest.mark.parametrize("refit", [True, False])
def test_neurons_that_do_nothing_go_first(rounds, refit):
    """Wherever they are: the answers stay what they were."""
    model = prepared("bert-ts17-sdpa", Canonicalize(), Fuse())
    idle = without_units(model, "neurons", [range(20), range(3, 18), [*range(8), 19]])
    model = idle.clone()
    apply(PruneFfn(keep=44 / 60, rounds=rounds, refit=refit), model)
    assert units(model, "neurons") == [20, 15, 9]
    assert_same_outputs(model, idle, every_padding(model), atol=2e-3 if refit else 1e-5)
