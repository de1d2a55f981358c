"""One sweep gives the statistics of all real tokens at once, and keeps no batch."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from graphs import batches, feeds, prepared, real_tokens
from oracles import values_of

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.collect import collect, real_rows
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.unpad import Unpad

CANONICAL, FUSE = Canonicalize(), Fuse()


def rows_of(model: Model, tensor: str) -> np.ndarray:
    """[tokens, channels] of `tensor` over every real token of `batches`."""
    return np.concatenate([values_of(model, [tensor], batch.feeds)[0][batch.mask] for batch in batches(model)])


@pytest.mark.parametrize("name", ["bert-ts13-eager", "albert-dynamo20-sdpa", "prenorm-ts17-sdpa"])
def test_a_sweep_gives_what_all_real_tokens_give_at_once(name):
    """Ragged batches, random ids where the padding is; for every kind of tensor that a dense layer reads."""
    model = prepared(name, CANONICAL, FUSE)
    layer = model.encoder.layers[1]
    for linear in (layer.query, layer.output, layer.down):
        wants = [Want(linear.source, kind) for kind in ("minmax", "channel-range", "sample", "histogram")]
        minmax, channels, sample, histogram = collect(model, wants, batches(model)).values()
        rows = rows_of(model, linear.source)
        assert (minmax.low, minmax.high) == (pytest.approx(rows.min(), rel=1e-4), pytest.approx(rows.max(), rel=1e-4))
        np.testing.assert_allclose(channels, [rows.min(0), rows.max(0)], atol=1e-5)
        np.testing.assert_allclose(sample, rows, atol=1e-5)
        assert histogram.counts.sum() == rows.size


def test_several_tensors_in_one_sweep():
    """Each statistic under the want that asked for it."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    wants = [Want(linear.source, "minmax") for linear in model.encoder.layers[0].linears.values()]
    together = collect(model, wants, batches(model))
    assert set(together) == set(wants)
    for want in wants:
        assert collect(model, [want], batches(model))[want] == together[want]


def test_an_unpadded_model_has_real_tokens_only():
    """Its tensors are [tokens, channels] already."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, Unpad())
    whole = prepared("bert-ts17-eager", CANONICAL, FUSE)
    ranges = [
        collect(m, [Want(m.encoder.layers[1].up.source, "minmax")], batches(m)).popitem()[1] for m in (model, whole)
    ]
    assert ranges[0].low == pytest.approx(ranges[1].low, rel=1e-4)
    assert ranges[0].high == pytest.approx(ranges[1].high, rel=1e-4)


class Passing:
    """Many batches, made one by one; counts those that somebody still holds."""

    def __init__(self, model: Model, count: int) -> None:
        self.model, self.count = model, count
        self.most = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        made: list[weakref.ref[np.ndarray]] = []
        for i in range(self.count):
            given = feeds(self.model, 2 + i % 3, 5 + i % 7, seed=i)
            made.append(weakref.ref(given["input_ids"]))
            yield Batch(given, real_tokens(given), np.arange(2 + i % 3))
            del given
            self.most = max(self.most, sum(ref() is not None for ref in made))


def test_batches_pass_by():
    """However many there are, no more than two are held at a time."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    passing = Passing(model, 40)
    collect(model, [Want(model.encoder.layers[0].up.source, "histogram")], passing)
    assert 0 < passing.most <= 2


def test_progress_counts_every_batch():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    told: list[tuple[int, int]] = []
    collect(model, [Want(model.encoder.layers[0].up.source, "minmax")], batches(model), lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nothing_wanted_runs_nothing():
    assert collect(prepared("bert-ts17-eager", CANONICAL), [], batches(prepared("bert-ts17-eager"))) == {}


def test_no_rows_are_refused():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    with pytest.raises(DataError, match="no calibration rows; give a set with at least one row"):
        collect(model, [Want(model.encoder.layers[0].up.source, "minmax")], [])


def test_activations_that_are_not_finite_are_refused():
    """The tensor is named: weights that overflow are the usual cause."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    layer = model.encoder.layers[0]
    model.replace(layer.up.weight, np.sign(model.array(layer.up.weight)) * np.finfo(np.float32).max)
    with pytest.raises(ModelError, match=r"tensor '.*' is not finite on calibration rows"):
        collect(model, [Want(layer.down.source, "minmax")], batches(model))


def test_real_rows_are_those_under_the_mask():
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    mask = np.array([[True, False, True], [True, False, False]])
    np.testing.assert_array_equal(real_rows(values, mask), [values[0, 0], values[0, 2], values[1, 0]])
    np.testing.assert_array_equal(real_rows(values[:, 0], mask), values[:, 0])
