"""Which inputs get their range at run time: those that a fixed range clips, and no more than it takes."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.int8.quantizers import activation_quantizer
from onnxslim_bert.rewriting.int8.run_time import choose_run_time, excess
from onnxslim_bert.rewriting.trials import Trials

ORDER = (3, 0, 7, 1, 2, 4, 5, 6)


class Measured(Trials):
    """Trials whose rows' errors are told: `dynamic` is 1 unless said, a model is the number of its inputs."""

    def __init__(self, rows, errors, dynamic):
        super().__init__(None, [], rows)
        self.errors, self.dynamic = errors, dynamic

    def row_errors(self, model):
        count = sum(len(batch.rows) for batch in self.held_back)
        return np.resize(self.dynamic if model == "dynamic" else self.errors(len(model), count), count)


def chosen(errors, dynamic=(1.0,)):
    rows = [Batch({}, np.ones((6, length), bool), np.arange(6)) for length in (4, 12)]
    trials = Measured(rows, errors, dynamic)
    return choose_run_time(len(ORDER), lambda: ORDER, lambda inputs: inputs, lambda: "dynamic", trials)


def worst(first, others):
    return lambda inputs, count: [first(inputs), *[others(inputs)] * (count - 1)]


@pytest.mark.parametrize(
    ("errors", "inputs"),
    [
        (worst(lambda n: 0.9, lambda n: 0.9), ()),
        (worst(lambda n: 2 - n / 2, lambda n: 2 - n / 2), (0, 3)),  # as good on average with two of them
        (worst(lambda n: 9 - 2 * n, lambda n: 0.1), (0, 1, 3, 7)),  # good on average, but one row is far off
        (worst(lambda n: 1.0, lambda n: 3 - n / 4), (0, 1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_as_few_as_it_takes(errors, inputs):
    found = chosen(errors)
    assert found.inputs == inputs
    assert found.as_good
    assert found.dynamic == 1


@pytest.mark.parametrize(("errors", "as_good"), [([0.9, 1.9], True), ([1.9, 1.0], False)])
def test_what_is_better_by_chance_is_not_as_good(errors, as_good):
    """Every row a little better counts; half of the rows much better and the others much worse does not."""
    assert chosen(lambda *_: errors, dynamic=(1.0, 2.0)).as_good is as_good


def test_where_none_is_as_good_that_is_said_and_the_nearest_taken():
    found = chosen(worst(lambda n: 4 - n / 8, lambda n: 4 - n / 8))
    assert not found.as_good
    assert found.inputs == tuple(range(8))
    assert (found.fixed, found.error) == pytest.approx((2, np.sqrt(3)))


def test_a_short_row_that_is_clipped_is_not_hidden_by_long_ones():
    """Rows of few tokens are a group of their own."""
    found = chosen(lambda inputs, count: [1.3 if inputs < 8 else 0.9] * 6 + [0.1] * (count - 6))
    assert found.inputs == tuple(range(8))


def test_a_row_behind_padding_is_not_hidden_by_others():
    """Where ranges from run time are far off on rows behind padding alone, the others are still held to theirs."""
    masks = [np.ones((6, 4), bool), np.tile([False, True, True, True], (6, 1))]
    rows = [Batch({}, mask, np.arange(6)) for mask in masks]
    trials = Measured(rows, lambda inputs, count: [1.5 if inputs < 8 else 0.9] * 6 + [0.1] * 6, [1.0] * 6 + [9.0] * 6)
    assert choose_run_time(8, lambda: ORDER, lambda inputs: inputs, lambda: "dynamic", trials).inputs == tuple(range(8))


def test_the_excess_is_that_of_the_row_that_is_clipped_most():
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    rows = batches(model)
    sources = [layer.down.source for layer in model.encoder.layers]
    wide, narrow = activation_quantizer(-20.0, 20.0), activation_quantizer(-0.01, 0.01)
    found = excess(model, {sources[0]: wide, sources[1]: narrow}, Trials(model, rows, rows))
    assert list(found) == sources[:2]
    assert found[sources[1]] > 0.5
    assert 0 < found[sources[0]] < 0.1
